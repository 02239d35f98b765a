//! Part of the calls is shed while part of them fail.

mod common;

use std::time::Duration;

use common::*;
use swiftwater_breaker::{Breaker, State, consecutive, never, throttle};
use swiftwater_core::{Hand, Outcome, Reason};

const WINDOW: Duration = Duration::from_secs(32);

fn throttled(k: f64) -> (Breaker, Hand) {
    breaker(|b| b.trip_when(never()).throttle(throttle(k).over(WINDOW).min_calls(10)))
}

/// Asks so many times; every `nth` call that is let through succeeds (0: none). How many were let through.
fn ask(breaker: &Breaker, times: u64, nth: u64) -> u64 {
    let mut through = 0;
    for _ in 0..times {
        match breaker.try_acquire() {
            Ok(permit) => {
                through += 1;
                let good = nth > 0 && through % nth == 0;
                permit.finish(if good { Outcome::Success } else { Outcome::Failure });
            }
            Err(rejected) => assert_eq!(rejected.reason(), Reason::Throttled),
        }
    }
    through
}

#[test]
fn the_share_is_that_of_the_book() {
    for (successes, failures) in [(0, 10), (1, 9), (10, 90), (40, 60), (50, 50), (100, 0), (3, 6)] {
        let (breaker, _hand) = throttled(2.0);
        let calls = successes + failures;
        // Alternating as far as possible, the failures last: nothing is shed on the way there.
        run_many(&breaker, Outcome::Success, successes);
        let shed = (0..failures).filter(|_| match breaker.try_acquire() {
            Ok(permit) => {
                permit.finish(Outcome::Failure);
                false
            }
            Err(_) => true,
        });
        let requests = calls as f64;
        assert!(shed.count() as u64 <= failures);
        let expected = if calls < 10 { 0.0 } else { (requests - 2.0 * successes as f64) / (requests + 1.0) };
        assert!((reading(&breaker, "shed") - expected.max(0.0)).abs() < 1e-9, "{successes} of {calls}");
    }
}

#[test]
fn nothing_is_shed_while_enough_succeed() {
    let (breaker, _hand) = throttled(2.0);
    for _ in 0..5_000 {
        // Every second call fails, which is just what a k of 2 puts up with.
        run(&breaker, Some(Outcome::Success));
        run(&breaker, Some(Outcome::Failure));
    }
    assert_eq!(count(&breaker, "rejected_throttled"), 0);
}

#[test]
fn a_dead_remote_gets_next_to_nothing_and_the_breaker_never_opens() {
    let (breaker, _hand) = throttled(2.0);
    let through = ask(&breaker, 10_000, 0);
    assert!((10..100).contains(&through), "{through}");
    assert_eq!((breaker.state(), count(&breaker, "trips")), (State::Closed, 0));
    assert_eq!(count(&breaker, "rejected_throttled"), 10_000 - through);
}

#[test]
fn a_remote_that_answers_one_in_ten_gets_about_k_times_what_it_answers() {
    for k in [1.5, 2.0, 4.0] {
        let (breaker, hand) = throttled(k);
        let mut through = 0;
        for _ in 0..400 {
            hand.advance(WINDOW / 400);
            through += ask(&breaker, 50, 10);
        }
        let accepted = count(&breaker, "success") as f64;
        // It cannot get more than is asked, and gets ten calls for each that it answers; sheds until a share of k is left.
        let share = through as f64 / 20_000.0;
        assert!(share < 0.75 && accepted > 0.0, "{share} with {k}");
    }
}

#[test]
fn it_recovers_as_the_window_forgets() {
    let (breaker, hand) = throttled(2.0);
    ask(&breaker, 1000, 0);
    hand.advance(WINDOW);
    assert_eq!(ask(&breaker, 1000, 1), 1000);
}

#[test]
fn what_is_dropped_or_says_nothing_is_no_request() {
    let (breaker, _hand) = throttled(2.0);
    for outcome in [Some(Outcome::Ignored), Some(Outcome::Local), None] {
        for _ in 0..1000 {
            run(&breaker, outcome);
        }
    }
    assert_eq!(reading(&breaker, "shed"), 0.0);
}

#[test]
fn it_may_open_besides() {
    let both = throttle(2.0).over(WINDOW).min_calls(10);
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(20)).throttle(both));
    let mut reached = 0;
    while breaker.state() == State::Closed {
        reached += ask(&breaker, 1, 0);
    }
    assert_eq!(reached, 20);
}
