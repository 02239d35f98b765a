//! What the model checker replaces: std's in every build that is shipped.

#[cfg(not(all(test, swiftwater_loom)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

#[cfg(all(test, swiftwater_loom))]
pub(crate) use self::model::OnceLock;
#[cfg(all(test, swiftwater_loom))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Adds to a count that only the calling thread writes: a load and a store, for what a plain addition costs.
#[cfg(not(all(test, swiftwater_loom)))]
#[inline(always)]
pub(crate) fn add_alone(count: &AtomicU64, more: u64, order: Ordering) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(more), order);
}

/// In one step, because the checker overlooks a reader between a thread's load and its store of the same word. That there is
/// one writer is what [`Alone`] checks.
#[cfg(all(test, swiftwater_loom))]
pub(crate) fn add_alone(count: &AtomicU64, more: u64, order: Ordering) {
    count.fetch_add(more, order);
}

/// What only one thread at a time may write: the model checker sees to it, and nothing is shipped.
#[cfg(not(all(test, swiftwater_loom)))]
pub(crate) struct Alone;

#[cfg(not(all(test, swiftwater_loom)))]
impl Alone {
    pub(crate) fn new() -> Self {
        Self
    }

    #[inline(always)]
    pub(crate) fn write(&self) {}
}

#[cfg(all(test, swiftwater_loom))]
pub(crate) struct Alone(AtomicU32);

#[cfg(all(test, swiftwater_loom))]
impl Alone {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(crate) fn write(&self) {
        assert_eq!(self.0.swap(1, Ordering::Relaxed), 0, "two threads write to one stripe");
        self.0.store(0, Ordering::Relaxed);
    }
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
}
