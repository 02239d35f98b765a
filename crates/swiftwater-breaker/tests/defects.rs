//! Ways in which circuit breakers in the field have gone wrong, each as a test that this one does not.
//!
//! | What went wrong, and where | Here |
//! |---|---|
//! | the window is the average of a lifetime (tower-resilience, circuitbreaker-rs) | `a_long_healthy_past_..` |
//! | a record for each call, and all of them gone through for each (tower-resilience) | `allocation.rs`: `the_calls_in_a_window_take_no_memory` |
//! | a late success closes (tower-resilience, failsafe, linkerd2-proxy) | `a_success_admitted_before_the_trip_..` |
//! | half-open admits everybody (failsafe, recloser) | `of_ten_thousand_calls_..` |
//! | something is held while the user's call runs (recloser's epoch, gobreaker's distributed lock) | `a_call_in_progress_holds_up_nobody` |
//! | nothing trips before the window is full (recloser) | `a_service_dead_from_the_start_..` |
//! | a cancelled probe never comes back (circuitbreaker-rs, linkerd2-proxy) | `cancelled_probes_come_back`, `a_probe_dropped_before_its_first_answer_..` |
//! | racers take more permits than there are (circuitbreaker-rs) | `concurrency.rs`: `never_more_probes_are_out_than_there_are` |
//! | policies that nothing feeds (circuitbreaker-rs) | `every_condition_is_fed` |
//! | open, with the deadline of the last time (circuitbreaker-rs, Sentinel) | `concurrency.rs`: `racers_at_the_trip_never_see_an_old_deadline` |
//! | a hung probe blocks all others for ever (Polly, linkerd2-proxy) | `a_hung_probe_loses_its_place_..`, `any_number_of_hung_probes_..` |
//! | a late call mints a permit (Resilience4j) | `a_straggler_frees_no_probe_place` |
//! | deadlines follow the wall clock (Resilience4j) | `time.rs`; there is no wall clock in a `Clock` |
//! | a cancelled probe closes (Polly) | `a_cancelled_probe_closes_nothing` |
//! | ignored answers use the trials up (erpc) | `answers_that_say_nothing_do_not_latch_..` |
//! | full queues of one's own leak permits, or open (matrixone) | `answers_that_say_nothing_..`, `an_exhausted_pool_of_our_own_..` |
//! | a remote that hangs is invisible until time-outs arrive (gobreaker, go-zero) | `stalled.rs` |

mod common;

