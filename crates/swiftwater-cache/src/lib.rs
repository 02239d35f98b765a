//! A cache whose invalidation follows dependencies: a `get` that starts after an invalidation has returned never sees
//! the past.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use swiftwater_cache::{Cache, Region, dep};
//!
//! let cache = Cache::builder().build()?;
//! let prices: Region<u64, u32> = cache.region("prices").build()?;
//! let labels: Region<u64, String> = cache.region("labels").build()?;
//!
//! let label = labels.get_or_load(&42, |cx| {
//!     let prices = prices.clone();
//!     async move {
//!         let price = prices.get_or_load(cx.key(), async |cx| {
//!             cx.depends_on(dep!("product", cx.key())); // what the value is made of
//!             Ok(995) // read from the database
//!         });
//!         Ok(format!("{} cents", *price.await?)) // the label inherits that
//!     }
//! });
//! assert_eq!(*label.await?, "995 cents");
//!
//! cache.invalidate(dep!("product", 42)); // after the database has changed
//! assert!(prices.get(&42).is_none() && labels.get(&42).is_none());
//! # Ok(())
//! # }
//! ```
//!
//! # The picture
//!
//! A [`Cache`] holds the dependency graph; its [`Region`]s hold the values, each region with its own types, capacity,
//! lifetimes and layers. A loader says what its value depends on: by name ([`dep!`]), or by reading other regions, whose
//! dependencies it inherits. Whoever changes something calls [`Cache::invalidate`] with its name afterwards, or wraps
//! the change in [`Cache::writing`].
//!
//! Nothing is searched and nothing is deleted then. Every dependency name selects one of a fixed number of *version
//! cells*; invalidating raises the cell, and every entry remembers how far the versions were when its load **started**.
//! It is served only while none of its cells has moved beyond that. So one invalidation reaches a million dependents at
//! once, a value that was being loaded at the time can neither be stored nor served to later callers, and evicting an
//! entry leaves nothing to clean up. [`invalidation`] has pictures.
//!
//! The usual "look it up, load it, put it in" has no such memory: a value that was read before a change and stored after it
//! stays. So does one that is put in by [`Region::insert`], hence its warning: load through [`Region::get_or_load`].
//!
//! Every call may bring its own loader; a region that has a [`Source`] needs none ([`Region::fetch`]), and can load in good time
//! or before anybody asks ([`Region::warm`]). What a dependency cannot say is for an [`InvalidationPolicy`]; a value in this
//! process that others are made of is a [`Parameter`].
//!
//! A region that is told where to write ([`RegionBuilder::writes`]) changes its source by [`Region::store`]: around the cache,
//! through it, or behind it, later and in batches. [`Writes`] says what a reader sees when, and what a crash can lose.
//!
//! # Guarantees
//!
//! The seven laws of [`Region`] are the contract; the first is the sentence at the top of this page. It is relaxed only for what is
//! invalidated [softly](Change::soft) or [gradually](Change::gradual). Serving what has *expired*, where a region is told to
//! ([`stale_for`](RegionBuilder::stale_for), [`fail_safe`](RegionBuilder::fail_safe)), never serves what was invalidated.
//! Excluded:
//!
//! - **A crash or a cancelled task between the change and the call.** [`Cache::writing`] covers the task, not the crash.
//! - **A source that answers from the past**, such as a replica that lags behind the invalidation; unless it is told for how
//!   long ([`Change::hold_off`]).
//! - **What was not declared.** A loader that reads something without saying so, or hands work to another task without
//!   [`Region::within`], has a value that nobody can invalidate. The same is true of what it got before it was called: a
//!   [`Hit`] that it captured, or a read whose first poll was outside of it.
//! - **What is pending behind**, for whoever reads the source other than through the region that wrote it ([`Behind`]).
//! - **Other caches.** Dependencies do not cross from one [`Cache`] to another: use one, with many regions.
//! - **Other processes.** An invalidation reaches this process.
//!
//! Time is judged by a coarse clock, about a millisecond late; invalidation by no clock at all. What layers keep is served
//! after a restart only if the cache was closed in order and told where to write down what was invalidated.
//!
//! # Costs
//!
//! A hit is a lookup in [quick_cache], a comparison of the entry's stamp with the latest version, one load of the coarse clock if
//! there is a lifetime, a count and a reference count. After an invalidation, of whatever, the next hit of each entry also
//! looks at the cells of its key, its region and its dependencies. A miss takes the lock of one of 32 shards of running
//! loads twice, and allocates the entry, the flight that others may join and the loader's future; if it has to wait, a block of
//! a kilobyte for the rest of the call, which is why the future of a call is small (200 bytes beside what its loader
//! captured), and a task. A load within a load notes who waits for whom under one lock. An invalidation is four atomic operations; one by
//! key also takes its shard's lock and the store's; a gentler one two locks of its own.
//!
//! An entry costs its key, its value, 56 bytes and the store's own overhead, with up to two dependencies; with more,
//! another block; with `idle`, `refresh_after`, `fail_safe`, `usage` or an `invalidation_policy`, two. The version cells cost half a
//! MiB per cache, and are written to once when it is built. There is no background task but where `refresh_every` asks for one: pending and background loads run in
//! tasks of the current runtime, writes to layers as well, those behind in one per region while any are pending, and
//! [`Cache::sweep`] when it is called.
//!
//! [quick_cache]: https://docs.rs/quick_cache
//!
//! # Limits, and what to use instead
//!
//! - One process: its memory, and layers of bytes below it, of which the crate brings one on disk.
//! - Entries that are stale or expired leave when they are looked up, evicted or swept.
//! - No dependencies, no loading, only speed: use `quick_cache` itself. Its admission policy does not suit: `moka`, bare, or in
//!   a region's `memory_moka`.
//! - Derived values that must be recomputed minimally, not just dropped: `salsa`.
//! - Values are shared behind a reference count ([`Hit`]), so there is no mutable access.
//! - A loader's future must be `Send + 'static`: it may go on in a task of its own after its caller has left.
//!
//! # Features
//!
//! | Feature | What it adds |
//! |---|---|
//! | `disk` | `Disk`, a layer in files of a local directory: a log of segments with a hard bound; needs a Unix |
//! | `layers` | layers below memory: the trait `Layer`, regions that use some, what `Cache::close` does for them; values and keys implement serde's traits |
//! | `moka` | `RegionBuilder::memory_moka`: another memory store to choose, moka, for its admission policy |
//! | `testing` | the laws of `Layer`, `Sink` and `Source` as functions to call on those of your own |
//!
//! Minimum supported Rust version: 1.88. `tokio` is used for tasks of pending loads and for time-outs; loads that never wait,
//! `get`, `insert` and `invalidate` work without a runtime.

