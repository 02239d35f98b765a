//! After a recovery calls come back little by little.

mod common;

use std::time::Duration;

use common::*;
use swiftwater_breaker::{Breaker, Cause, State, consecutive};
use swiftwater_core::{Hand, Outcome, Reason};

const RAMP: Duration = Duration::from_secs(100);

fn recovering() -> (Breaker, Hand) {
    let (breaker, hand) = breaker(|b| b.trip_when(consecutive(1)).ramp(RAMP));
    trip_and_wait(&breaker, &hand);
    run(&breaker, Some(Outcome::Success));
    assert_eq!(breaker.state(), State::Ramping);
    (breaker, hand)
}

/// Of a thousand calls, all of which succeed.
fn share(breaker: &Breaker) -> f64 {
    let admitted = (0..1000).filter(|_| match breaker.try_acquire() {
        Ok(permit) => {
            permit.finish(Outcome::Success);
            true
        }
        Err(rejected) => {
            assert_eq!((rejected.reason(), rejected.retry_after()), (Reason::Throttled, Duration::ZERO));
            false
        }
    });
    admitted.count() as f64 / 1000.0
}

#[test]
fn the_admitted_share_grows_from_a_twentieth_to_all() {
    let (breaker, hand) = recovering();
    // Seeded, and within four standard deviations.
    for (part, expected) in [(0.0, 0.05), (0.25, 0.25), (0.25, 0.5), (0.4, 0.9)] {
        hand.advance(RAMP.mul_f64(part));
        assert!((reading(&breaker, "shed") - (1.0 - expected)).abs() < 0.001);
        let share = share(&breaker);
        assert!(
            (share - expected).abs() < 4.0 * (expected * (1.0 - expected) / 1000.0_f64).sqrt(),
            "{share}"
        );
    }
    hand.advance(RAMP.mul_f64(0.1));
    assert_eq!((share(&breaker), breaker.state()), (1.0, State::Closed));
    assert_eq!(breaker.events(0).last().expect("of the ramp").cause, Cause::RampOver);
    assert_eq!(reading(&breaker, "shed"), 0.0);
}

#[test]
fn while_it_lasts_conditions_hold_and_open_times_go_on_doubling() {
    let (breaker, hand) = breaker(|b| b.trip_when(consecutive(1)).ramp(RAMP));
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        while breaker.state() != State::Open {
            if let Ok(permit) = breaker.try_acquire() {
                permit.finish(Outcome::Failure);
            }
        }
        let event = *breaker.events(0).last().expect("it opened");
        longest = longest.max(event.open_for);
        hand.advance(CAP);
        run(&breaker, Some(Outcome::Success));
        assert_eq!(breaker.state(), State::Ramping);
    }
    assert!(longest > 16 * BASE, "{longest:?}");
}

#[test]
fn once_it_is_over_the_next_open_time_is_a_short_one() {
    let (breaker, hand) = recovering();
    for _ in 0..50 {
        hand.advance(RAMP);
        trip(&breaker);
        let event = *breaker.events(0).last().expect("it opened");
        assert!(event.open_for <= BASE, "{:?}", event.open_for);
        hand.advance(CAP);
        run(&breaker, Some(Outcome::Success));
    }
}

#[test]
fn there_is_none_unless_it_is_asked_for() {
    let (breaker, hand) = breaker(|b| b.trip_when(consecutive(1)));
    trip_and_wait(&breaker, &hand);
    run(&breaker, Some(Outcome::Success));
    assert_eq!((breaker.state(), share(&breaker)), (State::Closed, 1.0));
}
