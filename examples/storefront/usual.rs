//! The same shop on the crates that most services would take: moka, bb8, failsafe and tower-http, wired with care.
//!
//! - Product pages are invalidated by key when their product or stock changes. When their category or price list does,
//!   they are left to expire, or found by a predicate that the cache applies to every entry: fast, or nearly fresh. Nothing
//!   of this reaches a page that is being loaded at the time: it is stored afterwards, and stays.
//! - A category's list is made of a hundred products, and kept for a second, as lists usually are.
//! - Recommendations are computed one by one: none of these crates batches.
//! - Lists and documents are compressed on their way out, each time they are sent.

use std::{borrow::Cow, error::Error, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use failsafe::{
    StateMachine,
    backoff::{self, EqualJittered},
    failure_policy::{self, ConsecutiveFailures},
    futures::CircuitBreaker,
};
use moka::future::Cache;
use tokio::task;
use tower_http::compression::CompressionLayer;

use crate::{
    catalog,
    db::{Category, Connection, Manager, PriceList},
    documents::Documents,
    model::Model,
    page::{Delivery, NewCategory, NewPrice, NewPriceList, NewStock, Offer, Page, Visit, Written},
    shop::QUOTES_KEPT,
    supplier::{Quote, Supplier},
    world::World,
};

/// What becomes of the pages that were made of something else that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derived {
    Expires,
    Searched,
}

pub struct Usual {
    derived: Derived,
    pool: bb8::Pool<Manager>,
    pages: Cache<u64, Arc<Page>>,
    categories: Cache<u64, Arc<Category>>,
    price_lists: Cache<u64, Arc<PriceList>>,
    lists: Cache<u64, Bytes>,
    quotes: Cache<u64, Quote>,
    supplier: Arc<Supplier>,
    breaker: StateMachine<ConsecutiveFailures<EqualJittered>, ()>,
    model: Arc<Model>,
    documents: Arc<Documents>,
}

impl Usual {
    pub async fn open(derived: Derived, world: &World) -> Result<Arc<Self>, Box<dyn Error>> {
        let patience = backoff::equal_jittered(Duration::from_secs(1), Duration::from_secs(30));
        let policy = failure_policy::consecutive_failures(5, patience);
        Ok(Arc::new(Self {
            derived,
            pool: bb8::Pool::builder().max_size(8).build(world.database.clone()).await?,
            pages: Cache::builder()
                .max_capacity(50_000)
                .time_to_live(PAGES_KEPT)
                .support_invalidation_closures()
                .build(),
            categories: Cache::builder().max_capacity(1_000).time_to_live(KEPT).build(),
            price_lists: Cache::builder().max_capacity(100).time_to_live(KEPT).build(),
            lists: Cache::builder().max_capacity(1_000).time_to_live(LISTS_KEPT).build(),
            quotes: Cache::builder().max_capacity(50_000).time_to_live(QUOTES_KEPT).build(),
            supplier: world.supplier.clone(),
            breaker: failsafe::Config::new().failure_policy(policy).build(),
            model: world.model.clone(),
            documents: world.documents.clone(),
        }))
    }

    pub fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/catalogue/{category}", get(list))
            .route("/documents/{number}", get(document))
            // Only those above: compressing what fits into one packet saves nothing.
            .route_layer(CompressionLayer::new())
            .route("/products/{id}", get(page))
            .route("/recommendations", get(recommendations))
            .route("/products/{id}/price", put(set_price))
            .route("/products/{id}/stock", put(set_stock))
            .route("/categories/{id}", put(set_category))
            .route("/price-lists/{id}", put(set_price_list))
            .with_state(self)
    }
}

async fn page(State(shop): State<Arc<Usual>>, Path(id): Path<u64>) -> Result<Response, Failed> {
    let page = shop.page(id).await?;
    let delivery = match shop.breaker.call(shop.supplier.quote(id)).await {
        Ok(quote) => {
            shop.quotes.insert(id, quote).await;
            Delivery::Fresh(quote)
        }
        Err(_refused_or_failed) => match shop.quotes.get(&id).await {
            Some(quote) => Delivery::LastKnown(quote),
            None => Delivery::Unknown,
        },
    };
    Ok(Json(Offer { page: &page, delivery }).into_response())
}

async fn recommendations(
    State(shop): State<Arc<Usual>>,
    Query(visit): Query<Visit>,
) -> Result<Response, Failed> {
    let model = shop.model.clone();
    let products = task::spawn_blocking(move || model.recommend(&[visit.seen()]).remove(0)).await?;
    let mut pages = Vec::with_capacity(products.len());
    for product in products {
        pages.push(shop.page(product).await?);
    }
    let pages: Vec<&Page> = pages.iter().map(|page| &**page).collect();
    Ok(Json(pages).into_response())
}

async fn list(State(shop): State<Arc<Usual>>, Path(category): Path<u64>) -> Result<Response, Failed> {
    let list = shop.lists.try_get_with(category, shop.load_list(category)).await;
    let list = list.map_err(Arc::unwrap_or_clone)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], list).into_response())
}

