//! One way to a slow backend, composed by hand: a cache in front, which asks once for what many want; a batcher, so that
//! what is asked meanwhile travels together; a breaker and a time-out around every trip.
//!
//! `cargo run --release --example pipeline` (needs no server, ends within a second)

use std::{
    collections::HashMap,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use swiftwater_batch::Batcher;
use swiftwater_breaker::{Breaker, consecutive};
use swiftwater_cache::{AnyError, Cache, LoadError, Region, dep};
use tokio::{task::JoinSet, time};

/// Stands for a service far away: a trip takes it 20 ms, whatever it is asked for, or for ever.
#[derive(Default)]
struct Backend {
    trips: AtomicUsize,
    hangs: AtomicBool,
}

impl Backend {
    async fn prices(&self, products: &[u64]) -> HashMap<u64, u64> {
        self.trips.fetch_add(1, Relaxed);
        let hangs = self.hangs.load(Relaxed);
        time::sleep(if hangs { Duration::MAX } else { Duration::from_millis(20) }).await;
        products.iter().map(|product| (*product, 100 * product)).collect()
    }
}

/// The way itself. Each part is useful alone and knows nothing of the others.
#[derive(Clone)]
struct Prices {
    known: Region<u64, u64>,
    lookups: Batcher<u64, u64, Arc<swiftwater_breaker::CallError<time::error::Elapsed>>>,
}

impl Prices {
    fn new(cache: &Cache, backend: Arc<Backend>) -> Result<Self, swiftwater_core::BuildError> {
        let breaker = Breaker::builder().trip_when(consecutive(3)).build()?;
        let trip = move |products: Vec<u64>| {
            let (breaker, backend) = (breaker.clone(), backend.clone());
            async move {
                let limit = Duration::from_millis(100);
                let found = breaker.call(|| time::timeout(limit, backend.prices(&products))).await?;
                Ok(products.iter().map(|product| found[product]).collect())
            }
        };
        let lookups = Batcher::builder(trip).max_items(100).deadline(Duration::from_millis(500)).build()?;
        Ok(Self { known: cache.region("prices").build()?, lookups })
    }

    async fn of(&self, product: u64) -> Result<u64, LoadError<AnyError>> {
        let lookups = &self.lookups;
        let found = self.known.get_or_load(&product, |cx| {
            cx.depends_on(dep!("product", product));
            let answer = lookups.call(product);
            async move { Ok(answer.await?) }
        });
        Ok(*found.await?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (cache, backend) = (Cache::builder().build()?, Arc::new(Backend::default()));
    let prices = Prices::new(&cache, backend.clone())?;
    let trips = || backend.trips.swap(0, Relaxed);

    let ask = |n: u64| {
        let prices = prices.clone();
        async move { prices.of(n % 50).await }
    };
    let answers = (0..1000).map(ask).collect::<JoinSet<_>>().join_all().await;
    assert!(answers.iter().all(Result::is_ok));
    println!("1000 questions about 50 products; trips to the backend: {}", trips());

    cache.invalidate(dep!("product", 7)).await;
    assert_eq!((prices.of(7).await?, prices.of(8).await?), (700, 800));
    assert_eq!(trips(), 1);
    println!("product 7 has changed: one trip for it, none for product 8");

    backend.hangs.store(true, Relaxed);
    for product in 100..110 {
        let error = prices.of(product).await.unwrap_err();
        let causes = std::iter::successors(error.source(), |&error| error.source());
        println!("product {product}: {}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
    }
    assert_eq!(prices.of(8).await?, 800);
    assert_eq!(trips(), 3);
    println!("the backend hangs: three trips, then none, and what is known is still answered");
    Ok(())
}
