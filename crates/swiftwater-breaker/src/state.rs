//! Decisions only: what a breaker does at a given time. No clock, no lock, no runtime, no callback.
//!
//! # Serials
//!
//! One counter numbers both the closed spells (a spell's serial is its *generation*) and the single probes. A permit
//! carries the serial under which it was granted, so "is this result still about now" is one comparison, and a probe
//! whose lease ran out cannot be mistaken for the one that took its place.
//!
//! # What is decided elsewhere
//!
//! While nothing is wrong, calls begin and succeed without asking here: [`Machine::face`] says under which conditions that is
//! right, and their successes, and calls in flight, are in the [`Stripes`]. Everything that is asked here adds them up.

use std::{fmt, mem, sync::Arc, time::Duration};

use swiftwater_core::{Backoff, Outcome, Reason, Rejected, Tick};

use crate::{
    event::{Cause, Event, Log},
    face::{
        ASK, FULL, Face, OFF, OPEN, PASS, PROBE, RUN, UNTRACKED, is_of, kind_of, rounded, serial_of,
        start_of, started, word,
    },
    live::Live,
    stripes::{Stripes, Visits},
    trip::{Kind, Stalled, Throttle, Trip, Watch},
    window::{Ended, Window},
};

/// What a caller that asks now would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls pass and are judged.
    Closed,
    /// Switched off: calls pass, nothing is judged or counted.
    Disabled,
    /// Closed by hand: calls pass and are counted, nothing opens it.
    ForcedClosed,
    /// Opened by hand: every call is refused.
    ForcedOpen,
    /// A few probes pass, the rest is refused. Also an open breaker whose time is up: the next caller is a probe.
    HalfOpen,
    /// Every call is refused until the open time is over.
    Open,
    /// Closed again lately: a growing share of the calls passes, and is judged.
    Ramping,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Disabled => "disabled",
            Self::ForcedClosed => "forced_closed",
            Self::ForcedOpen => "forced_open",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
            Self::Ramping => "ramping",
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) trip: Trip,
    pub(crate) throttle: Option<Throttle>,
    /// Seconds, as a knob writes them and reads them back.
    pub(crate) open_base: f64,
    pub(crate) open_cap: Duration,
    pub(crate) probes: usize,
    pub(crate) successes: u32,
    pub(crate) probe_failures: u32,
    pub(crate) probe_lease: Duration,
    pub(crate) ramp: Option<Duration>,
}

impl Options {
    /// From how many nanoseconds on a call is slow by any condition.
    pub(crate) fn slow(&self) -> u64 {
        let thresholds = self.trip.windows.iter().filter_map(|watch| match watch.kind {
            Kind::Failures => None,
            Kind::Slow(threshold) => Some(nanos(threshold)),
        });
        thresholds.min().unwrap_or(u64::MAX)
    }

    /// Whether it matters when a call begins: to find those that are slow or have stalled, and to shed at the right time.
    pub(crate) fn need_start(&self) -> bool {
        self.slow() != u64::MAX || !self.trip.stalled.is_empty() || self.throttle.is_some()
    }
}

/// Everything that was ever counted here; nothing is ever reset. The stripes have counted the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) admitted: u64,
    pub(crate) rejected_full: u64,
    pub(crate) rejected_open: u64,
    pub(crate) rejected_throttled: u64,
    pub(crate) success: u64,
    pub(crate) failure: u64,
    pub(crate) ignored: u64,
    pub(crate) local: u64,
    pub(crate) dropped: u64,
    pub(crate) late: u64,
    pub(crate) slow: u64,
    pub(crate) trips: u64,
    pub(crate) expired: u64,
}

