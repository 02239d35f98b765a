//! A time-out says whose fault it was.

mod common;

use std::error::Error;

use common::*;
use swiftwater_core::{Backoff, Outcome};
use swiftwater_pool::{Cause, Check, GetError, Timeout};

fn timeout<E: std::fmt::Debug>(error: &GetError<E>) -> &Timeout {
    match error {
        GetError::Timeout(timeout) => timeout,
        other => panic!("not a time-out: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_is_named_and_is_not_the_backends_fault() {
    let pool = builder().max_size(2).acquire_timeout(millis(100)).build(Backend::new()).unwrap();
    let _held = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let before = tokio::time::Instant::now();
    let (mut first, mut second) = (queued(&pool), queued(&pool));
    let error = (&mut first).await.unwrap_err();
    assert!((millis(100)..millis(105)).contains(&before.elapsed()));
    assert_eq!(timeout(&error).cause(), Cause::Exhausted);
    assert_eq!((timeout(&error).state().in_use, timeout(&error).state().max_size), (2, 2));
    assert!(timeout(&error).waited() >= millis(100));
    assert_eq!(error.outcome(), Outcome::Local);
    let text = error.to_string();
    assert_eq!(text, "no connection within 100ms: the pool is exhausted (2 of 2 in use, 1 waiting)");
    assert!(failed(&mut second).is_some());
    assert_eq!(reading(&pool, "timeouts"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_is_named_with_its_last_error() {
    let backend = Backend::new();
    backend.always_connects(Step::Fail);
    let pool = builder().max_size(2).acquire_timeout(millis(300)).build(backend.clone()).unwrap();
    let error = pool.get().await.unwrap_err();
    assert_eq!((timeout(&error).cause(), error.outcome()), (Cause::Unreachable, Outcome::Failure));
    let failure = timeout(&error).last_failure().expect("every attempt failed");
    assert_eq!(failure.text(), "Refused");
    assert!(failure.ago() <= millis(300));
    let text = error.to_string();
    assert!(text.contains("could not be reached") && text.ends_with("ago: Refused"), "{text}");
    assert!(error.source().is_none());
    assert!(backend.attempts() > 2 && backend.attempts() < 100, "{} attempts", backend.attempts());
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_silent_is_unreachable_though_no_attempt_has_failed_yet() {
    let backend = Backend::new();
    backend.always_connects(Step::Hang);
    let pool = builder().acquire_timeout(millis(100)).build(backend).unwrap();
    let error = pool.get().await.unwrap_err();
    assert_eq!((timeout(&error).cause(), error.outcome()), (Cause::Unreachable, Outcome::Failure));
    assert!(error.to_string().contains("did not answer"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn idle_connections_that_answer_no_check_are_the_backends_fault() {
    let backend = Backend::new();
    let pool = builder()
        .check(Check::Always)
        .check_timeout(millis(50))
        .acquire_timeout(millis(300))
        .build(backend.clone())
        .unwrap();
    drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
    pass(millis(1)).await;
    backend.always_checks(Step::Hang);
    backend.always_connects(Step::Hang);
    let error = pool.get().await.unwrap_err();
    assert_eq!(timeout(&error).cause(), Cause::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn slow_connects_for_too_many_callers_are_not_an_outage() {
    let backend = Backend::new();
    backend.always_connects(Step::Delay(millis(80)));
    let pool = builder().max_size(10).max_connecting(1).acquire_timeout(millis(100)).build(backend).unwrap();
    let mut gets: Vec<_> = (0..3).map(|_| queued(&pool)).collect();
    pass(millis(90)).await;
    let _held = served(&mut gets[0]).expect("the backend works");
    pass(millis(20)).await;
    let error = failed(&mut gets[1]).unwrap();
    assert_eq!((timeout(&error).cause(), error.outcome()), (Cause::Exhausted, Outcome::Local));
}

#[tokio::test(start_paused = true)]
async fn an_old_failure_is_not_blamed_once_connecting_works_again() {
    let backend = Backend::new().connects([Step::Fail]);
    let pool = builder().max_size(1).acquire_timeout(millis(200)).build(backend).unwrap();
    let _held = pool.get().await.unwrap();
    let error = pool.get().await.unwrap_err();
    assert_eq!(timeout(&error).cause(), Cause::Exhausted);
    assert!(timeout(&error).last_failure().is_none());
}

#[tokio::test(start_paused = true)]
async fn max_waiters_refuses_at_once() {
    let pool = builder().max_size(1).max_waiters(2).build(Backend::new()).unwrap();
    let _held = pool.get().await.unwrap();
    let (_one, two) = (queued(&pool), queued(&pool));
    let error = failed(&mut pool.get()).expect("refused at the first poll");
    assert!(matches!(error, GetError::Full { waiters: 2, .. }));
    assert_eq!((error.outcome(), reading(&pool, "full")), (Outcome::Local, 1));
    drop(two);
    drop(queued(&pool));
}

#[tokio::test(start_paused = true)]
async fn max_waiters_does_not_count_those_for_whom_there_is_a_place() {
    let backend = Backend::new();
    let pool = builder().max_size(3).max_waiters(0).build(backend.clone()).unwrap();
    // Three wait for connects, a fourth would wait for one of them to come back.
    let mut gets = [queued(&pool), queued(&pool), queued(&pool)];
    assert!(matches!(failed(&mut pool.get()), Some(GetError::Full { .. })));
    settle().await;
    drop(gets.each_mut().map(|get| served(get).unwrap()));
    // The same when idle connections must be checked first.
    pass(millis(5_000)).await;
    let mut gets = [queued(&pool), queued(&pool), queued(&pool)];
    assert!(matches!(failed(&mut pool.get()), Some(GetError::Full { .. })));
    settle().await;
    assert!(gets.each_mut().map(served).iter().all(Option::is_some));
    assert_eq!(backend.opened(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_retrying_a_slow_connect_says_how_long_it_was_given() {
    let backend = Backend::new();
    backend.always_connects(Step::Hang);
    let pool = builder().retry_connection(false).connect_timeout(millis(70)).build(backend).unwrap();
    let error = pool.get().await.unwrap_err();
    let GetError::ConnectTimeout { limit, .. } = error else { panic!("{error}") };
    assert_eq!(limit, millis(70));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connect_is_its_errors_source() {
    let backend = Backend::new();
    backend.always_connects(Step::Fail);
    let pool = builder().retry_connection(false).build(backend).unwrap();
    let error = pool.get().await.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "refused by the fake");
    assert_eq!(error.to_string(), "a connection could not be opened");
    assert_eq!(error.outcome(), Outcome::Failure);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_blamed_though_something_succeeded_just_before_it() {
    let backend = Backend::new().connects([Step::Ok]);
    backend.always_connects(Step::Fail);
    let pool = builder().build(backend).unwrap();
    let (mut one, mut two) = (queued(&pool), queued(&pool));
    settle().await;
    let _held = served(&mut one).unwrap();
    let error = (&mut two).await.unwrap_err();
    assert_eq!((timeout(&error).cause(), error.outcome()), (Cause::Unreachable, Outcome::Failure));
}

#[tokio::test(start_paused = true)]
async fn connects_that_come_too_slowly_are_named_and_not_called_exhaustion() {
    let backend = Backend::new();
    backend.always_connects(Step::Delay(millis(80)));
    let pool = builder().max_size(10).max_connecting(1).acquire_timeout(millis(100)).build(backend).unwrap();
    let (mut one, mut two) = (queued(&pool), queued(&pool));
    pass(millis(90)).await;
    let _held = served(&mut one).unwrap();
    let text = (&mut two).await.unwrap_err().to_string();
    let expected =
        "no connection within 100ms: connections come too slowly (1 connecting, 1 of 10 in use, 0 waiting)";
    assert_eq!(text, expected);
}

/// All places are in use, and yet it is worth knowing that the last attempt to fill one failed.
#[tokio::test(start_paused = true)]
async fn the_last_failure_is_shown_whatever_the_cause() {
    let backend = Backend::new().connects([Step::Ok, Step::Fail]);
    let pool = builder()
        .max_size(2)
        .acquire_timeout(millis(100))
        .backoff(Backoff::new(millis(500), millis(500)).floor(millis(500)))
        .build(backend)
        .unwrap();
    let _held = pool.get().await.unwrap();
    let mut get = queued(&pool);
    settle().await;
    max_size_knob(&pool).set(1.0).unwrap(); // now the pool is full
    let text = (&mut get).await.unwrap_err().to_string();
    assert!(
        text.starts_with("no connection within 100ms: the pool is exhausted (1 of 1 in use, 0 waiting); the last attempt to connect failed "),
        "{text}"
    );
    assert!(text.ends_with(" ago: Refused"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_those_who_time_out_is_recorded() {
    let pool = builder().max_size(1).acquire_timeout(millis(50)).build(Backend::new()).unwrap();
    let _held = pool.get().await.unwrap();
    let before = reading(&pool, "wait");
    assert!(pool.get().await.is_err());
    assert_eq!(reading(&pool, "wait"), before + 1);
}
