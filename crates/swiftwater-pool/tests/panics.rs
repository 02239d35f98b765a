//! A panic in the connector costs at most the connection in question.

mod common;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

use common::*;
use swiftwater_core::Backoff;
use swiftwater_pool::{Check, Connect, GetError, Pool};

#[tokio::test(start_paused = true)]
async fn in_connect_the_caller_who_does_not_retry_is_told() {
    let backend = Backend::new().connects([Step::Panic]);
    let pool = builder().retry_connection(false).max_size(1).build(backend).unwrap();
    assert!(matches!(pool.get().await, Err(GetError::ConnectPanicked)));
    assert!(pool.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn in_connect_the_caller_who_retries_never_notices() {
    let backend = Backend::new().connects([Step::Panic, Step::Panic]);
    let pool = builder().max_size(1).backoff(Backoff::new(millis(1), millis(1))).build(backend).unwrap();
    assert!(pool.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn in_check_the_connection_is_replaced() {
    let backend = Backend::new();
    let pool = builder().max_size(1).check(Check::Always).build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    backend.checks([Step::Panic]);
    assert_eq!(pool.get().await.unwrap().id, 1);
    assert_eq!((backend.sockets(), reading(&pool, "closed_check_failed")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn in_is_broken_on_return_the_connection_is_closed() {
    let backend = Backend::new();
    let pool = builder().max_size(1).build(backend.clone()).unwrap();
    let guard = pool.get().await.unwrap();
    backend.is_broken_panics(true);
    drop(guard);
    assert_eq!((backend.sockets(), pool.state().in_use), (0, 0));
    backend.is_broken_panics(false);
    assert_eq!(pool.get().await.unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn in_is_broken_at_checkout_the_next_connection_is_taken() {
    let backend = Backend::new();
    let pool = builder().max_size(2).build(backend.clone()).unwrap();
    drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
    backend.is_broken_panics(true);
    assert!(pool.try_get().is_none());
    assert_eq!((backend.sockets(), pool.state().in_use, pool.state().idle), (0, 0, 0));
    backend.is_broken_panics(false);
    assert_eq!(pool.get().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn in_close_and_in_destructors_nothing_is_lost() {
    let backend = Backend::new();
    backend.always_closes(Step::Panic);
    let pool = builder().max_size(1).build(backend.clone()).unwrap();
    pool.get().await.unwrap().discard();
    assert_eq!((pool.state().in_use, backend.sockets()), (0, 0));
    backend.always_closes(Step::Ok);
    let mut guard = pool.get().await.unwrap();
    guard.panic_on_drop = true;
    guard.discard();
    assert_eq!((pool.state().in_use, backend.sockets()), (0, 0));
    assert_eq!(pool.get().await.unwrap().id, 2);
    pool.close().await;
}

#[tokio::test(start_paused = true)]
async fn in_the_user_the_connection_is_discarded() {
    let backend = Backend::new();
    let pool = builder().max_size(1).build(backend.clone()).unwrap();
    let guard = pool.get().await.unwrap();
    assert!(
        quietly(move || {
            let _guard = guard;
            panic!("the user panics, as scripted");
        })
        .is_err()
    );
    assert_eq!((backend.sockets(), reading(&pool, "closed_discarded")), (0, 1));
    let inside = pool.clone();
    let runtime = tokio::runtime::Handle::current();
    let task = runtime
        .spawn(async move { inside.with(async |_| -> () { panic!("in with, as scripted") }).await.is_ok() });
    assert!(task.await.is_err());
    assert_eq!((backend.sockets(), reading(&pool, "closed_discarded")), (0, 2));
    assert!(pool.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn in_somebodys_waker_the_others_are_woken_all_the_same() {
    struct Mine;
    impl Wake for Mine {
        fn wake(self: Arc<Self>) {
            panic!("the waker panics as scripted");
        }
    }
    let pool = builder().max_size(1).build(Backend::new()).unwrap();
    let held = pool.get().await.unwrap();
    let (mut first, mut second, woken) = (pool.get(), pool.get(), Arc::new(Woken::default()));
    let mine = Waker::from(Arc::new(Mine));
    assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&mine)).is_pending());
    assert!(poll(&mut second, &woken).is_pending());
    drop(pool.close());
    assert_eq!(woken.times(), 1);
    drop(held);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the destructor panics as scripted");
    }
}

/// The first connect and the first check hang, and panic when they are cut off.
#[derive(Default)]
struct Trapped {
    connects: AtomicU32,
    checks: AtomicU32,
}

impl Connect for Trapped {
    type Connection = u32;
    type Error = Refused;

    async fn connect(&self) -> Result<u32, Refused> {
        let turn = self.connects.fetch_add(1, SeqCst);
        if turn == 0 {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        }
        Ok(turn)
    }

    async fn check(&self, _: &mut u32) -> Result<(), Refused> {
        if self.checks.fetch_add(1, SeqCst) == 0 {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn is_broken(&self, _: &mut u32) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn when_a_connect_or_a_check_is_cut_off_the_pool_goes_on() {
    let pool = Pool::builder()
        .clock(tokio_clock())
        .max_size(1)
        .check(Check::Always)
        .connect_timeout(millis(50))
        .check_timeout(millis(50))
        .build(Trapped::default())
        .unwrap();
    assert_eq!(*pool.get().await.unwrap(), 1);
    assert_eq!(*pool.get().await.unwrap(), 2, "the one whose check blew up is gone");
    assert_eq!((pool.state().in_use, pool.state().connecting, pool.state().idle), (0, 0, 1));
    assert_eq!(reading(&pool, "connect_failures"), 1);
}

/// An error whose destructor panics.
#[derive(Debug)]
struct Spiteful;

impl Drop for Spiteful {
    fn drop(&mut self) {
        panic!("the destructor panics as scripted");
    }
}

/// Fails once.
#[derive(Default)]
struct FailsSpitefully(AtomicU32);

impl Connect for FailsSpitefully {
    type Connection = u32;
    type Error = Spiteful;

    async fn connect(&self) -> Result<u32, Spiteful> {
        match self.0.fetch_add(1, SeqCst) {
            0 => Err(Spiteful),
            turn => Ok(turn),
        }
    }

    async fn check(&self, _: &mut u32) -> Result<(), Spiteful> {
        Ok(())
    }

    fn is_broken(&self, _: &mut u32) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_destructor_of_an_error_what_follows_from_the_failure_is_done() {
    let pool = builder_of::<FailsSpitefully>().min_idle(1).build(FailsSpitefully::default()).unwrap();
    pass(millis(1_000)).await;
    assert_eq!((pool.state().idle, pool.state().connecting), (1, 0), "the attempt was made again");
    assert_eq!(*pool.get().await.unwrap(), 1);
}
