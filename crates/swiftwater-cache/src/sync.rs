//! The atomics that the model checker replaces: std's in every build that is shipped.

#[cfg(all(test, swiftwater_loom))]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, swiftwater_loom)))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