#![forbid(unsafe_code)]

#[doc = include_str!("../docs/invalidation.md")]
pub mod invalidation {}

mod advice;
mod behind;
mod below;
mod builder;
mod cache;
mod change;
#[cfg(feature = "testing")]
pub mod conformance;
mod dep;
#[cfg(feature = "disk")]
mod disk;
mod engine;
mod entry;
#[cfg(feature = "layers")]
mod envelope;
mod error;
mod explain;
mod flight;
mod index;
mod lane;
#[cfg(feature = "layers")]
mod layer;
#[cfg(feature = "layers")]
mod life;
mod links;
mod load;
mod many;
#[cfg(all(test, swiftwater_shuttle))]
mod models;
mod parameter;
#[cfg(feature = "layers")]
mod persist;
mod policy;
mod region;
mod relaxed;
mod review;
mod scope;
#[cfg(feature = "layers")]
mod shape;
mod sink;
mod skip;
mod source;
mod stamps;
mod stats;
mod store;
mod storing;
mod sync;
#[cfg(feature = "layers")]
mod tier;
#[cfg(feature = "layers")]
mod tiers;
mod usage;
mod waits;
mod warm;
mod writing;

pub use advice::Advice;
pub use builder::{Builder, RegionBuilder};
pub use cache::{Cache, CloseError, Invalidation, Reach, Swept};
pub use change::Change;
pub use dep::{Dep, MAX_EDGES};
#[cfg(feature = "disk")]
pub use disk::{Disk, DiskBuilder, DiskError};
pub use entry::Hit;
pub use error::{AnyError, AsError, LoadError};
pub use explain::{Cause, Explanation, Verdict};
pub use lane::Excess;
#[cfg(feature = "layers")]
pub use layer::{Layer, LayerError, LayerKey};
pub use links::LinkError;
pub use many::ManyCx;
pub use parameter::Parameter;
pub use region::{Loaded, Region, Skipping, Within};
pub use review::{Facts, InvalidationPolicy, Judgement, RarelyUsed};
pub use scope::{LoadCx, Scope};
pub use sink::{Behind, FlushError, Sink, StoreError, Writes};
pub use skip::Skip;
pub use source::Source;
#[cfg(feature = "layers")]
pub use tier::{Fill, Tier};
pub use usage::Usage;
pub use warm::{Warm, WarmError, Warmed};
pub use writing::Writing;
