//! A circuit breaker: when a remote keeps failing, calls to it are refused for a while, then a few are let through to see
//! whether it is well again.
//!
//! ```
//! use std::time::Duration;
//! use swiftwater_breaker::{Breaker, OrFallback, Served, State, consecutive, failure_rate};
//! use swiftwater_core::Clock;
//!
//! let (clock, hand) = Clock::manual(); // leave both out to live in real time
//! let rate = failure_rate(0.5).over(Duration::from_secs(10)).min_calls(20);
//! let supplier = Breaker::builder().trip_when(consecutive(3).or(rate)).clock(clock).build()?;
//!
//! for _ in 0..3 {
//!     assert!(supplier.call_sync(|| "no price".parse::<u32>()).is_err());
//! }
//! assert_eq!(supplier.state(), State::Open);
//! let price = supplier.call_sync(|| "17".parse::<u32>()).or_fallback(|_| 15);
//! assert!(matches!(price, Ok(Served::Degraded { value: 15, .. }))); // not even asked: the fallback answered
//!
//! hand.advance(Duration::from_secs(1)); // the open time is over: the next call is a probe
//! assert_eq!(supplier.call_sync(|| "17".parse()), Ok(17));
//! assert_eq!(supplier.state(), State::Closed);
//! # Ok::<(), swiftwater_core::BuildError>(())
//! ```
//!
//! # The picture
//!
//! ```text
//!              a condition of `trip_when` is met            open time is over
//!   Closed ───────────────────────────────────────▶ Open ──────────────────────▶ HalfOpen
//!     ▲                                              ▲                            │    │
//!     │                                              └──── a probe failed ────────┘    │
//!     └─────────────────────── enough probes succeeded ────────────────────────────────┘
//! ```
//!
//! - **Closed** admits everything and watches. **Open** refuses everything, at the cost of looking at a deadline.
//!   **Half-open** admits a few [`probes`](Builder::probes) at a time and refuses the rest.
//! - Every admitted call is a [`Permit`]. It remembers under which state it was granted, so a result that comes when the
//!   breaker has moved on is counted as *late* and changes nothing.
//! - How a call went is an [`Outcome`]; for closures a [`Classify`] finds it out, by default from `Ok` and `Err`.
//! - Nothing runs by itself: no thread, no task, no timer. An open breaker becomes half-open when somebody asks.
//!
//! Three forms, one engine: the closure ([`Breaker::call`], [`Breaker::call_sync`]), the permit
//! ([`Breaker::try_acquire`]) for code that no closure can wrap, and the [`Gate`](Breaker::gate) for
//! pools and cache layers.
//!
//! # What each outcome does
//!
//! | The call ended as | in `Closed` | in `HalfOpen`, as a probe | late |
//! |---|---|---|---|
//! | [`Success`](swiftwater_core::Outcome::Success) | ends the run of failures, counts in the rates; never opens | one of the [`successes`](Builder::successes) needed; the last one closes | counted as late |
//! | [`Failure`](swiftwater_core::Outcome::Failure), or a panic in a closure | adds to the run and the rates; opens if a condition is met | opens, the next open time drawn from a doubled range | counted as late |
//! | [`Ignored`](swiftwater_core::Outcome::Ignored) | counted, nothing else | gives the probe's permit back; was no trial | counted as late |
//! | [`Local`](swiftwater_core::Outcome::Local) | counted, nothing else | gives the probe's permit back; was no trial | counted as late |
//! | dropped: cancelled, or a [`Permit`] dropped, also by a panic | counted, nothing else | gives the probe's permit back; was no trial | counted as late |
//! | never: it hangs | nothing | gives the probe's permit back after the [`probe_lease`](Builder::probe_lease) | |
//!
//! *Late* is every result of a call that was admitted before the last change of state, and of a probe whose lease is over.
//! `ForcedClosed` counts outcomes by kind and acts on none; `ForcedOpen` admits nothing; `Disabled` admits everything and
//! does not even count.
//!
//! # Guarantees
//!
//! 1. Half-open, never more than [`probes`](Builder::probes) permits are out, whatever races.
//! 2. No permit is lost: every one is accounted for exactly once, as an outcome, as dropped or as late, when the call
//!    returns, panics or is cancelled. No probe that hangs holds up the recovery for longer than its lease.
//! 3. A late result changes nothing but its count: a success from before the trip closes nothing, a failure from before it
//!    opens nothing again.
//! 4. Only a failure opens. A call that fails in place of one that succeeds, or in addition, never makes a closed breaker
//!    open later; an added success never makes it open earlier, once `min_calls` are there.
//! 5. A call as old as the window of a [`failure_rate`] has no effect on it; one younger than 31/32 of it has its full effect.
//! 6. No open time is shorter than half the base, nor longer than the cap ([`open_for`](Builder::open_for)). The deadline
//!    is there when the state is: nobody sees an open breaker with an old deadline.
//! 7. Time is the [`Clock`](swiftwater_core::Clock)'s alone: steps of the wall clock change nothing, and a process that was
//!    suspended wakes up to probes, not to a flood.
//! 8. Once [`force_open`](Breaker::force_open) has returned, nobody is admitted until it is undone.
//! 9. No code of yours (closure, future, destructor, classifier, clock) runs under a lock of the breaker: a call in progress
//!    holds up nobody, and may use the same breaker again.
//!
//! # Costs
//!
//! Admission and result each read the clock once and take one short lock; neither allocates, in any state. An outcome is
//! judged in constant time; a failure also adds up the 32 slices of each rate. Memory is fixed when the breaker is built:
//! about half a KiB for each rate and 16 bytes for each probe.
//!
//! # Limits
//!
//! - Only calls that end are seen. A remote that hangs is invisible until time-outs arrive, so put a time-out *inside* the
//!   call, and keep it below the [`probe_lease`](Builder::probe_lease).
//! - A breaker turns part of a service failing into all of it refused. Use one per endpoint, and per shard where shards fail
//!   alone; not one per service name.
//! - A breaker protects one process's calls: it tells other processes nothing.
//! - It promises no durability: a refused call was not made, and what becomes of its data is the caller's choice.
//!
//! # Use something else when
//!
//! - the remote is slow under load rather than broken: limit concurrency (`tokio::sync::Semaphore`, tower's
//!   `ConcurrencyLimit`);
//! - calls fail now and then and succeed when made again: retry, within a budget (tower's `retry`);
//! - no call can be spared and none does harm to a sick remote: a time-out is enough;
//! - the window must be counted in calls, not in time: `recloser` keeps one.
//!
//! # Features
//!
//! None. Minimum supported Rust version: 1.88.
//!
//! [`Outcome`]: swiftwater_core::Outcome

#![forbid(unsafe_code)]

mod breaker;
mod builder;
mod call;
mod classify;
mod event;
mod face;
mod fallback;
mod knobs;
mod live;
#[cfg(all(test, swiftwater_loom))]
mod models;
mod state;
mod stripes;
mod sync;
mod threads;
mod trip;
mod window;

pub use breaker::{Breaker, Permit};
pub use builder::Builder;
pub use call::{CallError, Judged, RequestError};
pub use classify::{ByResult, Classify};
pub use event::{Cause, Event};
pub use fallback::{OrFallback, Served};
pub use state::State;
pub use trip::{
    FailureCount, Rate, Stalled, Throttle, Trip, consecutive, failure_count, failure_rate, never, slow_rate,
    stalled, throttle,
};

/// The README's program, kept working.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
