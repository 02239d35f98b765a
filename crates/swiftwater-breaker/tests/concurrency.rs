//! Real threads at one breaker.

mod common;

use std::{
    hint,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use common::*;
use swiftwater_breaker::{Breaker, Permit, State, consecutive, failure_rate};
use swiftwater_core::{Gate, Outcome, Pass, Reason};

const THREADS: usize = 8;

#[test]
fn handles_gates_and_permits_cross_threads() {
    fn is_send_sync<T: Send + Sync>() {}
    is_send_sync::<Breaker>();
    is_send_sync::<Permit<'static>>();
    is_send_sync::<Arc<dyn Gate>>();
}

/// In lockstep: all ask, the admitted are counted exactly, all give back in different ways.
#[test]
fn racers_get_exactly_the_probe_permits_there_are() {
    const ROUNDS: usize = 5_000;
    const PROBES: u32 = 1;
    const THREADS: usize = 3;
    let (breaker, hand) = breaker(|b| b.probes(PROBES).successes(u32::MAX));
    trip_and_wait(&breaker, &hand);
    let barrier = SpinBarrier::new(THREADS);
    let admitted = AtomicU64::new(0);
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (breaker, barrier, admitted) = (&breaker, &barrier, &admitted);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    barrier.wait();
                    let permit = breaker.try_acquire();
                    admitted.fetch_add(u64::from(permit.is_ok()), SeqCst);
                    barrier.wait();
                    assert_eq!(admitted.load(SeqCst), (round as u64 + 1) * u64::from(PROBES));
                    match permit {
                        Ok(permit) if (round + id) % 3 == 0 => permit.finish(Outcome::Ignored),
                        Ok(permit) if (round + id) % 3 == 1 => permit.finish(Outcome::Success),
                        Ok(permit) => drop(permit),
                        Err(rejected) => assert_eq!(rejected.reason(), Reason::Full),
                    }
                }
            });
        }
    });
    assert_eq!(free_permits(&breaker, 10), PROBES as usize, "none is lost");
}

/// Without lockstep: asking and giving back race one another.
#[test]
fn never_more_probes_are_out_than_there_are() {
    const ROUNDS: usize = 20_000;
    let (breaker, hand) = breaker(|b| b.probes(2).successes(u32::MAX));
    trip_and_wait(&breaker, &hand);
    let (out, admitted) = (AtomicI64::new(0), AtomicU64::new(0));
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (breaker, out, admitted, barrier) = (&breaker, &out, &admitted, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..ROUNDS {
                    let Ok(permit) = breaker.try_acquire() else { continue };
                    // Counted after asking and before giving back: never more than are really out.
                    assert!(out.fetch_add(1, SeqCst) < 2);
                    admitted.fetch_add(1, SeqCst);
                    if round % 7 == 0 {
                        thread::yield_now();
                    }
                    out.fetch_sub(1, SeqCst);
                    match (round + id) % 4 {
                        0 => permit.finish(Outcome::Ignored),
                        1 => permit.finish(Outcome::Local),
                        2 => permit.finish(Outcome::Success),
                        _ => drop(permit),
                    }
                }
            });
        }
    });
    assert_eq!(free_permits(&breaker, 10), 2, "none is lost");
    let ended: u64 =
        ["success", "ignored", "local", "dropped"].iter().map(|name| count(&breaker, name)).sum();
    // The two that were just taken and dropped, and the failures before.
    assert_eq!(ended, admitted.load(SeqCst) + 2);
    assert_eq!(count(&breaker, "late"), 0);
}

/// The deadline is there before the state is: with a clock that stands still, whoever sees it not closed sees it open,
/// and is refused.
#[test]
fn racers_at_the_trip_never_see_an_old_deadline() {
    const ROUNDS: usize = 5_000;
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
    let barrier = SpinBarrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                let permit = breaker.try_acquire().expect("closed");
                barrier.wait();
                permit.finish(Outcome::Failure);
                barrier.wait();
                breaker.reset();
            }
        });
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                barrier.wait();
                let seen = loop {
                    match breaker.state() {
                        State::Closed => hint::spin_loop(),
                        state => break state,
                    }
                };
                let admitted = breaker.try_acquire().is_ok();
                assert_eq!((seen, admitted), (State::Open, false));
                barrier.wait();
            }
        });
    });
    assert_eq!(count(&breaker, "trips"), ROUNDS as u64);
}

/// With a clock that stands still, the failures that were under way at the trip are late: they open nothing again.
#[test]
fn racing_failures_trip_once() {
    for _ in 0..300 {
        let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(3)));
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let permits: Vec<_> = (0..3).filter_map(|_| breaker.try_acquire().ok()).collect();
                    barrier.wait();
                    permits.into_iter().for_each(|permit| permit.finish(Outcome::Failure));
                });
            }
        });
        assert_eq!((count(&breaker, "trips"), count(&breaker, "failure")), (1, 3));
        assert_eq!(count(&breaker, "late"), THREADS as u64 * 3 - 3);
    }
}

