//! A counter that many threads add to and few read.

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// A number that only grows, written by hot paths.
///
/// `add` never blocks and never loses an increment; `read` sums, and returns at least what was added before it and at
/// most what was added when it ends. Wraps at 2^64.
#[derive(Debug, Default)]
pub struct Counter {
    count: AtomicU64,
}

impl Counter {
    /// Zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        // Relaxed: nothing is published through a count.
        self.count.fetch_add(n, Relaxed);
    }

    /// The sum of everything added so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.count.load(Relaxed)
    }
}
