//! A layer below memory: a map that takes its time and fails at times.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use swiftwater_cache::{Layer, LayerError, LayerKey};
use swiftwater_core::{Observe, Visitor};
use tokio::task::yield_now;

use crate::cache_oracle::source::{Broken, Source};

pub struct Shelf {
    name: &'static str,
    source: Arc<Source>,
    map: Mutex<HashMap<LayerKey, Bytes>>,
}

impl Shelf {
    pub fn new(name: &'static str, source: &Arc<Source>) -> Self {
        Self { name, source: source.clone(), map: Mutex::default() }
    }

    /// Some time passes, and it may fail.
    async fn work(&self) -> Result<(), LayerError> {
        let mut dice = self.source.dice();
        for _ in 0..dice.u8(..4) {
            yield_now().await;
        }
        if dice.u8(..32) == 0 { Err(Broken.into()) } else { Ok(()) }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<LayerKey, Bytes>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Layer for Shelf {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn get(&self, key: &LayerKey) -> Result<Option<Bytes>, LayerError> {
        self.work().await?;
        let found = self.map().get(key).cloned();
        self.work().await?;
        Ok(found)
    }

    async fn get_many(&self, keys: &[LayerKey]) -> Result<Vec<Option<Bytes>>, LayerError> {
        self.work().await?;
        Ok(keys.iter().map(|key| self.map().get(key).cloned()).collect())
    }

    async fn put(&self, key: &LayerKey, value: Bytes, _: Option<Duration>) -> Result<(), LayerError> {
        self.work().await?;
        self.map().insert(key.clone(), value);
        self.work().await
    }

    async fn remove(&self, key: &LayerKey) -> Result<(), LayerError> {
        self.work().await?;
        self.map().remove(key);
        Ok(())
    }

    async fn close(&self) -> Result<(), LayerError> {
        Ok(())
    }
}

impl Observe for Shelf {
    fn observe(&self, _: &mut dyn Visitor) {}
}
