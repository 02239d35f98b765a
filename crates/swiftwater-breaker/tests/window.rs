//! Laws of the failure rate: what counts, for how long, and in which direction.

mod common;

use std::time::Duration;

use common::*;
use proptest::prelude::*;
use swiftwater_breaker::{Breaker, State, Trip, consecutive, failure_count, failure_rate};
use swiftwater_core::{Clock, Hand, Outcome};

const WINDOW: Duration = Duration::from_secs(32);
const TICK: Duration = Duration::from_nanos(1);

fn rated(share: f64, min_calls: u64) -> (Breaker, Hand) {
    breaker(|b| b.trip_when(failure_rate(share).over(WINDOW).min_calls(min_calls)))
}

#[test]
fn a_call_counts_for_at_least_31_of_32_parts_of_the_window() {
    for offset in [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(999)] {
        let (breaker, hand) = rated(1.0, 2);
        hand.advance(offset);
        run(&breaker, Some(Outcome::Failure));
        hand.advance(WINDOW * 31 / 32);
        run(&breaker, Some(Outcome::Failure));
        assert_eq!(breaker.state(), State::Open, "at offset {offset:?}");
    }
}

#[test]
fn a_call_as_old_as_the_window_does_not_count() {
    for offset in [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1) - TICK] {
        let (breaker, hand) = rated(1.0, 2);
        hand.advance(offset);
        run(&breaker, Some(Outcome::Failure));
        hand.advance(WINDOW);
        run(&breaker, Some(Outcome::Failure));
        assert_eq!(breaker.state(), State::Closed, "at offset {offset:?}");
    }
}

#[test]
fn old_calls_leave_one_part_at_a_time() {
    // One failure a second; a threshold that a full window of them just misses.
    let (breaker, hand) = rated(1.0, 33);
    for _ in 0..1000 {
        run(&breaker, Some(Outcome::Failure));
        hand.advance(Duration::from_secs(1));
    }
    assert_eq!(breaker.state(), State::Closed);
    let (breaker, hand) = rated(1.0, 32);
    let until_open = (1..1000)
        .find(|_| {
            run(&breaker, Some(Outcome::Failure));
            hand.advance(Duration::from_secs(1));
            breaker.state() != State::Closed
        })
        .expect("opens");
    assert_eq!(until_open, 32);
}

#[test]
fn the_share_is_reached_exactly() {
    for (share, failures, calls) in
        [(0.07, 7, 100), (0.5, 10, 20), (0.1, 3, 30), (1.0, 5, 5), (0.29, 29, 100)]
    {
        let (one_short, _hand) = rated(share, calls);
        run_many(&one_short, Outcome::Success, calls - failures + 1);
        run_many(&one_short, Outcome::Failure, failures - 1);
        assert_eq!(one_short.state(), State::Closed, "{failures} - 1 of {calls}");
        let (reached, _hand) = rated(share, calls);
        run_many(&reached, Outcome::Success, calls - failures);
        run_many(&reached, Outcome::Failure, failures);
        assert_eq!(reached.state(), State::Open, "{failures} of {calls}");
    }
}

