//! What races may do, under the model checker: every interleaving of a few threads at one breaker.
//!
//! `RUSTFLAGS="--cfg swiftwater_loom" cargo test -p swiftwater-breaker --lib`

use std::time::Duration;

use loom::thread;
use swiftwater_core::{Clock, Gate, Hand, Outcome, Token};

use crate::{Breaker, Builder, State, consecutive};

const BASE: Duration = Duration::from_secs(1);

/// Opened by one failure, for `BASE`.
fn breaker(adjust: fn(Builder) -> Builder) -> (Breaker, Hand) {
    let (clock, hand) = Clock::manual();
    let builder = Breaker::builder().clock(clock).trip_when(consecutive(1)).open_for(BASE..=BASE).seed(7);
    (adjust(builder).build().expect("valid options"), hand)
}

fn half_open(adjust: fn(Builder) -> Builder) -> Breaker {
    let (breaker, hand) = breaker(adjust);
    fail(&breaker);
    hand.advance(BASE);
    breaker
}

fn fail(breaker: &Breaker) {
    breaker.try_acquire().expect("admitted").finish(Outcome::Failure);
}

/// Runs `f` at the same breaker in another thread. Tokens, not permits: a model's threads borrow nothing.
fn spawn<T: 'static>(breaker: &Breaker, f: impl FnOnce(&Breaker) -> T + 'static) -> thread::JoinHandle<T> {
    let breaker = breaker.clone();
    thread::spawn(move || f(&breaker))
}

fn admit(breaker: &Breaker) -> Option<Token> {
    breaker.admit().ok()
}

#[test]
fn racers_get_exactly_the_probe_permits_there_are() {
    loom::model(|| {
        let breaker = half_open(|b| b);
        let other = spawn(&breaker, admit);
        let mine = admit(&breaker);
        let theirs = other.join().expect("no panic");
        assert!(mine.is_some() != theirs.is_some());
        breaker.settle(mine.or(theirs).expect("one of them"), None);
        assert!(admit(&breaker).is_some(), "the permit is lost");
    });
}

#[test]
fn giving_back_and_asking_never_make_two_of_one_permit() {
    loom::model(|| {
        let breaker = half_open(|b| b);
        let held = admit(&breaker).expect("the permit");
        let giver = spawn(&breaker, |breaker| breaker.settle(held, Some(Outcome::Ignored)));
        let asker = spawn(&breaker, admit);
        let mine = admit(&breaker);
        giver.join().expect("no panic");
        let theirs = asker.join().expect("no panic");
        assert!(mine.is_none() || theirs.is_none());
    });
}

#[test]
fn the_deadline_is_there_before_the_state_is() {
    loom::model(|| {
        let (breaker, _hand) = breaker(|b| b);
        let permit = admit(&breaker).expect("closed");
        let failing = spawn(&breaker, |breaker| breaker.settle(permit, Some(Outcome::Failure)));
        let seen = breaker.state();
        if seen != State::Closed {
            assert_eq!(seen, State::Open);
            assert!(admit(&breaker).is_none());
        }
        failing.join().expect("no panic");
        assert_eq!(breaker.state(), State::Open);
    });
}

#[test]
fn a_straggler_that_races_the_probe_decides_nothing() {
    for (probe_ends, state) in [(Outcome::Failure, State::Open), (Outcome::Success, State::Closed)] {
        for straggler_ends in [Outcome::Failure, Outcome::Success] {
            loom::model(move || {
                let (breaker, hand) = breaker(|b| b);
                let straggler = admit(&breaker).expect("closed");
                fail(&breaker);
                hand.advance(BASE);
                let probe = admit(&breaker).expect("a probe");
                let late = spawn(&breaker, move |b| b.settle(straggler, Some(straggler_ends)));
                breaker.settle(probe, Some(probe_ends));
                late.join().expect("no panic");
                assert_eq!(breaker.state(), state);
            });
        }
    }
}

#[test]
fn force_open_wins_whatever_races_it() {
    for ends in [Outcome::Failure, Outcome::Success] {
        loom::model(move || {
            let breaker = half_open(|b| b);
            let probe = admit(&breaker).expect("a probe");
            let ending = spawn(&breaker, move |b| b.settle(probe, Some(ends)));
            let asking = spawn(&breaker, |breaker| {
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
