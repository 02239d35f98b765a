//! What races may do, under the model checker: every interleaving of a few threads at one breaker, of those that switch
//! threads at most three times against their will.
//!
//! `RUSTFLAGS="--cfg swiftwater_loom" cargo test -p swiftwater-breaker --lib --release`
//!
//! The clock is core's own, which the checker does not see: it moves only where a model says so.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex as Plain,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use loom::thread;
use swiftwater_core::{Clock, Desc, Gate, Hand, Observe, Outcome, Token, Visitor};

use crate::{
    Breaker, Builder, Cause, Event, State, consecutive,
    face::{PASS, kind_of},
    failure_rate,
    threads::be_thread,
};

const BASE: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(10);

fn check(model: impl Fn() + Sync + Send + 'static) {
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        model();
    });
    let runs = runs.load(SeqCst);
    assert!(runs > 3, "nothing raced: {runs} runs");
}

/// Opened by one failure, for `BASE`.
fn breaker(adjust: impl FnOnce(Builder) -> Builder) -> (Breaker, Hand) {
    let (clock, hand) = Clock::manual();
    let builder = Breaker::builder().clock(clock).trip_when(consecutive(1)).open_for(BASE..=BASE).seed(7);
    (adjust(builder).build().expect("valid options"), hand)
}

fn half_open(adjust: fn(Builder) -> Builder) -> (Breaker, Hand) {
    let (breaker, hand) = breaker(adjust);
    fail(&breaker);
    hand.advance(BASE);
    (breaker, hand)
}

fn fail(breaker: &Breaker) {
    breaker.try_acquire().expect("admitted").finish(Outcome::Failure);
}

fn succeed(breaker: &Breaker) {
    breaker.try_acquire().expect("admitted").finish(Outcome::Success);
}

/// Runs `f` at the same breaker in another thread. Tokens, not permits: a model's threads borrow nothing.
fn spawn<T: 'static>(
    number: u32,
    breaker: &Breaker,
    f: impl FnOnce(&Breaker) -> T + 'static,
) -> thread::JoinHandle<T> {
    let breaker = breaker.clone();
    thread::spawn(move || {
        be_thread(number);
        f(&breaker)
    })
}

fn admit(breaker: &Breaker) -> Option<Token> {
    breaker.admit().ok()
}

