//! What the shop sells: which product stands in which category and on which price list.
//!
//! The mapping is arithmetic, so that a client knows which rows a page is built from without asking the service: the
//! freshness oracle must not rely on what it judges.

pub const CATEGORIES: u64 = 100;
pub const PRICE_LISTS: u64 = 8;

/// As much of a category as its list shows.
pub const LISTED: usize = 100;

/// Rows have ids from 1, as in a database.
pub fn category_of(product: u64) -> u64 {
    product % CATEGORIES + 1
}

pub fn price_list_of(product: u64) -> u64 {
    product % PRICE_LISTS + 1
}

/// All that a category holds, in a shop of so many products.
pub fn products_of(category: u64, products: u64) -> impl Iterator<Item = u64> + Clone {
    (1..=products).skip(((category + CATEGORIES - 2) % CATEGORIES) as usize).step_by(CATEGORIES as usize)
}

/// Who buys a lamp buys a bulb: the category that goes with another one.
pub fn companion_of(category: u64) -> u64 {
    category % CATEGORIES + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_holds_exactly_the_products_that_stand_in_it() {
        for category in 1..=CATEGORIES {
            let expected = (1..=357).filter(|&product| category_of(product) == category);
            assert!(products_of(category, 357).eq(expected), "{category}");
        }
    }
}