async fn document(State(shop): State<Arc<Usual>>, Path(number): Path<usize>) -> Result<Response, Failed> {
    let document = shop.documents.get(number).ok_or(Failed::NOT_FOUND)?;
    Ok(([(header::CONTENT_TYPE, document.media_type)], document.body.clone()).into_response())
}

impl Usual {
    async fn page(&self, id: u64) -> Result<Arc<Page>, Failed> {
        self.pages.try_get_with(id, self.load_page(id)).await.map_err(Arc::unwrap_or_clone)
    }

    async fn load_page(&self, id: u64) -> Result<Arc<Page>, Failed> {
        let found = self.query(move |db| match db.product(id)? {
            Some(product) => Ok(Some((product, db.stock(id)?))),
            None => Ok(None),
        });
        let (product, stock) = found.await?.ok_or(Failed::NOT_FOUND)?;
        let category = self.category(product.category).await?;
        let price_list = self.price_list(product.price_list).await?;
        Ok(Arc::new(Page::new(product, &stock, &category, &price_list)))
    }

    async fn load_list(&self, category: u64) -> Result<Bytes, Failed> {
        let listed = self.query(move |db| db.listed(category)).await?;
        if listed.is_empty() {
            return Err(Failed::NOT_FOUND);
        }
        let category = self.category(category).await?;
        let mut pages = Vec::with_capacity(listed.len());
        for (product, stock) in listed {
            let price_list = self.price_list(product.price_list).await?;
            pages.push(Page::new(product, &stock, &category, &price_list));
        }
        Ok(serde_json::to_vec(&pages)?.into())
    }

    async fn category(&self, id: u64) -> Result<Arc<Category>, Failed> {
        let load = async { self.query(move |db| db.category(id)).await.map(Arc::new) };
        self.categories.try_get_with(id, load).await.map_err(Arc::unwrap_or_clone)
    }

    async fn price_list(&self, id: u64) -> Result<Arc<PriceList>, Failed> {
        let load = async { self.query(move |db| db.price_list(id)).await.map(Arc::new) };
        self.price_lists.try_get_with(id, load).await.map_err(Arc::unwrap_or_clone)
    }

    fn invalidate_pages(&self, of: impl Fn(u64) -> bool + Send + Sync + 'static) -> Result<(), Failed> {
        if self.derived == Derived::Searched {
            self.pages.invalidate_entries_if(move |&product, _| of(product))?;
        }
        Ok(())
    }

    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failed> {
        let mut connection = self.pool.get_owned().await?;
        Ok(task::spawn_blocking(move || ask(&mut connection)).await??)
    }
}

async fn set_price(
    State(shop): State<Arc<Usual>>,
    Path(id): Path<u64>,
    Json(new): Json<NewPrice>,
) -> Result<Json<Written>, Failed> {
    let version = shop.query(move |db| db.set_price(id, new.cents)).await?;
    shop.pages.invalidate(&id).await;
    written(version)
}

async fn set_stock(
    State(shop): State<Arc<Usual>>,
    Path(id): Path<u64>,
    Json(new): Json<NewStock>,
) -> Result<Json<Written>, Failed> {
    let version = shop.query(move |db| db.set_stock(id, new.units)).await?;
    shop.pages.invalidate(&id).await;
    written(version)
}

async fn set_category(
    State(shop): State<Arc<Usual>>,
    Path(id): Path<u64>,
    Json(new): Json<NewCategory>,
) -> Result<Json<Written>, Failed> {
    let version = shop.query(move |db| db.set_category(id, &new.name)).await?;
    // In this order, or a page could be made of the old name between the two.
    shop.categories.invalidate(&id).await;
    shop.invalidate_pages(move |product| catalog::category_of(product) == id)?;
    written(version)
}

async fn set_price_list(
    State(shop): State<Arc<Usual>>,
    Path(id): Path<u64>,
    Json(new): Json<NewPriceList>,
) -> Result<Json<Written>, Failed> {
    let version = shop.query(move |db| db.set_price_list(id, new.percent_off)).await?;
    shop.price_lists.invalidate(&id).await;
    shop.invalidate_pages(move |product| catalog::price_list_of(product) == id)?;
    written(version)
}

fn written(version: Option<u64>) -> Result<Json<Written>, Failed> {
    Ok(Json(Written { version: version.ok_or(Failed::NOT_FOUND)? }))
}

/// Why a request gets no answer. Cheap to clone, since those who wait for one load share its error.
#[derive(Clone)]
struct Failed {
    status: StatusCode,
    why: Cow<'static, str>,
}

impl Failed {
    const NOT_FOUND: Self =
        Self { status: StatusCode::NOT_FOUND, why: Cow::Borrowed("there is no such thing in this shop") };
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.status, self.why).into_response()
    }
}

impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, why: error.to_string().into() }
    }
}

/// What a forgotten invalidation costs at most.
const KEPT: Duration = Duration::from_secs(60);
const PAGES_KEPT: Duration = Duration::from_secs(5);
const LISTS_KEPT: Duration = Duration::from_secs(1);
