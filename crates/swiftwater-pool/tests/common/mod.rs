//! A scripted backend, and the means to step through time and polls.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part")]

use std::{
    collections::VecDeque,
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use swiftwater_core::{Clock, Desc, Distribution, Knob, Observe, Tunable, Visitor};
use swiftwater_pool::{Builder, Connect, Get, GetError, Guard, Pool};
use tokio::sync::Notify;

/// What a scripted call does.
#[derive(Clone, Debug)]
pub enum Step {
    Delay(Duration),
    Fail,
    Hang,
    Ok,
    Panic,
    /// Waits for `Backend::release`, then does as told there.
    Wait,
}

/// A scripted backend: a handle, cloned freely; the pool gets one of the clones.
#[derive(Clone)]
pub struct Backend(Arc<Inner>);

#[derive(Default)]
struct Inner {
    connect: Script,
    check: Script,
    close: Script,
    is_broken_panics: AtomicBool,
    /// Connections open or being opened, as the backend sees them.
    sockets: AtomicUsize,
    most_sockets: AtomicUsize,
    connecting: AtomicUsize,
    most_connecting: AtomicUsize,
    attempts: AtomicUsize,
    opened: AtomicUsize,
    checks: AtomicUsize,
    closes: AtomicUsize,
    /// The backend is gone: every check of a connection that exists fails.
    killed: AtomicUsize,
    released: Mutex<VecDeque<bool>>,
    release: Notify,
}

struct Script {
    next: Mutex<VecDeque<Step>>,
    then: Mutex<Step>,
}

impl Default for Script {
    fn default() -> Self {
        Self { next: Mutex::default(), then: Mutex::new(Step::Ok) }
    }
}

impl Script {
    fn step(&self) -> Step {
        let next = self.next.lock().unwrap().pop_front();
        next.unwrap_or_else(|| self.then.lock().unwrap().clone())
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused by the fake")
    }
}

impl std::error::Error for Refused {}

/// A connection. Its destructor is what closes the socket.
pub struct Link {
    pub id: usize,
    pub broken: bool,
    pub panic_on_drop: bool,
    _socket: Socket,
}

/// One connection as the backend counts it, from the first packet on.
struct Socket(Arc<Inner>);

impl Socket {
    fn open(inner: &Arc<Inner>) -> Self {
        let now = inner.sockets.fetch_add(1, SeqCst) + 1;
        inner.most_sockets.fetch_max(now, SeqCst);
        Self(inner.clone())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, SeqCst);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        assert!(!self.panic_on_drop, "the destructor panics as scripted");
    }
}

struct InConnect(Arc<Inner>);

impl Drop for InConnect {
    fn drop(&mut self) {
        self.0.connecting.fetch_sub(1, SeqCst);
    }
}

impl Backend {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    pub fn connects(self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.0.connect.next.lock().unwrap().extend(steps);
        self
    }

    pub fn always_connects(&self, step: Step) {
        *self.0.connect.then.lock().unwrap() = step;
    }

    pub fn always_checks(&self, step: Step) {
        *self.0.check.then.lock().unwrap() = step;
    }

    pub fn checks(&self, steps: impl IntoIterator<Item = Step>) {
        self.0.check.next.lock().unwrap().extend(steps);
    }

    pub fn always_closes(&self, step: Step) {
        *self.0.close.then.lock().unwrap() = step;
    }

    pub fn is_broken_panics(&self, panics: bool) {
        self.0.is_broken_panics.store(panics, SeqCst);
    }

    /// One `Step::Wait` goes on, and succeeds or fails.
    pub fn release(&self, succeed: bool) {
        self.0.released.lock().unwrap().push_back(succeed);
        self.0.release.notify_waiters();
    }

    /// Every connection that exists now is dead: its check fails.
    pub fn kill(&self) {
        self.0.killed.store(self.0.opened.load(SeqCst), SeqCst);
    }

    pub fn sockets(&self) -> usize {
        self.0.sockets.load(SeqCst)
    }

    pub fn most_sockets(&self) -> usize {
        self.0.most_sockets.load(SeqCst)
    }

    pub fn connecting(&self) -> usize {
        self.0.connecting.load(SeqCst)
    }

    pub fn most_connecting(&self) -> usize {
        self.0.most_connecting.load(SeqCst)
    }

    pub fn attempts(&self) -> usize {
        self.0.attempts.load(SeqCst)
    }

    pub fn opened(&self) -> usize {
        self.0.opened.load(SeqCst)
    }

    pub fn checked(&self) -> usize {
        self.0.checks.load(SeqCst)
    }

    pub fn closed(&self) -> usize {
        self.0.closes.load(SeqCst)
    }

    async fn follow(&self, step: Step, what: &str) -> Result<(), Refused> {
        match step {
            Step::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Step::Fail => Err(Refused),
            Step::Hang => pending().await,
            Step::Ok => Ok(()),
            Step::Panic => panic!("{what} panics as scripted"),
            Step::Wait => loop {
                let mut released = std::pin::pin!(self.0.release.notified());
                released.as_mut().enable();
                if let Some(succeed) = self.0.released.lock().unwrap().pop_front() {
                    return if succeed { Ok(()) } else { Err(Refused) };
                }
                released.await;
            },
        }
    }
}

