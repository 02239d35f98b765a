//! A price list that is made of products, categories and tariffs: what a page is made of is known by itself, whoever changes
//! something says only what, and no page shows the past afterwards, unless it was asked to be gentle.
//!
//! `cargo run --release --example dependencies` (needs no server, ends at once)

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use swiftwater_cache::{AnyError, Cache, Cause, Hit, LoadError, Region, Verdict, dep};
use swiftwater_core::{BuildError, Clock};
use tokio::task::yield_now;

/// Stands for a database: products with a net price, and the per cent that a tariff adds.
#[derive(Default)]
struct Database(Mutex<HashMap<(&'static str, u64), u64>>);

impl Database {
    async fn read(&self, table: &'static str, id: u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(table, id)).copied().unwrap_or(100)
    }

    async fn write(&self, table: &'static str, id: u64, value: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((table, id), value);
    }
}

#[derive(Clone)]
struct Shop {
    database: Arc<Database>,
    tariffs: Region<u64, u64>,
    prices: Region<u64, u64>,
    pages: Region<u64, String>,
}

impl Shop {
    fn new(cache: &Cache) -> Result<Self, BuildError> {
        Ok(Self {
            database: Arc::default(),
            tariffs: cache.region("tariffs").build()?,
            prices: cache.region("prices").build()?,
            pages: cache.region("pages").build()?,
        })
    }

    async fn tariff(&self, id: u64) -> Result<Hit<u64>, LoadError<AnyError>> {
        let database = self.database.clone();
        let load = self.tariffs.get_or_load(&id, async move |cx| {
            cx.depends_on(dep!("tariff", id));
            Ok(database.read("tariff", id).await)
        });
        load.await
    }

    /// Depends on its product, and on the tariff, since it is read on the way.
    async fn price(&self, product: u64) -> Result<Hit<u64>, LoadError<AnyError>> {
        let shop = self.clone();
        let load = self.prices.get_or_load(&product, async move |cx| {
            cx.depends_on(dep!("product", product));
            let net = shop.database.read("product", product).await;
            Ok(net + net * *shop.tariff(product % 2).await? / 100)
        });
        load.await
    }

    /// Depends on all that these prices do, and needs not know on what.
    async fn page(&self, number: u64) -> Result<Hit<String>, LoadError<AnyError>> {
        let shop = self.clone();
        let load = self.pages.get_or_load(&number, async move |_| {
            let (first, second) = (shop.price(2 * number).await?, shop.price(2 * number + 1).await?);
            Ok(format!("{first} {second}"))
        });
        load.await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (clock, hand) = Clock::manual(); // so that a minute passes at once: a service leaves it at the default
    let cache = Cache::builder().clock(clock).build()?;
    let shop = Shop::new(&cache)?;
    let (database, prices) = (&shop.database, &shop.prices);
    for product in [2, 3] {
        cache.link(dep!("product", product), dep!("category", 7))?;
    }
    assert_eq!(*shop.page(1).await?, "200 200");
    assert_eq!(*shop.page(2).await?, "200 200");

    // Whatever becomes of the write: an error, a panic, a client that goes away.
    cache.writing([dep!("tariff", 0)], database.write("tariff", 0, 19)).await;
    assert_eq!(*shop.page(1).await?, "119 200");
    let verdict = prices.explain(&4).verdict;
    assert_eq!(verdict, Verdict::Invalidated(Cause::Dependency(dep!("tariff", 0))));
    assert!(prices.get(&3).is_some());
    println!("tariff 0 has changed; price 4 is {verdict:?}, price 3 is {:?}", prices.explain(&3).verdict);

    cache.invalidate(dep!("category", 7)); // no loader has named it
    assert!(prices.get(&2).is_none() && prices.get(&3).is_none() && shop.pages.get(&1).is_none());
    assert_eq!(*shop.page(1).await?, "119 200");
    let cycle = cache.link(dep!("category", 7), dep!("product", 2)).unwrap_err();
    println!("category 7 has changed, and with it prices 2 and 3 and their page; {cycle}");

    database.write("product", 2, 1000).await;
    cache.invalidate(dep!("product", 2).soft());
    let old = shop.price(2).await?;
    assert!(old.is_stale() && *old == 119);
    while prices.get(&2).is_none() {
        yield_now().await; // it is loaded in the background
    }
    println!("product 2 has changed, softly: {old} at once, {} soon after", *shop.price(2).await?);
    assert_eq!(*shop.price(2).await?, 1190);

    let odd = || (0..500).map(|n| 2 * n + 1);
    for product in odd() {
        shop.price(product).await?;
    }
    database.write("tariff", 1, 50).await;
    cache.invalidate(dep!("tariff", 1).gradual(Duration::from_secs(60)));
    let left = || odd().filter(|product| prices.get(product).is_some()).count();
    let before = left();
    hand.advance(Duration::from_secs(30));
    let halfway = left();
    hand.advance(Duration::from_secs(30));
    assert!(before == 500 && (200..300).contains(&halfway) && left() == 0);
    println!("tariff 1 has changed, gradually: {halfway} of {before} prices are left after half of the time");
    Ok(())
}
