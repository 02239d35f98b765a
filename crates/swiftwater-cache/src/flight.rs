//! One load on its way, those who wait for it, and who waits for whom.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
};

use tokio::sync::Notify;

use crate::{entry::Held, error::LoadError, scope::Scope, stamps::Stamp, sync::OnceLock};

/// What a load ends with.
pub(crate) type Landed<V, E> = Result<Held<V>, LoadError<E>>;

/// A load that others may join.
pub(crate) struct Flight<V, E> {
    /// Taken before the loader runs; the lowest there is until then. Ordered by what lands and is waited for.
    stamp: AtomicU64,
    /// What it gave is not to be stored, nor what is made of it: a source may have answered from the past.
    held: AtomicBool,
    pub(crate) scope: Scope,
    landed: OnceLock<Landed<V, E>>,
    /// Made by the first who has to wait.
    joiners: OnceLock<Notify>,
}

impl<V, E> Flight<V, E> {
    /// For a load of the cache that has this identity.
    pub(crate) fn new(cache: usize) -> Self {
        let stamp = AtomicU64::new(0);
        let held = AtomicBool::new(false);
        Self { stamp, held, scope: Scope::new(cache), landed: OnceLock::new(), joiners: OnceLock::new() }
    }

    pub(crate) fn begin(&self, stamp: Stamp) {
        self.stamp.store(stamp.number(), Relaxed);
    }

    /// What is invalidated after it the load may not have seen.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::from_number(self.stamp.load(Relaxed))
    }

    // Relaxed, both: said before it lands, and asked after.

    pub(crate) fn hold(&self) {
        self.held.store(true, Relaxed);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Relaxed)
    }

    /// Wakes everybody with the result. Only the first call counts.
    pub(crate) fn land(&self, result: Landed<V, E>) {
        // The leader lands it once; its guard lands `Aborted` only where the leader did not come so far.
        let _ = self.landed.set(result);
        // Whoever looks for a result before waiting and has not found this one has made the `Notify` before that.
        fence(SeqCst);
        if let Some(joiners) = self.joiners.get() {
            joiners.notify_waiters();
        }
    }

    pub(crate) fn has_landed(&self) -> bool {
        self.landed.get().is_some()
    }

    /// Waits for the end of the load. Dropping the future leaves the load alone.
    pub(crate) async fn landed(&self) -> &Landed<V, E> {
        if let Some(result) = self.landed.get() {
            return result;
        }
        // Asked for before looking again, so that a landing in between is not missed.
        let landing = self.joiners.get_or_init(Notify::new).notified();
        fence(SeqCst);
        if let Some(result) = self.landed.get() {
            return result;
        }
        landing.await;
        self.landed.get().expect("joiners are woken after the result is set")
    }
}

impl<V, E> fmt::Debug for Flight<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("stamp", &self.stamp()).field("landed", &self.has_landed()).finish()
    }
}

/// Which running loads wait for which, so that a ring of them is refused instead of waiting for ever. Written only when a
/// loader waits for another load. One for all caches, since a ring may pass through several.
static WAITS: Mutex<BTreeMap<usize, Vec<usize>>> = Mutex::new(BTreeMap::new());

/// One load waits for another, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    waiter: usize,
    target: usize,
}

impl Waiting {
    /// `None` if `target` waits, directly or not, for `waiter`.
    pub(crate) fn start(waiter: &Scope, target: &Scope) -> Option<Self> {
        let (waiter, target) = (waiter.id(), target.id());
        let mut waits = waits();
        let mut reached = vec![target];
        let mut next = 0;
        while let Some(load) = reached.get(next) {
            if *load == waiter {
                return None;
            }
            let onward = waits.get(load).into_iter().flatten();
            let fresh: Vec<usize> = onward.filter(|load| !reached.contains(load)).copied().collect();
            reached.extend(fresh);
            next += 1;
        }
        waits.entry(waiter).or_default().push(target);
        Some(Self { waiter, target })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waits = waits();
        if let Some(targets) = waits.get_mut(&self.waiter) {
            if let Some(place) = targets.iter().position(|target| *target == self.target) {
                targets.swap_remove(place);
            }
            if targets.is_empty() {
                waits.remove(&self.waiter);
            }
        }
    }
}

fn waits() -> MutexGuard<'static, BTreeMap<usize, Vec<usize>>> {
    // No foreign code runs under the lock.
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}
