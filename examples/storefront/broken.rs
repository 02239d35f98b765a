//! The negative control behind `--break-invalidation`: the cache used as a plain map.
//!
//! The handler loads the page by itself and stores it afterwards, so nobody can know that a row was changed between the
//! two: a page that went stale on its way is stored as new, and stays until the next change. Correct code looks almost the
//! same, which is why the mistake is so common. The oracle must notice.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use swiftwater_cache::dep;

use crate::{catalog, error::ShopError, shop::Shop};

pub async fn page(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Result<Response, ShopError> {
    if let Some(page) = shop.pages.get(&id) {
        return Ok(Json(&*page).into_response());
    }
    let page = shop.load_page(id).await?;
    shop.pages.insert_with(id, page.clone(), |entry| {
        entry.depends_on(dep!("product", id));
        entry.depends_on(dep!("category", catalog::category_of(id)));
        entry.depends_on(dep!("price list", catalog::price_list_of(id)));
    });
    Ok(Json(page).into_response())
}
