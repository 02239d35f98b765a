//! A handler whose runs the test holds and releases, and the means to step through polls.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part")]

use std::{
    collections::BTreeMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use swiftwater_batch::{Batch, Batcher, Call, CallError, Handler};
use swiftwater_core::{Desc, Distribution, Knob, Observe, Tunable, Visitor};
use tokio::sync::oneshot;

pub type Lookups = Batcher<u32, u32, &'static str>;
pub type Lookup = Call<u32, &'static str>;
pub type Outcome = Result<u32, CallError<&'static str>>;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every item gets ten times its request.
    Answer,
    Fail,
    /// The replies are dropped.
    Lose,
    Panic,
}

/// A handler, and the hand that holds its runs: cloned freely.
#[derive(Clone, Default)]
pub struct Hold(Arc<Inner>);

/// The requests of a run, and what lets it end.
type Held = (Vec<u32>, oneshot::Sender<Step>);

#[derive(Default)]
struct Inner {
    held: Mutex<BTreeMap<usize, Held>>,
    /// Every batch, in the order of sealing.
    sealed: Mutex<Vec<Vec<u32>>>,
    runs: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

struct Going(Arc<Inner>);

impl Drop for Going {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Handler for Hold {
    type Request = u32;
    type Output = u32;
    type Error = &'static str;

    async fn run(&self, batch: Batch<Self>) {
        let number = self.0.runs.fetch_add(1, SeqCst);
        let running = self.0.running.fetch_add(1, SeqCst) + 1;
        self.0.most_running.fetch_max(running, SeqCst);
        let _going = Going(self.0.clone());
        let items = batch.seal();
        let ids: Vec<_> = items.iter().map(|item| item.request).collect();
        let (release, released) = oneshot::channel();
        self.0.sealed.lock().unwrap().push(ids.clone());
        self.0.held.lock().unwrap().insert(number, (ids, release));
        match released.await.expect("runs are released") {
            Step::Answer => items.into_iter().for_each(|item| item.reply.send(Ok(item.request * 10))),
            Step::Fail => items.into_iter().for_each(|item| item.reply.send(Err("as told"))),
            Step::Lose => drop(items),
            Step::Panic => panic!("as told"),
        }
    }
}

impl Hold {
    pub fn new() -> Self {
        Self::default()
    }

    /// The batches that are held, oldest first.
    pub fn held(&self) -> Vec<Vec<u32>> {
        self.0.held.lock().unwrap().values().map(|(ids, _)| ids.clone()).collect()
    }

    pub fn release(&self, which: usize, step: Step) {
        let mut held = self.0.held.lock().unwrap();
        let number = *held.keys().nth(which).expect("that many are held");
        let (_, release) = held.remove(&number).expect("looked at above");
        drop(held);
        // Never heard if the run was cut off.
        let _ = release.send(step);
    }

    /// Releases the oldest run, and lets everything happen that follows.
    pub async fn answer(&self) {
        self.release(0, Step::Answer);
        settle().await;
    }

    /// Every batch so far.
    pub fn sealed(&self) -> Vec<Vec<u32>> {
        self.0.sealed.lock().unwrap().clone()
    }

    pub fn runs(&self) -> usize {
        self.0.runs.load(SeqCst)
    }

    pub fn running(&self) -> usize {
        self.0.running.load(SeqCst)
    }

    pub fn most_running(&self) -> usize {
        self.0.most_running.load(SeqCst)
    }
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lets every task of a current-thread runtime do what it can do now.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Moves tokio's paused clock, and lets everything happen that follows.
pub async fn pass(duration: Duration) {
    tokio::time::advance(duration).await;
    settle().await;
}

pub fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The outcome, which is there.
#[track_caller]
pub fn ready<F: Future + Unpin>(mut future: F) -> F::Output {
    match poll(&mut future) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("not ready"),
    }
}

#[track_caller]
pub fn pending<F: Future + Unpin>(future: &mut F) {
    assert!(poll(future).is_pending(), "ready");
}

/// Counts its wakes.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Whether it panics, as told.
pub fn panics<T>(act: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(|| drop(act()))).is_err()
}

/// One number that a component shows: a counter, a gauge, or how many values a histogram has.
pub fn reading(component: &impl Observe, name: &str) -> u64 {
    struct Find<'a>(&'a str, Option<u64>);
    impl Visitor for Find<'_> {
        fn counter(&mut self, desc: &'static Desc, value: u64) {
            if desc.name == self.0 {
                self.1 = Some(value);
            }
        }
        fn gauge(&mut self, desc: &'static Desc, value: f64) {
            if desc.name == self.0 {
                self.1 = Some(value as u64);
            }
        }
        fn histogram(&mut self, desc: &'static Desc, value: &dyn Distribution) {
            if desc.name == self.0 {
                let mut count = 0;
                value.buckets(&mut |_, n| count += n);
                self.1 = Some(count);
            }
        }
        fn part(&mut self, _: &'static str, _: &dyn std::fmt::Display, _: &dyn Observe) {}
    }
    let mut find = Find(name, None);
    component.observe(&mut find);
    find.1.unwrap_or_else(|| panic!("no reading called {name}"))
}

pub fn knob(component: &impl Tunable, name: &str) -> Knob {
    let mut found = None;
    component.knobs(&mut |knob| {
        if knob.name() == name {
            found = Some(knob);
        }
    });
    found.unwrap_or_else(|| panic!("no knob called {name}"))
}
