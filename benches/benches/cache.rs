//! What a region costs a read, a load, an insert and an invalidation, in one thread. Every run checks its answers.

use std::{
    cell::Cell,
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use criterion::Criterion;
use swiftwater_benches::pin;
use swiftwater_cache::{Cache, Region, dep};

const ENTRIES: u64 = 10_000;

fn main() {
    pin(0);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let cache = Cache::builder().build().expect("valid options");
    let build = |name, capacity| -> Region<u64, u64> {
        cache.region(name).memory(capacity).ttl(Duration::from_secs(3600)).build().expect("valid options")
    };
    let (held, cold, small) = (build("held", 2 * ENTRIES), build("cold", 2 * ENTRIES), build("small", 1000));
    let declared = |region: &Region<u64, u64>, key: u64| {
        region.insert_with(key, key, |entry| {
            entry.depends_on(dep!("product", key));
            entry.depends_on(dep!("tariff"));
        });
    };
    (0..ENTRIES).for_each(|key| declared(&held, key));

    let next = Cell::new(0);
    let turn = || next.replace(next.get() + 1);
    let mut group = criterion.benchmark_group("cache");
    group.bench_function("get, hit", |bencher| {
        bencher.iter(|| {
            let key = turn() * 7919 % ENTRIES;
            assert_eq!(held.get(&key).map(|hit| *hit), Some(key));
        });
    });
    group.bench_function("get, nothing there", |bencher| {
        bencher.iter(|| assert!(held.get(black_box(&u64::MAX)).is_none()));
    });
    group.bench_function("get_or_load, hit", |bencher| {
        bencher.iter(|| {
            let key = turn() * 7919 % ENTRIES;
            let load = held.get_or_load(&key, async |_| unreachable!("it is there"));
            assert_eq!(*runtime.block_on(load).expect("it is there"), key);
        });
    });
    group.bench_function("get_or_load, miss", |bencher| {
        static LOADS: AtomicU64 = AtomicU64::new(0);
        bencher.iter(|| {
            let (key, before) = (turn(), LOADS.load(Relaxed));
            let load = cold.get_or_load(&key, async move |cx| {
                cx.depends_on(dep!("product", key));
                LOADS.fetch_add(1, Relaxed);
                Ok(key)
            });
            assert_eq!(*runtime.block_on(load).expect("it loads"), key);
            assert_eq!(LOADS.load(Relaxed), before + 1);
        });
    });
    group.bench_function("insert_with, evicting", |bencher| bencher.iter(|| declared(&small, turn())));
    group.bench_function("invalidate", |bencher| {
        bencher.iter(|| cache.invalidate(dep!("nobody", turn())));
    });
    cache_is_right(&cache, &held);
    group.finish();
    criterion.final_summary();
}

fn cache_is_right(cache: &Cache, held: &Region<u64, u64>) {
    cache.invalidate(dep!("tariff"));
    assert!((0..ENTRIES).all(|key| held.get(&key).is_none()));
}
