//! Real servers as child processes, and a network that fails on demand, for tests that must not be satisfied with a fake.
//!
//! ```no_run
//! use swiftwater_testkit::Redis;
//!
//! let mut redis = Redis::start()?;
//! println!("{}", redis.url()); // redis://127.0.0.1:18342/
//! redis.freeze()?; // a silent peer: connections stand, nobody answers
//! redis.thaw()?;
//! redis.kill()?; // a crash: every connection is cut
//! redis.restart()?; // the same address again
//! # Ok::<(), swiftwater_testkit::Error>(())
//! ```
//!
//! # The picture
//!
//! A server owns a private temporary directory, a loopback port and a process. It is handed out only when it answers,
//! and dropping it ends the process (politely, then with `SIGKILL`) and removes the directory.
//!
//! Beside each server stands a *watchdog*, a few lines of `sh` that read a pipe from the test process. When the pipe
//! closes (the test process crashed, aborted, was interrupted or killed), the watchdog kills the server with its
//! children and removes the directory. A parent-death signal (`PR_SET_PDEATHSIG`) would not do: it fires when the
//! *thread* that started the server ends, so a server shared between tests would die with the first of them; and nobody
//! would be left to clean up.
//!
//! A [`Proxy`] stands between a client and any server, and lets the network refuse, reset, lose, delay, throttle or cut
//! what it carries. It is one thread of the test process, and needs no server installed.
//!
//! # Guarantees
//!
//! - No process and no directory is left behind, however the test process ends; `SIGKILL` included.
//! - [`Redis::freeze`] and [`Postgres::freeze`] return when the server and all of its children stand still.
//! - The address stays the same over `kill` and `restart`, and a proxy's over every [`Fault`].
//! - A [`Fault`] is in force when [`Proxy::set`] returns; dropping a proxy closes its connections and ends its thread.
//!
//! # Limits
//!
//! Linux only: it reads `/proc`. Everything but [`eventually`] blocks the calling thread for the milliseconds that
//! processes need; in a test that is no harm. PostgreSQL refuses to run as root, so under root it runs as the user
//! `postgres`, or `nobody`.

#![forbid(unsafe_code)]

mod error;
mod eventually;
mod postgres;
mod proxy;
mod redis;
mod server;
mod watchdog;

pub use error::Error;
pub use eventually::eventually;
pub use postgres::Postgres;
pub use proxy::{Direction, Fault, Proxy};
pub use redis::Redis;
