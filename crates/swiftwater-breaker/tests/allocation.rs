//! Nothing is allocated per call, whatever the rate.
#![expect(unsafe_code, reason = "counting needs an allocator")]

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt,
    future::{Future, ready},
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use common::*;
use swiftwater_breaker::{
    Breaker, Breakers, State, consecutive, failure_count, failure_rate, slow_rate, stalled, throttle,
};
use swiftwater_core::{Clock, Gate, Observe, Outcome, Pass, Visitor};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; the count is a plain thread-local that never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // `try_with`: a thread may still allocate while its locals are gone.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread in `f`.
fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

#[test]
fn the_count_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

fn every_condition() -> (Breaker, swiftwater_core::Hand) {
    let secs = Duration::from_secs;
    let trip = consecutive(5)
        .or(failure_rate(0.9).over(secs(10)).min_calls(20))
        .or(failure_rate(0.9).over_calls(100))
        .or(failure_count(1_000_000))
        .or(slow_rate(0.9, secs(1)))
        .or(stalled(secs(5)));
    breaker(|b| b.trip_when(trip).throttle(throttle(100.0)).ramp(secs(1)))
}

#[test]
fn a_closed_breaker_allocates_nothing_per_permit() {
    let (breaker, _hand) = every_condition();
    let count = allocations(|| {
        for _ in 0..1000 {
            run(&breaker, Some(Outcome::Success));
            run(&breaker, Some(Outcome::Failure));
            run(&breaker, None);
        }
    });
    assert_eq!((count, breaker.state()), (0, State::Closed));
}

#[test]
fn a_closed_breaker_allocates_nothing_per_call() {
    let (breaker, _hand) = every_condition();
    let count = allocations(|| {
        for _ in 0..1000 {
            assert!(breaker.call_sync(|| Ok::<_, ()>(1)).is_ok());
            let polled =
                pin!(breaker.call(|| ready(Ok::<_, ()>(1)))).poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_ready());
        }
    });
    assert_eq!((count, breaker.state()), (0, State::Closed));
}

#[test]
fn a_closed_breaker_allocates_nothing_per_gate_pass() {
    let (breaker, _hand) = every_condition();
    let count = allocations(|| {
        let gate = breaker.gate(); // the handle's own `Arc`
        for _ in 0..1000 {
            Pass::enter(&*gate).expect("closed").finish(Outcome::Success);
            let token = gate.admit().expect("closed");
            gate.settle(token, Some(Outcome::Success));
            Pass::enter(gate.clone()).expect("closed").finish(Outcome::Success);
        }
    });
    assert_eq!((count, breaker.state()), (0, State::Closed));
}

#[test]
fn neither_rejections_nor_probes_nor_transitions_allocate() {
    let (breaker, hand) = breaker(|b| b.probes(100));
    let cycles = |times| {
        for _ in 0..times {
            trip(&breaker);
            assert!(breaker.try_acquire().is_err());
            hand.advance(CAP);
            let probes = [(); 100].map(|()| breaker.try_acquire());
            assert!(breaker.try_acquire().is_err());
            assert!(probes.iter().all(Result::is_ok));
            drop(probes);
            run(&breaker, Some(Outcome::Success));
            assert_eq!(breaker.state(), State::Closed);
        }
        breaker.force_open();
        breaker.reset();
    };
    cycles(1); // room for the latest events and for the probes, once
    assert_eq!(allocations(|| cycles(20)), 0);
}

/// A window that kept a record per call would grow with them.
#[test]
fn the_calls_in_a_window_take_no_memory() {
    let (breaker, hand) = every_condition();
    let count = allocations(|| {
        for _ in 0..100_000 {
            run(&breaker, Some(Outcome::Success));
            hand.advance(Duration::from_micros(90));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn a_key_that_is_there_is_found_without_an_allocation() {
    let breakers: Breakers<String> = Breakers::builder(Breaker::builder()).build().expect("defaults");
    breakers.get("host:443");
    let count = allocations(|| {
        for _ in 0..1000 {
            assert!(breakers.get("host:443").call_sync(|| Ok::<_, ()>(1)).is_ok());
        }
        breakers.evict_idle();
    });
    assert_eq!(count, 0);
    struct Nothing;
    impl Visitor for Nothing {
        fn part(&mut self, _: &'static str, _: &dyn fmt::Display, inner: &dyn Observe) {
            inner.observe(&mut Self);
        }
    }
    assert_eq!(allocations(|| breakers.observe(&mut Nothing)), 0);
}

#[test]
fn observing_allocates_nothing() {
    let (breaker, _hand) = every_condition();
    assert_eq!(allocations(|| assert_eq!(reading(&breaker, "admitted"), 0.0)), 0);
}

#[test]
fn nor_does_the_default_clock() {
    let breaker = Breaker::builder().clock(Clock::system()).build().expect("defaults");
    assert_eq!(allocations(|| run_many(&breaker, Outcome::Success, 1000)), 0);
}
