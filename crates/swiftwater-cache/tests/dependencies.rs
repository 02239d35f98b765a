//! What depends on what: declared, inherited, passed on, folded together.

mod common;

use std::{future::Future, pin::Pin};

use common::{Gates, cache, readings, region, settle};
use swiftwater_cache::{AnyError, Cache, LoadCx, MAX_EDGES, Reach, Region, Skip, dep};
use tokio::task::JoinSet;

#[tokio::test]
async fn an_entry_goes_stale_with_any_of_its_dependencies_and_with_no_other() {
    for (invalidated, stale) in [("a", true), ("b", true), ("c", false)] {
        let cache = cache();
        let rows: Region<u64, u32> = region(&cache, "rows");
        let load = async |cx: LoadCx<u64>| {
            cx.depends_on(dep!("a"));
            cx.depends_on(dep!("b"));
            Ok(1)
        };
        rows.get_or_load(&1, load).await.expect("loaded");
        assert!(rows.get(&1).is_some());
        assert_eq!(cache.invalidate(dep!(invalidated)).await, Reach::Local);
        assert_eq!(rows.get(&1).is_none(), stale, "{invalidated}");
    }
}

#[tokio::test]
async fn an_invalidation_takes_effect_when_called_and_not_when_awaited() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    rows.insert_with(1, 1, |entry| entry.depends_on(dep!("a")));
    rows.insert(2, 2);
    cache.invalidate(dep!("a"));
    rows.invalidate(&2);
    assert!(rows.get(&1).is_none() && rows.get(&2).is_none());
}

#[tokio::test]
async fn a_load_during_which_a_dependency_moves_is_returned_and_not_stored() {
    let (cache, gates) = (cache(), Gates::new());
    let rows: Region<u64, u32> = region(&cache, "rows");
    let mut tasks = JoinSet::new();
    {
        let (rows, gates) = (rows.clone(), gates.clone());
        tasks.spawn(async move {
            let load = async move |cx: LoadCx<u64>| {
                let value = gates.pass(1).await;
                cx.depends_on(dep!("a")); // said late: it counts from the start all the same
                Ok(value)
            };
            rows.get_or_load(&1, load).await.map(|hit| *hit)
        });
    }
    settle().await;
    cache.invalidate(dep!("a"));
    gates.open(1);
    assert!(matches!(tasks.join_all().await[..], [Ok(1)]));
    assert!(rows.get(&1).is_none());
    assert_eq!(readings(&rows)["unstored"], 1.0);
}

/// `depth` regions, each entry made of the one below; the lowest depends on `dep!("leaf")`.
fn tower(regions: Vec<Region<u64, u32>>) -> Pin<Box<dyn Future<Output = Result<u32, AnyError>> + Send>> {
    Box::pin(async move {
        let (top, below) = regions.split_last().expect("at least one region");
        let below = below.to_vec();
        let load = async move |cx: LoadCx<u64>| {
            if below.is_empty() {
                cx.depends_on(dep!("leaf"));
                return Ok(0);
            }
            Ok(tower(below).await? + 1)
        };
        Ok(*top.get_or_load(&1, load).await?)
    })
}

#[tokio::test]
async fn dependencies_are_inherited_through_any_depth() {
    const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];
    let cache = cache();
    let regions: Vec<Region<u64, u32>> = NAMES.iter().map(|name| region(&cache, name)).collect();
    // The lower ones stored before, so that the upper ones inherit from a hit as well as from a load.
    tower(regions[..2].to_vec()).await.expect("loaded");
    assert_eq!(tower(regions.clone()).await.expect("loaded"), 4);
    assert!(regions.iter().all(|region| region.get(&1).is_some()));
    cache.invalidate(dep!("leaf"));
    for region in &regions {
        assert!(region.get(&1).is_none(), "{}", region.name());
    }
}

#[tokio::test]
async fn an_invalidated_or_replaced_key_makes_stale_what_was_loaded_from_it() {
    for replace in [false, true] {
        let cache = cache();
        let (base, derived): (Region<u64, u32>, Region<u64, u32>) =
            (region(&cache, "base"), region(&cache, "derived"));
        base.insert(1, 10);
        for key in [1, 2] {
            let base = base.clone();
            let load = async move |cx: LoadCx<u64>| Ok(base.get(cx.key()).map_or(0, |hit| *hit) + 1);
            derived.get_or_load(&key, load).await.expect("loaded");
        }
        if replace {
            base.insert(1, 20);
        } else {
            base.invalidate(&1);
        }
        assert!(derived.get(&1).is_none(), "replace: {replace}");
        assert!(derived.get(&2).is_some(), "it has read another key");
    }
}

