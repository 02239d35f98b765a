#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(feature = "batch")]
pub use swiftwater_batch as batch;
#[cfg(feature = "breaker")]
pub use swiftwater_breaker as breaker;
#[cfg(feature = "cache")]
pub use swiftwater_cache as cache;
#[cfg(feature = "compress")]
pub use swiftwater_compress as compress;
pub use swiftwater_core as core;
#[cfg(feature = "pool")]
pub use swiftwater_pool as pool;
