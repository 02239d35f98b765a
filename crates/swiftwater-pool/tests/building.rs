//! Nonsense is refused by `build`, by name.

mod common;

use std::time::Duration;

use common::*;
use swiftwater_pool::{Builder, Pool};

fn refused(set: impl FnOnce(Builder<Backend>) -> Builder<Backend>) -> (&'static str, String) {
    let error = set(Pool::builder()).build(Backend::new()).expect_err("it is nonsense");
    (error.option(), error.value().to_owned())
}

#[tokio::test]
async fn options_out_of_range_are_named() {
    let zero = Duration::ZERO;
    assert_eq!(refused(|b| b.max_size(0)), ("max_size", "0".into()));
    assert_eq!(refused(|b| b.max_size(65_536)).0, "max_size");
    assert_eq!(refused(|b| b.max_size(3).min_idle(4)), ("min_idle", "4".into()));
    assert_eq!(refused(|b| b.max_connecting(0)).0, "max_connecting");
    assert_eq!(refused(|b| b.max_lifetime(zero)).0, "max_lifetime");
    assert_eq!(refused(|b| b.idle_timeout(zero)).0, "idle_timeout");
    assert_eq!(refused(|b| b.acquire_timeout(zero)).0, "acquire_timeout");
    assert_eq!(refused(|b| b.connect_timeout(zero)).0, "connect_timeout");
    assert_eq!(refused(|b| b.check_timeout(zero)).0, "check_timeout");
}

#[test]
fn a_missing_runtime_is_named() {
    assert_eq!(refused(|b| b), ("runtime", "none".into()));
}

#[test]
fn a_runtime_without_timers_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(async { refused(|b| b) }), ("runtime", "without timers".into()));
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_are_no_overflow() {
    let backend = Backend::new().connects([Step::Fail]);
    let pool = builder()
        .max_size(1)
        .min_idle(1)
        .max_lifetime(Duration::MAX)
        .idle_timeout(Duration::MAX)
        .acquire_timeout(Duration::MAX)
        .connect_timeout(Duration::MAX)
        .check_timeout(Duration::MAX)
        .check(swiftwater_pool::Check::IdleFor(Duration::ZERO))
        .build(backend)
        .unwrap();
    drop(pool.get().await.unwrap());
    let held = pool.get().await.unwrap();
    let mut waiting = queued(&pool);
    pass(Duration::from_secs(10_000)).await;
    drop(held);
    assert!(served(&mut waiting).is_some());
}

#[tokio::test]
async fn ages_below_a_millisecond_are_refused_since_the_pool_would_spin() {
    let nanos = Duration::from_nanos(999_999);
    assert_eq!(refused(|b| b.max_lifetime(nanos)), ("max_lifetime", "999.999µs".into()));
    assert_eq!(refused(|b| b.idle_timeout(nanos)), ("idle_timeout", "999.999µs".into()));
    let least = Duration::from_millis(1);
    assert!(Pool::builder().max_lifetime(least).idle_timeout(least).build(Backend::new()).is_ok());
}
