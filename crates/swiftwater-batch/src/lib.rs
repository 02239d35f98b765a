//! Batches calls without making them wait: an answer for each caller, deadlines, a queue that is bounded by time, and a
//! drain that ends.
//!
//! ```
//! use std::{collections::HashMap, time::Duration};
//! use swiftwater_batch::{Batcher, CallError, Missing};
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # runtime.block_on(async {
//! let names = Batcher::builder(|ids: Vec<u32>| async move {
//!     assert_eq!(ids, [1, 7]); // one query for all who asked: `select .. where id = any(..)`
//!     HashMap::from([(1, "ada")])
//! })
//! .deadline(Duration::from_millis(100))
//! .build()?;
//!
//! let (one, seven, again) = (names.call(1), names.call(7), names.call(1)); // from three requests, say
//! assert_eq!(one.await?, "ada");
//! assert_eq!(seven.await, Err(CallError::Handler(Missing)));
//! assert_eq!(again.await?, "ada");
//!
//! let report = names.drain(Duration::from_secs(5)).await;
//! assert_eq!(report.abandoned, 0);
//! # Ok::<_, Box<dyn std::error::Error>>(()) })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # The picture
//!
//! A request joins the queue when it is [called](Batcher::call). If a slot is free, a task starts, takes what has
//! gathered, and hands it to the handler as one batch. What comes while that runs forms the next batch. So nobody waits
//! for a batch to fill up: a lone request runs at once, and batches grow with the load by themselves. There are
//! [`in_flight`](Builder::in_flight) slots, and the task in one ends when the queue is empty.
//!
//! ```text
//! call ──▶ admission ──▶ lane a  ▪▪▪▪ ─┐ take turns            ┌▶ reply ──▶ caller
//! call ──▶ refused,      lane b  ▪     ├──▶ slot: handler(▪▪▪) ─┼▶ reply ──▶ caller
//!          handed back   lane c  ▪▪▪  ─┘                        └▶ reply ──▶ caller
//! ```
//!
//! The handler is a closure over a `Vec` of requests in one of three forms (see [`IntoHandler`]), or a [`Handler`], which
//! answers each request by its own [`Reply`], and may get hold of a connection first and only then
//! [seal](OpenBatch::seal) its batch. With [`group_by`](Builder::group_by), requests with different keys stay apart, in
//! lanes that take turns.
//!
//! # Guarantees
//!
//! 1. **One outcome**: every call that is let in ends once, with its answer or an error that says why. A request that is
//!    not let in is handed back by [`try_call`](Batcher::try_call).
//! 2. **No handler hangs a caller, or makes it panic**: a [`Reply`] that is dropped, a panic, a wrong number of results, a
//!    batch that is never sealed and a runtime that ends are errors of the calls in question, and the next batch runs.
//! 3. **Leaving**: a request whose [`Call`] is dropped before its batch is sealed is never handled, and holds no capacity
//!    from then on.
//! 4. **Independence**: no caller that is dropped, or not polled, delays another one. The work is done by tasks of the
//!    batcher, never inside a caller.
//! 5. **Bounds**: batches in flight, requests in a batch and requests that wait never exceed
//!    [`in_flight`](Builder::in_flight), [`max_items`](Builder::max_items) and [`max_queued`](Builder::max_queued), over
//!    all lanes together.
//! 6. **Order**: first come, first sealed, in every lane. A lane that was served goes to the end of the round, so none
//!    starves.
//! 7. **Deadlines**: a call with a [deadline](Builder::deadline) ends by then, whatever the handler does; a request that has
//!    expired is never sealed. One that is not expected to be answered in time is refused at once.
//! 8. **An end**: [`drain`](Batcher::drain) refuses what is new, ends by its limit whatever callers and handlers do, and
//!    reports what became of the calls.
//! 9. **Idle is nothing**: without work there is no task, without deadlines no timer, and keys leave nothing behind. When
//!    the last handle is dropped, calls that were made are still answered.
//!
//! No foreign code (handler, waker, destructor, key, clock) runs under the batcher's lock, so all of them may call it.
//!
//! # Under overload
//!
//! A queue that is bounded by count alone fills up until every request in it is too old when its turn comes: all work is
//! wasted. Give calls a deadline, and the queue is as long as can be answered in time. The batcher learns how long a run
//! takes (an exponentially weighted mean), counts the batches ahead of a request, lane by lane, adds an eighth, and
//! refuses what would come too late, with the time it expected. Nothing is refused before anything was learned, or when a
//! slot is free.
//!
//! # When it is off
//!
//! [`set_enabled(false)`](Batcher::set_enabled) makes it transparent: each request is a batch of its own, run at once,
//! without queue, bounds or admission. Errors, panics, deadlines and draining stay the same.
//!
//! # Costs
//!
//! Everything is under one short lock. A call: one lock when it is made, one when it is first polled, one for the reply and
//! one when the answer is taken, and no allocation: requests stand in a slab whose places are used again. With a deadline,
//! an entry in an ordered set, readings of tokio's clock and, once the whole queue together would take too long for it, a
//! look at each lane; with `group_by`, an allocation for the key, and one more lock if its lane is waiting already. A batch:
//! a box for the handler's future, a `Vec` of items (and what the form of the closure needs), three locks. A task is started
//! when a request finds a free slot, and another one for a first deadline: a lone call costs that, and one more lock, too.
//!
//! # Limits, and what to use instead
//!
//! - tokio only; timers are needed for deadlines and drains alone. Without a runtime: `rayon` and a channel.
//! - Callers that ask again as soon as they are answered can fall into two halves that take turns, one running while the
//!   other waits: nothing is held back to bring them together.
//! - Nothing is joined across batches: a key that is being looked up is looked up again for who asks meanwhile. Put a cache
//!   in front. Nothing is retried either.
//! - Calls are worth batching where one more request in a batch costs less than a batch of its own. For plain limits on
//!   concurrency a semaphore is simpler; for streams, `ready_chunks` of `futures`; for GraphQL, the loader that your server
//!   brings.
//! - Handlers run on the runtime of the caller who started their task. One that blocks its thread blocks whatever shares
//!   it, timers of a current-thread runtime among it: use `spawn_blocking` inside.
//! - A runtime that is neither driven nor dropped, a current-thread one between two `block_on` say, keeps the batch that it
//!   runs and the requests behind it waiting, and everybody's deadlines unwatched if the timer is on it: it is on the
//!   runtime of the first caller with one.
//! - Whether a runtime has timers is found out by a panic of tokio's, which is caught: the panic hook hears of it, and with
//!   `panic = "abort"` it is the end. Deadlines and drains want a runtime with timers.
//! - A handler that awaits its own batcher needs another slot, or it waits for itself; and one that owns a handle of it keeps it
//!   alive for ever.
//! - A `Reply` that is leaked (`mem::forget`) leaves its caller waiting until the deadline.
//! - A custom [`clock`](Builder::clock) must not panic: it is read in destructors too.
//! - After `fork` without `exec`, build anew.
//!
//! # Features
//!
//! | Feature | What it adds |
//! |---|---|
//! | `testing` | `conformance`: the laws of [`Handler`] as callable tests |
//!
//! Minimum supported Rust version: 1.88.

#![forbid(unsafe_code)]

mod batcher;
mod builder;
mod call;
mod closure;
#[cfg(feature = "testing")]
pub mod conformance;
mod error;
mod group;
mod handler;
mod pace;
mod shared;
mod slab;
mod state;
mod stats;

pub use batcher::{Batcher, Drained};
pub use builder::Builder;
pub use call::Call;
pub use closure::{Closure, IntoHandler, via};
pub use error::{CallError, Missing, Reason, Refused};
pub use handler::{Batch, Handler, Item, OpenBatch, Reply};

/// The README's program, kept working.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
