//! Caches in the process: 100,000 entries, read with a Zipf distribution of 0.9.
//!
//! Ours has a lifetime and two dependencies on every entry. The rivals check no dependencies, and only moka "with a TTL"
//! a lifetime; all hash with foldhash. stretto is left out: it sheds inserts by design and holds far more than its
//! capacity, so nothing about its answers can be asserted.

mod disk;
mod invalidate;
mod load;
mod memory;
mod race;
mod ratio;
mod stores;
mod sweep;

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use swiftwater_benches::{
    pin,
    versus::{Case, Effort, Figure, Planned, time_per_op},
};
use swiftwater_cache::dep;

use crate::{
    arguments::Arguments,
    cache::stores::{
        Dash, Foyer, Key, Locked, MiniMoka, Moka, MokaTtl, Ours, Papaya, QuickBare, QuickEntry, SccCache,
        Store,
    },
    runtime::two_workers,
};

pub fn cases(arguments: &Arguments) -> Result<Vec<Planned>, String> {
    let mut cases = vec![
        Planned::new("hit_u64_1t", || hit::<u64>("hit_u64_1t", 1)),
        Planned::new("hit_u64_2t", || hit::<u64>("hit_u64_2t", 2)),
        Planned::new("hit_string_1t", || hit::<String>("hit_string_1t", 1)),
        Planned::new("hit_64_tasks", hit_64_tasks),
        Planned::new("hit_under_invalidation", hit_under_invalidation),
        Planned::new("load_hit", load::hit),
        Planned::new("load_miss", load::miss),
        Planned::new("stampede", load::stampede),
        Planned::new("stampede_under_invalidation", race::stampede),
        Planned::new("invalidate_100k", invalidate::invalidate_100k),
        Planned::new("sweep", sweep::sweep),
        Planned::new("evict_insert", evict_insert),
        Planned::new("memory", memory::overhead),
        Planned::new("memory_grown", memory::grown),
    ];
    cases.extend(disk::cases(arguments.effort));
    if let Some(folder) = &arguments.traces {
        cases.extend(ratio::cases(folder, arguments.effort)?);
    }
    Ok(cases)
}

fn hit<K: Key>(name: &str, threads: u64) -> Case {
    fn add<K: Key, S: Store<K>>(threads: u64) -> impl FnMut(Effort) -> [f64; 1] {
        let mut filled = None;
        move |effort| {
            let store: &S = filled.get_or_insert_with(fill::<K, S>);
            let reads = K::reads();
            let ns = time_per_op(threads, effort, |thread, count| {
                // Apart, so that they do not walk in step.
                let start = thread * (READS as u64 / 2);
                assert_eq!(reads.sum(store, start, count), reads.expected(start, count));
            });
            [if threads == 1 { ns } else { threads as f64 * 1e3 / ns }]
        }
    }

    let figure = match threads {
        1 => Figure::lower(name, "ns per hit"),
        _ => Figure::higher(name, "million hits a second"),
    };
    let mut case = Case::new([figure]);
    case.ours(add::<K, Ours<K>>(threads));
    case.rival("moka::sync with a TTL", add::<K, MokaTtl<K>>(threads));
    case.rival("moka::sync", add::<K, Moka<K>>(threads));
    case.rival("mini-moka", add::<K, MiniMoka<K>>(threads));
    case.rival("quick_cache", add::<K, QuickBare<K>>(threads));
    case.rival("foyer-memory S3-FIFO", add::<K, Foyer<K>>(threads));
    case.rival("scc HashCache", add::<K, SccCache<K>>(threads));
    case.rival("dashmap, not a cache", add::<K, Dash<K>>(threads));
    case.rival("papaya, not a cache", add::<K, Papaya<K>>(threads));
    case.rival("RwLock<HashMap>, not a cache", add::<K, Locked<K>>(threads));
    case.floor("quick_cache of Arc<Entry>", add::<K, QuickEntry<K>>(threads));
    case
}

