//! What users of other caches have reported, as far as it can happen in one process. Other tests have some of it already.
//!
//! | Issue | Symptom | Test |
//! |---|---|---|
//! | ZiggyCreatures/FusionCache#419 | a tag is removed, and what only the lower layer has of it stays | `layers::what_was_invalidated_is_not_believed` |
//! | ZiggyCreatures/FusionCache#573 | a node that shares the lower layer never hears of a removed tag | none: two caches share no invalidations, as the crate says |
//! | ZiggyCreatures/FusionCache#613 | a key is changed during its load, and the load overwrites that | [`what_is_inserted_during_a_load_is_not_overwritten_by_it`] |
//! | ZiggyCreatures/FusionCache#625 | a key is removed during its load, and the load stores it all the same | [`whoever_asks_after_the_removal_of_a_key_loads_at_once`] |
//! | ZiggyCreatures/FusionCache#627 | a tag's marker that is brought back is sent to others with the present time, and evicts what is newer | none: no markers, and nothing is sent. `gentle::what_was_loaded_since_is_not_taken_again` |
//! | ZiggyCreatures/FusionCache#628 | a tag is removed while an entry of it is refreshed early in the background, and that is lost | [`a_removal_during_an_early_refresh_is_not_lost`], [`a_removal_during_a_load_that_ends_in_the_background_is_not_lost`] |
//! | dotnet/extensions#7411 | a node reads a tag's time once and never again | none: versions are read on every lookup, and no other process is followed |
//! | dotnet/extensions#7771 | what the lower layer has is judged by the time at which it is read | `layers::what_was_invalidated_is_not_believed`, `layers::after_a_clean_close_what_layers_have_is_served_and_what_was_invalidated_is_not` |
//! | moka-rs/moka#155 | what was inserted just before everything was invalidated stays | [`what_was_inserted_in_the_same_instant_is_invalidated`] |
//! | moka-rs/moka#590 | with keys that come again, under many writers, it stops evicting and grows without bound | [`many_writers_of_recurring_keys_do_not_make_it_grow`] |
//! | foyer-rs/foyer#743 | the lower layer does not take a new value and gives the old one | `layers::an_insert_outdates_what_the_layer_has`, `disk_handle::a_value_that_does_not_fit_takes_its_key_with_it` |
//! | laravel/framework#61328 | what is written during a flush belongs to no tag and can never be flushed again | [`what_is_written_during_an_invalidation_is_reached_by_the_next`] |
//! | symfony/symfony#44015 | a tag's version is evicted, begins at zero again, and old items are valid once more | `layers::after_a_crash_nothing_from_before_is_served`; in memory versions are never evicted |
//! | trinodb/trino#22285 | of two invalidations of a key at once one leaves the old entry for a moment | `linearizable::memory_is_linearizable_under_invalidations_by_key`, `freshness::no_get_sees_the_past_of_a_key` |
//! | google/guava#1881 | a key is invalidated during its load, and stored after it | [`a_load_from_before_the_invalidation_of_its_key_is_not_stored`] |
//! | ben-manes/caffeine#13 | everything is invalidated, and loads on their way escape if somebody follows removals | [`invalidating_everything_reaches_loads_on_their_way`] |
//! | ben-manes/caffeine#193 | a key is invalidated during its refresh, and that stores it again | [`a_key_invalidated_during_its_refresh_stays_away`] |
//! | ben-manes/caffeine#251 | everything is invalidated, and with entries that expire loads on their way escape | [`invalidating_everything_reaches_loads_on_their_way`] |
//! | GreptimeTeam/greptimedb#7815 | who asks after the invalidation joins the load from before it | `single_flight::a_joiner_from_after_the_invalidation_loads_once_more_and_only_once` |
//! | spiceai/spiceai#12673 | a result that was read before a change and is written after its invalidation stays | `dependencies::a_load_during_which_a_dependency_moves_is_returned_and_not_stored` |

mod common;

use std::{thread, time::Duration};

use common::{Gates, cache, manual, readings, region, settle, spawn};
use swiftwater_cache::{Cache, Dep, Hit, LoadCx, Region, RegionBuilder, dep};
use tokio::task::JoinHandle;

const MINUTE: Duration = Duration::from_secs(60);

type Rows = Region<u64, u32>;

/// Asks for key 1 in a task of its own.
fn ask(rows: &Rows, gates: &Gates<u32>) -> JoinHandle<u32> {
    let (rows, gates) = (rows.clone(), gates.clone());
    spawn(async move { *load(&rows, &gates).await })
}

