//! The breaker against a naive twin: a list of everything that ever happened, gone through from the start for every
//! question. No ring, no stripes, no serials, no face, no lock; slow, and plain to read.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use common::{count, reading};
use proptest::prelude::*;
use swiftwater_breaker::{
    Breaker, CallError, Cause, Permit, State, Trip, consecutive, failure_count, failure_rate, never,
    slow_rate, stalled, throttle,
};
use swiftwater_core::{Backoff, Clock, Hand, Outcome, Reason, Rejected};

#[derive(Clone, Debug)]
struct Setup {
    consecutive: Option<u32>,
    watches: Vec<Watch>,
    /// After how long, and how many.
    stalled: Option<(Duration, u32)>,
    /// k, window, least calls.
    throttle: Option<(f64, Duration, u64)>,
    ramp: Option<Duration>,
    base: Duration,
    cap: Duration,
    seed: u64,
    probes: u32,
    successes: u32,
    probe_failures: u32,
    lease: Duration,
    observe_only: bool,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    /// Failures, if there is no threshold.
    slow: Option<Duration>,
    window: Span,
    limit: Limit,
}

#[derive(Clone, Copy, Debug)]
enum Span {
    Calls(u32),
    Time(Duration),
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Count(u32),
    Share(f64, u64),
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Acquire,
    Advance(Duration),
    /// A whole call through a closure; the bool: it fails.
    Call(bool),
    ForceClosed,
    ForceOpen,
    /// As `Call`, in a thread that has no memory of its own in the breaker yet.
    CallElsewhere(bool),
    PanickingCall,
    Reset,
    /// Ends one of the permits that are held.
    Settle(prop::sample::Index, Option<Outcome>),
    Switch(bool),
    Watch(bool),
}

/// Calls are told apart by their number, given in order of asking.
#[derive(Clone, Copy, Debug)]
enum Event {
    Asked(usize),
    Ended(usize, Option<Outcome>),
    ForceClosed,
    ForceOpen,
    Reset,
    Switched(bool),
    WatchOnly(bool),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Closed { ramp: Option<u64> },
    ForcedClosed,
    ForcedOpen,
    HalfOpen,
    Open { until: u64 },
}

#[derive(Clone, Default, Debug, PartialEq)]
struct Tally {
    admitted: u64,
    rejected_full: u64,
    rejected_open: u64,
    rejected_throttled: u64,
    success: u64,
    failure: u64,
    ignored: u64,
    local: u64,
    dropped: u64,
    late: u64,
    slow: u64,
    trips: u64,
}

/// What a phase has seen, in order.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Admitted {
        call: usize,
        at: u64,
    },
    Ended {
        call: usize,
        at: u64,
        failed: Option<bool>,
        took: u64,
    },
    /// Of a call of this phase, of which nothing was learnt.
    Void {
        call: usize,
    },
    Shed {
        at: u64,
    },
}

/// The story so far, told once through.
struct Story<'a> {
    setup: &'a Setup,
    backoff: Backoff,
    random: fastrand::Rng,
    enabled: bool,
    observe_only: bool,
    phase: Phase,
    seen: Vec<Seen>,
    tally: Tally,
    /// From, to, why.
    changes: Vec<(State, State, Cause)>,
    shown: State,
    now: u64,
}

impl<'a> Story<'a> {
    fn tell(setup: &'a Setup, history: &[(u64, Event)]) -> (Self, Option<Result<bool, Reason>>) {
        let backoff = Backoff::new(setup.base, setup.cap).floor(setup.base / 2).seed(setup.seed);
        let mut story = Self {
            setup,
            backoff,
            random: fastrand::Rng::with_seed(setup.seed),
            enabled: true,
            observe_only: setup.observe_only,
            phase: Phase::Closed { ramp: None },
            seen: Vec::new(),
            tally: Tally::default(),
            changes: Vec::new(),
            shown: State::Closed,
            now: 0,
        };
        let mut answer = None;
        for &(now, event) in history {
            story.now = now;
            answer = None;
            match event {
                Event::Asked(call) => answer = Some(story.asked(call)),
                Event::Ended(call, outcome) => story.ended(call, outcome),
                Event::ForceClosed => story.become_(Phase::ForcedClosed, Cause::ByHand),
                Event::ForceOpen => story.become_(Phase::ForcedOpen, Cause::ByHand),
                Event::Reset => story.reset(),
                Event::WatchOnly(on) => story.observe_only = on,
                Event::Switched(on) if on == story.enabled => {}
                Event::Switched(on) => {
                    story.enabled = on;
                    match story.phase {
                        Phase::ForcedClosed | Phase::ForcedOpen => story.become_(story.phase, Cause::ByHand),
                        _ => story.reset(),
                    }
                }
            }
        }
        (story, answer)
    }