fn counts(breaker: &Breaker) -> BTreeMap<&'static str, u64> {
    struct Counts(BTreeMap<&'static str, u64>);
    impl Visitor for Counts {
        fn counter(&mut self, desc: &'static Desc, value: u64) {
            self.0.insert(desc.name, value);
        }
        fn part(&mut self, _: &'static str, _: &dyn fmt::Display, _: &dyn Observe) {}
    }
    let mut counts = Counts(BTreeMap::new());
    breaker.observe(&mut counts);
    counts.0
}

/// Law 2 of the crate: every permit as exactly one outcome.
fn assert_accounted(breaker: &Breaker, granted: u64) {
    let counts = counts(breaker);
    let ended = ["success", "failure", "ignored", "local", "dropped", "late"];
    assert_eq!(counts["admitted"], granted);
    assert_eq!(ended.iter().map(|name| counts[name]).sum::<u64>(), granted, "{counts:?}");
}

/// From wherever it is, somebody who keeps asking is let in within open time and lease.
fn assert_no_wedge(breaker: &Breaker, hand: &Hand) {
    let asks = || admit(breaker).map(|token| breaker.settle(token, Some(Outcome::Success)));
    let wait = |by| {
        hand.advance(by);
        asks()
    };
    assert!(asks().or_else(|| wait(BASE)).or_else(|| wait(LEASE)).is_some(), "{:?}", breaker.state());
}

// --- permits

#[test]
fn racers_get_exactly_the_probe_permits_there_are() {
    check(|| {
        let (breaker, hand) = half_open(|b| b);
        let other = spawn(1, &breaker, admit);
        let mine = admit(&breaker);
        let theirs = other.join().expect("no panic");
        assert!(mine.is_some() != theirs.is_some());
        breaker.settle(mine.or(theirs).expect("one of them"), None);
        assert!(admit(&breaker).is_some(), "the permit is lost");
        assert_no_wedge(&breaker, &hand);
    });
}

#[test]
fn giving_back_and_asking_never_make_two_of_one_permit() {
    for outcome in [Some(Outcome::Ignored), None] {
        check(move || {
            let (breaker, hand) = half_open(|b| b);
            let held = admit(&breaker).expect("the permit");
            let giver = spawn(1, &breaker, move |breaker| breaker.settle(held, outcome));
            let asker = spawn(2, &breaker, admit);
            let mine = admit(&breaker);
            giver.join().expect("no panic");
            let theirs = asker.join().expect("no panic");
            assert!(mine.is_none() || theirs.is_none());
            assert_no_wedge(&breaker, &hand);
        });
    }
}

#[test]
fn the_place_of_a_hung_probe_is_taken_once_and_its_result_is_late() {
    for ends in [Some(Outcome::Success), Some(Outcome::Failure), None] {
        check(move || {
            let (breaker, hand) = half_open(|b| b.probe_lease(LEASE));
            let hung = admit(&breaker).expect("the permit");
            hand.advance(LEASE);
            let ending = spawn(1, &breaker, move |b| b.settle(hung, ends));
            let asking = spawn(2, &breaker, admit);
            let mine = admit(&breaker);
            ending.join().expect("no panic");
            let theirs = asking.join().expect("no panic");
            assert!(mine.is_some() != theirs.is_some(), "one place, taken once");
            assert_eq!(breaker.state(), State::HalfOpen);
            assert_eq!(counts(&breaker)["late"], 1);
        });
    }
}

#[test]
fn every_permit_is_accounted_for_once_whatever_the_breaker_does_meanwhile() {
    // What happens while a call succeeds by the face: the trip, the operator, the switch.
    let meanwhile: [fn(&Breaker); 4] =
        [fail, Breaker::force_closed, Breaker::reset, |b| b.set_enabled(false)];
    for (number, happens) in meanwhile.into_iter().enumerate() {
        check(move || {
            let (breaker, hand) = breaker(|b| b);
            succeed(&breaker); // this thread owns the stripe
            let held = admit(&breaker).expect("closed");
            let other = spawn(1, &breaker, happens);
            breaker.settle(held, Some(Outcome::Success));
            let admitted = admit(&breaker).is_some_and(|token| {
                let tracked = token.bits() != 0;
                breaker.settle(token, None);
                tracked
            });
            other.join().expect("no panic");
            assert_accounted(&breaker, 2 + u64::from(number == 0) + u64::from(admitted));
            breaker.set_enabled(true);
            assert_no_wedge(&breaker, &hand);
        });
    }
}

// --- late results

#[test]
fn a_straggler_that_races_the_probe_decides_nothing() {
    for (probe_ends, state) in [(Outcome::Failure, State::Open), (Outcome::Success, State::Closed)] {
        for straggler_ends in [Outcome::Failure, Outcome::Success] {
            check(move || {
                let (breaker, hand) = breaker(|b| b);
                let straggler = admit(&breaker).expect("closed");
                fail(&breaker);
                hand.advance(BASE);
                let probe = admit(&breaker).expect("a probe");
                let late = spawn(1, &breaker, move |b| b.settle(straggler, Some(straggler_ends)));
                breaker.settle(probe, Some(probe_ends));
                late.join().expect("no panic");
                assert_eq!(breaker.state(), state);
                assert_eq!(counts(&breaker)["late"], 1);
            });
        }
    }
}

/// It may have been seen as a success of its own spell, or come late; in the next one's window it is not.
#[test]
fn a_success_that_races_with_a_new_spell_does_not_count_in_its_window() {
    check(|| {
        let rate = failure_rate(0.8).over(BASE * 10).min_calls(2);
        let (breaker, hand) = breaker(|b| b.trip_when(rate));
        succeed(&breaker); // this thread owns the stripe
        let held = admit(&breaker).expect("closed");
        let other = spawn(1, &breaker, |breaker| {
            breaker.force_open();
            breaker.reset();
        });
        breaker.settle(held, Some(Outcome::Success));
        other.join().expect("no panic");
        drop(hand);
        fail(&breaker);
        assert_eq!(breaker.state(), State::Closed);
        fail(&breaker);
        assert_eq!(breaker.state(), State::Open, "two of two failed");
    });
}

#[test]
fn a_success_that_races_with_a_failure_ends_the_run_or_comes_before_it() {
    check(|| {
        let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(2)));
        succeed(&breaker);
        let (held, fails) = (admit(&breaker).expect("closed"), admit(&breaker).expect("closed"));
        let other = spawn(1, &breaker, |breaker| {
            breaker.settle(fails, Some(Outcome::Failure));
            kind_of(breaker.shared().word()) != PASS
        });
        breaker.settle(held, Some(Outcome::Success));
        let was_running = other.join().expect("no panic");
        let ended_it = kind_of(breaker.shared().word()) == PASS;
        assert!(was_running || ended_it, "the failure was not remembered");
        fail(&breaker);
        assert_eq!(breaker.state() == State::Open, !ended_it);
    });
}

