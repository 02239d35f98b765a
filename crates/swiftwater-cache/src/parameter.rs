//! A value that others are made of, and that changes by being set.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    cache::Cache,
    dep::Dep,
    scope::{Readers, Scope},
};

/// A value in this process that entries are made of, such as a rate, a feature flag or a loaded configuration: whoever reads it
/// in a loader depends on it, and setting it to another value invalidates them. Made by [`Cache::parameter`]. A cheap
/// handle; clones are the same parameter.
pub struct Parameter<T>(Arc<Inner<T>>);

struct Inner<T> {
    cache: Cache,
    dep: Dep,
    value: RwLock<T>,
}

impl<T: Clone + PartialEq> Parameter<T> {
    pub(crate) fn new(cache: Cache, dep: Dep, value: T) -> Self {
        Self(Arc::new(Inner { cache, dep, value: RwLock::new(value) }))
    }

    /// The value. Called while a loader of the same cache is being polled, it makes that load depend on the parameter.
    #[must_use]
    pub fn get(&self) -> T {
        self.read(&Readers::here(None))
    }

    /// The value, on behalf of a load whose work has been handed to another task or thread.
    #[must_use]
    pub fn get_within(&self, scope: &Scope) -> T {
        self.read(&Readers::here(Some(scope)))
    }

    fn read(&self, readers: &Readers) -> T {
        let Inner { cache, dep, value } = &*self.0;
        readers.of(cache.shared().id()).for_each(|reader| reader.depends_on(*dep));
        // A panic in the user's `clone` or `eq` leaves a whole value.
        value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the value, and says whether it was another one; then what was made of that one is invalidated, strictly, before
    /// this returns.
    pub fn set(&self, value: T) -> bool {
        let mut current = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
        if *current == value {
            return false;
        }
        let old = std::mem::replace(&mut *current, value);
        // After the value is there: a load that has read the old one began before this. Under the lock: whoever sets the same
        // value now returns after this as well.
        let _reached = self.0.cache.invalidate(self.0.dep);
        drop(current);
        drop(old);
        true
    }
}

impl<T> Parameter<T> {
    /// What depends on it: the dependency of its name.
    #[must_use]
    pub fn dep(&self) -> Dep {
        self.0.dep
    }
}

impl<T> Clone for Parameter<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Parameter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameter").field("dep", &self.0.dep).field("value", &self.0.value).finish()
    }
}
