//! What several test files need.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use swiftwater_cache::{Cache, Region};
use swiftwater_core::{Clock, Desc, Hand, Observe, Visitor};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{JoinHandle, yield_now},
};

pub(crate) fn cache() -> Cache {
    Cache::builder().build().expect("the defaults are valid")
}

/// A cache whose clock moves by hand.
pub(crate) fn manual() -> (Cache, Hand) {
    let (clock, hand) = Clock::manual();
    (Cache::builder().clock(clock).build().expect("the defaults are valid"), hand)
}

pub(crate) fn region<V: Send + Sync + 'static>(cache: &Cache, name: &'static str) -> Region<u64, V> {
    cache.region(name).build().expect("the defaults are valid")
}

/// A task of the test's runtime.
pub(crate) fn spawn<F: Future<Output: Send> + Send + 'static>(task: F) -> JoinHandle<F::Output> {
    Handle::current().spawn(task)
}

/// Lets every other task of a current-thread runtime run until all of them wait.
pub(crate) async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

/// Counters and gauges by name; those of a part as `part/name`.
pub(crate) fn readings(observed: &dyn Observe) -> HashMap<String, f64> {
    #[derive(Default)]
    struct Readings {
        path: Vec<String>,
        values: HashMap<String, f64>,
    }
    impl Readings {
        fn put(&mut self, desc: &Desc, value: f64) {
            let mut name: String = self.path.iter().flat_map(|part| [part.as_str(), "/"]).collect();
            name.push_str(desc.name);
            self.values.insert(name, value);
        }
    }
    impl Visitor for Readings {
        fn counter(&mut self, desc: &'static Desc, value: u64) {
            self.put(desc, value as f64);
        }
        fn gauge(&mut self, desc: &'static Desc, value: f64) {
            self.put(desc, value);
        }
        fn part(&mut self, _: &'static str, name: &dyn fmt::Display, inner: &dyn Observe) {
            self.path.push(name.to_string());
            inner.observe(self);
            self.path.pop();
        }
    }
    let mut readings = Readings::default();
    observed.observe(&mut readings);
    readings.values
}

/// Loaders that wait until the test lets them go, each with the value that the test then gives.
pub(crate) struct Gates<V>(Arc<Mutex<Vec<Gate<V>>>>);

struct Gate<V> {
    key: u64,
    open: oneshot::Sender<V>,
}

impl<V> Clone for Gates<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> Gates<V> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// To be called by a loader: waits for `open`. Whoever called `open` is gone: never.
    pub(crate) async fn pass(&self, key: u64) -> V {
        let (open, opened) = oneshot::channel();
        self.gates().push(Gate { key, open });
        match opened.await {
            Ok(value) => value,
            Err(_) => std::future::pending().await,
        }
    }

    /// How many loaders wait.
    pub(crate) fn waiting(&self) -> usize {
        self.gates().len()
    }

    /// The keys that are being loaded, in the order in which their loaders started.
    pub(crate) fn keys(&self) -> Vec<u64> {
        self.gates().iter().map(|gate| gate.key).collect()
    }

    /// Lets the loader that has waited longest go on.
    pub(crate) fn open(&self, value: V) {
        let gate = self.gates().remove(0);
        assert!(gate.open.send(value).is_ok(), "the load of {} is gone", gate.key);
    }

    /// Forgets the loaders that are gone.
    pub(crate) fn forget(&self) {
        self.gates().clear();
    }

    fn gates(&self) -> MutexGuard<'_, Vec<Gate<V>>> {
        self.0.lock().expect("no holder panics")
    }
}
