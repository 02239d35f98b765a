//! When a closed breaker opens: a value that is built from conditions.

use std::time::Duration;

use swiftwater_core::BuildError;

/// When a closed breaker opens: made by [`consecutive`], [`failure_rate`], [`slow_rate`], [`failure_count`] and [`stalled`],
/// combined by [`or`](Self::or).
///
/// ```
/// use std::time::Duration;
/// use swiftwater_breaker::{Breaker, consecutive, failure_rate, slow_rate, stalled};
///
/// let secs = Duration::from_secs;
/// let breaker = Breaker::builder()
///     .trip_when(
///         consecutive(5)
///             .or(failure_rate(0.5).over(secs(10)).min_calls(20))
///             .or(slow_rate(0.8, secs(1)).over_calls(100))
///             .or(stalled(secs(5)).at_least(10)),
///     )
///     .build()?;
/// # Ok::<(), swiftwater_core::BuildError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Trip {
    pub(crate) consecutive: Option<u32>,
    pub(crate) windows: Vec<Watch>,
    pub(crate) stalled: Vec<Stalled>,
}

/// Opens after `failures` failures without a success in between, however long that takes.
///
/// Raising it tolerates more before opening; lowering it lets chance open the breaker. From 1 to a million.
pub fn consecutive(failures: u32) -> Trip {
    Trip { consecutive: Some(failures), ..never() }
}

/// Opens when at least this share of the calls in a sliding window failed: from 0.001 to 1.
///
/// Only successes and failures are counted; see [`Rate`] for window and minimum.
pub fn failure_rate(share: f64) -> Rate {
    Rate { kind: Kind::Failures, share, span: Span::Time(DEFAULT_WINDOW), min_calls: None }
}

/// Opens when at least this share of the calls in a sliding window took `threshold` or longer, whether they succeeded or
/// failed: from 0.001 to 1, the threshold from 1 ms to 24 hours.
///
/// A call that is dropped counts if it had already taken that long. Half-open, a slow probe counts as a failed one. Durations
/// are those of the breaker's clock: the default one errs by a millisecond or two. See [`Rate`] for window and minimum.
pub fn slow_rate(share: f64, threshold: Duration) -> Rate {
    Rate { kind: Kind::Slow(threshold), share, span: Span::Time(DEFAULT_WINDOW), min_calls: None }
}

/// Opens when this many calls in a sliding window failed, however many succeeded. From 1 to a million.
///
/// For remotes whose failures are costly in themselves; elsewhere a [`failure_rate`] keeps its meaning when the traffic
/// changes.
pub fn failure_count(failures: u32) -> FailureCount {
    FailureCount { failures, window: DEFAULT_WINDOW }
}

/// Opens when several calls have been in flight for longer than this, though none of them has failed yet: a remote that
/// hangs is found out before its time-outs are. From 100 ms to 24 hours; see [`Stalled`] for how many.
///
/// Set it well above what a healthy call takes, and below the time-out of the call. It is looked at whenever a call begins
/// or ends, in steps of an eighth: a call is taken for stalled between once and nine eighths of the time after it began.
pub fn stalled(after: Duration) -> Stalled {
    Stalled { after, calls: DEFAULT_STALLED }
}

/// Never opens by itself: for breakers that only [`throttle`](crate::Builder::throttle), or only obey.
pub fn never() -> Trip {
    Trip { consecutive: None, windows: Vec::new(), stalled: Vec::new() }
}

impl Trip {
    /// Opens when either condition does. Of two [`consecutive`] conditions the lower one says it all and is kept.
    pub fn or(mut self, other: impl Into<Self>) -> Self {
        let other = other.into();
        self.consecutive = match (self.consecutive, other.consecutive) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self.windows.extend(other.windows);
        self.stalled.extend(other.stalled);
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let refuse = |value: String, expected| Err(BuildError::new("trip_when", value, expected));
        if let Some(failures) = self.consecutive
            && !(1..=MAX_COUNT).contains(&failures)
        {
            return refuse(format!("consecutive({failures})"), "must be from 1 to 1000000");
        }
        for watch in &self.windows {
            watch.check()?;
        }
        for Stalled { after, calls } in &self.stalled {
            if !(MIN_WINDOW..=LONGEST).contains(after) {
                return refuse(format!("stalled({after:?})"), "must be from 100 ms to 24 hours");
            }
            if !(1..=MAX_COUNT).contains(calls) {
                return refuse(format!("at_least({calls})"), "must be from 1 to 1000000");
            }
        }
        Ok(())
    }
}

