//! Invalidation by what is known of an entry, besides its lifetime and its dependencies.

use std::time::Duration;

/// Decides of entries in memory whether they are still good enough: by their age, by how much they are used, by the value
/// itself. For what a lifetime or a dependency cannot say.
///
/// Implemented for closures, and by [`RarelyUsed`].
///
/// # Laws
///
/// 1. It decides by what it is handed and by nothing that changes without an invalidation: what it has kept may be served
///    without asking again for the time that the region was built with.
/// 2. It is quick and does not panic: it runs within lookups, outside of locks. Its panic is the caller's.
pub trait InvalidationPolicy<V>: Send + Sync + 'static {
    /// What is to become of the entry.
    fn judge(&self, facts: &Facts<'_, V>) -> Judgement;
}

/// What is to become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Judgement {
    /// It is not served any more, as if it had expired for good, and makes room.
    Drop,
    /// It is served.
    Keep,
    /// It is served, and loaded anew in the background: by this lookup if it can load, else by the one at which the policy is
    /// asked again.
    Refresh,
}

/// What is known of an entry.
#[derive(Debug)]
pub struct Facts<'a, V> {
    pub(crate) value: &'a V,
    pub(crate) age: Duration,
    pub(crate) uses: Option<f64>,
}

impl<V> Facts<'_, V> {
    /// Its value.
    #[must_use]
    pub fn value(&self) -> &V {
        self.value
    }

    /// How long ago its load started; if a layer had it, how long ago it came from there.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// How much it was used lately, if the region was built with [`usage`](crate::RegionBuilder::usage), which says how it is
    /// counted.
    #[must_use]
    pub fn uses(&self) -> Option<f64> {
        self.uses
    }
}

/// Drops entries that are used too little: to keep memory for others, or because a value that nobody asks for is not worth
/// keeping right. Needs [`usage`](crate::RegionBuilder::usage); without it nothing is dropped.
#[derive(Clone, Copy, Debug)]
pub struct RarelyUsed {
    below: f64,
    after: Duration,
}

impl RarelyUsed {
    /// Entries whose count of uses is below this one, once they are older than `after`.
    #[must_use]
    pub fn new(below: f64, after: Duration) -> Self {
        Self { below, after }
    }
}

impl<V> InvalidationPolicy<V> for RarelyUsed {
    fn judge(&self, facts: &Facts<'_, V>) -> Judgement {
        let rarely = facts.uses.is_some_and(|uses| uses < self.below);
        if rarely && facts.age > self.after { Judgement::Drop } else { Judgement::Keep }
    }
}

impl<V, F: Fn(&Facts<'_, V>) -> Judgement + Send + Sync + 'static> InvalidationPolicy<V> for F {
    fn judge(&self, facts: &Facts<'_, V>) -> Judgement {
        self(facts)
    }
}

pub(crate) type Judge<V> = Box<dyn Fn(&Facts<'_, V>) -> Judgement + Send + Sync>;

/// A policy, and for how long what it has kept is not shown to it again.
pub(crate) struct Review<V> {
    pub(crate) judge: Judge<V>,
    pub(crate) every: Duration,
}
