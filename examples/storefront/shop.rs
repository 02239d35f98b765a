//! The shop's API: product pages, recommendations and category lists that are read; prices, stock, categories and price
//! lists that are written.
//!
//! `GET /products/{id}` is answered by one of five handlers, the shop at five stages of growing up. A service of your own
//! would have the last one only. What comes later, batches and compression, is switched on.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde::Deserialize;
use swiftwater_breaker::Breaker;
use swiftwater_cache::{Cache, Dep, Hit, LoadCx, Region, dep};
use swiftwater_core::Registry;
use swiftwater_pool::bb8::Pool;
use tokio::task;

use crate::{
    advice::{self, Advice},
    broken, catalog,
    db::{Category, Connection, Manager, PriceList},
    error::ShopError,
    list::{self, Lists},
    page::{Delivery, NewCategory, NewPrice, NewPriceList, NewStock, Offer, Page, Written},
    supplier::{Quote, Supplier},
    world::World,
};

/// How far the shop has grown up. Each stage has what the ones before it have, save the misuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// A connection per request.
    Bare,
    /// Connections from a pool.
    Pooled,
    /// Pages from a cache.
    Cached,
    /// Pages from a cache that is misused: what `--break-invalidation` shows.
    Broken,
    /// Pages with a delivery quote from the supplier.
    Supplied,
    /// The supplier behind a breaker, its last known quote as a fallback.
    Guarded,
    /// Recommendations for many visitors at once.
    Batched,
    /// Lists compressed.
    Compressed,
}

pub struct Shop {
    stage: Stage,
    database: Manager,
    pool: Pool<Manager>,
    cache: Cache,
    pub pages: Region<u64, Page, ShopError>,
    categories: Region<u64, Category, ShopError>,
    price_lists: Region<u64, PriceList, ShopError>,
    quotes: Region<u64, Quote>,
    supplier: Arc<Supplier>,
    breaker: Breaker,
    pub advice: Advice,
    pub lists: Lists,
    registry: Registry,
}

impl Shop {
    pub fn open(stage: Stage, world: &World) -> Result<Arc<Self>, Box<dyn Error>> {
        // Switched off, the pool opens a connection for each write and closes it afterwards; bare reads do without it.
        let pool = Pool::builder().max_size(8).enabled(stage != Stage::Bare).build(world.database.clone())?;

        let cache = Cache::builder().build()?;
        let pages = cache.region("pages").error().memory(50_000).build()?;
        let categories = cache.region("categories").error().memory(1_000).build()?;
        let price_lists = cache.region("price_lists").error().memory(100).build()?;
        let quotes = cache.region("quotes").memory(50_000).ttl(QUOTES_KEPT).build()?;

        let breaker = Breaker::builder().build()?;
        let advice = advice::advice(world.model.clone(), stage >= Stage::Batched)?;
        let lists = Lists::new(&cache, world.documents.clone(), stage >= Stage::Compressed)?;

        let registry = Registry::new();
        registry.add("pool", "sqlite", &pool)?;
        registry.add("cache", "shop", &cache)?;
        registry.add("breaker", "supplier", &breaker)?;
        registry.add("batch", "advice", &advice)?;
        registry.add("compress", "lists", &lists.compressor)?;

        Ok(Arc::new(Self {
            stage,
            database: world.database.clone(),
            pool,
            cache,
            pages,
            categories,
            price_lists,
            quotes,
            supplier: world.supplier.clone(),
            breaker,
            advice,
            lists,
            registry,
        }))
    }

