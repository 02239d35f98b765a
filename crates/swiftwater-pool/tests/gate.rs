//! The gate is asked before every attempt to connect, and told how it went.

mod common;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::*;
use swiftwater_core::{Backoff, Gate, Outcome, Reason, Rejected, Token};
use swiftwater_pool::GetError;

#[derive(Default)]
struct Guardian {
    answers: Mutex<VecDeque<bool>>,
    then: Mutex<bool>,
    asked: Mutex<u32>,
    told: Mutex<Vec<Option<Outcome>>>,
}

impl Guardian {
    fn new(answers: impl IntoIterator<Item = bool>, then: bool) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            then: Mutex::new(then),
            ..Self::default()
        })
    }

    fn asked(&self) -> u32 {
        *self.asked.lock().unwrap()
    }

    fn told(&self) -> Vec<Option<Outcome>> {
        self.told.lock().unwrap().clone()
    }
}

impl Gate for Guardian {
    fn admit(&self) -> Result<Token, Rejected> {
        *self.asked.lock().unwrap() += 1;
        let answer = self.answers.lock().unwrap().pop_front();
        if answer.unwrap_or_else(|| *self.then.lock().unwrap()) {
            Ok(Token::new(7))
        } else {
            Err(Rejected::new(Reason::Open, Duration::from_millis(100)))
        }
    }