/// Loads key 1, which depends on the tag.
async fn load(rows: &Rows, gates: &Gates<u32>) -> Hit<u32> {
    let gates = gates.clone();
    let load = async move |cx: LoadCx<u64>| {
        cx.depends_on(dep!("tag"));
        Ok(gates.pass(1).await)
    };
    rows.get_or_load(&1, load).await.unwrap()
}

/// The same, with a loader that does not wait.
async fn ready(rows: &Rows, value: u32) -> Hit<u32> {
    let load = async move |cx: LoadCx<u64>| {
        cx.depends_on(dep!("tag"));
        Ok(value)
    };
    rows.get_or_load(&1, load).await.unwrap()
}

#[tokio::test]
async fn whoever_asks_after_the_removal_of_a_key_loads_at_once() {
    let (cache, gates) = (cache(), Gates::new());
    let rows: Rows = region(&cache, "rows");
    let first = ask(&rows, &gates);
    settle().await;
    rows.invalidate(&1);
    let second = ask(&rows, &gates);
    settle().await;
    assert_eq!(gates.waiting(), 2, "the second does not wait for the load from before");
    gates.open(1);
    assert_eq!(first.await.unwrap(), 1, "who asked before is told what there was");
    assert!(rows.get(&1).is_none());
    gates.open(2);
    assert_eq!(second.await.unwrap(), 2);
    assert_eq!(rows.get(&1).unwrap(), 2);
}

#[tokio::test]
async fn a_load_from_before_the_invalidation_of_its_key_is_not_stored() {
    let (cache, gates) = (cache(), Gates::new());
    let rows: Rows = region(&cache, "rows");
    let first = ask(&rows, &gates);
    settle().await;
    rows.invalidate(&1);
    let inner = rows.clone();
    let second = spawn(async move { *ready(&inner, 2).await });
    settle().await;
    assert!(second.is_finished(), "it does not wait for the load from before");
    gates.open(1);
    assert_eq!(first.await.unwrap(), 1);
    assert_eq!(rows.get(&1).unwrap(), 2, "nor does it take the place of what was loaded since");
}

#[tokio::test]
async fn what_is_inserted_during_a_load_is_not_overwritten_by_it() {
    let (cache, gates) = (cache(), Gates::new());
    let rows: Rows = region(&cache, "rows");
    let first = ask(&rows, &gates);
    settle().await;
    rows.insert(1, 2);
    gates.open(1);
    assert_eq!(first.await.unwrap(), 1);
    assert_eq!(rows.get(&1).unwrap(), 2);
}

