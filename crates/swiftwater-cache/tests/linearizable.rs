//! What memory does to one key is linearizable: every operation takes effect at one moment between its call and its
//! return, in an order that the sequential cache below could have followed.
//!
//! Threads do random operations on one or two keys and note when each was called and when it returned, by a counter. A
//! search in the manner of Wing and Gong then looks for such an order, key by key (a history is linearizable if that of each
//! key is). It has to tell right from wrong: hand-made histories say so, and caches that are broken on purpose.
//!
//! # The sequential cache
//!
//! It holds at most one *value* of the key, and knows at most one *running* load, the one that may still be stored.
//!
//! - `get` gives the value, or nothing. A cache may forget at any time, so nothing is always allowed; but what has been
//!   forgotten is gone: a value that was overwritten, invalidated or missed never comes back.
//! - `insert` sets the value, and no load is running any more.
//! - `invalidate` clears it, and no load is running any more.
//! - A loading call that calls its loader takes effect twice, since the loader reads the source in between. It *begins*
//!   before the loader is called: its load is the running one, and there is no value, or it would have been found. It
//!   *lands* after that: if its load is still the running one its value becomes the value, and if not (an `insert` or an
//!   `invalidate` came between, law 2 of [`Region`], or another load) it changes nothing. In both cases it returns what
//!   its own loader gave.
//! - A loading call that does not call its loader gives the value, or that of the running load: nothing has moved since
//!   that began, or it would not be the running one. So a caller who asked after an invalidation is never given what was
//!   read before it.
//!
//! Every value is unlike every other, so who gave it is known. The order of the checks is the order of real time; that a
//! load's stamp is from before its loader is called is part of what is checked.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{
        Arc, Barrier, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use swiftwater_cache::{Cache, Region, dep};
use tokio::{
    runtime::{self, Runtime},
    sync::OnceCell,
};

/// What an operation was, and what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// A load begins.
    Begin(u64),
    Get(Option<u64>),
    Insert(u64),
    Invalidate,
    /// A load ends, and its caller is told so.
    Land(u64),
    /// A loading call that called no loader.
    Take(u64),
}

#[derive(Clone, Copy, Debug)]
struct Op {
    /// Not before.
    from: u64,
    /// Not after.
    to: u64,
    act: Act,
}

/// The sequential cache, of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Sequential {
    value: Option<u64>,
    running: Option<u64>,
}

impl Sequential {
    /// What is there after the operation, if it could have said what it did.
    fn after(self, act: Act) -> Option<Self> {
        let Self { value, running } = self;
        match act {
            Act::Begin(own) => Some(Self { value: None, running: Some(own) }),
            Act::Get(None) => Some(Self { value: None, running }),
            Act::Get(found) => (found == value).then_some(self),
            Act::Insert(new) => Some(Self { value: Some(new), running: None }),
            Act::Invalidate => Some(Self::default()),
            Act::Land(own) if running == Some(own) => Some(Self { value: Some(own), running: None }),
            Act::Land(_) => Some(self),
            Act::Take(given) => [value, running].contains(&Some(given)).then_some(self),
        }
    }
}

/// Whether there is an order. Of at most 32 operations, for the search grows with what overlaps.
fn is_linearizable(history: &[Op]) -> bool {
    assert!(history.len() <= 32, "too long to be searched");
    search(history, 0, Sequential::default(), &mut HashSet::new())
}

/// Whether the operations that are not `done` can follow in some order; `seen` holds from where they could not.
fn search(history: &[Op], done: u32, now: Sequential, seen: &mut HashSet<(u32, Sequential)>) -> bool {
    let open = || history.iter().enumerate().filter(|(place, _)| done & 1 << place == 0);
    let Some(first_end) = open().map(|(_, op)| op.to).min() else { return true };
    if !seen.insert((done, now)) {
        return false;
    }
    // Next may be whatever was called before any of the open ones had returned.
    open().filter(|(_, op)| op.from <= first_end).any(|(place, op)| {
        now.after(op.act).is_some_and(|next| search(history, done | 1 << place, next, seen))
    })
}