#[tokio::test]
async fn a_key_that_failed_to_load_is_a_dependency() {
    let cache = cache();
    let (base, derived): (Region<u64, u32>, Region<u64, u32>) =
        (region(&cache, "base"), region(&cache, "derived"));
    let reading = base.clone();
    let load = async move |_: LoadCx<u64>| {
        let missing = reading.get_or_load(&1, async |cx| {
            cx.depends_on(dep!("row", *cx.key()));
            Err(std::io::Error::other("no such row").into())
        });
        Ok(missing.await.map_or(0, |hit| *hit))
    };
    assert_eq!(*derived.get_or_load(&1, load).await.expect("made of nothing"), 0);
    assert!(derived.get(&1).is_some());
    cache.invalidate(dep!("row", 1_u64)); // now there is one
    assert!(derived.get(&1).is_none(), "its absence was part of the value");
}

#[tokio::test]
async fn a_key_that_was_not_there_is_a_dependency() {
    let cache = cache();
    let (base, derived): (Region<u64, u32>, Region<u64, u32>) =
        (region(&cache, "base"), region(&cache, "derived"));
    let reading = base.clone();
    let load = async move |_: LoadCx<u64>| Ok(reading.get(&1).map_or(0, |hit| *hit));
    assert_eq!(*derived.get_or_load(&1, load).await.expect("loaded"), 0);
    base.insert(2, 2);
    assert!(derived.get(&1).is_some());
    base.insert(1, 1);
    assert!(derived.get(&1).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_on_other_tasks_and_threads_inherits_through_within() {
    let cache = cache();
    let (base, derived): (Region<u64, u32>, Region<u64, u32>) =
        (region(&cache, "base"), region(&cache, "derived"));
    base.insert_with(1, 1, |entry| entry.depends_on(dep!("thread")));
    let reading = base.clone();
    let load = async move |cx: LoadCx<u64>| {
        let scope = (*cx).clone();
        let mut work = JoinSet::new();
        let (other, second) = (reading.clone(), scope.clone());
        work.spawn_blocking(move || reading.within(&scope).get(&1).map_or(0, |hit| *hit));
        work.spawn(async move {
            let load = async |cx: LoadCx<u64>| {
                cx.depends_on(dep!("task"));
                Ok(2)
            };
            other.within(&second).get_or_load(&2, load).await.map_or(0, |hit| *hit)
        });
        Ok(work.join_all().await.iter().sum())
    };
    for changed in [dep!("thread"), dep!("task")] {
        base.insert_with(1, 1, |entry| entry.depends_on(dep!("thread")));
        assert_eq!(*derived.get_or_load(&1, load.clone()).await.expect("loaded"), 3);
        assert!(derived.get(&1).is_some());
        cache.invalidate(changed);
        assert!(derived.get(&1).is_none(), "{changed:?}");
    }
}

#[tokio::test]
async fn a_get_outside_of_loaders_declares_nothing() {
    let cache = cache();
    let (base, derived): (Region<u64, u32>, Region<u64, u32>) =
        (region(&cache, "base"), region(&cache, "derived"));
    base.insert_with(1, 1, |entry| entry.depends_on(dep!("a")));
    derived.get_or_load(&1, async |_| Ok(1)).await.expect("loaded");
    assert!(base.get(&1).is_some());
    cache.invalidate(dep!("a"));
    assert!(derived.get(&1).is_some());
}

#[tokio::test]
async fn too_many_dependencies_are_kept_by_kind_and_none_is_forgotten() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    let load = async |cx: LoadCx<u64>| {
        cx.depends_on(dep!("tariff", 7_u64));
        (0..10 * MAX_EDGES).for_each(|product| cx.depends_on(dep!("product", product)));
        Ok(1)
    };
    let first_and_last = [0, 1, MAX_EDGES, 10 * MAX_EDGES - 1].map(|product| dep!("product", product));
    for changed in first_and_last.into_iter().chain([dep!("tariff", 7_u64)]) {
        rows.get_or_load(&1, load).await.expect("loaded");
        assert!(rows.get(&1).is_some());
        cache.invalidate(changed);
        assert!(rows.get(&1).is_none(), "{changed:?}");
    }
    rows.get_or_load(&1, load).await.expect("loaded");
    cache.invalidate(dep!("category", 7_u64));
    assert!(rows.get(&1).is_some(), "another kind");
}

/// So that what an entry takes is bounded.
#[test]
fn an_entry_keeps_each_once_and_no_more_than_so_many_whatever_they_lie_under() {
    let cache = cache();
    let pages: Region<u64, u32> = region(&cache, "pages");
    let kept = |count: usize, twice: bool| {
        pages.insert_with(1, 1, |entry| {
            for product in 0..count {
                entry.depends_on(dep!("product", product));
                if twice {
                    entry.depends_on(dep!("product", product));
                }
            }
        });
        pages.explain(&1).dependencies
    };
    assert_eq!([kept(1, true), kept(2, true), kept(5, true)], [1, 2, 5]);
    for product in 0..MAX_EDGES {
        cache.link(dep!("product", product), dep!("category", product)).unwrap();
    }
    assert_eq!(kept(2, true), 4);
    assert!(kept(MAX_EDGES * 2 / 3, false) <= MAX_EDGES);
}

#[tokio::test]
async fn at_the_limit_dependencies_are_still_exact() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    let load = async |cx: LoadCx<u64>| {
        for _ in 0..5 {
            (0..MAX_EDGES).for_each(|product| cx.depends_on(dep!("product", product))); // each counts once
        }
        Ok(1)
    };
    rows.get_or_load(&1, load).await.expect("loaded");
    cache.invalidate(dep!("product", MAX_EDGES));
    assert!(rows.get(&1).is_some());
    cache.invalidate(dep!("product", MAX_EDGES - 1));
    assert!(rows.get(&1).is_none());
}