pub(crate) struct Machine {
    options: Arc<Options>,
    /// Whether closed permits tell when their calls began.
    needs_start: bool,
    enabled: bool,
    observe_only: bool,
    mode: Mode,
    /// The latest time seen: callers read the clock before they get here and may arrive out of order.
    now: Tick,
    last_serial: u64,
    /// When the latest generation began.
    began: Tick,
    /// Failures since the last success. Meaningful while closed.
    run: u32,
    /// One per condition with a window, in the order of the options, and the throttle's. Meaningful while closed.
    windows: Box<[Window]>,
    /// The calls in flight that began here rather than in a stripe, less those that ended here. As the stripes' own.
    live: Box<[Live]>,
    /// Until then no window slides, and nobody need look for stalled calls. Meaningful while closed.
    slice_end: Tick,
    /// From how many nanoseconds on a call is slow by any condition.
    slow: u64,
    /// The probes that are out. Empty unless half-open.
    probes: Vec<Probe>,
    backoff: Backoff,
    random: fastrand::Rng,
    counts: Counts,
    /// Takes memory with the first event.
    log: Option<Box<Log>>,
    pub(crate) visits: Visits,
    /// The state that the last event told of.
    shown: State,
    /// The face may have changed since it was last asked for.
    moved: bool,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// `ramp`: since when it has been taking calls back, if it still is.
    Closed {
        generation: u64,
        ramp: Option<Tick>,
    },
    ForcedClosed {
        generation: u64,
    },
    ForcedOpen,
    HalfOpen {
        successes: u32,
        failures: u32,
    },
    Open {
        until: Tick,
    },
}

#[derive(Debug)]
struct Probe {
    serial: u64,
    until: Tick,
    start: Tick,
}

impl Machine {
    pub(crate) fn new(options: Arc<Options>, seed: Option<u64>, now: Tick) -> Self {
        let windows = watches(&options).map(|watch| Window::new(&watch, now)).collect();
        let live = options.trip.stalled.iter().map(|_| Live::new()).collect();
        let backoff = match seed {
            Some(seed) => backoff(&options).seed(seed),
            None => backoff(&options),
        };
        let mut machine = Self {
            needs_start: options.need_start(),
            enabled: true,
            observe_only: false,
            mode: Mode::Closed { generation: 1, ramp: None },
            now,
            last_serial: 1,
            began: now,
            run: 0,
            windows,
            live,
            slice_end: now,
            slow: options.slow(),
            probes: Vec::new(),
            backoff,
            random: seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            counts: Counts::default(),
            log: None,
            visits: Visits::default(),
            shown: State::Closed,
            moved: true,
            options,
        };
        machine.slice_end = machine.next_slice();
        machine
    }

    /// May a call be made? The bits of its permit, or why not.
    pub(crate) fn admit(&mut self, now: Tick, stripes: Stripes<'_>) -> Result<u64, Rejected> {
        if !self.enabled {
            return Ok(UNTRACKED);
        }
        let now = self.at(now, stripes);
        match self.ask(now, stripes) {
            Ok(bits) => {
                self.counts.admitted += 1;
                Ok(bits)
            }
            Err(rejected) => {
                *match rejected.reason() {
                    Reason::Full => &mut self.counts.rejected_full,
                    Reason::Throttled => &mut self.counts.rejected_throttled,
                    _ => &mut self.counts.rejected_open,
                } += 1;
                if self.observe_only { Ok(UNTRACKED) } else { Err(rejected) }
            }
        }
    }

    /// The call under the permit with these bits ended so; `None` if nobody knows how.
    #[inline]
    pub(crate) fn settle(&mut self, now: Tick, bits: u64, outcome: Option<Outcome>, stripes: Stripes<'_>) {
        let now = self.at(now, stripes);
        match self.mode {
            Mode::Closed { generation, .. } if self.is_of(generation, bits) => {
                self.count(outcome);
                let start = if self.needs_start { start_of(bits, now) } else { now };
                self.add_in_flight(start, -1);
                if let Some(ended) = ended(outcome, start, now) {
                    self.judge(now, generation, ended, stripes);
                }
            }
            Mode::ForcedClosed { generation } if self.is_of(generation, bits) => self.count(outcome),
            Mode::HalfOpen { .. } if kind_of(bits) == PROBE => match self.take_probe(serial_of(bits)) {
                Some(probe) => {
                    self.count(outcome);
                    self.judge_probe(now, ended(outcome, probe.start, now));
                }
                None => self.counts.late += 1,
            },
            _ => self.counts.late += 1,
        }
    }

    pub(crate) fn force_open(&mut self, now: Tick) {
        self.now = self.now.max(now);
        self.probes.clear();
        self.mode = Mode::ForcedOpen;
        self.moved = true;
        self.show(Cause::ByHand);
    }

    pub(crate) fn force_closed(&mut self, now: Tick) {
        self.now = self.now.max(now);
        self.probes.clear();
        self.began = self.now;
        self.mode = Mode::ForcedClosed { generation: self.next_serial() };
        self.moved = true;
        self.show(Cause::ByHand);
    }

