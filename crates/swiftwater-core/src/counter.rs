//! A counter that many threads add to and few read.

use std::fmt;

use crate::{
    stripes::{Padded, Stripes, this_thread},
    sync::{AtomicU64, Ordering::Relaxed},
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
/// 32 bytes and one compare-exchange per `add`, until two threads are caught adding at the same moment. From then on each
/// thread adds to a cell of its own: one of 128 bytes per processor, rounded up to a power of two, at least 8 and at most
/// 64 of them (1 to 8 KiB); the one `add` that found out allocates them. `read` sums the cells.
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
    /// Everything until the stripes are there, and what was added by threads that had not seen them yet.
    base: AtomicU64,
    stripes: Stripes<Padded<AtomicU64>>,
}

impl Counter {
    /// Zero.
    #[must_use]
    pub fn new() -> Self {
        Self { base: AtomicU64::new(0), stripes: Stripes::new() }
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.add_as(this_thread, n);
    }

    /// The sum of everything added so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        let base = self.base.load(Relaxed);
        self.stripes.iter().fold(base, |sum, cell| sum.wrapping_add(cell.0.load(Relaxed)))
    }

    // Relaxed throughout: nothing is published through a count; see `stripes` for why reads are right.
    #[inline]
    fn add_as(&self, thread: impl Fn() -> usize, n: u64) {
        if let Some(cell) = self.stripes.get(&thread) {
            cell.0.fetch_add(n, Relaxed);
            return;
        }
        let seen = self.base.load(Relaxed);
        let added = self.base.compare_exchange(seen, seen.wrapping_add(n), Relaxed, Relaxed);
        if added.is_err() {
            self.stripes.get_or_set_up(thread()).0.fetch_add(n, Relaxed);
        }
    }
}

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

    /// Two threads add twice each while a third reads twice: nothing is lost, in the executions that switch to stripes
    /// as in those that do not, and the reader never goes back.
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
                        counter.add_as(|| number, 1);
                        counter.add_as(|| number, 10);
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
        assert!(STRIPED.load(SeqCst) > 0 && PLAIN.load(SeqCst) > 0, "both ways were explored");
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
                    counter.add_as(|| 0, 1);
                    counter.add_as(|| 0, 1);
                    told.store(true, Release);
                })
            };
            let rival = {
                let counter = counter.clone();
                thread::spawn(move || counter.add_as(|| 1, 1))
            };
            let before = told.load(Acquire);
            let read = counter.read();
            assert!(read <= 3);
            assert!(!before || read >= 2, "told of 2, read {read}");
            teller.join().unwrap();
            rival.join().unwrap();
        });
    }
}
