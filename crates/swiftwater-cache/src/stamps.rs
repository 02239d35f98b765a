//! Version stamps: how an invalidation is seen by every entry at once, without touching one.
//!
//! There is one counter, the *ticket*, and a fixed table of *cells*; a dependency's hash selects its cell. (Two cells: one
//! for its name, one for its kind, which entries with very many dependencies keep instead.)
//!
//! - A load reads the ticket before it starts: its stamp `s`.
//! - `invalidate(d)` raises d's cell to `v = ticket + 1` and *then* moves the ticket from `v - 1` to `v`. If somebody else
//!   moved the ticket meanwhile, it starts over with the larger number.
//! - An entry is current while every cell of its dependencies is at most its stamp.
//!
//! Why that is enough:
//!
//! 1. *A load that started before `invalidate(d)` was called is never current afterwards.* Its stamp is at most the ticket
//!    that the successful exchange replaced, hence below `v`, and the cell is at least `v` when the call returns.
//! 2. *A load whose stamp is at least `v` has seen what the caller changed before calling.* It read a ticket that the
//!    exchange released (later tickets continue its release sequence).
//! 3. *Whoever reads a ticket `s` sees every cell of every invalidation up to `s`*: a cell is written before its ticket.
//!    So a load that reads an entry, finds it current, and copies its dependencies may keep its own stamp for them: an
//!    invalidation up to that stamp was visible when the entry was checked, and later ones are above the stamp. With the
//!    ticket moved first (fetch-and-add, then the cell), an entry checked between the two would smuggle the past into
//!    a younger one.
//!
//! Two names in one cell, and a reader that sees the cell before the ticket, cost a load too many, never a stale value.
//! Memory is the table, whatever is invalidated.