#[tokio::test]
async fn an_old_entry_lends_its_dependencies_without_making_the_new_one_stale() {
    let cache = cache();
    let (base, derived): (Region<u64, u32>, Region<u64, u32>) =
        (region(&cache, "base"), region(&cache, "derived"));
    base.insert_with(1, 1, |entry| entry.depends_on(dep!("rare")));
    cache.invalidate(dep!("frequent")); // after the base was loaded, before the derived one is
    let reading = base.clone();
    let load = async move |cx: LoadCx<u64>| {
        cx.depends_on(dep!("frequent"));
        Ok(reading.get(&1).map_or(0, |hit| *hit))
    };
    derived.get_or_load(&1, load).await.expect("loaded");
    assert!(derived.get(&1).is_some(), "its own load began after that");
    cache.invalidate(dep!("rare"));
    assert!(derived.get(&1).is_none());
}

#[test]
fn a_whole_number_is_one_name_whatever_its_type() {
    let name = dep!("row", 42_u64);
    let same = [
        dep!("row", 42_i32),
        dep!("row", 42_u8),
        dep!("row", 42_i8),
        dep!("row", 42_u16),
        dep!("row", 42_i16),
    ];
    assert!(same.into_iter().all(|other| other == name));
    let same = [dep!("row", 42_u32), dep!("row", 42_i64), dep!("row", 42_usize), dep!("row", 42_isize)];
    assert!(same.into_iter().all(|other| other == name));
    assert_eq!(dep!("row", -7_i8), dep!("row", -7_i64));
    assert_ne!(dep!("row", -7_i64), dep!("row", 7_i64));
    assert_ne!(dep!("row", 4, 2), dep!("row", 42));
    assert_ne!(dep!("row", 4, 2), dep!("row", 2, 4));
    assert_eq!(dep!("row", "ada"), dep!("row", String::from("ada")));
}

#[tokio::test]
async fn a_handful_of_cells_costs_hits_and_never_freshness() {
    let cache = Cache::builder().version_cells(2).build().expect("valid");
    let rows: Region<u64, u32> = region(&cache, "rows");
    for key in 0..100_u64 {
        rows.insert_with(key, 1, |entry| entry.depends_on(dep!("row", key)));
        cache.invalidate(dep!("row", key));
        assert!(rows.get(&key).is_none());
    }
}

/// The region's first named key, and named only after the insert: what the loader has read of the source is older.
#[tokio::test]
async fn a_key_that_is_named_after_an_insert_counts_from_the_start_of_the_load() {
    let cache = cache();
    let (rows, sums) = (region::<u32>(&cache, "rows"), region::<u32>(&cache, "sums"));
    rows.insert(2, 20);
    let inner = rows.clone();
    let load = async move |cx: LoadCx<u64>| {
        let old = 10; // read from the source
        inner.insert(1, 11); // somebody changes it
        cx.depends_on(inner.dep(&1));
        Ok(old)
    };
    assert_eq!(sums.get_or_load(&1, load).await.unwrap(), 10);
    assert!(sums.get(&1).is_none());
    assert!(rows.get(&1).is_some() && rows.get(&2).is_some(), "the region's own entries are not concerned");
}

/// However few cells there are, an insert makes stale what was made of the old value, and not itself.
#[test]
fn with_a_handful_of_cells_what_is_inserted_is_still_found() {
    let cache = Cache::builder().version_cells(2).build().unwrap();
    let rows = region::<u64>(&cache, "rows");
    let _named = rows.dep(&0); // from now on inserts have somebody to tell
    for key in 0..100 {
        rows.insert(key, key);
        assert_eq!(rows.get(&key).unwrap(), key);
    }
}

#[tokio::test]
async fn what_a_loader_reads_past_memory_it_depends_on_as_well() {
    let cache = cache();
    let (rows, pages) = (region::<u32>(&cache, "rows"), region::<u32>(&cache, "pages"));
    let row = rows.clone();
    let load = async move |_: LoadCx<u64>| {
        let past = row.skipping(Skip::new().memory());
        Ok(*past.get_or_load(&1, async |_| Ok(10)).await? + 1)
    };
    assert_eq!(pages.get_or_load(&1, load).await.unwrap(), 11);
    assert!(pages.get(&1).is_some());
    rows.insert(1, 20);
    assert!(pages.get(&1).is_none(), "it was made of the old one");
}
