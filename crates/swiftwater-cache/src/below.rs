//! The layers below a region's memory, as the region sees them: without what they need to encode.

use std::{future::Future, pin::Pin};

use swiftwater_core::{Tick, Visitor};

#[cfg(feature = "layers")]
use crate::cache::CloseError;
use crate::{dep::Edge, entry::Entry, skip::Skip, stamps::Stamp};

/// Boxed: which layers there are is known at run time.
pub(crate) type Waits<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub(crate) trait Below<K, V>: Send + Sync {
    /// The value that a layer has of the key, if it may be served as fresh. Tells the layers above it. As if those to skip were
    /// not there.
    fn read<'a>(&'a self, key: &'a K, skip: &'a Skip) -> Waits<'a, Option<Found<V>>>;

    /// The same for many keys, in their order.
    fn read_many<'a>(&'a self, keys: &'a [K]) -> Waits<'a, Vec<Option<Found<V>>>>;

    /// Hands the entry to the layers that want it at this moment of its life, but for those to skip. Does not wait.
    fn keep(&self, key: &K, entry: &Entry<V>, moment: Moment, skip: &Skip);

    /// Lets the layers forget the key. Does not wait.
    fn forget(&self, key: &K);

    /// Waits until all that was handed to the layers has arrived, or has failed; from then on nothing is.
    #[cfg(feature = "layers")]
    fn settle(&self) -> Waits<'_, ()>;

    /// Closes the layers, all of them, and gives the first error.
    #[cfg(feature = "layers")]
    fn close(&self) -> Waits<'_, Result<(), CloseError>>;

    fn observe(&self, visitor: &mut dyn Visitor);
}

/// When an entry is handed to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It had to make room in memory.
    Evicted,
    /// It was loaded or inserted.
    Filled,
}

/// What a layer had.
pub(crate) struct Found<V> {
    pub(crate) value: V,
    pub(crate) edges: Vec<Edge>,
    pub(crate) stamp: Stamp,
    pub(crate) expires: Tick,
}
