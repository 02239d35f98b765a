//! A connection pool for any bb8 manager, or a connector of your own: first come, first served, safe to cancel anywhere,
//! and its time-outs say why.
//!
//! ```
//! use std::time::Duration;
//! use swiftwater_pool::{Cause, GetError, Pool};
//! # struct Manager;
//! # impl bb8::ManageConnection for Manager {
//! #     type Connection = Vec<u8>;
//! #     type Error = std::io::Error;
//! #     async fn connect(&self) -> std::io::Result<Vec<u8>> { Ok(Vec::new()) }
//! #     async fn is_valid(&self, _: &mut Vec<u8>) -> std::io::Result<()> { Ok(()) }
//! #     fn has_broken(&self, _: &mut Vec<u8>) -> bool { false }
//! # }
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # runtime.block_on(async {
//! let pool = Pool::builder()
//!     .max_size(1)
//!     .acquire_timeout(Duration::from_millis(20))
//!     .build(Manager)?; // `PostgresConnectionManager::new(..)`, for example
//!
//! let mut connection = pool.get().await?; // opened now, and reused from then on
//! connection.push(1);
//!
//! let Err(GetError::Timeout(timeout)) = pool.get().await else { panic!("there is only one") };
//! assert_eq!(timeout.cause(), Cause::Exhausted);
//! assert!(timeout.to_string().ends_with("the pool is exhausted (1 of 1 in use, 0 waiting)"));
//!
//! drop(connection); // whoever waits longest gets it; here nobody does
//! assert_eq!(pool.with(async |connection| connection.len()).await?, 1);
//! # Ok::<_, Box<dyn std::error::Error>>(()) })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # The picture
//!
//! A pool has `max_size` places. A place is empty, or its connection is being opened, idle, checked, in use, or being
//! closed. Callers stand in one queue. Whatever becomes free, because it was returned, opened or has passed its check,
//! goes to the head of that queue, and only if nobody stands there does it become idle. So nobody waits while there is an
//! idle connection that needs no check, and nobody overtakes.
//!
//! Callers never connect. They ask, and tasks of the pool connect and check on the runtime that
//! [`build`](Builder::build) was called on, at most `max_connecting` at a time, each under its own time-out. So a caller
//! who gives up interrupts no login, a connection belongs to one runtime for good, and a hanging attempt holds up
//! its place until its time-out, and nobody's beyond.
//!
//! Three times are kept apart: how long a caller waits ([`acquire_timeout`](Builder::acquire_timeout)), how long a
//! connect may take ([`connect_timeout`](Builder::connect_timeout)), how long a check may take
//! ([`check_timeout`](Builder::check_timeout)).
//!
//! # Guarantees
//!
//! 1. **Bound**: connections being opened, checked, in use and idle together never exceed `max_size`, on the backend's
//!    side too if the connector closes by dropping. After `max_size` was lowered they only shrink.
//! 2. **Nothing is lost**: every place is held by a token that gives it back on panic, on cancellation, and when a
//!    runtime drops its tasks.
//! 3. **No idle connection that may be handed out without a check while somebody waits.** Of those that must be checked
//!    first, as many are being checked as callers wait.
//! 4. **Order**: callers are served in the order of their first polls. One return wakes one caller.
//! 5. **Cancellation**: dropping a [`Get`] after any number of polls keeps all of this; what was on its way to it goes to
//!    the next caller.
//! 6. **Panics** in the connector, the gate or a destructor cost at most the connection in question.
//! 7. **Nothing half-done is reused**: a connection whose check was cut off is closed, and so is one whose
//!    [`with`](Pool::with) was cancelled or panicked, or whose [`Guard`] was dropped by a panicking thread.
//! 8. **Recovery**: once the backend works again, a caller is served within the cap of [`backoff`](Builder::backoff) plus
//!    a connect, after an attempt that hangs has been cut off by `connect_timeout`. After one failed check all idle
//!    connections are checked at once, while new ones are opened.
//! 9. **No herds**: at most `max_connecting` attempts at once; with `retry_connection(true)`, one at a time while the backend
//!    is down, beside those that still hang, with jittered pauses between. Lifetimes differ by up to a tenth either way; what
//!    nobody waits for any more is not begun.
//! 10. **An end**: [`close`](Pool::close) takes effect at once, and is ready when nothing is open. When the last handle,
//!     `Get` and `Guard` are gone, idle connections are closed, and connecting, checking and the maintenance end.
//! 11. **The numbers add up**: connections opened are those closed, by reason, and those that are there.
//!
//! No foreign code (connector, waker, destructor, clock) runs under the pool's lock.
//!
//! # When it is off
//!
//! [`set_enabled(false)`](Pool::set_enabled) makes it transparent: each `get` opens a connection of its own, returning closes it,
//! nothing is reused or checked. Bound, order, time-outs and counters stay, so the backend stays protected and both ways can be
//! compared in one process.
//!
//! # Costs
//!
//! A checkout from idle and its return: two short locks of one mutex, a handful of counters, a few reads of a coarse clock;
//! no allocation, no timer, no task. A checkout that waits: two or three locks and an entry in a small tree and in a small map; its
//! deadline is watched by the pool's one maintenance task, not by a timer of its own. Connecting, checking and slow
//! goodbyes cost a task each. The maintenance task exists only while a caller waits, an idle connection can expire or an
//! attempt is due, and sleeps until then. It keeps
//! three histograms, whose memory is taken when they are first used.
//!
//! # Limits, and what to use instead
//!
//! - tokio only, with timers. Without a runtime: `r2d2`.
//! - One kind of endpoint per pool: several hosts, roles and failover are the connector's business. For Postgres in a
//!   proxy: PgBouncer, PgCat.
//! - It hands out one connection to one user at a time. For HTTP/2, and for a Redis client that multiplexes, one shared
//!   connection is better than a pool.
//! - `sqlx`, `sea-orm` and MongoDB's driver bring their own pool, and cannot use another.
//! - If all you want is to hold some objects, with hooks and no upkeep: `deadpool`. If you need bb8's own guard type in
//!   somebody's signature: `bb8`.
//! - A future that is dropped in the middle of a query leaves its connection in an unknown state. `with` knows; a plain
//!   [`Guard`] does not, and gives the connection back unless the connector's `is_broken` objects.
//! - A check says that a peer answers, not that it is the right one: a demoted primary answers too.
//! - The runtime that the pool was built on must be driven: it connects and checks, and it watches the deadlines of all
//!   callers, whatever runtime they wait on. If nobody runs it, they wait longer than `acquire_timeout`.
//! - A pool learns that its runtime has ended when a task of its is dropped, or the next one would have to run. Idle
//!   connections that can never expire (neither `max_lifetime` nor `idle_timeout`) have no such task, so they stay open, and
//!   are handed out, until then.
//! - A [`Get`] that has been served holds its connection until it is polled or dropped; one that is kept without being
//!   polled keeps it from all others.
//! - A guard that is leaked (`mem::forget`) takes its place with it for ever, and [`close`](Pool::close) waits for it.
//! - Tasks that take a second connection while they hold one can wait for each other until their time is up. `tasks` tasks
//!   that each hold up to `held` are safe with `max_size` at least `tasks * (held - 1) + 1`.
//! - A custom [`clock`](Builder::clock) must not panic: it is read in destructors too.
//! - After `fork` without `exec`, build anew.
//!
//! # From bb8
//!
//! See [`bb8`] for a table. Managers work unchanged, `use swiftwater_pool::bb8::Pool` is most of it. bb8's engine is not
//! used; its trait is. It is in our public signatures although it is not 1.0, because that trait is what managers are
//! written for: bb8 0.10 would be a second marker in [`via`].
//!
//! # Features
//!
//! | Feature | What it adds |
//! |---|---|
//! | `testing` | `conformance`: the laws of [`Connect`] as callable tests |
//!
//! Minimum supported Rust version: 1.88.

#![forbid(unsafe_code)]

pub mod bb8;
mod builder;
#[cfg(feature = "testing")]
pub mod conformance;
mod connect;
mod engine;
mod error;
mod get;
mod guard;
mod pool;
mod shared;
mod stats;

pub use builder::{Builder, Check};
pub use connect::{Bb8, Connect, IntoConnect, via};
pub use error::{Cause, GetError, LastFailure, Timeout};
pub use get::Get;
pub use guard::Guard;
pub use pool::{Pool, State};
