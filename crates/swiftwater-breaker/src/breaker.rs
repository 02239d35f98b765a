//! The handle: a state machine under a lock, and what callers may do without it.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
    time::Duration,
};

use swiftwater_core::{
    Clock, Desc, Gate, Knob, Observe, Observer, Outcome, Pass, Reason, Rejected, Tick, Token, Tunable, Unit,
    Visitor,
};

use crate::{
    builder::Builder,
    event::{Event, Log},
    face::{
        FULL, OFF, OPEN, PASS, Published, RUN, UNTRACKED, is_of, kind_of, rounded, serial_of, start_of,
        started, word,
    },
    knobs::{self, Tuned},
    state::{Machine, Options, State},
    stripes::{Directory, Stripe, Stripes},
    sync::{
        Mutex, MutexGuard,
        Ordering::{Acquire, Relaxed},
    },
    trip::{Span, Stalled},
};

/// A circuit breaker: a handle, cloned freely; all clones are one breaker.
///
/// Calls go through [`call`](Self::call) and its kin, or under a [`Permit`]; pools and cache layers take it as a
/// [`gate`](Self::gate).
#[derive(Clone)]
pub struct Breaker(Arc<Shared>);

/// One admitted call: [`finish`](Pass::finish) it with its [`Outcome`]; dropping it counts the call as dropped.
pub type Permit<'a> = Pass<&'a Breaker>;

/// In the order of who writes what: what everybody reads and few write; the machine under its lock, large enough to keep the
/// ones off the cache lines of the other; the stripe that its owner writes with every call.
#[repr(C)]
pub(crate) struct Shared {
    face: Published,
    needs: Needs,
    directory: Directory,
    clock: Clock,
    on_event: Option<OnEvent>,
    machine: Mutex<Machine>,
    first: Stripe,
}

pub(crate) type OnEvent = Arc<dyn Fn(&Event) + Send + Sync>;

/// What the conditions need to know of every call; follows from which conditions there are.
#[derive(Clone, Copy)]
struct Needs {
    /// When it begins.
    start: bool,
    /// Which ended first.
    order: bool,
    /// When it ends, and nothing else: to be in the right slice of a window.
    time_at_end: bool,
    nothing_at_end: bool,
}

