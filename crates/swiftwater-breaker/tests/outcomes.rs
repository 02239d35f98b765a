//! The outcome table of the crate's documentation, row by row.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::*;
use swiftwater_breaker::{Breaker, State, consecutive};
use swiftwater_core::{Outcome, Pass, Rejected};

/// The counter that an outcome moves.
fn counter(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Failure) => "failure",
        Some(Outcome::Ignored) => "ignored",
        Some(Outcome::Local) => "local",
        Some(Outcome::Success) => "success",
        _ => "dropped",
    }
}

fn end(permit: Pass<&Breaker>, outcome: Option<Outcome>) {
    match outcome {
        Some(outcome) => permit.finish(outcome),
        None => drop(permit),
    }
}

#[test]
fn closed_a_success_ends_the_run_of_failures_and_nothing_else_but_a_failure_touches_it() {
    for outcome in OUTCOMES {
        let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(3)));
        run_many(&breaker, Outcome::Failure, 2);
        run(&breaker, outcome);
        let expected = match outcome {
            Some(Outcome::Failure) => State::Open,
            _ => State::Closed,
        };
        assert_eq!(breaker.state(), expected, "{outcome:?}");
        if expected == State::Closed {
            run_many(&breaker, Outcome::Failure, 1);
            let expected = match outcome {
                Some(Outcome::Success) => State::Closed,
                _ => State::Open,
            };
            assert_eq!(breaker.state(), expected, "{outcome:?}, then a failure");
        }
    }
}

#[test]
fn half_open_only_a_success_closes_and_only_a_failure_opens() {
    for outcome in OUTCOMES {
        let (breaker, hand) = breaker(|b| b);
        trip_and_wait(&breaker, &hand);
        let before = count(&breaker, counter(outcome));
        run(&breaker, outcome);
        let expected = match outcome {
            Some(Outcome::Failure) => State::Open,
            Some(Outcome::Success) => State::Closed,
            _ => State::HalfOpen,
        };
        assert_eq!(breaker.state(), expected, "{outcome:?}");
        assert_eq!(count(&breaker, counter(outcome)), before + 1);
        if expected == State::HalfOpen {
            assert_eq!(free_permits(&breaker, 10), 1, "{outcome:?} returns the permit");
        }
    }
}