impl Connect for Backend {
    type Connection = Link;
    type Error = Refused;

    async fn connect(&self) -> Result<Link, Refused> {
        self.0.attempts.fetch_add(1, SeqCst);
        let now = self.0.connecting.fetch_add(1, SeqCst) + 1;
        self.0.most_connecting.fetch_max(now, SeqCst);
        let _in_connect = InConnect(self.0.clone());
        let socket = Socket::open(&self.0);
        self.follow(self.0.connect.step(), "connect").await?;
        Ok(Link {
            id: self.0.opened.fetch_add(1, SeqCst),
            broken: false,
            panic_on_drop: false,
            _socket: socket,
        })
    }

    async fn check(&self, link: &mut Link) -> Result<(), Refused> {
        self.0.checks.fetch_add(1, SeqCst);
        self.follow(self.0.check.step(), "check").await?;
        if link.id < self.0.killed.load(SeqCst) {
            return Err(Refused);
        }
        Ok(())
    }

    fn is_broken(&self, link: &mut Link) -> bool {
        assert!(!self.0.is_broken_panics.load(SeqCst), "is_broken panics as scripted");
        link.broken
    }

    async fn close(&self, link: Link) {
        self.0.closes.fetch_add(1, SeqCst);
        let _ = self.follow(self.0.close.step(), "close").await;
        drop(link);
    }
}

/// A clock that follows tokio's time, which tests pause.
pub fn tokio_clock() -> Clock {
    let start = tokio::time::Instant::now();
    Clock::custom(move || start.elapsed())
}

/// A builder on tokio's clock.
pub fn builder() -> Builder<Backend> {
    builder_of()
}

pub fn builder_of<C: Connect>() -> Builder<C> {
    Pool::builder().clock(tokio_clock())
}

/// Lets every task run until none can go on, in paused time: one millisecond later, nothing is pending but what waits for
/// more time or for somebody.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
    settle().await;
}

/// Polls once, with a waker that counts.
pub fn poll<F: Future + Unpin>(future: &mut F, woken: &Arc<Woken>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(woken.clone())))
}

/// Polls once, and takes no notice of wakes.
pub fn peek<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[derive(Default)]
pub struct Woken(AtomicU32);

impl Woken {
    pub fn times(&self) -> u32 {
        self.0.load(SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A `get` that is in the queue.
pub fn queued(pool: &Pool<Backend>) -> Get<Backend> {
    let mut get = pool.get();
    assert!(peek(&mut get).is_pending(), "it should have to wait");
    get
}

pub fn served<C: Connect>(get: &mut Get<C>) -> Option<Guard<C>> {
    match peek(get) {
        Poll::Ready(Ok(guard)) => Some(guard),
        Poll::Ready(Err(error)) => panic!("{error}"),
        Poll::Pending => None,
    }
}

pub fn failed<C: Connect>(get: &mut Get<C>) -> Option<GetError<C::Error>> {
    match peek(get) {
        Poll::Ready(Ok(_)) => panic!("it was served"),
        Poll::Ready(Err(error)) => Some(error),
        Poll::Pending => None,
    }
}

/// Panics inside are expected: they are caught and not printed.
pub fn quietly<R>(work: impl FnOnce() -> R) -> std::thread::Result<R> {
    catch_unwind(AssertUnwindSafe(work))
}

pub fn max_size_knob<C: Connect>(pool: &Pool<C>) -> Knob {
    let mut found = None;
    pool.knobs(&mut |knob| {
        if knob.name() == "max_size" {
            found = Some(knob);
        }
    });
    found.expect("a pool has that knob")
}

/// Reads one counter, or the count of one histogram.
pub fn reading(observed: &impl Observe, name: &'static str) -> u64 {
    struct Find {
        name: &'static str,
        found: Option<u64>,
    }
    impl Visitor for Find {
        fn counter(&mut self, desc: &'static Desc, value: u64) {
            if desc.name == self.name {
                self.found = Some(value);
            }
        }
        fn gauge(&mut self, desc: &'static Desc, value: f64) {
            if desc.name == self.name {
                self.found = Some(value as u64);
            }
        }
        fn histogram(&mut self, desc: &'static Desc, value: &dyn Distribution) {
            if desc.name == self.name {
                let mut sum = 0;
                value.buckets(&mut |_, count| sum += count);
                self.found = Some(sum);
            }
        }
        fn part(&mut self, _: &'static str, _: &dyn std::fmt::Display, _: &dyn Observe) {}
    }
    let mut find = Find { name, found: None };
    observed.observe(&mut find);
    find.found.unwrap_or_else(|| panic!("no reading named {name}"))
}

/// All that was closed, for whatever reason.
pub fn closed(observed: &impl Observe) -> u64 {
    [
        "closed_broken",
        "closed_check_failed",
        "closed_discarded",
        "closed_expired",
        "closed_idle",
        "closed_surplus",
    ]
    .into_iter()
    .map(|name| reading(observed, name))
    .sum()
}