    fn reset(&mut self) {
        self.backoff.reset();
        self.become_(Phase::Closed { ramp: None }, Cause::ByHand);
    }

    fn become_(&mut self, phase: Phase, why: Cause) {
        self.phase = phase;
        self.seen.clear();
        self.show(why);
    }

    fn show(&mut self, why: Cause) {
        let state = self.state(self.now);
        if state != self.shown {
            self.changes.push((self.shown, state, why));
            self.shown = state;
        }
    }

    fn open(&mut self, why: Cause) {
        self.tally.trips += 1;
        let until = self.now.saturating_add(self.backoff.next_delay().as_nanos() as u64);
        self.become_(Phase::Open { until }, why);
    }

    fn state(&self, now: u64) -> State {
        match self.phase {
            _ if !self.enabled => State::Disabled,
            Phase::Closed { ramp: Some(since) } if now < since + self.ramp() => State::Ramping,
            Phase::Closed { .. } => State::Closed,
            Phase::ForcedClosed => State::ForcedClosed,
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::Open { until } if now < until => State::Open,
            Phase::HalfOpen | Phase::Open { .. } => State::HalfOpen,
        }
    }

    /// What time alone brings about, when somebody comes.
    fn time_passes(&mut self) {
        if let Phase::Closed { ramp } = self.phase {
            if ramp.is_some_and(|since| self.now >= since + self.ramp()) {
                self.backoff.reset();
                self.phase = Phase::Closed { ramp: None };
                self.show(Cause::RampOver);
            }
            if let Some((after, least)) = self.setup.stalled {
                let slice = after.as_nanos() as u64 / 8;
                let old = |start: u64| start / slice + 8 < self.now / slice;
                let hanging = self.seen.iter().filter(|seen| match seen {
                    Seen::Admitted { call, at } => old(self.rounded(*at)) && self.is_under_way(*call),
                    _ => false,
                });
                if hanging.count() >= least as usize {
                    self.open(Cause::Stalled);
                }
            }
        }
    }

    /// `Ok(true)`: under a permit; `Ok(false)`: let pass, and nobody looks.
    fn asked(&mut self, call: usize) -> Result<bool, Reason> {
        if !self.enabled {
            return Ok(false);
        }
        self.time_passes();
        match self.decide(call) {
            Ok(()) => {
                self.tally.admitted += 1;
                self.seen.push(Seen::Admitted { call, at: self.now });
                Ok(true)
            }
            Err(reason) => {
                *match reason {
                    Reason::Full => &mut self.tally.rejected_full,
                    Reason::Throttled => &mut self.tally.rejected_throttled,
                    _ => &mut self.tally.rejected_open,
                } += 1;
                if self.observe_only { Ok(false) } else { Err(reason) }
            }
        }
    }

    fn decide(&mut self, _: usize) -> Result<(), Reason> {
        match self.phase {
            Phase::Open { until } if self.now >= until => {
                self.become_(Phase::HalfOpen, Cause::OpenTimeOver);
                Ok(())
            }
            Phase::ForcedOpen | Phase::Open { .. } => Err(Reason::Open),
            Phase::ForcedClosed => Ok(()),
            Phase::HalfOpen => {
                let out = self.seen.iter().filter(|seen| match seen {
                    Seen::Admitted { call, at } => self.now < at + self.lease() && self.is_under_way(*call),
                    _ => false,
                });
                if out.count() < self.setup.probes as usize { Ok(()) } else { Err(Reason::Full) }
            }
            Phase::Closed { ramp } => {
                let elapsed = |since| Duration::from_nanos(self.now - since).as_secs_f64();
                let share = ramp.map_or(1.0, |since| {
                    (elapsed(since) / self.setup.ramp.expect("it ramps").as_secs_f64()).clamp(0.05, 1.0)
                });
                if share < 1.0 && self.random.f64() >= share {
                    return Err(Reason::Throttled);
                }
                let refuse = self.throttled();
                if refuse > 0.0 && self.random.f64() < refuse {
                    self.seen.push(Seen::Shed { at: self.now });
                    return Err(Reason::Throttled);
                }
                Ok(())
            }
        }
    }

