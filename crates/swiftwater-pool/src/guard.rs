//! A connection in use.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    panic::Location,
    thread,
};

use swiftwater_core::Tick;

use crate::{
    Connect,
    shared::{Lease, Owner},
    stats::Reason,
};

/// A connection, lent. Dropping it gives it to the caller who has waited longest, or makes it idle.
///
/// It is `'static` and [`Send`] (so it can move into `spawn_blocking`), keeps the pool alive, and may be dropped on any
/// thread, after its runtime has ended too. It is discarded instead of returned if [`Connect::is_broken`] says so, if it
/// is dropped while its thread panics, and after [`discard`](Self::discard). The pool cannot see a future that was
/// dropped in the middle of a query: use [`Pool::with`](crate::Pool::with), or a connector whose `is_broken` can tell.
pub struct Guard<C: Connect> {
    lease: Lease<C, Owner<C>>,
    since: Tick,
    place: &'static Location<'static>,
    discard: bool,
}

impl<C: Connect> Guard<C> {
    pub(crate) fn new(lease: Lease<C, Owner<C>>, since: Tick, place: &'static Location<'static>) -> Self {
        Self { lease, since, place, discard: false }
    }

    /// Closes the connection instead of returning it: its session is in a state that nobody else should see.
    pub fn discard(mut self) {
        self.discard = true;
    }

    /// Where it was taken from the pool: for those who look for what they forgot to give back.
    #[must_use]
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// Discards it on drop, unless this is taken back.
    pub(crate) fn discard_on_drop(&mut self, discard: bool) {
        self.discard = discard;
    }
}

impl<C: Connect> Deref for Guard<C> {
    type Target = C::Connection;

    fn deref(&self) -> &C::Connection {
        &self.lease.conn().inner
    }
}

impl<C: Connect> DerefMut for Guard<C> {
    fn deref_mut(&mut self) -> &mut C::Connection {
        &mut self.lease.conn_mut().inner
    }
}

impl<C: Connect> Drop for Guard<C> {
    fn drop(&mut self) {
        let shared = self.lease.shared();
        let used = shared.clock.now() - self.since;
        shared.stats.use_time.record_duration(used);
        if self.discard || thread::panicking() {
            self.lease.discard(Reason::Discarded);
        } else if self.lease.is_broken() {
            self.lease.discard(Reason::Broken);
        } else {
            self.lease.give_back();
        }
    }
}

/// Without the connection, which need not be able to show itself, and may know secrets.
impl<C: Connect> fmt::Debug for Guard<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("place", &format_args!("{}", self.place)).finish_non_exhaustive()
    }
}
