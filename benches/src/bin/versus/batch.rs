//! Batchers: requests one by one, at most 100 a batch, at most ten batches at once where that can be said. The handler
//! answers at once, or after a millisecond, which tokio's timers make two.
//!
//! Where a rival has to wait for company it waits 1 ms. `batched` is left out: it does not compile without a nightly
//! compiler.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use swiftwater_batch::Batcher;
use swiftwater_benches::{
    heap,
    versus::{Case, Effort, Figure, NOTHING, Planned, quantile},
};
use tokio::sync::{mpsc, oneshot};

use crate::runtime::two_workers;

pub fn cases() -> Vec<Planned> {
    let mut cases = Vec::new();
    for (name, sleeps) in [("instant", false), ("sleep_1ms", true)] {
        for callers in [1, 64, 1000] {
            let name = format!("{name}_{callers}");
            cases.push(Planned::new(name.clone(), move || closed(&name, callers, sleeps)));
        }
    }
    cases.push(Planned::new("open_10k_instant", || open("open_10k_instant", false)));
    cases.push(Planned::new("open_10k_sleep_1ms", || open("open_10k_sleep_1ms", true)));
    cases.push(Planned::new("allocations_64", allocations));
    cases
}

/// Each caller waits for its answer before it asks again.
fn closed(name: &str, callers: u64, sleeps: bool) -> Case {
    fn add<B: Batches>(callers: u64, sleeps: bool) -> impl FnMut(Effort) -> [f64; 2] {
        move |effort| {
            let runtime = two_workers();
            runtime.block_on(async {
                let work = Work { sleeps, ..Work::default() };
                let batcher = B::build(work.clone());
                let stop = Arc::new(AtomicBool::new(false));
                let start = Instant::now();
                let call = |caller: u64| {
                    let (batcher, stop) = (batcher.clone(), stop.clone());
                    tokio::spawn(async move {
                        let (mut count, mut times) = (0_u64, Vec::new());
                        while !stop.load(Relaxed) {
                            // Two readings of the clock weigh on a call that takes a microsecond.
                            let before = (sleeps || count.is_multiple_of(7)).then(Instant::now);
                            // Distinct, for those who look for equal ones.
                            let item = caller << 32 | count;
                            assert_eq!(batcher.call(item).await, item + 1);
                            times.extend(before.map(|before| before.elapsed().as_nanos() as u64));
                            count += 1;
                            tokio::task::consume_budget().await;
                        }
                        (count, times)
                    })
                };
                let running: Vec<_> = (0..callers).map(call).collect();
                // A call that sleeps takes 2 ms, so a turn has to be longer.
                tokio::time::sleep(effort.time * if sleeps { 4 } else { 2 }).await;
                stop.store(true, Relaxed);
                let (mut count, mut times) = (0, Vec::new());
                for caller in running {
                    let (called, took) = caller.await.expect("every answer was right");
                    count += called;
                    times.extend(took);
                }
                let seconds = start.elapsed().as_secs_f64();
                work.check(count);
                [count as f64 / seconds / 1e3, quantile(&mut times, 0.99) as f64 / 1e3]
            })
        }
    }

    let mut case = Case::new([
        Figure::higher(name, "thousand items a second"),
        Figure::lower(format!("{name}_p99"), "us per call, 99th percentile"),
    ]);
    case.ours(add::<Ours>(callers, sleeps));
    case.rival("batch-aint-one Immediate", add::<AintOne<false>>(callers, sleeps));
    case.rival("batch-aint-one Balanced", add::<AintOne<true>>(callers, sleeps));
    case.rival("ultra-batch 1 ms", add::<Ultra>(callers, sleeps));
    case.rival("async-graphql DataLoader 1 ms", add::<GraphQl>(callers, sleeps));
    case.rival("dataloader", add::<Loader>(callers, sleeps));
    case.rival("mpsc actor, one batch at a time", add::<Actor<false>>(callers, sleeps));
    case.rival("no batching", add::<Alone>(callers, sleeps));
    case.floor("mpsc actor, a task per batch", add::<Actor<true>>(callers, sleeps));
    case
}

