//! A cache that outlives its process: values in files below memory, and beside them what has been invalidated. A restart finds
//! what it may believe and loads the rest; after a crash nobody can know what was invalidated, and everything is loaded.
//!
//! `cargo run --release --example disk` (needs no server, ends within a second)

use std::{
    error::Error,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use swiftwater_cache::{AnyError, Cache, Disk, LoadError, Region, Tier, dep};

#[derive(Serialize, Deserialize)]
struct Price {
    cents: u64,
    currency: String,
}

struct Shop {
    cache: Cache,
    prices: Region<u64, Price>,
    loads: Arc<AtomicU32>,
}

impl Shop {
    /// One life of a service. Blocks on the disk, so before it serves.
    fn open(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let cache = Cache::builder().persist(directory.join("versions")).build()?;
        let disk = Disk::builder(directory.join("prices")).capacity(64 << 20).build()?;
        let prices = cache
            .region("prices")
            .memory(100) // the hot ones
            .schema(1) // raised when a value means something else; a type of another shape is noticed without
            .layer(Tier::new(disk).timeout(Duration::from_secs(1))) // how long a `get` waits for a slow device
            .build()?;
        Ok(Self { cache, prices, loads: Arc::default() })
    }

    async fn price(&self, product: u64) -> Result<u64, LoadError<AnyError>> {
        let loads = self.loads.clone();
        let load = self.prices.get_or_load(&product, async move |cx| {
            cx.depends_on(dep!("product", product));
            loads.fetch_add(1, Relaxed);
            Ok(Price { cents: 100 * product, currency: "EUR".to_owned() })
        });
        Ok(load.await?.cents)
    }

    /// Asks for 1,000 prices, and says how many were loaded for it.
    async fn ask_for_all(&self) -> Result<u32, LoadError<AnyError>> {
        for product in 0..1000 {
            assert_eq!(self.price(product).await?, 100 * product);
        }
        Ok(self.loads.swap(0, Relaxed))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(directory) = std::env::args_os().nth(1) {
        return crash(directory.as_ref()).await;
    }
    let directory = tempfile::tempdir()?;
    let directory = directory.path();

    let shop = Shop::open(directory)?;
    println!("first start: {} loads", shop.ask_for_all().await?);
    shop.cache.invalidate(dep!("product", 7));
    shop.cache.close().await?; // the last thing that a service does
    drop(shop);

    let shop = Shop::open(directory)?;
    let loads = shop.ask_for_all().await?;
    println!("second start: {loads} load, of what was invalidated in the first life");
    assert_eq!(loads, 1);
    shop.cache.close().await?;
    drop(shop);

    let crashed = Command::new(std::env::current_exe()?).arg(directory).status()?;
    assert_eq!(crashed.code(), Some(7));
    let shop = Shop::open(directory)?;
    let loads = shop.ask_for_all().await?;
    println!("after a crash: {loads} loads, since nobody knows what was invalidated before it");
    assert_eq!(loads, 1000);
    shop.cache.close().await?;
    Ok(())
}

/// A life that ends before the cache is closed.
async fn crash(directory: &Path) -> Result<(), Box<dyn Error>> {
    let shop = Shop::open(directory)?;
    assert_eq!(shop.ask_for_all().await?, 0);
    shop.cache.invalidate(dep!("product", 8));
    std::process::exit(7);
}
