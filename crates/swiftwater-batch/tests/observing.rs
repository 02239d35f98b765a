//! What a batcher shows of itself.

mod common;

use std::convert::Infallible;

use common::*;
use swiftwater_batch::Batcher;
use swiftwater_core::{Clock, Observer, Registry, conformance};

#[tokio::test(start_paused = true)]
async fn the_numbers_add_up() {
    let hold = Hold::new();
    let (clock, hand) = Clock::manual();
    let builder = Batcher::builder(hold.clone()).max_items(2).max_queued(4).clock(clock);
    let lookups = builder.group_by(|id| id / 10).build().unwrap();
    let _answered = [lookups.call(1), lookups.call(2)];
    settle().await;
    let expires = lookups.with_deadline(millis(5)).call(3);
    drop(lookups.call(4));
    let _waits = [lookups.call(5), lookups.call(10), lookups.call(20)];
    assert!(lookups.try_call(6).is_err());
    hand.advance(millis(5));
    pass(millis(5)).await;
    drop(expires);
    for (name, expected) in [("queued", 3), ("running", 1), ("lanes", 3), ("batches", 1)] {
        assert_eq!(reading(&lookups, name), expected, "{name}");
    }
    hold.answer().await;
    hold.release(0, Step::Panic);
    settle().await;
    let drain = lookups.drain(millis(1));
    assert!(lookups.try_call(7).is_err());
    drain.await;
    for (name, expected) in [
        ("calls", 7),
        ("answered", 3),
        ("expired", 1),
        ("cancelled", 1),
        ("abandoned", 2),
        ("batches", 3),
        ("panicked", 1),
        ("refused_full", 1),
        ("refused_late", 0),
        ("refused_closed", 1),
        ("refused_no_runtime", 0),
        ("batch_size", 3),
        ("queue", 4),
        ("batch", 1),
        ("queued", 0),
        ("running", 1),
        ("lanes", 0),
        ("max_items", 2),
        ("in_flight", 1),
        ("max_queued", 4),
    ] {
        assert_eq!(reading(&lookups, name), expected, "{name}");
    }
}

#[tokio::test]
async fn a_registry_shows_it_and_does_not_keep_it() {
    let batcher = Batcher::builder(|ids: Vec<u32>| async { Ok::<_, Infallible>(ids) }).build().unwrap();
    let registry = Registry::new();
    registry.add("batch", "orders", &batcher).unwrap();
    batcher.call(1).await.unwrap();
    let page = registry.prometheus();
    assert!(page.contains("swiftwater_batch_calls_total{batch=\"orders\"} 1"), "{page}");
    assert!(page.contains("mode=\"on\""), "{page}");
    assert!(page.contains("swiftwater_batch_batch_size_count{batch=\"orders\"} 1"), "{page}");
    batcher.set_enabled(false);
    assert!(registry.prometheus().contains("mode=\"off\""));
    batcher.drain(millis(1000)).await;
    assert!(registry.prometheus().contains("mode=\"closed\""));
    assert!(format!("{batcher:?}").contains("closed"));
    let observer = Observer::from(&batcher);
    drop(batcher);
    settle().await;
    assert!(observer.upgrade().is_none());
    assert_eq!(registry.prometheus(), "");
}

#[tokio::test]
async fn it_keeps_the_laws_of_observe_and_tunable() {
    let batcher = Batcher::builder(|ids: Vec<u32>| async { Ok::<_, Infallible>(ids) }).build().unwrap();
    conformance::observe(&batcher);
    batcher.call(1).await.unwrap();
    conformance::observe(&batcher);
    conformance::tunable(&batcher);
}
