//! A stored value and the handle that callers get.

use std::{
    fmt,
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use swiftwater_core::Tick;

use crate::{dep::Edge, stamps::Stamp, usage::Uses};

/// One value with all that decides whether it may still be served.
///
/// What every hit looks at stands first, beside the reference count: one cache line, most of the time.
#[repr(C)]
pub(crate) struct Entry<V> {
    /// The latest ticket at which nothing that the entry depends on had moved: the one that its load started with, at
    /// first. Raised by whoever finds it current later, so that the next one need not look.
    stamp: AtomicU64,
    /// Up to then nothing but the stamp has to be looked at.
    due: AtomicU64,
    pub(crate) value: V,
    body: Body,
}

/// Without a weak count: it would not be used, and eight bytes fewer fit a smaller block of the allocator.
pub(crate) type Held<V> = triomphe::Arc<Entry<V>>;

/// The weight, as the weigher said when the entry was made, since the store asks again whenever it moves an entry; and the
/// dependencies, in place where they are few and nothing else has to be said.
enum Body {
    /// It expires when it is due, as does the next.
    Few {
        weight: u32,
        edges: [Edge; FEW],
    },
    Many {
        weight: u32,
        edges: Box<[Edge]>,
    },
    Rich {
        weight: u32,
        rest: Box<Rest>,
    },
}

struct Rest {
    edges: Box<[Edge]>,
    expires: Tick,
    extra: Extra,
}

/// When an entry is what.
pub(crate) struct Times {
    /// From then on it may not be served as fresh.
    pub(crate) expires: Tick,
    pub(crate) extra: Option<Extra>,
}

/// What only some regions have to know of an entry; all in nanoseconds of the cache's clock.
pub(crate) struct Extra {
    /// From then on nobody has asked for it for too long.
    idle_end: AtomicU64,
    /// From then on it is to be loaded anew when asked for.
    refresh_at: AtomicU64,
    /// Until then no load is to be tried in its place, since one has failed.
    retry_at: AtomicU64,
    /// When its load started.
    born: Tick,
    /// How much it was used, see [`Uses`].
    uses: AtomicU64,
}

impl Extra {
    pub(crate) fn new(born: Tick, idle_end: Tick, refresh_at: Tick, uses: Uses) -> Self {
        let word = |tick: Tick| AtomicU64::new(tick.as_nanos());
        Self {
            idle_end: word(idle_end),
            refresh_at: word(refresh_at),
            retry_at: AtomicU64::new(0),
            born,
            uses: AtomicU64::new(uses.word()),
        }
    }

    pub(crate) fn born(&self) -> Tick {
        self.born
    }

    // Relaxed, all of them: each is a time by itself, and a race between two of them costs a load more or less.

    pub(crate) fn idle_end(&self) -> Tick {
        Tick::from_nanos(self.idle_end.load(Relaxed))
    }

    pub(crate) fn touch(&self, idle_end: Tick) {
        self.idle_end.fetch_max(idle_end.as_nanos(), Relaxed);
    }

    pub(crate) fn refresh_at(&self) -> Tick {
        Tick::from_nanos(self.refresh_at.load(Relaxed))
    }

    pub(crate) fn set_refresh_at(&self, tick: Tick) {
        self.refresh_at.store(tick.as_nanos(), Relaxed);
    }

    pub(crate) fn retry_at(&self) -> Tick {
        Tick::from_nanos(self.retry_at.load(Relaxed))
    }

    pub(crate) fn set_retry_at(&self, tick: Tick) {
        self.retry_at.store(tick.as_nanos(), Relaxed);
    }

    pub(crate) fn uses(&self) -> Uses {
        Uses::from_word(self.uses.load(Relaxed))
    }

    /// Of two who note a use at once one may be lost, which is one and the same then.
    pub(crate) fn set_uses(&self, uses: Uses) {
        self.uses.store(uses.word(), Relaxed);
    }
}

impl<V> Entry<V> {
    pub(crate) fn held(value: V, edges: &[Edge], stamp: Stamp, times: Times, weight: u32) -> Held<V> {
        let Times { expires, extra } = times;
        let held = |due: u64, body| {
            Held::new(Self { stamp: AtomicU64::new(stamp.number()), due: AtomicU64::new(due), value, body })
        };
        match (edges, extra) {
            // Whoever looks for the first time sets it right.
            (_, Some(extra)) => {
                held(0, Body::Rich { weight, rest: Box::new(Rest { edges: edges.into(), expires, extra }) })
            }
            ([], None) => held(expires.as_nanos(), Body::Few { weight, edges: [Edge::NONE; FEW] }),
            ([one], None) => held(expires.as_nanos(), Body::Few { weight, edges: [*one, Edge::NONE] }),
            ([one, other], None) => held(expires.as_nanos(), Body::Few { weight, edges: [*one, *other] }),
            (_, None) => held(expires.as_nanos(), Body::Many { weight, edges: edges.into() }),
        }
    }

    pub(crate) fn edges(&self) -> &[Edge] {
        match &self.body {
            Body::Few { edges, .. } => {
                let end = edges.iter().position(|edge| *edge == Edge::NONE);
                &edges[..end.unwrap_or(FEW)]
            }
            Body::Many { edges, .. } => edges,
            Body::Rich { rest, .. } => &rest.edges,
        }
    }

    pub(crate) fn weight(&self) -> u32 {
        match self.body {
            Body::Few { weight, .. } | Body::Many { weight, .. } | Body::Rich { weight, .. } => weight,
        }
    }

    /// From then on it may not be served as fresh.
    pub(crate) fn expires(&self) -> Tick {
        match &self.body {
            Body::Few { .. } | Body::Many { .. } => self.due(),
            Body::Rich { rest, .. } => rest.expires,
        }
    }

    /// What only some regions have to know.
    pub(crate) fn extra(&self) -> Option<&Extra> {
        match &self.body {
            Body::Few { .. } | Body::Many { .. } => None,
            Body::Rich { rest, .. } => Some(&rest.extra),
        }
    }

    // Relaxed, all of these: the two words say what is true of the rest of the entry, which never changes, and was published
    // with it. Of two who write at once either one's word is true.

    #[inline]
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::from_number(self.stamp.load(Relaxed))
    }

    pub(crate) fn restamp(&self, stamp: Stamp) {
        self.stamp.store(stamp.number(), Relaxed);
    }

    #[inline]
    pub(crate) fn due(&self) -> Tick {
        Tick::from_nanos(self.due.load(Relaxed))
    }

    /// For an entry with an extra.
    pub(crate) fn set_due(&self, due: Tick) {
        self.due.store(due.as_nanos(), Relaxed);
    }
}

