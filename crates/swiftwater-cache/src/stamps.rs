//! Version stamps: how an invalidation is seen by every entry at once, without touching one.
//!
//! There is one counter, the *ticket*, and a fixed table of *cells*; a dependency's hash selects its cell. (Two cells: one
//! for its name, one for its kind, which entries with very many dependencies keep instead. A key has a third, in a table
//! of its own, for its own entry. Whole regions and the whole cache have cells apart, where no name can disturb them.)
//!
//! - A load reads the ticket before it starts: its stamp `s`.
//! - `invalidate(d)` raises d's cell to `v = ticket + 1` and *then* moves the ticket from `v - 1` to `v`. If somebody else
//!   moved the ticket meanwhile, it starts over with the larger number.
//! - An entry is current while every cell of its dependencies is at most its stamp. Whoever finds it so, having read the
//!   ticket *before*, may raise the entry's stamp to that ticket: nothing that it depends on has moved up to there. While
//!   the ticket stands where the stamp says, nobody need look at cells.
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
//! 4. *An entry whose stamp is the present ticket is current.* Its stamp was taken or raised by somebody who had read that
//!    ticket, and so saw every invalidation up to it (3), and there have been no later ones that have returned.
//!
//! Two names in one cell, and a reader that sees the cell before the ticket, cost a load too many, never a stale value.
//! Memory is the table, whatever is invalidated.

use std::sync::OnceLock;

