//! Panics everywhere in foreign code: the handler (see `replies.rs`), the key and its function, destructors of requests and
//! answers, wakers. Each costs at most the call in question.

mod common;

use std::{
    convert::Infallible,
    hash::{Hash, Hasher},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

use common::*;
use swiftwater_batch::{Batcher, CallError, Handler};

/// Panics in its destructor if its number is odd.
#[derive(Clone, Debug, PartialEq)]
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(self.0.is_multiple_of(2) || std::thread::panicking(), "a bomb");
    }
}

#[tokio::test(start_paused = true)]
async fn destructors_of_requests() {
    let batcher = Batcher::builder(|bombs: Vec<Bomb>| async move {
        tokio::time::sleep(millis(10)).await;
        bombs.into_iter().map(|bomb| Ok::<_, Infallible>(bomb.0)).collect::<Vec<_>>()
    })
    .max_items(2)
    .max_queued(4)
    .build()
    .unwrap();
    // In the handler: its own affair, and its batch's.
    let (odd, even) = (batcher.call(Bomb(1)), batcher.call(Bomb(2)));
    // Still in the queue: cancelled, and expired.
    drop(batcher.call(Bomb(3)));
    let expiring = batcher.with_deadline(millis(5)).call(Bomb(5));
    let after = batcher.call(Bomb(4));
    assert!(
        panics(|| batcher.call(Bomb(6)).now_or_never_refused(&batcher)),
        "a refused one is the caller's own"
    );
    assert_eq!(odd.await, Err(CallError::HandlerPanicked));
    assert_eq!(even.await, Err(CallError::HandlerPanicked));
    assert!(matches!(expiring.await, Err(CallError::Expired { .. })));
    assert_eq!(after.await, Ok(4));
    settle().await;
    assert_eq!((reading(&batcher, "queued"), reading(&batcher, "running")), (0, 0));
    assert_eq!(batcher.call(Bomb(8)).await, Ok(8));
}

trait Refuse {
    fn now_or_never_refused(self, batcher: &Batcher<Bomb, u32, Infallible>);
}

impl<C> Refuse for C {
    /// Fills the queue, and has a bomb refused.
    fn now_or_never_refused(self, batcher: &Batcher<Bomb, u32, Infallible>) {
        let _more: Vec<_> = (0..4).map(|_| batcher.call(Bomb(0))).collect();
        drop(batcher.call(Bomb(7)));
    }
}

#[tokio::test(start_paused = true)]
async fn destructors_of_answers_that_nobody_wants() {
    let batcher = Batcher::builder(|ids: Vec<u32>| async move {
        tokio::time::sleep(millis(10)).await;
        Ok::<_, Infallible>(ids.into_iter().map(Bomb).collect::<Vec<_>>())
    })
    .build()
    .unwrap();
    let mut left = batcher.call(1);
    let expired = batcher.with_deadline(millis(5)).call(3);
    let stays = batcher.call(2);
    let unread = batcher.call(5);
    pending(&mut left);
    settle().await;
    drop(left);
    assert_eq!(stays.await, Ok(Bomb(2)), "those before it in the batch harm it not");
    drop(unread); // there is an answer in it
    assert!(matches!(expired.await, Err(CallError::Expired { .. })));
    assert_eq!(reading(&batcher, "panicked"), 0);
    assert_eq!(batcher.call(4).await, Ok(Bomb(4)));
}

struct Rude(AtomicU32);

impl Wake for Rude {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
        panic!("a rude waker");
    }
}

