//! recloser 1.4 at its defaults. The last 100 calls are kept; the rate is looked at from the 101st on, so a service that is
//! dead from the start gets 101 calls, and nothing is ever too old to count. Open for exactly 30 s. Half-open **everybody is
//! admitted** until ten calls have ended and an eleventh ends. Results carry no mark of when they were admitted: late
//! ones count in whatever state they meet. Dropped calls are not noticed.

use crate::breaker::{
    events::{Nanos, SECOND},
    policy::{Outcome, Policy, Ticket},
};

pub struct Recloser {
    state: State,
}

enum State {
    Closed(Ring),
    HalfOpen(Ring),
    Open { until: Nanos },
}

struct Ring {
    failed: Vec<bool>,
    length: usize,
    next: usize,
}

impl Recloser {
    pub fn new() -> Self {
        Self { state: State::Closed(Ring::new(CLOSED_LENGTH)) }
    }
}

impl Policy for Recloser {
    fn admit(&mut self, now: Nanos) -> Option<Ticket> {
        if let State::Open { until } = self.state {
            if now <= until {
                return None;
            }
            self.state = State::HalfOpen(Ring::new(HALF_OPEN_LENGTH));
        }
        Some(Ticket::default())
    }

    fn settle(&mut self, now: Nanos, _: Ticket, outcome: Outcome) {
        let failed = match outcome {
            Outcome::Dropped => return,
            Outcome::Failure => true,
            Outcome::Success => false,
        };
        match &mut self.state {
            State::Closed(ring) => {
                // A success may open it, too.
                if ring.rate_with(failed).is_some_and(|rate| rate >= THRESHOLD) {
                    self.state = State::Open { until: now + OPEN };
                }
            }
            State::HalfOpen(ring) => match ring.rate_with(failed) {
                Some(rate) if failed && rate >= THRESHOLD => self.state = State::Open { until: now + OPEN },
                Some(rate) if !failed && rate <= THRESHOLD => *self = Self::new(),
                _ => {}
            },
            State::Open { .. } => {}
        }
    }
}

impl Ring {
    fn new(length: usize) -> Self {
        Self { failed: Vec::with_capacity(length), length, next: 0 }
    }

    /// Takes in one more; the rate, if the ring had been full before.
    fn rate_with(&mut self, failed: bool) -> Option<f64> {
        if self.failed.len() < self.length {
            self.failed.push(failed);
            return None;
        }
        self.failed[self.next] = failed;
        self.next = (self.next + 1) % self.length;
        Some(self.failed.iter().filter(|failed| **failed).count() as f64 / self.length as f64)
    }
}

const THRESHOLD: f64 = 0.5;
const CLOSED_LENGTH: usize = 100;
const HALF_OPEN_LENGTH: usize = 10;
const OPEN: Nanos = 30 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::rivals::drive::{admitted_at_once, call, failures_until_open};

    #[test]
    fn a_service_dead_from_the_start_gets_101_calls() {
        assert_eq!(failures_until_open(&mut Recloser::new(), 0, 1000), 101);
    }

    #[test]
    fn half_open_admits_everybody() {
        let mut recloser = Recloser::new();
        failures_until_open(&mut recloser, 0, 1000);
        assert!(!call(&mut recloser, OPEN, Outcome::Success));
        assert_eq!(admitted_at_once(&mut recloser, OPEN + 1), 1000);
    }

    #[test]
    fn late_results_close_it() {
        let mut recloser = Recloser::new();
        let late: Vec<_> = (0..11).map(|_| recloser.admit(0).unwrap()).collect();
        failures_until_open(&mut recloser, 0, 1000);
        let _hanging_probe = recloser.admit(OPEN + 1);
        late.into_iter().for_each(|ticket| recloser.settle(OPEN + 1, ticket, Outcome::Success));
        assert!(matches!(recloser.state, State::Closed(_)));
    }
}
