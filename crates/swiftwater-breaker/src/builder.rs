//! Options of a breaker, and their judge.

use std::{ops::RangeInclusive, time::Duration};

use swiftwater_core::{BuildError, Clock};

use crate::{
    breaker::Breaker,
    state::{Machine, Options},
    trip::Trip,
};

/// Makes a [`Breaker`]: every option has a default, [`build`](Self::build) judges them all.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    trip: Trip,
    open_for: RangeInclusive<Duration>,
    seed: Option<u64>,
    probes: u32,
    successes: u32,
    probe_lease: Duration,
    clock: Clock,
    enabled: bool,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            trip: Trip::default(),
            open_for: DEFAULT_OPEN_BASE..=DEFAULT_OPEN_CAP,
            seed: None,
            probes: DEFAULT_PROBES,
            successes: DEFAULT_SUCCESSES,
            probe_lease: DEFAULT_PROBE_LEASE,
            clock: Clock::coarse(),
            enabled: true,
        }
    }

    /// When to open. Default: [`consecutive`](crate::consecutive)`(5)`.
    pub fn trip_when(mut self, trip: impl Into<Trip>) -> Self {
        self.trip = trip.into();
        self
    }

    /// How long to refuse before probing: from the base after the first trip, doubling with every probe that fails, up to
    /// the cap. Default 1 s to 30 s; the base is at least 1 ms, the cap at most 24 hours.
    ///
    /// The n-th time since it was last closed is drawn anew between half the base and `min(cap, base * 2^n)`, n from 0.
    /// The jitter keeps a fleet from probing in step; half the base is the least, because a breaker that opened for next
    /// to no time would not have opened. A longer base spares the remote; a shorter one finds its recovery sooner.
    pub fn open_for(mut self, base_to_cap: RangeInclusive<Duration>) -> Self {
        self.open_for = base_to_cap;
        self
    }

    /// Makes the open times repeatable, for tests. By default every breaker draws its own.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How many probes may be out at once while half-open. Default 1; from 1 to 1000.
    ///
    /// More finds out sooner whether the remote is well; each is a call that may fail a user.
    pub fn probes(mut self, permits: u32) -> Self {
        self.probes = permits;
        self
    }

    /// How many probes must succeed, with none failing in between, to close. Default 1; at least 1. May exceed
    /// [`probes`](Self::probes): they follow one another.
    ///
    /// More is surer of the recovery, and takes longer to trust it.
    pub fn successes(mut self, needed: u32) -> Self {
        self.successes = needed;
        self
    }

    /// After this time a probe that has neither returned nor been dropped stops counting: its permit is free again, its
    /// result will be [late](crate#what-each-outcome-does). Default 10 s; from 1 ms to 24 hours.
    ///
    /// Set it above the time-out of the call: shorter throws good results away, longer lets a probe that hangs hold up
    /// the recovery.
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.probe_lease = lease;
        self
    }

    /// Where the time comes from. Default: [`Clock::coarse`], whose lag of about a millisecond shifts open times and
    /// windows by as much, and nothing else.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// `false` makes a breaker that lets everything pass, until [`set_enabled`](Breaker::set_enabled). Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Makes the breaker, closed.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the first option that cannot work, its value and what it must be.
    pub fn build(self) -> Result<Breaker, BuildError> {
        self.trip.check()?;
        let (open_base, open_cap) = self.open_for.into_inner();
        if open_base < SHORTEST || open_cap > LONGEST || open_base > open_cap {
            let value = format!("{open_base:?}..={open_cap:?}");
            let expected = "must be from 1 ms to 24 hours, the base not above the cap";
            return Err(BuildError::new("open_for", value, expected));
        }
        if self.probes == 0 || self.probes > MAX_PROBES {
            return Err(BuildError::new("probes", self.probes, "must be from 1 to 1000"));
        }
        if self.successes == 0 {
            return Err(BuildError::new("successes", 0, "must be at least 1"));
        }
        if self.probe_lease < SHORTEST || self.probe_lease > LONGEST {
            let value = format!("{:?}", self.probe_lease);
            return Err(BuildError::new("probe_lease", value, "must be from 1 ms to 24 hours"));
        }
        let machine = Machine::new(Options {
            trip: self.trip,
            open_base: open_base.as_secs_f64(),
            open_cap,
            seed: self.seed,
            probes: self.probes as usize,
            successes: self.successes,
            probe_lease: self.probe_lease,
            enabled: self.enabled,
        });
        Ok(Breaker::new(self.clock, machine))
    }
}

const DEFAULT_OPEN_BASE: Duration = Duration::from_secs(1);
/// The classic fixed open time is the most that a remote which keeps failing earns.
const DEFAULT_OPEN_CAP: Duration = Duration::from_secs(30);
const DEFAULT_PROBES: u32 = 1;
const DEFAULT_SUCCESSES: u32 = 1;
const DEFAULT_PROBE_LEASE: Duration = Duration::from_secs(10);
/// The lag of the coarse clock.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Places are allocated when the breaker is built, and looked through while half-open.
const MAX_PROBES: u32 = 1000;
