//! Ours, in the configurations that somebody would choose who reads its documentation: the real crate, on the simulation's
//! clock.

use std::time::Duration;

use swiftwater_breaker::{Breaker, Builder, consecutive, failure_rate, never, stalled, throttle};
use swiftwater_core::{Gate, Token};

use crate::breaker::{
    events::Nanos,
    policy::{Entrant, Outcome, Policy, Seat, Ticket},
};

const fn ours(name: &'static str, make: fn(&Seat) -> Box<dyn Policy>) -> Entrant {
    Entrant { name, ours: true, make }
}

/// As it comes: five failures in a row, open for 1 s to 30 s.
pub const DEFAULT: Entrant = ours("swiftwater", |seat| seated(seat, Breaker::builder()));

/// For calls with a long time-out: the lease of a probe must be longer.
pub const PATIENT: Entrant =
    ours("swiftwater", |seat| seated(seat, Breaker::builder().probe_lease(PATIENCE)));

/// What the crate's documentation shows first: a rate beside the row, for a service that fails in part.
pub const RECOMMENDED: Entrant = ours("swiftwater row or rate", |seat| seated(seat, row_or_rate()));

/// The rate alone: for services of which some answers always fail.
pub const RATE: Entrant = ours("swiftwater rate", |seat| {
    seated(seat, Breaker::builder().trip_when(failure_rate(0.5).over(RATE_WINDOW).min_calls(RATE_CALLS)))
});

/// For remotes that come back cold, by how long they take to warm up.
pub const RAMP_10: Entrant = ours("swiftwater ramp 10 s", |seat| seated(seat, ramp(10)));
pub const RAMP_30: Entrant = ours("swiftwater ramp 30 s", |seat| seated(seat, ramp(30)));
pub const RAMP_60: Entrant = ours("swiftwater ramp 60 s", |seat| seated(seat, ramp(60)));

/// For remotes that may hang.
pub const STALLED: Entrant = ours("swiftwater stalled", |seat| {
    let hangs = stalled(HANGS).at_least(HANGING_CALLS);
    seated(seat, Breaker::builder().trip_when(consecutive(5).or(hangs)).probe_lease(PATIENCE))
});

/// For remotes that fail in part, all of them behind one name: sheds, never opens.
pub const THROTTLE: Entrant = ours("swiftwater throttle", |seat| {
    seated(seat, Breaker::builder().trip_when(never()).throttle(throttle(2.0).over(RATE_WINDOW)))
});

pub fn metastable() -> Vec<Entrant> {
    vec![DEFAULT, RECOMMENDED, RAMP_10, THROTTLE]
}

pub fn stampede() -> Vec<Entrant> {
    vec![DEFAULT, RAMP_10, RAMP_30, RAMP_60]
}

/// One for the whole service.
pub fn service_wide() -> Vec<Entrant> {
    vec![DEFAULT, RATE, THROTTLE]
}

pub fn hang() -> Vec<Entrant> {
    vec![PATIENT, STALLED]
}

pub fn detection() -> Vec<Entrant> {
    vec![DEFAULT, RATE, RECOMMENDED]
}

fn row_or_rate() -> Builder {
    let rate = failure_rate(0.5).over(RATE_WINDOW).min_calls(RATE_CALLS);
    Breaker::builder().trip_when(consecutive(5).or(rate))
}

fn ramp(seconds: u64) -> Builder {
    Breaker::builder().ramp(Duration::from_secs(seconds))
}

fn seated(seat: &Seat, builder: Builder) -> Box<dyn Policy> {
    let breaker = builder.clock(seat.clock.clone()).seed(seat.seed).build();
    Box::new(Ours(breaker.expect("options that are written down here")))
}

struct Ours(Breaker);

impl Policy for Ours {
    fn admit(&mut self, _: Nanos) -> Option<Ticket> {
        self.0.admit().ok().map(|token| Ticket(token.bits()))
    }

    fn settle(&mut self, _: Nanos, Ticket(bits): Ticket, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Dropped => None,
            Outcome::Failure => Some(swiftwater_core::Outcome::Failure),
            Outcome::Success => Some(swiftwater_core::Outcome::Success),
        };
        self.0.settle(Token::new(bits), outcome);
    }
}

/// Above the 10 s after which calls to the remote that hangs time out.
const PATIENCE: Duration = Duration::from_secs(15);
const RATE_WINDOW: Duration = Duration::from_secs(10);
const RATE_CALLS: u64 = 20;
/// Forty times what a healthy call takes, and a fifth of its time-out.
const HANGS: Duration = Duration::from_secs(2);
const HANGING_CALLS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::events::{SECOND, Time};

    #[test]
    fn it_lives_in_the_time_of_the_simulation() {
        let mut time = Time::new();
        let mut breaker = (DEFAULT.make)(&Seat { clock: time.clock(), seed: 1 });
        for _ in 0..5 {
            let ticket = breaker.admit(0).unwrap();
            breaker.settle(0, ticket, Outcome::Failure);
        }
        assert_eq!(breaker.admit(0), None);
        time.move_to(SECOND);
        let probe = breaker.admit(SECOND).unwrap();
        breaker.settle(SECOND, probe, Outcome::Success);
        assert!(breaker.admit(SECOND).is_some() && breaker.admit(SECOND).is_some());
    }
}
