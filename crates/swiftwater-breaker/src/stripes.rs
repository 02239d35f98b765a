//! What healthy calls write: counts in memory that only the writing thread owns.
//!
//! # Who owns what
//!
//! A breaker has one stripe inline. The thread that comes first owns it; others settle under the breaker's lock, which is
//! cheap as long as they are few. Once they come often ([`BUSY`] a second) every thread gets a stripe, in chunks of eight.
//! Threads beyond [`CHUNKS`] times eight that live at once, and threads that are ending, stay with the lock.
//!
//! # Why nothing is lost
//!
//! A stripe has one writer at a time (see [`threads`](crate::threads)), so an addition is a load and a store, and costs what a
//! plain one costs. Sums are taken under the breaker's lock: every count only grows, and a sum is never more than what was
//! added.
//!
//! # Why nothing old counts
//!
//! Successes count towards one closed spell of the breaker, its *generation*. A stripe says of which generation it is,
//! and how many successes it had when that began there; its owner brings both up to date before it adds. Generations
//! change under the lock only, so whoever sums, under the lock, for the present one knows that no stripe can be
//! further, and passes over those that are not there yet: what they hold is from before.

use std::{array, iter, time::Duration};

use swiftwater_core::Tick;

use crate::{
    live::Live,
    sync::{
        Alone, AtomicU32, AtomicU64, OnceLock,
        Ordering::{Acquire, Relaxed, Release},
        add_alone,
    },
    threads::{known_thread, this_thread},
};

/// Where the stripes of a breaker are, and which one is whose.
pub(crate) struct Directory {
    /// The number of the thread that owns the first; changed under the breaker's lock.
    owner: AtomicU32,
    /// Where the chunks in `far` end that are there. Written and read under the breaker's lock.
    ends: AtomicU32,
    /// Of the threads with the lowest numbers: all there are in most services, and sooner found.
    near: Chunk,
    /// Of the others.
    far: OnceLock<Box<[Chunk; CHUNKS - 1]>>,
    /// Nanoseconds of a slice of each ring of calls in flight: one ring for each condition that looks at them.
    widths: Box<[u64]>,
}

/// All stripes of a breaker. The first stands apart from the directory, on another cache line: everybody reads the one
/// and its owner keeps writing the other.
#[derive(Clone, Copy)]
pub(crate) struct Stripes<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) first: &'a Stripe,
}

type Chunk = OnceLock<Box<[Padded; CHUNK]>>;

/// Alone on its cache lines: two of them, because processors fetch lines in pairs.
#[repr(align(128))]
struct Padded(Stripe);

/// The counts of one thread. Written by its owner alone.
pub(crate) struct Stripe {
    generation: AtomicU64,
    /// What `success` was when the generation began here.
    base: AtomicU64,
    /// Since ever, as the other counts.
    success: AtomicU64,
    admitted: AtomicU64,
    rejected_full: AtomicU64,
    rejected_open: AtomicU64,
    live: Box<[Live]>,
    owner: Alone,
}

/// Sums over all stripes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) success: u64,
    pub(crate) admitted: u64,
    pub(crate) rejected_full: u64,
    pub(crate) rejected_open: u64,
}

/// How often threads without a stripe have come lately; kept under the breaker's lock.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    since: Tick,
    count: u32,
}

impl Directory {
    pub(crate) fn new(widths: Box<[u64]>) -> Self {
        let (near, far) = (OnceLock::new(), OnceLock::new());
        Self { owner: AtomicU32::new(UNOWNED), ends: AtomicU32::new(0), near, far, widths }
    }

    #[inline]
    fn one_of_more(&self, thread: u32) -> Option<&Stripe> {
        let thread = thread as usize;
        let chunk = match thread / CHUNK {
            0 => self.near.get()?,
            place => self.far.get()?.get(place - 1)?.get()?,
        };
        Some(&chunk[thread % CHUNK].0)
    }

    fn has_more(&self) -> bool {
        self.near.get().is_some() || self.far.get().is_some()
    }
}