/// A cache under test.
trait Subject: Sync {
    fn get(&self, key: u64) -> Option<u64>;
    fn insert(&self, key: u64, value: u64);
    fn invalidate(&self, key: u64);
    fn load<F, Fut>(&self, runtime: &Runtime, key: u64, loader: F) -> u64
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = u64> + Send + 'static;
}

const THREADS: u64 = 3;
/// Of a thread, in one round. A loading call counts twice, so a key has at most 24.
const OPERATIONS: u64 = 4;

/// The histories of so many rounds, each on keys of its own, by key.
fn histories(subject: &impl Subject, rounds: u64) -> Vec<Vec<Op>> {
    let (clock, barrier) = (AtomicU64::new(0), Barrier::new(THREADS as usize));
    let mut histories = HashMap::<u64, Vec<Op>>::new();
    thread::scope(|scope| {
        let threads = [0; THREADS as usize].into_iter().enumerate().map(|(number, _)| {
            let worker = Worker::new(number as u64, &clock);
            let barrier = &barrier;
            scope.spawn(move || worker.run(subject, rounds, barrier))
        });
        for thread in threads.collect::<Vec<_>>() {
            for (key, op) in thread.join().expect("no worker panics") {
                histories.entry(key).or_default().push(op);
            }
        }
    });
    histories.into_values().collect()
}

/// One of the threads.
struct Worker<'a> {
    number: u64,
    random: u64,
    clock: &'a AtomicU64,
    made: u64,
    history: Vec<(u64, Op)>,
}

impl<'a> Worker<'a> {
    fn new(number: u64, clock: &'a AtomicU64) -> Self {
        Self { number, random: number, clock, made: 0, history: Vec::new() }
    }

    fn run(mut self, subject: &impl Subject, rounds: u64, barrier: &Barrier) -> Vec<(u64, Op)> {
        let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
        for round in 0..rounds {
            // One key for most of the rounds: there is more to see where they meet.
            let keys = if round % 4 == 0 { 2 } else { 1 };
            barrier.wait();
            for _ in 0..OPERATIONS {
                let key = round * 2 + self.below(keys);
                self.step(subject, &runtime, key);
                self.dawdle();
            }
        }
        self.history
    }

    fn step(&mut self, subject: &impl Subject, runtime: &Runtime, key: u64) {
        let choice = self.below(8);
        let from = self.tick();
        let act = match choice {
            0..=1 => Act::Get(subject.get(key)),
            2 => {
                let value = self.value();
                subject.insert(key, value);
                Act::Insert(value)
            }
            3..=4 => {
                subject.invalidate(key);
                Act::Invalidate
            }
            _ => {
                let (own, ready, begun) = (self.value(), self.below(3) > 0, AtomicU64::new(0));
                let (before, after) = (self.below(3), self.below(3));
                let given = subject.load(runtime, key, || {
                    begun.store(self.tick(), SeqCst);
                    async move {
                        (0..before).for_each(|_| thread::yield_now());
                        if !ready {
                            tokio::task::yield_now().await; // the rest of it in a task
                        }
                        (0..after).for_each(|_| thread::yield_now());
                        own
                    }
                });
                match begun.into_inner() {
                    0 => Act::Take(given),
                    begun => {
                        assert_eq!(given, own, "who calls its loader gets what that gives");
                        self.history.push((key, Op { from, to: begun, act: Act::Begin(own) }));
                        let op = Op { from: begun, to: self.tick(), act: Act::Land(own) };
                        return self.history.push((key, op));
                    }
                }
            }
        };
        let op = Op { from, to: self.tick(), act };
        self.history.push((key, op));
    }

    /// No two are alike, and none is 0.
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst) + 1
    }

    fn value(&mut self) -> u64 {
        self.made += 1;
        self.made * THREADS + self.number
    }

    fn dawdle(&mut self) {
        for _ in 0..self.below(60) {
            std::hint::spin_loop();
        }
    }

    /// SplitMix64: what the threads do is the same in every run, when they do it is not.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn check(subject: &impl Subject) {
    for mut history in histories(subject, 10_000) {
        history.sort_by_key(|op| op.from);
        assert!(is_linearizable(&history), "there is no order for {history:#?}");
    }
}