#[tokio::test(start_paused = true)]
async fn wakers() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(3).build().unwrap();
    let rude = Arc::new(Rude(AtomicU32::new(0)));
    let waker = Waker::from(rude.clone());
    let mut calls: Vec<_> = (1..=5).map(|id| lookups.with_deadline(millis(50)).call(id)).collect();
    for call in &mut calls {
        assert!(Pin::new(call).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    settle().await;
    hold.answer().await;
    pass(millis(50)).await;
    assert_eq!(rude.0.load(SeqCst), 5, "three by their answers, two by their deadlines");
    let outcomes: Vec<_> = calls.into_iter().map(ready).collect();
    assert_eq!(outcomes[..3], [Ok(10), Ok(20), Ok(30)]);
    assert!(matches!(outcomes[3..], [Err(CallError::Expired { .. }), Err(CallError::Expired { .. })]));
    assert_eq!(reading(&lookups, "panicked"), 0);
}

/// Panics in the destructor of its last clone.
struct Sore;

impl Wake for Sore {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Sore {
    fn drop(&mut self) {
        panic!("a sore waker");
    }
}

#[tokio::test]
async fn destructors_of_wakers() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let mut calls: Vec<_> = (1..=3).map(|id| lookups.call(id)).collect();
    for call in &mut calls {
        // The only one that is left is the batcher's.
        let waker = Waker::from(Arc::new(Sore));
        assert!(Pin::new(call).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    // Somebody else polls; leaves; is answered.
    pending(&mut calls[0]);
    drop(calls.remove(1));
    settle().await;
    hold.answer().await;
    assert_eq!(calls.into_iter().map(ready).collect::<Vec<_>>(), [Ok(10), Ok(30)]);
    assert_eq!(reading(&lookups, "panicked"), 0);
}

/// Panics in `Hash` for 1, in `Eq` with 2, in its destructor for 3.
struct Key(u32);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert_ne!(self.0, 1);
        0.hash(state); // so that all are compared
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        assert!(self.0 != 2 && other.0 != 2);
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Drop for Key {
    fn drop(&mut self) {
        assert!(self.0 != 3 || std::thread::panicking());
    }
}

#[tokio::test]
async fn keys_and_their_function() {
    let hold = Hold::new();
    let group = |id: &u32| {
        assert_ne!(*id, 0);
        Key(*id % 100)
    };
    let lookups = Batcher::builder(hold.clone()).group_by(group).build().unwrap();
    let first = lookups.call(4);
    for id in [0, 1, 2] {
        assert!(panics(|| lookups.call(id)), "{id}");
    }
    let (bomb, second) = (lookups.call(3), lookups.call(104));
    // The key of a call that finds its lane is dropped when the call is let in already.
    let beside = lookups.call(103);
    settle().await;
    for _ in 0..2 {
        hold.answer().await;
    }
    assert_eq!([first, second, bomb, beside].map(ready), [Ok(40), Ok(1040), Ok(30), Ok(1030)]);
    settle().await;
    assert_eq!((reading(&lookups, "lanes"), reading(&lookups, "panicked")), (0, 0));
}

#[tokio::test]
async fn the_handler_in_its_hundredth_run() {
    let batcher = Batcher::builder(|ids: Vec<u32>| async move {
        assert_ne!(ids[0], 99);
        Ok::<_, Infallible>(ids)
    })
    .max_items(1)
    .build()
    .unwrap();
    let calls: Vec<_> = (0..200).map(|id| batcher.call(id)).collect();
    for (id, call) in (0..).zip(calls) {
        let expected = if id == 99 { Err(CallError::HandlerPanicked) } else { Ok(id) };
        assert_eq!(call.await, expected);
    }
    assert_eq!((reading(&batcher, "panicked"), reading(&batcher, "batches")), (1, 200));
}

/// A handler's own future, which panics when it is dropped at the end of its runtime, with replies in it.
#[test]
fn a_future_that_panics_when_it_is_cut_off() {
    struct Nasty;
    struct PanicsLater;
    impl Drop for PanicsLater {
        fn drop(&mut self) {
            panic!("cut off");
        }
    }
    impl Handler for Nasty {
        type Request = u32;
        type Output = u32;
        type Error = Infallible;
        async fn run(&self, batch: swiftwater_batch::Batch<Self>) {
            let _items = batch.seal();
            let _panics = PanicsLater;
            std::future::pending().await
        }
    }
    let batcher = Batcher::builder(Nasty).max_items(1).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let calls = runtime.block_on(async {
        let calls = [batcher.call(1), batcher.call(2)];
        settle().await;
        calls
    });
    drop(runtime);
    let [one, mut two] = calls;
    assert!(matches!(ready(one), Err(CallError::HandlerPanicked | CallError::RuntimeEnded)));
    assert_eq!(ready(&mut two), Err(CallError::RuntimeEnded), "nobody is there to run it");
    assert_eq!(reading(&batcher, "running"), 0);
}
