//! Who waits for whom: so that a ring of loads is refused instead of waiting for ever, and a ring of regions whose loads
//! wait for their turn does not come to a stop.
//!
//! # Why nobody waits for ever
//!
//! A load waits for another one or for a place in the [lane](crate::lane) of its region. Where loads wait for each other in a
//! ring, the last of them is refused. Suppose that some wait for ever nonetheless: one of them waits for a place, and all
//! places of that lane are held by such loads. Each of these waits for another load, and in the end for one that
//! waits for a place, in whatever lane; and so on from there, until a lane turns up that has been before. So its region is on
//! a ring of regions whose loads wait for each other, and one of its loads that wait for a place is wanted by another load.
//! But such a load goes without a place.
//!
//! That regions were on a ring once counts for as long as they live: which of their loads wait just now is not known of those
//! that wait for a place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

use crate::{
    error::LoadError,
    flight::Flight,
    scope::{Readers, Scope},
};

/// Where a load belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// Tells caches apart: dependencies and times mean nothing in another one.
    pub(crate) cache: usize,
    /// Tells regions apart, all that there ever were.
    region: u64,
}

impl Home {
    /// Of a new region.
    pub(crate) fn new(cache: usize) -> Self {
        static REGIONS: AtomicU64 = AtomicU64::new(0);
        // Relaxed: only that they differ matters.
        Self { cache, region: REGIONS.fetch_add(1, Relaxed) }
    }

    /// There will be no more loads of the region.
    pub(crate) fn end(self) {
        let mut waits = waits();
        waits.regions.0.remove(&self.region);
        waits.regions.0.values_mut().for_each(|onward| onward.retain(|region| *region != self.region));
    }

    /// Whether loads of the region have waited for each other, directly or not.
    pub(crate) fn is_on_ring(self) -> bool {
        waits().regions.reaches(self.region, self.region)
    }
}

/// Woken whenever a load that may be waiting for a place might have to go without.
pub(crate) static RINGS: Notify = Notify::const_new();

/// Written only when a loader waits for another load. One for all caches, since a ring may pass through several.
static WAITS: Mutex<Waits> = Mutex::new(Waits {
    loads: Graph(BTreeMap::new()),
    carriers: BTreeMap::new(),
    regions: Graph(BTreeMap::new()),
});

struct Waits {
    /// Which running loads wait for which.
    loads: Graph<usize>,
    /// The load of many keys that makes the value of each: what is waited for on behalf of one of them it waits for.
    carriers: BTreeMap<usize, Scope>,
    /// Loads of which regions have ever waited for loads of which.
    regions: Graph<u64>,
}

struct Graph<T>(BTreeMap<T, Vec<T>>);

impl<T: Copy + Ord> Graph<T> {
    /// Whether one edge or more lead from here to there.
    fn reaches(&self, from: T, to: T) -> bool {
        let onward = |node: &T| self.0.get(node).into_iter().flatten().copied();
        let mut reached: Vec<T> = onward(&from).collect();
        let mut known: BTreeSet<T> = reached.iter().copied().collect();
        let mut next = 0;
        while let Some(node) = reached.get(next).copied() {
            if node == to {
                return true;
            }
            for node in onward(&node) {
                if known.insert(node) {
                    reached.push(node);
                }
            }
            next += 1;
        }
        false
    }
}

/// Notes that the readers wait for the flight. What they are made of can no longer be known if that closes a ring of loads,
/// so their values will not be stored, whatever they make of the error.
#[inline]
pub(crate) fn wait<V, E>(readers: &Readers, flight: &Flight<V, E>) -> Result<Notes, LoadError<E>> {
    if readers.is_empty() { Ok([None, None]) } else { note(readers, flight) }
}

fn note<V, E>(readers: &Readers, flight: &Flight<V, E>) -> Result<Notes, LoadError<E>> {
    let mut waiting = [None, None];
    for (place, reader) in readers.all().enumerate() {
        flight.want();
        waiting[place] = Waiting::start(reader, flight.scope());
        if waiting[place].is_none() {
            readers.all().for_each(Scope::taint);
            return Err(LoadError::Cycle);
        }
        let (waiter, target) = (reader.home().region, flight.scope().home().region);
        let mut waits = waits();
        let onward = waits.regions.0.entry(waiter).or_default();
        if !onward.contains(&target) {
            onward.push(target);
        }
        let is_ring = waits.regions.reaches(target, waiter);
        drop(waits);
        if is_ring {
            RINGS.notify_waiters();
        }
    }
    Ok(waiting)
}

/// What is noted of the readers, of whom there are two at most.
pub(crate) type Notes = [Option<Waiting>; 2];

/// One load waits for another, until this is dropped. It holds both, so that no other load gets the address of one of them while
/// it is noted.
#[derive(Debug)]
pub(crate) struct Waiting {
    waiter: Scope,
    target: Scope,
}

impl Waiting {
    /// `None` if `target` waits, directly or not, for `waiter`.
    pub(crate) fn start(waiter: &Scope, target: &Scope) -> Option<Self> {
        let mut waits = waits();
        let waiter = waits.carriers.get(&waiter.id()).unwrap_or(waiter).clone();
        if waiter.id() == target.id() || waits.loads.reaches(target.id(), waiter.id()) {
            return None;
        }
        waits.loads.0.entry(waiter.id()).or_default().push(target.id());
        Some(Self { waiter, target: target.clone() })
    }

    /// The load of one key waits for that of many, which makes its value.
    pub(crate) fn carried(waiter: &Scope, carrier: &Scope) -> Option<Self> {
        let waiting = Self::start(waiter, carrier)?;
        waits().carriers.insert(waiting.waiter.id(), waiting.target.clone());
        Some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waits = waits();
        let (waiter, target) = (self.waiter.id(), self.target.id());
        if waits.carriers.get(&waiter).is_some_and(|carrier| carrier.id() == target) {
            waits.carriers.remove(&waiter);
        }
        if let Some(targets) = waits.loads.0.get_mut(&waiter) {
            if let Some(place) = targets.iter().position(|other| *other == target) {
                targets.swap_remove(place);
            }
            if targets.is_empty() {
                waits.loads.0.remove(&waiter);
            }
        }
    }
}

fn waits() -> MutexGuard<'static, Waits> {
    // No foreign code runs under the lock.
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}
