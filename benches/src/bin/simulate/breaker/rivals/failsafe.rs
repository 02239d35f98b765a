//! failsafe 1.3 at its defaults. Two conditions, either opens: five failures in a row, or a success rate below 0.8, as an
//! average that forgets over 30 s, if there were five calls in the last 30 s; not before 30 s have passed since it was
//! last closed. Open for 10 s to 300 s, growing, half of it drawn, in whole seconds; when both conditions are met, the
//! longer of their two waits. Half-open **everybody is admitted**, and the first result decides, **whenever its call was
//! admitted**: a success from before the trip closes it. Dropped calls are not noticed.

use crate::breaker::{
    events::{MILLISECOND, Nanos, SECOND},
    policy::{Outcome, Policy, Ticket},
};

pub struct Failsafe {
    state: State,
    failures: u32,
    rate: SuccessRate,
    /// Of the rate, and of the failures in a row: each counts how often it was met.
    waits: [Wait; 2],
    random: fastrand::Rng,
}

#[derive(Clone, Copy)]
enum State {
    Closed,
    HalfOpen { waited: Nanos },
    Open { until: Nanos, wait: Nanos },
}

#[derive(Clone, Copy, Default)]
struct Wait {
    met: u32,
}

impl Failsafe {
    pub fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self {
            state: State::Closed,
            failures: 0,
            rate: SuccessRate::new(0),
            waits: Default::default(),
            random,
        }
    }

    /// One more failure: for how long to open, if it is time to.
    fn fail(&mut self, now: Nanos) -> Option<Nanos> {
        let rate = self.rate.fails(now).then(|| self.waits[0].next(&mut self.random));
        self.failures += 1;
        let row = (self.failures >= THRESHOLD).then(|| self.waits[1].next(&mut self.random));
        rate.max(row)
    }

    fn close(&mut self, now: Nanos) {
        self.state = State::Closed;
        self.failures = 0;
        self.rate = SuccessRate::new(now);
        self.waits = Default::default();
    }
}

impl Policy for Failsafe {
    fn admit(&mut self, now: Nanos) -> Option<Ticket> {
        if let State::Open { until, wait } = self.state {
            if now <= until {
                return None;
            }
            self.state = State::HalfOpen { waited: wait };
        }
        Some(Ticket::default())
    }

    fn settle(&mut self, now: Nanos, _: Ticket, outcome: Outcome) {
        match (self.state, outcome) {
            (_, Outcome::Dropped) | (State::Open { .. }, Outcome::Failure) => {}
            (state, Outcome::Success) => {
                if let State::HalfOpen { .. } = state {
                    self.close(now);
                }
                self.failures = 0;
                self.rate.succeeds(now);
            }
            (State::Closed, Outcome::Failure) => {
                if let Some(wait) = self.fail(now) {
                    self.state = State::Open { until: now + wait, wait };
                }
            }
            (State::HalfOpen { waited }, Outcome::Failure) => {
                let wait = self.fail(now).unwrap_or(waited);
                self.state = State::Open { until: now + wait, wait };
            }
        }
    }
}

impl Wait {
    fn next(&mut self, random: &mut fastrand::Rng) -> Nanos {
        let whole = (FIRST_WAIT << self.met).min(LONGEST_WAIT);
        self.met = (self.met + 1).min(MOST_DOUBLINGS);
        (whole / 2 + random.u64(0..=whole / 2)) * SECOND
    }
}

/// An average of ones and zeros that forgets, and how many there were.
struct SuccessRate {
    since: Nanos,
    /// In milliseconds since then; zero: nothing yet.
    last: u64,
    average: f64,
    /// Of the last 30 s, in slices of 6.
    calls: [u64; SLICES],
    slice: usize,
    slice_began: u64,
}

impl SuccessRate {
    fn new(now: Nanos) -> Self {
        Self { since: now, last: 0, average: 0.0, calls: [0; SLICES], slice: 0, slice_began: 0 }
    }

    fn succeeds(&mut self, now: Nanos) {
        self.take(now, 1.0);
    }

    /// Whether it is time to open.
    fn fails(&mut self, now: Nanos) -> bool {
        let age = self.take(now, 0.0);
        age >= WINDOW && self.average < REQUIRED && self.calls.iter().sum::<u64>() >= LEAST_CALLS
    }

    fn take(&mut self, now: Nanos, value: f64) -> u64 {
        let age = (now - self.since) / MILLISECOND;
        self.count(age);
        if self.last == 0 {
            self.average = value;
        } else {
            let keep = (-((age - self.last) as f64) / WINDOW as f64).exp();
            self.average = value * (1.0 - keep) + self.average * keep;
        }
        self.last = age;
        age
    }

    fn count(&mut self, age: u64) {
        let passed = (age - self.slice_began) / (WINDOW / SLICES as u64);
        for _ in 0..passed.min(SLICES as u64) {
            self.slice = (self.slice + 1) % SLICES;
            self.calls[self.slice] = 0;
        }
        if passed > 0 {
            self.slice_began = age;
        }
        self.calls[self.slice] += 1;
    }
}

const THRESHOLD: u32 = 5;
const REQUIRED: f64 = 0.8;
/// Milliseconds.
const WINDOW: u64 = 30_000;
const SLICES: usize = 5;
const LEAST_CALLS: u64 = 5;
/// Seconds.
const FIRST_WAIT: u64 = 10;
const LONGEST_WAIT: u64 = 300;
const MOST_DOUBLINGS: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::rivals::drive::{admitted_at_once, call, failures_until_open};

    #[test]
    fn half_open_admits_everybody() {
        let mut failsafe = Failsafe::new(1);
        assert_eq!(failures_until_open(&mut failsafe, 0, 100), 5);
        assert!(!call(&mut failsafe, 5 * SECOND, Outcome::Success));
        assert_eq!(admitted_at_once(&mut failsafe, 11 * SECOND), 1000);
    }

    #[test]
    fn a_success_from_before_the_trip_closes_it() {
        let mut failsafe = Failsafe::new(1);
        let late = failsafe.admit(0).unwrap();
        failures_until_open(&mut failsafe, 0, 100);
        let _hanging_probe = failsafe.admit(11 * SECOND).unwrap();
        failsafe.settle(11 * SECOND, late, Outcome::Success);
        assert!(matches!(failsafe.state, State::Closed));
    }

    #[test]
    fn every_fourth_call_failing_opens_it_when_the_average_has_come_down() {
        let mut failsafe = Failsafe::new(1);
        let outcome = |call| if call % 4 == 0 { Outcome::Failure } else { Outcome::Success };
        let opened =
            (1..1000).find(|number| !call(&mut failsafe, number * 100 * MILLISECOND, outcome(*number)));
        // From 1 towards 0.75, by a factor of e in 30 s: 0.8 is passed after 30 ln 5 = 48.3 s.
        assert!((470..=490).contains(&opened.unwrap()), "{opened:?}");
    }
}
