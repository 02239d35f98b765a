//! A turned knob changes behaviour at once.

mod common;

use std::time::Duration;

use common::*;
use swiftwater_breaker::{
    Breaker, State, consecutive, failure_count, failure_rate, never, slow_rate, throttle,
};
use swiftwater_core::{Knob, KnobError, Outcome, Tunable};

fn knob(breaker: &Breaker, name: &str) -> Option<Knob> {
    let mut found = None;
    breaker.knobs(&mut |knob| {
        if knob.name() == name {
            found = Some(knob);
        }
    });
    found
}

#[test]
fn the_failure_threshold_holds_from_the_next_failure_on() -> Result<(), KnobError> {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(5)));
    let threshold = knob(&breaker, "failure_threshold").expect("offered");
    assert_eq!(threshold.get()?, 5.0);
    run_many(&breaker, Outcome::Failure, 4);
    threshold.set(8.0)?;
    run_many(&breaker, Outcome::Failure, 3);
    assert_eq!(breaker.state(), State::Closed);
    threshold.set(2.0)?; // seven in a row by now: the next one opens, the turning itself does not
    assert_eq!(breaker.state(), State::Closed);
    run_many(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);
    Ok(())
}

#[test]
fn the_failure_rate_holds_from_the_next_failure_on() -> Result<(), KnobError> {
    let (breaker, _hand) = breaker(|b| b.trip_when(failure_rate(0.9).min_calls(10)));
    let share = knob(&breaker, "failure_rate").expect("offered");
    assert_eq!(share.get()?, 0.9);
    run_many(&breaker, Outcome::Success, 94);
    run_many(&breaker, Outcome::Failure, 5);
    assert_eq!(share.set(0.06)?, 0.06);
    run_many(&breaker, Outcome::Failure, 1); // six of a hundred
    assert_eq!(breaker.state(), State::Open);
    Ok(())
}

#[test]
fn the_open_base_holds_from_the_next_trip_on_at_the_step_that_was_reached() -> Result<(), KnobError> {
    let ms = |ms| Duration::from_millis(ms);
    let (breaker, hand) = breaker(|b| b.trip_when(consecutive(1)).open_for(ms(100)..=ms(100_000)));
    let base = knob(&breaker, "open_base").expect("offered");
    assert_eq!((base.get()?, base.bounds()), (0.1, 0.001..=100.0));
    base.set(20.0)?;
    run(&breaker, Some(Outcome::Failure));
    let left = reading(&breaker, "open_left");
    assert!((10.0..=20.0).contains(&left), "{left}");
    assert!(base.set(101.0).is_err());

    // Four trips on, with the base at its smallest: the doubling goes on from where it was.
    let mut longest: f64 = 0.0;
    for _ in 0..4 {
        hand.advance(ms(100_000));
        run(&breaker, Some(Outcome::Failure));
    }
    for _ in 0..200 {
        base.set(1.0)?;
        hand.advance(ms(100_000));
        run(&breaker, Some(Outcome::Failure));
        longest = longest.max(reading(&breaker, "open_left"));
    }
    assert!(longest > 16.0, "{longest}");
    Ok(())
}

#[test]
fn only_knobs_that_turn_something_are_offered() {
    let names = |breaker: &Breaker| {
        let mut names = Vec::new();
        breaker.knobs(&mut |knob| names.push(knob.name()));
        names
    };
    let rate = || failure_rate(0.5);
    let with = |trip: swiftwater_breaker::Trip| names(&breaker(|b| b.trip_when(trip)).0);
    assert_eq!(with(consecutive(5)), ["failure_threshold", "open_base"]);
    assert_eq!(with(rate().into()), ["failure_rate", "failure_window", "open_base"]);
    assert_eq!(with(rate().over_calls(50).into()), ["failure_rate", "failure_calls", "open_base"]);
    assert_eq!(with(rate().or(rate())), ["open_base"]);
    let all = with(rate().or(consecutive(5)));
    assert_eq!(all, ["failure_threshold", "failure_rate", "failure_window", "open_base"]);
    let slow = slow_rate(0.5, Duration::from_secs(1));
    assert_eq!(with(slow.clone().into()), ["slow_rate", "slow_threshold", "slow_window", "open_base"]);
    assert_eq!(with(slow.over_calls(9).into()), ["slow_rate", "slow_threshold", "slow_calls", "open_base"]);
    assert_eq!(with(failure_count(3).into()), ["failure_count", "open_base"]);
    assert_eq!(with(never()), ["open_base"]);
    let throttled = breaker(|b| b.trip_when(never()).throttle(throttle(2.0))).0;
    assert_eq!(names(&throttled), ["throttle_k", "open_base"]);
}

