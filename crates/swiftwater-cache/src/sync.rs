//! What the model checkers replace: std's and tokio's in every build that is shipped.

#[cfg(all(test, swiftwater_loom))]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(all(test, swiftwater_shuttle))]
pub(crate) use shuttle::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread_local,
};
#[cfg(not(all(test, any(swiftwater_loom, swiftwater_shuttle))))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, swiftwater_shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};
#[cfg(not(all(test, swiftwater_shuttle)))]
pub(crate) use tokio::runtime::Handle;

#[cfg(all(test, swiftwater_shuttle))]
pub(crate) use self::shuttled::{Handle, LocalCell, OnceLock};

/// What shuttle lacks.
#[cfg(all(test, swiftwater_shuttle))]
mod shuttled {
    use std::{cell::Cell, future::Future, mem, sync};

    use shuttle::{future, sync::atomic, thread::LocalKey};

    /// In place of a runtime's: its tasks are the model's, and are to come to an end like the others.
    pub(crate) struct Handle;

    pub(crate) struct Spawned;

    impl Handle {
        pub(crate) fn try_current() -> Result<Self, ()> {
            Ok(Self)
        }

        pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Spawned {
            // Dropped, the handle would let the model end before the task, and call no deadlock what leaves it hanging.
            mem::forget(future::spawn(task));
            Spawned
        }
    }

    /// Others may run before each step.
    #[derive(Default)]
    pub(crate) struct OnceLock<T> {
        inner: sync::OnceLock<T>,
        step: atomic::AtomicBool,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self { inner: sync::OnceLock::new(), step: atomic::AtomicBool::new(false) }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            self.step.load(atomic::Ordering::SeqCst);
            self.inner.get()
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.step.load(atomic::Ordering::SeqCst);
            self.inner.set(value)
        }

        pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
            self.step.load(atomic::Ordering::SeqCst);
            self.inner.get_or_init(make)
        }
    }

    /// As std's keys of cells have it.
    pub(crate) trait LocalCell<T> {
        fn get(&'static self) -> T;
        fn set(&'static self, value: T);
    }

    impl<T: Copy> LocalCell<T> for LocalKey<Cell<T>> {
        fn get(&'static self) -> T {
            self.with(Cell::get)
        }

        fn set(&'static self, value: T) {
            self.with(|cell| cell.set(value));
        }
    }
}
