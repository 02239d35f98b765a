//! Connections end with their lifetime or their idleness, and in no other way by time.

mod common;

use std::time::Duration;

use common::*;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_idle_timeout_and_not_before() {
    let backend = Backend::new();
    let pool = builder().idle_timeout(millis(500)).build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    pass(millis(490)).await;
    assert_eq!(backend.sockets(), 1);
    pass(millis(20)).await;
    assert_eq!((backend.sockets(), pool.state().idle), (0, 0));
    assert_eq!(reading(&pool, "closed_idle"), 1);
}

#[tokio::test(start_paused = true)]
async fn use_starts_the_idle_time_anew() {
    let backend = Backend::new();
    let pool = builder().idle_timeout(millis(500)).build(backend.clone()).unwrap();
    for _ in 0..5 {
        drop(pool.get().await.unwrap());
        pass(millis(400)).await;
    }
    assert_eq!((backend.opened(), backend.sockets()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn min_idle_is_opened_kept_and_not_churned_by_idle_timeout() {
    let backend = Backend::new();
    let pool =
        builder().min_idle(2).idle_timeout(millis(50)).max_lifetime(None).build(backend.clone()).unwrap();
    settle().await;
    assert_eq!(pool.state().idle, 2);
    // A third, for a peak, goes again.
    let guards = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    settle().await;
    assert_eq!(pool.state().idle, 2, "spare ones are opened while others are in use");
    drop(guards);
    pass(millis(60)).await;
    assert_eq!(pool.state().idle, 2);
    let opened = backend.opened();
    pass(HOUR).await;
    assert_eq!(
        (backend.opened(), backend.sockets()),
        (opened, 2),
        "an untouched pool opens and closes nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn those_that_min_idle_keeps_still_end_with_their_lifetime_and_are_replaced() {
    let backend = Backend::new();
    let pool = builder().min_idle(1).max_lifetime(HOUR).build(backend.clone()).unwrap();
    pass(HOUR.mul_f64(1.1) + millis(10)).await;
    assert_eq!((backend.opened(), pool.state().idle), (2, 1));
    assert_eq!(reading(&pool, "closed_expired"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_is_drawn_once_within_a_tenth() {
    let backend = Backend::new();
    let pool = builder()
        .max_size(40)
        .min_idle(40)
        .max_connecting(40)
        .max_lifetime(Duration::from_secs(1000))
        .build(backend.clone())
        .unwrap();
    settle().await;
    // Looking at a connection, again and again, must not draw again: then all would die young.
    let mut survivors = 0;
    for second in 0..1110 {
        if second == 890 {
            assert_eq!(backend.opened(), 40, "none dies before 900 s");
        }
        if second == 1000 {
            survivors = 80 - backend.opened();
        }
        pass(Duration::from_secs(1)).await;
        for _ in 0..3 {
            drop(pool.try_get());
        }
    }
    // 20 expected of 40; fewer than 5 or more than 35 happens once in a million.
    assert!((5..=35).contains(&survivors), "{survivors} of 40 lived longer than the mean");
    assert!(backend.opened() >= 80, "all died before 1100 s");
}

#[tokio::test(start_paused = true)]
async fn an_expired_connection_is_not_handed_out_nor_taken_back() {
    let backend = Backend::new();
    let pool = builder().max_lifetime(millis(100)).build(backend.clone()).unwrap();
    let guard = pool.get().await.unwrap();
    pass(millis(120)).await;
    assert_eq!(backend.sockets(), 1, "never under its user");
    drop(guard);
    assert_eq!((backend.sockets(), reading(&pool, "closed_expired")), (0, 1));
    // At checkout, though no timer has fired yet: time stands still for the runtime, not for the connection.
    let (clock, hand) = swiftwater_core::Clock::manual();
    let pool =
        swiftwater_pool::Pool::builder().clock(clock).max_lifetime(HOUR).build(backend.clone()).unwrap();
    let first = pool.get().await.unwrap().id;
    hand.advance(2 * HOUR);
    assert!(pool.try_get().is_none());
    assert_ne!(pool.get().await.unwrap().id, first);
}

#[tokio::test(start_paused = true)]
async fn without_limits_nothing_expires_and_no_task_waits_for_it() {
    let backend = Backend::new();
    let pool = builder().max_lifetime(None).idle_timeout(None).build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    pass(millis(6_000)).await;
    assert_eq!(tasks(), 0);
    pass(10_000 * HOUR).await;
    assert_eq!((backend.opened(), backend.sockets()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn there_is_a_task_only_while_something_is_waited_for() {
    let pool = builder().idle_timeout(millis(500)).max_size(1).build(Backend::new()).unwrap();
    assert_eq!(tasks(), 0, "an empty pool");
    let held = pool.get().await.unwrap();
    let waiting = queued(&pool);
    settle().await;
    assert_eq!(tasks(), 1, "somebody's patience may end");
    drop(waiting);
    drop(held);
    settle().await;
    assert_eq!(tasks(), 1, "a connection may expire");
    pass(millis(6_000)).await;
    assert_eq!(tasks(), 0, "empty again");
    drop(pool.get().await.unwrap());
    settle().await;
    assert_eq!(tasks(), 1);
    drop(pool);
    settle().await;
    assert_eq!(tasks(), 0, "the last handle is gone");
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_has_expired_is_closed_without_a_check() {
    let backend = Backend::new();
    let (clock, hand) = swiftwater_core::Clock::manual();
    let pool = swiftwater_pool::Pool::builder()
        .clock(clock)
        .max_size(2)
        .max_lifetime(HOUR)
        .check(swiftwater_pool::Check::Always)
        .build(backend.clone())
        .unwrap();
    drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
    backend.always_checks(Step::Hang);
    let _first = queued(&pool);
    settle().await;
    assert_eq!((backend.checked(), pool.state().idle), (1, 1), "one waits, one is checked");
    hand.advance(2 * HOUR);
    let _second = queued(&pool);
    settle().await;
    assert_eq!((backend.checked(), reading(&pool, "closed_expired")), (1, 1));
}