#[test]
fn a_knob_keeps_no_breaker_alive() {
    let (breaker, _hand) = breaker(|b| b);
    let knob = knob(&breaker, "open_base").expect("offered");
    drop(breaker);
    assert_eq!(knob.get(), Err(KnobError::Gone));
}

#[test]
fn a_shorter_window_forgets_at_once_and_a_longer_one_keeps_what_there_is() -> Result<(), KnobError> {
    let secs = Duration::from_secs;
    let (breaker, hand) = breaker(|b| b.trip_when(failure_rate(0.5).over(secs(32)).min_calls(10)));
    let window = knob(&breaker, "failure_window").expect("offered");
    run_many(&breaker, Outcome::Failure, 9);
    hand.advance(secs(10));
    window.set(100.0)?;
    hand.advance(secs(50));
    window.set(80.0)?; // still in
    run_many(&breaker, Outcome::Success, 5);
    window.set(32.0)?; // the failures are out, the successes are not
    run_many(&breaker, Outcome::Failure, 4);
    assert_eq!(breaker.state(), State::Closed, "4 of 9");
    run_many(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open, "5 of 10");
    Ok(())
}

#[test]
fn what_is_still_in_the_window_after_a_change_counts() -> Result<(), KnobError> {
    let (breaker, hand) =
        breaker(|b| b.trip_when(failure_rate(0.5).over(Duration::from_secs(10)).min_calls(10)));
    run_many(&breaker, Outcome::Failure, 9);
    hand.advance(Duration::from_secs(20));
    knob(&breaker, "failure_window").expect("offered").set(60.0)?; // too late: they had left
    run_many(&breaker, Outcome::Failure, 9);
    assert_eq!(breaker.state(), State::Closed);
    knob(&breaker, "failure_window").expect("offered").set(30.0)?;
    run_many(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);
    Ok(())
}

#[test]
fn a_window_of_calls_keeps_the_latest() -> Result<(), KnobError> {
    let (breaker, _hand) = breaker(|b| b.trip_when(failure_rate(0.6).over_calls(10).min_calls(5)));
    let calls = knob(&breaker, "failure_calls").expect("offered");
    assert!(calls.set(4.0).is_err(), "fewer than the least calls");
    run_many(&breaker, Outcome::Success, 8);
    run_many(&breaker, Outcome::Failure, 2);
    calls.set(5.0)?;
    run_many(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open, "3 of the last 5");
    Ok(())
}

#[test]
fn the_slow_threshold_holds_from_the_next_result_on() -> Result<(), KnobError> {
    let trip = slow_rate(1.0, Duration::from_secs(10)).min_calls(1);
    let (breaker, hand) = breaker(|b| b.trip_when(trip));
    let permit = breaker.try_acquire().expect("closed");
    hand.advance(Duration::from_secs(5));
    knob(&breaker, "slow_threshold").expect("offered").set(4.0)?;
    permit.finish(Outcome::Success);
    assert_eq!(breaker.state(), State::Open);
    Ok(())
}

#[test]
fn counts_and_throttles_turn_too() -> Result<(), KnobError> {
    let (counted, _hand) = breaker(|b| b.trip_when(failure_count(100)));
    knob(&counted, "failure_count").expect("offered").set(3.0)?;
    run_many(&counted, Outcome::Failure, 3);
    assert_eq!(counted.state(), State::Open);

    let (shedding, _hand) = breaker(|b| b.trip_when(never()).throttle(throttle(2.0).min_calls(10)));
    run_many(&shedding, Outcome::Success, 5);
    run_many(&shedding, Outcome::Failure, 5);
    assert_eq!(reading(&shedding, "shed"), 0.0);
    knob(&shedding, "throttle_k").expect("offered").set(1.0)?;
    assert!((reading(&shedding, "shed") - 5.0 / 11.0).abs() < 1e-9);
    Ok(())
}

#[test]
fn a_knob_may_turn_while_nothing_is_closed() -> Result<(), KnobError> {
    let condition = consecutive(2).or(failure_rate(0.5).over(Duration::from_secs(10)).min_calls(10));
    let (breaker, hand) = breaker(|b| b.trip_when(condition));
    let window = knob(&breaker, "failure_window").expect("offered");
    for force in [Breaker::force_open as fn(&Breaker), Breaker::force_closed, trip] {
        for _ in 0..20 {
            run(&breaker, Some(Outcome::Success));
            hand.advance(Duration::from_secs(1)); // so that some of them are booked
        }
        force(&breaker);
        hand.advance(Duration::from_secs(1));
        window.set(20.0)?;
        window.set(10.0)?;
        breaker.reset();
        run(&breaker, Some(Outcome::Success));
        assert_eq!(breaker.state(), State::Closed);
    }
    Ok(())
}
