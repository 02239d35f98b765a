//! The batcher is called from everywhere: handlers, destructors of requests, answers and keys, key functions, wakers.
//! Nothing deadlocks, as none of them runs under its lock.

mod common;

use std::{
    convert::Infallible,
    hash::{Hash, Hasher},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

use common::*;
use swiftwater_batch::{Batcher, Call};

type Calls = Mutex<Vec<Call<Noisy, Arc<Infallible>>>>;

/// Calls the batcher in its destructor, while `LEFT` lasts.
struct Noisy(u32);

static NOISY: OnceLock<Batcher<Noisy, Noisy, Arc<Infallible>>> = OnceLock::new();
static LEFT: AtomicU32 = AtomicU32::new(20);
static CALLS: Calls = Mutex::new(Vec::new());

impl Drop for Noisy {
    fn drop(&mut self) {
        let left = LEFT.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if let (Ok(_), Some(batcher)) = (left, NOISY.get()) {
            let call = batcher.call(Self(self.0 + 1));
            let _ = reading(batcher, "queued");
            CALLS.lock().unwrap().push(call);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn from_destructors_of_requests_and_answers() {
    let echo = |requests: Vec<Noisy>| async move {
        tokio::time::sleep(millis(10)).await;
        Ok::<_, Infallible>(requests)
    };
    let batcher = Batcher::builder(echo).max_queued(4).build();
    let batcher = NOISY.get_or_init(|| batcher.ok().unwrap());
    drop(batcher.call(Noisy(0))); // cancelled
    let running = batcher.call(Noisy(0));
    settle().await;
    drop(running); // its answer is dropped when it comes
    let _expires = batcher.with_deadline(millis(5)).call(Noisy(0));
    pass(millis(5)).await;
    pass(millis(50)).await;
    // Refused, in `call`, and answered.
    for _ in 0..10 {
        drop(batcher.call(Noisy(0)));
    }
    pass(millis(50)).await;
    while let Some(call) = { CALLS.lock().unwrap().pop() } {
        drop(call.await);
    }
    assert_eq!(LEFT.load(SeqCst), 0, "every way was gone");
    settle().await;
    assert_eq!((reading(batcher, "queued"), reading(batcher, "running")), (0, 0));
}

#[tokio::test]
async fn from_a_handler_with_room_for_another_batch() {
    static SUMS: OnceLock<Batcher<u32, u32, Infallible>> = OnceLock::new();
    let sum = |numbers: Vec<u32>| async move {
        let mut sums = Vec::new();
        for number in numbers {
            let rest = match number {
                0 => 0,
                _ => SUMS.get().unwrap().call(number - 1).await.unwrap(),
            };
            sums.push(Ok::<_, Infallible>(number + rest));
        }
        sums
    };
    let sums = SUMS.get_or_init(|| Batcher::builder(sum).in_flight(11).build().unwrap());
    assert_eq!(sums.call(10).await, Ok(55));
}

struct Nosy(u32);

static NOSY: OnceLock<Batcher<u32, u32, &'static str>> = OnceLock::new();

impl Nosy {
    fn look(&self) {
        if let Some(batcher) = NOSY.get() {
            let _ = reading(batcher, "lanes");
            batcher.set_enabled(true);
        }
    }
}

impl Hash for Nosy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.look();
        0.hash(state);
    }
}

impl PartialEq for Nosy {
    fn eq(&self, other: &Self) -> bool {
        self.look();
        self.0 == other.0
    }
}

impl Eq for Nosy {}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.look();
    }
}

#[tokio::test]
async fn from_keys() {
    let hold = Hold::new();
    let batcher = Batcher::builder(hold.clone()).group_by(|id| Nosy(id % 3)).build().unwrap();
    let batcher = NOSY.get_or_init(|| batcher);
    let calls: Vec<_> = (0..9).map(|id| batcher.call(id)).collect();
    settle().await;
    for _ in 0..3 {
        hold.answer().await;
    }
    assert!(calls.into_iter().all(|call| ready(call).is_ok()));
}

/// Calls the batcher when it is woken.
struct Eager(Lookups, Mutex<Vec<Lookup>>);

impl Wake for Eager {
    fn wake(self: Arc<Self>) {
        let call = self.0.call(100);
        self.1.lock().unwrap().push(call);
    }
}

#[tokio::test(start_paused = true)]
async fn from_wakers() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let eager = Arc::new(Eager(lookups.clone(), Mutex::new(Vec::new())));
    let waker = Waker::from(eager.clone());
    let mut answered = lookups.call(1);
    let mut expires = lookups.with_deadline(millis(5)).call(2);
    for call in [&mut answered, &mut expires] {
        assert!(Pin::new(call).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    settle().await;
    pass(millis(5)).await;
    hold.answer().await;
    hold.answer().await;
    assert_eq!(eager.1.lock().unwrap().drain(..).map(ready).collect::<Vec<_>>(), [Ok(1000), Ok(1000)]);
}