impl Breaker {
    /// Starts from the defaults: five consecutive failures open it, for 1 s and, while probes fail, up to 30 s.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(
        options: Arc<Options>,
        clock: Clock,
        seed: Option<u64>,
        enabled: bool,
        observe_only: bool,
        on_event: Option<OnEvent>,
    ) -> Self {
        let now = clock.now();
        let needs = Needs::of(&options);
        let directory = Directory::new(options.trip.stalled.iter().map(Stalled::width).collect());
        let first = Stripe::new(options.trip.stalled.len());
        let mut machine = Machine::new(options, seed, now);
        machine.set_observe_only(observe_only);
        if !enabled {
            machine.start_disabled();
        }
        let face = Published::new(machine.face(Stripes { directory: &directory, first: &first }));
        Self(Arc::new(Shared {
            face,
            needs,
            directory,
            clock,
            on_event,
            machine: Mutex::new(machine),
            first,
        }))
    }

    /// Whether there are other handles of it than this one, which includes permits that borrow one.
    pub(crate) fn is_held_elsewhere(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether failures stand since the last success, where that is watched.
    pub(crate) fn is_running(&self) -> bool {
        kind_of(self.0.face.word.load(Acquire)) == RUN
    }

    /// Changes no state, so that nobody is called back.
    pub(crate) fn set_options(&self, options: &Arc<Options>) {
        self.0.decide(|machine, stripes, now| {
            if !Arc::ptr_eq(machine.options(), options) {
                machine.set_options(options.clone(), now, stripes);
            }
        });
    }

    #[inline(always)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.0
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
    /// [`Rejected`] with the reason: open, with the time that is left; half-open with every probe out; or throttled, one of
    /// the calls that are shed. A breaker that was opened by hand names no time.
    #[inline(always)]
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

    /// What has happened since the event of this number (0: everything that is still known), oldest first.
    ///
    /// The latest 16 events are kept. Where numbers are missing, the events were overwritten before anybody took them.
    ///
    /// ```
    /// use swiftwater_breaker::{Breaker, Cause, State, consecutive};
    /// use swiftwater_core::Outcome;
    ///
    /// let breaker = Breaker::builder().trip_when(consecutive(1)).build()?;
    /// breaker.try_acquire()?.finish(Outcome::Failure);
    /// let events = breaker.events(0);
    /// assert_eq!((events[0].from, events[0].to), (State::Closed, State::Open));
    /// assert_eq!(events[0].cause, Cause::Consecutive);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn events(&self, after: u64) -> Vec<Event> {
        self.0.lock().log().map_or_else(Vec::new, |log| log.after(after))
    }

    /// Refuses every call from now on: once this has returned, none is admitted until [`force_closed`](Self::force_closed),
    /// [`reset`](Self::reset) or switching off. Calls under way end as late.
    pub fn force_open(&self) {
        self.0.decide(|machine, _, now| machine.force_open(now));
    }

    /// Admits every call from now on, whatever their outcomes, which are still counted.
    pub fn force_closed(&self) {
        self.0.decide(|machine, _, now| machine.force_closed(now));
    }

    /// Back to judging by itself, from a fresh start: closed, nothing remembered, the shortest open time next. Calls
    /// under way end as late.
    pub fn reset(&self) {
        self.0.decide(|machine, _, now| machine.reset(now));
    }

    /// Off: every call passes, nothing is judged or counted. On again: a fresh start as after [`reset`](Self::reset), but
    /// what was forced stays forced.
    pub fn set_enabled(&self, enabled: bool) {
        self.0.decide(|machine, _, now| machine.set_enabled(now, enabled));
    }

    /// Whether the breaker does anything at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.lock().is_enabled()
    }

    /// See [`Builder::observe_only`].
    pub fn set_observe_only(&self, observe_only: bool) {
        self.0.decide(|machine, _, _| machine.set_observe_only(observe_only));
    }
}

impl Gate for Breaker {
    #[inline(always)]
    fn admit(&self) -> Result<Token, Rejected> {
        self.0.admit()
    }

    #[inline(always)]
    fn settle(&self, token: Token, outcome: Option<Outcome>) {
        self.0.settle(token, outcome);
    }
}

impl Observe for Breaker {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.0.observe(visitor);
    }
}

