//! Law 4: a caller that is not polled, or gone, delays nobody.

mod common;

use common::*;
use swiftwater_batch::Batcher;

#[tokio::test]
async fn callers_that_were_polled_once_and_then_parked_for_ever_delay_nobody() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(2).build().unwrap();
    // The first of a batch, who found everything idle; one in the middle; and one who was never polled at all.
    let mut first = lookups.call(1);
    pending(&mut first);
    let second = lookups.call(2);
    let mut third = lookups.call(3);
    pending(&mut third);
    let never_polled = lookups.call(4);
    let fifth = lookups.call(5);
    settle().await;
    for _ in 0..3 {
        hold.answer().await;
    }
    assert_eq!((ready(second), ready(fifth)), (Ok(20), Ok(50)));
    let late = lookups.call(6);
    settle().await;
    hold.answer().await;
    assert_eq!(ready(late), Ok(60), "with all of them still parked");
    assert_eq!((ready(first), ready(third), ready(never_polled)), (Ok(10), Ok(30), Ok(40)));
}

#[tokio::test]
async fn whoever_started_the_work_may_leave_in_the_middle_of_it() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let mut starter = lookups.call(1);
    pending(&mut starter);
    let beside = lookups.call(2);
    settle().await;
    let behind = lookups.call(3);
    drop(starter);
    hold.answer().await;
    assert_eq!(ready(beside), Ok(20));
    hold.answer().await;
    assert_eq!(ready(behind), Ok(30));
}

#[tokio::test(start_paused = true)]
async fn a_parked_caller_with_a_deadline_delays_no_deadline() {
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    let mut parked = lookups.with_deadline(millis(10)).call(1);
    pending(&mut parked);
    let mut other = lookups.with_deadline(millis(20)).call(2);
    settle().await;
    pass(millis(20)).await;
    assert!(poll(&mut other).is_ready());
}
