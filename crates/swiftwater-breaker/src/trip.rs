//! When a closed breaker opens: a value that is built from conditions.

use std::time::Duration;

use swiftwater_core::BuildError;

/// When a closed breaker opens: made by [`consecutive`] and [`failure_rate`], combined by [`or`](Self::or).
///
/// Only a failure opens a breaker: a success, however it changes the numbers, never does.
///
/// ```
/// use std::time::Duration;
/// use swiftwater_breaker::{Breaker, consecutive, failure_rate};
///
/// let half_of_them = failure_rate(0.5).over(Duration::from_secs(10)).min_calls(20);
/// let breaker = Breaker::builder().trip_when(consecutive(5).or(half_of_them)).build()?;
/// # Ok::<(), swiftwater_core::BuildError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Trip {
    pub(crate) consecutive: Option<u32>,
    pub(crate) rates: Vec<FailureRate>,
}

/// Opens after `failures` failures without a success in between, however long that takes.
///
/// Raising it tolerates more before opening; lowering it lets chance open the breaker. From 1 to a million.
pub fn consecutive(failures: u32) -> Trip {
    Trip { consecutive: Some(failures), rates: Vec::new() }
}

/// Opens when at least this share of the calls in a sliding time window failed: from 0.001 to 1.
///
/// Only successes and failures are counted; see [`FailureRate`] for window and minimum.
pub fn failure_rate(share: f64) -> FailureRate {
    FailureRate { share, window: DEFAULT_WINDOW, min_calls: DEFAULT_MIN_CALLS }
}

impl Trip {
    /// Opens when either condition does. Of two [`consecutive`] conditions the lower one says it all and is kept.
    pub fn or(mut self, other: impl Into<Self>) -> Self {
        let other = other.into();
        self.consecutive = match (self.consecutive, other.consecutive) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self.rates.extend(other.rates);
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let refuse = |value: String, expected| Err(BuildError::new("trip_when", value, expected));
        if let Some(failures) = self.consecutive
            && !(1..=MAX_CONSECUTIVE).contains(&failures)
        {
            let value = format!("consecutive({failures})");
            return refuse(value, "must be from 1 to 1000000");
        }
        for rate in &self.rates {
            if !(MIN_SHARE..=1.0).contains(&rate.share) {
                let value = format!("failure_rate({})", rate.share);
                return refuse(value, "must be from 0.001 to 1");
            }
            if rate.window < MIN_WINDOW || rate.window > MAX_WINDOW {
                let value = format!("over({:?})", rate.window);
                return refuse(value, "must be from 100 ms to 24 hours");
            }
            if rate.min_calls == 0 {
                return refuse("min_calls(0)".into(), "must be at least 1");
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

impl From<FailureRate> for Trip {
    fn from(rate: FailureRate) -> Self {
        Self { consecutive: None, rates: vec![rate] }
    }
}

/// A failure rate over a sliding time window: made by [`failure_rate`].
///
/// The window really slides: it is kept in 32 slices, so that a call counts for at least 31/32 of the window and never
/// for the whole of it or longer. Memory is fixed: half a KiB per rate, whatever the traffic.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct FailureRate {
    pub(crate) share: f64,
    pub(crate) window: Duration,
    pub(crate) min_calls: u64,
}

impl FailureRate {
    /// How far back calls count. Default 10 s; from 100 ms to 24 hours.
    ///
    /// Longer sees rarer trouble and remembers it longer; shorter reacts to fewer calls.
    pub fn over(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// While the window holds fewer calls than this, the rate opens nothing. Default 20; at least 1.
    ///
    /// Lower reacts sooner on quiet services, and takes more chances for trouble.
    pub fn min_calls(mut self, calls: u64) -> Self {
        self.min_calls = calls;
        self
    }

    /// Opens when either condition does.
    pub fn or(self, other: impl Into<Trip>) -> Trip {
        Trip::from(self).or(other)
    }
}

/// What practice has settled on: Envoy's and Finagle's default too.
const DEFAULT_CONSECUTIVE: u32 = 5;
const DEFAULT_WINDOW: Duration = Duration::from_secs(10);
const DEFAULT_MIN_CALLS: u64 = 20;
pub(crate) const MAX_CONSECUTIVE: u32 = 1_000_000;
pub(crate) const MIN_SHARE: f64 = 0.001;
/// A slice must stay above the lag of the coarse clock.
const MIN_WINDOW: Duration = Duration::from_millis(100);
const MAX_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
