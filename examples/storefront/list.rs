//! Large documents, compressed for those who accept it: the list of a category, or a file of `--documents`.
//!
//! A document is cached as it is and, on its own, in every coding that somebody asked for. The compressed one is made of
//! the other, which is read from the cache while it is made, and so inherits what that depends on: a change of price
//! reaches both. Nobody had to say so.

use std::{error::Error, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use swiftwater_cache::{Cache, Hit, LoadCx, Region, dep};
use swiftwater_compress::{Accepted, Coding, Compressor, Hints, Rules};
use tokio::task;

use crate::{
    documents::{Document, Documents},
    error::ShopError,
    shop::Shop,
};

pub struct Lists {
    files: Arc<Documents>,
    documents: Region<Name, Document, ShopError>,
    compressed: Region<(Name, Coding), Compressed, ShopError>,
    pub compressor: Compressor,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    Category(u64),
    File(usize),
}

/// A document in the coding that it got, which may be none: nothing is compressed that does not get smaller.
struct Compressed {
    coding: Coding,
    body: Bytes,
}

impl Lists {
    pub fn new(cache: &Cache, files: Arc<Documents>, compress: bool) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            files,
            documents: cache.region("documents").error().memory(1_000).build()?,
            compressed: cache.region("compressed").error().memory(3_000).build()?,
            compressor: Compressor::builder().policy(Rules::new()).enabled(compress).build()?,
        })
    }
}

pub async fn category(
    State(shop): State<Arc<Shop>>,
    Path(category): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, ShopError> {
    shop.send(Name::Category(category), &headers).await
}

pub async fn document(
    State(shop): State<Arc<Shop>>,
    Path(number): Path<usize>,
    headers: HeaderMap,
) -> Result<Response, ShopError> {
    shop.send(Name::File(number), &headers).await
}

impl Shop {
    async fn send(self: &Arc<Self>, name: Name, headers: &HeaderMap) -> Result<Response, ShopError> {
        let document = self.document(name).await?;
        let accepted = Accepted::parse(headers.get_all(header::ACCEPT_ENCODING));
        let hints = Hints::new()
            .accepted(&accepted)
            .content_type(document.media_type)
            .size(document.body.len() as u64)
            .head(&document.body);
        // Caches on the way must not give one client what only another one can read.
        let head = [(header::CONTENT_TYPE, document.media_type), (header::VARY, "accept-encoding")];
        match self.lists.compressor.choose(&hints).coding() {
            Coding::Identity => Ok((head, document.body.clone()).into_response()),
            coding => {
                let compressed = self.compressed(name, coding).await?;
                let coding = [(header::CONTENT_ENCODING, compressed.coding.token())];
                Ok((head, coding, compressed.body.clone()).into_response())
            }
        }
    }

    async fn document(self: &Arc<Self>, name: Name) -> Result<Hit<Document>, ShopError> {
        let load = |cx: LoadCx<Name>| {
            let shop = self.clone();
            async move {
                match name {
                    Name::Category(category) => {
                        cx.depends_on(dep!("list", category));
                        let body = serde_json::to_vec(&shop.load_list(category).await?)?.into();
                        Ok(Document { media_type: "application/json", body })
                    }
                    Name::File(number) => shop.lists.files.get(number).cloned().ok_or(ShopError::NotFound),
                }
            }
        };
        Ok(self.lists.documents.get_or_load(&name, load).await?)
    }

    async fn compressed(self: &Arc<Self>, name: Name, coding: Coding) -> Result<Hit<Compressed>, ShopError> {
        let load = |_| {
            let shop = self.clone();
            async move {
                let document = shop.document(name).await?;
                // Milliseconds of work, too long for the runtime.
                let compress = move || {
                    let accepted = Accepted::parse([coding.token()]);
                    let hints = Hints::new().accepted(&accepted).content_type(document.media_type);
                    let compressed = shop.lists.compressor.compress(&hints, &document.body)?;
                    Ok(Compressed {
                        coding: compressed.coding(),
                        body: compressed.into_bytes().into_owned().into(),
                    })
                };
                task::spawn_blocking(compress).await?
            }
        };
        Ok(self.lists.compressed.get_or_load(&(name, coding), load).await?)
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        Json,
        http::{HeaderValue, StatusCode},
    };
    use http_body_util::BodyExt;
    use swiftwater_compress::{Codings, Decompressor};

    use super::*;
    use crate::{
        catalog,
        db::Database,
        model::Model,
        page::{NewCategory, NewPrice, NewPriceList, NewStock, Percent},
        shop::{self, Stage},
        supplier::Supplier,
        world::World,
    };

    const PRODUCTS: u64 = 300;
    const PRODUCT: u64 = 7;

    fn shop() -> (Arc<Shop>, Database) {
        let database = Database::create(PRODUCTS).unwrap();
        let world = World {
            database: database.manager(),
            supplier: Arc::new(Supplier::new(1)),
            model: Arc::new(Model::train(PRODUCTS)),
            documents: Arc::default(),
        };
        (Shop::open(Stage::Compressed, &world).unwrap(), database)
    }

    /// What the list of the product's category is sent in, and what it says, decoded.
    async fn list(shop: &Arc<Shop>, accepted: &'static str) -> (String, serde_json::Value) {
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted))]);
        let name = Name::Category(catalog::category_of(PRODUCT));
        let response = shop.send(name, &headers).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::VARY], "accept-encoding");
        let coding = response.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let coding = String::from_utf8(coding.unwrap_or_default().to_vec()).unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let codings = Codings::parse([&coding]).unwrap();
        let body = Decompressor::builder().build().unwrap().decompress(codings, &body).unwrap();
        (coding, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_list_is_the_same_in_every_coding() {
        let (shop, _database) = shop();
        let (coding, plain) = list(&shop, "").await;
        assert_eq!(coding, "");
        assert_eq!(plain.as_array().unwrap().len(), 3);
        for accepted in ["br", "gzip", "zstd"] {
            assert_eq!(list(&shop, accepted).await, (accepted.into(), plain.clone()));
        }
    }

    #[tokio::test]
    async fn a_compressed_list_shows_every_change_of_what_it_is_made_of() {
        let (shop, _database) = shop();
        let state = || State(shop.clone());
        let mut seen = vec![list(&shop, "gzip").await];
        let Json(_) = shop::set_price(state(), Path(PRODUCT), Json(NewPrice { cents: 1 })).await.unwrap();
        seen.push(list(&shop, "gzip").await);
        let Json(_) = shop::set_stock(state(), Path(PRODUCT), Json(NewStock { units: 1 })).await.unwrap();
        seen.push(list(&shop, "gzip").await);
        let (id, name) = (catalog::category_of(PRODUCT), "Lamps".into());
        let Json(_) = shop::set_category(state(), Path(id), Json(NewCategory { name })).await.unwrap();
        seen.push(list(&shop, "gzip").await);
        let (id, percent_off) = (catalog::price_list_of(PRODUCT), Percent(1));
        let Json(_) =
            shop::set_price_list(state(), Path(id), Json(NewPriceList { percent_off })).await.unwrap();
        seen.push(list(&shop, "gzip").await);
        for (number, list) in seen.iter().enumerate() {
            assert!(!seen[..number].contains(list), "change {number}");
        }
    }
}
