//! circuitbreaker-rs 0.1.1 at its defaults. Opens when half of at least ten calls failed, **counted since it was last
//! closed**, or after five failures in a row. Open for 30 s. Half-open the call that finds the time over is admitted,
//! and five more; three successes in a row close it, a failure opens it again, **whenever their calls were admitted**.
//! A permit that is **dropped never comes back**, and time alone does not end the half-open state: six dropped probes,
//! and it refuses for ever.

use crate::breaker::{
    events::{Nanos, SECOND},
    policy::{Outcome, Policy, Ticket},
};

pub struct CircuitbreakerRs {
    state: State,
    since: Nanos,
    failures: u64,
    calls: u64,
    failures_in_a_row: u64,
    successes_in_a_row: u64,
    permits: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Closed,
    HalfOpen,
    Open,
}

impl CircuitbreakerRs {
    pub fn new() -> Self {
        Self {
            state: State::Closed,
            since: 0,
            failures: 0,
            calls: 0,
            failures_in_a_row: 0,
            successes_in_a_row: 0,
            permits: 0,
        }
    }

    fn turn(&mut self, now: Nanos, state: State) {
        (self.state, self.since) = (state, now);
    }

    fn tripped(&self) -> bool {
        let rate = self.calls >= LEAST_CALLS && 2 * self.failures >= self.calls;
        rate || self.failures_in_a_row >= FAILURES
    }
}

impl Policy for CircuitbreakerRs {
    fn admit(&mut self, now: Nanos) -> Option<Ticket> {
        match self.state {
            State::Closed => {}
            State::HalfOpen => self.permits = self.permits.checked_sub(1)?,
            State::Open if now - self.since >= OPEN => {
                self.turn(now, State::HalfOpen);
                self.permits = PERMITS;
            }
            State::Open => return None,
        }
        Some(Ticket::default())
    }

    fn settle(&mut self, now: Nanos, _: Ticket, outcome: Outcome) {
        match outcome {
            Outcome::Dropped => {}
            Outcome::Failure => {
                self.calls += 1;
                self.failures += 1;
                self.failures_in_a_row += 1;
                self.successes_in_a_row = 0;
                let opens = match self.state {
                    State::Closed => self.tripped(),
                    State::HalfOpen => true,
                    State::Open => false,
                };
                if opens {
                    self.turn(now, State::Open);
                }
            }
            Outcome::Success => {
                self.calls += 1;
                self.successes_in_a_row += 1;
                self.failures_in_a_row = 0;
                if self.state == State::HalfOpen && self.successes_in_a_row >= SUCCESSES {
                    *self = Self::new();
                    self.turn(now, State::Closed);
                }
            }
        }
    }
}

const LEAST_CALLS: u64 = 10;
const FAILURES: u64 = 5;
const SUCCESSES: u64 = 3;
const PERMITS: u64 = 5;
const OPEN: Nanos = 30 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::rivals::drive::{admitted_at_once, call, failures_until_open};

    #[test]
    fn dropped_probes_never_come_back() {
        let mut breaker = CircuitbreakerRs::new();
        assert_eq!(failures_until_open(&mut breaker, 0, 100), 5);
        (0..6).for_each(|_| assert!(call(&mut breaker, OPEN, Outcome::Dropped)));
        assert!((1..1000).all(|times| !call(&mut breaker, times * OPEN, Outcome::Success)));
    }

    #[test]
    fn its_rate_is_that_of_a_lifetime() {
        let mut breaker = CircuitbreakerRs::new();
        (0..1000).for_each(|_| assert!(call(&mut breaker, 0, Outcome::Success)));
        // Four of five fail, and it takes more than a thousand calls to notice.
        let outcome = |call| if call % 5 == 0 { Outcome::Success } else { Outcome::Failure };
        let opened = (0..10_000).find(|number| !call(&mut breaker, 0, outcome(*number)));
        assert!(opened.unwrap() > 1_000, "{opened:?}");
    }

    #[test]
    fn successes_from_before_the_trip_close_it() {
        let mut breaker = CircuitbreakerRs::new();
        let late: Vec<_> = (0..3).map(|_| breaker.admit(0).unwrap()).collect();
        failures_until_open(&mut breaker, 0, 100);
        let _hanging_probe = breaker.admit(OPEN).unwrap();
        late.into_iter().for_each(|ticket| breaker.settle(OPEN, ticket, Outcome::Success));
        assert_eq!(admitted_at_once(&mut breaker, OPEN), 1000);
    }
}
