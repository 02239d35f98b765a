//! Options of a breaker, and their judge.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use swiftwater_core::{BuildError, Clock};

use crate::{
    breaker::{Breaker, OnEvent},
    event::Event,
    state::Options,
    trip::{LONGEST, SHORTEST, Throttle, Trip},
};

/// Makes a [`Breaker`]: every option has a default, [`build`](Self::build) judges them all.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    trip: Trip,
    throttle: Option<Throttle>,
    open_for: RangeInclusive<Duration>,
    pub(crate) seed: Option<u64>,
    probes: u32,
    successes: u32,
    probe_failures: u32,
    probe_lease: Duration,
    ramp: Option<Duration>,
    pub(crate) clock: Clock,
    pub(crate) enabled: bool,
    pub(crate) observe_only: bool,
    pub(crate) on_event: Option<OnEvent>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            trip: Trip::default(),
            throttle: None,
            open_for: DEFAULT_OPEN_BASE..=DEFAULT_OPEN_CAP,
            seed: None,
            probes: DEFAULT_PROBES,
            successes: DEFAULT_SUCCESSES,
            probe_failures: 0,
            probe_lease: DEFAULT_PROBE_LEASE,
            ramp: None,
            clock: Clock::coarse(),
            enabled: true,
            observe_only: false,
            on_event: None,
        }
    }

    /// When to open. Default: [`consecutive`](crate::consecutive)`(5)`.
    pub fn trip_when(mut self, trip: impl Into<Trip>) -> Self {
        self.trip = trip.into();
        self
    }

    /// Sheds part of the calls while part of them fail, besides opening when it is time to. Default: none.
    ///
    /// For remotes that fail in part, where opening would turn part of an outage into all of it: with
    /// [`never`](crate::never) it is all the breaker does.
    ///
    /// ```
    /// use swiftwater_breaker::{Breaker, never, throttle};
    ///
    /// let breaker = Breaker::builder().trip_when(never()).throttle(throttle(2.0)).build()?;
    /// # Ok::<(), swiftwater_core::BuildError>(())
    /// ```
    pub fn throttle(mut self, throttle: impl Into<Option<Throttle>>) -> Self {
        self.throttle = throttle.into();
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

    /// Makes what is drawn repeatable, for tests: open times, and which calls are shed. By default every breaker draws its
    /// own.
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

    /// How many probes must succeed to close. Default 1; at least 1. May exceed [`probes`](Self::probes): they follow one
    /// another.
    ///
    /// More is surer of the recovery, and takes longer to trust it.
    pub fn successes(mut self, needed: u32) -> Self {
        self.successes = needed;
        self
    }

    /// How many probes may fail before it opens again: `probes(3).successes(2).probe_failures(1)` tolerates one bad probe
    /// of three. Default 0.
    ///
    /// More forgives chance; each is a call that fails a user.
    pub fn probe_failures(mut self, tolerated: u32) -> Self {
        self.probe_failures = tolerated;
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

    /// After a recovery, how long to take before every call is admitted again: the admitted share grows from a twentieth,
    /// evenly. Default `None`: at once; from 1 ms to 24 hours.
    ///
    /// For remotes that come back cold, and for fleets: a thousand clients that close at once are a stampede. The calls
    /// that are refused meanwhile are [`Throttled`](swiftwater_core::Reason::Throttled). While it lasts, the conditions of
    /// [`trip_when`](Self::trip_when) hold as ever, and the open times go on doubling.
    pub fn ramp(mut self, ramp: impl Into<Option<Duration>>) -> Self {
        self.ramp = ramp.into();
        self
    }

    /// Only watches: `true` makes a breaker that decides as ever, and then lets pass what it would have refused. Default
    /// `false`.
    ///
    /// What it would have refused is counted as rejected, and makes no difference to what is judged, so its readings and
    /// events are those of a breaker that refuses, as far as the remote would have behaved the same.
    pub fn observe_only(mut self, observe_only: bool) -> Self {
        self.observe_only = observe_only;
        self
    }

    /// Calls `on_event` for every change of state, in order, one at a time. Default: none; see also
    /// [`events`](Breaker::events).
    ///
    /// It runs in a thread that is using the breaker, which waits for it meanwhile, under no lock: it may use the breaker,
    /// and other threads go on. What happens while it runs is told afterwards by the same thread; if that is more than the
    /// 16 events that are kept, the oldest are lost, as their numbers show. A panic in it is caught.
    pub fn on_event(mut self, on_event: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(on_event));
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
        let options = Arc::new(self.options()?);
        Ok(Breaker::new(options, self.clock, self.seed, self.enabled, self.observe_only, self.on_event))
    }

    /// The judged options.
    pub(crate) fn options(&self) -> Result<Options, BuildError> {
        self.trip.check()?;
        self.throttle.as_ref().map_or(Ok(()), Throttle::check)?;
        let (open_base, open_cap) = self.open_for.clone().into_inner();
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
        for (option, time) in [("probe_lease", Some(self.probe_lease)), ("ramp", self.ramp)] {
            if let Some(time) = time
                && !(SHORTEST..=LONGEST).contains(&time)
            {
                return Err(BuildError::new(option, format!("{time:?}"), "must be from 1 ms to 24 hours"));
            }
        }
        Ok(Options {
            trip: self.trip.clone(),
            throttle: self.throttle.clone(),
            open_base: open_base.as_secs_f64(),
            open_cap,
            probes: self.probes as usize,
            successes: self.successes,
            probe_failures: self.probe_failures,
            probe_lease: self.probe_lease,
            ramp: self.ramp,
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("options", &self.options()).finish_non_exhaustive()
    }
}

const DEFAULT_OPEN_BASE: Duration = Duration::from_secs(1);
/// The classic fixed open time is the most that a remote which keeps failing earns.
const DEFAULT_OPEN_CAP: Duration = Duration::from_secs(30);
const DEFAULT_PROBES: u32 = 1;
const DEFAULT_SUCCESSES: u32 = 1;
const DEFAULT_PROBE_LEASE: Duration = Duration::from_secs(10);
/// They are looked through while half-open.
const MAX_PROBES: u32 = 1000;