    fn throttled(&self) -> f64 {
        let Some((k, window, least)) = self.setup.throttle else { return 0.0 };
        let (mut requests, mut accepts) = (0, 0);
        for seen in &self.seen {
            match *seen {
                Seen::Ended { at, failed: Some(failed), .. } if is_recent(at, self.now, window) => {
                    requests += 1;
                    accepts += u64::from(!failed);
                }
                Seen::Shed { at } if is_recent(at, self.now, window) => requests += 1,
                _ => {}
            }
        }
        if requests < least {
            return 0.0;
        }
        ((requests as f64 - k * accepts as f64) / (requests as f64 + 1.0)).max(0.0)
    }

    fn ended(&mut self, call: usize, outcome: Option<Outcome>) {
        self.time_passes();
        let admitted = self.seen.iter().find_map(|seen| match seen {
            Seen::Admitted { call: c, at } if *c == call => Some(*at),
            _ => None,
        });
        let in_time = |at: u64| self.phase != Phase::HalfOpen || self.now < at + self.lease();
        let Some(at) = admitted.filter(|at| in_time(*at)) else {
            self.tally.late += 1;
            return;
        };
        *match outcome {
            Some(Outcome::Success) => &mut self.tally.success,
            Some(Outcome::Failure) => &mut self.tally.failure,
            Some(Outcome::Ignored) => &mut self.tally.ignored,
            Some(Outcome::Local) => &mut self.tally.local,
            _ => &mut self.tally.dropped,
        } += 1;
        let failed = match outcome {
            Some(Outcome::Success) => Some(false),
            Some(Outcome::Failure) => Some(true),
            None => None,
            _ => {
                self.seen.push(Seen::Void { call });
                return;
            }
        };
        let start = if self.phase == Phase::HalfOpen { at } else { self.rounded(at) };
        let took = self.now - start;
        self.seen.push(Seen::Ended { call, at: self.now, failed, took });
        let slow = self.thresholds().any(|threshold| took >= threshold);
        if slow && self.phase != Phase::ForcedClosed {
            self.tally.slow += 1;
        }
        match self.phase {
            Phase::Closed { .. } if failed == Some(true) || slow => {
                if let Some(cause) = self.trips() {
                    self.open(cause);
                }
            }
            Phase::HalfOpen => self.judge_probes(),
            _ => {}
        }
    }

    fn judge_probes(&mut self) {
        let verdicts = self.seen.iter().filter_map(|seen| match *seen {
            Seen::Ended { took, .. } if self.thresholds().any(|threshold| took >= threshold) => Some(true),
            Seen::Ended { failed, .. } => failed,
            _ => None,
        });
        let (bad, good): (Vec<_>, Vec<_>) = verdicts.partition(|failed| *failed);
        if good.len() >= self.setup.successes as usize {
            let ramp = self.setup.ramp.map(|_| self.now);
            if ramp.is_none() {
                self.backoff.reset();
            }
            self.become_(Phase::Closed { ramp }, Cause::ProbesSucceeded);
        } else if bad.len() > self.setup.probe_failures as usize {
            self.open(Cause::ProbeFailed);
        }
    }

    fn trips(&self) -> Option<Cause> {
        let verdicts = self.seen.iter().filter_map(|seen| match seen {
            Seen::Ended { failed, .. } => *failed,
            _ => None,
        });
        let run = verdicts.rev().take_while(|failed| *failed).count();
        if self.setup.consecutive.is_some_and(|limit| run >= limit as usize) {
            return Some(Cause::Consecutive);
        }
        self.setup.watches.iter().find_map(|watch| {
            // When, and whether it was bad.
            let mut calls: Vec<(u64, bool)> = self
                .seen
                .iter()
                .filter_map(|seen| match (*seen, watch.slow.map(nanos)) {
                    (Seen::Ended { at, failed: Some(failed), .. }, None) => Some((at, failed)),
                    (Seen::Ended { at, failed, took, .. }, Some(threshold)) => {
                        let slow = took >= threshold;
                        (failed.is_some() || slow).then_some((at, slow))
                    }
                    _ => None,
                })
                .collect();
            match watch.window {
                Span::Calls(size) => drop(calls.drain(..calls.len().saturating_sub(size as usize))),
                Span::Time(window) => calls.retain(|(at, _)| is_recent(*at, self.now, window)),
            }
            let bad = calls.iter().filter(|(_, bad)| *bad).count();
            let reached = match watch.limit {
                Limit::Count(count) => bad >= count as usize,
                Limit::Share(share, least) => {
                    calls.len() as u64 >= least && bad as f64 / calls.len() as f64 >= share
                }
            };
            reached.then_some(match (watch.slow, watch.limit) {
                (Some(_), _) => Cause::SlowRate,
                (None, Limit::Share(..)) => Cause::FailureRate,
                (None, Limit::Count(_)) => Cause::FailureCount,
            })
        })
    }

