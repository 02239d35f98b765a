//! What a load says about its value while it runs, and how the loads inside it add to that.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{self, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use smallvec::{SmallVec, smallvec};
use swiftwater_core::Tick;
use triomphe::Arc;

#[cfg(all(test, swiftwater_shuttle))]
use crate::sync::{LocalCell as _, thread_local};
use crate::{
    dep::{Dep, Edge, MAX_EDGES},
    error::LoadError,
    links::Links,
    load::Got,
    stamps::Stamp,
    waits::Home,
};

/// What a running load has declared about its value. Cloned freely; every clone speaks for the same load.
///
/// A loader has one in its [`LoadCx`]. A read of a region of the same cache that begins while the loader is being polled
/// declares itself; work that the loader hands to other tasks or threads reads through
/// [`Region::within`](crate::Region::within).
///
/// Declarations count until the loader's future has returned its value; later ones have no effect.
#[derive(Clone)]
pub struct Scope(Arc<Inner>);

struct Inner {
    home: Home,
    declared: Mutex<Declared>,
}

impl Scope {
    pub(crate) fn new(home: Home) -> Self {
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        if let Some(mut scope) = spare
            && let Some(inner) = Arc::get_mut(&mut scope.0)
        {
            inner.home = home;
            return scope;
        }
        Self(Arc::new(Inner { home, declared: Mutex::new(Declared::default()) }))
    }

    /// The load has ended. Unless somebody else speaks for it still, its block is the next one's: one allocation less for
    /// each load and insert.
    pub(crate) fn retire(mut self) {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            *inner.declared.get_mut().unwrap_or_else(PoisonError::into_inner) = Declared::default();
            // Where thread-locals have ended it is let go.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    /// The value is wrong as soon as `dep` changes. In a loader it does not matter whether this is said before or after
    /// it reads what `dep` stands for: an invalidation counts from the start of the load. What was read before the load
    /// began is beyond that.
    pub fn depends_on(&self, dep: Dep) {
        let edge = dep.edge();
        match edge.whole() {
            None => self.declared().add(&[edge]),
            Some(whole) => self.declared().add(&[edge, whole]),
        }
    }

    /// The value may be served for this long, counted from the start of the load: instead of the region's lifetime, be
    /// it longer or shorter. Zero: it is returned to those who wait for it and not stored, as befits a makeshift for
    /// something that failed.
    ///
    /// What the load read from other entries bounds it all the same: a value is never served beyond the end of what it
    /// was made of.
    pub fn ttl(&self, ttl: Duration) {
        self.declared().ttl = Some(ttl);
    }

    /// The load has read this key of a region.
    pub(crate) fn depends_on_key(&self, key: Dep, region: Dep) {
        self.declared().add(&[key.edge(), region.edge()]);
    }

    /// The load has read an entry with these dependencies and this end of life.
    pub(crate) fn inherit(&self, edges: &[Edge], expires: Tick) {
        let mut declared = self.declared();
        declared.add(edges);
        declared.expires = declared.expires.min(expires);
    }

    /// What was declared for several values at once counts for this one, too.
    pub(crate) fn adopt(&self, all: &Self) {
        let (edges, expires, since, ttl) = {
            let all = all.declared();
            (all.edges.clone(), all.expires, all.since, all.ttl)
        };
        self.inherit(&edges, expires);
        since.into_iter().for_each(|stamp| self.since(stamp));
        let mut declared = self.declared();
        declared.ttl = declared.ttl.or(ttl);
    }

    /// The load has read a key whose load failed: it depends on what that one had declared so far.
    pub(crate) fn inherit_failed(&self, failed: &Self) {
        let (edges, expires, since) = {
            let failed = failed.declared();
            (failed.edges.clone(), failed.expires, failed.since)
        };
        self.inherit(&edges, expires);
        since.into_iter().for_each(|stamp| self.since(stamp));
    }

    /// The load has read something that a gentle invalidation after this stamp concerns, or will: its value is no newer.
    pub(crate) fn since(&self, stamp: Stamp) {
        let mut declared = self.declared();
        declared.since = Some(declared.since.map_or(stamp, |since| since.min(stamp)));
    }

    /// What the load is made of will never be fully known: its value must not be stored.
    pub(crate) fn taint(&self) {
        self.declared().expires = Tick::default();
    }

    /// What was declared, at the end of the load, with all that it and `key` lie under. To be let go of before any foreign
    /// code runs.
    pub(crate) fn seal(&self, links: &Links, key: Option<Dep>) -> MutexGuard<'_, Declared> {
        let mut declared = self.declared();
        declared.compact();
        if let Some(key) = key {
            let mut above = Vec::new();
            links.above_each(&declared.edges, key, |edge| above.push(edge));
            declared.add(&above);
            declared.compact();
        }
        declared
    }

    pub(crate) fn home(&self) -> Home {
        self.0.home
    }

    /// Tells loads apart while they run.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn declared(&self) -> MutexGuard<'_, Declared> {
        // No foreign code runs under the lock, and every state of it is a valid one.
        self.0.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("declared", &*self.declared()).finish()
    }
}

/// The loads on whose behalf something is read: the one that this thread is polling, and the one that the caller names.
#[derive(Default)]
pub(crate) struct Readers {
    polled: Option<Scope>,
    named: Option<Scope>,
}

