//! A manager written for bb8 works as it is.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use common::*;
use swiftwater_pool::{Bb8, Check, GetError, Pool};

#[derive(Debug, Default)]
struct Manager {
    opened: AtomicUsize,
    validated: AtomicUsize,
}

struct Session {
    id: usize,
    broken: bool,
    valid: bool,
}

impl bb8::ManageConnection for Manager {
    type Connection = Session;
    type Error = &'static str; // not an `Error`, which bb8 allows

    async fn connect(&self) -> Result<Session, &'static str> {
        let id = self.opened.fetch_add(1, SeqCst);
        if id == 9 { Err("no more") } else { Ok(Session { id, broken: false, valid: true }) }
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), &'static str> {
        self.validated.fetch_add(1, SeqCst);
        session.valid.then_some(()).ok_or("stale")
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.broken
    }
}

#[tokio::test(start_paused = true)]
async fn connect_is_valid_and_has_broken_are_used_as_bb8_means_them() {
    let pool = Pool::builder().max_size(1).check(Check::Always).build(Manager::default()).unwrap();
    let mut session = pool.get().await.unwrap();
    assert_eq!(session.id, 0);
    session.broken = true;
    drop(session);
    let mut session = pool.get().await.unwrap();
    assert_eq!(session.id, 1, "has_broken");
    session.valid = false;
    drop(session);
    assert_eq!(pool.get().await.unwrap().id, 2, "is_valid");
}

#[tokio::test(start_paused = true)]
async fn the_migration_module_names_the_same_types() {
    let pool: swiftwater_pool::bb8::Pool<Manager> = swiftwater_pool::bb8::Pool::builder()
        .max_size(2)
        .min_idle(Some(1))
        .idle_timeout(Some(millis(1_000)))
        .max_lifetime(None)
        .retry_connection(false)
        .build(Manager::default())
        .unwrap();
    let again: &Pool<Bb8<Manager>> = &pool;
    let guard: swiftwater_pool::bb8::PooledConnection<Manager> = again.get().await.unwrap();
    drop(guard);
    let manager = Manager { opened: AtomicUsize::new(9), ..Manager::default() };
    let pool = Pool::builder().retry_connection(false).build(manager).unwrap();
    let error: swiftwater_pool::bb8::RunError<&str> = pool.get().await.unwrap_err();
    assert!(matches!(error, GetError::Connect("no more")));
}

/// A `Connect` of one's own around a bb8 manager: what bb8 calls a customizer.
#[tokio::test(start_paused = true)]
async fn a_manager_can_be_wrapped() {
    struct Custom(Bb8<Manager>);
    impl swiftwater_pool::Connect for Custom {
        type Connection = Session;
        type Error = &'static str;
        async fn connect(&self) -> Result<Session, &'static str> {
            let mut session = self.0.connect().await?;
            session.id += 100;
            Ok(session)
        }
        async fn check(&self, session: &mut Session) -> Result<(), &'static str> {
            self.0.check(session).await
        }
        fn is_broken(&self, session: &mut Session) -> bool {
            self.0.is_broken(session)
        }
    }
    let shared = std::sync::Arc::new(Custom(Bb8(Manager::default())));
    let pool = Pool::builder().build(shared).unwrap();
    assert_eq!(pool.get().await.unwrap().id, 100);
    let boxed = Box::new(Custom(Bb8(Manager::default())));
    assert_eq!(Pool::builder().build(boxed).unwrap().get().await.unwrap().id, 100);
}