    fn is_under_way(&self, call: usize) -> bool {
        !self.seen.iter().any(|seen| match seen {
            Seen::Ended { call: c, .. } | Seen::Void { call: c } => *c == call,
            _ => false,
        })
    }

    fn thresholds(&self) -> impl Iterator<Item = u64> {
        self.setup.watches.iter().filter_map(|watch| watch.slow.map(nanos))
    }

    /// Closed permits keep their start in units of 4096 ns.
    fn rounded(&self, at: u64) -> u64 {
        at / 4096 * 4096
    }

    fn ramp(&self) -> u64 {
        nanos(self.setup.ramp.unwrap_or_default())
    }

    fn lease(&self) -> u64 {
        nanos(self.setup.lease)
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// Windows are kept in 32 slices.
fn is_recent(at: u64, now: u64, window: Duration) -> bool {
    let slice = nanos(window) / 32;
    at / slice + 32 > now / slice
}

/// Both sides of the comparison, and the permits that are held.
struct Pair<'a> {
    breaker: &'a Breaker,
    clock: Clock,
    setup: Setup,
    history: Vec<(u64, Event)>,
    /// With the number of the call, if the twin knows it: what passes untracked leaves no trace.
    held: Vec<(Option<usize>, Permit<'a>)>,
    asked: usize,
}

impl Pair<'_> {
    fn now(&self) -> u64 {
        self.clock.now().as_nanos()
    }

    /// The number under which the twin admitted the call that the breaker admitted, or refused, as `real` says.
    fn admitted(&mut self, real: Result<(), Rejected>) -> Result<Option<usize>, TestCaseError> {
        self.asked += 1;
        self.history.push((self.now(), Event::Asked(self.asked)));
        let (story, answer) = Story::tell(&self.setup, &self.history);
        let answer = answer.expect("it was asked");
        prop_assert_eq!(answer.map(drop), real.map_err(|rejected| rejected.reason()));
        if let (Err(rejected), Phase::Open { until }) = (real, story.phase) {
            let left = Duration::from_nanos(until - self.now());
            prop_assert_eq!(rejected, Rejected::new(Reason::Open, left));
        }
        Ok((answer == Ok(true)).then_some(self.asked))
    }

    fn ended(&mut self, call: Option<usize>, outcome: Option<Outcome>) {
        if let Some(call) = call {
            self.history.push((self.now(), Event::Ended(call, outcome)));
        }
    }

    fn whole_call(&mut self, end: Option<bool>) -> Result<(), TestCaseError> {
        let mut made = false;
        let call = || {
            self.breaker.call_sync(|| {
                made = true;
                match end {
                    Some(false) => Ok(()),
                    Some(true) => Err(()),
                    // Past the panic hook, which would fill the log.
                    None => std::panic::resume_unwind(Box::new("on purpose")),
                }
            })
        };
        let real = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Err(CallError::Rejected(rejected))) => Err(rejected),
            _ => Ok(()),
        };
        prop_assert_eq!(made, real.is_ok());
        let call = self.admitted(real)?;
        let failed = end != Some(false);
        self.ended(call, Some(if failed { Outcome::Failure } else { Outcome::Success }));
        Ok(())
    }

    fn step(&mut self, op: Op, hand: &Hand) -> Result<(), TestCaseError> {
        match op {
            Op::Acquire => {
                let permit = self.breaker.try_acquire();
                let call = self.admitted(permit.as_ref().map(drop).map_err(|rejected| *rejected))?;
                if let Ok(permit) = permit {
                    self.held.push((call, permit));
                }
            }
            Op::Advance(by) => hand.advance(by),
            Op::Call(fails) => self.whole_call(Some(fails))?,
            Op::CallElsewhere(fails) => {
                let call = || self.breaker.call_sync(|| if fails { Err(()) } else { Ok(()) });
                let answer = thread::scope(|scope| scope.spawn(call).join().expect("no panic"));
                let refused = |error| match error {
                    CallError::Rejected(rejected) => Err(rejected),
                    _ => Ok(()),
                };
                let call = self.admitted(answer.or_else(refused))?;
                self.ended(call, Some(if fails { Outcome::Failure } else { Outcome::Success }));
            }
            Op::ForceClosed => {
                self.breaker.force_closed();
                self.history.push((self.now(), Event::ForceClosed));
            }
            Op::ForceOpen => {
                self.breaker.force_open();
                self.history.push((self.now(), Event::ForceOpen));
            }
            Op::PanickingCall => self.whole_call(None)?,
            Op::Reset => {
                self.breaker.reset();
                self.history.push((self.now(), Event::Reset));
            }
            Op::Settle(which, outcome) => {
                if !self.held.is_empty() {
                    let (call, permit) = self.held.swap_remove(which.index(self.held.len()));
                    match outcome {
                        Some(outcome) => permit.finish(outcome),
                        None => drop(permit),
                    }
                    self.ended(call, outcome);
                }
            }
            Op::Switch(on) => {
                self.breaker.set_enabled(on);
                self.history.push((self.now(), Event::Switched(on)));
            }
            Op::Watch(on) => {
                self.breaker.set_observe_only(on);
                self.history.push((self.now(), Event::WatchOnly(on)));
            }
        }
        self.compare()
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let (story, _) = Story::tell(&self.setup, &self.history);
        prop_assert_eq!(self.breaker.state(), story.state(self.now()));
        let tally = Tally {
            admitted: count(self.breaker, "admitted"),
            rejected_full: count(self.breaker, "rejected_full"),
            rejected_open: count(self.breaker, "rejected_open"),
            rejected_throttled: count(self.breaker, "rejected_throttled"),
            success: count(self.breaker, "success"),
            failure: count(self.breaker, "failure"),
            ignored: count(self.breaker, "ignored"),
            local: count(self.breaker, "local"),
            dropped: count(self.breaker, "dropped"),
            late: count(self.breaker, "late"),
            slow: count(self.breaker, "slow"),
            trips: count(self.breaker, "trips"),
        };
        prop_assert_eq!(&tally, &story.tally);
        // Every permit is accounted for exactly once.
        let under_way = self.held.iter().filter(|(call, _)| call.is_some()).count() as u64;
        let ended = tally.success + tally.failure + tally.ignored + tally.local + tally.dropped + tally.late;
        prop_assert_eq!(tally.admitted, ended + under_way);
        let left = match story.phase {
            Phase::Open { until } if story.enabled => Duration::from_nanos(until.saturating_sub(self.now())),
            _ => Duration::ZERO,
        };
        prop_assert_eq!(reading(self.breaker, "open_left"), left.as_secs_f64());
        let events = self.breaker.events(0);
        let told: Vec<_> = events.iter().map(|event| (event.from, event.to, event.cause)).collect();
        prop_assert_eq!(&told[..], &story.changes[story.changes.len().saturating_sub(16)..]);
        prop_assert_eq!(events.last().map_or(0, |event| event.number), story.changes.len() as u64);
        Ok(())
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn watches() -> impl Strategy<Value = Watch> {
    let slow = prop::option::of((1..800u64).prop_map(ms));
    let window = prop_oneof![
        3 => (100..5_000u64).prop_map(|window| Span::Time(ms(window))),
        1 => (1..12u32).prop_map(Span::Calls),
    ];
    let limit = prop_oneof![
        4 => (1..=10u32, 1..8u64).prop_map(|(tenths, least)| Limit::Share(f64::from(tenths) / 10.0, least)),
        1 => (1..6u32).prop_map(Limit::Count),
    ];
    (slow, window, limit).prop_map(|(slow, window, limit)| match limit {
        // Counted are failures, in time.
        Limit::Count(_) => {
            let window = if let Span::Time(_) = window { window } else { Span::Time(ms(1_000)) };
            Watch { slow: None, window, limit }
        }
        Limit::Share(share, least) => {
            let most = if let Span::Calls(calls) = window { calls.into() } else { u64::MAX };
            Watch { slow, window, limit: Limit::Share(share, least.min(most)) }
        }
    })
}

fn setups() -> impl Strategy<Value = Setup> {
    let conditions = (
        prop::option::weighted(0.6, 1..5u32),
        prop::collection::vec(watches(), 0..3),
        prop::option::weighted(0.3, ((100..3_000u64).prop_map(ms), 1..4u32)),
        prop::option::weighted(
            0.2,
            ((10..40u32).prop_map(|k| f64::from(k) / 10.0), (100..9_000u64).prop_map(ms), 1..8u64),
        ),
        prop::option::weighted(0.3, (1..3_000u64).prop_map(ms)),
    );
    let probing = (1..4u32, 1..4u32, 0..3u32, (1..3_000u64).prop_map(ms));
    (conditions, 1..2_000u64, 0..5_000u64, any::<u64>(), probing, prop::bool::weighted(0.15)).prop_map(
        |(conditions, base, more, seed, probing, observe_only)| {
            let (consecutive, watches, stalled, throttle, ramp) = conditions;
            let (probes, successes, probe_failures, lease) = probing;
            Setup {
                consecutive,
                watches,
                stalled,
                throttle,
                ramp,
                base: ms(base),
                cap: ms(base + more),
                seed,
                probes,
                successes,
                probe_failures,
                lease,
                observe_only,
            }
        },
    )
}

fn ops() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        4 => Just(Some(Outcome::Failure)),
        4 => Just(Some(Outcome::Success)),
        1 => Just(Some(Outcome::Ignored)),
        1 => Just(Some(Outcome::Local)),
        2 => Just(None),
    ];
    prop_oneof![
        24 => Just(Op::Acquire),
        24 => (any::<prop::sample::Index>(), outcome).prop_map(|(which, outcome)| Op::Settle(which, outcome)),
        8 => (0..1_500_000u64).prop_map(|us| Op::Advance(Duration::from_micros(us))),
        6 => (0..60u64).prop_map(|ms| Op::Advance(Duration::from_millis(ms))),
        1 => (0..100u64).prop_map(|secs| Op::Advance(Duration::from_secs(secs))),
        14 => any::<bool>().prop_map(Op::Call),
        3 => any::<bool>().prop_map(Op::CallElsewhere),
        2 => Just(Op::PanickingCall),
        1 => Just(Op::ForceClosed),
        1 => Just(Op::ForceOpen),
        2 => Just(Op::Reset),
        1 => any::<bool>().prop_map(Op::Switch),
        1 => any::<bool>().prop_map(Op::Watch),
    ]
}

