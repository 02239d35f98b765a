//! What the tests share: a breaker on a manual clock, and its readings by name.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{fmt, time::Duration};

use swiftwater_breaker::{Breaker, Builder};
use swiftwater_core::{Clock, Desc, Hand, Observe, Outcome, Visitor};

pub(crate) const BASE: Duration = Duration::from_secs(1);
pub(crate) const CAP: Duration = Duration::from_secs(30);
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// What a call can end as, for the tests that try them all.
pub(crate) const OUTCOMES: [Option<Outcome>; 5] =
    [Some(Outcome::Failure), Some(Outcome::Ignored), Some(Outcome::Local), Some(Outcome::Success), None];

/// On a clock of its own, with `adjust`ed options.
pub(crate) fn breaker(adjust: impl FnOnce(Builder) -> Builder) -> (Breaker, Hand) {
    let (clock, hand) = Clock::manual();
    let builder = Breaker::builder().clock(clock).seed(7);
    (adjust(builder).build().expect("valid options"), hand)
}

/// One call from admission to end; panics if it is refused.
pub(crate) fn run(breaker: &Breaker, outcome: Option<Outcome>) {
    let permit = breaker.try_acquire().expect("admitted");
    match outcome {
        Some(outcome) => permit.finish(outcome),
        None => drop(permit),
    }
}

pub(crate) fn run_many(breaker: &Breaker, outcome: Outcome, times: u64) {
    for _ in 0..times {
        run(breaker, Some(outcome));
    }
}

/// Fails until it opens.
pub(crate) fn trip(breaker: &Breaker) {
    for _ in 0..1000 {
        match breaker.try_acquire() {
            Ok(permit) => permit.finish(Outcome::Failure),
            Err(_) => return,
        }
    }
    panic!("a thousand failures did not open it");
}

/// Fails until it opens, and lets the open time pass.
pub(crate) fn trip_and_wait(breaker: &Breaker, hand: &Hand) {
    trip(breaker);
    hand.advance(CAP);
}

/// A counter or gauge by name.
pub(crate) fn reading(breaker: &Breaker, name: &str) -> f64 {
    struct Find<'a>(&'a str, Option<f64>);
    impl Visitor for Find<'_> {
        fn counter(&mut self, desc: &'static Desc, value: u64) {
            self.gauge(desc, value as f64);
        }
        fn gauge(&mut self, desc: &'static Desc, value: f64) {
            if desc.name == self.0 {
                self.1 = Some(value);
            }
        }
        fn part(&mut self, _: &'static str, _: &dyn fmt::Display, _: &dyn Observe) {}
    }
    let mut find = Find(name, None);
    breaker.observe(&mut find);
    find.1.expect("a reading of that name")
}

pub(crate) fn count(breaker: &Breaker, name: &str) -> u64 {
    reading(breaker, name) as u64
}

/// How many permits can be held at once now; they are dropped again.
pub(crate) fn free_permits(breaker: &Breaker, at_most: usize) -> usize {
    let held: Vec<_> = (0..at_most).map_while(|_| breaker.try_acquire().ok()).collect();
    held.len()
}
