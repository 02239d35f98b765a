//! Clocks, from outside. How the coarse clock's thread parks, wakes and ends is tested beside it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use swiftwater_core::{Clock, Tick};

#[test]
fn a_manual_clock_moves_only_by_its_hand() {
    let (clock, hand) = Clock::manual();
    assert_eq!(clock.now(), Tick::from_nanos(0));
    hand.advance(Duration::from_millis(3));
    hand.clone().advance(Duration::from_nanos(1));
    assert_eq!(clock.now().as_nanos(), 3_000_001);
    assert_eq!(clock.clone().now().as_nanos(), 3_000_001);
}

#[test]
fn two_manual_clocks_are_strangers() {
    let ((one, hand), (two, _)) = (Clock::manual(), Clock::manual());
    hand.advance(Duration::from_secs(1));
    assert_eq!(one.now() - two.now(), Duration::from_secs(1));
}

#[test]
fn a_hand_stops_at_the_end_of_time_instead_of_turning_back() {
    let (clock, hand) = Clock::manual();
    hand.advance(Duration::from_secs(5));
    hand.advance(Duration::MAX);
    assert_eq!(clock.now().as_nanos(), u64::MAX);
    hand.advance(Duration::from_nanos(1));
    assert_eq!(clock.now().as_nanos(), u64::MAX);
}

#[test]
fn a_custom_clock_asks_its_function_every_time() {
    let calls = Arc::new(AtomicU64::new(0));
    let clock = {
        let calls = calls.clone();
        Clock::custom(move || Duration::from_micros(calls.fetch_add(1, Relaxed)))
    };
    assert_eq!(clock.now().as_nanos(), 0);
    assert_eq!(clock.clone().now().as_nanos(), 1_000);
    assert_eq!(calls.load(Relaxed), 2);
}

#[test]
fn a_custom_time_beyond_the_end_is_the_end() {
    assert_eq!(Clock::custom(|| Duration::MAX).now().as_nanos(), u64::MAX);
}

#[test]
fn system_and_coarse_clocks_share_an_origin_and_coarse_is_never_ahead() {
    let (system, coarse) = (Clock::system(), Clock::coarse());
    for _ in 0..10_000 {
        let before = coarse.now();
        assert!(before <= system.now());
    }
}

#[test]
fn the_default_is_the_system_clock() {
    assert_eq!(format!("{:?}", Clock::default()), "Clock::system");
}

/// Every thread compares what it reads with the latest that any thread has told of.
fn is_monotone_across_threads(clock: Clock) {
    let (latest, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let start = clock.now();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let told = latest.load(std::sync::atomic::Ordering::Acquire);
                    let now = clock.now().as_nanos();
                    assert!(now >= told, "{now} after {told}");
                    latest.fetch_max(now, std::sync::atomic::Ordering::AcqRel);
                }
            });
        }
        // Long enough for a few dozen ticks, by the clock itself: one that stood still would hang here.
        while clock.now() - start < Duration::from_millis(50) && !stop.load(Relaxed) {
            thread::yield_now();
        }
        stop.store(true, Relaxed);
    });
}

#[test]
fn the_coarse_clock_moves_and_never_goes_back_across_threads() {
    is_monotone_across_threads(Clock::coarse());
}

#[test]
fn the_system_clock_moves_and_never_goes_back_across_threads() {
    is_monotone_across_threads(Clock::system());
}

#[test]
fn the_coarse_clock_catches_up_with_the_real_one() {
    let (clock, system) = (Clock::coarse(), Clock::system());
    // Whatever the machine does: the ticker owes a tick, and the read after it is real. Hangs if the word stands still.
    for _ in 0..20 {
        let mark = system.now();
        while clock.now() < mark {
            thread::yield_now();
        }
    }
}

#[test]
fn ticks_subtract_to_zero_and_add_to_the_end() {
    let (early, late) = (Tick::from_nanos(5), Tick::from_nanos(9));
    assert_eq!(late - early, Duration::from_nanos(4));
    assert_eq!(early - late, Duration::ZERO);
    assert_eq!(early + Duration::from_nanos(4), late);
    assert_eq!(early + Duration::MAX, Tick::from_nanos(u64::MAX));
    assert!(early < late);
}