impl<'a> Stripes<'a> {
    /// The calling thread's stripe, if it has one.
    #[inline(always)]
    pub(crate) fn mine(self) -> Option<&'a Stripe> {
        let me = known_thread();
        // Relaxed: the only value that means anything to a thread is its own number, which it wrote itself.
        if me == self.directory.owner.load(Relaxed) {
            Some(self.first)
        } else {
            self.directory.one_of_more(me)
        }
    }

    /// The calling thread holds the breaker's lock. If it has no stripe, it may have one next time.
    #[inline]
    pub(crate) fn visit(self, now: Tick, visits: &mut Visits) {
        if self.mine().is_none() {
            self.visit_without(now, visits);
        }
    }

    #[cold]
    fn visit_without(self, now: Tick, visits: &mut Visits) {
        let me = this_thread();
        let Directory { owner, ends, near, far, widths } = self.directory;
        let place = me as usize / CHUNK;
        if place >= CHUNKS {
            // Too many threads, or one that is ending.
        } else if owner.load(Relaxed) == UNOWNED {
            owner.store(me, Relaxed);
        } else if self.directory.has_more() || visits.are_many(now) {
            let chunk = match place {
                0 => near,
                _ => &far.get_or_init(|| Box::new(array::from_fn(|_| OnceLock::new())))[place - 1],
            };
            chunk.get_or_init(|| Box::new(array::from_fn(|_| Padded(Stripe::new(widths.len())))));
            ends.store(ends.load(Relaxed).max(place as u32), Relaxed);
        }
    }

    /// One call more, or fewer, of this generation in flight, that began at `start`; in the calling thread's stripe.
    #[inline]
    pub(crate) fn add_in_flight(self, stripe: &Stripe, generation: u64, start: Tick, more: i64) {
        if !self.directory.widths.is_empty() {
            stripe.enter(generation);
            for (live, width) in stripe.live.iter().zip(&self.directory.widths) {
                live.add(start.as_nanos() / width, more);
            }
        }
    }

    pub(crate) fn sums(self) -> Sums {
        self.iter().fold(Sums::default(), |sums, stripe| Sums {
            success: sums.success.wrapping_add(stripe.success.load(Relaxed)),
            admitted: sums.admitted.wrapping_add(stripe.admitted.load(Relaxed)),
            rejected_full: sums.rejected_full.wrapping_add(stripe.rejected_full.load(Relaxed)),
            rejected_open: sums.rejected_open.wrapping_add(stripe.rejected_open.load(Relaxed)),
        })
    }

    /// The successes of the present generation; asked under the breaker's lock.
    pub(crate) fn successes(self, generation: u64) -> u64 {
        self.of(generation)
            .map(|stripe| stripe.success.load(Relaxed).wrapping_sub(stripe.base.load(Relaxed)))
            .fold(0, u64::wrapping_add)
    }

    /// How many calls of the present generation that began before `slice` are in flight, by what the stripes know: the sum
    /// over all places where calls begin and end is what counts, a single one may be negative. `None` if that cannot be told
    /// just now. Asked under the lock.
    pub(crate) fn in_flight(self, generation: u64, ring: usize, slice: u64) -> Option<i64> {
        self.of(generation).map(|stripe| stripe.live[ring].before(slice)).sum()
    }

    fn of(self, generation: u64) -> impl Iterator<Item = &'a Stripe> {
        // Acquire pairs with `enter`: whoever sees the generation sees what it began with.
        self.iter().filter(move |stripe| stripe.generation.load(Acquire) == generation)
    }

    fn iter(self) -> impl Iterator<Item = &'a Stripe> {
        let end = self.directory.ends.load(Relaxed) as usize;
        let far = self.directory.far.get().into_iter().flat_map(move |chunks| &chunks[..end]);
        let chunks = iter::once(&self.directory.near).chain(far).filter_map(OnceLock::get);
        iter::once(self.first).chain(chunks.flat_map(|chunk| chunk.iter()).map(|padded| &padded.0))
    }
}

impl Stripe {
    pub(crate) fn new(rings: usize) -> Self {
        Self {
            generation: AtomicU64::new(0),
            base: AtomicU64::new(0),
            success: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            rejected_full: AtomicU64::new(0),
            rejected_open: AtomicU64::new(0),
            live: (0..rings).map(|_| Live::new()).collect(),
            owner: Alone::new(),
        }
    }

    #[inline]
    pub(crate) fn add_admitted(&self) {
        self.add(&self.admitted);
    }

    #[inline]
    pub(crate) fn add_rejected_full(&self) {
        self.add(&self.rejected_full);
    }

    #[inline]
    pub(crate) fn add_rejected_open(&self) {
        self.add(&self.rejected_open);
    }

    /// A call of this generation has succeeded: for callers into which it is inlined. False: not if it is the first here.
    #[inline(always)]
    pub(crate) fn add_success_at_once(&self, generation: u64) -> bool {
        let known = self.generation.load(Relaxed) == generation;
        if known {
            self.add(&self.success);
        }
        known
    }