#[test]
fn half_open_closes_after_as_many_successes_as_were_asked_for() {
    let (breaker, hand) = breaker(|b| b.probes(2).successes(3));
    trip_and_wait(&breaker, &hand);
    run_many(&breaker, Outcome::Success, 2);
    assert_eq!(breaker.state(), State::HalfOpen);
    run_many(&breaker, Outcome::Success, 1);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn half_open_a_failure_forgets_the_successes_before_it() {
    let (breaker, hand) = breaker(|b| b.probes(2).successes(2));
    trip_and_wait(&breaker, &hand);
    run(&breaker, Some(Outcome::Success));
    run(&breaker, Some(Outcome::Failure));
    assert_eq!(breaker.state(), State::Open);
    hand.advance(CAP);
    run(&breaker, Some(Outcome::Success));
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn after_a_probe_decided_its_siblings_are_late() {
    for (decision, state) in [(Outcome::Failure, State::Open), (Outcome::Success, State::Closed)] {
        for outcome in OUTCOMES {
            let (breaker, hand) = breaker(|b| b.probes(2).trip_when(consecutive(1)));
            trip_and_wait(&breaker, &hand);
            let (first, second) = (breaker.try_acquire().expect("1"), breaker.try_acquire().expect("2"));
            first.finish(decision);
            end(second, outcome);
            assert_eq!(breaker.state(), state, "{decision:?}, then {outcome:?}");
            assert_eq!(count(&breaker, "late"), 1);
        }
    }
}

/// Admitted while closed; ended in every state that is not that closed spell any more.
#[test]
fn a_late_result_changes_nothing_but_its_count() {
    type Move = fn(&Breaker, &swiftwater_core::Hand);
    let moves: [(State, Move); 6] = [
        (State::Open, |b, _| trip(b)),
        (State::HalfOpen, |b, h| {
            trip_and_wait(b, h);
            run(b, Some(Outcome::Ignored));
        }),
        (State::Closed, |b, _| b.reset()),
        (State::ForcedClosed, |b, _| b.force_closed()),
        (State::ForcedOpen, |b, _| b.force_open()),
        (State::Disabled, |b, _| b.set_enabled(false)),
    ];
    for (state, go) in moves {
        for outcome in OUTCOMES {
            let (breaker, hand) = breaker(|b| b.trip_when(consecutive(1)));
            let old = breaker.try_acquire().expect("closed");
            go(&breaker, &hand);
            let counts = || {
                ["success", "failure", "ignored", "local", "dropped", "trips"]
                    .map(|name| count(&breaker, name))
            };
            let before = counts();
            assert_eq!((breaker.state(), count(&breaker, "late")), (state, 0));
            end(old, outcome);
            assert_eq!((breaker.state(), count(&breaker, "late")), (state, 1), "{outcome:?}");
            assert_eq!(counts(), before);
        }
    }
}

#[test]
fn forced_closed_counts_and_never_opens() {
    for outcome in OUTCOMES {
        let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
        breaker.force_closed();
        for _ in 0..100 {
            run(&breaker, outcome);
        }
        assert_eq!(breaker.state(), State::ForcedClosed);
        assert_eq!(count(&breaker, counter(outcome)), 100);
        assert_eq!(count(&breaker, "trips"), 0);
    }
}

#[test]
fn disabled_passes_everything_and_counts_nothing() {
    for outcome in OUTCOMES {
        let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)).enabled(false));
        for _ in 0..100 {
            run(&breaker, outcome);
        }
        let all = ["admitted", "late", counter(outcome)].map(|name| count(&breaker, name));
        assert_eq!((breaker.state(), all), (State::Disabled, [0; 3]));
    }
}

#[test]
fn a_panic_in_a_closure_is_a_failure() {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
    let call = || breaker.call_sync(|| -> Result<(), ()> { panic!("on purpose") });
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    assert_eq!((breaker.state(), count(&breaker, "failure")), (State::Open, 1));
}

#[test]
fn a_panic_in_a_probe_opens_again() {
    let (breaker, hand) = breaker(|b| b);
    trip_and_wait(&breaker, &hand);
    let call = || breaker.call_sync(|| -> Result<(), ()> { panic!("on purpose") });
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_panic_under_a_bare_permit_is_a_drop() {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
    let call = || {
        let _permit = breaker.try_acquire().expect("closed");
        panic!("on purpose");
    };
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    assert_eq!((breaker.state(), count(&breaker, "dropped")), (State::Closed, 1));
}

#[test]
fn a_panicking_classifier_is_a_drop_and_leaves_the_breaker_usable() {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
    let judge = |_: &Result<(), ()>| -> Outcome { panic!("on purpose") };
    let call = || breaker.judged_by(judge).call_sync(|| Ok(()));
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    assert_eq!((breaker.state(), count(&breaker, "dropped")), (State::Closed, 1));
    run(&breaker, Some(Outcome::Success));
}

#[test]
fn the_classifier_decides_what_is_recorded_and_not_what_is_returned() -> Result<(), Rejected> {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
    let judge = |result: &Result<u16, ()>| match result {
        Ok(500..) => Outcome::Failure,
        Ok(_) => Outcome::Success,
        Err(()) => Outcome::Local,
    };
    assert!(breaker.judged_by(judge).call_sync(|| Err(())).is_err());
    assert_eq!((breaker.state(), count(&breaker, "local")), (State::Closed, 1));
    assert_eq!(breaker.judged_by(judge).call_sync(|| Ok(503)), Ok(503));
    assert_eq!(breaker.state(), State::Open);
    Ok(())
}
