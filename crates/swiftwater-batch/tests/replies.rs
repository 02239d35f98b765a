//! Law 2: a reply dropped unsent ends its call with an error; a panic, an early return or a batch that is never sealed
//! leaves nobody waiting, makes nobody panic and stops nothing.

mod common;

use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use common::*;
use swiftwater_batch::{Batch, Batcher, CallError, Handler, OpenBatch};

#[tokio::test]
async fn lost_replies_end_their_calls() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    for (step, expected) in [(Step::Lose, CallError::NoReply), (Step::Panic, CallError::HandlerPanicked)] {
        let (one, two) = (lookups.call(1), lookups.call(2));
        settle().await;
        hold.release(0, step);
        settle().await;
        assert_eq!((ready(one), ready(two)), (Err(expected), Err(expected)));
    }
    let again = lookups.call(3);
    settle().await;
    hold.answer().await;
    assert_eq!(ready(again), Ok(30), "it goes on");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    /// Answers the first item, and panics.
    AnswerOnePanic,
    DropUnsealed,
    Forget,
    PanicUnsealed,
    /// Panics before there is a future.
    PanicAtOnce,
    /// Its future is finished, and panics when it is dropped.
    PanicInDrop,
    ReturnUnsealed,
    /// Keeps the batch for later.
    Stash,
    Work,
}

#[derive(Clone, Default)]
struct Misdeeds(Arc<Mutex<Vec<Deed>>>, Arc<AtomicUsize>, Arc<Mutex<Vec<OpenBatch<u32, u32, Infallible>>>>);

struct PanicsInDrop(Option<Batch<Misdeeds>>);

impl Future for PanicsInDrop {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let batch = self.0.take().expect("polled once");
        batch.seal().into_iter().take(1).for_each(|item| item.reply.send(Ok(item.request)));
        Poll::Ready(())
    }
}

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

impl Handler for Misdeeds {
    type Request = u32;
    type Output = u32;
    type Error = Infallible;

    fn run(&self, batch: Batch<Self>) -> impl Future<Output = ()> + Send {
        self.1.fetch_add(1, SeqCst);
        let deed = self.0.lock().unwrap().pop().unwrap_or(Deed::Work);
        assert_ne!(deed, Deed::PanicAtOnce);
        let stash = self.2.clone();
        async move {
            match deed {
                Deed::AnswerOnePanic => {
                    let mut items = batch.seal().into_iter();
                    let first = items.next().unwrap();
                    first.reply.send(Ok(first.request));
                    panic!("after the first");
                }
                Deed::DropUnsealed => drop(batch),
                Deed::Forget => mem::forget(batch),
                Deed::PanicUnsealed => {
                    let _batch = batch;
                    panic!("before sealing");
                }
                Deed::PanicInDrop => PanicsInDrop(Some(batch)).await,
                Deed::PanicAtOnce => unreachable!(),
                Deed::ReturnUnsealed => {}
                Deed::Stash => stash.lock().unwrap().push(batch),
                Deed::Work => batch.seal().into_iter().for_each(|item| item.reply.send(Ok(item.request))),
            }
        }
    }
}

#[tokio::test]
async fn whatever_a_handler_does_its_callers_get_an_outcome_and_the_next_ones_an_answer() {
    for (deed, expected) in [
        (Deed::AnswerOnePanic, [Ok(1), Err(CallError::HandlerPanicked)]),
        (Deed::DropUnsealed, [Err(CallError::NoReply); 2]),
        (Deed::Forget, [Err(CallError::NoReply); 2]),
        (Deed::PanicAtOnce, [Err(CallError::HandlerPanicked); 2]),
        (Deed::PanicInDrop, [Ok(1), Err(CallError::NoReply)]),
        (Deed::PanicUnsealed, [Err(CallError::HandlerPanicked); 2]),
        (Deed::ReturnUnsealed, [Err(CallError::NoReply); 2]),
        (Deed::Stash, [Err(CallError::NoReply); 2]),
    ] {
        let misdeeds = Misdeeds::default();
        misdeeds.0.lock().unwrap().push(deed);
        let batcher = Batcher::builder(misdeeds.clone()).max_items(2).build().unwrap();
        let (one, two, next) = (batcher.call(1), batcher.call(2), batcher.call(3));
        settle().await;
        assert_eq!([ready(one), ready(two)], expected, "{deed:?}");
        assert_eq!(ready(next), Ok(3), "after {deed:?}");
        assert_eq!(misdeeds.1.load(SeqCst), 2, "{deed:?}: a run for each batch, none over and over");
        assert_eq!(reading(&batcher, "running"), 0, "{deed:?}");
        assert_eq!(reading(&batcher, "answered"), 3, "{deed:?}");
    }
}

#[tokio::test]
async fn a_batch_that_is_sealed_too_late_is_empty() {
    let misdeeds = Misdeeds::default();
    misdeeds.0.lock().unwrap().push(Deed::Stash);
    let batcher = Batcher::builder(misdeeds.clone()).build().unwrap();
    assert_eq!(batcher.call(1).await, Err(CallError::NoReply));
    let late = misdeeds.2.lock().unwrap().pop().unwrap();
    let call = batcher.call(2);
    assert!(late.seal().is_empty());
    assert_eq!(call.await, Ok(2));
}

#[tokio::test]
async fn a_reply_that_travels_ends_its_call_when_its_task_panics() {
    struct Spawns;
    impl Handler for Spawns {
        type Request = ();
        type Output = ();
        type Error = Infallible;
        async fn run(&self, batch: Batch<Self>) {
            for item in batch.seal() {
                drop(tokio::runtime::Handle::current().spawn(async move {
                    let _item = item;
                    panic!("far away");
                }));
            }
        }
    }
    let batcher = Batcher::builder(Spawns).build().unwrap();
    assert_eq!(batcher.call(()).await, Err(CallError::HandlerPanicked));
}

#[tokio::test]
async fn a_handler_may_wait_first_and_take_what_has_gathered_then() {
    struct Patient(Arc<tokio::sync::Semaphore>);
    impl Handler for Patient {
        type Request = u32;
        type Output = usize;
        type Error = Infallible;
        async fn run(&self, batch: Batch<Self>) {
            let _connection = self.0.acquire().await.unwrap();
            let items = batch.seal();
            let size = items.len();
            items.into_iter().for_each(|item| item.reply.send(Ok(size)));
        }
    }
    let connections = Arc::new(tokio::sync::Semaphore::new(0));
    let batcher = Batcher::builder(Patient(connections.clone())).in_flight(4).max_items(3).build().unwrap();
    let first = batcher.call(1);
    settle().await;
    let (second, third) = (batcher.call(2), batcher.call(3));
    settle().await;
    assert_eq!(reading(&batcher, "running"), 1, "the open batch has room for all");
    let fourth = batcher.call(4);
    settle().await;
    assert_eq!(reading(&batcher, "running"), 2);
    connections.add_permits(1);
    settle().await;
    assert_eq!([first, second, third, fourth].map(ready), [Ok(3), Ok(3), Ok(3), Ok(1)]);
}
