//! The off switch makes the pool transparent, and the knob makes it larger and smaller.

mod common;

use common::*;
use swiftwater_pool::Check;

#[tokio::test(start_paused = true)]
async fn off_opens_for_every_get_and_closes_on_every_return() {
    let backend = Backend::new();
    let pool = builder().enabled(false).min_idle(2).build(backend.clone()).unwrap();
    settle().await;
    assert_eq!(backend.attempts(), 0, "no reserve either");
    assert!(!pool.is_enabled());
    for turn in 0..3 {
        let guard = pool.get().await.unwrap();
        assert_eq!(guard.id, turn);
        drop(guard);
        assert_eq!((backend.sockets(), pool.state().idle), (0, 0));
    }
    assert_eq!(backend.checked(), 0);
    assert!(pool.try_get().is_none());
}

#[tokio::test(start_paused = true)]
async fn off_still_keeps_to_max_size_in_order() {
    let backend = Backend::new();
    let pool = builder().enabled(false).max_size(2).build(backend.clone()).unwrap();
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let (mut first, mut second) = (queued(&pool), queued(&pool));
    settle().await;
    assert!(served(&mut first).is_none());
    drop(one);
    settle().await;
    let third = served(&mut first).unwrap();
    assert_eq!(third.id, 2, "a connection of its own");
    assert!(served(&mut second).is_none());
    drop(two);
    settle().await;
    assert_eq!(served(&mut second).unwrap().id, 3);
    assert_eq!(backend.most_sockets(), 2);
}

#[tokio::test(start_paused = true)]
async fn off_and_on_again_while_it_runs() {
    let backend = Backend::new();
    let pool = builder().build(backend.clone()).unwrap();
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(one);
    pool.set_enabled(false);
    assert_eq!(backend.sockets(), 1, "what was idle is closed");
    drop(two);
    assert_eq!(backend.sockets(), 0, "what was in use, when it comes back");
    let three = pool.get().await.unwrap();
    pool.set_enabled(true);
    drop(three);
    assert_eq!((pool.get().await.unwrap().id, pool.is_enabled()), (2, true));
}

#[tokio::test(start_paused = true)]
async fn a_get_that_is_dropped_while_off_leaves_nothing_open() {
    let backend = Backend::new();
    let pool = builder().enabled(false).build(backend.clone()).unwrap();
    let get = queued(&pool);
    settle().await;
    assert_eq!(backend.sockets(), 1, "delivered, not picked up");
    drop(get);
    assert_eq!(backend.sockets(), 0);
}

#[tokio::test(start_paused = true)]
async fn raising_max_size_serves_waiters_at_once() {
    let backend = Backend::new();
    let pool = builder().max_size(1).build(backend.clone()).unwrap();
    let _held = pool.get().await.unwrap();
    let mut waiting = queued(&pool);
    settle().await;
    assert!(served(&mut waiting).is_none());
    max_size_knob(&pool).set(2.0).unwrap();
    settle().await;
    assert!(served(&mut waiting).is_some());
    assert_eq!(pool.state().max_size, 2);
}

#[tokio::test(start_paused = true)]
async fn lowering_max_size_closes_idle_ones_now_and_used_ones_as_they_come_back() {
    let backend = Backend::new();
    let pool = builder().max_size(4).build(backend.clone()).unwrap();
    let mut guards = Vec::new();
    for _ in 0..4 {
        guards.push(pool.get().await.unwrap());
    }
    guards.pop();
    assert_eq!(pool.state().idle, 1);
    max_size_knob(&pool).set(2.0).unwrap();
    assert_eq!((pool.state().idle, backend.sockets()), (0, 3));
    let mut waiting = queued(&pool);
    guards.pop();
    assert_eq!(backend.sockets(), 2, "one too many, though somebody waits");
    assert!(served(&mut waiting).is_none());
    guards.pop();
    assert!(served(&mut waiting).is_some(), "from here on it is lent again");
    assert_eq!(backend.sockets(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_knob_keeps_to_its_bounds_and_outlives_its_pool_harmlessly() {
    let pool = builder().max_size(3).build(Backend::new()).unwrap();
    let knob = max_size_knob(&pool);
    assert_eq!(knob.get(), Ok(3.0));
    assert!(knob.set(0.0).is_err());
    assert!(knob.set(65_536.0).is_err());
    assert_eq!(pool.state().max_size, 3);
    drop(pool);
    assert!(knob.set(4.0).is_err());
}

#[tokio::test(start_paused = true)]
async fn what_was_used_and_delivered_before_off_is_not_given_on() {
    let pool = builder().max_size(1).build(Backend::new()).unwrap();
    let held = pool.get().await.unwrap();
    let (first, mut second) = (queued(&pool), queued(&pool));
    drop(held); // for the first
    pool.set_enabled(false);
    drop(first);
    settle().await;
    assert_eq!(served(&mut second).unwrap().id, 1, "a connection of its own");
}

#[tokio::test(start_paused = true)]
async fn off_waits_for_no_check_whose_connection_would_not_be_used() {
    let backend = Backend::new();
    let pool = builder().max_size(2).check(Check::Always).build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    backend.always_checks(Step::Hang);
    let mut get = queued(&pool);
    settle().await;
    assert_eq!((backend.checked(), backend.attempts()), (1, 1));
    pool.set_enabled(false);
    settle().await;
    assert_eq!(served(&mut get).unwrap().id, 1);
}
