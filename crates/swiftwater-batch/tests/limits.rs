//! Law 5: batches in flight, items of a batch and requests that wait never exceed their limits, over all lanes.

mod common;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use common::*;
use swiftwater_batch::{Batcher, Reason};

#[tokio::test]
async fn no_batch_is_larger_and_no_more_run_at_a_time() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(3).in_flight(2).build().unwrap();
    let calls: Vec<_> = (0..10).map(|id| lookups.call(id)).collect();
    settle().await;
    assert_eq!(hold.held(), [[0, 1, 2], [3, 4, 5]]);
    hold.answer().await;
    assert_eq!(hold.held(), [[3, 4, 5], [6, 7, 8]]);
    hold.answer().await;
    hold.answer().await;
    assert_eq!(hold.held(), [[9]]);
    hold.answer().await;
    assert_eq!(calls.into_iter().map(ready).filter(Result::is_ok).count(), 10);
    assert_eq!(hold.most_running(), 2);
}

#[tokio::test]
async fn an_arrival_with_a_free_slot_does_not_wait_for_the_batch_that_runs() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).in_flight(2).build().unwrap();
    let _first = lookups.call(1);
    settle().await;
    let _second = lookups.call(2);
    settle().await;
    assert_eq!(hold.held(), [[1], [2]]);
    let _third = lookups.call(3);
    settle().await;
    assert_eq!(hold.held().len(), 2);
}

#[tokio::test]
async fn lanes_share_the_limits() {
    let hold = Hold::new();
    let lookups =
        Batcher::builder(hold.clone()).group_by(|id| *id).in_flight(2).max_queued(3).build().unwrap();
    let _running: Vec<_> = (0..2).map(|id| lookups.call(id)).collect();
    settle().await;
    assert_eq!(hold.held(), [[0], [1]]);
    let _waiting: Vec<_> = (2..5).map(|id| lookups.call(id)).collect();
    let refused = lookups.try_call(5).unwrap_err();
    assert!(matches!(refused.reason, Reason::Full { queued: 3, .. }));
    settle().await;
    assert_eq!(hold.held().len(), 2);
    for _ in 0..5 {
        hold.answer().await;
    }
    assert_eq!((hold.sealed().len(), hold.most_running()), (5, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limits_hold_under_load() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (run, peak) = (running.clone(), most.clone());
    let batcher = Batcher::builder(move |requests: Vec<u32>| {
        let (run, peak) = (run.clone(), peak.clone());
        async move {
            peak.fetch_max(run.fetch_add(1, SeqCst) + 1, SeqCst);
            assert!(requests.len() <= 7);
            tokio::task::yield_now().await;
            run.fetch_sub(1, SeqCst);
            Ok::<_, Infallible>(requests)
        }
    })
    .max_items(7)
    .in_flight(3)
    .group_by(|request| request % 5)
    .build()
    .unwrap();
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let batcher = batcher.clone();
            tokio::runtime::Handle::current().spawn(async move {
                for request in 0..200 {
                    assert_eq!(
                        batcher.call(caller * 1000 + request).await.ok(),
                        Some(caller * 1000 + request)
                    );
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(most.load(SeqCst) <= 3);
    assert_eq!(reading(&batcher, "answered"), 64 * 200);
}
