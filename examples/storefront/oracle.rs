//! The freshness oracle: judges answers from outside, through nothing but what clients send and receive.
//!
//! Every row carries a version that each write increments. Once a write of version *n* has been answered, *n* is the
//! floor of that row: a page that is asked for from then on must not be built from an older version of it. So a reader
//! notes the floors before it sends its request, and compares when the answer is there.
//!
//! What the oracle does not blame: an answer that was asked for before the write was answered, in either version.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

use serde::Deserialize;

use crate::catalog::{self, CATEGORIES, PRICE_LISTS};

/// The versions of the rows that one page is built from.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Versions {
    pub product: u64,
    pub stock: u64,
    pub category: u64,
    pub price_list: u64,
}

/// A row that a client wrote.
#[derive(Clone, Copy, Debug)]
pub enum Row {
    Category(u64),
    PriceList(u64),
    Product(u64),
    Stock(u64),
}

pub struct Oracle {
    categories: Floors,
    price_lists: Floors,
    products: Floors,
    stock: Floors,
}

impl Oracle {
    pub fn new(products: u64) -> Self {
        Self {
            categories: Floors::new(CATEGORIES),
            price_lists: Floors::new(PRICE_LISTS),
            products: Floors::new(products),
            stock: Floors::new(products),
        }
    }

    /// The write of `row` has been answered, with the version it made.
    pub fn answered(&self, row: Row, version: u64) {
        match row {
            Row::Category(id) => self.categories.raise(id, version),
            Row::PriceList(id) => self.price_lists.raise(id, version),
            Row::Product(id) => self.products.raise(id, version),
            Row::Stock(id) => self.stock.raise(id, version),
        }
    }

    /// What a page of `product` that is asked for now must show at least.
    pub fn floors(&self, product: u64) -> Versions {
        Versions {
            product: self.products.of(product),
            stock: self.stock.of(product),
            category: self.categories.of(catalog::category_of(product)),
            price_list: self.price_lists.of(catalog::price_list_of(product)),
        }
    }
}

impl Versions {
    /// Is a page of these versions older than the floors that were noted before it was asked for?
    pub fn is_stale(&self, floors: &Self) -> bool {
        self.product < floors.product
            || self.stock < floors.stock
            || self.category < floors.category
            || self.price_list < floors.price_list
    }
}

/// One floor per row, for ids from 1.
struct Floors(Vec<AtomicU64>);

impl Floors {
    fn new(rows: u64) -> Self {
        Self((0..=rows).map(|_| AtomicU64::new(0)).collect())
    }

    /// A maximum: two writers of one row may be answered in another order than they committed.
    fn raise(&self, id: u64, version: u64) {
        self.0[id as usize].fetch_max(version, AcqRel);
    }

    /// Acquire pairs with the writer's release: the write was answered before this load, in every thread's eyes.
    fn of(&self, id: u64) -> u64 {
        self.0[id as usize].load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCT: u64 = 42;

    fn page(oracle: &Oracle) -> Versions {
        oracle.floors(PRODUCT)
    }

    #[test]
    fn a_page_older_than_an_answered_write_is_stale_whichever_row_it_is() {
        let rows = [
            Row::Category(catalog::category_of(PRODUCT)),
            Row::PriceList(catalog::price_list_of(PRODUCT)),
            Row::Product(PRODUCT),
            Row::Stock(PRODUCT),
        ];
        for row in rows {
            let oracle = Oracle::new(100);
            let old = page(&oracle);
            oracle.answered(row, 1);
            let floors = oracle.floors(PRODUCT);
            assert!(old.is_stale(&floors), "{row:?}");
            assert!(!page(&oracle).is_stale(&floors), "{row:?}");
        }
    }

    #[test]
    fn a_page_asked_for_before_the_write_was_answered_may_show_either_version() {
        let oracle = Oracle::new(100);
        let floors = oracle.floors(PRODUCT);
        let old = page(&oracle);
        oracle.answered(Row::Product(PRODUCT), 1);
        assert!(!old.is_stale(&floors));
        assert!(!page(&oracle).is_stale(&floors));
    }

    #[test]
    fn writes_of_other_rows_prove_nothing() {
        let oracle = Oracle::new(100);
        let old = page(&oracle);
        oracle.answered(Row::Product(PRODUCT + 1), 9);
        oracle.answered(Row::Category(catalog::category_of(PRODUCT + 1)), 9);
        assert!(!old.is_stale(&oracle.floors(PRODUCT)));
    }

    #[test]
    fn writes_answered_out_of_order_never_lower_a_floor() {
        let oracle = Oracle::new(100);
        oracle.answered(Row::Stock(PRODUCT), 3);
        oracle.answered(Row::Stock(PRODUCT), 2);
        assert_eq!(oracle.floors(PRODUCT).stock, 3);
    }
}
