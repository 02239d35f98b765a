//! The handle: a state machine, a clock and a lock.

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use swiftwater_core::{
    Clock, Desc, Gate, Knob, Observe, Observer, Outcome, Pass, Rejected, Token, Tunable, Unit, Visitor,
};

use crate::{
    builder::Builder,
    state::{Machine, State},
    sync::{Mutex, MutexGuard},
    trip::{MAX_CONSECUTIVE, MIN_SHARE},
};

/// A circuit breaker: a handle, cloned freely; all clones are one breaker.
///
/// Calls go through [`call`](Self::call) and its kin, or under a [`Permit`]; pools and cache layers take it as a
/// [`gate`](Self::gate).
#[derive(Clone)]
pub struct Breaker(Arc<Shared>);

/// One admitted call: [`finish`](Pass::finish) it with its [`Outcome`]; dropping it counts the call as dropped.
pub type Permit<'a> = Pass<&'a Breaker>;

struct Shared {
    clock: Clock,
    machine: Mutex<Machine>,
}

impl Breaker {
    /// Starts from the defaults: five consecutive failures open it, for 1 s and, while probes fail, up to 30 s.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(clock: Clock, machine: Machine) -> Self {
        Self(Arc::new(Shared { clock, machine: Mutex::new(machine) }))
    }

    /// Asks for one call.
    ///
    /// ```
    /// use swiftwater_breaker::Breaker;
    /// use swiftwater_core::{Outcome, Rejected};
    ///
    /// let breaker = Breaker::builder().build()?;
    /// let permit = breaker.try_acquire()?;
    /// // .. the call ..
    /// permit.finish(Outcome::Success);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the reason: open, with the time that is left, or half-open with every probe out. A breaker that
    /// was opened by hand names no time.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejected> {
        Pass::enter(self)
    }

    /// The same breaker as a gate, for components that take one. No second indirection: it is the handle's own `Arc`.
    #[must_use]
    pub fn gate(&self) -> Arc<dyn Gate> {
        self.0.clone()
    }

    /// What a caller that asks now would find. Asking moves nothing.
    #[must_use]
    pub fn state(&self) -> State {
        let now = self.0.clock.now();
        self.0.lock().state(now)
    }

    /// Refuses every call from now on: once this has returned, none is admitted until [`force_closed`](Self::force_closed),
    /// [`reset`](Self::reset) or switching off. Calls under way end as late.
    pub fn force_open(&self) {
        self.0.lock().force_open();
    }

    /// Admits every call from now on, whatever their outcomes, which are still counted.
    pub fn force_closed(&self) {
        self.0.lock().force_closed();
    }

    /// Back to judging by itself, from a fresh start: closed, nothing remembered, the shortest open time next. Calls
    /// under way end as late.
    pub fn reset(&self) {
        self.0.lock().reset();
    }

    /// Off: every call passes, nothing is judged or counted. On again: a fresh start as after [`reset`](Self::reset), but
    /// what was forced stays forced.
    pub fn set_enabled(&self, enabled: bool) {
        self.0.lock().set_enabled(enabled);
    }

    /// Whether the breaker does anything at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.lock().options().enabled
    }
}

impl Gate for Breaker {
    #[inline]
    fn admit(&self) -> Result<Token, Rejected> {
        self.0.admit()
    }

    #[inline]
    fn settle(&self, token: Token, outcome: Option<Outcome>) {
        self.0.settle(token, outcome);
    }
}

impl Observe for Breaker {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.0.observe(visitor);
    }
}

