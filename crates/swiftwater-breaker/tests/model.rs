//! The breaker against a naive twin: a list of everything that ever happened, gone through from the start for every
//! question. No ring, no places, no serials; slow, and plain to read.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use common::count;
use proptest::prelude::*;
use swiftwater_breaker::{Breaker, Permit, State, consecutive, failure_rate};
use swiftwater_core::{Backoff, Clock, Outcome, Reason};

#[derive(Clone, Debug)]
struct Setup {
    consecutive: Option<u32>,
    rates: Vec<(f64, Duration, u64)>,
    base: Duration,
    cap: Duration,
    seed: u64,
    probes: u32,
    successes: u32,
    lease: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Acquire,
    Advance(Duration),
    /// A whole call through a closure; the bool: it fails.
    Call(bool),
    ForceClosed,
    ForceOpen,
    PanickingCall,
    Reset,
    /// Ends one of the permits that are held.
    Settle(prop::sample::Index, Option<Outcome>),
    Switch(bool),
}

/// Who ended what is told apart by the number of the call, given in order of asking.
#[derive(Clone, Copy)]
enum Event {
    Admitted(usize),
    Ended(usize, Option<Outcome>),
    ForceClosed,
    ForceOpen,
    Reset,
    Switched,
}

struct Twin {
    setup: Setup,
    enabled: bool,
    /// Nanoseconds, event.
    history: Vec<(u64, Event)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Closed,
    ForcedClosed,
    ForcedOpen,
    HalfOpen,
    Open { until: u64 },
}

#[derive(Default, Debug, PartialEq)]
struct Tally {
    admitted: u64,
    success: u64,
    failure: u64,
    ignored: u64,
    local: u64,
    dropped: u64,
    late: u64,
    trips: u64,
}

impl Twin {
    fn tell(&mut self, now: u64, event: Event) {
        self.history.push((now, event));
    }

    /// The phase after all that happened, the place in the history where it began, and the sums.
    fn replay(&self) -> (Phase, usize, Tally) {
        let mut backoff =
            Backoff::new(self.setup.base, self.setup.cap).floor(self.setup.base / 2).seed(self.setup.seed);
        let (mut phase, mut start, mut tally) = (Phase::Closed, 0, Tally::default());
        for (place, &(now, event)) in self.history.iter().enumerate() {
            let next = match event {
                Event::Admitted(_) => {
                    tally.admitted += 1;
                    match phase {
                        // This very admission is the first of the new phase.
                        Phase::Open { .. } => {
                            (phase, start) = (Phase::HalfOpen, place);
                            None
                        }
                        _ => None,
                    }
                }
                Event::Ended(call, _) if !self.counts(call, phase, start, now) => {
                    tally.late += 1;
                    None
                }
                Event::Ended(_, outcome) => {
                    *match outcome {
                        Some(Outcome::Success) => &mut tally.success,
                        Some(Outcome::Failure) => &mut tally.failure,
                        Some(Outcome::Ignored) => &mut tally.ignored,
                        Some(Outcome::Local) => &mut tally.local,
                        _ => &mut tally.dropped,
                    } += 1;
                    let ended = self.ended(phase, start, place);
                    let opens = match phase {
                        Phase::Closed => outcome == Some(Outcome::Failure) && self.trips(&ended, now),
                        Phase::HalfOpen => outcome == Some(Outcome::Failure),
                        _ => false,
                    };
                    let successes = ended.iter().filter(|(_, failed)| !failed).count();
                    if opens {
                        tally.trips += 1;
                        let until = now + backoff.next_delay().as_nanos() as u64;
                        Some(Phase::Open { until })
                    } else if phase == Phase::HalfOpen && successes >= self.setup.successes as usize {
                        backoff.reset();
                        Some(Phase::Closed)
                    } else {
                        None
                    }
                }
                Event::ForceClosed => Some(Phase::ForcedClosed),
                Event::ForceOpen => Some(Phase::ForcedOpen),
                Event::Switched if matches!(phase, Phase::ForcedClosed | Phase::ForcedOpen) => Some(phase),
                Event::Reset | Event::Switched => {
                    backoff.reset();
                    Some(Phase::Closed)
                }
            };
            if let Some(next) = next {
                (phase, start) = (next, place + 1);
            }
        }
        (phase, start, tally)
    }

    /// Is the end of this call, now, news about the phase that began at `start`?
    fn counts(&self, call: usize, phase: Phase, start: usize, now: u64) -> bool {
        let is_it = |(_, event): &(u64, Event)| matches!(event, Event::Admitted(c) if *c == call);
        let place = self.history.iter().position(is_it).expect("it was admitted");
        let in_lease = phase != Phase::HalfOpen || now < self.history[place].0 + self.lease();
        place >= start && in_lease
    }