    pub(crate) fn reset(&mut self, now: Tick) {
        self.now = self.now.max(now);
        self.backoff.reset();
        self.close(None);
        self.show(Cause::ByHand);
    }

    /// What was learnt before the switch was turned is no knowledge about now; a forced mode is the operator's and stays.
    pub(crate) fn set_enabled(&mut self, now: Tick, enabled: bool) {
        if enabled == self.enabled {
            return;
        }
        self.enabled = enabled;
        self.moved = true;
        match self.mode {
            Mode::ForcedClosed { .. } => self.force_closed(now),
            Mode::ForcedOpen => self.force_open(now),
            Mode::Closed { .. } | Mode::HalfOpen { .. } | Mode::Open { .. } => self.reset(now),
        }
    }

    /// Before anything has happened.
    pub(crate) fn start_disabled(&mut self) {
        self.enabled = false;
        self.shown = State::Disabled;
    }

    pub(crate) fn set_observe_only(&mut self, observe_only: bool) {
        self.observe_only = observe_only;
        self.moved = true;
    }

    /// Other values in the same options, from the next outcome or trip on. No state changes by it.
    pub(crate) fn set_options(&mut self, options: Arc<Options>, now: Tick, stripes: Stripes<'_>) {
        self.now = self.now.max(now);
        let now = self.now;
        if let Mode::Closed { generation, .. } = self.mode {
            let good = stripes.successes(generation);
            for (window, watch) in self.windows.iter_mut().zip(watches(&options)) {
                window.change(&watch, now, good);
            }
        } else {
            // What they hold is of a spell that is over, and so are the good calls that they have booked.
            self.windows = watches(&options).map(|watch| Window::new(&watch, now)).collect();
        }
        if options.open_base != self.options.open_base {
            // At the step where it stands; after 64 doublings every base is at its cap, whatever it was.
            let attempts = self.backoff.attempts();
            self.backoff = backoff(&options).seed(self.random.u64(..));
            for _ in 0..attempts.min(64) {
                self.backoff.next_delay();
            }
        }
        self.slow = options.slow();
        self.options = options;
        // Whoever comes next looks at everything that depends on time.
        self.slice_end = now;
        self.moved = true;
    }

