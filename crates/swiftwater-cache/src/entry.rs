//! A stored value and the handle that callers get.

use std::{fmt, ops::Deref, sync::Arc};

use swiftwater_core::Tick;

use crate::{dep::Edge, stamps::Stamp};

/// One value with all that decides whether it may still be served.
pub(crate) struct Entry<V> {
    pub(crate) value: V,
    pub(crate) edges: Box<[Edge]>,
    pub(crate) stamp: Stamp,
    pub(crate) expires: Tick,
    /// As the weigher said when the entry was made: the store asks again whenever it moves an entry.
    pub(crate) weight: u64,
}

/// A value from a region: shared, not copied. It dereferences to the value and stays readable however long it is
/// kept, whatever is invalidated meanwhile. Cloning costs one increment.
pub struct Hit<V>(pub(crate) Arc<Entry<V>>);

impl<V> Clone for Hit<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> Deref for Hit<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0.value
    }
}

impl<V> AsRef<V> for Hit<V> {
    fn as_ref(&self) -> &V {
        &self.0.value
    }
}

impl<V: fmt::Debug> fmt::Debug for Hit<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hit").field(&self.0.value).finish()
    }
}

impl<V: fmt::Display> fmt::Display for Hit<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

impl<V: PartialEq> PartialEq<V> for Hit<V> {
    fn eq(&self, other: &V) -> bool {
        self.0.value == *other
    }
}
