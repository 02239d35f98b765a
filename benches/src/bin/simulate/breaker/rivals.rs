//! The rivals, as ports: their rules at their defaults, in our own words, driven by the simulation's time. What is wrong
//! with them is ported too, and each port has a test that shows it. What races would add is not: here, calls take turns.

mod circuitbreaker_rs;
mod failsafe;
mod fixed;
mod recloser;
mod tower_resilience;

use crate::breaker::policy::{Entrant, NONE};

pub const FIXED: Entrant = Entrant::rival("fixed 30 s", |_| Box::new(fixed::Fixed::new()));
pub const RECLOSER: Entrant = Entrant::rival("recloser 1.4", |_| Box::new(recloser::Recloser::new()));
pub const FAILSAFE: Entrant =
    Entrant::rival("failsafe 1.3", |seat| Box::new(failsafe::Failsafe::new(seat.seed)));
pub const TOWER_RESILIENCE: Entrant =
    Entrant::rival("tower-resilience 0.14", |_| Box::new(tower_resilience::TowerResilience::new()));
pub const CIRCUITBREAKER_RS: Entrant =
    Entrant::rival("circuitbreaker-rs 0.1.1", |_| Box::new(circuitbreaker_rs::CircuitbreakerRs::new()));

/// The control and everybody else's breakers.
pub const ALL: [Entrant; 6] = [NONE, FIXED, RECLOSER, FAILSAFE, TOWER_RESILIENCE, CIRCUITBREAKER_RS];

#[cfg(test)]
mod drive {
    //! How the tests of the ports call.

    use crate::breaker::{
        events::Nanos,
        policy::{Outcome, Policy},
    };

    /// A call that ends at once; whether it was admitted.
    pub fn call(policy: &mut impl Policy, now: Nanos, outcome: Outcome) -> bool {
        let ticket = policy.admit(now);
        ticket.inspect(|ticket| policy.settle(now, *ticket, outcome)).is_some()
    }

    /// How many failures in a row it takes to open, at most `most`.
    pub fn failures_until_open(policy: &mut impl Policy, now: Nanos, most: u32) -> u32 {
        (0..most).find(|_| !call(policy, now, Outcome::Failure)).unwrap_or(most)
    }

    /// How many of a thousand calls that never end are admitted at once.
    pub fn admitted_at_once(policy: &mut impl Policy, now: Nanos) -> usize {
        (0..1000).filter(|_| policy.admit(now).is_some()).count()
    }
}
