//! What a component shows of itself, without a metrics library and without an allocation.

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{Arc, Weak},
};

/// What a reading counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things or events.
    Count,
    /// A share from 0 to 1, for gauges.
    Ratio,
    /// Time: in seconds for a gauge, in **nanoseconds** for a counter or a histogram, which hold integers (a renderer
    /// divides).
    Seconds,
}

/// The static description of one reading; a component declares one per reading as a `static`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Desc {
    /// Lower-case words joined by `_`, without unit, component, `_total`, `_sum`, `_count` or `_bucket`: a renderer adds
    /// those.
    pub name: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// One line for people.
    pub help: &'static str,
}

impl Desc {
    /// Describes a reading.
    #[must_use]
    pub const fn new(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self { name, unit, help }
    }
}

/// The read-only face of a histogram: merging and quantiles stay with the reader.
///
/// # Laws
///
/// 1. Buckets do not overlap, and their ends are the same for as long as the distribution lives.
/// 2. A bucket that was once shown is shown again, with a count that never decreases.
/// 3. Neither method allocates or blocks.
pub trait Distribution {
    /// Calls `each` for every bucket that is not empty, in ascending order, with the values it covers and its count.
    fn buckets(&self, each: &mut dyn FnMut(RangeInclusive<u64>, u64));

    /// The sum of all recorded values, saturating.
    fn sum(&self) -> u64;
}

/// What goes through a component's readings. Every method but [`part`](Self::part) ignores what it is shown by default,
/// so that a visitor that wants only counters is one function.
pub trait Visitor {
    /// A number that only grows.
    fn counter(&mut self, desc: &'static Desc, value: u64) {
        let _ = (desc, value);
    }

    /// A number that goes up and down.
    fn gauge(&mut self, desc: &'static Desc, value: f64) {
        let _ = (desc, value);
    }

    /// A distribution.
    fn histogram(&mut self, desc: &'static Desc, value: &dyn Distribution) {
        let _ = (desc, value);
    }

    /// One of a few named states.
    fn state(&mut self, desc: &'static Desc, value: &dyn fmt::Display) {
        let _ = (desc, value);
    }

    /// A labelled part, such as the region `prices` of a cache; `kind` is spelled like the name of a [`Desc`]. The visitor
    /// looks inside by calling `inner.observe`, or does not.
    fn part(&mut self, kind: &'static str, name: &dyn fmt::Display, inner: &dyn Observe);
}

/// Shows its readings to a visitor.
///
/// # Laws
///
/// 1. `observe` allocates nothing, holds no lock while it calls the visitor, and never blocks.
/// 2. The same readings come in the same order on every call, except for parts, which come and go; a counter never
///    decreases.
/// 3. No two readings of one component share a name, and no two of its parts share kind and name.
/// 4. Readings are taken one after the other: each is right for itself, sums across them may be off by what happens
///    meanwhile.
///
/// `conformance::observe` (feature `testing`) checks 2 and 3, and the names. 1 takes a counting allocator: count around
/// a visitor that only sums.
pub trait Observe: Send + Sync {
    /// Calls the visitor once per reading.
    fn observe(&self, visitor: &mut dyn Visitor);
}

impl<F: Fn(&mut dyn Visitor) + Send + Sync> Observe for F {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self(visitor);
    }
}

/// A weak hold on something observable: what a [`Registry`](crate::Registry) keeps. Made by `From` out of `&Arc<T>` and
/// of the handles of the primitives.
#[derive(Clone)]
pub struct Observer(Weak<dyn Observe>);

impl Observer {
    /// For handles that keep their `Arc` to themselves.
    #[must_use]
    pub fn new(target: Weak<dyn Observe>) -> Self {
        Self(target)
    }

    /// Without taking hold of the target, which would make the caller its last owner now and then, and have its
    /// destructor run wherever the caller is.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// The target, if it is still alive.
    #[must_use]
    pub fn upgrade(&self) -> Option<Arc<dyn Observe>> {
        self.0.upgrade()
    }
}

impl<T: Observe + 'static> From<&Arc<T>> for Observer {
    fn from(target: &Arc<T>) -> Self {
        let weak: Weak<T> = Arc::downgrade(target);
        Self(weak)
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("alive", &self.is_alive()).finish()
    }
}
