//! Deadlines end calls, queued or running, whatever the handler does; what has expired is never handled (law 8).

mod common;

use common::*;
use swiftwater_batch::{Batcher, CallError};
use swiftwater_core::{Clock, Outcome};

#[tokio::test(start_paused = true)]
async fn a_stuck_handler_holds_nobody_beyond_his_deadline() {
    let hold = Hold::new();
    let (clock, hand) = Clock::manual();
    let lookups = Batcher::builder(hold.clone()).deadline(millis(100)).clock(clock).build().unwrap();
    let mut running = lookups.call(1);
    settle().await;
    pass(millis(30)).await;
    hand.advance(millis(30));
    let mut queued = lookups.call(2);
    pass(millis(69)).await;
    hand.advance(millis(69));
    pending(&mut running);
    hand.advance(millis(1));
    pass(millis(1)).await;
    let error = ready(running).unwrap_err();
    let (waited, ran) = (millis(0), Some(millis(100)));
    assert!(
        matches!(error, CallError::Expired { queued: q, running: r, .. } if q == waited && r == ran),
        "{error:?}"
    );
    assert_eq!(error.outcome(), Outcome::Failure);
    pending(&mut queued);
    hand.advance(millis(30));
    pass(millis(30)).await;
    let error = ready(queued).unwrap_err();
    assert!(
        matches!(error, CallError::Expired { queued: q, running: None, .. } if q == millis(100)),
        "{error:?}"
    );
    assert_eq!(error.outcome(), Outcome::Local);
    assert_eq!(error.to_string(), "the deadline passed after 100ms in the queue");
    hold.answer().await;
    assert_eq!(hold.sealed(), [[1]], "the expired one was never handled");
    assert_eq!((reading(&lookups, "expired"), reading(&lookups, "answered")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_holds_no_capacity() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_queued(1).build().unwrap();
    let _running = lookups.call(1);
    settle().await;
    let expiring = lookups.with_deadline(millis(10)).call(2);
    assert!(lookups.try_call(3).is_err());
    pass(millis(10)).await;
    assert_eq!(reading(&lookups, "queued"), 0);
    let next = lookups.try_call(3).unwrap();
    hold.answer().await;
    assert_eq!(hold.held(), [[3]]);
    drop((expiring, next));
}

/// Nothing else runs between the deadline and the sealing: neither the timer nor a poll has noticed.
#[tokio::test(start_paused = true)]
async fn nothing_is_sealed_after_its_deadline_even_if_the_timer_is_late() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let late = lookups.with_deadline(millis(10)).call(1);
    let patient = lookups.call(2);
    // Not `pass`: time moves before any task has run.
    std::future::poll_fn(|cx| {
        let advance = std::pin::pin!(tokio::time::advance(millis(10)));
        let _ = advance.poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
    settle().await;
    assert_eq!(hold.held(), [[2]]);
    assert!(matches!(ready(late), Err(CallError::Expired { running: None, .. })));
    drop(patient);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_that_comes_later_is_kept() {
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    let mut long = lookups.with_deadline(millis(100)).call(1);
    settle().await;
    let short = lookups.with_deadline(millis(10)).call(2);
    settle().await;
    pass(millis(10)).await;
    // By the timer, not by the poll, which would notice by itself.
    assert_eq!(reading(&lookups, "expired"), 1);
    assert!(ready(short).is_err());
    pending(&mut long);
    pass(millis(90)).await;
    assert_eq!(reading(&lookups, "expired"), 2);
    assert!(ready(long).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_handle_with_another_deadline_is_the_same_batcher() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).deadline(millis(10)).build().unwrap();
    let patient = lookups.with_deadline(None);
    let (mut short, mut long) = (lookups.call(1), patient.call(2));
    settle().await;
    assert_eq!(hold.held(), [[1, 2]]);
    pass(millis(1000)).await;
    assert!(poll(&mut short).is_ready());
    pending(&mut long);
    hold.answer().await;
    assert_eq!(ready(long), Ok(20));
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_is_an_answer() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).deadline(millis(10)).build().unwrap();
    let call = lookups.call(1);
    settle().await;
    pass(millis(9)).await;
    hold.answer().await;
    pass(millis(50)).await;
    assert_eq!(ready(call), Ok(10), "picked up late, but given in time");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_still_makes_nobody_wait() {
    let (clock, _hand) = Clock::manual();
    let lookups = Batcher::builder(Hold::new()).deadline(millis(10)).clock(clock).build().unwrap();
    let call = lookups.call(1);
    settle().await;
    pass(millis(10)).await;
    assert!(matches!(ready(call), Err(CallError::Expired { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_beyond_the_end_of_time_is_no_panic() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    for deadline in [std::time::Duration::MAX, std::time::Duration::from_secs(1 << 62)] {
        let call = lookups.with_deadline(deadline).call(1);
        pass(millis(1000)).await;
        hold.answer().await;
        assert_eq!(ready(call), Ok(10));
        let mut drain = Box::pin(Batcher::builder(hold.clone()).build().unwrap().drain(deadline));
        assert!(poll(&mut drain).is_ready());
    }
}
