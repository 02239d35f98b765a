#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(feature = "breaker")]
pub use swiftwater_breaker as breaker;
#[cfg(feature = "cache")]
pub use swiftwater_cache as cache;
pub use swiftwater_core as core;
#[cfg(feature = "pool")]
pub use swiftwater_pool as pool;
