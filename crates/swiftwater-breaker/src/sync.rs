//! What the model checker replaces: std's in every build that is shipped.

#[cfg(not(all(test, swiftwater_loom)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, OnceLock,
    atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

#[cfg(all(test, swiftwater_loom))]
pub(crate) use self::model::OnceLock;
#[cfg(all(test, swiftwater_loom))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

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