use std::{
    future::{Future, pending},
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use common::*;
use swiftwater_breaker::{State, consecutive, failure_count, failure_rate, slow_rate, stalled};
use swiftwater_core::{Outcome, Reason};

#[test]
fn a_long_healthy_past_does_not_keep_a_rate_from_tripping() {
    for past in [1_000, 100_000] {
        let window = Duration::from_secs(10);
        let (breaker, hand) = breaker(|b| b.trip_when(failure_rate(0.5).over(window).min_calls(20)));
        run_many(&breaker, Outcome::Success, past);
        hand.advance(window);
        run_many(&breaker, Outcome::Failure, 19);
        assert_eq!(breaker.state(), State::Closed);
        run_many(&breaker, Outcome::Failure, 1);
        assert_eq!(breaker.state(), State::Open, "after {past} good calls");
    }
}

#[test]
fn a_success_admitted_before_the_trip_does_not_close_a_half_open_breaker() {
    let (breaker, hand) = breaker(|b| b);
    let old = breaker.try_acquire().expect("closed");
    trip_and_wait(&breaker, &hand);
    let probe = breaker.try_acquire().expect("a probe");
    old.finish(Outcome::Success);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.try_acquire().unwrap_err().reason(), Reason::Full);
    assert_eq!(count(&breaker, "late"), 1);
    probe.finish(Outcome::Success);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_failure_admitted_before_the_trip_does_not_open_it_again() {
    let (breaker, hand) = breaker(|b| b);
    let stragglers: Vec<_> = (0..10).map(|_| breaker.try_acquire().expect("closed")).collect();
    trip_and_wait(&breaker, &hand);
    run(&breaker, Some(Outcome::Success));
    assert_eq!(breaker.state(), State::Closed);
    for straggler in stragglers {
        straggler.finish(Outcome::Failure);
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(count(&breaker, "trips"), 1);
}

#[test]
fn of_ten_thousand_calls_at_a_hanging_service_only_the_probes_reach_it() {
    let (breaker, hand) = breaker(|b| b.probes(5));
    trip_and_wait(&breaker, &hand);
    let hanging: Vec<_> = (0..10_000).filter_map(|_| breaker.try_acquire().ok()).collect();
    assert_eq!(hanging.len(), 5);
    assert_eq!(count(&breaker, "rejected_full"), 9_995);
}

#[test]
fn a_call_in_progress_holds_up_nobody() {
    let (breaker, _hand) = breaker(|b| b);
    let inside: Result<_, _> = breaker.call_sync(|| {
        // From another thread and from within: neither may wait for the call that is in progress.
        let other = breaker.clone();
        thread::spawn(move || run_many(&other, Outcome::Success, 100)).join().expect("calls pass");
        breaker.call_sync(|| Ok::<_, ()>(breaker.state()))
    });
    assert_eq!(inside, Ok(State::Closed));
    assert_eq!(count(&breaker, "success"), 102);
}

#[test]
fn a_service_dead_from_the_start_is_cut_off_after_five_calls() {
    let (breaker, _hand) = breaker(|b| b);
    let mut reached = 0;
    for _ in 0..1000 {
        let _ = breaker.call_sync(|| -> Result<(), ()> {
            reached += 1;
            Err(())
        });
    }
    assert_eq!(reached, 5);
}

#[test]
fn cancelled_probes_come_back() {
    let (breaker, hand) = breaker(|b| b.probes(3));
    trip_and_wait(&breaker, &hand);
    for _ in 0..3 {
        let mut call = pin!(breaker.call(pending::<Result<(), ()>>));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(free_permits(&breaker, 10), 3);
    run(&breaker, Some(Outcome::Success));
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_cancelled_probe_closes_nothing() {
    let (breaker, hand) = breaker(|b| b);
    trip_and_wait(&breaker, &hand);
    drop(breaker.try_acquire().expect("a probe"));
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn every_condition_is_fed() {
    let window = Duration::from_secs(10);
    let rate = || failure_rate(0.5).over(window).min_calls(20);
    for (trip, needed) in [
        (consecutive(7), 7),
        (rate().into(), 20),
        (consecutive(7).or(rate()), 7),
        (rate().or(consecutive(30)), 20),
        (failure_rate(0.9).over(window).min_calls(50).or(rate()), 20),
        (consecutive(9).or(consecutive(4)), 4),
        (rate().over_calls(6).min_calls(6).into(), 6),
        (failure_count(11).into(), 11),
        (slow_rate(1.0, window).or(failure_count(3)), 3),
        (stalled(window).or(consecutive(2)), 2),
    ] {
        let (breaker, _hand) = breaker(|b| b.trip_when(trip.clone()));
        run_many(&breaker, Outcome::Failure, needed - 1);
        assert_eq!(breaker.state(), State::Closed, "{trip:?}");
        run_many(&breaker, Outcome::Failure, 1);
        assert_eq!(breaker.state(), State::Open, "{trip:?}");
    }
}

#[test]
fn a_hung_probe_loses_its_place_after_its_lease() {
    let (breaker, hand) = breaker(|b| b.probe_lease(LEASE));
    trip_and_wait(&breaker, &hand);
    let hung = breaker.try_acquire().expect("a probe");
    hand.advance(LEASE - Duration::from_nanos(1));
    assert_eq!(breaker.try_acquire().unwrap_err().reason(), Reason::Full);
    hand.advance(Duration::from_nanos(1));
    let next = breaker.try_acquire().expect("the hung probe's place");
    assert_eq!(count(&breaker, "expired"), 1);

    hung.finish(Outcome::Success); // neither closes nor frees the place of the one that took over
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.try_acquire().unwrap_err().reason(), Reason::Full);
    assert_eq!(count(&breaker, "late"), 1);
    next.finish(Outcome::Success);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_probe_that_returns_after_its_lease_is_late_even_if_nobody_took_its_place() {
    let (breaker, hand) = breaker(|b| b.probe_lease(LEASE));
    trip_and_wait(&breaker, &hand);
    let hung = breaker.try_acquire().expect("a probe");
    hand.advance(LEASE);
    hung.finish(Outcome::Failure);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!((count(&breaker, "late"), count(&breaker, "expired")), (1, 1));
    assert_eq!(free_permits(&breaker, 10), 1);
}

#[test]
fn any_number_of_hung_probes_never_wedges_the_breaker() {
    let (breaker, hand) = breaker(|b| b.probes(2).probe_lease(LEASE));
    trip_and_wait(&breaker, &hand);
    let mut hung = Vec::new();
    for _ in 0..50 {
        hung.push(breaker.try_acquire().expect("a place"));
        hung.push(breaker.try_acquire().expect("a place"));
        assert!(breaker.try_acquire().is_err());
        hand.advance(LEASE);
    }
    run(&breaker, Some(Outcome::Success));
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_straggler_frees_no_probe_place() {
    for outcome in OUTCOMES {
        let (breaker, hand) = breaker(|b| b.probes(2));
        let straggler = breaker.try_acquire().expect("closed");
        trip_and_wait(&breaker, &hand);
        let _probes = (breaker.try_acquire().expect("1"), breaker.try_acquire().expect("2"));
        match outcome {
            Some(outcome) => straggler.finish(outcome),
            None => drop(straggler),
        }
        assert!(breaker.try_acquire().is_err(), "{outcome:?} minted a permit");
    }
}

#[test]
fn answers_that_say_nothing_do_not_latch_a_half_open_breaker() {
    for outcome in [Outcome::Ignored, Outcome::Local] {
        let (breaker, hand) = breaker(|b| b.probes(2).successes(3));
        trip_and_wait(&breaker, &hand);
        run_many(&breaker, outcome, 1000);
        assert_eq!(breaker.state(), State::HalfOpen);
        run_many(&breaker, Outcome::Success, 2);
        run_many(&breaker, outcome, 1000); // nor do they use up what was proved
        run_many(&breaker, Outcome::Success, 1);
        assert_eq!(breaker.state(), State::Closed, "{outcome:?}");
    }
}

#[test]
fn an_exhausted_pool_of_our_own_does_not_open_the_remotes_breaker() {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(2).or(failure_rate(0.01).min_calls(1))));
    run_many(&breaker, Outcome::Local, 10_000);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_probe_dropped_before_its_first_answer_is_not_forgotten() {
    let (breaker, hand) = breaker(|b| b);
    trip_and_wait(&breaker, &hand);
    // Never polled: never admitted.
    drop(breaker.call(pending::<Result<(), ()>>));
    {
        let mut call = pin!(breaker.call(pending::<Result<(), ()>>));
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Pending);
    }
    assert!(breaker.try_acquire().is_ok());
}