/// Turned knobs take effect with the next outcome (thresholds, windows) or the next trip (open time). Offered is what the
/// breaker has, and of rates and counts what it has exactly one of:
///
/// | Knob | | |
/// |---|---|---|
/// | `failure_threshold` | 1 to a million | failures in a row |
/// | `failure_rate`, `slow_rate` | 0.001 to 1 | the share |
/// | `slow_threshold` | 0.001 to 86,400 s | from how long on a call is slow |
/// | `failure_window`, `slow_window` | 0.1 to 86,400 s | how far back calls count |
/// | `failure_calls`, `slow_calls` | the least calls to a million | the same, where the window holds calls |
/// | `failure_count` | 1 to a million | failures in their window |
/// | `throttle_k` | 1 to 100 | how much more than it answers the remote gets |
/// | `open_base` | 0.001 s to the cap | open time after the first trip |
impl Tunable for Breaker {
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        knobs::offer(&self.0, each);
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
    /// Under the lock; afterwards callers see what was decided, and then so does whoever wanted to be told.
    fn decide<R>(&self, decision: impl FnOnce(&mut Machine, Stripes<'_>, Tick) -> R) -> R {
        // Read before the lock is taken: a custom clock is somebody else's code.
        let now = self.clock.now();
        let mut machine = self.lock();
        let result = decision(&mut machine, self.stripes(), now);
        let mut deliver = false;
        if let Some(face) = machine.new_face(self.stripes()) {
            self.face.publish(face);
            deliver = self.on_event.is_some() && machine.log().is_some_and(Log::begin_delivery);
        }
        drop(machine);
        if deliver {
            self.deliver();
        }
        result
    }

    /// May a call be made? The bits of its permit, or why not.
    #[inline(always)]
    pub(crate) fn begin(&self) -> Result<u64, Rejected> {
        match self.begin_at_once() {
            Some(bits) => Ok(bits),
            None => match self.refuse_at_once() {
                Some(rejected) => Err(rejected),
                None => self.begin_otherwise(),
            },
        }
    }

    /// A refusal that needs nothing but the face and a load for the time: the callers that are refused spin fastest.
    #[inline]
    pub(crate) fn refuse_at_once(&self) -> Option<Rejected> {
        let face = self.face.word.load(Acquire);
        if matches!(kind_of(face), OPEN | FULL) { self.refuse(face, self.clock.try_now()?) } else { None }
    }

    /// A healthy call: what is inlined into callers.
    #[inline(always)]
    pub(crate) fn begin_at_once(&self) -> Option<u64> {
        let face = self.face.word.load(Acquire);
        if kind_of(face) != PASS || self.needs.start {
            return None;
        }
        self.stripes().mine()?.add_admitted();
        Some(face)
    }

    /// The call under the permit with these bits ended so.
    #[inline(always)]
    pub(crate) fn end(&self, bits: u64, outcome: Option<Outcome>) {
        if outcome == Some(Outcome::Success)
            && self.face.word.load(Acquire) == bits
            && (self.needs.nothing_at_end || self.is_in_slice())
            && let Some(stripe) = self.stripes().mine()
            && stripe.add_success_at_once(serial_of(bits))
        {
            return;
        }
        self.end_otherwise(bits, outcome);
    }

    #[inline(always)]
    fn is_in_slice(&self) -> bool {
        let now = self.clock.try_now();
        self.needs.time_at_end && now.is_some_and(|now| now.as_nanos() < self.face.slice_end.load(Relaxed))
    }

    #[inline(never)]
    pub(crate) fn begin_otherwise(&self) -> Result<u64, Rejected> {
        let face = self.face.word.load(Acquire);
        let known = match kind_of(face) {
            PASS | RUN => self.begin_in_time(face),
            OPEN | FULL => self.refuse(face, self.clock.now()).map(Err),
            OFF => Some(Ok(UNTRACKED)),
            _ => None,
        };
        known.unwrap_or_else(|| self.begin_asking())
    }

    #[inline(never)]
    fn end_otherwise(&self, bits: u64, outcome: Option<Outcome>) {
        let known = outcome == Some(Outcome::Success) && self.succeed_in_time(bits);
        if !known && bits != UNTRACKED {
            self.end_asking(bits, outcome);
        }
    }

    /// A call that passes by the face.
    fn begin_in_time(&self, face: u64) -> Option<Result<u64, Rejected>> {
        let stripe = self.stripes().mine()?;
        let generation = serial_of(face);
        let mut bits = word(PASS, generation);
        if self.needs.start {
            let now = self.clock.now();
            // Before its generation began: by a clock that goes back. Its end would be taken for a late one.
            let began = self.face.began.load(Relaxed);
            if now.as_nanos() >= self.face.slice_end.load(Relaxed) || now.as_nanos() < began {
                return None;
            }
            self.stripes().add_in_flight(stripe, generation, rounded(now), 1);
            bits = started(generation, now);
        }
        stripe.add_admitted();
        Some(Ok(bits))
    }

    /// A call that is refused by the face.
    #[inline]
    fn refuse(&self, face: u64, now: Tick) -> Option<Rejected> {
        let until = Tick::from_nanos(self.face.until.load(Relaxed));
        let stripe = self.stripes().mine()?;
        if now >= until || now.as_nanos() < self.face.began.load(Relaxed) {
            return None;
        }
        Some(if kind_of(face) == FULL {
            stripe.add_rejected_full();
            Rejected::new(Reason::Full, Duration::ZERO)
        } else {
            stripe.add_rejected_open();
            // A breaker that was opened by hand names no time.
            let until = if until.as_nanos() == u64::MAX { now } else { until };
            Rejected::until(Reason::Open, now, until)
        })
    }

    /// A success that passes by the face at this time.
    #[inline]
    fn succeed_in_time(&self, bits: u64) -> bool {
        let face = self.face.word.load(Acquire);
        let Some(stripe) = self.stripes().mine() else { return false };
        if kind_of(face) != PASS || self.needs.order {
            return false;
        }
        let (now, generation) = (self.clock.now(), serial_of(face));
        if now.as_nanos() >= self.face.slice_end.load(Relaxed) {
            return false;
        }
        if self.needs.start {
            let began = Tick::from_nanos(self.face.began.load(Relaxed));
            let start = start_of(bits, now);
            let took = now.as_nanos() - start.as_nanos();
            if !is_of(generation, began, bits, now) || took >= self.face.slow.load(Relaxed) {
                return false;
            }
            self.stripes().add_in_flight(stripe, generation, start, -1);
        } else if face != bits {
            return false;
        }
        stripe.add_success(generation);
        true
    }

    #[inline(never)]
    fn begin_asking(&self) -> Result<u64, Rejected> {
        self.decide(|machine, stripes, now| {
            stripes.visit(now, &mut machine.visits);
            machine.admit(now, stripes)
        })
    }

    #[inline]
    fn end_asking(&self, bits: u64, outcome: Option<Outcome>) {
        self.decide(|machine, stripes, now| {
            stripes.visit(now, &mut machine.visits);
            machine.settle(now, bits, outcome, stripes);
        });
    }

    #[cfg(all(test, swiftwater_loom))]
    pub(crate) fn word(&self) -> u64 {
        self.face.word.load(Acquire)
    }

    /// Hands events on, one after the other, also those that come meanwhile.
    #[cold]
    fn deliver(&self) {
        let Some(on_event) = &self.on_event else { return };
        loop {
            let next = self.lock().log().and_then(Log::next_delivery);
            let Some(event) = next else { return };
            // The thread is at the end of a call of its own, perhaps unwinding, and must not be unwound by another's
            // code. The panic hook has told of it.
            let _ = catch_unwind(AssertUnwindSafe(|| on_event(&event)));
        }
    }

    #[inline(always)]
    fn stripes(&self) -> Stripes<'_> {
        Stripes { directory: &self.directory, first: &self.first }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // No code of others runs under this lock, so a panic would be our own bug; after it, a breaker that goes on judging
        // does less harm than one that panics in every caller.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tuned for Shared {
    fn options(&self) -> Arc<Options> {
        self.lock().options().clone()
    }

    fn change(&self, change: &dyn Fn(&mut Options)) {
        self.decide(|machine, stripes, now| {
            let mut options = Options::clone(machine.options());
            change(&mut options);
            machine.set_options(Arc::new(options), now, stripes);
        });
    }
}

impl Gate for Shared {
    #[inline(always)]
    fn admit(&self) -> Result<Token, Rejected> {
        self.begin().map(Token::new)
    }