/// [`consecutive`]`(5)`.
impl Default for Trip {
    fn default() -> Self {
        consecutive(DEFAULT_CONSECUTIVE)
    }
}

/// A share of bad calls in a window that really slides: made by [`failure_rate`] and [`slow_rate`].
///
/// In time, the window is kept in 32 slices, so that a call counts for at least 31/32 of it and never for the whole of it
/// or longer; memory is 300 bytes, whatever the traffic. In calls, it is exact; memory is a bit a call, and every call
/// takes a lock to put itself in order, where in time only failures do.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Rate {
    kind: Kind,
    share: f64,
    span: Span,
    min_calls: Option<u64>,
}

impl Rate {
    /// How far back calls count. Default 10 s; from 100 ms to 24 hours.
    ///
    /// Longer sees rarer trouble and remembers it longer; shorter reacts to fewer calls.
    pub fn over(mut self, window: Duration) -> Self {
        self.span = Span::Time(window);
        self
    }

    /// The last so many calls count, however old they are, in place of a time. From 1 to a million.
    ///
    /// For traffic that comes in bursts with long pauses; elsewhere old calls say little about now.
    pub fn over_calls(mut self, calls: u32) -> Self {
        self.span = Span::Calls(calls.into());
        self
    }

    /// While the window holds fewer calls than this, the rate opens nothing. Default 20, or all of a window of fewer calls;
    /// at least 1, and not more than fit into the window.
    ///
    /// Lower reacts sooner on quiet services, and takes more chances for trouble.
    pub fn min_calls(mut self, calls: u64) -> Self {
        self.min_calls = Some(calls);
        self
    }

    /// Opens when either condition does.
    pub fn or(self, other: impl Into<Trip>) -> Trip {
        Trip::from(self).or(other)
    }
}

impl From<Rate> for Trip {
    fn from(rate: Rate) -> Self {
        let Rate { kind, share, span, min_calls } = rate;
        let most = match span {
            Span::Calls(calls) => calls,
            Span::Time(_) => u64::MAX,
        };
        let min_calls = min_calls.unwrap_or_else(|| DEFAULT_MIN_CALLS.min(most));
        Self { windows: vec![Watch { kind, span, limit: Limit::Share { share, min_calls } }], ..never() }
    }
}

/// A number of failures in a sliding time window: made by [`failure_count`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct FailureCount {
    failures: u32,
    window: Duration,
}

impl FailureCount {
    /// How far back failures count. Default 10 s; from 100 ms to 24 hours.
    pub fn over(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Opens when either condition does.
    pub fn or(self, other: impl Into<Trip>) -> Trip {
        Trip::from(self).or(other)
    }
}

impl From<FailureCount> for Trip {
    fn from(count: FailureCount) -> Self {
        let limit = Limit::Count(count.failures);
        let watch = Watch { kind: Kind::Failures, span: Span::Time(count.window), limit };
        Self { windows: vec![watch], ..never() }
    }
}

/// Calls that hang: made by [`stalled`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Stalled {
    pub(crate) after: Duration,
    pub(crate) calls: u32,
}

impl Stalled {
    /// How many calls must hang at once. Default 5; from 1 to a million.
    pub fn at_least(mut self, calls: u32) -> Self {
        self.calls = calls;
        self
    }

    /// Opens when either condition does.
    pub fn or(self, other: impl Into<Trip>) -> Trip {
        Trip::from(self).or(other)
    }

    /// Nanoseconds of the slices by which the age of a call is told.
    pub(crate) fn width(&self) -> u64 {
        u64::try_from(self.after.as_nanos()).unwrap_or(u64::MAX) / STALLED_SLICES
    }

    /// At a time in slice `now`, calls that began before this slice are stalled.
    pub(crate) fn before(now: u64) -> u64 {
        now.saturating_sub(STALLED_SLICES)
    }
}

impl From<Stalled> for Trip {
    fn from(stalled: Stalled) -> Self {
        Self { stalled: vec![stalled], ..never() }
    }
}

/// Sheds part of the calls instead of opening: made by [`throttle`], used by [`Builder::throttle`](crate::Builder::throttle).
///
/// Over the window, `requests` are the calls that succeeded, failed or were shed, and `accepts` those that succeeded. A call is refused with
/// probability `(requests - k * accepts) / (requests + 1)`, or zero, so that the remote gets about `k` times what it can
/// answer: the client-side throttling of "Site Reliability Engineering" (Google, 2016), chapter 21.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Throttle {
    pub(crate) k: f64,
    pub(crate) window: Duration,
    pub(crate) min_calls: u64,
}

