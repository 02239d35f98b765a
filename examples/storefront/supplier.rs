//! The flaky supplier, which knows when a product can be delivered. It lives in this process, but behaves like a remote.

use std::{
    error::Error,
    fmt, future,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::Serialize;
use tokio::time;

/// How long a page may wait for the supplier.
const TIMEOUT: Duration = Duration::from_millis(100);

/// What a healthy supplier takes to answer.
const ANSWER: Duration = Duration::from_millis(1);

/// While it fails, one call in so many is answered all the same: a remote in trouble is rarely dead.
const ANSWERED_WHEN_FAILING: u64 = 10;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quote {
    pub days: u64,
    pub cents: u64,
}

pub struct Supplier {
    seed: u64,
    calls: AtomicU64,
    failing: AtomicBool,
}

impl Supplier {
    /// Healthy at first. The seed decides which calls hang while it fails.
    pub fn new(seed: u64) -> Self {
        Self { seed, calls: AtomicU64::new(0), failing: AtomicBool::new(false) }
    }

    pub fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Relaxed);
    }

    /// Asks for a delivery of `product`, and gives up after [`TIMEOUT`].
    pub async fn quote(&self, product: u64) -> Result<Quote, SupplierTimeout> {
        time::timeout(TIMEOUT, self.answer(product)).await.map_err(|_| SupplierTimeout)
    }

    async fn answer(&self, product: u64) -> Quote {
        let call = self.calls.fetch_add(1, Relaxed);
        let dice = fastrand::Rng::with_seed(self.seed ^ call).u64(..ANSWERED_WHEN_FAILING);
        if self.failing.load(Relaxed) && dice != 0 {
            future::pending::<()>().await;
        }
        time::sleep(ANSWER).await;
        Quote { days: 1 + product % 5, cents: 390 + product % 7 * 50 }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct SupplierTimeout;

impl fmt::Display for SupplierTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the supplier did not answer within {TIMEOUT:?}")
    }
}

impl Error for SupplierTimeout {}
