//! A breaker that only watches: it decides as ever, and lets pass what it would have refused.

mod common;

use common::*;
use swiftwater_breaker::{Breaker, State, consecutive};
use swiftwater_core::Outcome;

fn watching() -> (Breaker, swiftwater_core::Hand) {
    breaker(|b| b.trip_when(consecutive(2)).observe_only(true))
}

#[test]
fn nothing_is_refused_and_what_would_have_been_is_counted() {
    let (breaker, hand) = watching();
    run_many(&breaker, Outcome::Failure, 2);
    assert_eq!(breaker.state(), State::Open);
    run_many(&breaker, Outcome::Failure, 100);
    assert_eq!(count(&breaker, "rejected_open"), 100);
    assert_eq!(
        (count(&breaker, "admitted"), count(&breaker, "failure")),
        (2, 2),
        "of those nothing is recorded"
    );
    hand.advance(CAP);
    let probe = breaker.try_acquire().expect("the probe");
    run_many(&breaker, Outcome::Success, 10);
    assert_eq!((breaker.state(), count(&breaker, "rejected_full")), (State::HalfOpen, 10));
    probe.finish(Outcome::Success);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn its_events_and_readings_are_those_of_one_that_refuses() {
    let schedule = |observe_only| {
        let (breaker, hand) = breaker(|b| b.trip_when(consecutive(2)).observe_only(observe_only));
        for step in 0..200_u64 {
            if let Ok(permit) = breaker.try_acquire() {
                permit.finish(if step % 7 < 4 { Outcome::Failure } else { Outcome::Success });
            }
            hand.advance(BASE / 3);
        }
        let counts = ["admitted", "rejected_open", "rejected_full", "success", "failure", "trips"];
        (breaker.events(0), counts.map(|name| count(&breaker, name)))
    };
    assert_eq!(schedule(true), schedule(false));
}

#[test]
fn it_can_be_turned_on_and_off_at_any_time() {
    let (breaker, _hand) = watching();
    run_many(&breaker, Outcome::Failure, 2);
    breaker.set_observe_only(false);
    assert!(breaker.try_acquire().is_err());
    breaker.set_observe_only(true);
    let passing = breaker.try_acquire().expect("it only watches");
    breaker.set_observe_only(false);
    passing.finish(Outcome::Success); // leaves no trace
    assert_eq!((breaker.state(), count(&breaker, "success"), count(&breaker, "late")), (State::Open, 0, 0));
}

#[test]
fn forced_open_is_only_watched_too() {
    let (breaker, _hand) = watching();
    breaker.force_open();
    run(&breaker, Some(Outcome::Success));
    assert_eq!((breaker.state(), count(&breaker, "rejected_open")), (State::ForcedOpen, 1));
}
