//! `close`, and the end of the last handle.

mod common;

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, OnceLock},
    task::Poll,
};

use common::*;
use swiftwater_pool::{Check, Connect, GetError, Pool, State};

#[tokio::test(start_paused = true)]
async fn close_fails_waiters_closes_idle_ones_and_waits_for_those_in_use() {
    let backend = Backend::new();
    let pool = builder().max_size(2).build(backend.clone()).unwrap();
    let (held, idle) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(idle);
    let last = pool.get().await.unwrap();
    let mut waiting = queued(&pool);
    drop(last);
    drop(served(&mut waiting));
    let second = pool.get().await.unwrap();
    let mut waiting = queued(&pool);
    let mut closed = Box::pin(pool.close());
    assert!(matches!(failed(&mut waiting), Some(GetError::Closed)), "at once");
    assert!(matches!(pool.get().await, Err(GetError::Closed)));
    assert!(pool.try_get().is_none());
    assert!(peek(&mut closed).is_pending());
    drop(second);
    settle().await;
    assert!(peek(&mut closed).is_pending(), "one is still in use");
    drop(held);
    settle().await;
    assert!(peek(&mut closed).is_ready());
    assert_eq!(backend.sockets(), 0);
    assert_eq!((backend.opened(), backend.closed()), (2, 2), "with a goodbye each");
}

#[tokio::test(start_paused = true)]
async fn close_takes_effect_when_called_and_dropping_it_changes_nothing() {
    let pool = builder().build(Backend::new()).unwrap();
    drop(pool.get().await.unwrap());
    drop(pool.close());
    assert!(matches!(pool.get().await, Err(GetError::Closed)));
    assert_eq!(pool.state().idle, 0);
    pool.close().await; // again, and to the end
}

#[tokio::test(start_paused = true)]
async fn close_gives_up_what_is_being_opened_or_checked() {
    let backend = Backend::new();
    let pool = builder().check(Check::Always).max_size(2).build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    backend.always_checks(Step::Hang);
    backend.always_connects(Step::Hang);
    let (_one, _two) = (queued(&pool), queued(&pool));
    settle().await;
    assert_eq!((backend.connecting(), pool.state().in_use), (1, 1));
    let before = tokio::time::Instant::now();
    pool.close().await;
    assert!(before.elapsed() < millis(10), "neither time-out is waited for");
    assert_eq!(backend.sockets(), 0);
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_slow_goodbyes_and_not_for_ever() {
    let backend = Backend::new();
    let pool = builder().build(backend.clone()).unwrap();
    drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
    backend.always_closes(Step::Delay(millis(300)));
    let before = tokio::time::Instant::now();
    pool.close().await;
    assert!(before.elapsed() >= millis(300));
    assert_eq!(backend.sockets(), 0);

    let pool = builder().build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    backend.always_closes(Step::Hang);
    let before = tokio::time::Instant::now();
    pool.close().await;
    assert!(before.elapsed() < millis(5_100));
    assert_eq!(backend.sockets(), 0, "cut off and dropped");
}

#[tokio::test(start_paused = true)]
async fn a_slow_goodbye_stands_in_nobodys_way() {
    let backend = Backend::new();
    backend.always_closes(Step::Hang);
    let pool = builder().max_size(1).build(backend.clone()).unwrap();
    pool.get().await.unwrap().discard();
    let before = tokio::time::Instant::now();
    drop(pool.get().await.unwrap());
    assert!(before.elapsed() < millis(10));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_closes_idle_connections() {
    let backend = Backend::new();
    let pool = builder().build(backend.clone()).unwrap();
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(two);
    let other = pool.clone();
    drop(pool);
    assert_eq!(other.state().idle, 1, "a clone is a handle");
    let get = other.get();
    drop(other);
    assert!(get.await.is_ok(), "a get keeps the pool alive");
    assert_eq!(backend.sockets(), 2, "so does a guard");
    drop(one);
    settle().await;
    assert_eq!(backend.sockets(), 0);
    assert_eq!(backend.closed(), 2);
}

#[tokio::test(start_paused = true)]
async fn closing_is_awaited_by_as_many_as_like() {
    let pool = builder().build(Backend::new()).unwrap();
    let held = pool.get().await.unwrap();
    let (mut one, mut two) = (pin!(pool.close()), pin!(pool.close()));
    std::future::poll_fn(|cx| {
        assert!(one.as_mut().poll(cx).is_pending() && two.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(held);
    one.await;
    two.await;
}

/// Notes how the pool stands while a connection is being closed.
#[derive(Clone, Default)]
struct Watcher {
    pool: Arc<OnceLock<Pool<Self>>>,
    seen: Arc<Mutex<Vec<State>>>,
}

impl Connect for Watcher {
    type Connection = ();
    type Error = Refused;

    async fn connect(&self) -> Result<(), Refused> {
        Ok(())
    }

    async fn check(&self, (): &mut ()) -> Result<(), Refused> {
        Ok(())
    }

    fn is_broken(&self, (): &mut ()) -> bool {
        false
    }

    async fn close(&self, (): ()) {
        self.seen.lock().unwrap().push(self.pool.get().unwrap().state());
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_is_given_on_when_its_connection_is_closed_and_not_before() {
    let watcher = Watcher::default();
    let pool = builder_of::<Watcher>().max_size(1).build(watcher.clone()).unwrap();
    assert!(watcher.pool.set(pool.clone()).is_ok());
    let held = pool.get().await.unwrap();
    let mut waiting = pool.get();
    assert!(peek(&mut waiting).is_pending());
    held.discard();
    let seen = watcher.seen.lock().unwrap()[0];
    assert_eq!((seen.waiters, seen.connecting, seen.in_use), (1, 0, 0), "still being closed");
    assert_eq!(pool.state().connecting, 1);
    assert!(waiting.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn with_the_last_handle_connecting_and_checking_end_too() {
    let backend = Backend::new();
    backend.always_connects(Step::Delay(millis(100)));
    let pool = builder().min_idle(5).max_connecting(1).build(backend.clone()).unwrap();
    settle().await;
    drop(pool);
    settle().await;
    assert_eq!((backend.attempts(), backend.sockets()), (1, 0), "given up");
    pass(millis(10_000)).await;
    assert_eq!((backend.attempts(), tasks()), (1, 0), "and nothing is begun");

    let pool = builder().check(Check::Always).max_size(1).build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    backend.always_checks(Step::Hang);
    let get = queued(&pool);
    settle().await;
    assert_eq!(backend.checked(), 1);
    drop(pool);
    settle().await;
    assert_eq!(backend.sockets(), 1, "a get keeps the pool going");
    drop(get);
    settle().await;
    assert_eq!((backend.sockets(), tasks()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_close_can_be_awaited_without_a_handle() {
    let backend = Backend::new();
    backend.always_closes(Step::Delay(millis(300)));
    let pool = builder().build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    let closed = pool.close();
    drop(pool);
    closed.await;
    assert_eq!(backend.sockets(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_task_is_left_after_close_though_handles_are() {
    let pool = builder().build(Backend::new()).unwrap();
    drop(pool.get().await.unwrap());
    settle().await;
    assert_eq!(tasks(), 1, "the connection may expire");
    pool.close().await;
    settle().await;
    assert_eq!(tasks(), 0);
    drop(pool);
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
