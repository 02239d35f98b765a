//! What a load says about its value while it runs, and how the loads inside it add to that.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use swiftwater_core::Tick;

use crate::{
    dep::{Dep, Edge, MAX_EDGES},
    error::LoadError,
};

/// What a running load has declared about its value. Cloned freely; every clone speaks for the same load.
///
/// A loader has one in its [`LoadCx`]. Whatever is read from a region of the same cache while the loader is polled is
/// declared by itself; work that the loader hands to other tasks or threads reads through
/// [`Region::within`](crate::Region::within).
///
/// Declarations count until the loader's future has returned its value; later ones have no effect.
#[derive(Clone)]
pub struct Scope(Arc<Mutex<Declared>>);

impl Scope {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Declared::default())))
    }

    /// The value is wrong as soon as `dep` changes. It does not matter whether this is said before or after `dep` is
    /// read: an invalidation counts from the start of the load.
    pub fn depends_on(&self, dep: Dep) {
        self.declared().add(&[dep.edge()]);
    }

    /// The value may be served for this long, counted from the start of the load: instead of the region's lifetime, be
    /// it longer or shorter. Zero: it is returned and not stored.
    ///
    /// What the load read from other entries bounds it all the same: a value is never served beyond the end of what it
    /// was made of.
    pub fn ttl(&self, ttl: Duration) {
        self.declared().ttl = Some(ttl);
    }

    /// The load has read an entry with these dependencies and this end of life.
    pub(crate) fn inherit(&self, key: Dep, edges: &[Edge], expires: Tick) {
        let mut declared = self.declared();
        declared.add(&[key.edge()]);
        declared.add(edges);
        declared.expires = declared.expires.min(expires);
    }

    /// The load has read a key whose load failed: it depends on what that one had declared so far.
    pub(crate) fn inherit_failed(&self, key: Dep, failed: &Self) {
        let (edges, expires) = {
            let failed = failed.declared();
            (failed.edges.clone(), failed.expires)
        };
        self.inherit(key, &edges, expires);
    }

    /// Takes what was declared, at the end of the load.
    pub(crate) fn seal(&self) -> Declared {
        let mut declared = std::mem::take(&mut *self.declared());
        declared.compact();
        declared
    }

    /// Tells loads apart while they run.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn declared(&self) -> MutexGuard<'_, Declared> {
        // No foreign code runs under the lock, and every state of it is a valid one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("declared", &*self.declared()).finish()
    }
}

/// The declarations of one load.
#[derive(Debug)]
pub(crate) struct Declared {
    /// Sorted and without doubles after `compact`.
    pub(crate) edges: Vec<Edge>,
    /// There were too many: kinds from now on.
    coarse: bool,
    /// The earliest end of life of what was read.
    pub(crate) expires: Tick,
    /// The lifetime that the loader chose.
    pub(crate) ttl: Option<Duration>,
}

impl Declared {
    fn add(&mut self, edges: &[Edge]) {
        for edge in edges {
            self.edges.push(if self.coarse { edge.coarse() } else { *edge });
            if self.edges.len() >= 2 * MAX_EDGES {
                self.compact();
            }
        }
    }

    fn compact(&mut self) {
        self.edges.sort_unstable();
        self.edges.dedup();
        if self.edges.len() > MAX_EDGES && !self.coarse {
            self.coarse = true;
            self.edges.iter_mut().for_each(|edge| *edge = edge.coarse());
            self.edges.dedup(); // still sorted: the kind is the upper part
        }
    }
}

impl Default for Declared {
    fn default() -> Self {
        Self { edges: Vec::new(), coarse: false, expires: NEVER, ttl: None }
    }
}

/// What a loader is handed: the key that it loads, and the [`Scope`] of its load, to which it dereferences.
pub struct LoadCx<K> {
    key: K,
    scope: Scope,
}

impl<K> LoadCx<K> {
    pub(crate) fn new(key: K, scope: Scope) -> Self {
        Self { key, scope }
    }

    /// The key to load. Owned here, so that a loader need not capture it.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K> Deref for LoadCx<K> {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.scope
    }
}

impl<K: fmt::Debug> fmt::Debug for LoadCx<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadCx").field("key", &self.key).field("scope", &self.scope).finish()
    }
}

thread_local! {
    /// The scope of the innermost load that this thread is polling.
    static CURRENT: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// The scope of the load that this thread is polling, if it is.
pub(crate) fn current() -> Option<Scope> {
    // Ended thread-locals, as in a destructor at thread exit, mean that nothing is being polled.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Runs `f` with `scope` as the current one.
pub(crate) fn enter<R>(scope: &Scope, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Scope>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let inner = CURRENT.try_with(|current| current.replace(self.0.take()));
            drop(inner);
        }
    }
    let _restore = Restore(CURRENT.try_with(|current| current.replace(Some(scope.clone()))).ok().flatten());
    f()
}

/// A future that is polled with a scope as the current one. `Box`ed, so that it may move between polls.
pub(crate) struct Scoped<F> {
    future: Pin<Box<F>>,
    scope: Scope,
}

impl<F: Future> Scoped<F> {
    pub(crate) fn new(scope: Scope, future: F) -> Self {
        Self { future: Box::pin(future), scope }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, scope } = &mut *self;
        enter(scope, || future.as_mut().poll(cx))
    }
}

/// A loader from call to result: its panic, in the call or in a poll, is an error like any other.
pub(crate) struct Loading<Fut> {
    /// `None` once it has panicked.
    future: Option<Scoped<Fut>>,
}

impl<V, E, Fut: Future<Output = Result<V, E>>> Loading<Fut> {
    pub(crate) fn start<K>(scope: &Scope, key: K, load: impl FnOnce(LoadCx<K>) -> Fut) -> Self {
        let cx = LoadCx::new(key, scope.clone());
        let future = catch_unwind(AssertUnwindSafe(|| enter(scope, || load(cx))));
        Self { future: future.ok().map(|future| Scoped::new(scope.clone(), future)) }
    }
}

impl<V, E, Fut: Future<Output = Result<V, E>>> Future for Loading<Fut> {
    type Output = Result<V, LoadError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else {
            return Poll::Ready(Err(LoadError::Panicked));
        };
        match catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => {
                Poll::Ready(result.map_err(|error| LoadError::Loader(Arc::new(error))))
            }
            Err(_) => {
                self.future = None;
                Poll::Ready(Err(LoadError::Panicked))
            }
        }
    }
}

/// The end of life of what never expires.
pub(crate) const NEVER: Tick = Tick::from_nanos(u64::MAX);
