//! Exponential backoff with full jitter.

use std::{fmt, time::Duration};

/// How long to wait before the next attempt: exponential, with full jitter, seedable.
///
/// The n-th delay (from 0) is drawn uniformly between the floor and `min(cap, base * 2^n)`. Full jitter spreads a crowd
/// of clients best for the work it costs ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015); a
/// [`floor`](Self::floor) gives part of that up where waiting nothing at all would make no sense.
///
/// It holds no clock and never sleeps: the caller waits. Cost: one multiplication and one small generator step. A clone
/// goes on from the same attempt; with a [`seed`](Self::seed) it draws the same delays, without one its own, so that one
/// configured `Backoff` can be the template of many.
///
/// ```
/// use std::time::Duration;
/// use swiftwater_core::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5)).seed(7);
/// assert!(backoff.next_delay() <= Duration::from_millis(100));
/// assert!(backoff.next_delay() <= Duration::from_millis(200));
/// assert_eq!(backoff.attempts(), 2);
/// backoff.reset(); // it worked: start over
/// assert!(backoff.next_delay() <= Duration::from_millis(100));
/// ```
pub struct Backoff {
    base: Duration,
    cap: Duration,
    floor: Duration,
    attempts: u32,
    seeded: bool,
    random: fastrand::Rng,
}

impl Backoff {
    /// Starts at `base`, doubles up to `cap`. A `base` above `cap` counts as `cap`; a zero `base` never waits.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base: base.min(cap),
            cap,
            floor: Duration::ZERO,
            attempts: 0,
            seeded: false,
            random: fastrand::Rng::new(),
        }
    }

    /// No delay is shorter than this. Default: zero. A floor above the cap counts as the cap.
    #[must_use]
    pub fn floor(mut self, floor: Duration) -> Self {
        self.floor = floor.min(self.cap);
        self
    }

    /// Makes the delays repeatable. Without a seed every `Backoff` draws its own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seeded = true;
        self.random = fastrand::Rng::with_seed(seed);
        self
    }

    /// The delay before the next attempt, which is counted.
    pub fn next_delay(&mut self) -> Duration {
        let highest = self.doubled().min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        if highest <= self.floor {
            return self.floor;
        }
        let span = u64::try_from((highest - self.floor).as_nanos()).unwrap_or(u64::MAX);
        self.floor + Duration::from_nanos(self.random.u64(0..=span))
    }

    /// How many delays were drawn since the last [`reset`](Self::reset).
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts over at the base: the remote works again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// `base * 2^attempts`, or the longest time there is.
    fn doubled(&self) -> Duration {
        if self.base.is_zero() {
            return self.base; // also where 2^attempts has no number
        }
        let nanos =
            1u128.checked_shl(self.attempts).and_then(|factor| self.base.as_nanos().checked_mul(factor));
        nanos.map_or(Duration::MAX, |nanos| {
            let seconds = u64::try_from(nanos / NANOS_PER_SEC);
            seconds.map_or(Duration::MAX, |s| Duration::new(s, (nanos % NANOS_PER_SEC) as u32))
        })
    }
}

impl Clone for Backoff {
    fn clone(&self) -> Self {
        Self { random: if self.seeded { self.random.clone() } else { fastrand::Rng::new() }, ..*self }
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backoff")
            .field("base", &self.base)
            .field("cap", &self.cap)
            .field("floor", &self.floor)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

const NANOS_PER_SEC: u128 = 1_000_000_000;
