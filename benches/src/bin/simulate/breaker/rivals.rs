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

#[cfg(test)]
mod tests {
    use tower::{Layer as _, Service as _, ServiceExt as _};

    use super::*;
    use crate::breaker::policy::{Outcome, Policy};

    /// Good calls, and then random ones; `true` failed.
    fn history(seed: u64) -> impl Iterator<Item = bool> {
        let mut random = fastrand::Rng::with_seed(seed);
        let (good, errors) = (random.usize(..300), 0.3 + 0.7 * random.f64());
        (0..5_000).map(move |call| call >= good && random.f64() < errors)
    }

    /// The port and the original refuse first at the same call of many histories. Time stands still for the port and
    /// hardly moves for the original, so nothing is said about half-open states here.
    fn opens_like<P: Policy, T>(
        port: impl Fn() -> P,
        original: impl Fn() -> T,
        admits: impl Fn(&mut T, bool) -> bool,
    ) {
        let mut opened = 0;
        for seed in 0..40 {
            let (mut port, mut original) = (port(), original());
            let outcome = |failed| if failed { Outcome::Failure } else { Outcome::Success };
            let ported = history(seed).position(|failed| !drive::call(&mut port, 0, outcome(failed)));
            assert_eq!(
                ported,
                history(seed).position(|failed| !admits(&mut original, failed)),
                "seed {seed}"
            );
            opened += u32::from(ported.is_some());
        }
        assert!(opened > 20, "{opened} histories say little");
    }

    fn answer(failed: bool) -> Result<(), std::fmt::Error> {
        if failed { Err(std::fmt::Error) } else { Ok(()) }
    }

    #[test]
    fn recloser_is_like_the_original() {
        opens_like(
            recloser::Recloser::new,
            || ::recloser::Recloser::custom().build(),
            |original, failed| !matches!(original.call(|| answer(failed)), Err(::recloser::Error::Rejected)),
        );
    }

    #[test]
    fn failsafe_is_like_the_original() {
        use ::failsafe::{CircuitBreaker as _, Config, Error};

        opens_like(
            || failsafe::Failsafe::new(1),
            || Config::new().build(),
            |original, failed| !matches!(original.call(|| answer(failed)), Err(Error::Rejected)),
        );
    }

    #[test]
    fn circuitbreaker_rs_is_like_the_original() {
        use ::circuitbreaker_rs::{BreakerError, CircuitBreaker, DefaultPolicy};

        opens_like(
            circuitbreaker_rs::CircuitbreakerRs::new,
            || CircuitBreaker::<DefaultPolicy, std::fmt::Error>::builder().build(),
            |original, failed| !matches!(original.call(|| answer(failed)), Err(BreakerError::Open)),
        );
    }

    #[test]
    fn tower_resilience_is_like_the_original() {
        use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};

        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        opens_like(
            tower_resilience::TowerResilience::new,
            || {
                let layer = CircuitBreakerLayer::builder().build().unwrap();
                layer.layer(tower::service_fn(|failed| std::future::ready(answer(failed))))
            },
            |original, failed| {
                let result = runtime.block_on(async { original.ready().await.unwrap().call(failed).await });
                matches!(result, Ok(()) | Err(CircuitBreakerError::Inner(_)))
            },
        );
    }
}
