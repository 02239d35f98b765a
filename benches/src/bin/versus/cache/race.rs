//! Many tasks want the same keys, while somebody changes what they read and invalidates it.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use swiftwater_benches::versus::{Case, Effort, Figure, NOTHING};
use swiftwater_cache::dep;
use tokio::task::yield_now;

use crate::{
    cache::{
        load::{Hand, Loads, MokaFuture, Quick},
        stores::{Foyer, Ours},
    },
    runtime::two_workers,
};

/// 64 tasks walk the same cold keys; the loader reads the source and waits three times; a task changes the key that is in
/// demand, invalidates it, and so on.
///
/// An answer is stale if it is older than a change whose invalidation had returned before the question was asked. Ours has
/// none, and nobody waits for more than two loads; both are asserted. The others are used as their documentation shows.
pub fn stampede() -> Case {
    fn add<R: Race>() -> impl FnMut(Effort) -> [f64; 4] {
        |effort| {
            let keys = if effort.quick { 500 } else { 5_000 };
            let (store, source) = (Arc::new(R::build()), Arc::new(Source::new(keys)));
            let (time, answers) = two_workers().block_on(walk(&store, &source));
            assert_eq!(answers.all, TASKS * keys, "answers");
            assert!(!R::KEEPS_THE_LAWS || answers.stale == 0, "{} stale answers", answers.stale);
            assert!(!R::KEEPS_THE_LAWS || answers.waits <= 2, "a caller waited for {} loads", answers.waits);
            let keys = keys as f64;
            [
                time.as_nanos() as f64 / 1e3 / keys,
                source.loads.load(Relaxed) as f64 / keys,
                if R::KEEPS_THE_LAWS { answers.waits as f64 } else { NOTHING },
                answers.stale as f64 / answers.all as f64,
            ]
        }
    }

    let mut case = Case::new([
        Figure::lower("stampede_under_invalidation", "us per key that 64 tasks want"),
        Figure::lower("loads_under_invalidation", "loads per key"),
        Figure::lower("waits_under_invalidation", "loads that one caller has waited for, at most"),
        Figure::lower("stale_under_invalidation", "share of answers from before an invalidation"),
    ]);
    case.ours(add::<Ours<u64>>());
    case.rival("quick_cache get_or_insert_async, remove", add::<Quick>());
    case.rival("moka::future try_get_with, invalidate", add::<MokaFuture>());
    case.rival("foyer-memory get_or_fetch, remove", add::<Foyer<u64>>());
    case.floor("sharded Mutex<HashMap> of OnceCell, remove", add::<Hand>());
    case
}

const TASKS: u64 = 64;

async fn walk<R: Race>(store: &Arc<R>, source: &Arc<Source>) -> (Duration, Answers) {
    let stop = Arc::new(AtomicBool::new(false));
    let disturb = tokio::spawn({
        let (store, source, stop) = (store.clone(), source.clone(), stop.clone());
        async move {
            while !stop.load(Relaxed) {
                let key = source.wanted.load(Relaxed);
                let version = source.at(key).version.fetch_add(1, SeqCst) + 1;
                store.invalidate(key).await;
                source.at(key).acknowledged.store(version, SeqCst);
                yield_now().await;
            }
        }
    });
    let start = Instant::now();
    let ask = |_| {
        let (store, source) = (store.clone(), source.clone());
        async move {
            let mut answers = Answers::default();
            for key in 0..source.keys.len() as u64 {
                source.wanted.fetch_max(key, Relaxed);
                let at_least = source.at(key).acknowledged.load(SeqCst);
                let (version, waits) = source.waits(key, store.load(key, &source)).await;
                answers.all += 1;
                answers.stale += u64::from(version < at_least);
                answers.waits = answers.waits.max(waits);
            }
            answers
        }
    };
    let asking: Vec<_> = (0..TASKS).map(|task| tokio::spawn(ask(task))).collect();
    let mut answers = Answers::default();
    for task in asking {
        let more = task.await.expect("it answers");
        answers.all += more.all;
        answers.stale += more.stale;
        answers.waits = answers.waits.max(more.waits);
    }
    let time = start.elapsed();
    stop.store(true, Relaxed);
    disturb.await.expect("it invalidates");
    (time, answers)
}

#[derive(Default)]
struct Answers {
    all: u64,
    stale: u64,
    /// The most of one caller.
    waits: u64,
}

/// What is loaded: of each key a version that only grows.
pub struct Source {
    keys: Vec<At>,
    /// The key that the foremost task asks for.
    wanted: AtomicU64,
    loads: AtomicU64,
}

