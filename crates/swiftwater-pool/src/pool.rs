//! The handle.

use std::{
    fmt,
    future::Future,
    panic::Location,
    sync::{Arc, Weak},
};

use swiftwater_core::{Knob, Observe, Observer, Tunable, Visitor};

use crate::{
    Builder, Connect, Get, GetError, Guard,
    builder::MAX_SIZE_LIMIT,
    engine::{End, Take},
    shared::{Lease, Owner, Shared},
    stats::{MAX_SIZE, Reason},
};

/// Connections, opened when needed and lent in turn. A handle: cloning is one atomic increment.
///
/// A pool lives as long as one of its handles, [`Get`]s or [`Guard`]s. With the last of them it is closed: idle connections
/// are closed, attempts to connect and checks are given up, and its maintenance ends.
pub struct Pool<C: Connect> {
    shared: Owner<C>,
}

impl<C: Connect> Pool<C> {
    /// Starts setting up a pool.
    pub fn builder() -> Builder<C> {
        Builder::new()
    }

    pub(crate) fn new(shared: Arc<Shared<C>>) -> Self {
        Self { shared: Owner::new(shared) }
    }

    /// A connection: an idle one, one that somebody returns, or a new one, whichever comes first. First come, first
    /// served, in the order of first polls.
    ///
    /// Costs two short locks from here to the guard's return when a connection is ready, and no allocation. One
    /// allocation or two when it has to wait.
    ///
    /// The runtime that the pool was built on has to be driven meanwhile, wherever this is awaited: it opens, checks, and
    /// watches the deadline.
    ///
    /// # Errors
    ///
    /// See [`GetError`]; with default options [`GetError::Timeout`], [`GetError::Closed`] or [`GetError::RuntimeEnded`].
    ///
    /// # Cancel safety
    ///
    /// See [`Get`]: nothing is lost.
    #[track_caller]
    pub fn get(&self) -> Get<C> {
        Get::new(self.shared.clone(), Location::caller())
    }

    /// An idle connection, if there is one and nobody waits; never waits itself, opens nothing, and makes no round trip:
    /// of all checks only [`Connect::is_broken`]. `None` always while the pool is switched off.
    #[must_use]
    #[track_caller]
    pub fn try_get(&self) -> Option<Guard<C>> {
        let shared = &self.shared;
        let place = Location::caller();
        loop {
            let (took, now) = shared.change(|engine, now, fx| (engine.take(now, true, fx), now));
            let Take::Ready(conn) = took else { return None };
            let mut lease = Lease::lent(shared.clone(), conn);
            if !lease.is_broken() {
                shared.stats.gets.add(1);
                return Some(Guard::new(lease, now, place));
            }
            lease.discard(Reason::Broken);
        }
    }

    /// Lends a connection to `work`, and takes it back only if `work` has come to its end: if it panics or is dropped
    /// half-way, an answer may still be under way, and the connection is discarded.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). What `work` returns is passed on untouched, an error of its own too.
    ///
    /// # Cancel safety
    ///
    /// Dropped while waiting: nothing is lost. Dropped while `work` runs: the connection is closed, and what the backend
    /// made of the unfinished work is the backend's business.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn doc<C: swiftwater_pool::Connect<Connection = Vec<u8>>>(pool: swiftwater_pool::Pool<C>)
    /// # -> Result<(), swiftwater_pool::GetError<C::Error>> {
    /// let length = pool.with(async |connection| { connection.push(1); connection.len() }).await?;
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn with<R, F>(&self, work: F) -> impl Future<Output = Result<R, GetError<C::Error>>> + use<R, F, C>
    where
        F: AsyncFnOnce(&mut C::Connection) -> R,
    {
        let get = self.get();
        async move {
            let mut guard = get.await?;
            guard.discard_on_drop(true);
            let answer = work(&mut guard).await;
            guard.discard_on_drop(false);
            Ok(answer)
        }
    }

    /// Closes the pool, now: whoever waits gets [`GetError::Closed`], so does every later `get`, idle connections are
    /// closed, attempts to connect are given up, and connections in use are closed when they come back. The future is
    /// ready when the last one is closed.
    ///
    /// # Cancel safety
    ///
    /// The pool is closed when this returns; dropping the future loses only the notice. It waits as long as somebody keeps
    /// a guard, so put a time-out around it.
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<C> {
        self.shared.end(End::Closed);
        let shared = Arc::clone(&*self.shared);
        async move { shared.drained().await }
    }

    /// The pool at this moment.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.look(|engine| engine.state())
    }

    /// Whether connections are reused.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.shared.look(|engine| engine.is_enabled())
    }

    /// The off switch: see [`Builder::enabled`]. Switching off closes what is idle; what is in use is closed when it comes
    /// back. Switching on reuses what comes back from then on.
    pub fn set_enabled(&self, enabled: bool) {
        self.shared.change(|engine, _, fx| engine.set_enabled(enabled, fx));
    }
}

impl<C: Connect> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<C: Connect> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl<C: Connect> Observe for Pool<C> {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.shared.observe(visitor);
    }
}

/// One knob: `max_size`. Raising it serves waiters at once; lowering it closes idle connections at once, and those in use
/// as they come back.
impl<C: Connect> Tunable for Pool<C> {
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        each(Knob::new(
            &MAX_SIZE,
            1.0..=f64::from(MAX_SIZE_LIMIT),
            1.0,
            &*self.shared,
            |shared| shared.look(|engine| engine.state().max_size.into()),
            |shared, value| shared.set_max_size(value as u32),
        ));
    }
}

impl<C: Connect> From<&Pool<C>> for Observer {
    fn from(pool: &Pool<C>) -> Self {
        let weak: Weak<Shared<C>> = Arc::downgrade(&*pool.shared);
        Self::new(weak)
    }
}

/// A pool at one moment. `connecting`, `idle` and `in_use` together are never more than `max_size`, save while a pool that
/// was made smaller waits for what is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// Connections being opened.
    pub connecting: u32,
    /// Connections that nobody uses.
    pub idle: u32,
    /// Connections that are lent, or checked before they are.
    pub in_use: u32,
    /// Callers that wait.
    pub waiters: u32,
    /// The most connections there may be.
    pub max_size: u32,
}
