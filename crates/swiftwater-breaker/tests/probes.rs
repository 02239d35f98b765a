//! How many probes must succeed, and how many may fail.

mod common;

use common::*;
use swiftwater_breaker::{Cause, State, consecutive};
use swiftwater_core::Outcome;

/// The probes of a half-open breaker, one after the other, and what it is after each.
fn after(successes: u32, failures: u32, probes: &[Outcome]) -> Vec<State> {
    let (breaker, hand) =
        breaker(|b| b.trip_when(consecutive(1)).probes(3).successes(successes).probe_failures(failures));
    trip_and_wait(&breaker, &hand);
    let states = probes.iter().map(|outcome| {
        run(&breaker, Some(*outcome));
        breaker.state()
    });
    states.collect()
}

#[test]
fn two_of_three_tolerates_one_bad_probe_wherever_it_comes() {
    use Outcome::{Failure as Bad, Success as Good};
    use State::{Closed, HalfOpen, Open};
    for (probes, states) in [
        (&[Good, Good][..], &[HalfOpen, Closed][..]),
        (&[Bad, Good, Good], &[HalfOpen, HalfOpen, Closed]),
        (&[Good, Bad, Good], &[HalfOpen, HalfOpen, Closed]),
        (&[Bad, Bad], &[HalfOpen, Open]),
        (&[Bad, Good, Bad], &[HalfOpen, HalfOpen, Open]),
        (&[Good, Bad, Bad], &[HalfOpen, HalfOpen, Open]),
    ] {
        assert_eq!(after(2, 1, probes), states, "{probes:?}");
    }
}

#[test]
fn without_tolerance_the_first_bad_probe_opens() {
    assert_eq!(after(3, 0, &[Outcome::Success, Outcome::Failure]), [State::HalfOpen, State::Open]);
}

#[test]
fn what_was_proved_and_what_was_forgiven_is_of_one_round() {
    let (breaker, hand) = breaker(|b| b.trip_when(consecutive(1)).successes(2).probe_failures(1));
    trip_and_wait(&breaker, &hand);
    for outcome in [Outcome::Success, Outcome::Failure, Outcome::Failure] {
        run(&breaker, Some(outcome));
    }
    assert_eq!(breaker.events(0).last().expect("it opened").cause, Cause::ProbeFailed);
    hand.advance(CAP);
    run(&breaker, Some(Outcome::Success));
    assert_eq!(breaker.state(), State::HalfOpen, "the success of the last round is forgotten");
    run(&breaker, Some(Outcome::Failure));
    assert_eq!(breaker.state(), State::HalfOpen, "and so are its failures");
    run(&breaker, Some(Outcome::Success));
    assert_eq!(breaker.state(), State::Closed);
}
