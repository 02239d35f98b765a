//! The freshness oracle: readers and writers at once, and nobody may see the past.
//!
//! The source is a row of counters. A writer increments one, declares the dependency changed, and then raises that row's
//! floor. A reader notes the floors before it asks, and what it gets must be at least that. The same chaos runs over caches
//! that are broken on purpose, and must catch each of them.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use swiftwater_cache::{Cache, Region, dep};
use tokio::task::{JoinSet, yield_now};

const ROWS: usize = 4;
const READS: usize = 4_000;
const WRITES: usize = 4_000;

/// The truth, and the oldest truth that a reader may still be told.
#[derive(Default)]
struct Source {
    rows: [AtomicU64; ROWS],
    floors: [AtomicU64; ROWS],
}

impl Source {
    async fn read(&self, row: usize) -> u64 {
        let value = self.rows[row].load(SeqCst);
        yield_now().await; // the answer is on its way
        value
    }
}

/// A cache under test: `read` gives the versions of two rows, the key's own and the one after it.
trait Subject: Send + Sync + 'static {
    fn read(&self, source: &Arc<Source>, row: usize) -> impl Future<Output = [u64; 2]> + Send;
    fn changed(&self, row: usize);
}

/// How many answers were older than they may be.
async fn chaos(subject: impl Subject) -> usize {
    let (subject, source) = (Arc::new(subject), Arc::new(Source::default()));
    let mut tasks = JoinSet::new();
    for reader in 0..6 {
        let (subject, source) = (subject.clone(), source.clone());
        tasks.spawn(async move {
            let mut stale = 0;
            for read in 0..READS {
                let row = (reader + read) % ROWS;
                let rows = [row, (row + 1) % ROWS];
                let floors = rows.map(|row| source.floors[row].load(SeqCst));
                let versions = subject.read(&source, row).await;
                stale += usize::from(versions.iter().zip(floors).any(|(version, floor)| *version < floor));
                if read % 8 == 0 {
                    yield_now().await;
                }
            }
            stale
        });
    }
    for writer in 0..2 {
        let (subject, source) = (subject.clone(), source.clone());
        tasks.spawn(async move {
            for write in 0..WRITES {
                let row = (writer + write / 3) % ROWS;
                let version = source.rows[row].fetch_add(1, SeqCst) + 1;
                subject.changed(row);
                source.floors[row].fetch_max(version, SeqCst);
                yield_now().await;
            }
            0
        });
    }
    tasks.join_all().await.into_iter().sum()
}

/// Ours: two regions, the second made of the first, so that what the first depends on is inherited.
struct Ours {
    cache: Cache,
    rows: Region<usize, u64>,
    pairs: Region<usize, [u64; 2]>,
}

impl Ours {
    fn new() -> Self {
        let cache = Cache::builder().build().expect("the defaults are valid");
        let rows = cache.region("rows").build().expect("the defaults are valid");
        let pairs = cache.region("pairs").build().expect("the defaults are valid");
        Self { cache, rows, pairs }
    }
}

impl Subject for Ours {
    async fn read(&self, source: &Arc<Source>, row: usize) -> [u64; 2] {
        let pair = self.pairs.get_or_load(&row, |cx| {
            let (rows, source) = (self.rows.clone(), source.clone());
            async move {
                let mut pair = [0; 2];
                for (place, row) in [*cx.key(), (cx.key() + 1) % ROWS].into_iter().enumerate() {
                    let source = source.clone();
                    let load = async move |cx: swiftwater_cache::LoadCx<usize>| {
                        cx.depends_on(dep!("row", *cx.key()));
                        Ok(source.read(*cx.key()).await)
                    };
                    pair[place] = *rows.get_or_load(&row, load).await?;
                }
                Ok(pair)
            }
        });
        *pair.await.expect("no loader fails")
    }

    fn changed(&self, row: usize) {
        self.cache.invalidate(dep!("row", row));
    }
}

/// Ours again, invalidated by key: the rows declare nothing, and the pairs depend on the keys that they were made of.
struct ByKey(Ours);

impl Subject for ByKey {
    async fn read(&self, source: &Arc<Source>, row: usize) -> [u64; 2] {
        let pair = self.0.pairs.get_or_load(&row, |cx| {
            let (rows, source) = (self.0.rows.clone(), source.clone());
            async move {
                let mut pair = [0; 2];
                for (place, row) in [*cx.key(), (cx.key() + 1) % ROWS].into_iter().enumerate() {
                    let source = source.clone();
                    pair[place] = *rows.get_or_load(&row, async move |_| Ok(source.read(row).await)).await?;
                }
                Ok(pair)
            }
        });
        *pair.await.expect("no loader fails")
    }

    fn changed(&self, row: usize) {
        self.0.rows.invalidate(&row);
    }
}

/// Broken: the usual "look up, load, insert" over our own cache. The stamp is taken after the load.
struct StampedLate(Ours);

impl Subject for StampedLate {
    async fn read(&self, source: &Arc<Source>, row: usize) -> [u64; 2] {
        if let Some(pair) = self.0.pairs.get(&row) {
            return *pair;
        }
        let next = (row + 1) % ROWS;
        let pair = [source.read(row).await, source.read(next).await];
        self.0.pairs.insert_with(row, pair, |entry| {
            entry.depends_on(dep!("row", row));
            entry.depends_on(dep!("row", next));
        });
        pair
    }

    fn changed(&self, row: usize) {
        self.0.changed(row);
    }
}

/// Broken: a map that forgets dependents eagerly and stores whatever a load gave.
#[derive(Default)]
struct StoredUnchecked(Mutex<HashMap<usize, [u64; 2]>>);

impl Subject for StoredUnchecked {
    async fn read(&self, source: &Arc<Source>, row: usize) -> [u64; 2] {
        if let Some(pair) = self.0.lock().expect("no holder panics").get(&row) {
            return *pair;
        }
        let pair = [source.read(row).await, source.read((row + 1) % ROWS).await];
        self.0.lock().expect("no holder panics").insert(row, pair);
        pair
    }

    fn changed(&self, row: usize) {
        let mut map = self.0.lock().expect("no holder panics");
        map.remove(&row);
        map.remove(&((row + ROWS - 1) % ROWS));
    }
}

/// Broken: a dependency that is read but not declared.
struct Undeclared(Ours);

impl Subject for Undeclared {
    async fn read(&self, source: &Arc<Source>, row: usize) -> [u64; 2] {
        let pair = self.0.pairs.get_or_load(&row, |cx| {
            let source = source.clone();
            async move {
                cx.depends_on(dep!("row", *cx.key()));
                Ok([source.read(*cx.key()).await, source.read((cx.key() + 1) % ROWS).await])
            }
        });
        *pair.await.expect("no loader fails")
    }

    fn changed(&self, row: usize) {
        self.0.changed(row);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_get_sees_the_past() {
    assert_eq!(chaos(Ours::new()).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_get_sees_the_past_of_a_key() {
    assert_eq!(chaos(ByKey(Ours::new())).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_oracle_catches_a_stamp_that_is_taken_after_the_load() {
    assert!(chaos(StampedLate(Ours::new())).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_oracle_catches_an_unconditional_fill() {
    assert!(chaos(StoredUnchecked::default()).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_oracle_catches_an_undeclared_dependency() {
    assert!(chaos(Undeclared(Ours::new())).await > 0);
}