/// Whether one of many histories is refused: when threads meet is up to the system.
fn is_caught(subject: &impl Subject) -> bool {
    (0..50).any(|_| !histories(subject, 1_000).iter().all(|history| is_linearizable(history)))
}

/// How ours is invalidated.
#[derive(Clone, Copy)]
enum By {
    /// A dependency that the loads and inserts declare.
    Dependency,
    Key,
    /// The key's name, which leaves its load where it is.
    Name,
}

struct Ours {
    cache: Cache,
    rows: Region<u64, u64>,
    by: By,
}

impl Ours {
    fn new(by: By) -> Self {
        let cache = Cache::builder().build().expect("the defaults are valid");
        let rows = cache.region("rows").build().expect("the defaults are valid");
        Self { cache, rows, by }
    }
}

impl Subject for Ours {
    fn get(&self, key: u64) -> Option<u64> {
        self.rows.get(&key).map(|hit| *hit)
    }

    fn insert(&self, key: u64, value: u64) {
        self.rows.insert_with(key, value, |entry| {
            if matches!(self.by, By::Dependency) {
                entry.depends_on(dep!("row", key));
            }
        });
    }

    fn invalidate(&self, key: u64) {
        match self.by {
            By::Dependency => self.cache.invalidate(dep!("row", key)),
            By::Key => self.rows.invalidate(&key),
            By::Name => self.cache.invalidate(self.rows.dep(&key)),
        };
    }

    fn load<F, Fut>(&self, runtime: &Runtime, key: u64, loader: F) -> u64
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = u64> + Send + 'static,
    {
        let loaded = self.rows.get_or_load(&key, |cx| {
            if matches!(self.by, By::Dependency) {
                cx.depends_on(dep!("row", key));
            }
            let loading = loader();
            async move { Ok(loading.await) }
        });
        *runtime.block_on(loaded).expect("no loader fails")
    }
}

#[test]
fn memory_is_linearizable_under_invalidations_by_key() {
    check(&Ours::new(By::Key));
}

#[test]
fn memory_is_linearizable_under_invalidations_by_the_keys_name() {
    check(&Ours::new(By::Name));
}

#[test]
fn memory_is_linearizable_under_invalidations_of_a_dependency() {
    check(&Ours::new(By::Dependency));
}

/// Broken or not: a map, and loads on their way beside it.
#[derive(Default)]
struct Naive {
    keys: Mutex<HashMap<u64, Slot>>,
    /// What a load gives is stored, whatever has happened since it began.
    stores_anyway: bool,
    /// Who asks while a load is on its way gets what it gives, whatever has happened since it began.
    joins_anyway: bool,
}

#[derive(Default)]
struct Slot {
    value: Option<u64>,
    flight: Option<Arc<OnceCell<u64>>>,
    /// Moved by whatever is not a load.
    generation: u64,
}

impl Naive {
    fn keys(&self) -> MutexGuard<'_, HashMap<u64, Slot>> {
        self.keys.lock().expect("no holder panics")
    }

    fn set(&self, key: u64, value: Option<u64>) {
        let mut keys = self.keys();
        let slot = keys.entry(key).or_default();
        slot.value = value;
        slot.generation += 1;
        if !self.joins_anyway {
            slot.flight = None;
        }
    }
}

impl Subject for Naive {
    fn get(&self, key: u64) -> Option<u64> {
        self.keys().get(&key).and_then(|slot| slot.value)
    }

    fn insert(&self, key: u64, value: u64) {
        self.set(key, Some(value));
    }

    fn invalidate(&self, key: u64) {
        self.set(key, None);
    }

    fn load<F, Fut>(&self, runtime: &Runtime, key: u64, loader: F) -> u64
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = u64> + Send + 'static,
    {
        let (flight, generation) = {
            let mut keys = self.keys();
            let slot = keys.entry(key).or_default();
            if let Some(value) = slot.value {
                return value;
            }
            (slot.flight.get_or_insert_default().clone(), slot.generation)
        };
        *runtime.block_on(flight.get_or_init(async || {
            let value = loader().await;
            let mut keys = self.keys();
            let slot = keys.entry(key).or_default();
            if self.stores_anyway || slot.generation == generation {
                slot.value = Some(value);
            }
            if slot.flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, &flight)) {
                slot.flight = None;
            }
            value
        }))
    }
}

