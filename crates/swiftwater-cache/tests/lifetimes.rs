//! How long entries live, and how much of them there is.

mod common;

use std::time::Duration;

use common::{Gates, manual, readings, settle};
use swiftwater_cache::{Cache, LoadCx, Region};
use tokio::task::JoinSet;

const SECOND: Duration = Duration::from_secs(1);

fn lasting(cache: &Cache, name: &'static str, ttl: impl Into<Option<Duration>>) -> Region<u64, u32> {
    cache.region(name).ttl(ttl).build().expect("valid")
}

#[tokio::test]
async fn an_entry_is_served_up_to_its_lifetime_and_no_longer() {
    let (cache, hand) = manual();
    let rows = lasting(&cache, "rows", 10 * SECOND);
    rows.insert(1, 1);
    hand.advance(10 * SECOND - Duration::from_nanos(1));
    assert!(rows.get(&1).is_some());
    hand.advance(Duration::from_nanos(1));
    assert!(rows.get(&1).is_none());
    assert_eq!(readings(&rows)["misses_expired"], 1.0);
    assert_eq!(readings(&rows)["entries"], 0.0, "found expired, it left");
}

#[tokio::test]
async fn without_a_lifetime_an_entry_stays() {
    let (cache, hand) = manual();
    let rows = lasting(&cache, "rows", None);
    rows.insert(1, 1);
    hand.advance(Duration::from_secs(100 * 365 * 86_400));
    assert!(rows.get(&1).is_some());
}

#[tokio::test]
async fn the_age_counts_from_the_start_of_the_load() {
    let (cache, hand) = manual();
    let (rows, gates) = (lasting(&cache, "rows", 10 * SECOND), Gates::new());
    let mut tasks = JoinSet::new();
    {
        let (rows, gates) = (rows.clone(), gates.clone());
        tasks.spawn(async move {
            rows.get_or_load(&1, async move |_| Ok(gates.pass(1).await)).await.map(|hit| *hit)
        });
    }
    settle().await;
    hand.advance(4 * SECOND);
    gates.open(1);
    tasks.join_all().await;
    hand.advance(6 * SECOND - Duration::from_nanos(1));
    assert!(rows.get(&1).is_some());
    hand.advance(Duration::from_nanos(1));
    assert!(rows.get(&1).is_none());
}

#[tokio::test]
async fn a_loader_may_choose_the_lifetime() {
    let (cache, hand) = manual();
    for ttl in [None, Some(10 * SECOND)] {
        let rows = lasting(&cache, "rows", ttl);
        for (key, chosen) in [(1, SECOND), (2, 20 * SECOND), (3, Duration::ZERO)] {
            let load = async move |cx: LoadCx<u64>| {
                cx.ttl(chosen);
                Ok(1)
            };
            rows.get_or_load(&key, load).await.expect("loaded");
        }
        assert!(rows.get(&3).is_none(), "zero: not stored");
        hand.advance(SECOND);
        assert!(rows.get(&1).is_none() && rows.get(&2).is_some());
        hand.advance(18 * SECOND);
        assert!(rows.get(&2).is_some());
        hand.advance(SECOND);
        assert!(rows.get(&2).is_none());
    }
}

#[tokio::test]
async fn a_derived_entry_does_not_outlive_what_it_was_made_of() {
    let (cache, hand) = manual();
    let (base, derived) = (lasting(&cache, "base", 10 * SECOND), lasting(&cache, "derived", None));
    base.insert(1, 1);
    hand.advance(4 * SECOND);
    let reading = base.clone();
    let load = async move |cx: LoadCx<u64>| {
        cx.ttl(60 * SECOND);
        Ok(reading.get(&1).map_or(0, |hit| *hit))
    };
    assert_eq!(*derived.get_or_load(&1, load).await.expect("loaded"), 1);
    hand.advance(6 * SECOND - Duration::from_nanos(1));
    assert!(derived.get(&1).is_some());
    hand.advance(Duration::from_nanos(1));
    assert!(derived.get(&1).is_none());
}

#[tokio::test]
async fn the_weight_never_exceeds_the_capacity_by_more_than_the_rounding() {
    let cache = Cache::builder().build().expect("valid");
    let rows: Region<u64, u32> =
        cache.region("rows").memory(10_000).weigher(|_, value| u64::from(*value)).build().expect("valid");
    let shards = 4.0 * std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    for key in 0..5_000 {
        rows.insert(key, (key % 100) as u32);
        assert!(readings(&rows)["weight"] < 10_000.0 + shards);
    }
    let readings = readings(&rows);
    assert!(readings["weight"] > 5_000.0, "it is used: {}", readings["weight"]);
    assert!(readings["evictions"] > 1_000.0);
    let expected = 5_000.0 - readings["evictions"];
    assert_eq!(readings["entries"], expected, "what came in is there or was evicted");
}

#[tokio::test]
async fn what_weighs_nothing_is_evicted_like_everything_else() {
    let cache = Cache::builder().build().expect("valid");
    let rows: Region<u64, u32> = cache.region("rows").memory(100).weigher(|_, _| 0).build().expect("valid");
    for key in 0..10_000 {
        rows.insert(key, 1);
    }
    assert!(readings(&rows)["entries"] <= 200.0);
}

#[tokio::test]
async fn what_is_too_heavy_is_returned_not_stored_and_displaces_the_old_value() {
    let cache = Cache::builder().build().expect("valid");
    let rows: Region<u64, u32> =
        cache.region("rows").memory(1_000).weigher(|_, value| u64::from(*value)).build().expect("valid");
    rows.insert(1, 10);
    assert_eq!(*rows.get_or_load(&2, async |_| Ok(5_000)).await.expect("loaded"), 5_000);
    assert!(rows.get(&2).is_none());
    rows.insert(1, 5_000);
    assert!(rows.get(&1).is_none(), "not the old one either");
    assert_eq!((readings(&rows)["too_heavy"], readings(&rows)["evictions"]), (2.0, 0.0));
}