/// Turned knobs take effect with the next outcome (thresholds) or the next trip (open time):
///
/// - `failure_threshold`, 1 to a million: failures in a row, if the breaker trips on them;
/// - `failure_rate`, 0.001 to 1: the share, if the breaker trips on exactly one rate;
/// - `open_base`, seconds from 0.001 to the cap of the open time.
impl Tunable for Breaker {
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        let (consecutive, rates, cap) = {
            let machine = self.0.lock();
            let options = machine.options();
            (options.trip.consecutive, options.trip.rates.len(), options.open_cap)
        };
        if consecutive.is_some() {
            each(Knob::new(
                &FAILURE_THRESHOLD,
                1.0..=f64::from(MAX_CONSECUTIVE),
                1.0,
                &self.0,
                |shared| shared.lock().options().trip.consecutive.map_or(0.0, f64::from),
                |shared, value| shared.lock().set_consecutive(value as u32),
            ));
        }
        if rates == 1 {
            each(Knob::new(
                &FAILURE_RATE,
                MIN_SHARE..=1.0,
                0.0, // no steps: a rounded 0.06 may lie just above the 6 of 100 that should reach it
                &self.0,
                |shared| shared.lock().options().trip.rates[0].share,
                |shared, value| shared.lock().set_failure_rate(value),
            ));
        }
        each(Knob::new(
            &OPEN_BASE,
            0.001..=cap.as_secs_f64(),
            0.0,
            &self.0,
            |shared| shared.lock().options().open_base,
            |shared, value| shared.lock().set_open_base(value),
        ));
    }
}

impl From<&Breaker> for Observer {
    fn from(breaker: &Breaker) -> Self {
        Self::from(&breaker.0)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        // No code of others runs under this lock, so a panic would be our own bug; after it, a breaker that goes on judging
        // does less harm than one that panics in every caller.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for Shared {
    fn admit(&self) -> Result<Token, Rejected> {
        // Read before the lock is taken: a custom clock is somebody else's code.
        let now = self.clock.now();
        self.lock().admit(now).map(Token::new)
    }

    fn settle(&self, token: Token, outcome: Option<Outcome>) {
        let now = self.clock.now();
        self.lock().settle(now, token.bits(), outcome);
    }
}

impl Observe for Shared {
    fn observe(&self, visitor: &mut dyn Visitor) {
        let now = self.clock.now();
        let (counts, state, open_left) = {
            let machine = self.lock();
            (machine.counts(), machine.state(now), machine.open_left(now))
        };
        visitor.counter(&ADMITTED, counts.admitted);
        visitor.counter(&REJECTED_FULL, counts.rejected_full);
        visitor.counter(&REJECTED_OPEN, counts.rejected_open);
        visitor.counter(&SUCCESS, counts.success);
        visitor.counter(&FAILURE, counts.failure);
        visitor.counter(&IGNORED, counts.ignored);
        visitor.counter(&LOCAL, counts.local);
        visitor.counter(&DROPPED, counts.dropped);
        visitor.counter(&LATE, counts.late);
        visitor.counter(&TRIPS, counts.trips);
        visitor.counter(&EXPIRED, counts.expired);
        visitor.state(&STATE, &state);
        visitor.gauge(&OPEN_LEFT, open_left.as_secs_f64());
    }
}

static ADMITTED: Desc = Desc::new("admitted", Unit::Count, "calls let through");
static REJECTED_FULL: Desc =
    Desc::new("rejected_full", Unit::Count, "calls refused because every probe was out");
static REJECTED_OPEN: Desc =
    Desc::new("rejected_open", Unit::Count, "calls refused because the breaker was open");
static SUCCESS: Desc = Desc::new("success", Unit::Count, "calls that succeeded");
static FAILURE: Desc = Desc::new("failure", Unit::Count, "calls that failed or panicked");
static IGNORED: Desc = Desc::new("ignored", Unit::Count, "calls whose answer said nothing about the remote");
static LOCAL: Desc = Desc::new("local", Unit::Count, "calls that failed on our own side");
static DROPPED: Desc = Desc::new("dropped", Unit::Count, "calls dropped before their end");
static LATE: Desc = Desc::new("late", Unit::Count, "calls that ended after the breaker had moved on");
static TRIPS: Desc = Desc::new("trips", Unit::Count, "times the breaker opened by itself");
static EXPIRED: Desc = Desc::new("expired", Unit::Count, "probes whose lease ran out");
static STATE: Desc = Desc::new("state", Unit::Count, "what a caller would find");
static OPEN_LEFT: Desc = Desc::new("open_left", Unit::Seconds, "how long the breaker will still refuse");
static FAILURE_THRESHOLD: Desc =
    Desc::new("failure_threshold", Unit::Count, "failures in a row that open the breaker");
static FAILURE_RATE: Desc =
    Desc::new("failure_rate", Unit::Ratio, "share of failures that opens the breaker");
static OPEN_BASE: Desc = Desc::new("open_base", Unit::Seconds, "open time after the first trip");
