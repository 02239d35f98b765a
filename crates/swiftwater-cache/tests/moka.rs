//! What is moka's own. All other tests are for both stores: `--cfg swiftwater_moka` runs them in this one.

mod common;

use std::{cell::RefCell, sync::Arc};

use common::{cache, readings, region};
use swiftwater_cache::{Cache, Region, RegionBuilder, dep};
use swiftwater_core::Tunable;

fn small<V: Send + Sync + 'static>(cache: &Cache, capacity: u64) -> RegionBuilder<u64, V> {
    cache.region("rows").memory_moka(capacity)
}

#[test]
fn the_later_of_two_calls_decides_and_only_one_of_the_stores_can_be_resized() {
    let knobs = |builder: RegionBuilder<u64, u32>| {
        let rows = builder.build().expect("valid");
        assert_eq!(readings(&rows)["capacity"], 20.0);
        let mut names = Vec::new();
        rows.knobs(&mut |knob| names.push(knob.name()));
        names
    };
    let builder = || cache().region("rows");
    assert!(knobs(builder().memory(10).memory_moka(20)).is_empty());
    let resizable = knobs(builder().memory_moka(10).memory(20)) == ["capacity"];
    assert_eq!(resizable, !cfg!(swiftwater_moka), "there `memory` is moka as well");
}

#[test]
fn the_capacity_is_judged_as_for_the_other_store() {
    for capacity in [0, u64::MAX] {
        let error = small::<u32>(&cache(), capacity).build().expect_err("nonsense");
        assert_eq!(error.option(), "memory");
    }
}

#[test]
fn once_it_has_settled_it_is_within_its_capacity_and_all_is_accounted_for() {
    let rows: Region<u64, u32> =
        small(&cache(), 1_000).weigher(|_, value| u64::from(*value)).build().expect("valid");
    (0..10_000).for_each(|key| rows.insert(key, 1 + key as u32 % 5));
    let readings = readings(&rows);
    assert!(readings["weight"] > 900.0 && readings["weight"] <= 1_000.0, "{}", readings["weight"]);
    assert_eq!(readings["entries"] + readings["evictions"], 10_000.0);
    assert_eq!((0..10_000).filter(|key| rows.get(key).is_some()).count() as f64, readings["entries"]);
}

#[test]
fn a_scan_does_not_displace_what_is_in_demand() {
    let rows: Region<u64, u32> = small(&cache(), 100).build().expect("valid");
    (0..50).for_each(|key| rows.insert(key, 1));
    for _ in 0..10 {
        assert!((0..50).all(|key| rows.get(&key).is_some()));
        readings(&rows);
    }
    (1_000..11_000).for_each(|key| rows.insert(key, 1));
    readings(&rows);
    assert!((0..50).all(|key| rows.get(&key).is_some()));
}

/// moka itself keeps what it has let go of for a while.
#[tokio::test]
async fn what_is_let_go_of_is_dropped_at_once() {
    let cache = cache();
    let rows: Region<u64, Arc<()>> =
        small(&cache, 4).index(true).weigher(|key, _| *key).build().expect("valid");
    let value = Arc::new(());
    let put = |key| rows.insert_with(key, value.clone(), |entry| entry.depends_on(dep!("row")));
    let held = || Arc::strong_count(&value) - 1;
    put(1);
    put(1);
    assert_eq!(held(), 1, "replaced");
    rows.invalidate(&1).await;
    assert_eq!(held(), 0, "by key");
    put(1);
    assert_eq!(rows.purge(dep!("row")), Some(1));
    assert_eq!(held(), 0, "purged");
    put(1);
    cache.invalidate(dep!("row")).await;
    assert!(rows.get(&1).is_none());
    assert_eq!(held(), 0, "found stale");
    put(1);
    cache.invalidate(dep!("row")).await;
    cache.sweep(u32::MAX).await;
    assert_eq!(held(), 0, "swept");
    put(5);
    assert_eq!((held(), readings(&rows)["too_heavy"]), (0, 1.0), "too heavy");
    (2..5).for_each(put);
    let readings = readings(&rows);
    assert_eq!(held() as f64, readings["entries"], "evicted");
    drop(rows);
    assert_eq!(held(), 0);
}

thread_local!(static MEANWHILE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) });

/// Something happens when it is cloned.
#[derive(PartialEq, Eq, Hash)]
struct Sly(u64);

impl Clone for Sly {
    fn clone(&self) -> Self {
        let meanwhile = MEANWHILE.take();
        meanwhile.into_iter().for_each(|act| act());
        Self(self.0)
    }
}

#[tokio::test]
async fn only_the_entry_that_was_found_wanting_is_removed() {
    let cache = cache();
    let rows: Region<Sly, u32> = cache.region("rows").memory_moka(4).build().expect("valid");
    rows.insert_with(Sly(1), 1, |entry| entry.depends_on(dep!("row")));
    cache.invalidate(dep!("row")).await;
    let (again, done) = (rows.clone(), Arc::new(()));
    let doing = done.clone();
    MEANWHILE.set(Some(Box::new(move || {
        again.insert(Sly(1), 2); // the sweep has the old entry in its hand
        drop(doing);
    })));
    assert_eq!(cache.sweep(u32::MAX).await.freed, 0);
    assert_eq!(Arc::strong_count(&done), 1, "it has happened");
    assert_eq!(rows.get(&Sly(1)).as_deref(), Some(&2));
}

#[test]
fn both_stores_share_a_cache() {
    let cache = cache();
    let rows: Region<u64, u32> = small(&cache, 10).build().expect("valid");
    let others: Region<u64, u32> = region(&cache, "others");
    rows.insert_with(1, 1, |entry| entry.depends_on(dep!("row")));
    others.insert_with(1, 1, |entry| entry.depends_on(dep!("row")));
    cache.invalidate(dep!("row"));
    assert!(rows.get(&1).is_none() && others.get(&1).is_none());
}