#[tokio::test]
async fn a_removal_during_an_early_refresh_is_not_lost() {
    let ((cache, hand), gates) = (manual(), Gates::new());
    let rows: Rows = cache.region("rows").ttl(MINUTE).refresh_after(0.1).build().unwrap();
    ready(&rows, 1).await;
    hand.advance(MINUTE / 2);
    assert_eq!(load(&rows, &gates).await, 1, "it is still right, and is loaded anew meanwhile");
    settle().await;
    assert_eq!(gates.waiting(), 1);
    cache.invalidate(dep!("tag"));
    gates.open(1); // read before the change
    settle().await;
    assert!(rows.get(&1).is_none());
    assert_eq!(ready(&rows, 2).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_removal_during_a_load_that_ends_in_the_background_is_not_lost() {
    let ((cache, hand), gates) = (manual(), Gates::new());
    let rows = cache.region("rows").ttl(MINUTE).fail_safe(10 * MINUTE, MINUTE);
    let rows: Rows = rows.soft_timeout(Duration::from_secs(1)).build().unwrap();
    ready(&rows, 1).await;
    hand.advance(2 * MINUTE);
    assert!(load(&rows, &gates).await.is_stale(), "the load takes too long");
    assert_eq!(gates.waiting(), 1);
    cache.invalidate(dep!("tag"));
    gates.open(1); // read before the change
    settle().await;
    assert!(rows.get(&1).is_none());
    assert_eq!(ready(&rows, 2).await, 2);
}

#[tokio::test]
async fn a_key_invalidated_during_its_refresh_stays_away() {
    let ((cache, hand), gates) = (manual(), Gates::new());
    let rows: Rows = cache.region("rows").ttl(MINUTE).refresh_after(0.1).build().unwrap();
    for inserted in [None, Some(3)] {
        ready(&rows, 1).await;
        hand.advance(MINUTE / 2);
        load(&rows, &gates).await;
        settle().await;
        rows.invalidate(&1);
        if let Some(value) = inserted {
            rows.insert(1, value);
        }
        gates.open(2);
        settle().await;
        assert_eq!(rows.get(&1).map(|hit| *hit), inserted);
        rows.invalidate(&1);
    }
}

#[tokio::test]
async fn invalidating_everything_reaches_loads_on_their_way() {
    type Build = fn(RegionBuilder<u64, u32>) -> RegionBuilder<u64, u32>;
    let builds: [(&str, Build); 3] = [
        ("that keeps what it has", |rows| rows),
        ("whose entries expire", |rows| rows.ttl(MINUTE).idle(MINUTE)),
        ("that follows removals", |rows| rows.index(true)),
    ];
    for (kind, build) in builds {
        for of_region in [true, false] {
            let ((cache, _hand), gates) = (manual(), Gates::new());
            let rows: Rows = build(cache.region("rows")).build().unwrap();
            let first = ask(&rows, &gates);
            settle().await;
            cache.invalidate(if of_region { rows.whole() } else { Dep::everything() });
            let second = ask(&rows, &gates);
            gates.open(1);
            settle().await;
            assert!(rows.get(&1).is_none(), "in a region {kind}");
            gates.open(2);
            assert_eq!((first.await.unwrap(), second.await.unwrap()), (1, 2), "in a region {kind}");
            assert_eq!(rows.get(&1).unwrap(), 2, "in a region {kind}");
        }
    }
}

#[test]
fn what_was_inserted_in_the_same_instant_is_invalidated() {
    let (cache, _hand) = manual(); // which stands still
    let rows: Rows = cache.region("rows").ttl(MINUTE).build().unwrap();
    for everything in [Dep::everything(), rows.whole(), dep!("tag")] {
        for key in 0..1_000 {
            rows.insert_with(key, 1, |entry| entry.depends_on(dep!("tag")));
        }
        cache.invalidate(everything);
        assert!((0..1_000).all(|key| rows.get(&key).is_none()));
        rows.insert(1, 2);
        assert_eq!(rows.get(&1).unwrap(), 2, "and what comes after it in that instant is not");
    }
}

#[test]
fn many_writers_of_recurring_keys_do_not_make_it_grow() {
    const CAPACITY: u64 = 10_000;
    let cache = cache();
    let rows: Region<u64, u32> =
        cache.region("rows").memory(CAPACITY).weigher(|_, value| u64::from(*value)).build().unwrap();
    let shards = 4.0 * thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    thread::scope(|scope| {
        for writer in 0..4 {
            let rows = &rows;
            scope.spawn(move || {
                for turn in 0..50_000_u64 {
                    // Every other key is one of a thousand, again and again, with another weight each time.
                    let key = if turn % 2 == 0 { turn % 1_000 } else { writer << 32 | turn };
                    rows.insert(key, (turn % 97) as u32 + 1);
                    if turn % 1_000 == 0 {
                        assert!(readings(rows)["weight"] < CAPACITY as f64 + shards);
                    }
                }
            });
        }
    });
    let readings = readings(&rows);
    assert!(readings["weight"] < CAPACITY as f64 + shards, "it weighs {}", readings["weight"]);
    assert!(readings["entries"] < CAPACITY as f64, "it holds {}", readings["entries"]);
    assert!(readings["evictions"] > 100_000.0, "it goes on evicting");
}

#[test]
fn what_is_written_during_an_invalidation_is_reached_by_the_next() {
    const KEYS: u64 = 2_000;
    let cache: Cache = cache();
    let rows: Region<u64, u64> = region(&cache, "rows");
    for round in 0..10 {
        thread::scope(|scope| {
            for writer in 0..2 {
                let rows = &rows;
                scope.spawn(move || {
                    for key in (writer..KEYS).step_by(2) {
                        rows.insert_with(key, round, |entry| entry.depends_on(dep!("tag", key % 3)));
                    }
                });
            }
            scope.spawn(|| {
                for turn in 0..KEYS {
                    cache.invalidate(dep!("tag", turn % 3));
                }
            });
        });
        for tag in 0..3_u64 {
            cache.invalidate(dep!("tag", tag));
        }
        assert_eq!((0..KEYS).filter(|key| rows.get(key).is_some()).count(), 0);
    }
}
