//! What stands below memory: keyed bytes, on disk or in another process.

use std::{error::Error, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use swiftwater_core::Observe;

/// A store of bytes below memory, such as a disk or a server. Chosen at run time and shared by regions.
///
/// A layer keeps what it is given under a key, for as long as it likes. It needs to know nothing of dependencies, lifetimes
/// or versions: all that decides whether a value may be served is inside of the bytes, which carry a checksum. So a
/// layer that forgets costs loads, one that fails or hangs costs its time-out, and one that lies is found out.
///
/// # Laws
///
/// 1. `get` yields what a `put` under the same key was given, whole, or `None`.
/// 2. After a `put` or a `remove` has returned `Ok`, `get` yields nothing that was put under the key before it began,
///    until the layer is reopened; and after it has been reopened either, unless it was ended by force.
/// 3. No call blocks its thread: what has to wait is awaited, and what has no other form runs on a thread of its own.
/// 4. Dropping a call's future anywhere leaves the layer usable, with the call done or not done.
/// 5. After `close` has returned, what was put before it began is safe where the layer keeps things, and every further call
///    but `close` is an error.
/// 6. `get_many` answers in the order of its keys, each as `get` would.
///
/// The feature `testing` has these laws as functions to call on a layer of your own.
#[async_trait]
pub trait Layer: Observe + Send + Sync + 'static {
    /// What it is called in statistics and errors.
    fn name(&self) -> &'static str;

    /// The bytes of the key, if the layer has any.
    async fn get(&self, key: &LayerKey) -> Result<Option<Bytes>, LayerError>;

    /// The bytes of each key. One trip where the layer can.
    async fn get_many(&self, keys: &[LayerKey]) -> Result<Vec<Option<Bytes>>, LayerError>;

    /// Keeps the bytes in the place of what there was. They will not be asked for after `ttl`: a hint when they may go.
    async fn put(&self, key: &LayerKey, value: Bytes, ttl: Option<Duration>) -> Result<(), LayerError>;

    /// Forgets the key.
    async fn remove(&self, key: &LayerKey) -> Result<(), LayerError>;

    /// Brings everything to safety and lets go of what it holds. A second call finds that done.
    async fn close(&self) -> Result<(), LayerError>;
}

/// A key of a region, encoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayerKey {
    region: &'static str,
    bytes: Bytes,
}

impl LayerKey {
    /// The key with this encoding, of the region of that name.
    #[must_use]
    pub fn new(region: &'static str, bytes: Bytes) -> Self {
        Self { region, bytes }
    }

    /// The region's name. Keys of different regions are different.
    #[must_use]
    pub fn region(&self) -> &'static str {
        self.region
    }

    /// The encoding of the key.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Why a layer did not do as it was asked: any error, made by `?`.
#[derive(Debug)]
pub struct LayerError(pub(crate) Box<dyn Error + Send + Sync>);

impl LayerError {
    /// The error as it was, if it is of type `E`.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for LayerError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