    pub fn routes(self: Arc<Self>) -> Router {
        let page = match self.stage {
            Stage::Bare => get(page_bare),
            Stage::Pooled => get(page_pooled),
            Stage::Cached => get(page_cached),
            Stage::Broken => get(broken::page),
            Stage::Supplied => get(page_supplied),
            Stage::Guarded | Stage::Batched | Stage::Compressed => get(page_guarded),
        };
        Router::new()
            .route("/products/{id}", page)
            .route("/recommendations", get(advice::recommendations))
            .route("/catalogue/{category}", get(list::category))
            .route("/documents/{number}", get(list::document))
            .route("/products/{id}/price", put(set_price))
            .route("/products/{id}/stock", put(set_stock))
            .route("/categories/{id}", put(set_category))
            .route("/price-lists/{id}", put(set_price_list))
            .route("/supplier", put(set_supplier))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

/// Stage 1: a connection per request.
async fn page_bare(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Result<Response, ShopError> {
    let database = shop.database.clone();
    let page = blocking(move || Page::read(&database.open()?, id)).await?;
    Ok(Json(page.ok_or(ShopError::NotFound)?).into_response())
}

/// Stage 2: a connection from the pool, with its prepared statements.
async fn page_pooled(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Result<Response, ShopError> {
    let page = shop.query(move |db| Page::read(db, id)).await?;
    Ok(Json(page.ok_or(ShopError::NotFound)?).into_response())
}

/// Stage 3: the page from the cache.
async fn page_cached(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Result<Response, ShopError> {
    let page = shop.page(id).await?;
    Ok(Json(&*page).into_response())
}

/// Stage 4: with a delivery quote that is asked for anew each time. The page is no better than the supplier.
async fn page_supplied(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Result<Response, ShopError> {
    let page = shop.page(id).await?;
    let delivery = Delivery::Fresh(shop.supplier.quote(id).await?);
    Ok(Json(Offer { page: &page, delivery }).into_response())
}

/// Stage 5: while the supplier fails it is left alone, and its last known quote stands in, marked as such.
async fn page_guarded(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Result<Response, ShopError> {
    let page = shop.page(id).await?;
    let delivery = match shop.breaker.call(|| shop.supplier.quote(id)).await {
        Ok(quote) => {
            shop.quotes.insert(id, quote);
            Delivery::Fresh(quote)
        }
        Err(_refused_or_failed) => match shop.quotes.get(&id) {
            Some(quote) => Delivery::LastKnown(*quote),
            None => Delivery::Unknown,
        },
    };
    Ok(Json(Offer { page: &page, delivery }).into_response())
}

impl Shop {
    /// A page, from the cache or loaded into it: once, however many ask for it meanwhile.
    pub async fn page(self: &Arc<Self>, id: u64) -> Result<Hit<Page>, ShopError> {
        let load = |cx: LoadCx<u64>| {
            let shop = self.clone();
            async move {
                cx.depends_on(dep!("product", id));
                shop.load_page(id).await
            }
        };
        Ok(self.pages.get_or_load(&id, load).await?)
    }

    /// That a page depends on its category and its price list need not be said: they are read from the cache while the
    /// page is loaded, so it inherits what they depend on.
    pub async fn load_page(self: &Arc<Self>, id: u64) -> Result<Page, ShopError> {
        let found = self.query(move |db| match db.product(id)? {
            Some(product) => Ok(Some((product, db.stock(id)?))),
            None => Ok(None),
        });
        let (product, stock) = found.await?.ok_or(ShopError::NotFound)?;
        let category = self.category(product.category).await?;
        let price_list = self.price_list(product.price_list).await?;
        Ok(Page::new(product, &stock, &category, &price_list))
    }

    /// A category's list, page by page. It inherits like a page; of the products it need not depend one by one, since who
    /// changes one says that its list has changed as well.
    pub async fn load_list(self: &Arc<Self>, category: u64) -> Result<Vec<Page>, ShopError> {
        let listed = self.query(move |db| db.listed(category)).await?;
        if listed.is_empty() {
            return Err(ShopError::NotFound);
        }
        let category = self.category(category).await?;
        let mut pages = Vec::with_capacity(listed.len());
        for (product, stock) in listed {
            let price_list = self.price_list(product.price_list).await?;
            pages.push(Page::new(product, &stock, &category, &price_list));
        }
        Ok(pages)
    }

    async fn category(self: &Arc<Self>, id: u64) -> Result<Hit<Category>, ShopError> {
        let load = |cx: LoadCx<u64>| {
            let shop = self.clone();
            async move {
                cx.depends_on(dep!("category", id));
                shop.query(move |db| db.category(id)).await
            }
        };
        Ok(self.categories.get_or_load(&id, load).await?)
    }

    async fn price_list(self: &Arc<Self>, id: u64) -> Result<Hit<PriceList>, ShopError> {
        let load = |cx: LoadCx<u64>| {
            let shop = self.clone();
            async move {
                cx.depends_on(dep!("price list", id));
                shop.query(move |db| db.price_list(id)).await
            }
        };
        Ok(self.price_lists.get_or_load(&id, load).await?)
    }

    /// Asks the database something, with a connection from the pool.
    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ShopError> {
        let mut connection = self.pool.get().await?;
        // It goes back to the pool when the closure ends, whatever has become of the request.
        blocking(move || ask(&mut connection)).await
    }

    /// Changes a row, which everything that depends on one of `changed` shows as soon as this is answered.
    async fn write<const N: usize>(
        self: Arc<Self>,
        changed: [Dep; N],
        change: impl FnOnce(&mut Connection) -> rusqlite::Result<Option<u64>> + Send + 'static,
    ) -> Result<Json<Written>, ShopError> {
        // A task of its own: a client who hangs up shall not get between the commit and the invalidation.
        let write = task::spawn(async move {
            let version = self.query(change).await;
            // After the commit, before the answer. On an error too: it may be the news of the commit that was lost.
            for changed in changed {
                self.cache.invalidate(changed).await;
            }
            version
        });
        let version = write.await??.ok_or(ShopError::NotFound)?;
        Ok(Json(Written { version }))
    }
}

/// A dependency need not be a row: a list changes with each of its products.
fn product_changed(id: u64) -> [Dep; 2] {
    [dep!("product", id), dep!("list", catalog::category_of(id))]
}

pub async fn set_price(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u64>,
    Json(new): Json<NewPrice>,
) -> Result<Json<Written>, ShopError> {
    shop.write(product_changed(id), move |db| db.set_price(id, new.cents)).await
}

/// The stock is part of the product, whatever the tables say.
pub async fn set_stock(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u64>,
    Json(new): Json<NewStock>,
) -> Result<Json<Written>, ShopError> {
    shop.write(product_changed(id), move |db| db.set_stock(id, new.units)).await
}

pub async fn set_category(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u64>,
    Json(new): Json<NewCategory>,
) -> Result<Json<Written>, ShopError> {
    shop.write([dep!("category", id)], move |db| db.set_category(id, &new.name)).await
}

pub async fn set_price_list(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u64>,
    Json(new): Json<NewPriceList>,
) -> Result<Json<Written>, ShopError> {
    shop.write([dep!("price list", id)], move |db| db.set_price_list(id, new.percent_off)).await
}

#[derive(Deserialize)]
struct Health {
    failing: bool,
}

/// Lets the supplier fail, or heals it: for watching the breaker.
async fn set_supplier(State(shop): State<Arc<Shop>>, Json(health): Json<Health>) {
    shop.supplier.set_failing(health.failing);
}

async fn metrics(State(shop): State<Arc<Shop>>) -> String {
    shop.registry.prometheus()
}

/// SQLite blocks, so it is asked where blocking hurts nobody.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, ShopError> {
    Ok(task::spawn_blocking(work).await??)
}

/// A quote that is older than that is no help to anybody.
pub const QUOTES_KEPT: Duration = Duration::from_secs(3600);
