//! Calls that take too long: they count whatever they return, and as far as is known of those that never do.

mod common;

use std::time::Duration;

use common::*;
use swiftwater_breaker::{Breaker, State, consecutive, slow_rate};
use swiftwater_core::{Hand, Outcome};

const THRESHOLD: Duration = Duration::from_secs(1);
/// A start is kept in units of 4096 ns.
const UNIT: Duration = Duration::from_nanos(4096);

/// Opens when half of at least four calls are slow.
fn half_of_four() -> (Breaker, Hand) {
    breaker(|b| b.trip_when(slow_rate(0.5, THRESHOLD).min_calls(4)))
}

/// One call that takes so long.
fn take(breaker: &Breaker, hand: &Hand, time: Duration, outcome: Option<Outcome>) {
    let permit = breaker.try_acquire().expect("admitted");
    hand.advance(time);
    match outcome {
        Some(outcome) => permit.finish(outcome),
        None => drop(permit),
    }
}

#[test]
fn a_share_of_slow_calls_opens_whether_they_succeed_or_fail() {
    for outcome in [Outcome::Success, Outcome::Failure] {
        let (breaker, hand) = half_of_four();
        run_many(&breaker, Outcome::Success, 2);
        take(&breaker, &hand, THRESHOLD, Some(outcome));
        assert_eq!(breaker.state(), State::Closed);
        take(&breaker, &hand, THRESHOLD, Some(outcome));
        assert_eq!(breaker.state(), State::Open, "{outcome:?}");
        assert_eq!(count(&breaker, "slow"), 2);
    }
}

#[test]
fn calls_below_the_threshold_are_not_slow() {
    let (breaker, hand) = half_of_four();
    for _ in 0..100 {
        take(&breaker, &hand, THRESHOLD - UNIT, Some(Outcome::Success));
    }
    assert_eq!((breaker.state(), count(&breaker, "slow")), (State::Closed, 0));
}

#[test]
fn a_call_that_is_dropped_is_slow_if_it_had_taken_that_long_and_else_says_nothing() {
    let (breaker, hand) = half_of_four();
    run_many(&breaker, Outcome::Success, 3);
    for _ in 0..100 {
        take(&breaker, &hand, Duration::ZERO, None);
    }
    for state in [State::Closed, State::Closed, State::Open] {
        take(&breaker, &hand, THRESHOLD, None);
        assert_eq!(breaker.state(), state, "1 of 4, 2 of 5, 3 of 6");
    }
}

#[test]
fn what_says_nothing_about_the_remote_is_not_slow_either() {
    for outcome in [Outcome::Ignored, Outcome::Local] {
        let (breaker, hand) = half_of_four();
        for _ in 0..10 {
            take(&breaker, &hand, 10 * THRESHOLD, Some(outcome));
        }
        assert_eq!((breaker.state(), count(&breaker, "slow")), (State::Closed, 0));
    }
}

#[test]
fn a_slow_probe_has_failed() {
    for outcome in [Some(Outcome::Success), None] {
        let (breaker, hand) = half_of_four();
        for _ in 0..4 {
            take(&breaker, &hand, THRESHOLD, Some(Outcome::Success));
        }
        hand.advance(CAP);
        take(&breaker, &hand, THRESHOLD, outcome);
        assert_eq!(breaker.state(), State::Open, "{outcome:?}");
        hand.advance(CAP);
        take(&breaker, &hand, THRESHOLD - UNIT, Some(Outcome::Success));
        assert_eq!(breaker.state(), State::Closed);
    }
}

#[test]
fn a_slow_success_ends_a_run_of_failures() {
    let (breaker, hand) = breaker(|b| b.trip_when(consecutive(2).or(slow_rate(1.0, THRESHOLD))));
    for _ in 0..10 {
        run(&breaker, Some(Outcome::Failure));
        take(&breaker, &hand, THRESHOLD, Some(Outcome::Success));
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn slow_calls_are_counted_in_a_window_of_calls_too() {
    let (breaker, hand) = breaker(|b| b.trip_when(slow_rate(0.5, THRESHOLD).over_calls(4)));
    for time in [THRESHOLD, Duration::ZERO, Duration::ZERO, Duration::ZERO, THRESHOLD] {
        take(&breaker, &hand, time, Some(Outcome::Success));
        assert_eq!(breaker.state(), State::Closed, "the first one has left by the fifth");
    }
    take(&breaker, &hand, THRESHOLD, Some(Outcome::Success));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_call_of_an_earlier_spell_is_late_however_slow_it_was() {
    let (breaker, hand) = breaker(|b| b.trip_when(consecutive(1).or(slow_rate(0.1, THRESHOLD).min_calls(1))));
    let old = breaker.try_acquire().expect("closed");
    trip_and_wait(&breaker, &hand);
    run(&breaker, Some(Outcome::Success));
    hand.advance(THRESHOLD);
    old.finish(Outcome::Success);
    assert_eq!((breaker.state(), count(&breaker, "late"), count(&breaker, "slow")), (State::Closed, 1, 0));
}
