//! A layer in memory, which can be told to misbehave.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use swiftwater_cache::{Layer, LayerError, LayerKey};
use swiftwater_core::{Observe, Visitor};

use crate::common::settle;

/// A map that can be told to misbehave.
#[derive(Default)]
pub(crate) struct Shelf {
    name: &'static str,
    pub(crate) map: Mutex<HashMap<LayerKey, (Bytes, Option<Duration>)>>,
    mood: Mutex<Mood>,
    pub(crate) gets: AtomicU32,
    pub(crate) trips: AtomicU32,
    pub(crate) closed: AtomicBool,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Well,
    Failing,
    Hanging,
    /// It takes some turns of the runtime.
    Slow,
}

impl Shelf {
    pub(crate) fn new() -> Arc<Self> {
        Self::named("shelf")
    }

    pub(crate) fn named(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, ..Self::default() })
    }

    /// What it has outlives the one who closed it.
    pub(crate) fn reopen(&self) {
        self.closed.store(false, SeqCst);
    }

    pub(crate) fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn mood(&self) -> Result<(), LayerError> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well => Ok(()),
            Mood::Failing => Err("out of order".into()),
            Mood::Hanging => pending().await,
            Mood::Slow => {
                settle().await;
                Ok(())
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.map.lock().unwrap().len()
    }

    pub(crate) fn change(&self, change: impl Fn(&mut Vec<u8>)) {
        for (bytes, _) in self.map.lock().unwrap().values_mut() {
            let mut changed = bytes.to_vec();
            change(&mut changed);
            *bytes = changed.into();
        }
    }
}

impl Observe for Shelf {
    fn observe(&self, _: &mut dyn Visitor) {}
}

#[async_trait]
impl Layer for Shelf {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn get(&self, key: &LayerKey) -> Result<Option<Bytes>, LayerError> {
        self.gets.fetch_add(1, SeqCst);
        self.mood().await?;
        Ok(self.map.lock().unwrap().get(key).map(|(bytes, _)| bytes.clone()))
    }

    async fn get_many(&self, keys: &[LayerKey]) -> Result<Vec<Option<Bytes>>, LayerError> {
        self.trips.fetch_add(1, SeqCst);
        self.mood().await?;
        let map = self.map.lock().unwrap();
        Ok(keys.iter().map(|key| map.get(key).map(|(bytes, _)| bytes.clone())).collect())
    }

    async fn put(&self, key: &LayerKey, value: Bytes, ttl: Option<Duration>) -> Result<(), LayerError> {
        self.mood().await?;
        if self.closed.load(SeqCst) {
            return Err("closed".into());
        }
        self.map.lock().unwrap().insert(key.clone(), (value, ttl));
        Ok(())
    }

    async fn remove(&self, key: &LayerKey) -> Result<(), LayerError> {
        self.mood().await?;
        self.map.lock().unwrap().remove(key);
        Ok(())
    }

    async fn close(&self) -> Result<(), LayerError> {
        self.closed.store(true, SeqCst);
        match *self.mood.lock().unwrap() {
            Mood::Failing => Err("out of order".into()),
            _ => Ok(()),
        }
    }
}
