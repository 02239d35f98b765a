//! Invalidations that do not take effect at once and for all: soft, gradual, and those that hold off storing.
//!
//! They live in a table of their own, so that none of them ever overwrites a strict one. Its places are *marks*, selected
//! by a dependency's hash as cells are, with what a mark needs to say of any entry how it fares: from which version on it
//! is clean; before which it is stale, or soft; and one invalidation that is still on its way, whose moment is spread over
//! a window by the hash of the entry's key. Two that are on their way at one mark become one that is at least as
//! strict as both at every moment. Names that share a mark cost loads, never freshness: of entries with two dependencies
//! about one in a thousand, for each softened name.
//!
//! The ticket moves *after* a mark is written, so whoever finds the ticket where an entry's stamp says has missed none
//! (as in [`stamps`](crate::stamps)). The table is made when it is first needed, and never grows.

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use swiftwater_core::Tick;

use crate::{
    dep::{Dep, Edge, Form},
    policy::share_of,
    stamps::{Stamp, Stamps},
};

#[derive(Default)]
pub(crate) struct Table {
    marks: OnceLock<Box<[Mutex<Mark>]>>,
    /// The latest version that any mark has.
    latest: AtomicU64,
    /// When the last window ends in which nothing that depends on something is stored, in nanoseconds.
    held: AtomicU64,
}

/// How an entry fares by the marks of its dependencies; the worst of them counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// None of them concerns it.
    Clean,
    /// One will, later.
    Pending,
    /// It may be served while it is loaded anew.
    Soft,
    Stale,
}

#[derive(Default)]
struct Mark {
    /// Entries from before are stale.
    stale: u64,
    /// Entries from before are soft.
    soft: u64,
    pending: Option<Pending>,
    /// Loads that started before this are not stored.
    held: Tick,
}

#[derive(Clone, Copy)]
struct Pending {
    /// Entries from before are concerned.
    version: u64,
    from: Tick,
    to: Tick,
    soft: bool,
}

impl Table {
    /// What depends on `dep` becomes stale, or soft, at a moment of its own within `window` from now.
    pub(crate) fn relax(&self, stamps: &Stamps, dep: Dep, soft: bool, now: Tick, window: Duration) {
        // As with cells: whoever has read a ticket sees the marks of every version up to it, so no entry's stamp can be
        // raised beyond a version whose mark was not looked at.
        stamps.advance(|version| {
            self.each(dep, |mark| mark.add(Pending { version, from: now, to: now + window, soft }, now));
            // Relaxed, and a maximum: published by the ticket.
            self.latest.fetch_max(version, Relaxed);
        });
    }

    /// Loads that start within `window` from now and depend on `dep` are not stored.
    pub(crate) fn hold(&self, dep: Dep, now: Tick, window: Duration) {
        let end = now + window;
        self.each(dep, |mark| mark.held = mark.held.max(end));
        self.held.fetch_max(end.as_nanos(), Relaxed);
    }

    /// The latest version that any mark has; zero if there is none.
    #[cfg(feature = "layers")]
    pub(crate) fn latest(&self) -> u64 {
        self.latest.load(Relaxed)
    }

    /// Whether every mark is older than the stamp.
    #[inline]
    pub(crate) fn is_quiet(&self, stamp: Stamp) -> bool {
        self.latest.load(Relaxed) <= stamp.number()
    }

    /// How an entry with these dependencies and this stamp fares; `share`, from 0 to 1, is its place in every window.
    pub(crate) fn fate(
        &self,
        edges: impl IntoIterator<Item = Edge>,
        stamp: Stamp,
        now: Tick,
        share: f64,
    ) -> Fate {
        // What depends on anything at all has been found stale before: the ticket has moved.
        let fate = |edge| self.mark(edge).map_or(Fate::Clean, |mark| mark.fate(stamp, now, share));
        edges.into_iter().map(fate).max().unwrap_or(Fate::Clean)
    }

    /// Whether any hold has lasted until then.
    pub(crate) fn may_hold(&self, start: Tick) -> bool {
        // Relaxed: whoever starts a load after `hold` has returned has learnt of it.
        start.as_nanos() < self.held.load(Relaxed)
    }

    /// Whether a load that started then, with these dependencies, must not be stored.
    pub(crate) fn holds(&self, edges: impl IntoIterator<Item = Edge>, start: Tick) -> bool {
        edges.into_iter().any(|edge| match edge.form() {
            Form::Everything => true,
            _ => self.mark(edge).is_some_and(|mark| start < mark.held),
        })
    }

    fn each(&self, dep: Dep, change: impl Fn(&mut Mark)) {
        let edge = dep.edge();
        self.marks.get_or_init(|| (0..1 << MARK_BITS).map(|_| Mutex::default()).collect());
        let coarse = (edge.form() != Form::All).then(|| edge.coarse());
        for edge in [Some(edge), coarse].into_iter().flatten() {
            if let Some(mut mark) = self.mark(edge) {
                change(&mut mark);
            }
        }
    }

    fn mark(&self, edge: Edge) -> Option<MutexGuard<'_, Mark>> {
        let marks = self.marks.get()?;
        // Nothing in here panics half-way.
        Some(marks[edge.mixed(MARK_BITS)].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Mark {
    fn add(&mut self, new: Pending, now: Tick) {
        self.pending = Some(match self.pending.take() {
            None => new,
            Some(old) if old.to <= now => {
                let ended = if old.soft { &mut self.soft } else { &mut self.stale };
                *ended = (*ended).max(old.version);
                new
            }
            Some(old) => Pending {
                version: old.version.max(new.version),
                from: old.from.min(new.from),
                to: old.to.min(new.to),
                soft: old.soft && new.soft,
            },
        });
    }

    fn fate(&self, stamp: Stamp, now: Tick, share: f64) -> Fate {
        let stamp = stamp.number();
        let pending = self.pending.filter(|pending| stamp < pending.version);
        let due = pending.is_some_and(|pending| now >= pending.moment(share));
        if stamp < self.stale || (due && pending.is_some_and(|pending| !pending.soft)) {
            Fate::Stale
        } else if stamp < self.soft || due {
            Fate::Soft
        } else if pending.is_some() {
            Fate::Pending
        } else {
            Fate::Clean
        }
    }
}

impl Pending {
    fn moment(&self, share: f64) -> Tick {
        self.from + share_of(self.to - self.from, share)
    }
}

/// 4096 marks, 256 KiB once something was relaxed.
const MARK_BITS: u32 = 12;

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_large_as_it_is_said_to_be() {
        assert_eq!(size_of::<Mutex<Mark>>() << MARK_BITS, 256 << 10);
    }
}
