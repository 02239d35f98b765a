//! The laws of the seams that the breaker implements, as their owner states them.

mod common;

use std::time::Duration;

use common::*;
use swiftwater_breaker::{State, consecutive, failure_rate};
use swiftwater_core::conformance;

#[test]
fn the_breaker_is_a_gate() {
    conformance::gate(|| breaker(|b| b).0);
    conformance::gate(|| breaker(|b| b.trip_when(failure_rate(0.5))).0);
    conformance::gate(|| breaker(|b| b).0.gate());
}

#[test]
fn it_is_a_gate_switched_off_and_forced_closed_too() {
    conformance::gate(|| breaker(|b| b.enabled(false)).0);
    conformance::gate(|| {
        let breaker = breaker(|b| b).0;
        breaker.force_closed();
        breaker
    });
}

#[test]
fn it_shows_itself_by_the_rules() {
    let (breaker, hand) = breaker(|b| b);
    conformance::observe(&breaker);
    trip(&breaker);
    conformance::observe(&breaker);
    hand.advance(CAP);
    conformance::observe(&breaker);
}

#[test]
fn its_knobs_turn_by_the_rules() {
    let odd = Duration::from_nanos(1_234_567_891);
    let rate = failure_rate(0.123_456_789);
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(7).or(rate)).open_for(odd..=odd * 3));
    conformance::tunable(&breaker);
    assert_eq!(breaker.state(), State::Closed);
}
