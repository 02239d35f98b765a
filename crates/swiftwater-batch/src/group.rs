//! Keys of lanes, whatever their type.

use std::{
    any::Any,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

/// Shared, so that keys can be compared and dropped without the batcher's lock: `Eq` and `Drop` are foreign code.
pub(crate) type Key = Arc<dyn AnyKey>;

/// The hash of a request's key, and the key.
pub(crate) type Group<R> = Box<dyn Fn(&R) -> (u64, Key) + Send + Sync>;

pub(crate) trait AnyKey: Any + Send + Sync {
    fn equals(&self, other: &dyn AnyKey) -> bool;
}

impl<K: Eq + Send + Sync + 'static> AnyKey for K {
    fn equals(&self, other: &dyn AnyKey) -> bool {
        let other: &dyn Any = other;
        other.downcast_ref::<K>().is_some_and(|other| self == other)
    }
}

pub(crate) fn group<R, K: Hash + Eq + Send + Sync + 'static>(
    key: impl Fn(&R) -> K + Send + Sync + 'static,
) -> Group<R> {
    let hasher = RandomState::new(); // seeded, as keys come from outside
    Box::new(move |request| {
        let key = key(request);
        (hasher.hash_one(&key), Arc::new(key))
    })
}
