//! Calls that hang are found out before anything has failed.

mod common;

use std::{thread, time::Duration};

use common::*;
use swiftwater_breaker::{Breaker, Cause, Permit, State, consecutive, failure_rate, stalled};
use swiftwater_core::{Gate, Hand, Outcome, Token};

const AFTER: Duration = Duration::from_secs(8);
const EIGHTH: Duration = Duration::from_secs(1);

fn three_hang() -> (Breaker, Hand) {
    breaker(|b| b.trip_when(stalled(AFTER).at_least(3)))
}

fn hold(breaker: &Breaker, calls: usize) -> Vec<Permit<'_>> {
    (0..calls).map(|_| breaker.try_acquire().expect("admitted")).collect()
}

#[test]
fn it_opens_between_once_and_nine_eighths_of_the_time_though_nothing_has_failed() {
    for begin in [Duration::ZERO, EIGHTH / 2, EIGHTH - Duration::from_millis(1)] {
        let (breaker, hand) = three_hang();
        hand.advance(begin);
        let hanging = hold(&breaker, 3);
        hand.advance(AFTER);
        let mut after = AFTER;
        while breaker.try_acquire().is_ok() {
            hand.advance(Duration::from_millis(10));
            after += Duration::from_millis(10);
        }
        assert!(after <= AFTER + EIGHTH + Duration::from_millis(10), "{after:?}");
        assert_eq!(breaker.events(0)[0].cause, Cause::Stalled);
        assert_eq!(count(&breaker, "failure"), 0);
        drop(hanging);
    }
}

#[test]
fn it_opens_no_sooner_and_not_for_fewer() {
    let (breaker, hand) = three_hang();
    let young = hold(&breaker, 3);
    hand.advance(AFTER - Duration::from_millis(1));
    run(&breaker, Some(Outcome::Success));
    drop(young);
    let few = hold(&breaker, 2);
    for _ in 0..100 {
        hand.advance(EIGHTH);
        run(&breaker, Some(Outcome::Success));
    }
    assert_eq!(breaker.state(), State::Closed);
    drop(few);
}

#[test]
fn a_call_that_ends_may_find_it_out_too() {
    let (breaker, hand) = three_hang();
    let mut hanging = hold(&breaker, 4);
    hand.advance(AFTER + EIGHTH);
    hanging.pop().expect("four").finish(Outcome::Success);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(count(&breaker, "late"), 1, "by then it had opened");
}

#[test]
fn calls_that_have_ended_do_not_hang_whatever_they_ended_as() {
    for outcome in OUTCOMES {
        let (breaker, hand) = three_hang();
        for _ in 0..50 {
            let calls = hold(&breaker, 10);
            hand.advance(EIGHTH);
            for call in calls {
                match outcome {
                    Some(outcome) => call.finish(outcome),
                    None => drop(call),
                }
            }
        }
        run(&breaker, Some(Outcome::Success));
        assert_eq!(breaker.state(), State::Closed, "{outcome:?}");
    }
}

#[test]
fn what_has_hung_for_long_is_not_forgotten() {
    let (breaker, hand) = three_hang();
    let first = hold(&breaker, 2);
    for _ in 0..1000 {
        hand.advance(EIGHTH / 3);
        run(&breaker, Some(Outcome::Success));
    }
    let last = hold(&breaker, 1);
    hand.advance(AFTER + EIGHTH);
    assert!(breaker.try_acquire().is_err());
    drop((first, last));
}

#[test]
fn calls_that_hung_before_a_recovery_open_nothing_afterwards() {
    let (breaker, hand) = breaker(|b| b.trip_when(consecutive(1).or(stalled(AFTER).at_least(3))));
    let hung = hold(&breaker, 10);
    trip_and_wait(&breaker, &hand);
    run(&breaker, Some(Outcome::Success));
    for _ in 0..30 {
        hand.advance(EIGHTH);
        run(&breaker, Some(Outcome::Success));
    }
    assert_eq!(breaker.state(), State::Closed);
    drop(hung);
    assert_eq!((breaker.state(), count(&breaker, "late")), (State::Closed, 10));
}

#[test]
fn a_call_may_begin_in_one_thread_and_end_in_another() {
    let (breaker, hand) = three_hang();
    run(&breaker, Some(Outcome::Success));
    for _ in 0..40 {
        let tokens: Vec<Token> = (0..10).map(|_| breaker.admit().expect("admitted")).collect();
        thread::scope(|scope| {
            scope
                .spawn(|| tokens.into_iter().for_each(|token| breaker.settle(token, Some(Outcome::Success))));
        });
        hand.advance(EIGHTH);
    }
    run(&breaker, Some(Outcome::Success));
    assert_eq!(breaker.state(), State::Closed);
}

/// With stripes of their own, on a clock that runs past slice after slice.
#[test]
fn busy_threads_that_end_their_calls_never_look_as_if_they_hung() {
    let trip = stalled(Duration::from_millis(100)).at_least(1).or(failure_rate(1.0));
    let (breaker, hand) = breaker(|b| b.trip_when(trip));
    thread::scope(|scope| {
        for _ in 0..3 {
            let breaker = &breaker;
            scope.spawn(move || (0..30_000).for_each(|_| run(breaker, Some(Outcome::Success))));
        }
        // Never so far at a time that a call which is in progress would have hung.
        for _ in 0..2_000 {
            hand.advance(Duration::from_micros(20));
            thread::yield_now();
        }
    });
    assert_eq!((breaker.state(), count(&breaker, "success")), (State::Closed, 90_000));
}