/// 10,000 requests a second, whatever becomes of them, each from a task of its own.
fn open(name: &str, sleeps: bool) -> Case {
    fn add<B: Batches>(sleeps: bool) -> impl FnMut(Effort) -> [f64; 3] {
        move |effort| {
            let count = 10 * (4 * effort.time).as_millis() as u64;
            let runtime = two_workers();
            runtime.block_on(async {
                let work = Work { sleeps, ..Work::default() };
                let batcher = B::build(work.clone());
                let calls = tokio::spawn(async move {
                    let start = Instant::now();
                    let mut calls = Vec::new();
                    for item in 0..count {
                        // From when it was due, so that a late start counts.
                        let due = start + item as u32 * Duration::from_micros(100);
                        while Instant::now() < due {
                            tokio::task::yield_now().await;
                        }
                        let batcher = batcher.clone();
                        calls.push(tokio::spawn(async move {
                            assert_eq!(batcher.call(item).await, item + 1);
                            due.elapsed().as_nanos() as u64
                        }));
                    }
                    calls
                });
                let mut times = Vec::new();
                for call in calls.await.expect("it only spawns") {
                    times.push(call.await.expect("the answer was right"));
                }
                let batches = work.check(count);
                let us = |share| quantile(&mut times.clone(), share) as f64 / 1e3;
                [us(0.5), us(0.99), count as f64 / batches as f64]
            })
        }
    }

    let mut case = Case::new([
        Figure::lower(format!("{name}_p50"), "us per call, median"),
        Figure::lower(format!("{name}_p99"), "us per call, 99th percentile"),
        Figure::higher(format!("{name}_size"), "items per batch"),
    ]);
    case.ours(add::<Ours>(sleeps));
    case.rival("batch-aint-one Immediate", add::<AintOne<false>>(sleeps));
    case.rival("batch-aint-one Balanced", add::<AintOne<true>>(sleeps));
    case.rival("ultra-batch 1 ms", add::<Ultra>(sleeps));
    case.rival("async-graphql DataLoader 1 ms", add::<GraphQl>(sleeps));
    case.rival("dataloader", add::<Loader>(sleeps));
    case.rival("mpsc actor, one batch at a time", add::<Actor<false>>(sleeps));
    case.rival("no batching", add::<Alone>(sleeps));
    case.floor("mpsc actor, a task per batch", add::<Actor<true>>(sleeps));
    case
}

/// Of 64 callers with an instant handler, whose own allocations, one or two a batch, count with everybody's.
fn allocations() -> Case {
    fn add<B: Batches>() -> impl FnMut(Effort) -> [f64; 2] {
        |effort| {
            const CALLERS: u64 = 64;
            let each = if effort.quick { 50 } else { 500 };
            let runtime = two_workers();
            let work = Work::default();
            let of = work.clone();
            let (idle, batcher, counted) = runtime.block_on(async move {
                let (batcher, idle) = heap::of(|| B::build(of));
                let warm = batcher.clone();
                // What it sets up once.
                crowd(&warm, CALLERS, 50, 0).await;
                let before = heap::begin();
                crowd(&warm, CALLERS, each, 1 << 40).await;
                (idle, batcher, heap::end(before))
            });
            drop(batcher);
            work.check(CALLERS * (50 + each));
            // Of the tasks that call: one each, and the list of them.
            let own = CALLERS as i64 + 1;
            let items = (CALLERS * each) as f64;
            [
                (counted.allocations - own) as f64 / items,
                if idle.bytes == 0 { NOTHING } else { idle.bytes as f64 },
            ]
        }
    }

    async fn crowd<B: Batches>(batcher: &B, callers: u64, each: u64, from: u64) {
        let call = |caller: u64| {
            let batcher = batcher.clone();
            tokio::spawn(async move {
                for count in 0..each {
                    let item = from | caller << 32 | count;
                    assert_eq!(batcher.call(item).await, item + 1);
                }
            })
        };
        let running: Vec<_> = (0..callers).map(call).collect();
        for caller in running {
            caller.await.expect("every answer was right");
        }
    }

    let mut case = Case::new([
        Figure::lower("allocations_64", "allocations per item"),
        Figure::lower("memory_idle", "bytes on the heap, nothing asked yet"),
    ]);
    case.ours(add::<Ours>());
    case.rival("batch-aint-one Immediate", add::<AintOne<false>>());
    case.rival("ultra-batch 1 ms", add::<Ultra>());
    case.rival("async-graphql DataLoader 1 ms", add::<GraphQl>());
    case.rival("dataloader", add::<Loader>());
    case.floor("mpsc actor, a task per batch", add::<Actor<true>>());
    case
}