/// As many dependencies as most entries have; more would make every entry larger.
const FEW: usize = 2;

/// A value from a region: shared, not copied. It dereferences to the value and stays readable however long it is
/// kept, whatever is invalidated meanwhile. Cloning costs one increment.
pub struct Hit<V> {
    pub(crate) entry: Held<V>,
    pub(crate) stale: bool,
}

impl<V> Hit<V> {
    pub(crate) fn fresh(entry: Held<V>) -> Self {
        Self { entry, stale: false }
    }

    /// Of no region.
    #[cfg(feature = "testing")]
    pub(crate) fn made(value: V) -> Self {
        let times = Times { expires: Tick::default(), extra: None };
        Self::fresh(Entry::held(value, &[], Stamp::from_number(0), times, 1))
    }

    pub(crate) fn stale(entry: Held<V>) -> Self {
        Self { entry, stale: true }
    }

    /// Whether the value had expired, or had been invalidated [softly](crate::Change::soft), when it was served: because
    /// the region was told to serve such ones while it loads anew, or where it cannot load.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }
}

impl<V> Clone for Hit<V> {
    fn clone(&self) -> Self {
        Self { entry: self.entry.clone(), stale: self.stale }
    }
}

impl<V> Deref for Hit<V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        &self.entry.value
    }
}

impl<V> AsRef<V> for Hit<V> {
    fn as_ref(&self) -> &V {
        self
    }
}

impl<V: fmt::Debug> fmt::Debug for Hit<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit").field("value", &**self).field("stale", &self.stale).finish()
    }
}

impl<V: fmt::Display> fmt::Display for Hit<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<V: PartialEq> PartialEq<V> for Hit<V> {
    fn eq(&self, other: &V) -> bool {
        **self == *other
    }
}

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use super::*;

    /// As the crate's docs say: with its reference count and the store's pointer 56 bytes beside the value; and what only some
    /// regions have, with two dependencies and what an allocator adds to two blocks, about 110.
    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Rest>() + 2 * size_of::<Edge>(), 80);
        assert_eq!(size_of::<Entry<u64>>() - size_of::<u64>() + 2 * size_of::<usize>(), 56);
    }

    #[test]
    fn dependencies_come_back_however_many_they_are_and_whatever_else_there_is() {
        let edges: Vec<Edge> = (0..5).map(|n| crate::dep::Dep::of("one").with(&n).edge()).collect();
        for len in 0..=5 {
            for extra in [false, true] {
                let extra = extra
                    .then(|| Extra::new(Tick::default(), Tick::default(), Tick::default(), Uses::default()));
                let times = Times { expires: Tick::from_nanos(7), extra };
                let has = times.extra.is_some();
                let entry = Entry::held((), &edges[..len], Stamp::from_number(3), times, 9);
                assert_eq!((entry.edges(), entry.weight()), (&edges[..len], 9));
                assert_eq!((entry.expires(), entry.extra().is_some()), (Tick::from_nanos(7), has));
            }
        }
    }
}
