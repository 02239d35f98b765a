//! The seams between the swiftwater crates: small contracts that a cache, a pool and a breaker share, so that they
//! can be composed, observed and tuned without knowing one another.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use swiftwater_core::{Clock, Counter, Desc, Registry, Unit, Visitor};
//!
//! static SERVED: Desc = Desc::new("served", Unit::Count, "requests answered");
//!
//! let served = Arc::new(Counter::new());
//! let read = served.clone();
//! let shop = Arc::new(move |visitor: &mut dyn Visitor| visitor.counter(&SERVED, read.read()));
//! let registry = Registry::new();
//! registry.add("shop", "main", &shop)?;
//! served.add(3);
//! assert!(registry.prometheus().contains("swiftwater_shop_served_total{shop=\"main\"} 3"));
//!
//! let (clock, hand) = Clock::manual();
//! let start = clock.now();
//! hand.advance(Duration::from_secs(5));
//! assert_eq!(clock.now() - start, Duration::from_secs(5));
//! # Ok::<(), swiftwater_core::NameTaken>(())
//! ```
//!
//! # The picture
//!
//! A *primitive* (cache, pool, breaker) owns its own engine and shows four faces, all defined here:
//!
//! | Seam | What it answers | Implemented by | Used by |
//! |---|---|---|---|
//! | [`Clock`] | what time is it, and how wrong may the answer be | system, coarse, manual, custom | every primitive |
//! | [`Gate`] | may I call that remote now; and how did it go ([`Outcome`]) | breakers, [`OpenGate`] | pools, cache layers |
//! | [`Observe`] | what is happening inside, as numbers and states | every primitive | [`Registry`], tests |
//! | [`Knob`] | what may automation turn, and within which bounds | every primitive | operators, tuners |
//!
//! [`Counter`] and [`Histogram`] are what hot paths write to, [`Backoff`] is how retries wait, [`BuildError`] is what
//! every builder answers when it is handed nonsense.
//!
//! # Guarantees
//!
//! - A [`Clock`] never goes back, and each kind states its lag.
//! - Every [`Token`] that a [`Gate`] handed out comes back through exactly one `settle`, panics and cancellation included,
//!   as long as it travels in a [`Pass`].
//! - A [`Counter`] never loses an increment and a [`Histogram`] never loses a record; both are bounded in memory.
//! - [`Registry`] and [`Knob`] hold components weakly: watching something never keeps it alive.
//!
//! # Costs
//!
//! Nothing here locks, blocks or allocates on a hot path, save where it is said:
//!
//! | Call | What it does |
//! |---|---|
//! | [`Clock::now`] | coarse, manual: one load; system: reads the system's clock; custom: calls its function |
//! | [`Counter::add`] | two loads and a store, for the first thread and once it is striped; 48 bytes, striped 1 to 8 KiB more |
//! | [`Histogram::record`] | two atomic operations; 40 bytes, 7.8 KiB once it records, striped 7.8 KiB per recording thread |
//! | [`Pass::enter`] and [`Pass::finish`] | what the gate does; through `&dyn` two virtual calls more, through an `Arc` its count, too |
//! | [`Observe::observe`] | a few loads per reading, no allocation |
//! | [`Registry::prometheus`] | allocates the page: for a scraper, not for a request |
//!
//! A counter is striped once other threads than the first have come often, a histogram once two were caught in it at the
//! same moment; the one call that finds out allocates the stripes. One thread exists at most: the ticker of [`Clock::coarse`], which starts with the first
//! read and ends when nobody reads. Measured beside the naive rivals in `benches/results/core.md` of the repository.
//!
//! # Limits
//!
//! - Needs 64-bit atomics. No async runtime, no I/O, no metrics protocol but Prometheus text.
//! - A [`Histogram`] is read whole, since the start of its life: windows and merging are the reader's. Where the values
//!   must be exact to a percent, use `hdrhistogram`.
//! - [`Clock::coarse`] is for deadlines and averages in milliseconds; to measure less, or where a clock that stands
//!   still would be unsafe, use [`Clock::system`].
//!
//! # Features
//!
//! | Feature | Default | Adds |
//! |---|---|---|
//! | `testing` | no | `conformance`: the laws of [`Gate`], [`Observe`] and [`Tunable`] as functions for tests |
//!
//! Minimum supported Rust version: 1.88.

#![forbid(unsafe_code)]

mod backoff;
mod clock;
#[cfg(feature = "testing")]
pub mod conformance;
mod counter;
mod error;
mod gate;
mod histogram;
mod knob;
mod observe;
mod registry;
mod stripes;
mod sync;
mod threads;

pub use backoff::Backoff;
pub use clock::{Clock, Hand, Tick};
pub use counter::Counter;
pub use error::BuildError;
pub use gate::{Gate, OpenGate, Outcome, Pass, Reason, Rejected, Token};
pub use histogram::Histogram;
pub use knob::{Knob, KnobError, Tunable};
pub use observe::{Desc, Distribution, Observe, Observer, Unit, Visitor};
pub use registry::{NameTaken, Registry};