    fn settle(&self, token: Token, outcome: Option<Outcome>) {
        assert_eq!(token.bits(), 7);
        self.told.lock().unwrap().push(outcome);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_told_of_success_failure_and_time_outs() {
    let backend = Backend::new().connects([Step::Fail, Step::Hang, Step::Panic]);
    let gate = Guardian::new([], true);
    let pool = builder().max_size(1).gate(gate.clone()).connect_timeout(millis(50)).build(backend).unwrap();
    drop(pool.get().await.unwrap());
    drop(pool.get().await.unwrap());
    assert_eq!(
        gate.told(),
        [Some(Outcome::Failure), Some(Outcome::Failure), Some(Outcome::Local), Some(Outcome::Success)]
    );
    assert_eq!(gate.asked(), 4, "not for the second get, which reused a connection");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_given_up_is_settled_without_a_verdict() {
    let backend = Backend::new();
    backend.always_connects(Step::Hang);
    let gate = Guardian::new([], true);
    let pool = builder().gate(gate.clone()).build(backend).unwrap();
    let _get = queued(&pool);
    settle().await;
    pool.close().await;
    assert_eq!(gate.told(), [None]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_fails_those_who_need_a_connect_at_once() {
    let backend = Backend::new();
    let gate = Guardian::new([true], false);
    let pool = builder().max_size(2).gate(gate.clone()).build(backend.clone()).unwrap();
    let held = pool.get().await.unwrap();
    let mut get = pool.get();
    let error = failed(&mut get).expect("at the first poll");
    let GetError::Rejected(rejected) = &error else { panic!("{error}") };
    assert_eq!(rejected.reason(), Reason::Open);
    assert_eq!(error.outcome(), Outcome::Local);
    drop(held);
    assert!(pool.get().await.is_ok(), "what is open is handed out without asking");
    assert_eq!((backend.attempts(), reading(&pool, "rejected")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_spares_those_for_whom_a_connection_is_under_way() {
    let backend = Backend::new();
    backend.always_connects(Step::Wait);
    // A breaker that is half-open: one probe, the rest is refused.
    let gate = Guardian::new([true], false);
    let pool = builder().gate(gate).build(backend.clone()).unwrap();
    let (mut first, mut second) = (queued(&pool), pool.get());
    assert!(matches!(failed(&mut second), Some(GetError::Rejected(_))));
    settle().await;
    backend.release(true);
    settle().await;
    assert!(served(&mut first).is_some());
}

#[tokio::test(start_paused = true)]
async fn thousands_of_waiters_may_be_refused_at_once() {
    let backend = Backend::new();
    let gate = Guardian::new([true], false);
    let pool = builder().max_size(1).gate(gate).build(backend.clone()).unwrap();
    let held = pool.get().await.unwrap();
    let mut gets: Vec<_> = (0..20_000).map(|_| queued(&pool)).collect();
    held.discard(); // the next attempt is refused, and so is the one after it, and so on
    assert_eq!(pool.state().waiters, 0);
    assert!(gets.iter_mut().all(|get| matches!(failed(get), Some(GetError::Rejected(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_reserve_is_not_asked_again_and_again() {
    let backend = Backend::new();
    let gate = Guardian::new([], false);
    let pool = builder().min_idle(2).gate(gate.clone()).build(backend.clone()).unwrap();
    pass(Duration::from_secs(10)).await;
    assert!((2..=100).contains(&gate.asked()), "asked {} times", gate.asked());
    *gate.then.lock().unwrap() = true;
    pass(Duration::from_secs(2)).await;
    assert_eq!((pool.state().idle, backend.opened()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_backoff_that_never_waits_does_not_make_the_pool_spin() {
    struct Never(Mutex<u32>);
    impl Gate for Never {
        fn admit(&self) -> Result<Token, Rejected> {
            *self.0.lock().unwrap() += 1;
            Err(Rejected::new(Reason::Full, Duration::ZERO))
        }
        fn settle(&self, _: Token, _: Option<Outcome>) {}
    }
    let gate = Arc::new(Never(Mutex::new(0)));
    let _pool = builder()
        .min_idle(1)
        .gate(gate.clone())
        .backoff(Backoff::new(Duration::ZERO, Duration::ZERO))
        .build(Backend::new())
        .unwrap();
    pass(millis(100)).await;
    let asked = *gate.0.lock().unwrap();
    assert!((2..=110).contains(&asked), "{asked} times in 100 ms");
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_panics_counts_as_a_failed_attempt() {
    struct Mad;
    impl Gate for Mad {
        fn admit(&self) -> Result<Token, Rejected> {
            panic!("the gate panics as scripted")
        }
        fn settle(&self, _: Token, _: Option<Outcome>) {}
    }
    let pool = builder().gate(Arc::new(Mad)).retry_connection(false).build(Backend::new()).unwrap();
    assert!(matches!(pool.get().await, Err(GetError::ConnectPanicked)));
    assert_eq!((pool.state().connecting, reading(&pool, "connect_failures")), (0, 1));
}

/// Two waiters, two attempts: one hangs, one fails, and from then on the gate says no.
#[tokio::test(start_paused = true)]
async fn a_refusal_beside_an_attempt_that_hangs_fails_the_waiters_and_is_asked_for_once_each() {
    let backend = Backend::new().connects([Step::Hang, Step::Fail]);
    let gate = Guardian::new([true, true], false);
    let pool = builder().gate(gate.clone()).build(backend.clone()).unwrap();
    let (mut one, mut two) = (queued(&pool), queued(&pool));
    pass(millis(100)).await;
    assert!(matches!(failed(&mut one), Some(GetError::Rejected(_))));
    assert!(matches!(failed(&mut two), Some(GetError::Rejected(_))));
    assert_eq!((gate.asked(), backend.connecting()), (4, 1));
}

/// The first answer is no, with that `retry_after`; all others are as told.
struct Later {
    asked: Mutex<u32>,
    retry_after: Duration,
    then: bool,
}

impl Gate for Later {
    fn admit(&self) -> Result<Token, Rejected> {
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        if *asked > 1 && self.then {
            Ok(Token::new(0))
        } else {
            Err(Rejected::new(Reason::Open, self.retry_after))
        }
    }

    fn settle(&self, _: Token, _: Option<Outcome>) {}
}

#[tokio::test(start_paused = true)]
async fn the_reserve_keeps_to_retry_after() {
    let gate = Arc::new(Later { asked: Mutex::new(0), retry_after: millis(1_000), then: false });
    let _pool = builder()
        .min_idle(1)
        .gate(gate.clone())
        .backoff(Backoff::new(millis(1), millis(1)))
        .build(Backend::new())
        .unwrap();
    pass(millis(10_100)).await;
    let asked = *gate.asked.lock().unwrap();
    assert!((10..=11).contains(&asked), "{asked} times in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_of_the_reserve_does_not_cost_callers_theirs() {
    // Were there no pause, all of these would be used up at once.
    let backend = Backend::new().connects(vec![Step::Fail; 50]);
    let gate = Arc::new(Later { asked: Mutex::new(0), retry_after: millis(60_000), then: true });
    let pool = builder()
        .min_idle(1)
        .gate(gate)
        .backoff(Backoff::new(millis(100), millis(100)).floor(millis(100)))
        .build(backend.clone())
        .unwrap();
    settle().await;
    assert_eq!(backend.attempts(), 0, "the reserve rests for a minute");
    let _get = queued(&pool);
    pass(millis(1_000)).await;
    assert!((5..=11).contains(&backend.attempts()), "{} attempts in 1 s", backend.attempts());
}
