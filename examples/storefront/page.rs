//! What goes over the wire: pages, and what writers send.

use serde::{Deserialize, Serialize};

use crate::{
    db::{Category, Connection, PriceList, Product, Stock},
    supplier::Quote,
};

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
    versions: Versions,
}

#[derive(Clone, Serialize)]
struct Price {
    from_units: u64,
    cents: u64,
}

#[derive(Clone, Copy, Serialize)]
struct Versions {
    product: u64,
    stock: u64,
    category: u64,
    price_list: u64,
}

impl Page {
    pub fn new(product: Product, stock: &Stock, category: &Category, price_list: &PriceList) -> Self {
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

    /// The page with all its queries on one connection.
    pub fn read(db: &Connection, id: u64) -> rusqlite::Result<Option<Self>> {
        let Some(product) = db.product(id)? else {
            return Ok(None);
        };
        let stock = db.stock(id)?;
        let category = db.category(product.category)?;
        let price_list = db.price_list(product.price_list)?;
        Ok(Some(Self::new(product, &stock, &category, &price_list)))
    }
}

/// A page with a delivery quote.
#[derive(Serialize)]
pub struct Offer<'a> {
    #[serde(flatten)]
    pub page: &'a Page,
    pub delivery: Delivery,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Delivery {
    Fresh(Quote),
    LastKnown(Quote),
    Unknown,
}

/// What a visitor has looked at, as `?seen=3,1,2`.
#[derive(Deserialize)]
pub struct Visit {
    #[serde(default)]
    seen: String,
}

impl Visit {
    /// What is no product is nothing to go by. Nor does anybody look at that many products.
    pub fn seen(&self) -> Vec<u64> {
        self.seen.split(',').filter_map(|id| id.parse().ok()).take(100).collect()
    }
}

#[derive(Deserialize)]
pub struct NewPrice {
    pub cents: u32,
}

#[derive(Deserialize)]
pub struct NewStock {
    pub units: u32,
}

#[derive(Deserialize)]
pub struct NewCategory {
    pub name: String,
}

#[derive(Deserialize)]
pub struct NewPriceList {
    pub percent_off: Percent,
}

/// At most 100, or the request is refused.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "u32")]
pub struct Percent(pub u32);

impl TryFrom<u32> for Percent {
    type Error = &'static str;

    fn try_from(percent: u32) -> Result<Self, Self::Error> {
        if percent > 100 { Err("percent_off is at most 100") } else { Ok(Self(percent)) }
    }
}

/// The version of a row that was changed.
#[derive(Serialize)]
pub struct Written {
    pub version: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_holds_what_can_be_read_as_products() {
        let seen = |text: &str| Visit { seen: text.into() }.seen();
        assert_eq!(seen("3,1,2"), [3, 1, 2]);
        assert_eq!(seen("3,,x,-1,18446744073709551616,2"), [3, 2]);
        assert!(seen("").is_empty());
        assert_eq!(seen(&"1,".repeat(1000)).len(), 100);
    }

    #[test]
    fn nobody_gets_more_than_everything_off() {
        let read = |text| serde_json::from_str::<NewPriceList>(text).map(|new| new.percent_off.0);
        assert_eq!(read(r#"{"percent_off":100}"#).unwrap(), 100);
        assert!(read(r#"{"percent_off":101}"#).unwrap_err().to_string().contains("at most 100"));
    }
}
