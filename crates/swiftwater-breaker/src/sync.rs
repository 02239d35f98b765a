//! The lock that the model checker replaces: std's in every build that is shipped.

#[cfg(all(test, swiftwater_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, swiftwater_loom)))]
pub(crate) use std::sync::{Mutex, MutexGuard};
