//! Open times, backoff, and clocks that jump.

mod common;

use std::time::Duration;

use common::*;
use swiftwater_breaker::{Breaker, State, consecutive, failure_rate};
use swiftwater_core::{Backoff, Clock, Hand, Outcome, Reason};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it refuses now, to the nanosecond, by the hand of its own clock.
fn open_time(breaker: &Breaker, hand: &Hand) -> Duration {
    let left = Duration::from_secs_f64(reading(breaker, "open_left"));
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected.reason(), Reason::Open);
    assert!(rejected.retry_after() >= left && rejected.retry_after() <= left + Duration::from_millis(1));
    hand.advance(left - Duration::from_micros(1)); // the gauge is a float
    assert_eq!(breaker.state(), State::Open);
    hand.advance(Duration::from_micros(2));
    assert_eq!(breaker.state(), State::HalfOpen);
    left
}

#[test]
fn every_open_time_lies_between_half_the_base_and_its_doubled_end() {
    for seed in 0..200 {
        let (breaker, hand) = breaker(|b| b.open_for(BASE..=CAP).seed(seed).trip_when(consecutive(1)));
        for n in 0..10 {
            run(&breaker, Some(Outcome::Failure));
            let open = open_time(&breaker, &hand);
            assert!(open >= BASE / 2 - Duration::from_micros(1), "{open:?}");
            assert!(open <= CAP.min(BASE * 2u32.pow(n)), "{open:?} at trip {n}");
        }
    }
}

#[test]
fn the_first_probe_is_admitted_at_the_deadline_and_not_before() {
    const TICK: Duration = Duration::from_nanos(1);
    let (breaker, hand) = breaker(|b| b.open_for(BASE..=CAP).seed(7));
    let drawn = Backoff::new(BASE, CAP).floor(BASE / 2).seed(7).next_delay();
    trip(&breaker);
    hand.advance(drawn - TICK);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.try_acquire().unwrap_err().reason(), Reason::Open);
    hand.advance(TICK);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn failing_probes_make_the_open_time_longer_and_a_recovery_makes_it_short_again() {
    const SEEDS: u64 = 200;
    let mut sums = [Duration::ZERO; 6];
    for seed in 0..SEEDS {
        let (breaker, hand) = breaker(|b| b.open_for(BASE..=CAP).seed(seed).trip_when(consecutive(1)));
        for sum in &mut sums[..5] {
            run(&breaker, Some(Outcome::Failure));
            *sum += open_time(&breaker, &hand);
        }
        run(&breaker, Some(Outcome::Success));
        assert_eq!(breaker.state(), State::Closed);
        run(&breaker, Some(Outcome::Failure));
        let open = open_time(&breaker, &hand);
        assert!(open <= BASE, "{open:?}");
        sums[5] += open;
    }
    // Means of 200 draws: 0.75, 1.25, 2.25, 4.25, 8.25 s.
    assert!(sums[..5].is_sorted(), "{sums:?}");
    assert!(sums[5] < sums[1]);
}

#[test]
fn breakers_without_a_seed_do_not_probe_in_step() {
    let mut times: Vec<u64> = (0..50)
        .map(|_| {
            let clock = Clock::manual().0;
            let breaker = Breaker::builder().clock(clock).build().expect("defaults");
            trip(&breaker);
            (reading(&breaker, "open_left") * 1e9) as u64
        })
        .collect();
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 40);
}

#[test]
fn an_equal_seed_gives_equal_open_times() {
    let open_times = || {
        let (breaker, hand) = breaker(|b| b.seed(42).trip_when(consecutive(1)));
        [(); 8].map(|()| {
            run(&breaker, Some(Outcome::Failure));
            open_time(&breaker, &hand)
        })
    };
    assert_eq!(open_times(), open_times());
}

#[test]
fn a_process_suspended_while_open_wakes_to_probes_not_to_a_flood() {
    let (breaker, hand) = breaker(|b| b.probes(3));
    trip(&breaker);
    hand.advance(DAY);
    assert_eq!(free_permits(&breaker, 10_000), 3);
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn a_process_suspended_while_probing_wakes_to_probes_not_to_a_flood() {
    let (breaker, hand) = breaker(|b| b.probes(3).probe_lease(LEASE));
    trip_and_wait(&breaker, &hand);
    let before: Vec<_> = (0..3).map(|_| breaker.try_acquire().expect("a probe")).collect();
    hand.advance(DAY);
    assert_eq!(free_permits(&breaker, 10_000), 3);
    drop(before);
    assert_eq!(free_permits(&breaker, 10_000), 3);
}

#[test]
fn a_process_suspended_while_closed_remembers_no_rate_and_keeps_its_run() {
    let (rated, hand) = breaker(|b| b.trip_when(failure_rate(0.5).min_calls(10)));
    run_many(&rated, Outcome::Failure, 9);
    hand.advance(DAY);
    run_many(&rated, Outcome::Failure, 9);
    assert_eq!(rated.state(), State::Closed);

    let (counted, hand) = breaker(|b| b.trip_when(consecutive(2)));
    run_many(&counted, Outcome::Failure, 1);
    hand.advance(DAY);
    run_many(&counted, Outcome::Failure, 1);
    assert_eq!(counted.state(), State::Open, "a run has no age");
}

#[test]
fn a_clock_that_goes_back_moves_no_deadline() {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    };
    let secs = Arc::new(AtomicU64::new(100));
    let read = secs.clone();
    let clock = Clock::custom(move || Duration::from_secs(read.load(SeqCst)));
    let breaker = Breaker::builder().clock(clock).trip_when(consecutive(1)).build().expect("valid");
    run(&breaker, Some(Outcome::Failure));
    assert!(breaker.try_acquire().is_err());
    secs.store(0, SeqCst); // against the clock's contract
    let rejected = breaker.try_acquire().unwrap_err();
    assert!(rejected.retry_after() <= BASE, "{rejected}");
    assert!(reading(&breaker, "open_left") <= BASE.as_secs_f64());
    secs.store(200, SeqCst);
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn the_end_of_time_is_no_panic() {
    let (breaker, hand) = breaker(|b| b.trip_when(consecutive(1).or(failure_rate(0.5))));
    hand.advance(Duration::from_nanos(u64::MAX - 10));
    run(&breaker, Some(Outcome::Failure));
    assert!(breaker.try_acquire().is_err());
    hand.advance(Duration::from_nanos(10));
    assert!(breaker.try_acquire().is_ok());
}
