//! What entries take on the heap, and what invalidating leaves there.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Duration,
};

use swiftwater_benches::{
    heap,
    versus::{Case, Effort, Figure, NOTHING},
};
use swiftwater_cache::{Cache, Region, dep};

use crate::cache::{
    ENTRIES, Hasher,
    stores::{Foyer, MiniMoka, Moka, MokaTtl, Ours, QuickBare, QuickEntry, SccCache, Store},
};

/// Beyond key and value, of a full cache; and what one more dependency of every entry costs.
pub fn overhead() -> Case {
    /// Many more inserts than there is room for, so that what is counted is a cache in the middle of its life.
    fn measure<S: Store<u64>>(effort: Effort, insert: impl Fn(&S, u64)) -> f64 {
        let churn = ENTRIES as u64 * if effort.quick { 3 } else { 10 };
        let (store, heap) = heap::of(|| {
            let store = S::build(ENTRIES);
            (0..churn).for_each(|n| insert(&store, n));
            store.settle();
            store
        });
        let held = (0..churn).filter(|n| store.read(n, |found| *found == *n) == Some(true)).count();
        assert!(held > ENTRIES / 2, "holds {held} of {ENTRIES}");
        heap.bytes as f64 / held as f64 - 16.0
    }
    fn add<S: Store<u64>>() -> impl FnMut(Effort) -> [f64; 2] {
        |effort| [measure::<S>(effort, |store, n| store.insert(n, n)), NOTHING]
    }

    let mut case = Case::new([
        Figure::lower("memory", "bytes per entry beyond key and value"),
        Figure::lower("memory_per_edge", "bytes per further dependency of an entry"),
    ]);
    case.ours(|effort| {
        let with = |edges: u64| {
            measure::<Ours<u64>>(effort, move |ours, n| {
                ours.region.insert_with(n, n, |entry| {
                    (0..edges).for_each(|edge| entry.depends_on(dep!("edge", edge, n % 1000)));
                });
            })
        };
        // Up to two of them are in the entry itself, so those are further ones.
        [with(2), (with(18) - with(10)) / 8.0]
    });
    case.rival("moka::sync with a TTL", add::<MokaTtl<u64>>());
    case.rival("moka::sync", add::<Moka<u64>>());
    case.rival("mini-moka", add::<MiniMoka<u64>>());
    case.rival("quick_cache", add::<QuickBare<u64>>());
    case.rival("foyer-memory S3-FIFO", add::<Foyer<u64>>());
    case.rival("scc HashCache", add::<SccCache<u64>>());
    // What an exact index from tags to keys takes: one more dependency is one more entry there.
    case.rival("HashMap<u64, HashSet<u64>>", |_| index_edge(|n| n));
    case.rival("HashMap<u64, HashSet<String>>", |_| index_edge(|n| format!("{n:033}")));
    case.floor("quick_cache of Arc<Entry>", add::<QuickEntry<u64>>());
    case
}

fn index_edge<K: Hash + Eq>(key: impl Fn(u64) -> K) -> [f64; 2] {
    let (index, heap) = heap::of(|| {
        let mut index: HashMap<u64, HashSet<K, Hasher>, Hasher> = HashMap::default();
        (0..ENTRIES as u64).for_each(|n| {
            index.entry(n % 10).or_default().insert(key(n));
        });
        index
    });
    assert_eq!(index.values().map(HashSet::len).sum::<usize>(), ENTRIES);
    [NOTHING, heap.bytes as f64 / ENTRIES as f64]
}

/// A service runs for months, and what it invalidates has ever new names.
pub fn grown() -> Case {
    fn names(effort: Effort) -> u64 {
        if effort.quick { 100_000 } else { 10_000_000 }
    }

    let mut case =
        Case::new([Figure::lower("memory_grown", "bytes kept per name that was ever invalidated")]);
    case.ours(|effort| {
        let cache = Cache::builder().build().expect("valid options");
        let region: Region<u64, u64> = cache.region("products").build().expect("valid options");
        region.insert_with(1, 1, |entry| entry.depends_on(dep!("product", 1)));
        let invalidate = |n: u64| {
            cache.invalidate(dep!("order", n));
            // Gentler ones are rarer, and dearer.
            if n.is_multiple_of(100) {
                cache.invalidate(dep!("order", n).soft());
                cache.invalidate(dep!("order", n).gradual(Duration::from_secs(60)));
                cache.invalidate(dep!("order", n).hold_off(Duration::from_secs(1)));
                region.invalidate(&(2 + n));
            }
        };
        // Tables of one size each, when they are needed first.
        invalidate(0);
        let names = names(effort);
        let ((), heap) = heap::of(|| (1..=names).for_each(invalidate));
        // Threads from before may end meanwhile, and the clock's may begin.
        assert!(heap.bytes.abs() < 4096, "{} bytes have come", heap.bytes);
        assert!(region.get(&1).is_none_or(|hit| *hit == 1));
        [heap.bytes.max(0) as f64 / names as f64]
    });
    // What one writes by hand: it cannot know which names are still needed.
    case.rival("HashMap of a generation per name", |effort| {
        let names = names(effort);
        let (generations, heap) = heap::of(|| {
            let mut generations: HashMap<u64, u64, Hasher> = HashMap::default();
            (1..=names).for_each(|n| *generations.entry(n).or_default() += 1);
            generations
        });
        assert_eq!(generations.len() as u64, names);
        [heap.bytes as f64 / names as f64]
    });
    case
}