impl Setup {
    fn build(&self, clock: &Clock) -> Breaker {
        let watch = |watch: &Watch| -> Trip {
            match (watch.limit, watch.window) {
                (Limit::Count(count), Span::Time(window)) => failure_count(count).over(window).into(),
                (Limit::Count(_), Span::Calls(_)) => unreachable!("counts are in time"),
                (Limit::Share(share, least), window) => {
                    let rate = match watch.slow {
                        None => failure_rate(share),
                        Some(threshold) => slow_rate(share, threshold),
                    };
                    match window {
                        Span::Calls(calls) => rate.over_calls(calls).min_calls(least).into(),
                        Span::Time(window) => rate.over(window).min_calls(least).into(),
                    }
                }
            }
        };
        let trip = self.watches.iter().map(watch).fold(never(), Trip::or);
        let trip = self.consecutive.map(consecutive).into_iter().fold(trip, Trip::or);
        let stalls = self.stalled.map(|(after, least)| stalled(after).at_least(least));
        let trip = stalls.into_iter().fold(trip, Trip::or);
        Breaker::builder()
            .trip_when(trip)
            .throttle(self.throttle.map(|(k, window, least)| throttle(k).over(window).min_calls(least)))
            .ramp(self.ramp)
            .open_for(self.base..=self.cap)
            .seed(self.seed)
            .probes(self.probes)
            .successes(self.successes)
            .probe_failures(self.probe_failures)
            .probe_lease(self.lease)
            .observe_only(self.observe_only)
            .clock(clock.clone())
            .build()
            .expect("valid options")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_is_decided_as_the_twin_decides_it(setup in setups(), ops in prop::collection::vec(ops(), 1..80)) {
        let (clock, hand) = Clock::manual();
        let breaker = setup.build(&clock);
        let mut pair = Pair { breaker: &breaker, clock, setup, history: Vec::new(), held: Vec::new(), asked: 0 };
        for op in ops {
            pair.step(op, &hand)?;
        }
    }
}
