//! By hand: force, reset, switch off.

mod common;

use common::*;
use swiftwater_breaker::{Breaker, State, consecutive, failure_rate};
use swiftwater_core::{Gate, Outcome, Pass, Reason, Rejected};

#[test]
fn all_clones_and_gates_are_one_breaker() -> Result<(), Rejected> {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(2)));
    let gate = breaker.gate();
    Pass::enter(gate.clone())?.finish(Outcome::Failure);
    breaker.clone().try_acquire()?.finish(Outcome::Failure);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(gate.admit().unwrap_err().reason(), Reason::Open);
    Ok(())
}

#[test]
fn a_gate_keeps_the_breaker_alive() -> Result<(), Rejected> {
    let (breaker, _hand) = breaker(|b| b);
    let gate = breaker.gate();
    drop(breaker);
    Pass::enter(gate)?.finish(Outcome::Success);
    Ok(())
}

#[test]
fn forced_open_stays_open_for_ever() {
    let (breaker, hand) = breaker(|b| b);
    breaker.force_open();
    for _ in 0..10 {
        let rejected = breaker.try_acquire().unwrap_err();
        assert_eq!((rejected.reason(), rejected.retry_after().as_nanos()), (Reason::Open, 0));
        hand.advance(CAP * 1000);
    }
    assert_eq!(breaker.state(), State::ForcedOpen);
    assert_eq!((count(&breaker, "rejected_open"), count(&breaker, "trips")), (10, 0));
}

#[test]
fn a_probe_that_returns_after_force_open_changes_nothing() {
    for outcome in OUTCOMES {
        let (breaker, hand) = breaker(|b| b);
        trip_and_wait(&breaker, &hand);
        let probe = breaker.try_acquire().expect("a probe");
        breaker.force_open();
        match outcome {
            Some(outcome) => probe.finish(outcome),
            None => drop(probe),
        }
        assert_eq!((breaker.state(), count(&breaker, "late")), (State::ForcedOpen, 1));
    }
}

#[test]
fn force_closed_overrides_open_half_open_and_forced_open() {
    let ways: [fn(&Breaker, &swiftwater_core::Hand); 3] =
        [|b, _| trip(b), trip_and_wait, |b, _| b.force_open()];
    for way in ways {
        let (breaker, hand) = breaker(|b| b);
        way(&breaker, &hand);
        breaker.force_closed();
        assert_eq!(free_permits(&breaker, 100), 100);
        assert_eq!(breaker.state(), State::ForcedClosed);
    }
}

#[test]
fn reset_forgets_runs_windows_and_backoff() {
    let hour = std::time::Duration::from_secs(3600);
    for forced in [None, Some(Breaker::force_open as fn(&Breaker)), Some(Breaker::force_closed)] {
        let (breaker, hand) =
            breaker(|b| b.trip_when(consecutive(5).or(failure_rate(0.5).over(hour).min_calls(8))));
        for _ in 0..8 {
            trip_and_wait(&breaker, &hand); // the open time climbs
        }
        if let Some(force) = forced {
            force(&breaker);
        }
        breaker.reset();
        assert_eq!(breaker.state(), State::Closed);
        run_many(&breaker, Outcome::Failure, 4);
        breaker.reset();
        run_many(&breaker, Outcome::Failure, 4);
        assert_eq!(breaker.state(), State::Closed);
        run_many(&breaker, Outcome::Failure, 1);
        let left = reading(&breaker, "open_left");
        assert!(left > 0.0 && left <= BASE.as_secs_f64(), "{left}");
    }
}

#[test]
fn reset_lowers_no_counter() {
    let (breaker, _hand) = breaker(|b| b);
    trip(&breaker);
    breaker.reset();
    assert_eq!((count(&breaker, "failure"), count(&breaker, "trips")), (5, 1));
}

#[test]
fn switched_off_it_is_transparent_whatever_its_state() {
    let ways: [fn(&Breaker, &swiftwater_core::Hand); 4] =
        [|_, _| {}, |b, _| trip(b), trip_and_wait, |b, _| b.force_open()];
    for way in ways {
        let (breaker, hand) = breaker(|b| b);
        way(&breaker, &hand);
        breaker.set_enabled(false);
        assert!(!breaker.is_enabled());
        let admitted = count(&breaker, "admitted");
        run_many(&breaker, Outcome::Failure, 1000);
        assert_eq!(breaker.call_sync(|| Ok::<_, ()>(1)), Ok(1));
        assert_eq!((breaker.state(), count(&breaker, "admitted")), (State::Disabled, admitted));
        assert_eq!(reading(&breaker, "open_left"), 0.0);
    }
}

#[test]
fn switched_on_again_it_starts_afresh_and_stays_forced_if_it_was() {
    let (breaker, _hand) = breaker(|b| b);
    run_many(&breaker, Outcome::Failure, 4);
    breaker.set_enabled(false);
    run_many(&breaker, Outcome::Failure, 4);
    let passed_while_off = breaker.try_acquire().expect("off");
    breaker.set_enabled(true);
    assert!(breaker.is_enabled());
    passed_while_off.finish(Outcome::Failure);
    run_many(&breaker, Outcome::Failure, 4);
    assert_eq!(breaker.state(), State::Closed);
    run_many(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);

    breaker.force_open();
    breaker.set_enabled(false);
    breaker.set_enabled(true);
    assert_eq!(breaker.state(), State::ForcedOpen);
}

#[test]
fn switching_to_what_it_is_already_forgets_nothing() {
    let (breaker, _hand) = breaker(|b| b);
    run_many(&breaker, Outcome::Failure, 4);
    breaker.set_enabled(true);
    run_many(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);
}
