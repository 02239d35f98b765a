//! What the model checker replaces: std's in every build that is shipped.

#[cfg(not(all(test, swiftwater_loom)))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard, OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

#[cfg(all(test, swiftwater_loom))]
pub(crate) use self::model::OnceLock;
#[cfg(all(test, swiftwater_loom))]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Adds to a count that only the calling thread writes: a load and a store, for what a plain addition costs.
// Relaxed: nothing is published through a count.
#[cfg(not(all(test, swiftwater_loom)))]
#[inline]
pub(crate) fn add_alone(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// In one step, because the checker overlooks a reader between a thread's load and its store of the same word.
#[cfg(all(test, swiftwater_loom))]
pub(crate) fn add_alone(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

/// loom has no `OnceLock`: this one shows the checker what std's promises and no more, so that a model sees threads that
/// have not heard of the value yet.
#[cfg(all(test, swiftwater_loom))]
mod model {
    use loom::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };

    pub(crate) struct OnceLock<T> {
        ready: AtomicBool,
        setting: Mutex<()>,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self { ready: AtomicBool::new(false), setting: Mutex::new(()), value: std::sync::OnceLock::new() }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.ready.load(Ordering::Acquire) { self.value.get() } else { None }
        }

        pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
            if let Some(value) = self.get() {
                return value;
            }
            let _setting = self.setting.lock().expect("no model panics in here");
            // Nothing in `make` touches the checker's scheduler, so std's own lock is never waited for.
            let value = self.value.get_or_init(make);
            self.ready.store(true, Ordering::Release);
            value
        }
    }

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            Self::new()
        }
    }
}
