//! Why a `get` failed.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use swiftwater_core::{Outcome, Rejected};

use crate::State;

/// Why [`Pool::get`](crate::Pool::get) gave no connection. `E` is the connector's error.
#[derive(Debug)]
#[non_exhaustive]
pub enum GetError<E> {
    /// The pool has been closed.
    Closed,
    /// Connecting failed, and [`retry_connection`](crate::Builder::retry_connection) is off.
    Connect(E),
    /// A new connection was broken at once, as [`Connect::is_broken`](crate::Connect::is_broken) said, and
    /// [`retry_connection`](crate::Builder::retry_connection) is off.
    ConnectBroken,
    /// The connector panicked, and [`retry_connection`](crate::Builder::retry_connection) is off.
    ConnectPanicked,
    /// Connecting took longer than `limit`, the [`connect_timeout`](crate::Builder::connect_timeout), and
    /// [`retry_connection`](crate::Builder::retry_connection) is off.
    #[non_exhaustive]
    ConnectTimeout {
        /// How long it was given.
        limit: Duration,
    },
    /// As many as [`max_waiters`](crate::Builder::max_waiters) allows are waiting already.
    #[non_exhaustive]
    Full {
        /// How many wait.
        waiters: u32,
    },
    /// A connection would have been opened, and the [`gate`](crate::Builder::gate) said no.
    Rejected(Rejected),
    /// The runtime that the pool was built on has ended.
    RuntimeEnded,
    /// Nothing came within [`acquire_timeout`](crate::Builder::acquire_timeout).
    Timeout(Timeout),
}

impl<E> GetError<E> {
    /// What this says about the backend, for a breaker around the whole call: [`Outcome::Failure`] only if the backend
    /// could not be reached, [`Outcome::Local`] for everything that happened on this side, above all an exhausted pool.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Connect(_) | Self::ConnectBroken | Self::ConnectTimeout { .. } => Outcome::Failure,
            Self::Timeout(timeout) if timeout.cause() == Cause::Unreachable => Outcome::Failure,
            Self::Closed
            | Self::ConnectPanicked
            | Self::Full { .. }
            | Self::Rejected(_)
            | Self::RuntimeEnded
            | Self::Timeout(_) => Outcome::Local,
        }
    }
}

impl<E> fmt::Display for GetError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the pool is closed"),
            Self::Connect(_) => f.write_str("a connection could not be opened"),
            Self::ConnectBroken => f.write_str("a new connection was broken at once"),
            Self::ConnectPanicked => f.write_str("opening a connection panicked"),
            Self::ConnectTimeout { limit } => write!(f, "a connection could not be opened within {limit:?}"),
            Self::Full { waiters } => {
                write!(f, "no connection is free and the queue is full ({waiters} waiting)")
            }
            Self::Rejected(_) => f.write_str("the gate does not let a connection be opened"),
            Self::RuntimeEnded => f.write_str("the runtime that the pool was built on has ended"),
            Self::Timeout(timeout) => timeout.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for GetError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Rejected(rejected) => Some(rejected),
            _ => None,
        }
    }
}

/// Nothing came in time: for how long, why, and how the pool stood at that moment.
#[derive(Clone, Debug)]
pub struct Timeout {
    pub(crate) waited: Duration,
    pub(crate) cause: Cause,
    pub(crate) state: State,
    pub(crate) last_failure: Option<LastFailure>,
}

impl Timeout {
    /// How long the caller waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Whose fault it was.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The pool at that moment; this caller is not among the waiters any more.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The last failed attempt to connect, if none has succeeded since.
    #[must_use]
    pub fn last_failure(&self) -> Option<&LastFailure> {
        self.last_failure.as_ref()
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection within {:?}: ", readable(self.waited))?;
        let State { connecting, in_use, max_size, waiters, .. } = self.state;
        match self.cause {
            Cause::Exhausted if in_use < max_size => write!(
                f,
                "connections come too slowly ({connecting} connecting, {in_use} of {max_size} in use, {waiters} waiting)"
            )?,
            Cause::Exhausted => {
                write!(f, "the pool is exhausted ({in_use} of {max_size} in use, {waiters} waiting)")?;
            }
            Cause::Unreachable if self.last_failure.is_some() => {
                f.write_str("the backend could not be reached")?;
            }
            Cause::Unreachable => write!(
                f,
                "the backend did not answer ({connecting} connecting, {in_use} of {max_size} in use)"
            )?,
        }
        let Some(failure) = &self.last_failure else { return Ok(()) };
        let failed =
            if self.cause == Cause::Unreachable { "," } else { "; the last attempt to connect failed" };
        write!(f, "{failed} {:?} ago: {}", readable(failure.ago), failure.text)
    }
}

/// Whose fault a time-out was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Every connection that the pool may have was in use, or connections were opened, but not fast enough for all who
    /// waited: a larger pool, shorter use or fewer callers would help.
    Exhausted,
    /// There was room for another connection, and while the caller waited none was opened and no check succeeded, or an
    /// attempt failed afterwards: the backend is down, or does not answer.
    Unreachable,
}

/// A failed attempt to connect. As text, since connectors' errors can be neither cloned nor shared in general.
#[derive(Clone, Debug)]
pub struct LastFailure {
    pub(crate) text: Arc<str>,
    pub(crate) ago: Duration,
}

impl LastFailure {
    /// The error as its `Debug` writes it, or what the pool itself has to say (a time-out, a panic).
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How long before the time-out it happened.
    #[must_use]
    pub fn ago(&self) -> Duration {
        self.ago
    }
}

/// Without digits that say nothing to people.
fn readable(duration: Duration) -> Duration {
    let unit = if duration < Duration::from_millis(1) { 1_000 } else { 1_000_000 };
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos - nanos % unit)
}
