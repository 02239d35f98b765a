//! One load on its way, and those who wait for it.

use std::{
    fmt,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use tokio::sync::Notify;

use crate::{entry::Held, error::LoadError, scope::Scope, stamps::Stamp, sync::OnceLock, waits::Home};

/// What a load ends with.
pub(crate) type Landed<V, E> = Result<Held<V>, LoadError<E>>;

/// A load that others may join.
pub(crate) struct Flight<V, E> {
    /// Taken before the loader runs; the lowest there is until then. Ordered by what lands and is waited for.
    stamp: AtomicU64,
    /// What it gave is not to be stored, nor what is made of it: a source may have answered from the past.
    held: AtomicBool,
    /// Another load waits for it.
    wanted: AtomicBool,
    /// Taken when it is dropped.
    scope: Option<Scope>,
    landed: OnceLock<Landed<V, E>>,
    /// Made by the first who has to wait.
    joiners: OnceLock<Notify>,
}

impl<V, E> Flight<V, E> {
    pub(crate) fn new(home: Home) -> Self {
        let stamp = AtomicU64::new(0);
        let (held, wanted) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            stamp,
            held,
            wanted,
            scope: Some(Scope::new(home)),
            landed: OnceLock::new(),
            joiners: OnceLock::new(),
        }
    }

    pub(crate) fn scope(&self) -> &Scope {
        self.scope.as_ref().expect("it is taken by what drops the flight")
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

    // Relaxed, both: ordered by the lock that notes who waits for whom.

    /// To be said before it is noted that somebody waits for it.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Relaxed);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
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

impl<V, E> Drop for Flight<V, E> {
    fn drop(&mut self) {
        self.scope.take().into_iter().for_each(Scope::retire);
    }
}

impl<V, E> fmt::Debug for Flight<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("stamp", &self.stamp()).field("landed", &self.has_landed()).finish()
    }
}
