//! The freshness oracle: judges answers from outside, through nothing but what clients send and receive.
//!
//! Every row carries a version that each write increments. Once a write of version *n* has been answered, *n* is the
//! floor of that row: a page that is asked for from then on must not be built from an older version of it. So a reader
//! notes the moment before it sends its request, and has the answer judged by the floors of that moment.
//!
//! What the oracle does not blame: an answer that was asked for before the write was answered, in either version.

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
};

use serde::Deserialize;

use crate::catalog;

/// The versions of the rows that one page is built from.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Versions {
    pub product: u64,
    pub stock: u64,
    pub category: u64,
    pub price_list: u64,
}

/// A row that a client wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    Category(u64),
    PriceList(u64),
    Product(u64),
    Stock(u64),
}

/// How many writes had been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

#[derive(Default)]
pub struct Oracle {
    answered: AtomicU64,
    /// The floor of each row from each moment on. Grows by one entry per write, for the length of a phase.
    floors: RwLock<HashMap<Row, Vec<(Moment, u64)>>>,
}

impl Oracle {
    /// The write of `row` has been answered, with the version it made.
    pub fn answered(&self, row: Row, version: u64) {
        // Nothing panics under the lock, and each step of the change is a valid state.
        let mut floors = self.floors.write().unwrap_or_else(PoisonError::into_inner);
        // Acquire, though the lock orders the writers: a plain load would do as well.
        let moment = Moment(self.answered.load(Acquire) + 1);
        let floors = floors.entry(row).or_default();
        // Two writers of one row may be answered in another order than they committed.
        let floor = floors.last().map_or(version, |&(_, floor)| version.max(floor));
        floors.push((moment, floor));
        // Release pairs with the acquire in `now`: who sees this moment finds its floor.
        self.answered.store(moment.0, Release);
    }

    /// To be noted before a request is sent.
    pub fn now(&self) -> Moment {
        Moment(self.answered.load(Acquire))
    }

    /// Is one of these pages, each with its product, older than a write that had been answered when they were asked for?
    pub fn is_stale(&self, asked: Moment, pages: impl IntoIterator<Item = (u64, Versions)>) -> bool {
        let floors = self.floors.read().unwrap_or_else(PoisonError::into_inner);
        let floor = |row| {
            let floors = floors.get(&row).map_or(&[][..], Vec::as_slice);
            let later = floors.partition_point(|&(moment, _)| moment <= asked);
            floors[..later].last().map_or(0, |&(_, floor)| floor)
        };
        pages.into_iter().any(|(product, versions)| {
            versions.product < floor(Row::Product(product))
                || versions.stock < floor(Row::Stock(product))
                || versions.category < floor(Row::Category(catalog::category_of(product)))
                || versions.price_list < floor(Row::PriceList(catalog::price_list_of(product)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCT: u64 = 42;
    const OLD: Versions = Versions { product: 1, stock: 1, category: 1, price_list: 1 };
    const NEW: Versions = Versions { product: 2, stock: 2, category: 2, price_list: 2 };

    fn is_stale(oracle: &Oracle, asked: Moment, versions: Versions) -> bool {
        oracle.is_stale(asked, [(PRODUCT, versions)])
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
            let oracle = Oracle::default();
            oracle.answered(row, 2);
            let asked = oracle.now();
            assert!(is_stale(&oracle, asked, OLD), "{row:?}");
            assert!(!is_stale(&oracle, asked, NEW), "{row:?}");
        }
    }

    #[test]
    fn a_page_asked_for_before_the_write_was_answered_may_show_either_version() {
        let oracle = Oracle::default();
        oracle.answered(Row::Product(PRODUCT), 1);
        let asked = oracle.now();
        oracle.answered(Row::Product(PRODUCT), 2);
        assert!(!is_stale(&oracle, asked, OLD));
        assert!(!is_stale(&oracle, asked, NEW));
        assert!(is_stale(&oracle, oracle.now(), OLD));
    }

    #[test]
    fn writes_of_other_rows_prove_nothing() {
        let oracle = Oracle::default();
        oracle.answered(Row::Product(PRODUCT + 1), 9);
        oracle.answered(Row::Category(catalog::category_of(PRODUCT + 1)), 9);
        assert!(!is_stale(&oracle, oracle.now(), OLD));
    }

    #[test]
    fn writes_answered_out_of_order_never_lower_a_floor() {
        let oracle = Oracle::default();
        oracle.answered(Row::Stock(PRODUCT), 3);
        oracle.answered(Row::Stock(PRODUCT), 2);
        assert!(is_stale(&oracle, oracle.now(), NEW));
    }

    #[test]
    fn a_list_is_as_old_as_the_oldest_page_in_it() {
        let oracle = Oracle::default();
        oracle.answered(Row::Product(PRODUCT), 2);
        let asked = oracle.now();
        assert!(oracle.is_stale(asked, [(PRODUCT + 1, OLD), (PRODUCT, OLD)]));
        assert!(!oracle.is_stale(asked, [(PRODUCT + 1, OLD), (PRODUCT, NEW)]));
    }
}
