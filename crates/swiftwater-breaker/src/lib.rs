//! A circuit breaker: when a remote keeps failing, hangs or is slow, calls to it are refused for a while, then a few are let
//! through to see whether it is well again.
//!
//! ```
//! use std::time::Duration;
//! use swiftwater_breaker::{Breaker, OrFallback, Served, State, consecutive, failure_rate, stalled};
//! use swiftwater_core::Clock;
//!
//! let secs = Duration::from_secs;
//! let (clock, hand) = Clock::manual(); // leave both out to live in real time
//! let half_fail = failure_rate(0.5).over(secs(10)).min_calls(20);
//! let supplier = Breaker::builder()
//!     .trip_when(consecutive(3).or(half_fail).or(stalled(secs(5))))
//!     .clock(clock)
//!     .build()?;
//!
//! for _ in 0..3 {
//!     assert!(supplier.call_sync(|| "no price".parse::<u32>()).is_err());
//! }
//! assert_eq!(supplier.state(), State::Open);
//! let price = supplier.call_sync(|| "17".parse::<u32>()).or_fallback(|_| 15);
//! assert!(matches!(price, Ok(Served::Degraded { value: 15, .. }))); // not even asked: the fallback answered
//!
//! hand.advance(secs(1)); // the open time is over: the next call is a probe
//! assert_eq!(supplier.call_sync(|| "17".parse()), Ok(17));
//! assert_eq!(supplier.state(), State::Closed);
//! # Ok::<(), swiftwater_core::BuildError>(())
//! ```
//!
//! # The picture
//!
//! ```text
//!              a condition of `trip_when` is met            open time is over, somebody asks
//!   Closed ───────────────────────────────────────▶ Open ───────────────────────────────────▶ HalfOpen
//!    ▲  ▲                                           ▲  ▲                                       │    │
//!    │  │ `ramp` is over     condition met          │  └─────── too many probes failed ────────┘    │
//!    │  └──────────────────  Ramping  ──────────────┘                                               │
//!    │                          ▲                                                                   │
//!    └──────── no `ramp` ───────┴─────────────────── enough probes succeeded ───────────────────────┘
//! ```
//!
//! - **Closed** admits everything and watches. **Open** refuses everything, at the cost of looking at a deadline.
//!   **Half-open** admits a few [`probes`](Builder::probes) at a time and refuses the rest. **Ramping** admits a share that
//!   grows, and watches as Closed does.
//! - Every admitted call is a [`Permit`]. It remembers under which state it was granted, so a result that comes when the
//!   breaker has moved on is counted as *late* and changes nothing.
//! - How a call went is an [`Outcome`]; for closures a [`Classify`] finds it out, by default from `Ok` and `Err`. That it
//!   was slow the breaker sees for itself.
//! - Nothing runs by itself: no thread, no task, no timer. An open breaker becomes half-open when somebody asks.
//!
//! Three forms, one engine: the closure ([`Breaker::call`], [`Breaker::call_sync`], and [`Breaker::call_request`], which
//! gives back what a refused call would have used up), the permit ([`Breaker::try_acquire`]) for code that no closure can
//! wrap, and the [`Gate`](Breaker::gate) for pools and cache layers. [`Breakers`] keeps one for each endpoint, shard or
//! tenant.
//!
//! # When it opens
//!
//! | Condition | Opens when | Good for |
//! |---|---|---|
//! | [`consecutive`]`(5)`, the default | five failures, no success in between | a remote that is gone |
//! | [`failure_rate`]`(0.5)` | half of the calls of the last 10 s, or of the last 100 calls, failed | a remote that is mostly gone |
//! | [`slow_rate`]`(0.8, 1 s)` | so many took a second or longer | a remote that drowns |
//! | [`failure_count`]`(100)` | so many failed in the last 10 s | failures that cost by themselves |
//! | [`stalled`]`(5 s)` | five calls have been in flight for that long | a remote that hangs: seen before any time-out |
//!
//! Any of them, combined with [`or`](Trip::or). A remote of which only *part* is gone should not be cut off for it:
//! [`Builder::throttle`] sheds a share of the calls instead, so that the remote gets about twice what it can answer.
//!
//! # What each outcome does
//!
//! | The call ended as | in `Closed` or `Ramping` | in `HalfOpen`, as a probe | late |
//! |---|---|---|---|
//! | [`Success`](swiftwater_core::Outcome::Success) | ends the run of failures, counts in the windows | one of the [`successes`](Builder::successes) needed; the last one closes | counted as late |
//! | `Success`, but slow | the same, and may meet a [`slow_rate`] | a failed probe | counted as late |
//! | [`Failure`](swiftwater_core::Outcome::Failure), or a panic in a closure | adds to the run and the windows; opens if a condition is met | opens once more than [`probe_failures`](Builder::probe_failures) failed, the next open time drawn from a doubled range | counted as late |
//! | [`Ignored`](swiftwater_core::Outcome::Ignored) | counted, nothing else | gives the probe's permit back; was no trial | counted as late |
//! | [`Local`](swiftwater_core::Outcome::Local) | counted, nothing else | gives the probe's permit back; was no trial | counted as late |
//! | dropped: cancelled, or a [`Permit`] dropped, also by a panic | counted; slow if it had already taken that long, else nothing | as a slow one, or gives the probe's permit back | counted as late |
//! | never: it hangs | counts as [`stalled`], if that is looked for | gives the probe's permit back after the [`probe_lease`](Builder::probe_lease) | |
//!
//! *Late* is every result of a call that was admitted before the last change of state, and of a probe whose lease is over.
//! `ForcedClosed` counts outcomes by kind and acts on none; `ForcedOpen` admits nothing; `Disabled` admits everything and
//! does not even count. A breaker that [only observes](Builder::observe_only) decides as ever and then lets pass what it
//! would have refused; of such calls nothing is recorded.
//!
//! # Guarantees
//!
//! 1. Half-open, never more than [`probes`](Builder::probes) permits are out, whatever races.
//! 2. No permit is lost: every one is accounted for exactly once, as an outcome, as dropped or as late, when the call
//!    returns, panics or is cancelled. No probe that hangs holds up the recovery for longer than its lease.
//! 3. A late result changes nothing but its count: a success from before the trip closes nothing, a failure from before it
//!    opens nothing again, and neither counts in a later window.
//! 4. Only a failure, a slow call or a stalled one opens. A call that fails in place of one that succeeds, or in addition,
//!    never makes a closed breaker open later; an added success never makes it open earlier, once `min_calls` are there.
//! 5. A window in time: a call as old as it has no effect; one younger than 31/32 of it has its full effect. A window in
//!    calls is exact. (A call counts when its result is recorded; a thread that is held up in just that moment records it
//!    when it goes on.)
//! 6. No open time is shorter than half the base, nor longer than the cap ([`open_for`](Builder::open_for)). The deadline
//!    is there when the state is: nobody sees an open breaker with an old deadline.
//! 7. Time is the [`Clock`](swiftwater_core::Clock)'s alone: steps of the wall clock change nothing, and a process that was
//!    suspended wakes up to probes, not to a flood.
//! 8. Once [`force_open`](Breaker::force_open) has returned, nobody is admitted until it is undone.
//! 9. No code of yours (closure, future, destructor, classifier, clock, event callback) runs under a lock of the breaker: a
//!    call in progress holds up nobody, and may use the same breaker again.
//! 10. Every change of state is one [`Event`], in order: each begins where the one before it ended.
//!
//! Each is a test that fails without it: 1 to 3, 6, 8 and 10 under a model checker (`src/models.rs`), all of them against a
//! naive twin that keeps a list of everything and goes through it for every question (`tests/model.rs`).
//!
//! # Costs
//!
//! While it is healthy, a call takes no lock and writes nothing that another thread reads in a hurry: it loads one word that
//! seldom changes, and counts in memory of its own thread. What goes wrong takes one short lock. Nothing allocates but a
//! breaker's first event, its first probe, and the one call which finds that threads keep meeting in it.
//!
//! | | Lock | Clock | Measured |
//! |---|---|---|---:|
//! | a call that succeeds; only [`consecutive`] | no | no | 2.2 |
//! | .. with windows in time | no | one reading | 3.4 |
//! | .. with [`slow_rate`], [`stalled`] or [`throttle`](Builder::throttle) | no | two readings | 16 |
//! | .. with a window in calls | one | | 17 |
//! | a refusal | no | one reading | 5.0 |
//! | a failure; any other outcome; the first success after a failure | one | one reading | 19 |
//! | half-open, ramping, or while a throttle sheds | two | two readings | |
//!
//! (Nanoseconds in one thread, with the coarse clock, loop included: `benches/results/versus-breaker.md` of the repository,
//! beside the rivals and with two threads.) Memory is fixed when the breaker is built: 1.2 KB with one window, a KB as a key of
//! [`Breakers`], where what is configured is shared; 300 bytes for each window more. Threads other than its first settle
//! under the lock while they are few; from some hundred calls a second on, a breaker takes 1 KB for every eight threads that use
//! it, and another one if they are more than eight, and they do without. Threads beyond the 512th that live at once stay with
//! the lock.
//!
//! # Limits
//!
//! - Put a time-out *inside* the call, and keep it below the [`probe_lease`](Builder::probe_lease): [`stalled`] sees a remote
//!   that hangs, and ends no call.
//! - A breaker turns part of a service failing into all of it refused. Use one per endpoint, and per shard where shards fail
//!   alone ([`Breakers`]); not one per service name. Where neither is to be had, [`throttle`](Builder::throttle).
//! - A breaker protects one process's calls: it tells other processes nothing.
//! - It promises no durability: a refused call was not made, and what becomes of its data is the caller's choice.
//!
//! # Use something else when
//!
//! - the remote is slow under load rather than broken: limit concurrency (`tokio::sync::Semaphore`, tower's
//!   `ConcurrencyLimit`);
//! - calls fail now and then and succeed when made again: retry, within a budget (tower's `retry`);
//! - no call can be spared and none does harm to a sick remote: a time-out is enough.
//!
//! # Features
//!
//! None. Minimum supported Rust version: 1.88.
//!
//! [`Outcome`]: swiftwater_core::Outcome

#![forbid(unsafe_code)]

mod breaker;
mod breakers;
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
pub use breakers::{Breakers, BreakersBuilder};
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
