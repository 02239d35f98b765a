//! Decisions only: what a breaker does at a given time. No clock, no lock, no runtime, no log.
//!
//! # Serials
//!
//! One counter numbers both the closed spells (a spell's serial is its *generation*) and the single probes. A permit
//! carries the serial under which it was granted, so "is this result still about now" is one comparison, and a probe
//! whose lease ran out cannot be mistaken for the one that took its place. Serial 0 is never granted: it marks calls
//! that passed while the breaker was switched off.

use std::{fmt, time::Duration};

use swiftwater_core::{Backoff, Outcome, Reason, Rejected, Tick};

use crate::{trip::Trip, window::Window};

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
        })
    }
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) trip: Trip,
    /// Seconds, as a knob writes them and reads them back.
    pub(crate) open_base: f64,
    pub(crate) open_cap: Duration,
    pub(crate) seed: Option<u64>,
    pub(crate) probes: usize,
    pub(crate) successes: u32,
    pub(crate) probe_lease: Duration,
    pub(crate) enabled: bool,
}

/// Everything that was ever counted; nothing here is ever reset.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) admitted: u64,
    pub(crate) rejected_full: u64,
    pub(crate) rejected_open: u64,
    pub(crate) success: u64,
    pub(crate) failure: u64,
    pub(crate) ignored: u64,
    pub(crate) local: u64,
    pub(crate) dropped: u64,
    pub(crate) late: u64,
    pub(crate) trips: u64,
    pub(crate) expired: u64,
}

#[derive(Debug)]
pub(crate) struct Machine {
    options: Options,
    mode: Mode,
    /// The latest time seen: callers read the clock before they get here and may arrive out of order.
    now: Tick,
    last_serial: u64,
    /// Failures since the last success. Meaningful while closed.
    run: u32,
    /// One per failure rate, in the order of the options. Meaningful while closed.
    windows: Vec<Window>,
    /// The probes that are out. Empty unless half-open; its capacity is set once, so a probe allocates nothing.
    probes: Vec<Probe>,
    backoff: Backoff,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Closed { generation: u64 },
    ForcedClosed { generation: u64 },
    ForcedOpen,
    HalfOpen { successes: u32 },
    Open { until: Tick },
}

#[derive(Debug)]
struct Probe {
    serial: u64,
    until: Tick,
}

impl Machine {
    pub(crate) fn new(options: Options) -> Self {
        let windows = options.trip.rates.iter().map(|rate| Window::new(rate.window)).collect();
        Self {
            mode: Mode::Closed { generation: 1 },
            now: Tick::default(),
            last_serial: 1,
            run: 0,
            windows,
            probes: Vec::with_capacity(options.probes),
            backoff: backoff(&options),
            counts: Counts::default(),
            options,
        }
    }

    /// May a call be made? The serial of its permit, or why not.
    pub(crate) fn admit(&mut self, now: Tick) -> Result<u64, Rejected> {
        if !self.options.enabled {
            return Ok(UNTRACKED);
        }
        let now = self.at(now);
        if let Mode::Open { until } = self.mode
            && now >= until
        {
            self.mode = Mode::HalfOpen { successes: 0 };
        }
        match self.mode {
            Mode::Closed { generation } | Mode::ForcedClosed { generation } => {
                self.counts.admitted += 1;
                Ok(generation)
            }
            Mode::ForcedOpen => {
                self.counts.rejected_open += 1;
                // Nobody knows how long: the operator decides.
                Err(Rejected::new(Reason::Open, Duration::ZERO))
            }
            Mode::Open { until } => {
                self.counts.rejected_open += 1;
                Err(Rejected::new(Reason::Open, until - now))
            }
            Mode::HalfOpen { .. } => self.admit_probe(now),
        }
    }

    /// The call under `serial` ended so; `None` if nobody knows how.
    pub(crate) fn settle(&mut self, now: Tick, serial: u64, outcome: Option<Outcome>) {
        if serial == UNTRACKED {
            return;
        }
        let now = self.at(now);
        let mode = self.mode;
        match mode {
            Mode::Closed { generation } if generation == serial => {
                self.count(outcome);
                self.judge(now, outcome);
            }
            Mode::ForcedClosed { generation } if generation == serial => self.count(outcome),
            Mode::HalfOpen { successes } if self.take_probe(serial) => {
                self.count(outcome);
                self.judge_probe(now, successes, outcome);
            }
            _ => self.counts.late += 1,
        }
    }

    pub(crate) fn force_open(&mut self) {
        self.probes.clear();
        self.mode = Mode::ForcedOpen;
    }

    pub(crate) fn force_closed(&mut self) {
        self.probes.clear();
        self.mode = Mode::ForcedClosed { generation: self.next_serial() };
    }

    pub(crate) fn reset(&mut self) {
        self.backoff.reset();
        self.close();
    }

    /// What was learnt before the switch was turned is no knowledge about now; a forced mode is the operator's and stays.
    pub(crate) fn set_enabled(&mut self, enabled: bool) {
        if enabled == self.options.enabled {
            return;
        }
        self.options.enabled = enabled;
        match self.mode {
            Mode::ForcedClosed { .. } => self.force_closed(),
            Mode::ForcedOpen => {}
            Mode::Closed { .. } | Mode::HalfOpen { .. } | Mode::Open { .. } => self.reset(),
        }
    }