// --- transitions

#[test]
fn the_deadline_is_there_before_the_state_is() {
    check(|| {
        let (breaker, hand) = breaker(|b| b);
        succeed(&breaker);
        let permit = admit(&breaker).expect("closed");
        let failing = spawn(1, &breaker, |breaker| breaker.settle(permit, Some(Outcome::Failure)));
        // By the face, without the lock.
        if let Some(rejected) = breaker.shared().refuse_at_once() {
            assert!((BASE / 2..=BASE).contains(&rejected.retry_after()), "{rejected}");
        }
        failing.join().expect("no panic");
        assert_eq!(breaker.state(), State::Open);
        drop(hand);
    });
}

#[test]
fn a_second_opening_shows_no_deadline_of_the_first() {
    check(|| {
        let (breaker, hand) = half_open(|b| b.open_for(BASE..=BASE * 100));
        let probe = admit(&breaker).expect("a probe");
        let failing = spawn(1, &breaker, |breaker| breaker.settle(probe, Some(Outcome::Failure)));
        // Full, or open again: never by the deadline that is over.
        assert!(admit(&breaker).is_none());
        failing.join().expect("no panic");
        assert!(admit(&breaker).is_none());
        drop(hand);
    });
}

#[test]
fn force_open_wins_whatever_races_it() {
    for ends in [Outcome::Failure, Outcome::Success] {
        check(move || {
            let (breaker, _hand) = half_open(|b| b);
            let probe = admit(&breaker).expect("a probe");
            let ending = spawn(1, &breaker, move |b| b.settle(probe, Some(ends)));
            let asking = spawn(2, &breaker, |breaker| {
                let token = admit(breaker)?;
                breaker.settle(token, Some(Outcome::Success));
                Some(())
            });
            breaker.force_open();
            assert!(admit(&breaker).is_none());
            ending.join().expect("no panic");
            asking.join().expect("no panic");
            assert_eq!(breaker.state(), State::ForcedOpen);
            assert!(admit(&breaker).is_none());
        });
    }
}

#[test]
fn every_transition_is_told_once_in_order_and_by_one_thread_at_a_time() {
    check(|| {
        let told = std::sync::Arc::new(Plain::new(Vec::<Event>::new()));
        let telling = std::sync::Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let (into, alone) = (told.clone(), telling.clone());
        let (breaker, _hand) = breaker(|b| {
            b.on_event(move |event| {
                use loom::sync::atomic::Ordering::Relaxed;
                assert!(!alone.swap(true, Relaxed), "two at a time");
                into.lock().expect("no panic").push(*event);
                alone.store(false, Relaxed);
            })
        });
        let other = spawn(1, &breaker, |breaker| {
            breaker.force_open();
            breaker.reset();
        });
        breaker.force_closed();
        other.join().expect("no panic");
        let told = told.lock().expect("no panic").clone();
        assert_eq!(told, breaker.events(0), "each once, and none is left");
        for (place, event) in told.iter().enumerate() {
            assert_eq!(event.number, place as u64 + 1);
            assert_eq!(event.from, if place == 0 { State::Closed } else { told[place - 1].to });
            assert_eq!(event.cause, Cause::ByHand);
        }
        assert_eq!(told.last().map(|event| event.to), Some(breaker.state()));
    });
}

// --- what healthy calls write

/// Whoever adds up sees no more than there is, and in the end all of it: while a second thread gets its own stripe.
#[test]
fn successes_of_two_threads_are_all_counted() {
    check(|| {
        let (breaker, _hand) = breaker(|b| b.trip_when(failure_rate(0.5).over(BASE * 10).min_calls(1)));
        succeed(&breaker);
        let other = spawn(1, &breaker, |breaker| (0..3).for_each(|_| succeed(breaker)));
        succeed(&breaker);
        let seen = counts(&breaker)["success"];
        assert!((2..=5).contains(&seen), "{seen}");
        other.join().expect("no panic");
        assert_eq!(counts(&breaker)["success"], 5);
        assert_accounted(&breaker, 5);
        // 4 of 9 and 5 of 10: the window has them all, too.
        (0..4).for_each(|_| fail(&breaker));
        assert_eq!(breaker.state(), State::Closed);
        fail(&breaker);
        assert_eq!(breaker.state(), State::Open);
    });
}