const MAX_ITEMS: usize = 100;
const IN_FLIGHT: usize = 10;
const LINGER: Duration = Duration::from_millis(1);

/// The work of a batch, and a record of it.
#[derive(Clone, Default)]
struct Work {
    sleeps: bool,
    batches: Arc<AtomicU64>,
    items: Arc<AtomicU64>,
}

impl Work {
    async fn batch(&self, items: usize) {
        assert!((1..=MAX_ITEMS).contains(&items), "a batch of {items}");
        self.batches.fetch_add(1, Relaxed);
        self.items.fetch_add(items as u64, Relaxed);
        if self.sleeps {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Every item was in one batch; the number of batches.
    fn check(&self, items: u64) -> u64 {
        assert_eq!(self.items.load(Relaxed), items, "items in batches");
        self.batches.load(Relaxed)
    }
}

fn answer(item: u64) -> u64 {
    item + 1
}

trait Batches: Clone + Send + Sync + 'static {
    /// On the runtime that will run it.
    fn build(work: Work) -> Self;
    fn call(&self, item: u64) -> impl Future<Output = u64> + Send;
}

#[derive(Clone)]
struct Ours(Batcher<u64, u64, Infallible>);

impl Batches for Ours {
    fn build(work: Work) -> Self {
        let handler = move |items: Vec<u64>| {
            let work = work.clone();
            async move {
                work.batch(items.len()).await;
                items.into_iter().map(|item| Ok(answer(item))).collect::<Vec<Result<_, Infallible>>>()
            }
        };
        Self(
            Batcher::builder(handler)
                .max_items(MAX_ITEMS)
                .in_flight(IN_FLIGHT)
                .build()
                .expect("valid options"),
        )
    }

    #[inline]
    async fn call(&self, item: u64) -> u64 {
        self.0.call(item).await.expect("an answer")
    }
}

#[derive(Clone)]
struct AintOne<const BALANCED: bool>(Arc<batch_aint_one::Batcher<Work>>);

impl batch_aint_one::Processor for Work {
    type Key = ();
    type Input = u64;
    type Output = u64;
    type Error = String;
    type Resources = ();

    async fn acquire_resources(&self, (): ()) -> Result<(), String> {
        Ok(())
    }

    async fn process(
        &self,
        (): (),
        inputs: impl Iterator<Item = u64> + Send,
        (): (),
    ) -> Result<Vec<u64>, String> {
        let answers: Vec<_> = inputs.map(answer).collect();
        self.batch(answers.len()).await;
        Ok(answers)
    }
}

impl<const BALANCED: bool> Batches for AintOne<BALANCED> {
    fn build(work: Work) -> Self {
        use batch_aint_one::{Batcher, BatchingPolicy, Limits};

        let policy = match BALANCED {
            true => BatchingPolicy::Balanced { min_size_hint: MAX_ITEMS / 2 },
            false => BatchingPolicy::Immediate,
        };
        let limits = Limits::builder().max_batch_size(MAX_ITEMS).max_key_concurrency(IN_FLIGHT).build();
        let batcher =
            Batcher::builder().name("versus").processor(work).limits(limits).batching_policy(policy).build();
        Self(Arc::new(batcher))
    }

