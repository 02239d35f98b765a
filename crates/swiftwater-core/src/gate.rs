//! Admission and verdict, apart: what stands between a caller and a remote that may be sick.

use std::{error::Error, fmt, ops::Deref, sync::Arc, time::Duration};

use crate::clock::Tick;

/// How a call went, as its caller judges it. Slowness is not an outcome: the gate measured the time itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The remote failed, or did not answer in time.
    Failure,
    /// The answer says nothing about the remote's health: a missing row, a refused request.
    Ignored,
    /// Our own side failed before the remote could show anything: a full queue, an exhausted pool. Never the remote's
    /// fault.
    Local,
    /// The remote did its work.
    Success,
}

/// Why a gate refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The remote is being probed, and every probe permit is out.
    Full,
    /// The remote is considered down.
    Open,
    /// Part of the calls is shed.
    Throttled,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "every probe permit is out",
            Self::Open => "the gate is open",
            Self::Throttled => "part of the calls is shed",
        })
    }
}

/// A gate said no: why, and when asking again may help.
///
/// One word, as a [`Token`] is, so that `Result<Token, Rejected>` travels in registers and refusing is as cheap as admitting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rejected(
    /// `milliseconds << 8 | reason`.
    u64,
);

impl Rejected {
    /// `retry_after` is kept in whole milliseconds, rounded up, up to 49 days.
    #[inline]
    #[must_use]
    pub fn new(reason: Reason, retry_after: Duration) -> Self {
        // Not `as_nanos`, which computes with 128 bits.
        let part = u64::from(retry_after.subsec_nanos().div_ceil(1_000_000));
        let millis = retry_after.as_secs().saturating_mul(1000).saturating_add(part);
        Self(millis.min(u32::MAX.into()) << 8 | reason as u64)
    }

    /// Refused `now`, and to be expected until `then`: for gates that keep a deadline. As [`new`](Self::new) otherwise.
    #[inline]
    #[must_use]
    pub fn until(reason: Reason, now: Tick, then: Tick) -> Self {
        let millis = then.as_nanos().saturating_sub(now.as_nanos()).div_ceil(1_000_000);
        Self(millis.min(u32::MAX.into()) << 8 | reason as u64)
    }

    /// Why the gate refused.
    #[inline]
    #[must_use]
    pub fn reason(&self) -> Reason {
        const FULL: u64 = Reason::Full as u64;
        const OPEN: u64 = Reason::Open as u64;
        match self.0 & 0xff {
            FULL => Reason::Full,
            OPEN => Reason::Open,
            _ => Reason::Throttled,
        }
    }

    /// How long a refusal is to be expected at least. Zero: ask again at any time.
    #[inline]
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        Duration::from_millis(self.0 >> 8)
    }
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rejected = f.debug_struct("Rejected");
        rejected.field("reason", &self.reason()).field("retry_after", &self.retry_after()).finish()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected: {}", self.reason())?;
        if !self.retry_after().is_zero() {
            write!(f, ", retry after {:?}", self.retry_after())?;
        }
        Ok(())
    }
}

impl Error for Rejected {}

/// What a gate wants back when the call ends. Opaque to everybody but the gate that made it; not `Clone`, so that it
/// cannot be settled twice by accident.
#[derive(Debug)]
#[must_use = "a token that is never settled keeps its permit"]
pub struct Token(u64);

impl Token {
    /// For gates: packs what `settle` will need.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// For gates: what [`new`](Self::new) was given.
    #[must_use]
    pub const fn bits(&self) -> u64 {
        self.0
    }
}