#[test]
fn once_force_open_has_returned_nobody_is_admitted() {
    for _ in 0..200 {
        let (breaker, _hand) = breaker(|b| b);
        let (barrier, forced) = (Barrier::new(THREADS), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 1..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    loop {
                        let was_forced = forced.load(SeqCst);
                        let admitted = breaker.try_acquire();
                        assert!(!(was_forced && admitted.is_ok()), "admitted after force_open");
                        if let Ok(permit) = admitted {
                            permit.finish(Outcome::Success);
                        }
                        if was_forced {
                            break;
                        }
                    }
                });
            }
            barrier.wait();
            breaker.force_open();
            forced.store(true, SeqCst);
        });
    }
}

#[test]
fn every_permit_is_accounted_for_once_whatever_races() {
    const ROUNDS: usize = 5_000;
    let (breaker, hand) = breaker(|b| b.probes(2).probe_lease(BASE).trip_when(consecutive(2)));
    let admitted = AtomicU64::new(0);
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (breaker, hand, admitted) = (&breaker, &hand, &admitted);
            scope.spawn(move || {
                let gate = breaker.gate();
                let mut held = Vec::new();
                let mut random = Xorshift(id as u64 + 1);
                for round in 0..ROUNDS {
                    if let Ok(pass) = Pass::enter(gate.clone()) {
                        admitted.fetch_add(1, SeqCst);
                        held.push(pass);
                    }
                    // Random per thread, so that even threads that run one after the other trip it and are late.
                    let ended = match held.len() {
                        0 => None,
                        len => Some(held.swap_remove(random.below(len))),
                    };
                    match (random.below(12), ended) {
                        (0..2, Some(pass)) => drop(pass),
                        (2..6, Some(pass)) => pass.finish(Outcome::Success),
                        (6..10, Some(pass)) => pass.finish(Outcome::Failure),
                        (_, kept) => {
                            held.extend(kept);
                            hand.advance(BASE / 3);
                        }
                    }
                    match (id, round % 1_000) {
                        (0, 500) => breaker.force_open(),
                        (0, 501) => breaker.reset(),
                        (1, 700) => breaker.force_closed(),
                        (1, 701) => breaker.reset(),
                        _ => {}
                    }
                }
            });
        }
    });
    let ended: u64 = ["success", "failure", "ignored", "local", "dropped", "late"]
        .iter()
        .map(|name| count(&breaker, name))
        .sum();
    assert_eq!(count(&breaker, "admitted"), admitted.load(SeqCst));
    assert_eq!(ended, admitted.load(SeqCst));
    assert!(count(&breaker, "trips") > 0 && count(&breaker, "late") > 0, "the schedule was too tame");
}

/// A small generator, seeded: the threads' schedules differ, and each is the same in every run.
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Lets its threads go at the same instant; std's wakes them one after the other, and they hardly ever race.
struct SpinBarrier {
    threads: u64,
    arrived: AtomicU64,
}

impl SpinBarrier {
    fn new(threads: usize) -> Self {
        Self { threads: threads as u64, arrived: AtomicU64::new(0) }
    }

    fn wait(&self) {
        let ticket = self.arrived.fetch_add(1, SeqCst);
        let all = (ticket / self.threads + 1) * self.threads;
        let mut spins = 0;
        while self.arrived.load(SeqCst) < all {
            spins += 1;
            if spins % 1_000 == 0 {
                thread::yield_now(); // fewer processors than threads
            }
            hint::spin_loop();
        }
    }
}

/// The first has the breaker's own memory, some hundred theirs, the rest the lock.
#[test]
fn calls_of_any_number_of_threads_are_all_counted() {
    const MANY: usize = 600;
    let (breaker, _hand) = breaker(|b| b.trip_when(failure_rate(0.5)));
    let (here, done) = (Barrier::new(MANY), Barrier::new(MANY));
    thread::scope(|scope| {
        for _ in 0..MANY {
            let thread = thread::Builder::new().stack_size(64 * 1024);
            let calls = || {
                here.wait(); // all live at once, so that no number is used twice
                (0..20).for_each(|_| run(&breaker, Some(Outcome::Success)));
                done.wait();
            };
            thread.spawn_scoped(scope, calls).expect("a thread");
        }
    });
    assert_eq!((count(&breaker, "admitted"), count(&breaker, "success")), (12_000, 12_000));
    // And they are all in the window: 11,999 of 23,999 are not half.
    run_many(&breaker, Outcome::Failure, 11_999);
    assert_eq!(breaker.state(), State::Closed);
    run_many(&breaker, Outcome::Failure, 1);
    assert_eq!(breaker.state(), State::Open);
}