use crate::{
    dep::{Dep, Edge, Form},
    sync::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

pub(crate) struct Stamps {
    ticket: AtomicU64,
    all: AtomicU64,
    exact: Box<[AtomicU64]>,
    coarse: Box<[AtomicU64]>,
    wholes: Box<[AtomicU64]>,
    /// Of keys, what their own entries depend on: apart, so that no name disturbs them, and as many as there are of names.
    /// Made when the first one is raised. Whoever has read a ticket sees what was raised up to it, and so whether it is
    /// there.
    own: OnceLock<Box<[AtomicU64]>>,
    exact_bits: u32,
    coarse_bits: u32,
    whole_bits: u32,
}

/// The ticket as it was when a load started, or an entry was found current.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

impl Stamp {
    #[inline]
    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }

    #[inline]
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl Stamps {
    /// With `2^exact_bits` cells for names and `2^coarse_bits` for kinds: apart, so that a kind which is invalidated all
    /// the time disturbs no name. 1 to 32 and 1 to 16 bits.
    pub(crate) fn new(exact_bits: u32, coarse_bits: u32) -> Self {
        let whole_bits = coarse_bits.min(WHOLE_BITS);
        let [exact, coarse, wholes] = [exact_bits, coarse_bits, whole_bits].map(|bits| {
            let cells = cells(bits);
            // The system gives out memory that is zero when it is first written, which takes microseconds: here, and not
            // of the invalidations that come first.
            cells.iter().step_by(CELLS_PER_PAGE).for_each(|cell| cell.store(0, Relaxed));
            cells
        });
        Self {
            ticket: AtomicU64::new(0),
            all: AtomicU64::new(0),
            exact,
            coarse,
            wholes,
            own: OnceLock::new(),
            exact_bits,
            coarse_bits,
            whole_bits,
        }
    }

    /// As they were written down: `cells` are those of names, kinds and regions, in this order.
    #[cfg(feature = "layers")]
    pub(crate) fn restore(
        [exact_bits, coarse_bits, whole_bits]: [u32; 3],
        ticket: u64,
        all: u64,
        cells: impl Iterator<Item = u64>,
    ) -> Option<Self> {
        let mut cells = cells.map(AtomicU64::new);
        let mut take = |bits: u32| {
            let table: Box<[_]> = cells.by_ref().take(1 << bits).collect();
            (table.len() == 1 << bits).then_some(table)
        };
        let (exact, coarse, wholes) = (take(exact_bits)?, take(coarse_bits)?, take(whole_bits)?);
        let own = OnceLock::from(take(exact_bits)?);
        let (ticket, all) = (AtomicU64::new(ticket), AtomicU64::new(all));
        cells.next().is_none().then_some(())?;
        Some(Self { ticket, all, exact, coarse, wholes, own, exact_bits, coarse_bits, whole_bits })
    }

    /// The sizes of the three tables.
    #[cfg(feature = "layers")]
    pub(crate) fn bits(&self) -> [u32; 3] {
        [self.exact_bits, self.coarse_bits, self.whole_bits]
    }

    #[cfg(feature = "layers")]
    pub(crate) fn all(&self) -> u64 {
        self.all.load(Relaxed)
    }

    /// Of all tables, one after the other.
    #[cfg(feature = "layers")]
    pub(crate) fn cells(&self) -> impl Iterator<Item = u64> {
        let own = self.own.get_or_init(|| cells(self.exact_bits));
        [&self.exact, &self.coarse, &self.wholes, own].into_iter().flatten().map(|cell| cell.load(Relaxed))
    }

    /// The stamp for a load that starts now.
    #[inline]
    pub(crate) fn now(&self) -> Stamp {
        // Acquire: what an invalidation up to this ticket followed, and its cells, are visible to the load (2 and 3).
        Stamp(self.ticket.load(Acquire))
    }

    /// Every load that has started until now, and depends on `dep`, is the past.
    pub(crate) fn invalidate(&self, dep: Dep) -> Stamp {
        let edge = dep.edge();
        let own = match edge.form() {
            Form::Key => {
                let own = self.own.get_or_init(|| cells(self.exact_bits));
                Some(&own[edge.mixed(self.exact_bits)])
            }
            Form::Whole => Some(self.cell(edge.own())),
            _ => None,
        };
        self.raise([Some(self.cell(edge)), own, self.coarse_cell(edge)])
    }

    /// Invalidates a key, and says whether nobody else has since `stamp`, as far as it can be told.
    pub(crate) fn invalidate_since(&self, key: Dep, stamp: Stamp) -> (Stamp, bool) {
        let edge = key.edge();
        let own = &self.own.get_or_init(|| cells(self.exact_bits))[edge.mixed(self.exact_bits)];
        let (mut first, mut alone) = (true, true);
        let version = self.advance(|version| {
            // Relaxed, all: as in `raise`.
            for cell in [Some(self.cell(edge)), self.coarse_cell(edge)].into_iter().flatten() {
                cell.fetch_max(version, Relaxed);
            }
            // Somebody else who raises the cell later has a later version, or takes this one: then there is a second round,
            // whose finding may be of the first, so that nothing can be told.
            let before = own.fetch_max(version, Relaxed);
            alone = first && before <= stamp.0;
            first = false;
        });
        (version, alone)
    }

    /// A key, or any key of a region, has a new value: what was made of the old one is the past, the own entry is not.
    pub(crate) fn supersede(&self, dep: Dep) -> Stamp {
        self.raise([Some(self.cell(dep.edge())), None, self.coarse_cell(dep.edge())])
    }

    fn raise(&self, cells: [Option<&AtomicU64>; 3]) -> Stamp {
        self.advance(|version| {
            // Relaxed: published by the exchange in `advance`, or by the caller's own news that the call returned. A
            // maximum, since another invalidation may have raised the cell further.
            for cell in cells.into_iter().flatten() {
                cell.fetch_max(version, Relaxed);
            }
        })
    }

    /// Moves the ticket by one, to a version that `write` has been called with before; the last one, if it was called
    /// more than once.
    pub(crate) fn advance(&self, mut write: impl FnMut(u64)) -> Stamp {
        let mut before = self.ticket.load(Relaxed);
        loop {
            write(before + 1);
            // AcqRel: releases what was written and the caller's change of the source; acquires, so that the release
            // sequence carries those of every earlier ticket.
            match self.ticket.compare_exchange_weak(before, before + 1, AcqRel, Relaxed) {
                Ok(_) => return Stamp(before + 1),
                Err(now) => before = now,
            }
        }
    }

    /// Whether none of `edges` has been invalidated since `stamp`.
    pub(crate) fn current(&self, edges: &[Edge], stamp: Stamp) -> bool {
        edges.iter().all(|edge| self.is_current(*edge, stamp))
    }

    /// Whether an entry with this stamp is not the past by its own key.
    pub(crate) fn is_current_itself(&self, key: impl FnOnce() -> Dep, stamp: Stamp) -> bool {
        // As below.
        let own = |cells: &[AtomicU64]| cells[key().edge().mixed(self.exact_bits)].load(Relaxed) <= stamp.0;
        self.own.get().is_none_or(|cells| own(cells))
    }

    #[inline]
    pub(crate) fn is_current(&self, edge: Edge, stamp: Stamp) -> bool {
        // Relaxed: a get that starts after an invalidation returned has learnt of that from the caller, which orders
        // these reads after its writes; and proofs 3 and 4 rest on the ticket's acquire.
        self.cell(edge).load(Relaxed) <= stamp.0
    }

    fn cell(&self, edge: Edge) -> &AtomicU64 {
        match edge.form() {
            Form::All => &self.all,
            // Whatever is invalidated moves the ticket.
            Form::Everything => &self.ticket,
            Form::Key | Form::Name => &self.exact[edge.mixed(self.exact_bits)],
            Form::Kind => &self.coarse[edge.upper(self.coarse_bits)],
            Form::Whole => &self.wholes[edge.upper(self.whole_bits)],
        }
    }

    /// Of what entries keep that have too many dependencies of the kind of this one.
    fn coarse_cell(&self, edge: Edge) -> Option<&AtomicU64> {
        (edge.form() != Form::All).then(|| &self.coarse[edge.upper(self.coarse_bits)])
    }
}

fn cells(bits: u32) -> Box<[AtomicU64]> {
    (0..1_usize << bits).map(|_| AtomicU64::new(0)).collect()
}

/// Of the smallest pages that there are.
const CELLS_PER_PAGE: usize = 4096 / size_of::<AtomicU64>();
/// 256 cells for whole regions.
const WHOLE_BITS: u32 = 8;

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

        /// A get as the region does it: check, raise the stamp of what was found current, load with the stamp from before,
        /// store, and check once more on every later get. It must not give 0 if it began after the invalidation had returned.
        fn get(&self, slot: &Slot, load: impl FnOnce() -> u64) -> u64 {
            let after = self.invalidated.load(Ordering::Acquire);
            let ticket = self.stamps.now();
            let stored = *slot.lock().expect("no holder panics");
            let value = match stored {
                Some((value, stamp)) if stamp == ticket => value,
                Some((value, stamp)) if self.stamps.current(&Self::edges(), stamp) => {
                    // Unless another value has come; a raised stamp is a promise about this one.
                    let mut slot = slot.lock().expect("no holder panics");
                    if *slot == stored && stamp < ticket {
                        *slot = Some((value, ticket));
                    }
                    value
                }
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

    /// Other invalidations move the ticket, so that stamps are raised while the one that matters is made.
    #[test]
    fn a_raised_stamp_hides_no_invalidation() {
        check(|| {
            let world = World::new();
            world.base();
            world.stamps.invalidate(Dep::of("other"));
            let threads = [World::base, World::change].map(|run| {
                let world = world.clone();
                thread::spawn(move || {
                    run(&world);
                })
            });
            world.stamps.invalidate(Dep::of("another"));
            world.base();
            threads.into_iter().for_each(|thread| thread.join().expect("no model panics"));
            assert_eq!(world.base(), 1);
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