/// Decides whether a call may be made, and learns how it went.
///
/// Callers do not use the two methods but a [`Pass`], which settles whatever happens.
///
/// # Laws
///
/// For callers, and kept by every [`Pass`]:
///
/// 1. Every token that `admit` returned goes back to the same gate through exactly one `settle`, on any thread.
///
/// For gates:
///
/// 2. `settle` frees whatever the token held, whatever the outcome. `None` is a censored observation: the caller was
///    dropped or cancelled and nobody knows how the call went, so it is taken neither for a success nor for a failure.
/// 3. [`Outcome::Local`] and [`Outcome::Ignored`] are never held against the remote.
/// 4. A token that is settled late, after the gate has moved on, changes nothing but counts.
/// 5. Both methods return without waiting for I/O or for another caller's work, neither panics, and neither allocates
///    (but for the one-time set-up of a [`Counter`](crate::Counter) or [`Histogram`](crate::Histogram) inside).
///
/// `conformance::gate` (feature `testing`) checks 2 to 4, as far as they show from outside.
///
/// # Examples
///
/// A gate that lets two calls in at a time:
///
/// ```
/// use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
/// use swiftwater_core::{Gate, Outcome, Pass, Reason, Rejected, Token};
///
/// #[derive(Default)]
/// struct Two(AtomicU32);
/// impl Gate for Two {
///     fn admit(&self) -> Result<Token, Rejected> {
///         let free = |n| (n < 2).then_some(n + 1);
///         match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, free) {
///             Ok(_) => Ok(Token::new(0)),
///             Err(_) => Err(Rejected::new(Reason::Full, Duration::ZERO)),
///         }
///     }
///     fn settle(&self, _: Token, _: Option<Outcome>) {
///         self.0.fetch_sub(1, Ordering::AcqRel);
///     }
/// }
///
/// let gate = Two::default();
/// let (first, second) = (Pass::enter(&gate)?, Pass::enter(&gate)?);
/// assert_eq!(Pass::enter(&gate).unwrap_err().reason(), Reason::Full);
/// first.finish(Outcome::Success);
/// drop(second); // cancelled: its place is free again all the same
/// assert!(Pass::enter(&gate).is_ok());
/// # Ok::<(), Rejected>(())
/// ```
pub trait Gate: Send + Sync + 'static {
    /// May a call be made now?
    ///
    /// # Errors
    ///
    /// [`Rejected`], with the reason and the time after which asking again may help.
    fn admit(&self) -> Result<Token, Rejected>;

    /// The call that `token` admitted has ended so; `None` if nobody knows how.
    fn settle(&self, token: Token, outcome: Option<Outcome>);
}

impl<G: Gate + ?Sized> Gate for Arc<G> {
    #[inline]
    fn admit(&self) -> Result<Token, Rejected> {
        (**self).admit()
    }

    #[inline]
    fn settle(&self, token: Token, outcome: Option<Outcome>) {
        (**self).settle(token, outcome);
    }
}

/// The gate that is always open: for calls that need no protection, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenGate;

impl Gate for OpenGate {
    #[inline]
    fn admit(&self) -> Result<Token, Rejected> {
        Ok(Token::new(0))
    }

    #[inline]
    fn settle(&self, _: Token, _: Option<Outcome>) {}
}

/// One admitted call, over any pointer to a gate: `Pass<&MyGate>`, `Pass<&dyn Gate>`, `Pass<Arc<dyn Gate>>`.
///
/// [`finish`](Self::finish) it with the outcome. Dropping it, in a cancelled future or while unwinding, settles with
/// `None`, so nothing that the gate lent is lost, save by `mem::forget`. The pointer must always lead to the same gate, as
/// references and `Arc`s do.
///
/// Cost: that of the gate, and nothing through a reference to a known type; see `benches/results/core.md` for the others.
#[must_use = "dropping a pass at once reports a call that nobody made"]
pub struct Pass<P: Deref<Target: Gate>> {
    gate: P,
    token: Option<Token>,
}

impl<P: Deref<Target: Gate>> Pass<P> {
    /// Asks the gate.
    ///
    /// # Errors
    ///
    /// [`Rejected`] as the gate answered.
    #[inline]
    pub fn enter(gate: P) -> Result<Self, Rejected> {
        let token = Some(gate.admit()?);
        Ok(Self { gate, token })
    }

    /// The call ended so.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        if let Some(token) = self.token.take() {
            self.gate.settle(token, Some(outcome));
        }
    }
}

impl<P: Deref<Target: Gate>> Drop for Pass<P> {
    #[inline]
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.gate.settle(token, None);
        }
    }
}

impl<P: Deref<Target: Gate>> fmt::Debug for Pass<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("token", &self.token).finish_non_exhaustive()
    }
}