    /// A call of this generation has succeeded.
    #[inline]
    pub(crate) fn add_success(&self, generation: u64) {
        self.enter(generation);
        self.add(&self.success);
    }

    /// By the owner. Relaxed: nothing is published through a count.
    #[inline(always)]
    fn add(&self, count: &AtomicU64) {
        self.owner.write();
        add_alone(count, 1, Relaxed);
    }

    #[inline]
    fn enter(&self, generation: u64) {
        if self.generation.load(Relaxed) != generation {
            self.enter_new(generation);
        }
    }

    #[cold]
    fn enter_new(&self, generation: u64) {
        self.base.store(self.success.load(Relaxed), Relaxed);
        self.live.iter().for_each(Live::clear);
        // Release: see `Stripes::of`.
        self.generation.store(generation, Release);
    }
}

impl Visits {
    fn are_many(&mut self, now: Tick) -> bool {
        if now - self.since > SECOND {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count > BUSY
    }
}

/// No thread's number, and not [`NOBODY`](crate::threads::NOBODY) either.
const UNOWNED: u32 = u32::MAX - 2;
const SECOND: Duration = Duration::from_secs(1);
/// Visits a second, of which a call makes two, from which a breaker is busy enough to deserve memory: they cost 10 µs in all.
const BUSY: u32 = if cfg!(all(test, swiftwater_loom)) { 1 } else { 256 };
const CHUNK: usize = if cfg!(all(test, swiftwater_loom)) { 1 } else { 8 };
/// 512 threads at once.
const CHUNKS: usize = if cfg!(all(test, swiftwater_loom)) { 3 } else { 64 };

#[cfg(all(test, swiftwater_loom))]
mod models {
    use std::collections::BTreeSet;

    use loom::{
        sync::{
            Arc, Mutex,
            atomic::{AtomicU64 as Word, Ordering::Release as Publish},
        },
        thread,
    };

    use super::*;

    /// As the breaker does it: a generation is published under the lock, the owner goes by what it has seen, and whoever sums
    /// does so under the lock. One success is there before; the owner adds two while another thread asks, once. What that saw
    /// in each run, and how many of the two the owner has counted in the second generation.
    fn beside_the_owner(ask: fn(&Word, Stripes<'_>) -> u64) -> Vec<(u64, u64)> {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let all = seen.clone();
        loom::model(move || {
            let shared = Arc::new((Stripe::new(0), Word::new(1), Mutex::new(())));
            shared.0.add_success(1);
            let asking = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (stripe, generation, lock) = &*shared;
                    let directory = Directory::new(Box::new([]));
                    let _lock = lock.lock().unwrap();
                    ask(generation, Stripes { directory: &directory, first: stripe })
                })
            };
            let mut of_second = 0;
            for _ in 0..2 {
                let generation = shared.1.load(Acquire);
                shared.0.add_success(generation);
                of_second += u64::from(generation == 2);
            }
            let sum = asking.join().unwrap();
            seen.lock().unwrap().push((sum, of_second));
            let directory = Directory::new(Box::new([]));
            let stripes = Stripes { directory: &directory, first: &shared.0 };
            // What the owner has seen of the second generation is there, and nothing else.
            assert_eq!(stripes.successes(2), of_second);
            assert_eq!(stripes.sums().success, 3);
        });
        std::mem::take(&mut *all.lock().unwrap())
    }

    #[test]
    fn a_sum_of_the_present_generation_is_what_was_added_so_far() {
        let seen = beside_the_owner(|_, stripes| stripes.successes(1));
        let sums: BTreeSet<u64> = seen.iter().map(|(sum, _)| *sum).collect();
        assert_eq!(sums, BTreeSet::from([1, 2, 3])); // all of them, or nothing would have raced
    }

    /// The checker does not try what happens between the owner's look at its generation and its change of it, so the sum is
    /// zero in all its runs; that the owner has counted by then is not among them.
    #[test]
    fn a_sum_of_a_new_generation_has_nothing_of_the_one_before() {
        let seen = beside_the_owner(|generation, stripes| {
            generation.store(2, Publish);
            stripes.successes(2)
        });
        assert!(seen.iter().all(|(sum, of_second)| sum <= of_second), "{seen:?}");
        let of_second: BTreeSet<u64> = seen.iter().map(|(_, of_second)| *of_second).collect();
        assert_eq!(of_second, BTreeSet::from([0, 1, 2]));
    }
}
