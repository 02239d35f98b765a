//! The seams between the swiftwater crates: small contracts that a cache, a pool and a breaker share, so that they
//! can be composed, observed and tuned without knowing one another.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use swiftwater_core::{Clock, Counter, Desc, Observe, Registry, Unit, Visitor};
//!
//! static SERVED: Desc = Desc::new("served", Unit::Count, "requests answered");
//!
//! #[derive(Default)]
//! struct Shop {
//!     served: Counter,
//! }
//! impl Observe for Shop {
//!     fn observe(&self, visitor: &mut dyn Visitor) {
//!         visitor.counter(&SERVED, self.served.read());
//!     }
//! }
//!
//! let shop = Arc::new(Shop::default());
//! let registry = Registry::new();
//! registry.add("shop", "main", &shop)?;
//! shop.served.add(3);
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
//! No async runtime, no I/O. One thread exists at most: the ticker of [`Clock::coarse`], which starts with the first
//! read and ends when nobody reads. Figures: `benches/results/core.md` in the repository.
//!
//! # Features
//!
//! None. Minimum supported Rust version: 1.88.

#![forbid(unsafe_code)]

mod backoff;
mod clock;
mod counter;
mod error;
mod gate;
mod histogram;
mod knob;
mod observe;
mod registry;
mod sync;

pub use backoff::Backoff;
pub use clock::{Clock, Hand, Tick};
pub use counter::Counter;
pub use error::BuildError;
pub use gate::{Gate, OpenGate, Outcome, Pass, Reason, Rejected, Token};
pub use histogram::Histogram;
pub use knob::{Knob, KnobError, Tunable};
pub use observe::{Desc, Distribution, Observe, Observer, Unit, Visitor};
pub use registry::{NameTaken, Registry};
