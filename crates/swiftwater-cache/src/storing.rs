//! Values that the callers write to the source by way of the region.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use crate::{
    behind::{Line, Refused, runtime},
    cache::CloseError,
    engine::Engine,
    entry::{Entry, Held, Hit, Times},
    scope::{NEVER, Scope},
    sink::{AnySink, Failure, Mode, StoreError, call},
    stamps::Stamp,
};

/// Where the writes of a region go.
pub(crate) struct Outlet<K, V, E> {
    pub(crate) sink: Box<dyn AnySink<K, V, E>>,
    way: Way<K, V, E>,
    closed: AtomicBool,
}

enum Way<K, V, E> {
    Around,
    /// Boxed, since other regions have none.
    Behind(Box<Line<K, V, E>>),
    Through,
}

impl<K: Hash + Eq, V, E> Outlet<K, V, E> {
    pub(crate) fn new(sink: Box<dyn AnySink<K, V, E>>, mode: Mode) -> Self {
        let way = match mode {
            Mode::Around => Way::Around,
            Mode::Behind(limits) => Way::Behind(Box::new(Line::new(limits))),
            Mode::Through => Way::Through,
        };
        Self { sink, way, closed: AtomicBool::new(false) }
    }
}

impl<K, V, E> Outlet<K, V, E> {
    /// Where writes wait, if they do.
    pub(crate) fn line(&self) -> Option<&Line<K, V, E>> {
        match &self.way {
            Way::Behind(line) => Some(line),
            Way::Around | Way::Through => None,
        }
    }
}

/// A write on its way. On every way out its key is invalidated, or has the value that was written.
struct Storing<'a, K: Hash + Eq, V, E> {
    engine: &'a Engine<K, V, E>,
    /// `None` once it has ended.
    key: Option<K>,
}

impl<'a, K: Hash + Eq + Clone, V, E> Storing<'a, K, V, E> {
    fn begin(engine: &'a Engine<K, V, E>, key: &K) -> Self {
        let (key, noted) = (key.clone(), key.clone());
        engine.begin_store(noted);
        Self { engine, key: Some(key) }
    }

    fn keep(mut self, entry: Held<V>, stamp: Stamp) {
        let spare = self.key.as_ref().and_then(|key| self.engine.spare(key));
        if let Some(key) = self.key.take() {
            self.engine.end_store_with((key, spare), entry, stamp);
        }
    }
}

impl<K: Hash + Eq, V, E> Drop for Storing<'_, K, V, E> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.engine.end_store(&key);
        }
    }
}

impl<K, V, E> Engine<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    pub(crate) async fn store(
        self: &Arc<Self>,
        key: K,
        value: V,
        declare: impl FnOnce(&Scope),
    ) -> Result<(), StoreError<V, E>> {
        let Some(outlet) = &self.outlet else { return Err(StoreError::NoSink(value)) };
        if outlet.closed.load(SeqCst) {
            return Err(StoreError::Closed(value));
        }
        let (entry, stamp) = match &outlet.way {
            Way::Behind(line) => return self.store_behind(outlet, line, key, value, declare),
            Way::Through => {
                // Before the sink is called: what is invalidated from here on the value may not have seen.
                let (entry, stamp) = self.make(&key, value, declare);
                (entry, Some(stamp))
            }
            Way::Around => {
                let times = Times { expires: NEVER, extra: None };
                (Entry::held(value, &[], self.cache.stamps.now(), times, 1), None)
            }
        };
        self.stats.stores.add(1);
        let storing = Storing::begin(self, &key);
        match call(&*outlet.sink, vec![(key, Hit::fresh(entry.clone()))]).await {
            Ok(()) => {
                match stamp {
                    Some(stamp) => storing.keep(entry, stamp),
                    None => drop(storing),
                }
                Ok(())
            }
            Err(failure) => {
                self.stats.store_failures.add(1);
                drop(storing);
                Err(match failure {
                    Failure::Panicked => StoreError::Panicked,
                    Failure::Sink(error) => StoreError::Sink(error),
                })
            }
        }
    }

    fn store_behind(
        self: &Arc<Self>,
        outlet: &Outlet<K, V, E>,
        line: &Line<K, V, E>,
        key: K,
        value: V,
        declare: impl FnOnce(&Scope),
    ) -> Result<(), StoreError<V, E>> {
        let Some(runtime) = runtime() else { return Err(StoreError::NoRuntime(value)) };
        let (entry, stamp) = self.make(&key, value, declare);
        let keys = [key.clone(), key.clone()];
        let queue = |entry| line.push(keys, entry, &outlet.closed);
        let start = |start: bool| {
            if start {
                self.run_line(&runtime);
            }
        };
        match self.insert_queued(key, &entry, stamp, queue, start) {
            Ok(()) => {
                self.stats.stores.add(1);
                Ok(())
            }
            Err(refused) => {
                let entry = Held::try_unwrap(entry).ok().expect("it has been given to nobody");
                Err(match refused {
                    Refused::Closed => StoreError::Closed(entry.value),
                    Refused::Full => StoreError::Full(entry.value),
                })
            }
        }
    }

    /// Takes no more writes, and waits until those that are pending have arrived, or have failed once more.
    pub(crate) async fn close_writes(self: &Arc<Self>) -> Result<(), CloseError> {
        let Some(outlet) = &self.outlet else { return Ok(()) };
        outlet.closed.store(true, SeqCst);
        let Some(line) = outlet.line() else { return Ok(()) };
        if self.flush().await.is_ok() {
            return Ok(());
        }
        let keys = line.keys();
        // Layers outlive the process: they are not to serve what the source may never get.
        keys.iter().for_each(|key| self.invalidate(key));
        match keys.len() {
            0 => Ok(()),
            writes => Err(CloseError::writes(self.name, writes)),
        }
    }
}
