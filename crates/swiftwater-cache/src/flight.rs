//! One load on its way, those who wait for it, and who waits for whom.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::Notify;

use crate::{entry::Entry, error::LoadError, scope::Scope, stamps::Stamp};

/// What a load ends with.
pub(crate) type Landed<V, E> = Result<Arc<Entry<V>>, LoadError<E>>;

/// A load that others may join.
pub(crate) struct Flight<V, E> {
    /// Taken before the loader ran.
    pub(crate) stamp: Stamp,
    pub(crate) scope: Scope,
    landed: OnceLock<Landed<V, E>>,
    joiners: Notify,
}

impl<V, E> Flight<V, E> {
    pub(crate) fn new(stamp: Stamp) -> Self {
        Self { stamp, scope: Scope::new(), landed: OnceLock::new(), joiners: Notify::new() }
    }

    /// Wakes everybody with the result. Only the first call counts.
    pub(crate) fn land(&self, result: Landed<V, E>) {
        // The leader lands it once; its guard lands `Aborted` only where the leader did not come so far.
        let _ = self.landed.set(result);
        self.joiners.notify_waiters();
    }

    /// Waits for the end of the load. Dropping the future leaves the load alone.
    pub(crate) async fn landed(&self) -> &Landed<V, E> {
        // Asked for before looking, so that a landing in between is not missed.
        let landing = self.joiners.notified();
        if let Some(result) = self.landed.get() {
            return result;
        }
        landing.await;
        self.landed.get().expect("joiners are woken after the result is set")
    }
}

impl<V, E> fmt::Debug for Flight<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("stamp", &self.stamp)
            .field("landed", &self.landed.get().is_some())
            .finish()
    }
}

/// Which running loads wait for which, so that a ring of them is refused instead of waiting for ever. Written only
/// when a loader waits for another load.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<HashMap<usize, Vec<usize>>>);

impl Waits {
    /// Notes that the load `waiter` waits for the load `target` until the guard is dropped. `None` if `target` waits,
    /// directly or not, for `waiter`.
    pub(crate) fn wait(&self, waiter: &Scope, target: &Scope) -> Option<Waiting<'_>> {
        let (waiter, target) = (waiter.id(), target.id());
        let mut edges = self.edges();
        let mut reached = vec![target];
        let mut next = 0;
        while next < reached.len() {
            let load = reached[next];
            if load == waiter {
                return None;
            }
            for onward in edges.get(&load).into_iter().flatten() {
                if !reached.contains(onward) {
                    reached.push(*onward);
                }
            }
            next += 1;
        }
        edges.entry(waiter).or_default().push(target);
        Some(Waiting { waits: self, waiter, target })
    }

    fn edges(&self) -> MutexGuard<'_, HashMap<usize, Vec<usize>>> {
        // No foreign code runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One load waits for another.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    waiter: usize,
    target: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut edges = self.waits.edges();
        if let Some(targets) = edges.get_mut(&self.waiter) {
            if let Some(place) = targets.iter().position(|target| *target == self.target) {
                targets.swap_remove(place);
            }
            if targets.is_empty() {
                edges.remove(&self.waiter);
            }
        }
    }
}
