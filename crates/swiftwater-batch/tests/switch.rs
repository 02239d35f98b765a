//! The off switch makes it transparent; the knobs do what they say.

mod common;

use common::*;
use swiftwater_batch::{Batcher, CallError};

#[tokio::test(start_paused = true)]
async fn switched_off_each_request_is_a_batch_of_its_own_and_runs_at_once() {
    let hold = Hold::new();
    let builder = Batcher::builder(hold.clone()).in_flight(1).max_queued(1).group_by(|id| *id);
    let lookups = builder.enabled(false).build().unwrap();
    assert!(!lookups.is_enabled());
    let calls = [1, 2, 3, 4].map(|id| lookups.call(id));
    settle().await;
    assert_eq!(hold.held(), [[1], [2], [3], [4]], "without limits");
    assert_eq!((reading(&lookups, "queued"), reading(&lookups, "running")), (0, 4));
    for step in [Step::Fail, Step::Lose, Step::Panic, Step::Answer] {
        hold.release(0, step);
    }
    settle().await;
    let expected = [
        Err(CallError::Handler("as told")),
        Err(CallError::NoReply),
        Err(CallError::HandlerPanicked),
        Ok(40),
    ];
    assert_eq!(calls.map(ready), expected, "errors and panics are the same");
    let expires = lookups.with_deadline(millis(10)).call(5);
    settle().await;
    pass(millis(10)).await;
    assert!(matches!(ready(expires), Err(CallError::Expired { running: Some(_), .. })));
    drop(lookups.call(6));
    settle().await;
    assert_eq!(hold.sealed().len(), 5, "who leaves at once is never handled");
    assert_eq!((reading(&lookups, "panicked"), reading(&lookups, "cancelled")), (1, 1));
}

#[tokio::test]
async fn switching_holds_for_the_calls_that_come() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let _running = lookups.call(1);
    settle().await;
    let _waiting = [lookups.call(2), lookups.call(3)];
    lookups.set_enabled(false);
    let _alone = [lookups.call(4), lookups.call(5)];
    settle().await;
    assert_eq!(hold.held(), [vec![1], vec![4], vec![5]]);
    hold.answer().await;
    assert_eq!(hold.sealed().last(), Some(&vec![2, 3]), "those that wait are batched");
    lookups.set_enabled(true);
    let _together = [lookups.call(6), lookups.call(7)];
    settle().await;
    assert_eq!(hold.held().len(), 3, "and they count as one batch in flight");
    for _ in 0..3 {
        hold.answer().await;
    }
    assert_eq!(hold.sealed().last(), Some(&vec![6, 7]));
}

#[tokio::test]
async fn max_items_is_the_size_of_the_next_batch() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(2).in_flight(2).build().unwrap();
    let max_items = knob(&lookups, "max_items");
    let _calls: Vec<_> = (0..14).map(|id| lookups.call(id)).collect();
    settle().await;
    max_items.set(5.0).unwrap();
    hold.answer().await;
    assert_eq!(hold.held(), [vec![2, 3], vec![4, 5, 6, 7, 8]]);
    max_items.set(1.0).unwrap();
    hold.answer().await;
    assert_eq!(hold.held(), [vec![4, 5, 6, 7, 8], vec![9]]);
    assert!(max_items.set(0.0).is_err() && max_items.set(65_537.0).is_err());
    while !hold.held().is_empty() {
        hold.answer().await;
    }
    assert_eq!(hold.sealed().concat(), (0..14).collect::<Vec<_>>());
}

#[tokio::test]
async fn in_flight_starts_more_at_once_and_ends_some_as_they_finish() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(1).build().unwrap();
    let in_flight = knob(&lookups, "in_flight");
    let calls: Vec<_> = (0..10).map(|id| lookups.call(id)).collect();
    settle().await;
    assert_eq!(hold.running(), 1);
    in_flight.set(4.0).unwrap();
    settle().await;
    assert_eq!(hold.running(), 4);
    in_flight.set(2.0).unwrap();
    hold.answer().await;
    assert_eq!(hold.running(), 3);
    hold.answer().await;
    assert_eq!(hold.running(), 2);
    hold.answer().await;
    assert_eq!(hold.running(), 2);
    while !hold.held().is_empty() {
        hold.answer().await;
    }
    assert_eq!(calls.into_iter().map(ready).filter(Result::is_ok).count(), 10);
}

#[tokio::test]
async fn in_flight_holds_for_batches_that_have_not_begun() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(1).in_flight(4).build().unwrap();
    let calls: Vec<_> = (0..4).map(|id| lookups.call(id)).collect();
    knob(&lookups, "in_flight").set(1.0).unwrap();
    for _ in 0..4 {
        settle().await;
        assert_eq!(hold.running(), 1);
        hold.answer().await;
    }
    assert_eq!(calls.into_iter().map(ready).filter(Result::is_ok).count(), 4);
}

#[tokio::test]
async fn in_flight_raised_without_a_runtime_starts_more_with_the_next_change() {
    let hold = Hold::new();
    let lookups = std::thread::scope(|scope| {
        let build = || Batcher::builder(hold.clone()).max_items(1).build().unwrap();
        scope.spawn(build).join().unwrap()
    });
    let _calls: Vec<_> = (0..4).map(|id| lookups.call(id)).collect();
    settle().await;
    let in_flight = knob(&lookups, "in_flight");
    std::thread::scope(|scope| scope.spawn(|| in_flight.set(2.0).unwrap()).join().unwrap());
    settle().await;
    assert_eq!(hold.running(), 1);
    hold.answer().await;
    assert_eq!(hold.running(), 2);
}

#[tokio::test]
async fn max_queued_holds_for_the_calls_that_come() {
    let lookups = Batcher::builder(Hold::new()).max_queued(2).build().unwrap();
    let max_queued = knob(&lookups, "max_queued");
    let _running = lookups.call(0);
    settle().await;
    let _calls = [lookups.call(1), lookups.call(2)];
    assert!(lookups.try_call(3).is_err());
    max_queued.set(3.0).unwrap();
    let third = lookups.try_call(3).unwrap();
    max_queued.set(1.0).unwrap();
    assert_eq!(reading(&lookups, "queued"), 3, "who waits stays");
    drop(third);
    assert!(lookups.try_call(4).is_err());
}