fn hit_64_tasks() -> Case {
    fn add<S: Store<u64>>() -> impl FnMut(Effort) -> [f64; 1] {
        let mut filled = None;
        move |effort| {
            let store: &Arc<S> = filled.get_or_insert_with(|| Arc::new(fill::<u64, S>()));
            let runtime = two_workers();
            let millions = runtime.block_on(async {
                let stop = Arc::new(AtomicBool::new(false));
                let start = Instant::now();
                let spawn = |task: u64| {
                    let (store, stop) = (store.clone(), stop.clone());
                    tokio::spawn(async move {
                        let reads = u64::reads();
                        let mut done = 0;
                        while !stop.load(Relaxed) {
                            let from = task * 16_384 + done;
                            assert_eq!(reads.sum(&*store, from, CHUNK), reads.expected(from, CHUNK));
                            done += CHUNK;
                            tokio::task::yield_now().await;
                        }
                        done
                    })
                };
                let running: Vec<_> = (0..64).map(spawn).collect();
                tokio::time::sleep(effort.time).await;
                stop.store(true, Relaxed);
                let mut hits = 0;
                for task in running {
                    hits += task.await.expect("every answer was right");
                }
                hits as f64 / start.elapsed().as_secs_f64() / 1e6
            });
            [millions]
        }
    }

    /// Gets between yields.
    const CHUNK: u64 = 256;

    let mut case = Case::new([Figure::higher("hit_64_tasks", "million hits a second")]);
    case.ours(add::<Ours<u64>>());
    case.rival("moka::sync with a TTL", add::<MokaTtl<u64>>());
    case.rival("quick_cache", add::<QuickBare<u64>>());
    case.rival("foyer-memory S3-FIFO", add::<Foyer<u64>>());
    case.rival("dashmap, not a cache", add::<Dash<u64>>());
    case.floor("quick_cache of Arc<Entry>", add::<QuickEntry<u64>>());
    case
}

/// While somebody on the other processor invalidates what no entry depends on; the others remove keys that are not there.
/// What ours loses all the same, because names share version cells, is put back in the timed part, and counted.
fn hit_under_invalidation() -> Case {
    /// Nanoseconds a read, and the share of reads that found nothing.
    fn measure<S: Store<u64>>(
        store: &S,
        effort: Effort,
        rate: u32,
        invalidate: impl Fn(u64) + Sync,
    ) -> (f64, f64) {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }

        static NEXT: AtomicU64 = AtomicU64::new(1_000_000_000);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pin(1);
                let (start, mut done) = (Instant::now(), 0_u32);
                while !stop.load(Relaxed) {
                    while start.elapsed() < done * (Duration::from_secs(1) / rate) {
                        std::hint::spin_loop();
                    }
                    invalidate(NEXT.fetch_add(1, Relaxed));
                    done += 1;
                }
            });
            // Also when an answer is wrong: the scope waits for the thread.
            let _stop = Stop(&stop);
            let (reads, lost, all) = (u64::reads(), AtomicU64::new(0), AtomicU64::new(0));
            let ns = time_per_op(1, effort, |_, count| {
                let mut sum = 0_u64;
                for place in 0..count {
                    let key = u64::from(reads.order[place as usize % READS]);
                    sum = sum.wrapping_add(store.read(&key, |value| *value).unwrap_or_else(|| {
                        store.insert(key, key);
                        lost.fetch_add(1, Relaxed);
                        key
                    }));
                }
                assert_eq!(sum, reads.expected(0, count));
                all.fetch_add(count, Relaxed);
            });
            (ns, lost.into_inner() as f64 / all.into_inner() as f64)
        })
    }
    fn add<S: Store<u64>>(invalidate: impl Fn(&S, u64) + Sync + 'static) -> impl FnMut(Effort) -> [f64; 3] {
        let mut filled = None;
        move |effort| {
            let store: &S = filled.get_or_insert_with(fill::<u64, S>);
            let (slowly, _) = measure(store, effort, 1_000, |n| invalidate(store, n));
            let (fast, lost) = measure(store, effort, 10_000, |n| invalidate(store, n));
            [slowly, fast, lost]
        }
    }

    let mut case = Case::new([
        Figure::lower("hit_under_invalidation_1k", "ns per read"),
        Figure::lower("hit_under_invalidation_10k", "ns per read"),
        Figure::lower("lost_under_invalidation_10k", "share of reads"),
    ]);
    case.ours(add::<Ours<u64>>(|ours, n| {
        ours.cache.invalidate(dep!("product", n));
    }));
    case.rival("moka::sync with a TTL, by key", add::<MokaTtl<u64>>(|moka, n| moka.0.invalidate(&n)));
    case.rival(
        "quick_cache, by key",
        add::<QuickBare<u64>>(|quick, n| {
            quick.0.remove(&n);
        }),
    );
    case.floor(
        "quick_cache of Arc<Entry>, by key",
        add::<QuickEntry<u64>>(|quick, n| {
            quick.0.remove(&n);
        }),
    );
    case
}

