//! Building, switching off, tuning, watching.

mod common;

use common::{Gates, cache, readings, region, settle};
use swiftwater_cache::{Cache, Hit, LoadCx, Region, dep};
use swiftwater_core::{Knob, KnobError, Registry, Tunable};
use tokio::task::JoinSet;

fn knobs(tunable: &dyn Tunable) -> Vec<Knob> {
    let mut knobs = Vec::new();
    tunable.knobs(&mut |knob| knobs.push(knob));
    knobs
}

#[test]
fn nonsense_is_refused_by_name_and_value() {
    let refused =
        |cells| Cache::builder().version_cells(cells).build().expect_err("out of range").to_string();
    assert_eq!(refused(0), "version_cells = 0: must be 2 to 2^28");
    assert_eq!(refused(usize::MAX), format!("version_cells = {}: must be 2 to 2^28", usize::MAX));

    let cache = cache();
    let of = |option: &str| match option {
        "memory" => cache.region::<u64, u32>("rows").memory(0).build(),
        "expected_entries" => cache.region("rows").expected_entries(0).build(),
        _ => cache.region("rows").ttl(std::time::Duration::ZERO).build(),
    };
    assert!(cache.region::<u64, u32>("rows").memory(u64::MAX).build().is_err());
    for option in ["memory", "expected_entries", "ttl"] {
        assert_eq!(of(option).expect_err("zero").option(), option);
    }
    let extreme: Region<u64, u32> =
        cache.region("rows").memory(1 << 53).ttl(std::time::Duration::MAX).build().expect("valid");
    extreme.insert(1, 1);
    assert!(extreme.get(&1).is_some());
    drop(extreme);
    for entries in [1, 1 << 36, 1 << 53, usize::MAX] {
        let extreme: Region<u64, u32> =
            cache.region("rows").expected_entries(entries).build().expect("valid");
        extreme.insert(1, 1);
        assert!(extreme.get(&1).is_some());
    }
}

#[test]
fn a_name_is_taken_as_long_as_its_region_lives() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    let taken = cache.region::<String, String>("rows").build().expect_err("taken");
    assert_eq!(taken.to_string(), "region = rows: this cache has a region of that name");
    drop(rows);
    assert!(cache.region::<String, String>("rows").build().is_ok());
}

#[tokio::test]
async fn switched_off_it_is_transparent_and_on_again_it_has_missed_nothing() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    for key in 1..=4 {
        rows.insert_with(key, 1, |entry| entry.depends_on(dep!("row", key)));
    }
    rows.set_enabled(false);
    assert!(!rows.is_enabled());
    assert!(rows.get(&1).is_none());
    for value in [2, 3] {
        assert_eq!(
            *rows.get_or_load(&9, async move |_| Ok(value)).await.expect("loaded"),
            value,
            "loads every time"
        );
    }
    cache.invalidate(dep!("row", 1_u64));
    rows.invalidate(&2);
    rows.insert(3, 7);
    rows.set_enabled(true);
    assert!(rows.get(&1).is_none(), "its dependency moved");
    assert!(rows.get(&2).is_none(), "it was invalidated");
    assert!(rows.get(&3).is_none(), "another value took its place");
    assert_eq!(rows.get(&4).map(|hit| *hit), Some(1), "nothing happened to it");
    assert!(rows.get(&9).is_none(), "nothing was stored");

    let off: Region<u64, u32> = cache.region("off").enabled(false).build().expect("valid");
    off.insert(1, 1);
    assert!(!off.is_enabled() && off.get(&1).is_none());
}

#[tokio::test]
async fn who_refuses_an_older_load_after_the_switch_was_turned_loads_alone() {
    let (cache, gates) = (cache(), Gates::<u32>::new());
    let rows: Region<u64, u32> = region(&cache, "rows");
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let (rows, gates) = (rows.clone(), gates.clone());
        tasks.spawn(async move {
            let load = async move |cx: LoadCx<u64>| {
                cx.depends_on(dep!("row", 1));
                Ok(gates.pass(*cx.key()).await)
            };
            rows.get_or_load(&1, load).await.map(|hit| *hit)
        });
        settle().await;
        cache.invalidate(dep!("row", 1)); // the second caller will not take what the first one's load gives
    }
    rows.set_enabled(false);
    gates.open(1);
    settle().await;
    assert_eq!(gates.waiting(), 1);
    rows.set_enabled(true);
    gates.open(2); // begun while it was off
    let mut answers: Vec<_> =
        tasks.join_all().await.into_iter().map(|answer| answer.expect("loaded")).collect();
    answers.sort_unstable();
    assert_eq!(answers, [1, 2]);
    assert!(rows.get(&1).is_none(), "nothing is stored of what began while it was off");
}