#[test]
fn a_success_never_opens_even_if_it_completes_the_minimum() {
    let (breaker, _hand) = rated(0.5, 20);
    run_many(&breaker, Outcome::Failure, 19);
    run_many(&breaker, Outcome::Success, 1);
    assert_eq!(breaker.state(), State::Closed);
    run_many(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn recovery_forgets_the_window() {
    let (breaker, hand) = breaker(|b| {
        b.trip_when(failure_rate(0.5).over(Duration::from_secs(3600)).min_calls(10)).open_for(BASE..=BASE)
    });
    trip(&breaker);
    hand.advance(BASE);
    run(&breaker, Some(Outcome::Success));
    run_many(&breaker, Outcome::Failure, 9);
    assert_eq!(breaker.state(), State::Closed);
    run_many(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);
}

/// One call: how long after the one before, and whether it failed.
type Call = (Duration, bool);

fn calls(most: usize) -> impl Strategy<Value = Vec<Call>> {
    let call = (0..3_000u64, any::<bool>()).prop_map(|(ms, failed)| (Duration::from_millis(ms), failed));
    prop::collection::vec(call, 1..most)
}

fn trips() -> impl Strategy<Value = Trip> {
    let rate = (1..=10u32, 1..15u64).prop_map(|(tenths, min_calls)| {
        failure_rate(f64::from(tenths) / 10.0).over(WINDOW).min_calls(min_calls)
    });
    let counted = (1..=10u32, 1..15u32).prop_map(|(tenths, calls)| {
        // Full from the first call on which it may open: below that, every call is evidence.
        failure_rate(f64::from(tenths) / 10.0).over_calls(calls).min_calls(calls.into())
    });
    prop_oneof![
        (1..6u32).prop_map(consecutive),
        (1..6u32).prop_map(|failures| failure_count(failures).over(WINDOW).into()),
        rate.clone().prop_map(Trip::from),
        counted.prop_map(Trip::from),
        (1..6u32, rate).prop_map(|(run, rate)| consecutive(run).or(rate)),
    ]
}

/// The place of the call that opens the breaker.
fn opened_by(breaker: &Breaker, hand: &Hand, calls: &[Call]) -> Option<usize> {
    calls.iter().position(|(pause, failed)| {
        hand.advance(*pause);
        run(breaker, Some(if *failed { Outcome::Failure } else { Outcome::Success }));
        breaker.state() == State::Open
    })
}

fn opened(trip: &Trip, calls: &[Call]) -> Option<usize> {
    let (breaker, hand) = breaker(|b| b.trip_when(trip.clone()));
    opened_by(&breaker, &hand, calls)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    /// `None` counts as "never", which is later than everything.
    #[test]
    fn a_call_that_fails_instead_of_succeeding_never_opens_later(
        trip in trips(), mut calls in calls(60), place in any::<prop::sample::Index>(),
    ) {
        let place = place.index(calls.len());
        calls[place].1 = false;
        let good = opened(&trip, &calls).unwrap_or(usize::MAX);
        calls[place].1 = true;
        let bad = opened(&trip, &calls).unwrap_or(usize::MAX);
        prop_assert!(bad <= good, "{bad} {good}");
    }

    #[test]
    fn one_failure_more_never_opens_later(
        trip in trips(), calls in calls(60), place in any::<prop::sample::Index>(),
    ) {
        let place = place.index(calls.len());
        let before = opened(&trip, &calls).unwrap_or(usize::MAX);
        let mut more = calls;
        more.insert(place, (Duration::ZERO, true));
        // In places of the shorter schedule: the added failure itself stands at the call before it.
        let after = opened(&trip, &more).map_or(usize::MAX, |at| if at > place { at - 1 } else { at });
        prop_assert!(after <= before, "{after} {before}");
    }

    /// Below `min_calls` any call is evidence; at 1 the minimum is out of play.
    #[test]
    fn one_success_more_never_opens_earlier(
        run_length in 1..6u32, tenths in 1..=10u32, calls in calls(60), place in any::<prop::sample::Index>(),
    ) {
        let rate = failure_rate(f64::from(tenths) / 10.0).over(WINDOW).min_calls(1);
        let trip = consecutive(run_length).or(rate);
        let place = place.index(calls.len());
        let before = opened(&trip, &calls).unwrap_or(usize::MAX);
        let mut more = calls;
        more.insert(place, (Duration::ZERO, false));
        let after = opened(&trip, &more).map_or(usize::MAX, |at| if at > place { at - 1 } else { at });
        prop_assert!(after >= before, "{after} {before}");
    }

    #[test]
    fn history_older_than_the_window_has_no_effect(
        tenths in 1..=10u32, min_calls in 5..15u64, past in calls(60), present in calls(60), good in 0..2000u64,
    ) {
        let (clock, hand) = Clock::manual();
        let trip = failure_rate(f64::from(tenths) / 10.0).over(WINDOW).min_calls(min_calls);
        let build = || Breaker::builder().clock(clock.clone()).trip_when(trip.clone()).build().expect("valid");
        let (old, fresh) = (build(), build());
        run_many(&old, Outcome::Success, good);
        // A past that opened it would be another story.
        if opened_by(&old, &hand, &past).is_some() {
            return Ok(());
        }
        hand.advance(WINDOW);
        for (pause, failed) in present {
            hand.advance(pause);
            let outcome = if failed { Outcome::Failure } else { Outcome::Success };
            run(&old, Some(outcome));
            run(&fresh, Some(outcome));
            prop_assert_eq!(old.state(), fresh.state());
            if fresh.state() == State::Open {
                break;
            }
        }
    }
}
