//! tower-resilience-circuitbreaker 0.14 at its defaults. Opens when at least half of at least 100 calls failed, **counted
//! since the last change of state**: the window of 100 does not slide, so the longer a service has been well, the more
//! failures it takes. Open for exactly 30 s; half-open one call is admitted, and comes back if it is dropped. But **any
//! result decides**, whenever its call was admitted: a late success closes it while the probe still hangs, a late failure
//! opens it again.

use crate::breaker::{
    events::{Nanos, SECOND},
    policy::{Outcome, Policy, Ticket},
};

pub struct TowerResilience {
    state: State,
    since: Nanos,
    failures: u64,
    calls: u64,
    /// Numbers the half-open spells: a permit goes back to its own.
    spell: u64,
    permits: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Closed,
    HalfOpen,
    Open,
}

impl TowerResilience {
    pub fn new() -> Self {
        Self { state: State::Closed, since: 0, failures: 0, calls: 0, spell: 0, permits: 0 }
    }

    fn turn(&mut self, now: Nanos, state: State) {
        if self.state == state {
            return;
        }
        (self.state, self.since, self.failures, self.calls) = (state, now, 0, 0);
        if state == State::HalfOpen {
            self.spell += 1;
            self.permits = PERMITS;
        }
    }
}

impl Policy for TowerResilience {
    fn admit(&mut self, now: Nanos) -> Option<Ticket> {
        if self.state == State::Open && now - self.since >= OPEN {
            self.turn(now, State::HalfOpen);
        }
        match self.state {
            State::Closed => Some(CLOSED),
            State::HalfOpen => {
                self.permits = self.permits.checked_sub(1)?;
                Some(Ticket(self.spell))
            }
            State::Open => None,
        }
    }

    fn settle(&mut self, now: Nanos, ticket: Ticket, outcome: Outcome) {
        if outcome == Outcome::Dropped {
            if ticket == Ticket(self.spell) && ticket != CLOSED {
                self.permits += 1;
            }
            return;
        }
        self.calls += 1;
        self.failures += u64::from(outcome == Outcome::Failure);
        match (self.state, outcome) {
            (State::HalfOpen, Outcome::Failure) => self.turn(now, State::Open),
            (State::HalfOpen, _) if self.calls - self.failures >= PERMITS => self.turn(now, State::Closed),
            (State::Closed, _) if self.calls >= WINDOW && 2 * self.failures >= self.calls => {
                self.turn(now, State::Open);
            }
            _ => {}
        }
    }
}

/// Of a call that was admitted while closed; half-open spells count from 1.
const CLOSED: Ticket = Ticket(0);
const WINDOW: u64 = 100;
const PERMITS: u64 = 1;
const OPEN: Nanos = 30 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::rivals::drive::{admitted_at_once, call, failures_until_open};

    #[test]
    fn it_takes_as_many_failures_as_there_were_good_calls() {
        for good in [1_000, 10_000] {
            let mut tower = TowerResilience::new();
            (0..good).for_each(|_| assert!(call(&mut tower, 0, Outcome::Success)));
            assert_eq!(failures_until_open(&mut tower, 0, 100_000), good);
        }
    }

    #[test]
    fn a_success_from_before_the_trip_closes_it() {
        let mut tower = TowerResilience::new();
        let late = tower.admit(0).unwrap();
        assert_eq!(failures_until_open(&mut tower, 0, 1000), 100);
        let _hanging_probe = tower.admit(OPEN).unwrap();
        assert_eq!(admitted_at_once(&mut tower, OPEN), 0);
        tower.settle(OPEN, late, Outcome::Success);
        assert_eq!(admitted_at_once(&mut tower, OPEN), 1000);
    }

    #[test]
    fn a_dropped_probe_makes_room() {
        let mut tower = TowerResilience::new();
        failures_until_open(&mut tower, 0, 1000);
        assert!(call(&mut tower, OPEN, Outcome::Dropped));
        assert!(call(&mut tower, OPEN, Outcome::Success));
    }
}