#[tokio::test]
async fn what_a_switched_off_region_loads_is_inherited_all_the_same() {
    let cache = cache();
    let (base, derived): (Region<u64, u32>, Region<u64, u32>) =
        (region(&cache, "base"), region(&cache, "derived"));
    base.set_enabled(false);
    let reading = base.clone();
    let load = async move |_: LoadCx<u64>| {
        let load = async |cx: LoadCx<u64>| {
            cx.depends_on(dep!("row", *cx.key()));
            Ok(1)
        };
        Ok(*reading.get_or_load(&1, load).await?)
    };
    derived.get_or_load(&1, load).await.expect("loaded");
    assert!(derived.get(&1).is_some());
    cache.invalidate(dep!("row", 1_u64));
    assert!(derived.get(&1).is_none());
}

#[test]
#[cfg_attr(swiftwater_moka, ignore = "moka's capacity cannot be changed, so there is no knob for it")]
fn turning_the_capacity_down_evicts_at_once_and_up_makes_room() {
    let cache = cache();
    let rows: Region<u64, u32> = cache.region("rows").memory(1_000).build().expect("valid");
    let knob = knobs(&rows).remove(0);
    assert_eq!((knob.name(), knob.get()), ("capacity", Ok(1_000.0)));
    let stored = || (0..5_000).filter(|key| rows.get(key).is_some()).count();
    (0..5_000).for_each(|key| rows.insert(key, 1));
    let before = stored();
    assert!((500..=1_010).contains(&before), "{before}");
    knob.set(100.0).expect("inside the bounds");
    assert!((1..=110).contains(&stored()), "{}", stored());
    knob.set(4_000.0).expect("inside the bounds");
    (0..5_000).for_each(|key| rows.insert(key, 1));
    assert!(stored() > 2_000, "{}", stored());

    assert_eq!(knobs(&cache).len(), 1, "the cache offers those of its regions");
    assert!(matches!(knob.set(0.0), Err(KnobError::OutOfBounds { .. })));
    drop(rows);
    assert_eq!(knob.get(), Err(KnobError::Gone));
}

#[tokio::test]
async fn the_readings_add_up() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    for key in [1, 1, 2, 1] {
        rows.get_or_load(&key, async |_| Ok(1)).await.expect("loaded");
    }
    rows.get_or_load(&3, async |_| Err(std::io::Error::other("no such row").into()))
        .await
        .expect_err("fails");
    cache.invalidate(dep!("any"));
    rows.invalidate(&2);
    let readings = readings(&cache);
    let of = |name: &str| readings[&format!("rows/{name}")];
    assert_eq!(readings["invalidations"], 2.0);
    assert_eq!((of("hits"), of("misses_absent"), of("loads"), of("load_failures")), (2.0, 3.0, 3.0, 1.0));
    assert_eq!((of("entries"), of("weight"), of("capacity")), (1.0, 1.0, 10_000.0));
}

#[test]
fn a_registry_shows_every_region_of_a_cache() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    rows.insert(1, 1);
    assert!(rows.get(&1).is_some());
    let registry = Registry::new();
    registry.add("cache", "shop", &cache).expect("the name is free");
    registry.add("region", "alone", &rows).expect("the name is free");
    let page = registry.prometheus();
    assert!(
        page.contains("swiftwater_cache_region_hits_total{cache=\"shop\",region=\"rows\"} 1\n"),
        "{page}"
    );
    assert!(page.contains("swiftwater_region_hits_total{region=\"alone\"} 1\n"), "{page}");
    assert!(
        page.contains("swiftwater_cache_region_mode{cache=\"shop\",region=\"rows\",mode=\"on\"} 1\n"),
        "{page}"
    );
    rows.set_enabled(false);
    assert!(registry.prometheus().contains("region=\"rows\",mode=\"off\"} 1\n"));
}

#[test]
fn handles_and_futures_may_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    fn future<T: Send>(_: T) {}
    check::<(Cache, Region<u64, String>, Hit<String>, LoadCx<u64>)>();
    let cache = cache();
    let rows: Region<String, String> = cache.region("rows").build().expect("valid");
    future(rows.get_or_load("key", async |cx| Ok(cx.key().clone())));
}
