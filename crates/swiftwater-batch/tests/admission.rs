//! The queue is bounded by time: what is not expected to be answered before its deadline is refused at once.

mod common;

use common::*;
use swiftwater_batch::{Batcher, CallError, Reason};
use swiftwater_core::{Clock, Hand};

/// A batcher whose batches were seen to take 10 ms.
async fn taught(hold: &Hold, max_items: usize, in_flight: usize) -> (Lookups, Hand) {
    let (clock, hand) = Clock::manual();
    let builder = Batcher::builder(hold.clone()).max_items(max_items).in_flight(in_flight).clock(clock);
    let lookups = builder.group_by(|id| id / 100).build().unwrap();
    let call = lookups.call(0);
    settle().await;
    hand.advance(millis(10));
    hold.answer().await;
    assert_eq!(ready(call), Ok(0));
    (lookups, hand)
}

#[track_caller]
fn expected(lookups: &Lookups, id: u32, deadline: u64) -> Option<u64> {
    match lookups.with_deadline(millis(deadline)).try_call(id) {
        Ok(call) => {
            drop(call);
            None
        }
        Err(refused) => match refused.reason {
            Reason::Late { expected, .. } => Some(expected.as_millis() as u64),
            other => panic!("{other}"),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_would_be_answered_too_late_is_refused_at_once() {
    let hold = Hold::new();
    let (lookups, hand) = taught(&hold, 2, 1).await;
    let _running = lookups.call(1);
    settle().await;
    // One batch runs: the answer comes with the next one. An eighth is added, for it may take longer.
    assert_eq!(expected(&lookups, 2, 22), Some(20));
    assert_eq!(expected(&lookups, 2, 23), None);
    hand.advance(millis(4));
    assert_eq!(expected(&lookups, 2, 17), Some(16));
    let _waiting: Vec<_> = (2..6).map(|id| lookups.call(id)).collect();
    assert_eq!(expected(&lookups, 6, 40), Some(36), "two full batches before it");
    assert_eq!(expected(&lookups, 6, 41), None);
    let error = ready(lookups.with_deadline(millis(40)).call(6)).unwrap_err();
    assert_eq!(error.to_string(), "refused: the answer is expected after 36ms, beyond the deadline");
    assert!(lookups.try_call(7).is_ok(), "who has no deadline is not refused");
    assert_eq!(reading(&lookups, "refused_late"), 4);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_refused_while_nothing_is_known_or_nothing_is_ahead() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(1).build().unwrap();
    let _calls: Vec<_> = (0..10).map(|id| lookups.call(id)).collect();
    settle().await;
    assert_eq!(expected(&lookups, 10, 1), None, "nothing is known");

    let hold = Hold::new();
    let (lookups, hand) = taught(&hold, 2, 1).await;
    let mut call = lookups.with_deadline(millis(1)).try_call(1).expect("nothing is ahead");
    settle().await;
    assert_eq!(expected(&lookups, 2, 1), Some(20));
    // A batcher that has become fast again finds out.
    hold.answer().await;
    assert_eq!(ready(&mut call), Ok(10));
    for id in 0..20 {
        let _call = lookups.with_deadline(millis(1)).try_call(id).expect("nothing is ahead");
        settle().await;
        hand.advance(std::time::Duration::from_micros(100));
        hold.answer().await;
    }
    let _running = lookups.call(1);
    settle().await;
    assert_eq!(expected(&lookups, 2, 1), None);
}

#[tokio::test(start_paused = true)]
async fn more_batches_at_a_time_are_faster() {
    let hold = Hold::new();
    let (lookups, _hand) = taught(&hold, 1, 3).await;
    let _running: Vec<_> = (1..3).map(|id| lookups.call(id)).collect();
    settle().await;
    assert_eq!(expected(&lookups, 3, 1), None, "a slot is free");
    let _third = lookups.call(3);
    settle().await;
    assert_eq!(expected(&lookups, 4, 19), Some(20));
    let _waiting: Vec<_> = (4..7).map(|id| lookups.call(id)).collect();
    assert_eq!(expected(&lookups, 7, 29), Some(30));
}

#[tokio::test(start_paused = true)]
async fn lanes_wait_for_their_turns() {
    let hold = Hold::new();
    let (lookups, _hand) = taught(&hold, 2, 1).await;
    let _running = lookups.call(1);
    settle().await;
    let _long: Vec<_> = (100..106).map(|id| lookups.call(id)).collect();
    let _short = lookups.call(200);
    assert_eq!(expected(&lookups, 300, 39), Some(40), "a new lane: after one batch of each");
    assert_eq!(expected(&lookups, 201, 29), Some(30), "the second in the round");
    assert_eq!(expected(&lookups, 106, 59), Some(60), "its own three, and the one of the other lane");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_time_is_refused_at_once() {
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    assert_eq!(expected(&lookups, 1, 0), Some(0));
    lookups.set_enabled(false);
    assert_eq!(expected(&lookups, 1, 0), Some(0));
    let error = ready(lookups.with_deadline(millis(0)).call(1)).unwrap_err();
    assert!(matches!(error, CallError::Refused(Reason::Late { .. })));
    assert_eq!(error.to_string(), "refused: there is no time left");
}

/// Twice as much comes as can be answered: those who are let in are answered in time.
#[tokio::test(start_paused = true)]
async fn under_overload_the_work_goes_into_answers_in_time() {
    let time = tokio::time::Instant::now();
    let clock = Clock::custom(move || time.elapsed());
    let batcher = Batcher::builder(|requests: Vec<u32>| async move {
        tokio::time::sleep(millis(10)).await;
        Ok::<_, &'static str>(requests)
    })
    .max_items(4)
    .deadline(millis(50))
    .clock(clock)
    .build()
    .unwrap();
    let (mut answered, mut refused, mut expired) = (0, 0, 0);
    let mut calls = Vec::new();
    for id in 0..2000 {
        match batcher.try_call(id) {
            Ok(call) => calls.push(call),
            Err(_) => refused += 1,
        }
        if id % 4 == 3 {
            pass(millis(5)).await;
        }
    }
    pass(millis(50)).await;
    for call in calls {
        match ready(call) {
            Ok(_) => answered += 1,
            Err(_) => expired += 1,
        }
    }
    // 2000 calls in 2.5 s, in which 1000 can be answered.
    assert!(answered >= 980, "{answered} answered, {refused} refused, {expired} expired");
    assert!(expired <= 20, "{answered} answered, {refused} refused, {expired} expired");
}
