//! Law 9: a drain refuses what is new at once, ends by its limit whatever callers and handlers do, and says what became of
//! the calls.

mod common;

use common::*;
use swiftwater_batch::{Batcher, CallError, Drained, Reason};
use swiftwater_core::Clock;

fn report(drained: Drained) -> (u64, u64, u64) {
    (drained.completed, drained.refused, drained.abandoned)
}

#[tokio::test(start_paused = true)]
async fn what_was_let_in_is_answered_and_what_is_new_is_refused() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(2).build().unwrap();
    let calls: Vec<_> = (1..=3).map(|id| lookups.call(id)).collect();
    settle().await;
    let mut drain = Box::pin(lookups.drain(millis(1000)));
    let refused = lookups.clone().try_call(4).unwrap_err();
    assert_eq!((refused.request, refused.reason), (4, Reason::Closed));
    assert!(matches!(ready(lookups.call(5)), Err(CallError::Refused(Reason::Closed))));
    pending(&mut drain);
    hold.answer().await;
    pending(&mut drain);
    hold.answer().await;
    assert_eq!(report(ready(drain)), (3, 2, 0));
    assert_eq!(calls.into_iter().map(ready).collect::<Vec<_>>(), [Ok(10), Ok(20), Ok(30)]);
}

#[test]
fn closed_is_closed_without_a_runtime_too() {
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    let drain = Box::pin(lookups.drain(millis(0)));
    assert_eq!(lookups.try_call(1).unwrap_err().reason, Reason::Closed);
    assert_eq!(report(ready(drain)), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_the_rest_is_abandoned_and_told_so() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(1).build().unwrap();
    let mut calls: Vec<_> = (1..=4).map(|id| lookups.call(id)).collect();
    settle().await;
    let mut drain = Box::pin(lookups.drain(millis(100)));
    pending(&mut drain);
    hold.answer().await;
    drop(calls.pop());
    pass(millis(99)).await;
    pending(&mut drain);
    pass(millis(1)).await;
    assert_eq!(report(ready(drain)), (1, 0, 2), "the one that was dropped is nobody's");
    assert_eq!(ready(calls.remove(0)), Ok(10));
    for call in calls {
        assert_eq!(ready(call), Err(CallError::Closed));
    }
    assert_eq!(reading(&lookups, "queued"), 0);
    assert_eq!(hold.held(), [[2]], "the handler is not cut off");
    hold.answer().await;
    assert_eq!((hold.sealed().len(), reading(&lookups, "running")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn callers_that_are_never_polled_do_not_hold_it_up() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let _parked = lookups.call(1);
    settle().await;
    hold.answer().await;
    assert_eq!(report(lookups.drain(millis(1000)).await), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_handlers_that_have_answered_and_still_work() {
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = std::sync::Mutex::new(Some(released));
    struct Tidy(std::sync::Mutex<Option<tokio::sync::oneshot::Receiver<()>>>);
    impl swiftwater_batch::Handler for Tidy {
        type Request = u32;
        type Output = u32;
        type Error = &'static str;
        async fn run(&self, batch: swiftwater_batch::Batch<Self>) {
            batch.seal().into_iter().for_each(|item| item.reply.send(Ok(1)));
            let released = self.0.lock().unwrap().take();
            released.unwrap().await.unwrap();
        }
    }
    let batcher = Batcher::builder(Tidy(released)).build().unwrap();
    assert_eq!(batcher.call(1).await, Ok(1));
    let mut drain = Box::pin(batcher.drain(millis(1000)));
    settle().await;
    pending(&mut drain);
    release.send(()).unwrap();
    settle().await;
    assert_eq!(report(ready(drain)), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_one_is_drained_at_once_and_a_second_drain_too() {
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    assert_eq!(report(ready(Box::pin(lookups.drain(millis(1000))))), (0, 0, 0));
    let mut again = Box::pin(lookups.drain(millis(1000)));
    let _ = lookups.try_call(1);
    assert_eq!(report(ready(&mut again)), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_drain_has_closed_and_abandons_nobody() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let mut call = lookups.call(1);
    drop(lookups.drain(millis(10)));
    assert!(lookups.try_call(2).is_err());
    pass(millis(1000)).await;
    pending(&mut call);
    hold.answer().await;
    assert_eq!(ready(call), Ok(10));
}

#[tokio::test(start_paused = true)]
async fn of_two_drains_the_shorter_limit_holds() {
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    let call = lookups.call(1);
    settle().await;
    let long = lookups.drain(millis(1000));
    assert_eq!(report(lookups.drain(millis(10)).await), (0, 0, 1));
    assert_eq!(ready(call), Err(CallError::Closed));
    assert_eq!(report(long.await).2, 1);
}

#[tokio::test(start_paused = true)]
async fn expired_calls_are_completed_ones() {
    let (clock, _) = Clock::manual();
    let lookups = Batcher::builder(Hold::new()).deadline(millis(5)).clock(clock).build().unwrap();
    let _calls = (lookups.call(1), lookups.call(2));
    settle().await;
    assert_eq!(report(lookups.drain(millis(10)).await), (2, 0, 0));
}

#[test]
fn without_timers_the_limit_has_passed_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let lookups = Batcher::builder(Hold::new()).build().unwrap();
        let call = lookups.call(1);
        assert_eq!(report(lookups.drain(millis(60_000)).await), (0, 0, 1));
        assert_eq!(ready(call), Err(CallError::Closed));
    });
}

#[test]
fn when_the_runtime_with_the_timer_has_ended_the_limit_has_passed() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    let first = runtime();
    let (call, drain) = first.block_on(async {
        let call = lookups.call(1);
        let mut drain = Box::pin(lookups.drain(millis(60_000)));
        pending(&mut drain);
        (call, drain)
    });
    drop(first);
    assert_eq!(report(runtime().block_on(drain)), (0, 0, 1));
    assert_eq!(ready(call), Err(CallError::Closed));
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_drains_the_same() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).enabled(false).build().unwrap();
    let calls = [lookups.call(1), lookups.call(2)];
    settle().await;
    let mut drain = Box::pin(lookups.drain(millis(100)));
    assert!(lookups.try_call(3).is_err());
    hold.answer().await;
    pending(&mut drain);
    pass(millis(100)).await;
    assert_eq!(report(ready(drain)), (1, 1, 1));
    assert_eq!(calls.map(ready), [Ok(10), Err(CallError::Closed)]);
}
