//! Every change of state is told once, in order, and under no lock.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::Duration,
};

use common::*;
use swiftwater_breaker::{
    Breaker, Builder, Cause, Event, State, consecutive, failure_count, failure_rate, slow_rate, stalled,
};
use swiftwater_core::{Hand, Outcome};

type Told = Arc<Mutex<Vec<Event>>>;

fn telling(builder: Builder) -> (Builder, Told) {
    let told = Told::default();
    let into = told.clone();
    (builder.on_event(move |event| into.lock().unwrap().push(*event)), told)
}

fn causes(breaker: &Breaker) -> Vec<Cause> {
    breaker.events(0).iter().map(|event| event.cause).collect()
}

#[test]
fn each_begins_where_the_one_before_it_ended() {
    let mut told = Told::default();
    let (breaker, hand) = breaker(|b| {
        let (builder, into) = telling(b.trip_when(consecutive(1)).ramp(BASE));
        told = into;
        builder
    });
    trip_and_wait(&breaker, &hand);
    run(&breaker, Some(Outcome::Failure));
    hand.advance(CAP);
    run(&breaker, Some(Outcome::Success));
    hand.advance(BASE);
    run(&breaker, Some(Outcome::Success));
    breaker.force_open();
    breaker.force_closed();
    breaker.set_enabled(false);
    breaker.set_enabled(true);
    breaker.reset();
    use State::{Closed, Disabled, ForcedClosed, ForcedOpen, HalfOpen, Open, Ramping};
    let states = [
        Closed,
        Open,
        HalfOpen,
        Open,
        HalfOpen,
        Ramping,
        Closed,
        ForcedOpen,
        ForcedClosed,
        Disabled,
        ForcedClosed,
        Closed,
    ];
    let told = told.lock().unwrap();
    assert_eq!(told.len(), states.len() - 1);
    for (place, event) in told.iter().enumerate() {
        assert_eq!(event.number, place as u64 + 1);
        assert_eq!((event.from, event.to), (states[place], states[place + 1]));
        assert_eq!(event.open_for > Duration::ZERO, event.to == Open);
    }
    assert_eq!(*told, breaker.events(0));
}

#[test]
fn every_condition_is_told_by_its_name() {
    let secs = Duration::from_secs;
    let fails = |breaker: &Breaker, _: &Hand| run_many(breaker, Outcome::Failure, 3);
    let slow = |breaker: &Breaker, hand: &Hand| {
        let permit = breaker.try_acquire().expect("closed");
        hand.advance(Duration::from_secs(1));
        permit.finish(Outcome::Success);
    };
    let hangs = |breaker: &Breaker, hand: &Hand| {
        let _held = [(); 5].map(|()| breaker.try_acquire());
        hand.advance(Duration::from_secs(10));
        assert!(breaker.try_acquire().is_err());
    };
    type Happens = fn(&Breaker, &Hand);
    let cases: [(swiftwater_breaker::Trip, Happens, Cause); 5] = [
        (consecutive(3), fails, Cause::Consecutive),
        (failure_rate(0.5).min_calls(3).into(), fails, Cause::FailureRate),
        (failure_count(3).into(), fails, Cause::FailureCount),
        (slow_rate(0.5, secs(1)).min_calls(1).into(), slow, Cause::SlowRate),
        (stalled(secs(5)).into(), hangs, Cause::Stalled),
    ];
    for (trip, happens, cause) in cases {
        let (breaker, hand) = breaker(|b| b.trip_when(trip));
        happens(&breaker, &hand);
        assert_eq!(causes(&breaker), [cause]);
    }
}

#[test]
fn the_latest_sixteen_are_kept_and_a_gap_shows() {
    let (breaker, _hand) = breaker(|b| b);
    for _ in 0..20 {
        breaker.force_open();
        breaker.reset();
    }
    let events = breaker.events(0);
    assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), (25..=40).collect::<Vec<_>>());
    assert_eq!(breaker.events(38), events[14..]);
    assert!(breaker.events(40).is_empty());
}

#[test]
fn a_callback_may_use_the_breaker_and_wait_for_another_thread_that_does() {
    static BREAKER: OnceLock<Breaker> = OnceLock::new();
    let (breaker, _hand) = breaker(|b| {
        b.trip_when(consecutive(1)).on_event(|_| {
            let breaker = BREAKER.get().expect("set");
            assert!(breaker.try_acquire().is_err());
            let elsewhere = thread::spawn(|| BREAKER.get().expect("set").events(0).len());
            assert_eq!(elsewhere.join().expect("no panic"), 1);
        })
    });
    let breaker = BREAKER.get_or_init(|| breaker);
    run(breaker, Some(Outcome::Failure));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn what_a_callback_brings_about_is_told_after_it() {
    static BREAKER: OnceLock<Breaker> = OnceLock::new();
    static TOLD: Mutex<Vec<(&str, State)>> = Mutex::new(Vec::new());
    let (breaker, _hand) = breaker(|b| {
        b.trip_when(consecutive(1)).on_event(|event| {
            TOLD.lock().unwrap().push(("begin", event.to));
            if event.to == State::Open {
                BREAKER.get().expect("set").force_closed();
            }
            TOLD.lock().unwrap().push(("end", event.to));
        })
    });
    run(BREAKER.get_or_init(|| breaker), Some(Outcome::Failure));
    let expected = [State::Open, State::ForcedClosed].map(|state| [("begin", state), ("end", state)]);
    assert_eq!(TOLD.lock().unwrap()[..], expected.concat());
}

#[test]
fn a_panic_in_a_callback_harms_nobody() {
    let told = Told::default();
    let into = told.clone();
    let (breaker, _hand) = breaker(|b| {
        b.trip_when(consecutive(1)).on_event(move |event| {
            into.lock().unwrap().push(*event);
            resume_unwind(Box::new("on purpose")); // past the panic hook
        })
    });
    // Also while the thread is unwinding already, where a second panic would be the end of the process.
    let unwinding = catch_unwind(AssertUnwindSafe(|| {
        struct Fails(Breaker);
        impl Drop for Fails {
            fn drop(&mut self) {
                run(&self.0, Some(Outcome::Failure));
            }
        }
        let _fails = Fails(breaker.clone());
        resume_unwind(Box::new("on purpose"));
    }));
    assert!(unwinding.is_err());
    breaker.reset();
    assert_eq!(told.lock().unwrap().len(), 2, "and later ones are told as well");
}

#[test]
fn threads_that_change_it_at_once_are_told_in_order() {
    let mut told = Told::default();
    let (breaker, _hand) = breaker(|b| {
        let (builder, into) = telling(b);
        told = into;
        builder
    });
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..500 {
                    breaker.force_open();
                    breaker.reset();
                }
            });
        }
    });
    let told = told.lock().unwrap();
    assert!(told.windows(2).all(|pair| pair[0].number < pair[1].number), "in order");
    assert!(told.windows(2).all(|pair| pair[0].number + 1 < pair[1].number || pair[0].to == pair[1].from));
    assert_eq!(told.last(), breaker.events(0).last());
}
