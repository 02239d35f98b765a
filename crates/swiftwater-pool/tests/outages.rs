//! What callers see, and what the backend sees, while connecting goes wrong and after.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use common::*;
use swiftwater_core::{Backoff, Outcome};
use swiftwater_pool::{Connect, GetError};

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_does_not_hold_up_the_next_one() {
    let backend = Backend::new().connects([Step::Hang, Step::Fail]);
    let pool = builder().build(backend.clone()).unwrap();
    let (mut one, mut two) = (queued(&pool), queued(&pool));
    pass(FIRST_PAUSE).await;
    assert!(served(&mut one).is_some());
    settle().await;
    assert!(served(&mut two).is_some());
    assert_eq!(backend.connecting(), 1, "it still hangs");
}

#[tokio::test(start_paused = true)]
async fn the_only_caller_left_is_not_left_to_an_attempt_that_hangs() {
    let backend = Backend::new().connects([Step::Hang, Step::Fail]);
    let pool = builder().build(backend.clone()).unwrap();
    let (mut one, two) = (queued(&pool), queued(&pool));
    settle().await;
    drop(two);
    pass(FIRST_PAUSE).await;
    assert!(served(&mut one).is_some());
}

#[tokio::test(start_paused = true)]
async fn beside_attempts_that_hang_there_is_one_at_a_time() {
    let backend = Backend::new().connects([Step::Hang, Step::Hang, Step::Fail]);
    backend.always_connects(Step::Wait);
    let pool = builder()
        .max_connecting(5)
        .connect_timeout(millis(60_000))
        .acquire_timeout(millis(60_000))
        .build(backend.clone())
        .unwrap();
    let mut gets: Vec<_> = (0..3).map(|_| queued(&pool)).collect();
    settle().await;
    gets.extend((0..7).map(|_| queued(&pool)));
    for attempts in 4..10 {
        pass(millis(1_001)).await; // the cap of the pauses
        assert_eq!((backend.attempts(), backend.connecting()), (attempts, 3));
        backend.release(false);
        settle().await;
        if attempts < 7 {
            gets.truncate(10 - attempts); // whoever waits, one prober is enough
        }
    }
}

/// Each connection is broken from the first moment on.
#[derive(Clone, Default)]
struct Stillborn {
    opened: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    healthy_from: usize,
}

impl Connect for Stillborn {
    type Connection = usize;
    type Error = Refused;

    async fn connect(&self) -> Result<usize, Refused> {
        Ok(self.opened.fetch_add(1, SeqCst))
    }

    async fn check(&self, _: &mut usize) -> Result<(), Refused> {
        Ok(())
    }

    fn is_broken(&self, id: &mut usize) -> bool {
        *id < self.healthy_from
    }

    async fn close(&self, _: usize) {
        self.closed.fetch_add(1, SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_broken_at_once_is_a_failed_attempt_and_makes_no_storm() {
    let backend = Stillborn { healthy_from: 1_000_000, ..Stillborn::default() };
    let pool = builder_of::<Stillborn>().build(backend.clone()).unwrap();
    let error = pool.get().await.unwrap_err();
    let opened = backend.opened.load(SeqCst);
    assert!((5..=100).contains(&opened), "{opened} opened for one caller in 5 s");
    assert_eq!(backend.closed.load(SeqCst), opened, "with a goodbye each");
    assert_eq!(error.outcome(), Outcome::Failure);
    assert!(error.to_string().ends_with(" ago: the new connection was broken at once"), "{error}");
    assert_eq!(reading(&pool, "connect_failures"), opened as u64);
    assert_eq!((reading(&pool, "connects"), closed(&pool)), (opened as u64, opened as u64));
}

#[tokio::test(start_paused = true)]
async fn after_connections_that_were_broken_at_once_a_good_one_serves() {
    let backend = Stillborn { healthy_from: 2, ..Stillborn::default() };
    let pool = builder_of::<Stillborn>().build(backend).unwrap();
    assert_eq!(*pool.get().await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_retrying_a_connection_that_is_broken_at_once_fails_the_caller() {
    let backend = Stillborn { healthy_from: 1, ..Stillborn::default() };
    let pool = builder_of::<Stillborn>().retry_connection(false).build(backend.clone()).unwrap();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, GetError::ConnectBroken));
    assert_eq!((error.outcome(), backend.closed.load(SeqCst)), (Outcome::Failure, 1));
    assert_eq!(error.to_string(), "a new connection was broken at once");
    assert!(pool.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_success_starts_the_pauses_anew() {
    let mut steps = vec![Step::Fail; 8];
    steps.extend([Step::Ok, Step::Fail, Step::Ok]);
    let pool = builder()
        .max_size(1)
        .acquire_timeout(millis(600_000))
        .backoff(Backoff::new(millis(100), millis(60_000)).seed(3))
        .build(Backend::new().connects(steps))
        .unwrap();
    pool.get().await.unwrap().discard();
    let before = tokio::time::Instant::now();
    assert!(pool.get().await.is_ok());
    assert!(before.elapsed() <= millis(101), "{:?}: as after a first failure", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_succeeds_ends_the_suspicion() {
    let backend = Backend::new();
    let pool = builder().build(backend.clone()).unwrap();
    drop(pool.get().await.unwrap());
    pass(millis(2_000)).await;
    backend.kill();
    drop(pool.get().await.unwrap());
    assert_eq!((backend.checked(), backend.opened()), (1, 2));
    drop(pool.get().await.unwrap());
    assert_eq!(backend.checked(), 1, "used just now, and nothing speaks against it");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_succeeds_ends_the_suspicion() {
    let backend = Backend::new();
    let pool = builder().max_size(2).build(backend.clone()).unwrap();
    drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
    pass(millis(2_000)).await;
    backend.checks([Step::Fail]);
    backend.always_connects(Step::Hang);
    drop(pool.get().await.unwrap());
    assert_eq!(backend.checked(), 2, "the other one passed");
    drop(pool.get().await.unwrap());
    assert_eq!(backend.checked(), 2, "used just now, and nothing speaks against it");
}

/// The longest pause after a first failure, by default.
const FIRST_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
