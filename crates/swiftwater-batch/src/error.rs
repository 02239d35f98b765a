//! Why a call was refused, or failed.

use std::{error::Error, fmt, time::Duration};

use swiftwater_core::Outcome;

/// Why a call was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The batcher was closed by [`drain`](crate::Batcher::drain).
    Closed,
    /// As many requests as [`max_queued`](crate::Builder::max_queued) allows are waiting.
    #[non_exhaustive]
    Full {
        /// How many wait.
        queued: usize,
    },
    /// The answer is not expected before the deadline.
    #[non_exhaustive]
    Late {
        /// After how long it is expected; zero if no time was given at all.
        expected: Duration,
    },
    /// There is no tokio runtime to run the handler on, or it has ended; or the call has a deadline and the runtime no
    /// timers.
    NoRuntime,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the batcher is closed"),
            Self::Full { queued } => write!(f, "the queue is full ({queued} waiting)"),
            Self::Late { expected } if expected.is_zero() => f.write_str("there is no time left"),
            Self::Late { expected } => {
                write!(f, "the answer is expected after {:?}, beyond the deadline", readable(*expected))
            }
            Self::NoRuntime => f.write_str("there is no tokio runtime to run the handler"),
        }
    }
}

/// A request that was not let in, handed back.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused<Req> {
    /// As it was given.
    pub request: Req,
    /// Why.
    pub reason: Reason,
}

impl<Req> fmt::Debug for Refused<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<Req> fmt::Display for Refused<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {}", self.reason)
    }
}

impl<Req> Error for Refused<Req> {}

/// Why a call gave no output. `E` is the handler's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError<E> {
    /// [`drain`](crate::Batcher::drain) had reached its limit before there was an answer.
    Closed,
    /// The deadline has passed. Both times are as the batcher's [`clock`](crate::Builder::clock) saw them.
    #[non_exhaustive]
    Expired {
        /// How long the request stood in the queue.
        queued: Duration,
        /// How long it had been in the handler's hands; `None` if it never was, and never will be.
        running: Option<Duration>,
    },
    /// The handler answered with an error.
    Handler(E),
    /// The handler panicked before it had answered.
    HandlerPanicked,
    /// The handler let go of the request without an answer, or returned without taking its batch.
    NoReply,
    /// The call was not let in, and its request is gone; [`try_call`](crate::Batcher::try_call) hands it back.
    Refused(Reason),
    /// The runtime that ran the handler, or watched the deadline, has ended; or the call has a deadline and the runtime no
    /// timers, which came out too late to hand the request back.
    RuntimeEnded,
    /// A closure gave another number of results than it was given requests, so that nobody can tell whose they are; all
    /// calls of the batch end so.
    #[non_exhaustive]
    WrongCount {
        /// How many requests there were.
        expected: usize,
        /// How many results.
        got: usize,
    },
}

/// How a call ends.
pub(crate) type Ending<O, E> = Result<O, CallError<E>>;

impl<E> CallError<E> {
    /// What this says about whatever the handler uses, for a breaker around the call: [`Outcome::Failure`] if the handler
    /// answered with an error, or had the request and took too long; [`Outcome::Local`] for all that happened on this
    /// side, above all a queue that was too long.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Expired { running: Some(_), .. } | Self::Handler(_) => Outcome::Failure,
            Self::Closed
            | Self::Expired { running: None, .. }
            | Self::HandlerPanicked
            | Self::NoReply
            | Self::Refused(_)
            | Self::RuntimeEnded
            | Self::WrongCount { .. } => Outcome::Local,
        }
    }
}

impl<E> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the batcher was closed before there was an answer"),
            Self::Expired { queued, running: None } => {
                write!(f, "the deadline passed after {:?} in the queue", readable(*queued))
            }
            Self::Expired { queued, running: Some(running) } => {
                let (queued, running) = (readable(*queued), readable(*running));
                write!(f, "the deadline passed after {queued:?} in the queue and {running:?} in the handler")
            }
            Self::Handler(_) => f.write_str("the handler answered with an error"),
            Self::HandlerPanicked => f.write_str("the handler panicked"),
            Self::NoReply => f.write_str("the handler did not answer"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::RuntimeEnded => f.write_str("the runtime ended before there was an answer"),
            Self::WrongCount { expected, got } => {
                write!(f, "the handler gave {got} results for {expected} requests")
            }
        }
    }
}

impl<E: Error + 'static> Error for CallError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Handler(error) => Some(error),
            _ => None,
        }
    }
}

/// The map that a closure returned has no value for this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing;

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no value for this key")
    }
}

impl Error for Missing {}

/// Without digits that say nothing to people.
fn readable(duration: Duration) -> Duration {
    let unit = if duration < Duration::from_millis(1) { 1_000 } else { 1_000_000 };
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos - nanos % unit)
}
