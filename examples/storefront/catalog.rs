//! What the shop sells: which product stands in which category and on which price list.
//!
//! The mapping is arithmetic, so that a client knows which rows a page is built from without asking the service: the
//! freshness oracle must not rely on what it judges.

pub const CATEGORIES: u64 = 100;
pub const PRICE_LISTS: u64 = 8;

/// Rows have ids from 1, as in a database.
pub fn category_of(product: u64) -> u64 {
    product % CATEGORIES + 1
}

pub fn price_list_of(product: u64) -> u64 {
    product % PRICE_LISTS + 1
}
