//! A counter that many threads add to and few read.

use std::fmt;

use crate::{
    stripes::{Padded, Stripes},
    sync::{AtomicU32, AtomicU64, Ordering::Relaxed, add_alone},
    threads::{NOBODY, known_thread, this_thread},
};

/// A number that only grows, written by hot paths.
///
/// # Guarantees
///
/// 1. `add` never blocks and never loses an increment.
/// 2. `read` returns at least what was added before it began and at most what was added when it ends.
/// 3. Reads that follow one another never decrease. (All three modulo 2^64, where the count wraps.)
///
/// # Costs
///
/// Two loads and a store for the first thread that adds; 48 bytes. Others pay an atomic operation, until they have come a
/// few hundred times: from then on every thread has a cell of its own, and pays what the first one did. There is one
/// of 128 bytes per processor, rounded up to a power of two, at least 8 and at most 64 of them (1 to 8 KiB), allocated by
/// the `add` that found out; what threads add beyond so many that live at a time goes to one cell that they share.
/// `read` sums the cells.
///
/// ```
/// use swiftwater_core::Counter;
///
/// let served = Counter::new();
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| (0..1000).for_each(|_| served.add(1)));
///     }
/// });
/// assert_eq!(served.read(), 4000);
/// ```
pub struct Counter {
    /// The number of the thread that adds to `own`, which nobody else writes to; or [`UNOWNED`], or [`STRIPED`].
    owner: AtomicU32,
    /// How often others have come while there were no stripes.
    visits: AtomicU32,
    own: AtomicU64,
    /// What was added by threads that have no cell of their own.
    shared: AtomicU64,
    stripes: Stripes<Padded<AtomicU64>>,
}

impl Counter {
    /// Zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            owner: AtomicU32::new(UNOWNED),
            visits: AtomicU32::new(0),
            own: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            stripes: Stripes::new(),
        }
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        let me = known_thread();
        // Relaxed: the only value that means anything to a thread is its own number, which it wrote itself; or the thread
        // that had the number before, and then had given it back.
        if self.owner.load(Relaxed) == me {
            add_alone(&self.own, n);
        } else if let Some(cell) = self.stripes.get_alone(me) {
            add_alone(&cell.0, n);
        } else {
            self.add_first(n);
        }
    }

    /// The sum of everything added so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        let single = self.own.load(Relaxed).wrapping_add(self.shared.load(Relaxed));
        self.stripes.iter().fold(single, |sum, cell| sum.wrapping_add(cell.0.load(Relaxed)))
    }

    /// The calling thread has no cell of its own, or does not know its number yet.
    #[inline(never)]
    fn add_first(&self, n: u64) {
        let me = this_thread();
        if let Some(cell) = self.stripes.get_alone(me) {
            return add_alone(&cell.0, n);
        }
        let claim = || self.owner.compare_exchange(UNOWNED, me, Relaxed, Relaxed);
        if me != NOBODY && (self.owner.load(Relaxed) == me || claim().is_ok()) {
            return add_alone(&self.own, n);
        }
        // Relaxed throughout: nothing is published through a count; see `stripes` for why reads are right.
        self.shared.fetch_add(n, Relaxed);
        if self.owner.load(Relaxed) != STRIPED && self.visits.fetch_add(1, Relaxed) >= BUSY {
            self.stripes.set_up();
            // The owner's cell stands beside what everybody reads: from now on it writes elsewhere.
            self.owner.store(STRIPED, Relaxed);
        }
    }
}

/// Numbers that no thread has.
const UNOWNED: u32 = NOBODY - 2;
const STRIPED: u32 = NOBODY - 3;
/// So often others than its owner may come before a counter is striped.
const BUSY: u32 = if cfg!(all(test, swiftwater_loom)) { 0 } else { 256 };

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.read()).finish()
    }
}

#[cfg(all(test, swiftwater_loom))]
mod models {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use loom::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Acquire, Ordering::Release},
        },
        thread,
    };

    use super::*;
    use crate::threads::be_thread;

    /// Two threads add while a third reads twice: nothing is lost, in the executions that switch to stripes as in those that
    /// do not, and the reader never goes back.
    #[test]
    fn nothing_is_lost_across_the_switch_to_stripes() {
        static STRIPED: AtomicUsize = AtomicUsize::new(0);
        static PLAIN: AtomicUsize = AtomicUsize::new(0);
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let counter = Arc::new(Counter::new());
            let adders: Vec<_> = (0..2)
                .map(|number| {
                    let counter = counter.clone();
                    thread::spawn(move || {
                        be_thread(number);
                        counter.add(1);
                        counter.add(10);
                    })
                })
                .collect();
            let first = counter.read();
            let second = counter.read();
            assert!(first <= second && second <= 22, "{first} then {second}");
            for adder in adders {
                adder.join().unwrap();
            }
            assert_eq!(counter.read(), 22);
            let seen = if counter.stripes.iter().count() > 0 { &STRIPED } else { &PLAIN };
            seen.fetch_add(1, SeqCst);
        });
        assert!(STRIPED.load(SeqCst) > 1, "the switch was explored");
        assert_eq!(PLAIN.load(SeqCst), 0, "two threads always end in stripes here");
    }

    /// Whoever has been told of an addition reads it, wherever it went.
    #[test]
    fn a_read_sees_what_was_added_before_it() {
        loom::model(|| {
            let counter = Arc::new(Counter::new());
            let told = Arc::new(AtomicBool::new(false));
            let teller = {
                let (counter, told) = (counter.clone(), told.clone());
                thread::spawn(move || {
                    be_thread(0);
                    counter.add(1);
                    counter.add(1);
                    told.store(true, Release);
                })
            };
            let rival = {
                let counter = counter.clone();
                thread::spawn(move || {
                    be_thread(1);
                    counter.add(1);
                })
            };
            let before = told.load(Acquire);
            let read = counter.read();
            assert!(read <= 3);
            assert!(!before || read >= 2, "told of 2, read {read}");
            teller.join().unwrap();
            rival.join().unwrap();
            assert_eq!(counter.read(), 3);
        });
    }
}

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    #[test]
    fn nothing_is_lost_by_more_threads_than_there_are_cells() {
        let (counter, together) = (Counter::new(), Barrier::new(100));
        thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    together.wait();
                    (0..10_000).for_each(|_| counter.add(1));
                });
            }
        });
        assert_eq!(counter.read(), 1_000_000);
        assert_ne!(counter.shared.load(Relaxed), 0, "some had no cell of their own");
        assert!(counter.stripes.iter().count() > 0);
    }

    #[test]
    fn nothing_is_lost_by_threads_that_follow_one_another() {
        let counter = Counter::new();
        for _ in 0..1000 {
            thread::scope(|scope| drop(scope.spawn(|| counter.add(1))));
        }
        assert_eq!(counter.read(), 1000);
    }

    #[test]
    fn a_thread_that_is_ending_counts_as_well() {
        static LATE: std::sync::LazyLock<Counter> = std::sync::LazyLock::new(Counter::new);
        struct Last;
        impl Drop for Last {
            fn drop(&mut self) {
                LATE.add(1);
            }
        }
        thread_local!(static LAST: Last = const { Last });
        thread::spawn(|| {
            LAST.with(|_| {}); // destroyed after what came later
            LATE.add(1);
        })
        .join()
        .unwrap();
        assert_eq!(LATE.read(), 2);
    }
}
