//! Law 3: whoever leaves before his batch is sealed is never handled and holds no capacity from then on; whoever leaves
//! later harms nobody.

mod common;

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use common::*;
use swiftwater_batch::Batcher;

#[tokio::test]
async fn a_dropped_call_leaves_the_queue_at_once() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_queued(3).build().unwrap();
    let running = lookups.call(1);
    settle().await;
    let mut waiting: Vec<_> = (2..=4).map(|id| lookups.call(id)).collect();
    assert!(lookups.try_call(5).is_err(), "full");
    drop(waiting.remove(1));
    assert_eq!(reading(&lookups, "queued"), 2);
    waiting.push(lookups.try_call(5).expect("there is room at once"));
    hold.answer().await;
    assert_eq!(hold.held(), [[2, 4, 5]]);
    hold.answer().await;
    assert_eq!(ready(running), Ok(10));
    assert_eq!(waiting.into_iter().map(ready).collect::<Vec<_>>(), [Ok(20), Ok(40), Ok(50)]);
    assert_eq!(reading(&lookups, "cancelled"), 1);
}

#[tokio::test]
async fn first_middle_and_last_may_leave_in_any_order() {
    for leavers in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], [0, 4, 2], [4, 3, 2]] {
        let hold = Hold::new();
        let lookups = Batcher::builder(hold.clone()).max_items(2).build().unwrap();
        let _running = lookups.call(9);
        settle().await;
        let mut waiting: Vec<_> = (0..5).map(|id| Some(lookups.call(id))).collect();
        for leaver in leavers {
            waiting[leaver] = None;
        }
        hold.answer().await;
        let rest: Vec<u32> = (0..5).filter(|id| waiting[*id as usize].is_some()).collect();
        assert_eq!(hold.held(), [rest], "{leavers:?}");
    }
}

#[tokio::test]
async fn a_run_for_nobody_does_not_begin() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    drop(lookups.call(1));
    settle().await;
    assert_eq!(hold.runs(), 0);
    assert_eq!(reading(&lookups, "running"), 0);
}

#[tokio::test]
async fn leaving_a_running_batch_harms_nobody() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let (one, two) = (lookups.call(1), lookups.call(2));
    settle().await;
    drop(one);
    // A stranger in the same place must not get the answer of the one who left.
    let mut stranger = lookups.call(3);
    hold.answer().await;
    assert_eq!(ready(two), Ok(20));
    pending(&mut stranger);
    hold.answer().await;
    assert_eq!(ready(stranger), Ok(30));
    assert_eq!((reading(&lookups, "cancelled"), reading(&lookups, "answered")), (1, 2));
}

/// The place of the one who left is taken by a stranger, whose batch runs when the late answer comes.
#[tokio::test]
async fn an_answer_that_comes_too_late_is_nobody_elses() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).in_flight(2).build().unwrap();
    drop({
        let left = lookups.call(1);
        settle().await;
        left
    });
    let mut stranger = lookups.call(2);
    settle().await;
    assert_eq!(hold.held(), [[1], [2]]);
    hold.answer().await;
    pending(&mut stranger);
    hold.answer().await;
    assert_eq!(ready(stranger), Ok(20));
}

#[tokio::test(start_paused = true)]
async fn dropping_after_any_number_of_polls_leaves_nothing_behind() {
    // 0: never polled; then after so many polls, before, in the middle of and after the run.
    for polls in 0..6 {
        for deadline in [None, Some(millis(50))] {
            let hold = Hold::new();
            let lookups = Batcher::builder(hold.clone()).deadline(deadline).build().unwrap();
            let mut call = lookups.call(1);
            let mut beside = lookups.call(2);
            for step in 0..polls {
                match step {
                    2 => settle().await,
                    4 => hold.answer().await,
                    _ => {}
                }
                if poll(&mut call).is_ready() {
                    break;
                }
            }
            drop(call);
            settle().await;
            if !hold.held().is_empty() {
                hold.answer().await;
            }
            assert_eq!(ready(Pin::new(&mut beside)), Ok(20), "after {polls} polls");
            settle().await;
            for gauge in ["queued", "running", "lanes"] {
                assert_eq!(reading(&lookups, gauge), 0, "{gauge} after {polls} polls");
            }
            assert_eq!(
                reading(&lookups, "calls"),
                reading(&lookups, "answered") + reading(&lookups, "cancelled"),
                "after {polls} polls"
            );
        }
    }
}

#[tokio::test]
async fn the_task_that_polled_last_is_woken() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let mut call = lookups.call(1);
    let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    for wakes in [&first, &second, &second] {
        let waker = Waker::from(wakes.clone());
        assert_eq!(Pin::new(&mut call).poll(&mut Context::from_waker(&waker)), Poll::Pending);
    }
    settle().await;
    hold.answer().await;
    assert_eq!((first.count(), second.count()), (0, 1));
    assert_eq!(ready(call), Ok(10));
}

#[tokio::test]
#[should_panic(expected = "`Call` polled after it was ready")]
async fn polling_after_the_end_panics() {
    let lookups = Batcher::builder(Hold::new()).max_queued(1).build().unwrap();
    let _first = lookups.call(1);
    let mut refused = lookups.call(2);
    assert!(poll(&mut refused).is_ready());
    let _ = poll(&mut refused);
}

#[tokio::test]
async fn a_forgotten_call_costs_its_place_and_nothing_else() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_queued(1).build().unwrap();
    mem::forget(lookups.call(1));
    settle().await;
    hold.answer().await;
    let next = lookups.call(2);
    settle().await;
    hold.answer().await;
    assert_eq!(ready(next), Ok(20));
}