#[test]
fn a_map_under_a_lock_is_linearizable() {
    check(&Naive::default());
}

#[test]
fn a_cache_that_stores_what_was_detached_is_caught() {
    assert!(is_caught(&Naive { stores_anyway: true, ..Naive::default() }));
}

#[test]
fn a_cache_whose_joiners_take_what_is_older_than_an_invalidation_is_caught() {
    assert!(is_caught(&Naive { joins_anyway: true, ..Naive::default() }));
}

/// From when, to when, what.
fn history<const N: usize>(ops: [(u64, u64, Act); N]) -> Vec<Op> {
    ops.map(|(from, to, act)| Op { from, to, act }).into()
}

#[test]
fn histories_with_an_order_are_allowed() {
    use Act::{Begin, Get, Insert, Invalidate, Land, Take};
    let allowed = [
        // The overlapping get comes first, whenever it returned.
        history([(1, 4, Insert(1)), (2, 3, Get(None)), (5, 6, Get(Some(1)))]),
        // The cache has forgotten.
        history([(1, 2, Insert(1)), (3, 4, Get(None))]),
        // A load that was detached is told to its caller and to who joined it before, and is not stored.
        history([
            (1, 3, Begin(1)),
            (2, 8, Take(1)),
            (4, 5, Insert(2)),
            (3, 7, Land(1)),
            (9, 10, Get(Some(2))),
        ]),
        // A load that lands is there for everybody.
        history([(1, 2, Begin(1)), (2, 3, Land(1)), (4, 5, Get(Some(1))), (6, 7, Take(1))]),
        // Two effects of one invalidation are one: it comes after the insert that it takes back.
        history([(1, 8, Invalidate), (2, 3, Insert(1)), (4, 5, Get(Some(1))), (6, 7, Get(None))]),
    ];
    assert_eq!(allowed.map(|history| is_linearizable(&history)), [true; 5]);
}

#[test]
fn histories_without_an_order_are_refused() {
    use Act::{Begin, Get, Insert, Invalidate, Land, Take};
    let refused = [
        // What was invalidated comes back.
        history([(1, 2, Insert(1)), (3, 4, Invalidate), (5, 6, Get(Some(1)))]),
        // What was overwritten comes back.
        history([(1, 2, Insert(1)), (3, 4, Insert(2)), (5, 6, Get(Some(1)))]),
        // What was missed comes back, with nobody to bring it.
        history([(1, 2, Insert(1)), (3, 4, Get(None)), (5, 6, Get(Some(1)))]),
        // Two see two inserts in two orders.
        history([
            (1, 10, Insert(1)),
            (2, 9, Insert(2)),
            (3, 4, Get(Some(1))),
            (5, 6, Get(Some(2))),
            (7, 8, Get(Some(1))),
        ]),
        // A load is stored over an insert from after it began.
        history([(1, 2, Begin(1)), (3, 4, Insert(2)), (2, 6, Land(1)), (7, 8, Get(Some(1)))]),
        // A load is stored after an invalidation from after it began.
        history([(1, 2, Begin(1)), (3, 4, Invalidate), (2, 6, Land(1)), (7, 8, Get(Some(1)))]),
        // Who asks after the invalidation is told of a load from before it.
        history([(1, 2, Begin(1)), (3, 4, Invalidate), (5, 7, Take(1)), (2, 6, Land(1))]),
        // Two loads of one key are both stored.
        history([
            (1, 2, Begin(1)),
            (3, 4, Begin(2)),
            (2, 6, Land(1)),
            (7, 8, Get(Some(1))),
            (4, 10, Land(2)),
            (11, 12, Get(Some(2))),
        ]),
    ];
    assert_eq!(refused.map(|history| is_linearizable(&history)), [false; 8]);
}