impl Readers {
    #[inline]
    pub(crate) fn here(named: Option<&Scope>) -> Self {
        // Ended thread-locals, as in a destructor at thread exit, mean that nothing is being polled.
        let polled = CURRENT.try_with(|current| current.borrow().clone()).ok().flatten();
        let other = |named: &&Scope| polled.as_ref().is_none_or(|polled| polled.id() != named.id());
        let named = named.filter(other).cloned();
        Self { polled, named }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.polled.is_none() && self.named.is_none()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Scope> {
        self.polled.iter().chain(&self.named)
    }

    /// Those that are loads of the cache with this identity.
    pub(crate) fn of(&self, cache: usize) -> impl Iterator<Item = &Scope> {
        self.all().filter(move |scope| scope.home().cache == cache)
    }
}

/// The declarations of one load.
#[derive(Debug)]
pub(crate) struct Declared {
    /// Sorted and without doubles after `compact`, and then at most [`MAX_EDGES`].
    pub(crate) edges: SmallVec<[Edge; 4]>,
    /// How much is known of each dependency.
    detail: Detail,
    /// The earliest end of life of what was read.
    pub(crate) expires: Tick,
    /// The oldest stamp of what was read and is concerned by gentle invalidations, if there is one.
    pub(crate) since: Option<Stamp>,
    /// The lifetime that the loader chose.
    pub(crate) ttl: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Detail {
    /// Its name.
    Exact,
    /// Its kind: there are too many names.
    Kinds,
    /// Nothing: there are too many kinds.
    Nothing,
}

impl Declared {
    fn add(&mut self, edges: &[Edge]) {
        if self.detail == Detail::Exact && self.edges.len() + edges.len() < MAX_EDGES {
            edges.iter().for_each(|edge| self.edges.push(*edge));
            return;
        }
        for edge in edges {
            match self.detail {
                Detail::Exact => self.edges.push(*edge),
                Detail::Kinds => self.edges.push(edge.coarse()),
                Detail::Nothing => return,
            }
            if self.edges.len() >= 2 * MAX_EDGES {
                self.compact();
            }
        }
    }

    /// Leaves at most [`MAX_EDGES`], so that it is called once for at least as many additions.
    fn compact(&mut self) {
        match self.edges[..] {
            [] | [_] => {}
            [first, second] if first < second => {}
            [first, second] if first > second => self.edges.swap(0, 1),
            _ => {
                self.edges.sort_unstable();
                self.edges.dedup();
            }
        }
        if self.edges.len() > MAX_EDGES && self.detail == Detail::Exact {
            self.detail = Detail::Kinds;
            self.edges.iter_mut().for_each(|edge| *edge = edge.coarse());
            self.edges.dedup(); // still sorted: the kind is the upper part
        }
        if self.edges.len() > MAX_EDGES {
            self.detail = Detail::Nothing;
            self.edges = smallvec![Edge::EVERYTHING];
        }
    }
}

impl Default for Declared {
    fn default() -> Self {
        Self { edges: SmallVec::new(), detail: Detail::Exact, expires: NEVER, since: None, ttl: None }
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
    /// Whether there is one. Apart, because reading what has no destructor costs one load.
    static LOADING: Cell<bool> = const { Cell::new(false) };
    /// A scope that nobody speaks for any more.
    static SPARE: Cell<Option<Scope>> = const { Cell::new(None) };
}

/// Whether this thread is polling a load.
#[inline]
pub(crate) fn is_loading() -> bool {
    LOADING.get()
}

/// Runs `f` with `scope` as the current one, from where it comes back.
fn enter<R>(scope: &mut Option<Scope>, f: impl FnOnce() -> R) -> R {
    struct Restore<'a> {
        outer: Option<Scope>,
        inner: &'a mut Option<Scope>,
    }
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            LOADING.set(self.outer.is_some());
            // Where thread-locals have ended meanwhile the scope went with them; nothing is declared by itself any more.
            *self.inner = CURRENT.try_with(|current| current.replace(self.outer.take())).ok().flatten();
        }
    }
    // Where thread-locals have ended, as in a destructor at thread exit, nothing is declared by itself.
    let Ok(outer) = CURRENT.try_with(|current| current.replace(scope.take())) else { return f() };
    LOADING.set(true);
    let _restore = Restore { outer, inner: scope };
    f()
}

/// A loader from call to result, polled with its scope as the current one. Its panic, in the call or in a poll, is an
/// error like any other.
pub(crate) struct Loading<Fut> {
    /// Boxed, so that it may move between polls. `None` once it has panicked.
    future: Option<Pin<Box<Fut>>>,
    /// Not here while it is the current one.
    scope: Option<Scope>,
}

impl<V, E, Fut: Future<Output = Result<Got<V>, E>>> Loading<Fut> {
    pub(crate) fn start<K>(scope: &Scope, key: K, load: impl FnOnce(LoadCx<K>) -> Fut) -> Self {
        let cx = LoadCx::new(key, scope.clone());
        let mut scope = Some(scope.clone());
        let future = catch_unwind(AssertUnwindSafe(|| enter(&mut scope, || Box::pin(load(cx)))));
        Self { future: future.ok(), scope }
    }
}

impl<V, E, Fut: Future<Output = Result<Got<V>, E>>> Future for Loading<Fut> {
    type Output = Result<Got<V>, LoadError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { future, scope } = &mut *self;
        let Some(polled) = future else {
            return Poll::Ready(Err(LoadError::Panicked));
        };
        match catch_unwind(AssertUnwindSafe(|| enter(scope, || polled.as_mut().poll(cx)))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => {
                Poll::Ready(result.map_err(|error| LoadError::Loader(sync::Arc::new(error))))
            }
            Err(_) => {
                *future = None;
                Poll::Ready(Err(LoadError::Panicked))
            }
        }
    }
}

/// The end of life of what never expires.
pub(crate) const NEVER: Tick = Tick::from_nanos(u64::MAX);