    #[inline]
    async fn call(&self, item: u64) -> u64 {
        self.0.add((), item).await.expect("an answer")
    }
}

/// Its fetcher would keep every answer; its executor does not.
#[derive(Clone)]
struct Ultra(ultra_batch::BatchExecutor<Work>);

impl ultra_batch::Executor for Work {
    type Value = u64;
    type Result = u64;
    type Error = Infallible;

    async fn execute(&self, values: Vec<u64>) -> Result<Vec<u64>, Infallible> {
        self.batch(values.len()).await;
        Ok(values.into_iter().map(answer).collect())
    }
}

impl Batches for Ultra {
    fn build(work: Work) -> Self {
        let builder = ultra_batch::BatchExecutor::build(work);
        Self(builder.delay_duration(LINGER).eager_batch_size(Some(MAX_ITEMS)).finish())
    }

    #[inline]
    async fn call(&self, item: u64) -> u64 {
        self.0.execute(item).await.expect("an answer").expect("a value")
    }
}

#[derive(Clone)]
struct GraphQl(Arc<async_graphql::dataloader::DataLoader<Work>>);

impl async_graphql::dataloader::Loader<u64> for Work {
    type Value = u64;
    type Error = Infallible;

    async fn load(&self, keys: &[u64]) -> Result<HashMap<u64, u64>, Infallible> {
        self.batch(keys.len()).await;
        Ok(keys.iter().map(|key| (*key, answer(*key))).collect())
    }
}

impl Batches for GraphQl {
    fn build(work: Work) -> Self {
        let loader = async_graphql::dataloader::DataLoader::new(work, tokio::spawn);
        Self(Arc::new(loader.delay(LINGER).max_batch_size(MAX_ITEMS)))
    }

    #[inline]
    async fn call(&self, item: u64) -> u64 {
        self.0.load_one(item).await.expect("an answer").expect("a value")
    }
}

/// It waits by yielding ten times.
#[derive(Clone)]
struct Loader(dataloader::non_cached::Loader<u64, u64, Work>);

impl dataloader::BatchFn<u64, u64> for Work {
    async fn load(&mut self, keys: &[u64]) -> HashMap<u64, u64> {
        self.batch(keys.len()).await;
        keys.iter().map(|key| (*key, answer(*key))).collect()
    }
}

impl Batches for Loader {
    fn build(work: Work) -> Self {
        Self(dataloader::non_cached::Loader::new(work).with_max_batch_size(MAX_ITEMS))
    }

    #[inline]
    async fn call(&self, item: u64) -> u64 {
        self.0.load(item).await
    }
}

/// What one writes by hand: a task that takes what is there, and answers through oneshot channels.
#[derive(Clone)]
struct Actor<const CONCURRENT: bool>(mpsc::Sender<Asked>);

type Asked = (u64, oneshot::Sender<u64>);

impl<const CONCURRENT: bool> Batches for Actor<CONCURRENT> {
    fn build(work: Work) -> Self {
        async fn run(work: Work, batch: Vec<Asked>) {
            work.batch(batch.len()).await;
            for (item, reply) in batch {
                // Whoever asked may be gone.
                let _ = reply.send(answer(item));
            }
        }

        let (sender, mut receiver) = mpsc::channel(2000);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while receiver.recv_many(&mut batch, MAX_ITEMS).await > 0 {
                let running = run(work.clone(), std::mem::take(&mut batch));
                match CONCURRENT {
                    true => drop(tokio::spawn(running)),
                    false => running.await,
                }
            }
        });
        Self(sender)
    }

    #[inline]
    async fn call(&self, item: u64) -> u64 {
        let (reply, answer) = oneshot::channel();
        self.0.send((item, reply)).await.expect("the actor runs");
        answer.await.expect("an answer")
    }
}

#[derive(Clone)]
struct Alone(Work);

impl Batches for Alone {
    fn build(work: Work) -> Self {
        Self(work)
    }

    #[inline]
    async fn call(&self, item: u64) -> u64 {
        self.0.batch(1).await;
        answer(item)
    }
}