#[derive(Default)]
struct At {
    version: AtomicU64,
    /// The version whose invalidation has returned.
    acknowledged: AtomicU64,
    /// How many loads have ended.
    ended: AtomicU64,
}

impl Source {
    fn new(keys: u64) -> Self {
        let keys = (0..keys).map(|_| At::default()).collect();
        Self { keys, wanted: AtomicU64::new(0), loads: AtomicU64::new(0) }
    }

    fn at(&self, key: u64) -> &At {
        &self.keys[key as usize]
    }

    async fn read(self: Arc<Self>, key: u64) -> u64 {
        self.loads.fetch_add(1, Relaxed);
        let version = self.at(key).version.load(SeqCst);
        for _ in 0..3 {
            yield_now().await;
        }
        self.at(key).ended.fetch_add(1, SeqCst);
        version
    }

    /// How many loads a caller waited for: the one that it found or began, and one more each time that it has to go on
    /// waiting after loads have ended. For those whose loads run in tasks of their own.
    async fn waits<T>(&self, key: u64, asking: impl Future<Output = T>) -> (T, u64) {
        let mut asking = pin!(asking);
        let (mut waits, mut ended) = (0, None);
        let answer = poll_fn(|cx| {
            let polled = asking.as_mut().poll(cx);
            let now = Some(self.at(key).ended.load(SeqCst));
            if polled.is_pending() && ended != now {
                (waits, ended) = (waits + 1, now);
            }
            polled
        });
        (answer.await, waits)
    }
}

trait Race: Send + Sync + 'static {
    /// No stale answers, two loads at most.
    const KEEPS_THE_LAWS: bool = false;

    fn build() -> Self;
    fn load(&self, key: u64, source: &Arc<Source>) -> impl Future<Output = u64> + Send;
    fn invalidate(&self, key: u64) -> impl Future<Output = ()> + Send;
}

const CAPACITY: usize = 100_000;

impl Race for Ours<u64> {
    const KEEPS_THE_LAWS: bool = true;

    fn build() -> Self {
        <Self as Loads>::build(CAPACITY)
    }

    async fn load(&self, key: u64, source: &Arc<Source>) -> u64 {
        let hit = self.region.get_or_load(&key, |cx| {
            cx.depends_on(dep!("product", key));
            cx.depends_on(dep!("tariff"));
            let reading = source.clone().read(key);
            async { Ok(reading.await) }
        });
        *hit.await.expect("it loads")
    }

    async fn invalidate(&self, key: u64) {
        self.cache.invalidate(dep!("product", key)).await;
    }
}

impl Race for Quick {
    fn build() -> Self {
        <Self as Loads>::build(CAPACITY)
    }

    async fn load(&self, key: u64, source: &Arc<Source>) -> u64 {
        let load = async { Ok::<_, Infallible>(source.clone().read(key).await) };
        self.0.get_or_insert_async(&key, load).await.expect("it loads")
    }

    async fn invalidate(&self, key: u64) {
        self.0.remove(&key);
    }
}

impl Race for MokaFuture {
    fn build() -> Self {
        <Self as Loads>::build(CAPACITY)
    }

    async fn load(&self, key: u64, source: &Arc<Source>) -> u64 {
        let load = async { Ok::<_, Infallible>(source.clone().read(key).await) };
        self.0.try_get_with(key, load).await.expect("it loads")
    }

    async fn invalidate(&self, key: u64) {
        self.0.invalidate(&key).await;
    }
}

impl Race for Foyer<u64> {
    fn build() -> Self {
        <Self as Loads>::build(CAPACITY)
    }

    async fn load(&self, key: u64, source: &Arc<Source>) -> u64 {
        let source = source.clone();
        let fetch = move || async move { Ok::<_, std::io::Error>(source.read(key).await) };
        *self.0.get_or_fetch(&key, fetch).await.expect("it loads").value()
    }

    async fn invalidate(&self, key: u64) {
        self.0.remove(&key);
    }
}

/// Whoever asks after the removal finds another cell. Right, for keys and nothing more; and no bound on loads at a time.
impl Race for Hand {
    fn build() -> Self {
        <Self as Loads>::build(CAPACITY)
    }

    async fn load(&self, key: u64, source: &Arc<Source>) -> u64 {
        let cell = self.shard(key).entry(key).or_default().clone();
        *cell.get_or_init(|| source.clone().read(key)).await
    }

    async fn invalidate(&self, key: u64) {
        self.shard(key).remove(&key);
    }
}