    #[inline(always)]
    fn settle(&self, token: Token, outcome: Option<Outcome>) {
        self.end(token.bits(), outcome);
    }
}

impl Observe for Shared {
    fn observe(&self, visitor: &mut dyn Visitor) {
        let now = self.clock.now();
        let (counts, sums, state, open_left, shed) = {
            let machine = self.lock();
            let (sums, shed) = (self.stripes().sums(), machine.shed(now, self.stripes()));
            (machine.counts(), sums, machine.state(now), machine.open_left(now), shed)
        };
        visitor.counter(&ADMITTED, counts.admitted.wrapping_add(sums.admitted));
        visitor.counter(&REJECTED_FULL, counts.rejected_full.wrapping_add(sums.rejected_full));
        visitor.counter(&REJECTED_OPEN, counts.rejected_open.wrapping_add(sums.rejected_open));
        visitor.counter(&REJECTED_THROTTLED, counts.rejected_throttled);
        visitor.counter(&SUCCESS, counts.success.wrapping_add(sums.success));
        visitor.counter(&FAILURE, counts.failure);
        visitor.counter(&IGNORED, counts.ignored);
        visitor.counter(&LOCAL, counts.local);
        visitor.counter(&DROPPED, counts.dropped);
        visitor.counter(&LATE, counts.late);
        visitor.counter(&SLOW, counts.slow);
        visitor.counter(&TRIPS, counts.trips);
        visitor.counter(&EXPIRED, counts.expired);
        visitor.state(&STATE, &state);
        visitor.gauge(&OPEN_LEFT, open_left.as_secs_f64());
        visitor.gauge(&SHED, shed);
    }
}

impl Needs {
    fn of(options: &Options) -> Self {
        let windows = &options.trip.windows;
        let start = options.need_start();
        let order = windows.iter().any(|watch| matches!(watch.span, Span::Calls(_)));
        let nothing_at_end = !start && windows.is_empty();
        Self { start, order, time_at_end: !start && !order && !nothing_at_end, nothing_at_end }
    }
}

static ADMITTED: Desc = Desc::new("admitted", Unit::Count, "calls let through");
static REJECTED_FULL: Desc =
    Desc::new("rejected_full", Unit::Count, "calls refused because every probe was out");
static REJECTED_OPEN: Desc =
    Desc::new("rejected_open", Unit::Count, "calls refused because the breaker was open");
static REJECTED_THROTTLED: Desc =
    Desc::new("rejected_throttled", Unit::Count, "calls refused as part of those that are shed");
static SUCCESS: Desc = Desc::new("success", Unit::Count, "calls that succeeded");
static FAILURE: Desc = Desc::new("failure", Unit::Count, "calls that failed or panicked");
static IGNORED: Desc = Desc::new("ignored", Unit::Count, "calls whose answer said nothing about the remote");
static LOCAL: Desc = Desc::new("local", Unit::Count, "calls that failed on our own side");
static DROPPED: Desc = Desc::new("dropped", Unit::Count, "calls dropped before their end");
static LATE: Desc = Desc::new("late", Unit::Count, "calls that ended after the breaker had moved on");
static SLOW: Desc = Desc::new("slow", Unit::Count, "calls that took longer than the slow threshold");
static TRIPS: Desc = Desc::new("trips", Unit::Count, "times the breaker opened by itself");
static EXPIRED: Desc = Desc::new("expired", Unit::Count, "probes whose lease ran out");
static STATE: Desc = Desc::new("state", Unit::Count, "what a caller would find");
static OPEN_LEFT: Desc = Desc::new("open_left", Unit::Seconds, "how long the breaker will still refuse");
static SHED: Desc = Desc::new("shed", Unit::Ratio, "share of the calls that ramp and throttle refuse");

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use super::*;
    use crate::trip::failure_rate;

    /// It would be right all the same, and slow for good.
    #[test]
    fn once_a_slice_is_over_calls_go_by_the_face_again() {
        let (clock, hand) = Clock::manual();
        let rate = failure_rate(0.5).over(Duration::from_secs(32));
        let breaker = Breaker::builder().trip_when(rate).clock(clock).build().expect("valid options");
        let succeed = || breaker.try_acquire().expect("closed").finish(Outcome::Success);
        succeed();
        assert!(breaker.0.is_in_slice());
        hand.advance(Duration::from_secs(1));
        assert!(!breaker.0.is_in_slice());
        succeed();
        assert!(breaker.0.is_in_slice());
    }
}
