//! For services that come from bb8 0.9: its managers unchanged, and its names.
//!
//! `use swiftwater_pool::bb8::Pool` in place of `use bb8::Pool` is most of a migration:
//!
//! | bb8 | here |
//! |---|---|
//! | `Pool<M>` | [`bb8::Pool<M>`](Pool), which is [`Pool<Bb8<M>>`](crate::Pool) |
//! | `Pool::builder().build(manager).await?` | `Pool::builder().build(manager)?`: not async, opens nothing unless `min_idle` is set |
//! | `build_unchecked(manager)` | `build(manager)?` |
//! | `pool.get().await?` | the same |
//! | `PooledConnection<'_, M>` | [`PooledConnection<M>`]: always `'static`, so `get_owned` is `get` |
//! | `RunError::User(e)` | `GetError::Connect(e)`, only with `retry_connection(false)` |
//! | `RunError::TimedOut` | `GetError::Timeout(t)`, which says why |
//! | `connection_timeout` (30 s) | [`acquire_timeout`](crate::Builder::acquire_timeout) (5 s), [`connect_timeout`](crate::Builder::connect_timeout), [`check_timeout`](crate::Builder::check_timeout) |
//! | `test_on_check_out(true)` (default) | [`check(Check::Always)`](crate::Builder::check); the default is `Check::IdleFor(1 s)`. Either way only idle connections are checked: one that goes straight from a return to a waiter is not |
//! | `test_on_check_out(false)` | `check(Check::Never)` |
//! | `max_size`, `min_idle`, `max_lifetime`, `idle_timeout`, `retry_connection` | the same |
//! | `reaper_rate` | gone: connections expire when they expire |
//! | `queue_strategy` | gone: the most recently used connection first, callers in order |
//! | `error_sink` | gone: time-outs carry the last failure, counters the rest |
//! | `connection_customizer` | in your manager's `connect`, or a [`Connect`](crate::Connect) around [`Bb8`] |
//! | `pool.state()`: `connections`, `idle_connections`, `statistics` | [`pool.state()`](crate::Pool::state): `connecting + idle + in_use`, `idle`; [`Observe`](swiftwater_core::Observe) for the statistics |
//! | `pool.config()` | gone, save `max_size`, which is in `pool.state()` and is a knob |
//! | `Pool::add(connection)` | gone: only the pool opens connections |
//! | `From<E> for RunError<E>`, so `?` on a query's error gives a `RunError` | none: `GetError` speaks of getting alone; map it, or convert both into an error of your own |
//! | `pool.dedicated_connection()` | call `connect` on a manager |

use crate::Bb8;

/// A pool over a bb8 manager.
pub type Pool<M> = crate::Pool<Bb8<M>>;
/// Its builder.
pub type Builder<M> = crate::Builder<Bb8<M>>;
/// What its `get` gives.
pub type PooledConnection<M> = crate::Guard<Bb8<M>>;
/// Why its `get` failed.
pub type RunError<E> = crate::GetError<E>;
