//! Regions of one cache, each with types, errors and lifetimes of its own. What is not there is remembered for a while; what
//! has expired is served while it is loaded anew, and for longer while the source is down; a switch takes a region away.
//!
//! `cargo run --release --example regions` (needs no server, ends at once)

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use swiftwater_cache::{AnyError, Cache, Hit, LoadError, Region, dep};
use swiftwater_core::{BuildError, Clock};
use tokio::task::yield_now;

/// Stands for a database. Without products it is down.
#[derive(Default)]
struct Database {
    products: AtomicU64,
    queries: AtomicU32,
}

impl Database {
    async fn product(&self, id: u64) -> io::Result<Option<String>> {
        self.queries.fetch_add(1, Relaxed);
        match self.products.load(Relaxed) {
            0 => Err(io::ErrorKind::ConnectionRefused.into()),
            products => Ok((id < products).then(|| format!("product {id}"))),
        }
    }
}

#[derive(Clone)]
struct Shop {
    database: Arc<Database>,
    /// `None`: there is no such product. Its loads fail with an error that callers can match.
    products: Region<u64, Option<String>, io::Error>,
    /// Its loads fail with anything.
    settings: Region<String, u32>,
}

impl Shop {
    fn new(cache: &Cache, database: Arc<Database>) -> Result<Self, BuildError> {
        let secs = Duration::from_secs;
        let products = cache
            .region("products")
            .error()
            .ttl(secs(60))
            .negative(secs(5), Option::is_none) // it may be added any moment
            .stale_for(secs(10)) // nobody waits for what is in demand
            .fail_safe(secs(3600), secs(5)) // an hour old is better than nothing; a try every five seconds is enough
            .build()?;
        let settings = cache.region("settings").memory(100).build()?;
        Ok(Self { database, products, settings })
    }

    async fn product(&self, id: u64) -> Result<Hit<Option<String>>, LoadError<io::Error>> {
        let load = |database: Arc<Database>| async move { database.product(id).await };
        let load = self.products.get_or_load(&id, |cx| {
            cx.depends_on(dep!("product", id));
            load(self.database.clone()) // nothing is cloned on a hit
        });
        load.await
    }

    async fn setting(&self, name: &str) -> Result<u32, LoadError<AnyError>> {
        let load = self.settings.get_or_load(name, async |cx| {
            let text = std::env::var(cx.key())?; // errors of two kinds
            Ok(text.parse()?)
        });
        Ok(*load.await?)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (clock, hand) = Clock::manual(); // so that an hour passes at once: a service leaves it at the default
    let cache = Cache::builder().clock(clock).build()?;
    let shop = Shop::new(&cache, Arc::default())?;
    let pass = |secs| hand.advance(Duration::from_secs(secs));
    let queries = || shop.database.queries.swap(0, Relaxed);
    shop.database.products.store(100, Relaxed);

    for _ in 0..3 {
        assert_eq!(shop.product(7).await?.as_deref(), Some("product 7"));
        assert!(shop.product(100).await?.is_none());
    }
    println!("six questions about a product that is there and one that is not: {} queries", queries());

    shop.database.products.store(101, Relaxed);
    pass(20);
    assert!(shop.product(100).await?.is_some() && shop.product(7).await?.is_some());
    println!("20 s later only the one that was not there is asked for again: {} query", queries());

    pass(45);
    assert!(shop.product(7).await?.is_stale());
    while shop.products.get(&7).is_none() {
        yield_now().await; // it is loaded in the background
    }
    assert!(!shop.product(7).await?.is_stale());
    println!("expired: served all the same, and loaded meanwhile: {} query", queries());

    shop.database.products.store(0, Relaxed);
    pass(1800);
    for _ in 0..10 {
        assert!(shop.product(7).await?.is_stale());
    }
    println!("the database is down for half an hour: ten answers, {} query", queries());
    let error = shop.product(8).await.unwrap_err();
    assert_eq!(error.loader().map(io::Error::kind), Some(io::ErrorKind::ConnectionRefused));
    cache.invalidate(dep!("product", 7)); // what is known to be wrong is never served
    assert!(matches!(shop.product(7).await, Err(LoadError::Loader(_))));

    let error = shop.setting("no such setting").await.unwrap_err();
    let cause = error.loader().and_then(AnyError::downcast_ref);
    assert!(matches!(cause, Some(std::env::VarError::NotPresent)));
    println!("{error}: {}", error.source().ok_or("it has a cause")?);

    shop.database.products.store(101, Relaxed);
    queries();
    shop.products.set_enabled(false);
    for _ in 0..3 {
        assert!(shop.products.get(&100).is_none() && shop.product(100).await?.is_some());
    }
    println!("switched off: three questions, {} queries", queries());
    shop.products.set_enabled(true);
    Ok(())
}
