//! Where async contestants run.

use tokio::runtime::{Builder, Runtime};

/// Two workers, each on a processor of its own. (Left alone, the kernel at times keeps both on one.)
#[cfg(any(feature = "batch", feature = "cache", feature = "pool"))]
pub fn two_workers() -> Runtime {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    let next = AtomicUsize::new(0);
    let pinned = move || swiftwater_benches::pin(next.fetch_add(1, Relaxed));
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .on_thread_start(pinned)
        .build()
        .expect("a runtime")
}

/// On the thread that blocks on it.
#[cfg(any(feature = "breaker", feature = "cache", feature = "compress", feature = "pool"))]
pub fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}
