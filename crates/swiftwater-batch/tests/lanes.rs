//! Law 6: first come, first sealed in every lane; lanes never mix, and take turns.

mod common;

use std::hash::{Hash, Hasher};

use common::*;
use swiftwater_batch::Batcher;

#[tokio::test]
async fn requests_are_sealed_in_the_order_in_which_they_came() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(4).build().unwrap();
    let _calls: Vec<_> = (0..11).map(|id| lookups.call(id)).collect();
    settle().await;
    for _ in 0..3 {
        hold.answer().await;
    }
    assert_eq!(hold.sealed().concat(), (0..11).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_never_mixes_keys_and_each_lane_keeps_its_order() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).group_by(|id| id % 3).build().unwrap();
    let _calls: Vec<_> = (0..9).map(|id| lookups.call(id)).collect();
    settle().await;
    for _ in 0..3 {
        hold.answer().await;
    }
    assert_eq!(hold.sealed(), [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
}

#[tokio::test]
async fn a_full_lane_does_not_starve_the_others() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).group_by(|id| id / 100).max_items(2).build().unwrap();
    let mut calls: Vec<_> = (0..8).map(|id| lookups.call(id)).collect();
    calls.extend([lookups.call(100), lookups.call(200), lookups.call(201), lookups.call(202)]);
    settle().await;
    let turns: [&[u32]; 7] = [&[0, 1], &[100], &[200, 201], &[2, 3], &[202], &[4, 5], &[6, 7]];
    for (number, expected) in turns.into_iter().enumerate() {
        assert_eq!(hold.held(), [expected], "turn {number}");
        if number == 2 {
            calls.push(lookups.call(8)); // busy all the time
        }
        hold.answer().await;
    }
    assert_eq!(hold.held(), [[8]]);
}

#[tokio::test]
async fn a_lane_that_is_emptied_by_its_callers_leaves_the_round() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).group_by(|id| *id).build().unwrap();
    let _running = lookups.call(0);
    settle().await;
    let mut waiting: Vec<_> = (1..4).map(|id| Some(lookups.call(id))).collect();
    waiting[1] = None;
    assert_eq!(reading(&lookups, "lanes"), 2);
    for _ in 0..3 {
        hold.answer().await;
    }
    assert_eq!(hold.sealed(), [[0], [1], [3]]);
}

/// If each call went through all lanes to learn when its turn comes, this would take the square of their number.
#[tokio::test]
async fn a_hundred_thousand_lanes_with_deadlines_are_no_more_work_than_a_few() {
    let hold = Hold::new();
    let builder = Batcher::builder(hold.clone()).max_queued(200_000).group_by(|id| *id);
    let lookups = builder.deadline(std::time::Duration::from_secs(1_000_000)).build().unwrap();
    let first = lookups.call(0);
    settle().await;
    hold.answer().await; // now it is known how long a batch takes
    assert!(ready(first).is_ok());
    let calls: Vec<_> = (0..100_000).map(|id| lookups.call(id)).collect();
    assert_eq!(reading(&lookups, "lanes"), 100_000);
    drop(calls);
    assert_eq!(reading(&lookups, "lanes"), 0);
}

/// Keys that all have one hash.
#[derive(PartialEq, Eq)]
struct Clash(u32);

impl Hash for Clash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        0.hash(state);
    }
}

#[tokio::test]
async fn keys_with_the_same_hash_are_still_kept_apart() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).group_by(|id| Clash(id % 4)).build().unwrap();
    let _calls: Vec<_> = (0..12).map(|id| lookups.call(id)).collect();
    assert_eq!(reading(&lookups, "lanes"), 4);
    settle().await;
    for _ in 0..4 {
        hold.answer().await;
    }
    assert_eq!(hold.sealed(), [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]);
}
