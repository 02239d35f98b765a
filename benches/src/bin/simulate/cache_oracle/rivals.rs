//! Other caches, as their authors would have them used: a loading call, and a removal by key for everything that a row is a
//! part of. Questions are made of those of the level below, as with ours.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use fastrand::Rng;

use crate::cache_oracle::{
    chaos::{Answer, Mark, Subject},
    source::{LEVELS, Promise, Question, Source},
};

type Versions = Arc<[u64]>;

/// A cache that loads.
pub trait Loads: Send + Sync + 'static {
    fn build() -> Self;
    fn get(
        &self,
        question: Question,
        load: impl Future<Output = Versions> + Send + 'static,
    ) -> impl Future<Output = Versions> + Send;
    fn remove(&self, question: Question) -> impl Future<Output = ()> + Send;
}

pub struct Rival<L>(Arc<World<L>>);

struct World<L> {
    cache: L,
    source: Arc<Source>,
    /// For each row what is made of it, the lowest level first.
    index: Vec<Vec<Question>>,
}

impl<L: Loads> Rival<L> {
    pub fn new(source: &Arc<Source>) -> Self {
        let rows = source.rows();
        let made_of = |row| {
            Question::all(LEVELS, rows)
                .filter(move |question| question.rows(rows).any(|of| of == row))
                .collect()
        };
        let index = (0..rows).map(made_of).collect();
        Self(Arc::new(World { cache: L::build(), source: source.clone(), index }))
    }
}

impl<L: Loads> World<L> {
    async fn get(self: &Arc<Self>, question: Question) -> Versions {
        self.cache.get(question, self.clone().load(question)).await
    }

    fn load(self: Arc<Self>, question: Question) -> Pin<Box<dyn Future<Output = Versions> + Send>> {
        Box::pin(async move {
            let mut rng = self.source.rng();
            if question.level == 0 {
                return [self.source.read(question.key, &mut rng).await.expect("the weather is fair")].into();
            }
            let mut versions = Vec::new();
            for part in question.parts(self.source.rows()) {
                versions.extend_from_slice(&self.get(part).await);
            }
            versions.into()
        })
    }
}

impl<L: Loads> Subject for Rival<L> {
    async fn ask(&self, question: Question, _: &mut Rng) -> Option<Answer> {
        Some(Answer::new(&self.0.get(question).await, Mark::Fresh))
    }

    async fn change(&self, row: usize, _: &mut Rng) -> Option<Promise> {
        let version = self.0.source.write(row);
        for question in &self.0.index[row] {
            self.0.cache.remove(*question).await;
        }
        Some(Promise::strict(version))
    }
}

pub struct Moka(moka::future::Cache<Question, Versions>);

impl Loads for Moka {
    fn build() -> Self {
        Self(moka::future::Cache::new(CAPACITY))
    }

    async fn get(
        &self,
        question: Question,
        load: impl Future<Output = Versions> + Send + 'static,
    ) -> Versions {
        self.0.get_with(question, load).await
    }

    async fn remove(&self, question: Question) {
        self.0.invalidate(&question).await;
    }
}

pub struct Quick(quick_cache::sync::Cache<Question, Versions>);

impl Loads for Quick {
    fn build() -> Self {
        Self(quick_cache::sync::Cache::new(CAPACITY as usize))
    }

    async fn get(
        &self,
        question: Question,
        load: impl Future<Output = Versions> + Send + 'static,
    ) -> Versions {
        let load = async { Ok::<_, Infallible>(load.await) };
        match self.0.get_or_insert_async(&question, load).await {
            Ok(versions) => versions,
            Err(never) => match never {},
        }
    }

    async fn remove(&self, question: Question) {
        self.0.remove(&question);
    }
}

pub struct Foyer(foyer_memory::Cache<Question, Versions>);

impl Loads for Foyer {
    fn build() -> Self {
        Self(foyer_memory::CacheBuilder::new(CAPACITY as usize).build())
    }

    async fn get(
        &self,
        question: Question,
        load: impl Future<Output = Versions> + Send + 'static,
    ) -> Versions {
        let fetch = move || async move { Ok::<_, std::io::Error>(load.await) };
        self.0.get_or_fetch(&question, fetch).await.expect("it loads").value().clone()
    }

    async fn remove(&self, question: Question) {
        self.0.remove(&question);
    }
}

const CAPACITY: u64 = 10_000;