    pub(crate) fn options(&self) -> &Arc<Options> {
        &self.options
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn log(&mut self) -> Option<&mut Log> {
        self.log.as_deref_mut()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn state(&self, now: Tick) -> State {
        if !self.enabled {
            return State::Disabled;
        }
        let now = self.now.max(now);
        match self.mode {
            Mode::Closed { ramp: Some(since), .. } if now < self.ramp_end(since) => State::Ramping,
            Mode::Closed { .. } => State::Closed,
            Mode::ForcedClosed { .. } => State::ForcedClosed,
            Mode::ForcedOpen => State::ForcedOpen,
            Mode::Open { until } if now < until => State::Open,
            Mode::Open { .. } | Mode::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// How long an open breaker will still refuse; zero in every other state.
    pub(crate) fn open_left(&self, now: Tick) -> Duration {
        match self.mode {
            Mode::Open { until } if self.enabled => until - self.now.max(now),
            _ => Duration::ZERO,
        }
    }

    /// The share of the calls that is refused, where it is a part of them.
    pub(crate) fn shed(&self, now: Tick, stripes: Stripes<'_>) -> f64 {
        match self.mode {
            Mode::Closed { ramp, .. } if self.enabled => {
                1.0 - self.ramp_share(ramp, self.now.max(now)) * (1.0 - self.throttled(stripes))
            }
            _ => 0.0,
        }
    }

    /// What callers may go by without asking, if that may be something else than the last time.
    #[inline]
    pub(crate) fn new_face(&mut self, stripes: Stripes<'_>) -> Option<Face> {
        mem::take(&mut self.moved).then(|| self.face(stripes))
    }

    pub(crate) fn face(&self, stripes: Stripes<'_>) -> Face {
        let never = Tick::from_nanos(u64::MAX);
        let face = |word| Face { word, until: never, slice_end: never, began: self.began, slow: self.slow };
        let refuse = |kind, until| Face { until, began: self.now, ..face(word(kind, 0)) };
        if !self.enabled {
            return face(word(OFF, 0));
        }
        match self.mode {
            Mode::Closed { ramp: Some(_), .. } => face(word(ASK, 0)),
            Mode::Closed { .. } if self.may_throttle(stripes) => face(word(ASK, 0)),
            Mode::Closed { generation, .. } => {
                let running = self.run > 0 && self.options.trip.consecutive.is_some();
                Face { slice_end: self.slice_end, ..face(word(if running { RUN } else { PASS }, generation)) }
            }
            Mode::ForcedClosed { generation } => face(word(PASS, generation)),
            // What would be refused is let pass and counted.
            _ if self.observe_only => face(word(ASK, 0)),
            Mode::ForcedOpen => refuse(OPEN, never),
            Mode::Open { until } => refuse(OPEN, until),
            Mode::HalfOpen { .. } if self.probes.len() < self.options.probes => face(word(ASK, 0)),
            Mode::HalfOpen { .. } => {
                let first = self.probes.iter().map(|probe| probe.until).min();
                refuse(FULL, first.unwrap_or(self.now))
            }
        }
    }

    /// Moves the machine's time on, and what depends on time alone.
    #[inline]
    fn at(&mut self, now: Tick, stripes: Stripes<'_>) -> Tick {
        self.now = self.now.max(now);
        let now = self.now;
        if !self.probes.is_empty() {
            let out = self.probes.len();
            self.probes.retain(|probe| now < probe.until);
            self.counts.expired += (out - self.probes.len()) as u64;
            // Also for whoever takes one out next.
            self.moved = true;
        }
        if let Mode::Closed { generation, ramp } = self.mode {
            if let Some(since) = ramp
                && now >= self.ramp_end(since)
            {
                self.backoff.reset();
                self.mode = Mode::Closed { generation, ramp: None };
                self.moved = true;
                self.show(Cause::RampOver);
            }
            if now >= self.slice_end {
                self.turn(generation, stripes);
            }
        }
        now
    }

    /// A slice is over, of a window or of the calls in flight.
    #[cold]
    fn turn(&mut self, generation: u64, stripes: Stripes<'_>) {
        self.moved = true;
        let good = stripes.successes(generation);
        self.windows.iter_mut().for_each(|window| window.slide(self.now, good));
        self.slice_end = self.next_slice();
        if self.too_many_stalled(generation, stripes) {
            self.open(self.now, Cause::Stalled);
        }
    }

    fn next_slice(&self) -> Tick {
        let now = self.now.as_nanos();
        let slides = self.windows.iter().map(Window::end);
        let looks = self
            .options
            .trip
            .stalled
            .iter()
            .map(|stalled| Tick::from_nanos((now / stalled.width() + 1).saturating_mul(stalled.width())));
        slides.chain(looks).min().unwrap_or(Tick::from_nanos(u64::MAX))
    }

    fn ask(&mut self, now: Tick, stripes: Stripes<'_>) -> Result<u64, Rejected> {
        if let Mode::Open { until } = self.mode
            && now >= until
        {
            self.mode = Mode::HalfOpen { successes: 0, failures: 0 };
            self.show(Cause::OpenTimeOver);
        }
        self.moved |= matches!(self.mode, Mode::HalfOpen { .. }) || self.options.throttle.is_some();
        match self.mode {
            Mode::Closed { generation, ramp } => {
                self.admit_share(ramp, stripes)?;
                self.add_in_flight(rounded(now), 1);
                Ok(self.permit(generation, now))
            }
            Mode::ForcedClosed { generation } => Ok(self.permit(generation, now)),
            // Nobody knows how long: the operator decides.
            Mode::ForcedOpen => Err(Rejected::new(Reason::Open, Duration::ZERO)),
            Mode::Open { until } => Err(Rejected::until(Reason::Open, now, until)),
            // A probe may return at any time.
            Mode::HalfOpen { .. } if self.probes.len() >= self.options.probes => {
                Err(Rejected::new(Reason::Full, Duration::ZERO))
            }
            Mode::HalfOpen { .. } => {
                let serial = self.next_serial();
                let until = now + self.options.probe_lease;
                self.probes.push(Probe { serial, until, start: now });
                Ok(word(PROBE, serial))
            }
        }
    }

    fn permit(&self, generation: u64, now: Tick) -> u64 {
        if self.needs_start { started(generation, now) } else { word(PASS, generation) }
    }

    #[inline]
    fn is_of(&self, generation: u64, bits: u64) -> bool {
        match self.needs_start {
            true => is_of(generation, self.began, bits, self.now),
            false => bits == word(PASS, generation),
        }
    }

    /// Lets a call pass with the probability that ramp and throttle leave.
    fn admit_share(&mut self, ramp: Option<Tick>, stripes: Stripes<'_>) -> Result<(), Rejected> {
        let refused = Rejected::new(Reason::Throttled, Duration::ZERO);
        let share = self.ramp_share(ramp, self.now);
        if share < 1.0 && self.random.f64() >= share {
            return Err(refused);
        }
        let throttled = self.throttled(stripes);
        if throttled > 0.0 && self.random.f64() < throttled {
            // A request, and none that was accepted.
            if let Some(window) = self.throttle_window() {
                window.add(true);
            }
            return Err(refused);
        }
        Ok(())
    }

    fn ramp_share(&self, ramp: Option<Tick>, now: Tick) -> f64 {
        match (ramp, self.options.ramp) {
            (Some(since), Some(ramp)) => {
                ((now - since).as_secs_f64() / ramp.as_secs_f64()).clamp(RAMP_START, 1.0)
            }
            _ => 1.0,
        }
    }

    fn ramp_end(&self, since: Tick) -> Tick {
        since + self.options.ramp.unwrap_or_default()
    }

    /// The probability with which a call is to be refused.
    fn throttled(&self, stripes: Stripes<'_>) -> f64 {
        let Some(Throttle { k, min_calls, .. }) = &self.options.throttle else { return 0.0 };
        // The throttle's window is the last one.
        let Some(window) = self.windows.last() else { return 0.0 };
        let (requests, refused) = window.totals(self.good(stripes));
        if requests < *min_calls {
            return 0.0;
        }
        let accepts = requests - refused;
        ((requests as f64 - k * accepts as f64) / (requests as f64 + 1.0)).max(0.0)
    }

    /// Whether a call may be refused before another one fails or a slice ends. Successes only make that less likely, once
    /// there are calls enough.
    fn may_throttle(&self, stripes: Stripes<'_>) -> bool {
        let (Some(throttle), Some(window)) = (&self.options.throttle, self.windows.last()) else {
            return false;
        };
        window.bad() > 0
            && (window.totals(self.good(stripes)).0 < throttle.min_calls || self.throttled(stripes) > 0.0)
    }

    fn throttle_window(&mut self) -> Option<&mut Window> {
        self.options.throttle.as_ref().and_then(|_| self.windows.last_mut())
    }

    /// The successes of this closed spell that were counted in stripes.
    fn good(&self, stripes: Stripes<'_>) -> u64 {
        match self.mode {
            Mode::Closed { generation, .. } => stripes.successes(generation),
            _ => 0,
        }
    }

    /// A call of the present generation has ended.
    #[inline]
    fn judge(&mut self, now: Tick, generation: u64, ended: Ended, stripes: Stripes<'_>) {
        let slow = ended.took >= self.slow;
        self.counts.slow += u64::from(slow);
        let was_running = self.run > 0;
        match ended.failed {
            Some(true) => self.run = self.run.saturating_add(1),
            Some(false) => self.run = 0,
            None => {}
        }
        self.moved |= was_running != (self.run > 0) || self.options.throttle.is_some();
        // What neither failed nor was slow makes nothing worse.
        let bad = slow || ended.failed == Some(true);
        let run = self.options.trip.consecutive.is_some_and(|limit| self.run >= limit);
        let mut cause = (bad && run).then_some(Cause::Consecutive);
        for window in &mut self.windows {
            window.record(ended);
            if bad && cause.is_none() && window.is_reached(|| stripes.successes(generation)) {
                cause = Some(window.cause());
            }
        }
        if let Some(cause) = cause {
            self.open(now, cause);
        }
    }

    fn add_in_flight(&mut self, start: Tick, more: i64) {
        for (stalled, live) in self.options.trip.stalled.iter().zip(&self.live) {
            live.add(start.as_nanos() / stalled.width(), more);
        }
    }

    fn too_many_stalled(&self, generation: u64, stripes: Stripes<'_>) -> bool {
        let conditions = self.options.trip.stalled.iter().zip(&self.live);
        conditions.enumerate().any(|(ring, (stalled, live))| {
            let before = Stalled::before(self.now.as_nanos() / stalled.width());
            let here = live.before(before);
            let calls =
                here.zip(stripes.in_flight(generation, ring, before)).map(|(here, there)| here + there);
            calls.is_some_and(|calls| calls >= stalled.calls.into())
        })
    }

    /// The probe, if it is one that is out; it no longer is.
    fn take_probe(&mut self, serial: u64) -> Option<Probe> {
        let place = self.probes.iter().position(|probe| probe.serial == serial);
        place.map(|place| self.probes.swap_remove(place))
    }

    fn judge_probe(&mut self, now: Tick, ended: Option<Ended>) {
        let Mode::HalfOpen { successes, failures } = self.mode else { return };
        let failed = match ended {
            Some(ended) if ended.took >= self.slow => {
                self.counts.slow += 1;
                Some(true)
            }
            Some(ended) => ended.failed,
            None => None,
        };
        match failed {
            Some(false) if successes + 1 >= self.options.successes => {
                if self.options.ramp.is_none() {
                    self.backoff.reset();
                }
                self.close(self.options.ramp.map(|_| now));
                self.show(Cause::ProbesSucceeded);
            }
            Some(false) => self.mode = Mode::HalfOpen { successes: successes + 1, failures },
            Some(true) if failures >= self.options.probe_failures => self.open(now, Cause::ProbeFailed),
            Some(true) => self.mode = Mode::HalfOpen { successes, failures: failures + 1 },
            // No trial took place: the permit is back, and that is all.
            None => {}
        }
    }

    fn open(&mut self, now: Tick, cause: Cause) {
        self.probes.clear();
        self.counts.trips += 1;
        self.mode = Mode::Open { until: now + self.backoff.next_delay() };
        self.moved = true;
        self.show(cause);
    }

    /// A new closed spell that knows nothing of the past.
    fn close(&mut self, ramp: Option<Tick>) {
        self.probes.clear();
        self.run = 0;
        let now = self.now;
        self.windows.iter_mut().for_each(|window| window.clear(now));
        self.live.iter().for_each(Live::clear);
        self.began = now;
        self.mode = Mode::Closed { generation: self.next_serial(), ramp };
        self.moved = true;
        self.slice_end = self.next_slice();
    }

    fn next_serial(&mut self) -> u64 {
        // 2^56 is out of reach: two years at one a nanosecond.
        self.last_serial += 1;
        self.last_serial
    }

    /// Tells of the state, if it is another one than told before.
    fn show(&mut self, cause: Cause) {
        let (from, to) = (self.shown, self.state(self.now));
        if from != to {
            self.shown = to;
            let open_for = self.open_left(self.now);
            self.log.get_or_insert_default().add(Event {
                number: 0,
                at: self.now,
                from,
                to,
                cause,
                open_for,
            });
        }
    }

    fn count(&mut self, outcome: Option<Outcome>) {
        let counts = &mut self.counts;
        let count = match outcome {
            Some(Outcome::Success) => &mut counts.success,
            Some(Outcome::Failure) => &mut counts.failure,
            Some(Outcome::Local) => &mut counts.local,
            None => &mut counts.dropped,
            // `Ignored`, and whatever outcome may come later that this crate knows nothing of.
            Some(_) => &mut counts.ignored,
        };
        *count += 1;
    }
}

/// `None` if nothing was learnt about the remote.
fn ended(outcome: Option<Outcome>, start: Tick, now: Tick) -> Option<Ended> {
    let took = now.as_nanos() - start.as_nanos();
    match outcome {
        Some(Outcome::Success) => Some(Ended { failed: Some(false), took }),
        Some(Outcome::Failure) => Some(Ended { failed: Some(true), took }),
        None => Some(Ended { failed: None, took }),
        Some(_) => None,
    }
}

/// Of the conditions with a window, and of the throttle.
fn watches(options: &Options) -> impl Iterator<Item = Watch> {
    options.trip.windows.iter().cloned().chain(options.throttle.as_ref().map(Throttle::watch))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn backoff(options: &Options) -> Backoff {
    // Exact to the nanosecond within the 24 hours that `build` allows, and far from what would panic.
    let base = Duration::from_secs_f64(options.open_base);
    Backoff::new(base, options.open_cap)
        // Full jitter may draw nearly nothing, and a breaker that opens for no time is a breaker that did not open: the
        // calls that had just failed would be made again at once.
        .floor(base / 2)
}

/// What the first calls after a recovery are admitted with: some of them have to show that all is well.
const RAMP_START: f64 = 0.05;
