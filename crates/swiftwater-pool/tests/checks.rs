//! When a round trip stands before a checkout, and what a failed one means.

mod common;

use common::*;
use swiftwater_core::Backoff;
use swiftwater_pool::Check;

#[tokio::test(start_paused = true)]
async fn by_default_only_after_an_idle_second() {
    let backend = Backend::new();
    let pool = builder().build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    pass(millis(990)).await;
    drop(pool.get().await.unwrap());
    assert_eq!(backend.checked(), 0);
    pass(millis(1_010)).await;
    drop(pool.get().await.unwrap());
    drop(pool.get().await.unwrap());
    assert_eq!((backend.checked(), backend.opened()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn always_and_never_mean_what_they_say() {
    for (check, expected) in [(Check::Always, 3), (Check::Never, 0)] {
        let backend = Backend::new();
        let pool = builder().check(check).build(backend.clone()).unwrap();
        for _ in 0..4 {
            drop(pool.get().await.unwrap());
            pass(millis(5_000)).await;
        }
        assert_eq!((backend.checked(), backend.opened()), (expected, 1), "{check:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_check_replaces_the_connection_within_the_same_get() {
    let backend = Backend::new();
    let pool = builder().check(Check::Always).build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    backend.kill();
    assert_eq!(pool.get().await.unwrap().id, 1);
    assert_eq!((backend.sockets(), reading(&pool, "closed_check_failed")), (1, 1));
}

/// Ten dead connections, each silent for the whole check time-out: one after the other would take ten seconds.
#[tokio::test(start_paused = true)]
async fn after_one_failed_check_all_idle_ones_are_checked_at_once_while_a_new_one_is_opened() {
    let backend = Backend::new();
    let pool = builder().max_size(11).build(backend.clone()).unwrap();
    let mut guards = Vec::new();
    for _ in 0..10 {
        guards.push(pool.get().await.unwrap());
    }
    drop(guards);
    pass(millis(2_000)).await;
    backend.always_checks(Step::Hang); // a firewall dropped their state: no answer, no reset
    let before = tokio::time::Instant::now();
    assert_eq!(pool.get().await.unwrap().id, 10, "a new one");
    assert!(before.elapsed() <= millis(1_010), "one check time-out: {:?}", before.elapsed());
    pass(millis(1_010)).await;
    assert_eq!((backend.sockets(), pool.state().idle), (1, 1), "all ten are gone");
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_of_dead_connections_serves_within_two_check_time_outs() {
    let backend = Backend::new();
    let pool = builder().max_size(10).build(backend.clone()).unwrap();
    let mut guards = Vec::new();
    for _ in 0..10 {
        guards.push(pool.get().await.unwrap());
    }
    drop(guards);
    pass(millis(2_000)).await;
    backend.always_checks(Step::Hang);
    let before = tokio::time::Instant::now();
    assert_eq!(pool.get().await.unwrap().id, 10);
    assert!(before.elapsed() <= millis(2_010), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_connection_is_being_checked_takes_one_that_comes_back_first() {
    let backend = Backend::new();
    let pool = builder().max_size(2).check(Check::Always).build(backend.clone()).unwrap();
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(one);
    backend.always_checks(Step::Hang);
    let mut get = queued(&pool);
    settle().await;
    drop(two);
    assert_eq!(served(&mut get).unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_in_use_is_closed_on_return() {
    let backend = Backend::new();
    let pool = builder().max_size(1).build(backend.clone()).unwrap();
    let mut guard = pool.get().await.unwrap();
    let mut waiting = queued(&pool);
    guard.broken = true;
    drop(guard);
    settle().await;
    assert_eq!(served(&mut waiting).unwrap().id, 1, "its place is used for another at once");
    assert_eq!(reading(&pool, "closed_broken"), 1);
}

#[tokio::test(start_paused = true)]
async fn while_the_backend_is_down_one_prober_makes_few_attempts() {
    let backend = Backend::new();
    backend.always_connects(Step::Fail);
    let pool = builder()
        .acquire_timeout(millis(60_000))
        .max_connecting(5)
        .backoff(Backoff::new(millis(100), millis(1_000)).floor(millis(100)).seed(1))
        .build(backend.clone())
        .unwrap();
    let mut gets: Vec<_> = (0..100).map(|_| queued(&pool)).collect();
    pass(millis(20_000)).await;
    let attempts = backend.attempts();
    assert!((20..=205).contains(&attempts), "{attempts} attempts in 20 s");
    backend.always_connects(Step::Ok);
    pass(millis(1_010)).await;
    assert!(served(&mut gets[0]).is_some(), "within the cap");
    assert_eq!(pool.state().in_use + pool.state().idle, 10, "and then all that are needed");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_max_connecting_are_opened_at_once() {
    let backend = Backend::new();
    backend.always_connects(Step::Delay(millis(10)));
    let pool = builder().max_size(10).max_connecting(3).build(backend.clone()).unwrap();
    let _gets: Vec<_> = (0..20).map(|_| queued(&pool)).collect();
    pass(millis(200)).await;
    assert_eq!((backend.most_connecting(), backend.opened(), backend.most_sockets()), (3, 10, 10));
}

#[tokio::test(start_paused = true)]
async fn no_more_are_opened_than_callers_wait_for() {
    let backend = Backend::new();
    backend.always_connects(Step::Wait);
    let pool = builder().max_connecting(5).check(Check::Always).build(backend.clone()).unwrap();
    let (mut one, two) = (queued(&pool), queued(&pool));
    settle().await;
    assert_eq!((backend.attempts(), pool.state().connecting), (2, 2));
    backend.release(true);
    settle().await;
    drop(served(&mut one).unwrap()); // to the other one, whose attempt is still under way
    drop(two);
    let _three = queued(&pool);
    settle().await;
    assert_eq!(
        (backend.checked(), backend.attempts()),
        (1, 2),
        "the idle one is checked, and that attempt is enough in any case"
    );
}