    /// Time and verdict (failed?) of the successes and failures of the phase, up to and including `last`.
    fn ended(&self, phase: Phase, start: usize, last: usize) -> Vec<(u64, bool)> {
        self.history[start..=last]
            .iter()
            .filter_map(|&(now, event)| match event {
                Event::Ended(call, Some(outcome)) if self.counts(call, phase, start, now) => match outcome {
                    Outcome::Failure => Some((now, true)),
                    Outcome::Success => Some((now, false)),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    fn trips(&self, ended: &[(u64, bool)], now: u64) -> bool {
        let run = ended.iter().rev().take_while(|(_, failed)| *failed).count();
        self.setup.consecutive.is_some_and(|limit| run >= limit as usize)
            || self.setup.rates.iter().any(|&(share, window, min_calls)| {
                let slice = window.as_nanos() as u64 / 32;
                let recent: Vec<_> = ended.iter().filter(|(at, _)| at / slice + 32 > now / slice).collect();
                let failures = recent.iter().filter(|(_, failed)| *failed).count();
                recent.len() as u64 >= min_calls && failures as f64 / recent.len() as f64 >= share
            })
    }

    fn ask(&self, now: u64) -> Result<(), Reason> {
        if !self.enabled {
            return Ok(());
        }
        let (phase, start, _) = self.replay();
        match phase {
            Phase::Closed | Phase::ForcedClosed => Ok(()),
            Phase::Open { until } if now >= until => Ok(()),
            Phase::ForcedOpen | Phase::Open { .. } => Err(Reason::Open),
            Phase::HalfOpen => {
                let out = self.history[start..]
                    .iter()
                    .filter(|(at, event)| match event {
                        Event::Admitted(call) => now < at + self.lease() && !self.has_ended(*call),
                        _ => false,
                    })
                    .count();
                if out < self.setup.probes as usize { Ok(()) } else { Err(Reason::Full) }
            }
        }
    }

    fn state(&self, now: u64) -> State {
        match self.replay().0 {
            _ if !self.enabled => State::Disabled,
            Phase::Closed => State::Closed,
            Phase::ForcedClosed => State::ForcedClosed,
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::Open { until } if now < until => State::Open,
            Phase::HalfOpen | Phase::Open { .. } => State::HalfOpen,
        }
    }

    fn has_ended(&self, call: usize) -> bool {
        self.history.iter().any(|(_, event)| matches!(event, Event::Ended(c, _) if *c == call))
    }

    fn lease(&self) -> u64 {
        self.setup.lease.as_nanos() as u64
    }
}

/// Both sides of the comparison, and the permits that are held.
struct Pair<'a> {
    breaker: &'a Breaker,
    clock: Clock,
    twin: Twin,
    /// With the number of the call, if the twin knows it: what passes while switched off leaves no trace.
    held: Vec<(Option<usize>, Permit<'a>)>,
    asked: usize,
}

impl Pair<'_> {
    /// The number under which the twin admitted the call that the breaker admitted, or refused, as `real` says.
    fn admitted(&mut self, real: Result<(), Reason>) -> Result<Option<usize>, TestCaseError> {
        let now = self.clock.now().as_nanos();
        prop_assert_eq!(self.twin.ask(now), real);
        self.asked += 1;
        if real.is_err() || !self.twin.enabled {
            return Ok(None);
        }
        self.twin.tell(now, Event::Admitted(self.asked));
        Ok(Some(self.asked))
    }

    fn ended(&mut self, call: Option<usize>, outcome: Option<Outcome>) {
        if let Some(call) = call {
            let now = self.clock.now().as_nanos();
            self.twin.tell(now, Event::Ended(call, outcome));
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
        let reason = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Err(swiftwater_breaker::CallError::Rejected(rejected))) => Err(rejected.reason()),
            _ => Ok(()),
        };
        prop_assert_eq!(made, reason.is_ok());
        let call = self.admitted(reason)?;
        let failed = end != Some(false);
        self.ended(call, Some(if failed { Outcome::Failure } else { Outcome::Success }));
        Ok(())
    }

    fn step(&mut self, op: Op, hand: &swiftwater_core::Hand) -> Result<(), TestCaseError> {
        let now = self.clock.now().as_nanos();
        match op {
            Op::Acquire => {
                let permit = self.breaker.try_acquire();
                let call = self.admitted(permit.as_ref().map(drop).map_err(|rejected| rejected.reason()))?;
                if let Ok(permit) = permit {
                    self.held.push((call, permit));
                }
            }
            Op::Advance(by) => hand.advance(by),
            Op::Call(fails) => self.whole_call(Some(fails))?,
            Op::ForceClosed => {
                self.breaker.force_closed();
                self.twin.tell(now, Event::ForceClosed);
            }
            Op::ForceOpen => {
                self.breaker.force_open();
                self.twin.tell(now, Event::ForceOpen);
            }
            Op::PanickingCall => self.whole_call(None)?,
            Op::Reset => {
                self.breaker.reset();
                self.twin.tell(now, Event::Reset);
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
                if on != self.twin.enabled {
                    self.twin.enabled = on;
                    self.twin.tell(now, Event::Switched);
                }
            }
        }
        let now = self.clock.now().as_nanos();
        prop_assert_eq!(self.breaker.state(), self.twin.state(now));
        let tally = Tally {
            admitted: count(self.breaker, "admitted"),
            success: count(self.breaker, "success"),
            failure: count(self.breaker, "failure"),
            ignored: count(self.breaker, "ignored"),
            local: count(self.breaker, "local"),
            dropped: count(self.breaker, "dropped"),
            late: count(self.breaker, "late"),
            trips: count(self.breaker, "trips"),
        };
        prop_assert_eq!(&tally, &self.twin.replay().2);
        // Every permit is accounted for exactly once.
        let under_way = self.held.iter().filter(|(call, _)| call.is_some()).count() as u64;
        let ended = tally.success + tally.failure + tally.ignored + tally.local + tally.dropped + tally.late;
        prop_assert_eq!(tally.admitted, ended + under_way);
        Ok(())
    }
}

fn setups() -> impl Strategy<Value = Setup> {
    let rate = (1..=10u32, 100..5_000u64, 1..8u64)
        .prop_map(|(tenths, ms, min_calls)| (f64::from(tenths) / 10.0, Duration::from_millis(ms), min_calls));
    let trip = prop_oneof![
        (1..5u32).prop_map(|run| (Some(run), Vec::new())),
        prop::collection::vec(rate.clone(), 1..3).prop_map(|rates| (None, rates)),
        (2..5u32, prop::collection::vec(rate, 1..3)).prop_map(|(run, rates)| (Some(run), rates)),
    ];
    (trip, 1..2_000u64, 0..5_000u64, any::<u64>(), 1..4u32, 1..4u32, 1..3_000u64).prop_map(
        |((consecutive, rates), base, more, seed, probes, successes, lease)| Setup {
            consecutive,
            rates,
            base: Duration::from_millis(base),
            cap: Duration::from_millis(base + more),
            seed,
            probes,
            successes,
            lease: Duration::from_millis(lease),
        },
    )
}

fn ops() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        3 => Just(Some(Outcome::Failure)),
        3 => Just(Some(Outcome::Success)),
        1 => Just(Some(Outcome::Ignored)),
        1 => Just(Some(Outcome::Local)),
        1 => Just(None),
    ];
    prop_oneof![
        20 => Just(Op::Acquire),
        20 => (any::<prop::sample::Index>(), outcome).prop_map(|(which, outcome)| Op::Settle(which, outcome)),
        10 => (0..1_500u64).prop_map(|ms| Op::Advance(Duration::from_millis(ms))),
        2 => (0..100u64).prop_map(|secs| Op::Advance(Duration::from_secs(secs))),
        12 => any::<bool>().prop_map(Op::Call),
        2 => Just(Op::PanickingCall),
        1 => Just(Op::ForceClosed),
        1 => Just(Op::ForceOpen),
        2 => Just(Op::Reset),
        1 => any::<bool>().prop_map(Op::Switch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_is_decided_as_the_twin_decides_it(setup in setups(), ops in prop::collection::vec(ops(), 1..80)) {
        let mut conditions = setup
            .rates
            .iter()
            .map(|&(share, window, min_calls)| failure_rate(share).over(window).min_calls(min_calls).into())
            .chain(setup.consecutive.map(consecutive));
        let first = conditions.next().expect("at least one");
        let trip = conditions.fold(first, swiftwater_breaker::Trip::or);
        let (clock, hand) = Clock::manual();
        let breaker = Breaker::builder()
            .trip_when(trip)
            .open_for(setup.base..=setup.cap)
            .seed(setup.seed)
            .probes(setup.probes)
            .successes(setup.successes)
            .probe_lease(setup.lease)
            .clock(clock.clone())
            .build()
            .expect("valid options");
        let twin = Twin { setup, enabled: true, history: Vec::new() };
        let mut pair = Pair { breaker: &breaker, clock, twin, held: Vec::new(), asked: 0 };
        for op in ops {
            pair.step(op, &hand)?;
        }
    }
}