/// Sheds calls so that the remote gets about `k` times what it answers: from 1 to 100, usually 2.
///
/// Nearer to 1 sheds more, and sooner: below a share of failures of `1 - 1/k` nothing is shed.
pub fn throttle(k: f64) -> Throttle {
    Throttle { k, window: DEFAULT_THROTTLE_WINDOW, min_calls: DEFAULT_MIN_CALLS }
}

impl Throttle {
    /// How far back calls count. Default 2 minutes; from 100 ms to 24 hours.
    ///
    /// Longer is calmer; shorter recovers sooner.
    pub fn over(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// While the window holds fewer requests, nothing is shed. Default 20; at least 1.
    pub fn min_calls(mut self, calls: u64) -> Self {
        self.min_calls = calls;
        self
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch { kind: Kind::Failures, span: Span::Time(self.window), limit: Limit::None }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let refuse = |value: String, expected| Err(BuildError::new("throttle", value, expected));
        if !(1.0..=100.0).contains(&self.k) {
            return refuse(format!("throttle({})", self.k), "must be from 1 to 100");
        }
        if !(MIN_WINDOW..=LONGEST).contains(&self.window) {
            return refuse(format!("over({:?})", self.window), "must be from 100 ms to 24 hours");
        }
        if self.min_calls == 0 {
            return refuse("min_calls(0)".into(), "must be at least 1");
        }
        Ok(())
    }
}

/// One window and what it must not hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Watch {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
    pub(crate) limit: Limit,
}

/// Which calls are bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Failures,
    Slow(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Span {
    Calls(u64),
    Time(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    Count(u32),
    /// Kept for the throttle, which draws its own conclusions.
    None,
    Share {
        share: f64,
        min_calls: u64,
    },
}

impl Watch {
    fn check(&self) -> Result<(), BuildError> {
        let refuse = |value: String, expected| Err(BuildError::new("trip_when", value, expected));
        let rate = match self.kind {
            Kind::Failures => "failure_rate",
            Kind::Slow(_) => "slow_rate",
        };
        if let Kind::Slow(threshold) = self.kind
            && !(SHORTEST..=LONGEST).contains(&threshold)
        {
            return refuse(format!("slow_rate(_, {threshold:?})"), "must be from 1 ms to 24 hours");
        }
        match self.span {
            Span::Calls(calls) if !(1..=u64::from(MAX_COUNT)).contains(&calls) => {
                return refuse(format!("over_calls({calls})"), "must be from 1 to 1000000");
            }
            Span::Time(window) if !(MIN_WINDOW..=LONGEST).contains(&window) => {
                return refuse(format!("over({window:?})"), "must be from 100 ms to 24 hours");
            }
            Span::Calls(_) | Span::Time(_) => {}
        }
        match (self.limit, self.span) {
            (Limit::Count(count), _) if !(1..=MAX_COUNT).contains(&count) => {
                refuse(format!("failure_count({count})"), "must be from 1 to 1000000")
            }
            (Limit::Share { share, .. }, _) if !(MIN_SHARE..=1.0).contains(&share) => {
                refuse(format!("{rate}({share})"), "must be from 0.001 to 1")
            }
            (Limit::Share { min_calls: 0, .. }, _) => refuse("min_calls(0)".into(), "must be at least 1"),
            (Limit::Share { min_calls, .. }, Span::Calls(calls)) if min_calls > calls => {
                refuse(format!("min_calls({min_calls})"), "must not be more than the calls in the window")
            }
            _ => Ok(()),
        }
    }
}

/// What practice has settled on: Envoy's and Finagle's default too.
const DEFAULT_CONSECUTIVE: u32 = 5;
const DEFAULT_WINDOW: Duration = Duration::from_secs(10);
const DEFAULT_MIN_CALLS: u64 = 20;
const DEFAULT_STALLED: u32 = 5;
/// That of the book.
const DEFAULT_THROTTLE_WINDOW: Duration = Duration::from_secs(120);
pub(crate) const MAX_COUNT: u32 = 1_000_000;
pub(crate) const MIN_SHARE: f64 = 0.001;
/// A slice must stay above the lag of the coarse clock.
pub(crate) const MIN_WINDOW: Duration = Duration::from_millis(100);
/// The lag of the coarse clock.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const STALLED_SLICES: u64 = 8;