/// Always a new key, into a cache that is full.
fn evict_insert() -> Case {
    fn add<S: Store<u64>>() -> impl FnMut(Effort) -> [f64; 1] {
        let mut full = None;
        move |effort| {
            let (store, next) = full.get_or_insert_with(|| {
                let store = S::build(CAPACITY);
                (0..2 * CAPACITY as u64).for_each(|n| store.insert(n, n));
                store.settle();
                (store, 2 * CAPACITY as u64)
            });
            let from = AtomicU64::new(*next);
            let ns = time_per_op(1, effort, |_, count| {
                let first = from.fetch_add(count, Relaxed);
                (first..first + count).for_each(|n| store.insert(n, n));
                store.settle();
            });
            *next = from.into_inner();
            // The newest, or the oldest with a policy that admits only what was asked for before.
            let oldest = 2 * CAPACITY as u64;
            let asked = (0..oldest).chain(oldest.max(next.saturating_sub(2 * oldest))..*next);
            let held = asked.filter(|n| store.read(n, |found| *found == *n) == Some(true)).count();
            // scc rounds its capacity up to a power of two.
            let most = CAPACITY.next_power_of_two();
            assert!((1..=most).contains(&held), "holds {held} of at most {CAPACITY}");
            [ns]
        }
    }

    const CAPACITY: usize = 10_000;

    let mut case = Case::new([Figure::lower("evict_insert", "ns per insert")]);
    case.ours(add::<Ours<u64>>());
    case.rival("moka::sync with a TTL", add::<MokaTtl<u64>>());
    case.rival("moka::sync", add::<Moka<u64>>());
    case.rival("mini-moka", add::<MiniMoka<u64>>());
    case.rival("quick_cache", add::<QuickBare<u64>>());
    case.rival("foyer-memory S3-FIFO", add::<Foyer<u64>>());
    case.rival("scc HashCache", add::<SccCache<u64>>());
    case.floor("quick_cache of Arc<Entry>", add::<QuickEntry<u64>>());
    case
}

type Hasher = foldhash::fast::RandomState;

const ENTRIES: usize = 100_000;
const READS: usize = 1 << 20;

/// All entries, with room to spare: every read hits.
fn fill<K: Key, S: Store<K>>() -> S {
    let store = S::build(2 * ENTRIES);
    (0..ENTRIES as u64).for_each(|n| store.insert(K::of(n), K::value(n)));
    store.settle();
    store
}

/// What is read, in which order, and what must come out.
pub struct Reads<K> {
    keys: Vec<K>,
    order: &'static [u32],
    /// Sums of what the values say, up to each place.
    sums: Vec<u64>,
}

impl<K: Key> Reads<K> {
    pub fn new() -> Self {
        let order: &'static [u32] = &ORDER;
        let mut sum = 0;
        let add = |n: &u32| {
            sum += K::number(&K::value(u64::from(*n)));
            sum
        };
        let sums = std::iter::once(0).chain(order.iter().map(add)).collect();
        Self { keys: (0..ENTRIES as u64).map(K::of).collect(), order, sums }
    }

    /// Reads `count` from the place `start` on.
    #[inline]
    fn sum<S: Store<K>>(&self, store: &S, start: u64, count: u64) -> u64 {
        let mut sum = 0_u64;
        for place in start..start + count {
            let key = &self.keys[self.order[place as usize % READS] as usize];
            sum = sum.wrapping_add(store.read(key, K::number).expect("a hit"));
        }
        sum
    }

    fn expected(&self, start: u64, count: u64) -> u64 {
        let upto = |place: u64| {
            (place / READS as u64)
                .wrapping_mul(self.sums[READS])
                .wrapping_add(self.sums[place as usize % READS])
        };
        upto(start + count).wrapping_sub(upto(start))
    }
}

/// Numbers of entries, Zipf 0.9; always the same.
static ORDER: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut sum = 0.0;
    let weight = |rank: usize| {
        sum += (rank as f64).powf(-0.9);
        sum
    };
    let upto: Vec<f64> = (1..=ENTRIES).map(weight).collect();
    let total = upto[ENTRIES - 1];
    let mut random = Random(7);
    (0..READS)
        .map(|_| {
            {
                let wanted = random.share() * total;
                upto.partition_point(|upto| *upto < wanted)
            }
            .min(ENTRIES - 1) as u32
        })
        .collect()
});

/// Marsaglia's xorshift: enough to choose what is read.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From zero to just below one.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