use crate::{
    dep::{Dep, Edge, Form},
    sync::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

pub(crate) struct Stamps {
    ticket: AtomicU64,
    exact: Box<[AtomicU64]>,
    coarse: Box<[AtomicU64]>,
    exact_bits: u32,
    coarse_bits: u32,
}

/// The ticket as it was when a load started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

impl Stamps {
    /// With `2^exact_bits` cells for names and `2^coarse_bits` for kinds: apart, so that a kind which is invalidated all
    /// the time disturbs no name. 1 to 32 and 1 to 16 bits.
    pub(crate) fn new(exact_bits: u32, coarse_bits: u32) -> Self {
        let cells = |bits: u32| (0..1_usize << bits).map(|_| AtomicU64::new(0)).collect();
        Self {
            ticket: AtomicU64::new(0),
            exact: cells(exact_bits),
            coarse: cells(coarse_bits),
            exact_bits,
            coarse_bits,
        }
    }

    /// The stamp for a load that starts now.
    pub(crate) fn now(&self) -> Stamp {
        // Acquire: what an invalidation up to this ticket followed, and its cells, are visible to the load (2 and 3).
        Stamp(self.ticket.load(Acquire))
    }

    /// Every load that has started until now, and depends on `dep`, is the past.
    pub(crate) fn invalidate(&self, dep: Dep) {
        let (exact, coarse) = (self.cell(dep.edge()), self.cell(dep.edge().coarse()));
        let mut before = self.ticket.load(Relaxed);
        loop {
            // Relaxed: published by the exchange below, or by the caller's own news that the call returned. A maximum,
            // since another invalidation may have raised the cell further.
            exact.fetch_max(before + 1, Relaxed);
            coarse.fetch_max(before + 1, Relaxed);
            // AcqRel: releases the cells and the caller's change of the source; acquires, so that the release sequence
            // carries those of every earlier ticket.
            match self.ticket.compare_exchange_weak(before, before + 1, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => before = now,
            }
        }
    }

    /// Whether nothing in `edges` has been invalidated since `stamp`.
    pub(crate) fn current(&self, edges: &[Edge], stamp: Stamp) -> bool {
        // Relaxed: a get that starts after an invalidation returned has learnt of that from the caller, which orders
        // these reads after its writes; and proof 3 rests on the ticket's acquire.
        edges.iter().all(|edge| self.cell(*edge).load(Relaxed) <= stamp.0)
    }

    fn cell(&self, edge: Edge) -> &AtomicU64 {
        match edge.form() {
            // Whatever is invalidated moves the ticket.
            Form::Everything => &self.ticket,
            Form::Kind => &self.coarse[edge.upper(self.coarse_bits)],
            Form::Name => &self.exact[edge.mixed(self.exact_bits)],
        }
    }
}

/// Models: `RUSTFLAGS="--cfg swiftwater_loom" cargo test -p swiftwater-cache --lib --release`.
#[cfg(all(test, swiftwater_loom))]
mod models {
    use loom::{
        model::Builder,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        thread,
    };

    use super::{Edge, Stamp, Stamps};
    use crate::dep::Dep;

    /// A source of one number, and two entries: `base` loaded from the source, `derived` from `base`.
    struct World {
        stamps: Stamps,
        source: AtomicU64,
        invalidated: AtomicBool,
        base: Slot,
        derived: Slot,
    }

    type Slot = Mutex<Option<(u64, Stamp)>>;

    impl World {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                stamps: Stamps::new(1, 1),
                source: AtomicU64::new(0),
                invalidated: AtomicBool::new(false),
                base: Mutex::new(None),
                derived: Mutex::new(None),
            })
        }

        fn edges() -> [Edge; 1] {
            [Dep::of("source").edge()]
        }

        fn change(&self) -> u64 {
            self.source.store(1, Ordering::Relaxed);
            self.stamps.invalidate(Dep::of("source"));
            self.invalidated.store(true, Ordering::Release);
            1
        }

        fn base(&self) -> u64 {
            self.get(&self.base, || self.source.load(Ordering::Relaxed))
        }

        fn derived(&self) -> u64 {
            self.get(&self.derived, || self.base())
        }

        /// A get as the region does it: check, load with the stamp from before, store, and check once more on every
        /// later get. It must not give 0 if it began after the invalidation had returned.
        fn get(&self, slot: &Slot, load: impl FnOnce() -> u64) -> u64 {
            let after = self.invalidated.load(Ordering::Acquire);
            let stored = *slot.lock().expect("no holder panics");
            let value = match stored {
                Some((value, stamp)) if self.stamps.current(&Self::edges(), stamp) => value,
                _ => {
                    let stamp = self.stamps.now();
                    let value = load();
                    *slot.lock().expect("no holder panics") = Some((value, stamp));
                    value
                }
            };
            assert!(!after || value == 1, "a get that began after the invalidation saw the past");
            value
        }
    }

    fn check(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    #[test]
    fn three_gets_and_an_invalidation() {
        check(|| {
            let world = World::new();
            let threads = [World::base, World::base, World::change].map(|run| {
                let world = world.clone();
                thread::spawn(move || {
                    run(&world);
                })
            });
            world.base();
            threads.into_iter().for_each(|thread| thread.join().expect("no model panics"));
            assert_eq!(world.base(), 1);
        });
    }

    #[test]
    fn a_derived_entry_does_not_smuggle_the_past() {
        check(|| {
            let world = World::new();
            world.base(); // stored before anything happens
            let threads = [World::derived, World::change].map(|run| {
                let world = world.clone();
                thread::spawn(move || {
                    run(&world);
                })
            });
            world.derived();
            threads.into_iter().for_each(|thread| thread.join().expect("no model panics"));
            assert_eq!(world.derived(), 1);
        });
    }

    #[test]
    fn two_invalidations_at_once_are_both_seen() {
        check(|| {
            let stamps = Arc::new(Stamps::new(1, 1));
            let before = stamps.now();
            let threads = [Dep::of("source"), Dep::of("other")].map(|dep| {
                let stamps = stamps.clone();
                thread::spawn(move || {
                    stamps.invalidate(dep);
                    assert!(!stamps.current(&[dep.edge()], before));
                })
            });
            threads.into_iter().for_each(|thread| thread.join().expect("no model panics"));
            assert!(!stamps.current(&[Dep::of("source").edge()], before));
            assert!(!stamps.current(&[Dep::of("other").edge()], before));
            let now = stamps.now();
            assert!(stamps.current(&[Dep::of("source").edge(), Dep::of("other").edge()], now));
        });
    }
}