    pub(crate) fn set_consecutive(&mut self, failures: u32) {
        self.options.trip.consecutive = Some(failures);
    }

    /// For breakers with one failure rate.
    pub(crate) fn set_failure_rate(&mut self, share: f64) {
        self.options.trip.rates[0].share = share;
    }

    /// From the next trip on, at the step of the backoff where it stands.
    pub(crate) fn set_open_base(&mut self, base: f64) {
        self.options.open_base = base;
        let attempts = self.backoff.attempts();
        self.backoff = backoff(&self.options);
        // After 64 doublings every base is at its cap, whatever it was.
        for _ in 0..attempts.min(64) {
            self.backoff.next_delay();
        }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn state(&self, now: Tick) -> State {
        if !self.options.enabled {
            return State::Disabled;
        }
        match self.mode {
            Mode::Closed { .. } => State::Closed,
            Mode::ForcedClosed { .. } => State::ForcedClosed,
            Mode::ForcedOpen => State::ForcedOpen,
            Mode::Open { until } if self.now.max(now) < until => State::Open,
            Mode::Open { .. } | Mode::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// How long an open breaker will still refuse; zero in every other state.
    pub(crate) fn open_left(&self, now: Tick) -> Duration {
        match self.mode {
            Mode::Open { until } if self.options.enabled => until - self.now.max(now),
            _ => Duration::ZERO,
        }
    }

    /// Moves the machine's time on, and takes their places from probes whose lease has run out meanwhile.
    fn at(&mut self, now: Tick) -> Tick {
        self.now = self.now.max(now);
        if !self.probes.is_empty() {
            let out = self.probes.len();
            self.probes.retain(|probe| self.now < probe.until);
            self.counts.expired += (out - self.probes.len()) as u64;
        }
        self.now
    }

    fn next_serial(&mut self) -> u64 {
        // 2^64 is out of reach: 584 years at one a nanosecond.
        self.last_serial += 1;
        self.last_serial
    }

    fn admit_probe(&mut self, now: Tick) -> Result<u64, Rejected> {
        if self.probes.len() >= self.options.probes {
            self.counts.rejected_full += 1;
            // A probe may return at any time.
            return Err(Rejected::new(Reason::Full, Duration::ZERO));
        }
        let serial = self.next_serial();
        self.probes.push(Probe { serial, until: now + self.options.probe_lease });
        self.counts.admitted += 1;
        Ok(serial)
    }

    /// Whether the probe is one that is out; it no longer is.
    fn take_probe(&mut self, serial: u64) -> bool {
        let place = self.probes.iter().position(|probe| probe.serial == serial);
        place.map(|place| self.probes.swap_remove(place)).is_some()
    }

    fn judge(&mut self, now: Tick, outcome: Option<Outcome>) {
        match outcome {
            Some(Outcome::Success) => {
                self.run = 0;
                for window in &mut self.windows {
                    window.record(now, false);
                }
            }
            Some(Outcome::Failure) => {
                self.run = self.run.saturating_add(1);
                for window in &mut self.windows {
                    window.record(now, true);
                }
                if self.tripped(now) {
                    self.open(now);
                }
            }
            // Nothing was learnt about the remote.
            _ => {}
        }
    }

    fn tripped(&mut self, now: Tick) -> bool {
        let Trip { consecutive, rates } = &self.options.trip;
        consecutive.is_some_and(|limit| self.run >= limit)
            || rates.iter().zip(&mut self.windows).any(|(rate, window)| {
                let (calls, failures) = window.totals(now);
                // Divided, not multiplied: 7 of 100 is the same number as the literal 0.07, 0.07 * 100 is not 7.
                calls >= rate.min_calls && failures as f64 / calls as f64 >= rate.share
            })
    }

    fn judge_probe(&mut self, now: Tick, successes: u32, outcome: Option<Outcome>) {
        match outcome {
            Some(Outcome::Success) if successes + 1 >= self.options.successes => self.reset(),
            Some(Outcome::Success) => self.mode = Mode::HalfOpen { successes: successes + 1 },
            Some(Outcome::Failure) => self.open(now),
            // No trial took place: the permit is back, and that is all.
            _ => {}
        }
    }

    fn open(&mut self, now: Tick) {
        self.probes.clear();
        self.counts.trips += 1;
        self.mode = Mode::Open { until: now + self.backoff.next_delay() };
    }

    /// A new closed spell that knows nothing of the past.
    fn close(&mut self) {
        self.probes.clear();
        self.run = 0;
        for window in &mut self.windows {
            window.clear();
        }
        self.mode = Mode::Closed { generation: self.next_serial() };
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

fn backoff(options: &Options) -> Backoff {
    // Exact to the nanosecond within the 24 hours that `build` allows, and far from what would panic.
    let base = Duration::from_secs_f64(options.open_base);
    let backoff = Backoff::new(base, options.open_cap)
        // Full jitter may draw nearly nothing, and a breaker that opens for no time is a breaker that did not open: the
        // calls that had just failed would be made again at once.
        .floor(base / 2);
    match options.seed {
        Some(seed) => backoff.seed(seed),
        None => backoff,
    }
}

const UNTRACKED: u64 = 0;
