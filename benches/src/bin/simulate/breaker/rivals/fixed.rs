//! The classic breaker of the textbooks: five failures in a row open it for exactly 30 s, then one probe decides. Nothing is
//! wrong with its bookkeeping: late results are ignored, and a probe that is dropped makes room for another.

use crate::breaker::{
    events::{Nanos, SECOND},
    policy::{Outcome, Policy, Ticket},
};

pub struct Fixed {
    state: State,
    /// Since the last success.
    failures: u32,
    /// Tickets are numbered by it; it changes with the state.
    spell: u64,
}

enum State {
    Closed,
    Open {
        until: Nanos,
    },
    /// A probe is out.
    Probing,
}

impl Fixed {
    pub fn new() -> Self {
        Self { state: State::Closed, failures: 0, spell: 0 }
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.failures = 0;
        self.spell += 1;
    }
}

impl Policy for Fixed {
    fn admit(&mut self, now: Nanos) -> Option<Ticket> {
        match self.state {
            State::Closed => {}
            State::Open { until } if now >= until => self.turn(State::Probing),
            State::Open { .. } | State::Probing => return None,
        }
        Some(Ticket(self.spell))
    }

    fn settle(&mut self, now: Nanos, Ticket(spell): Ticket, outcome: Outcome) {
        if spell != self.spell {
            return;
        }
        match (&self.state, outcome) {
            (State::Closed, Outcome::Success) => self.failures = 0,
            (State::Closed, Outcome::Failure) => {
                self.failures += 1;
                if self.failures >= THRESHOLD {
                    self.turn(State::Open { until: now + OPEN });
                }
            }
            (State::Probing, Outcome::Success) => self.turn(State::Closed),
            (State::Probing, Outcome::Failure) => self.turn(State::Open { until: now + OPEN }),
            (State::Probing, Outcome::Dropped) => self.turn(State::Open { until: now }),
            (State::Closed | State::Open { .. }, _) => {}
        }
    }
}

const THRESHOLD: u32 = 5;
const OPEN: Nanos = 30 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::rivals::drive::{admitted_at_once, call, failures_until_open};

    #[test]
    fn five_failures_open_it_for_exactly_half_a_minute() {
        let mut fixed = Fixed::new();
        let late = fixed.admit(0).unwrap();
        assert_eq!(failures_until_open(&mut fixed, 0, 100), 5);
        fixed.settle(1, late, Outcome::Success);
        assert!(!call(&mut fixed, OPEN - 1, Outcome::Success));
        let probe = fixed.admit(OPEN).unwrap();
        assert_eq!(fixed.admit(OPEN), None);
        fixed.settle(OPEN, probe, Outcome::Dropped);
        assert!(call(&mut fixed, OPEN, Outcome::Success));
        assert_eq!(admitted_at_once(&mut fixed, OPEN), 1000);
    }
}
