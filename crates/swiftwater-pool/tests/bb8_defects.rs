//! Nine ways in which the engine of bb8 0.9.1 lets its users down, each as a promise of this one.

mod common;

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, RawWaker, RawWakerVTable, Waker},
    thread,
    time::Duration,
};

use common::*;
use swiftwater_core::Backoff;
use swiftwater_pool::{Check, GetError, Guard, Pool};

/// B1: two getters have seen an empty pool and are about to wait; two connections come back in that very moment.
#[tokio::test(start_paused = true)]
async fn b1_no_wake_up_is_lost_between_looking_and_waiting() {
    let backend = Backend::new();
    let pool = builder().max_size(2).build(backend).unwrap();
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    // The waker's clone runs when the first getter has found nothing: it queues a second getter and returns both
    // connections.
    let mut second = pool.get();
    let returned = Arc::new(Mutex::new(Some((one, two))));
    let mut first = pool.get();
    {
        let inside = returned.clone();
        let act = move || {
            let Some((one, two)) = inside.lock().unwrap().take() else {
                return;
            };
            assert!(peek(&mut second).is_pending());
            drop(one);
            drop(two);
            assert!(served(&mut second).is_some());
        };
        let waker = waker_whose_clone(act);
        let first = std::pin::Pin::new(&mut first);
        let polled = Future::poll(first, &mut Context::from_waker(&waker));
        assert!(matches!(polled, Poll::Ready(Ok(_))), "a connection is idle, so nobody may wait");
    }
    assert!(returned.lock().unwrap().is_none());
    assert_eq!((pool.state().waiters, pool.state().in_use), (0, 0));
}

/// B2: one task takes and returns without a pause; another one only wants its turn.
#[tokio::test(start_paused = true)]
async fn b2_who_waits_is_served_at_the_next_return_and_nobody_overtakes() {
    let pool = builder().max_size(1).build(Backend::new()).unwrap();
    let held = pool.get().await.unwrap();
    let mut victim = queued(&pool);
    drop(held);
    // The connection belongs to the victim already, though nobody has polled it since.
    assert!(pool.try_get().is_none());
    let mut barger = queued(&pool);
    let turn = served(&mut victim).expect("served at the very next return");
    assert!(served(&mut barger).is_none());
    drop(turn);
    assert!(served(&mut barger).is_some());
}

/// B3: the liveness check hangs; whatever happens to its connection, it must not be handed out.
#[tokio::test(start_paused = true)]
async fn b3_a_connection_whose_check_was_cut_off_is_never_handed_out() {
    let backend = Backend::new();
    let pool = builder().check(Check::Always).build(backend.clone()).unwrap();
    let first = pool.get().await.unwrap().id;
    backend.always_checks(Step::Hang);
    // Three callers give up while the check hangs.
    for _ in 0..3 {
        let mut get = queued(&pool);
        settle().await;
        assert!(served(&mut get).is_none());
    }
    backend.always_checks(Step::Ok);
    let guard = pool.get().await.unwrap();
    assert_ne!(guard.id, first, "the check of that one was cut off");
    assert_eq!(backend.sockets(), 1, "the silent one is closed");
}

/// B4: connect panics a few times, then works.
#[tokio::test(start_paused = true)]
async fn b4_a_panicking_connect_costs_its_attempt_and_no_capacity() {
    let backend = Backend::new().connects([Step::Panic, Step::Panic, Step::Panic, Step::Panic]);
    let pool = builder().max_size(2).build(backend.clone()).unwrap();
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert_eq!((one.id, two.id), (0, 1));
    assert_eq!(backend.attempts(), 6);
    assert_eq!(reading(&pool, "connect_failures"), 4);
}

/// B5: connect never resolves (a frozen server); later the backend is fine.
#[tokio::test(start_paused = true)]
async fn b5_hanging_connects_are_cut_off_and_made_again() {
    let backend = Backend::new().connects([Step::Hang, Step::Hang]);
    let pool = builder()
        .max_size(2)
        .connect_timeout(millis(100))
        .backoff(Backoff::new(millis(10), millis(10)))
        .build(backend.clone())
        .unwrap();
    let (mut one, mut two) = (queued(&pool), queued(&pool));
    settle().await;
    assert_eq!((backend.connecting(), pool.state().connecting), (2, 2));
    pass(millis(120)).await;
    assert!(served(&mut one).is_some());
    assert!(served(&mut two).is_some());
    assert_eq!(backend.attempts(), 4);
}

/// B5, as it comes: one frozen attempt, and a caller with the default patience.
#[tokio::test(start_paused = true)]
async fn b5_with_default_options_a_frozen_first_attempt_is_survived() {
    let backend = Backend::new().connects([Step::Hang]);
    let pool = builder().build(backend.clone()).unwrap();
    assert!(pool.get().await.is_ok());
    assert_eq!(backend.attempts(), 2);
}

