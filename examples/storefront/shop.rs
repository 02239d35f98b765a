//! The shop's API: product pages that are read; prices, stock, categories and price lists that are written.
//!
//! `GET /products/{id}` is answered by one of five handlers, the shop at five stages of growing up. A service of your own
//! would have the last one only. Everything else is the same at every stage.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde::{Deserialize, Serialize};
use swiftwater_breaker::Breaker;
use swiftwater_cache::{Cache, Dep, Hit, LoadCx, LoadError, Region, dep};
use swiftwater_core::Registry;
use swiftwater_pool::{GetError, bb8::Pool};
use tokio::task::{self, JoinError};

use crate::{
    broken,
    db::{Category, Connection, Manager, PriceList, Product, Stock},
    supplier::{Quote, Supplier, SupplierTimeout},
};

/// How far the shop has grown up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Stage {
    pub fn has_supplier(self) -> bool {
        matches!(self, Self::Supplied | Self::Guarded)
    }
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
    registry: Registry,
}

impl Shop {
    pub fn open(
        stage: Stage,
        database: Manager,
        supplier: Arc<Supplier>,
    ) -> Result<Arc<Self>, Box<dyn Error>> {
        // Switched off, the pool opens a connection for each write and closes it afterwards; bare reads do without it.
        let pool = Pool::builder().max_size(8).enabled(stage != Stage::Bare).build(database.clone())?;

        let cache = Cache::builder().build()?;
        let pages = cache.region("pages").error().memory(50_000).build()?;
        let categories = cache.region("categories").error().memory(1_000).build()?;
        let price_lists = cache.region("price_lists").error().memory(100).build()?;
        let quotes = cache.region("quotes").memory(50_000).ttl(QUOTES_KEPT).build()?;

        let breaker = Breaker::builder().build()?;

        let registry = Registry::new();
        registry.add("pool", "sqlite", &pool)?;
        registry.add("cache", "shop", &cache)?;
        registry.add("breaker", "supplier", &breaker)?;

        Ok(Arc::new(Self {
            stage,
            database,
            pool,
            cache,
            pages,
            categories,
            price_lists,
            quotes,
            supplier,
            breaker,
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
            Stage::Guarded => get(page_guarded),
        };
        Router::new()
            .route("/products/{id}", page)
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
    let page = blocking(move || read_page(&database.open()?, id)).await?;
    Ok(Json(page.ok_or(ShopError::NotFound)?).into_response())
}

/// Stage 2: a connection from the pool, with its prepared statements.
async fn page_pooled(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Result<Response, ShopError> {
    let page = shop.query(move |db| read_page(db, id)).await?;
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
    async fn page(self: &Arc<Self>, id: u64) -> Result<Hit<Page>, ShopError> {
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
        Ok(Page::new(product, &category, &price_list, &stock))
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

    /// Changes a row, which everything that depends on `changed` shows as soon as this is answered.
    async fn write(
        self: Arc<Self>,
        changed: Dep,
        change: impl FnOnce(&mut Connection) -> rusqlite::Result<Option<u64>> + Send + 'static,
    ) -> Result<Json<Written>, ShopError> {
        // A task of its own: a client who hangs up shall not get between the commit and the invalidation.
        let write = task::spawn(async move {
            let version = self.query(change).await;
            // After the commit, before the answer. On an error too: it may be the news of the commit that was lost.
            self.cache.invalidate(changed).await;
            version
        });
        let version = write.await??.ok_or(ShopError::NotFound)?;
        Ok(Json(Written { version }))
    }
}

#[derive(Deserialize)]
struct NewPrice {
    cents: u32,
}

async fn set_price(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u64>,
    Json(new): Json<NewPrice>,
) -> Result<Json<Written>, ShopError> {
    shop.write(dep!("product", id), move |db| db.set_price(id, new.cents)).await
}

#[derive(Deserialize)]
struct NewStock {
    units: u32,
}

/// A dependency need not be a row: the stock is part of the product, whatever the tables say.
async fn set_stock(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u64>,
    Json(new): Json<NewStock>,
) -> Result<Json<Written>, ShopError> {
    shop.write(dep!("product", id), move |db| db.set_stock(id, new.units)).await
}

#[derive(Deserialize)]
struct NewCategory {
    name: String,
}

async fn set_category(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u64>,
    Json(new): Json<NewCategory>,
) -> Result<Json<Written>, ShopError> {
    shop.write(dep!("category", id), move |db| db.set_category(id, &new.name)).await
}

#[derive(Deserialize)]
struct NewPriceList {
    percent_off: u32,
}

async fn set_price_list(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u64>,
    Json(new): Json<NewPriceList>,
) -> Result<Json<Written>, ShopError> {
    if new.percent_off > 100 {
        return Err(ShopError::Refused("percent_off is at most 100"));
    }
    shop.write(dep!("price list", id), move |db| db.set_price_list(id, new.percent_off)).await
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

/// What a customer sees of a product, and the versions of the rows that it was made of.
#[derive(Clone, Serialize)]
pub struct Page {
    pub id: u64,
    name: String,
    description: String,
    category: String,
    price_list: String,
    prices: Vec<Price>,
    stock: u64,
    pub versions: Versions,
}

#[derive(Clone, Serialize)]
struct Price {
    from_units: u64,
    cents: u64,
}

#[derive(Clone, Copy, Serialize)]
pub struct Versions {
    product: u64,
    stock: u64,
    category: u64,
    price_list: u64,
}

impl Page {
    fn new(product: Product, category: &Category, price_list: &PriceList, stock: &Stock) -> Self {
        let prices = price_list.tiers.iter().map(|tier| Price {
            from_units: tier.units,
            cents: product.cents * (100 - tier.percent_off) / 100,
        });
        Self {
            id: product.id,
            name: product.name,
            description: product.description,
            category: category.name.clone(),
            price_list: price_list.name.clone(),
            prices: prices.collect(),
            stock: stock.units,
            versions: Versions {
                product: product.version,
                stock: stock.version,
                category: category.version,
                price_list: price_list.version,
            },
        }
    }
}

/// The page with all its queries on one connection.
fn read_page(db: &Connection, id: u64) -> rusqlite::Result<Option<Page>> {
    let Some(product) = db.product(id)? else {
        return Ok(None);
    };
    let category = db.category(product.category)?;
    let price_list = db.price_list(product.price_list)?;
    let stock = db.stock(id)?;
    Ok(Some(Page::new(product, &category, &price_list, &stock)))
}

/// A page with a delivery quote.
#[derive(Serialize)]
struct Offer<'a> {
    #[serde(flatten)]
    page: &'a Page,
    delivery: Delivery,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Delivery {
    Fresh(Quote),
    LastKnown(Quote),
    Unknown,
}

#[derive(Serialize)]
struct Written {
    version: u64,
}

/// SQLite blocks, so it is asked where blocking hurts nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, ShopError> {
    Ok(task::spawn_blocking(work).await??)
}

/// Why a request gets no page.
#[derive(Debug)]
pub enum ShopError {
    Database(rusqlite::Error),
    Load(LoadError<ShopError>),
    NotFound,
    Pool(GetError<rusqlite::Error>),
    Refused(&'static str),
    Stopped(JoinError),
    Supplier(SupplierTimeout),
}

impl IntoResponse for ShopError {
    fn into_response(self) -> Response {
        let status = match self.root() {
            Self::Database(_) | Self::Load(_) | Self::Stopped(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Pool(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Supplier(_) => StatusCode::GATEWAY_TIMEOUT,
        };
        (status, self.root().to_string()).into_response()
    }
}

impl ShopError {
    /// The error that a loader failed with, in place of the news that one did.
    fn root(&self) -> &Self {
        match self {
            Self::Load(LoadError::Loader(error)) => error.root(),
            _ => self,
        }
    }
}

impl fmt::Display for ShopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => write!(f, "the database: {error}"),
            Self::Load(error) => error.fmt(f),
            Self::NotFound => f.write_str("there is no such thing in this shop"),
            Self::Pool(error) => error.fmt(f),
            Self::Refused(why) => f.write_str(why),
            Self::Stopped(error) => error.fmt(f),
            Self::Supplier(error) => error.fmt(f),
        }
    }
}

impl Error for ShopError {}

impl From<rusqlite::Error> for ShopError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            // An id beyond what the database can hold.
            rusqlite::Error::ToSqlConversionFailure(_) => Self::NotFound,
            error => Self::Database(error),
        }
    }
}

impl From<LoadError<Self>> for ShopError {
    fn from(error: LoadError<Self>) -> Self {
        Self::Load(error)
    }
}

impl From<GetError<rusqlite::Error>> for ShopError {
    fn from(error: GetError<rusqlite::Error>) -> Self {
        Self::Pool(error)
    }
}

impl From<JoinError> for ShopError {
    fn from(error: JoinError) -> Self {
        Self::Stopped(error)
    }
}

impl From<SupplierTimeout> for ShopError {
    fn from(error: SupplierTimeout) -> Self {
        Self::Supplier(error)
    }
}

/// A quote that is older than that is no help to anybody.
const QUOTES_KEPT: Duration = Duration::from_secs(3600);