/// B6: a waiter arrives while an older attempt is about to give up; the backend comes back.
#[tokio::test(start_paused = true)]
async fn b6_whoever_waits_always_has_an_attempt_under_way_or_due() {
    let backend = Backend::new().connects([Step::Wait]);
    let pool = builder().max_size(1).build(backend.clone()).unwrap();
    let old = queued(&pool);
    settle().await;
    let mut late = queued(&pool);
    drop(old);
    backend.release(false); // the older attempt fails; all later ones work
    settle().await;
    pass(FIRST_PAUSE).await;
    assert!(served(&mut late).is_some());
}

/// B7: retrying is off and the backend refuses at once.
#[tokio::test(start_paused = true)]
async fn b7_a_refused_connect_fails_the_caller_at_once_with_the_cause() {
    let backend = Backend::new();
    backend.always_connects(Step::Fail);
    let pool = builder().retry_connection(false).build(backend.clone()).unwrap();
    let before = tokio::time::Instant::now();
    assert!(matches!(pool.get().await, Err(GetError::Connect(Refused))));
    assert_eq!(before.elapsed(), Duration::ZERO);
    // With retrying on, a short outage is waited out with jittered pauses.
    let backend = Backend::new().connects([Step::Fail]);
    let pool = builder().build(backend).unwrap();
    let before = tokio::time::Instant::now();
    assert!(pool.get().await.is_ok());
    assert!(before.elapsed() <= FIRST_PAUSE + millis(1));
}

/// B8: a guard is dropped on a plain thread, and the pool has to open another connection for a waiter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b8_a_guard_may_be_dropped_where_there_is_no_runtime() {
    let backend = Backend::new();
    let pool = Pool::builder().max_size(1).min_idle(1).build(backend.clone()).unwrap();
    let mut guard = pool.get().await.unwrap();
    let mut waiting = queued(&pool);
    guard.broken = true;
    thread::spawn(move || drop::<Guard<Backend>>(guard)).join().expect("dropping does not panic");
    assert_eq!((&mut waiting).await.unwrap().id, 1);
}

/// B9: connections of one cohort.
#[tokio::test(start_paused = true)]
async fn b9_connections_that_were_born_together_do_not_die_together() {
    let backend = Backend::new();
    let pool = builder()
        .max_size(8)
        .min_idle(8)
        .max_connecting(8)
        .idle_timeout(None)
        .max_lifetime(Duration::from_secs(1000))
        .build(backend.clone())
        .unwrap();
    settle().await;
    assert_eq!((pool.state().idle, backend.opened()), (8, 8));
    // All end between 900 and 1100 seconds; nobody would call 8 in one tick a coincidence.
    pass(Duration::from_secs(899)).await;
    assert_eq!(backend.opened(), 8);
    let mut most_at_once = 0;
    let mut before = backend.opened();
    for _ in 0..202 {
        pass(Duration::from_secs(1)).await;
        most_at_once = most_at_once.max(backend.opened() - before);
        before = backend.opened();
    }
    assert!(backend.opened() >= 16, "all have been replaced");
    assert!(most_at_once <= 4, "{most_at_once} of 8 died in one of 200 seconds");
}

type Act = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// A waker whose first clone runs `act`, as foreign code may.
fn waker_whose_clone(act: impl FnOnce() + Send + 'static) -> Waker {
    const TABLE: RawWakerVTable = RawWakerVTable::new(cloned, dropped, |_| {}, dropped);

    #[expect(unsafe_code, reason = "a clone that runs code cannot be made of `Wake`")]
    fn cloned(act: *const ()) -> RawWaker {
        // SAFETY: every waker of this table holds one count of an `Arc<Act>`, taken by `into_raw`; it is only borrowed.
        let act = std::mem::ManuallyDrop::new(unsafe { Arc::from_raw(act.cast::<Act>()) });
        if let Some(act) = act.lock().unwrap().take() {
            act();
        }
        RawWaker::new(Arc::into_raw(Arc::clone(&act)).cast(), &TABLE)
    }
    #[expect(unsafe_code, reason = "see above")]
    fn dropped(act: *const ()) {
        // SAFETY: as above; this is the count of the waker that ends here.
        drop(unsafe { Arc::from_raw(act.cast::<Act>()) });
    }

    let act: Arc<Act> = Arc::new(Mutex::new(Some(Box::new(act))));
    #[expect(unsafe_code, reason = "see above")]
    // SAFETY: the table's functions treat the pointer as the `Arc` that it comes from, whatever thread they run on:
    // `Act` is `Send` and `Sync`. The one for waking by reference does nothing; waking by value drops.
    unsafe {
        Waker::new(Arc::into_raw(act).cast(), &TABLE)
    }
}

/// The longest pause after a first failure, by default.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
