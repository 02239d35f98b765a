//! The state under its lock, and the tasks that do what it decides.
//!
//! # Invariants
//!
//! - Nothing foreign runs under the lock: no handler, no destructor of a request, an answer, a key or a waker, no waker
//!   (not even its clone), no comparison of keys, no clock. The state collects what is to be done, and it is done after
//!   unlocking, where a panic is caught: it costs nobody else anything.
//! - A [`Runner`] and the timer notice when they are dropped by their runtime, give back what they have, and wake those who
//!   relied on them. They start nothing themselves then, or a runtime that has ended would have them do it without end.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use swiftwater_core::{Clock, Observe, Tick, Visitor};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    CallError, Item, OpenBatch, Reason, Refused, Reply,
    call::Call,
    error::Ending,
    group::{Group, Key},
    slab::Id,
    state::{Effects, Fate, Left, Look, Options, Place, Rouse, Sealed, State, Tally},
    stats::Stats,
};

pub(crate) struct Shared<R, O, E> {
    run: Run<R, O, E>,
    group: Option<Group<R>>,
    clock: Clock,
    /// For callers that have no runtime of their own.
    runtime: Option<Handle>,
    state: Mutex<State<R, O, E>>,
    stats: Stats,
    /// Rouses the timer.
    bell: Notify,
    /// The batcher is closed, and nothing will happen any more.
    drained: Notify,
    /// For the tasks.
    me: Weak<Self>,
}

/// The handler, its type erased: one box per batch.
pub(crate) type Run<R, O, E> = Box<dyn Fn(OpenBatch<R, O, E>) -> Running + Send + Sync>;
pub(crate) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A call that was let in. `stranded`: somebody has to be there first to run it, or to watch its deadline.
struct Entered {
    id: Id,
    stranded: bool,
}

/// What a [`Call`] and a [`Reply`] need, which do not name the request's type.
pub(crate) trait Desk<O, E>: Send + Sync {
    /// `fresh`: the caller knows that its waker is not stored yet.
    fn poll(&self, id: Id, fresh: bool, cx: &mut Context<'_>) -> Poll<Ending<O, E>>;

    /// The call is gone.
    fn leave(&self, id: Id);

    /// `None`: the reply was dropped.
    fn answer(&self, id: Id, outcome: Option<Ending<O, E>>);
}

impl<R: Send + 'static, O: Send + 'static, E: Send + 'static> Shared<R, O, E> {
    pub(crate) fn new(
        run: Run<R, O, E>,
        group: Option<Group<R>>,
        options: Options,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            run,
            group,
            clock,
            runtime: Handle::try_current().ok(),
            state: Mutex::new(State::new(options)),
            stats: Stats::default(),
            bell: Notify::new(),
            drained: Notify::new(),
            me: me.clone(),
        })
    }

    // ---- calls

    pub(crate) fn call(
        self: &Arc<Self>,
        request: R,
        limit: Option<Duration>,
    ) -> Result<Call<O, E>, Refused<R>> {
        let refuse = |request, reason| {
            self.stats.refused(reason);
            Refused { request, reason }
        };
        // Asked for only where it is in doubt: it costs the runtime's count.
        if self.runtime.is_none() && Handle::try_current().is_err() {
            // Closed comes first: the report of a drain counts who was refused for that.
            let closed = self.look(|state| state.admit_any(limit));
            return Err(refuse(request, closed.err().unwrap_or(Reason::NoRuntime)));
        }
        let deadline = limit.map(|limit| after(Instant::now(), limit));
        let key = self.group.as_ref().map(|group| group(&request));
        let entered = self.enter(request, key, limit, deadline);
        let Entered { id, stranded } = entered.map_err(|(request, reason)| refuse(request, reason))?;
        let call = Call::new(self.clone(), id);
        match stranded.then(|| self.take_back_if_stranded(id)).flatten() {
            None => {}
            Some(Some(request)) => {
                call.forget();
                return Err(refuse(request, Reason::NoRuntime));
            }
            // It is at work already, and only its deadline would go unwatched.
            Some(None) => self.stats.abandoned.add(1),
        }
        self.stats.calls.add(1);
        Ok(call)
    }

    /// Lets the request in, and sees to it that somebody runs it.
    fn enter(
        &self,
        request: R,
        key: Option<(u64, Key)>,
        limit: Option<Duration>,
        deadline: Option<Instant>,
    ) -> Result<Entered, (R, Reason)> {
        let now = self.clock.now();
        let (hash, mut key) = key.map_or((0, None), |(hash, key)| (hash, Some(key)));
        let mut equal = None;
        let mut past = None;
        let mut fx = Effects::new();
        // Keys are compared without the lock, so all is looked at anew afterwards.
        loop {
            let mut state = self.lock();
            if !state.is_enabled() {
                if let Err(reason) = state.admit_any(limit) {
                    return Err((request, reason));
                }
                let id = state.push_solo(request, now, deadline);
                state.settle(&mut fx);
                drop(state);
                quietly(|| drop(key));
                self.spawn_runner(Some(id));
                self.perform(fx);
                return Ok(Entered { id, stranded: true });
            }
            let place = match equal {
                Some(lane) if state.has_lane(lane) => Place::In(lane),
                Some(_) => {
                    (equal, past) = (None, None); // it was emptied meanwhile
                    continue;
                }
                None => match (state.candidate(hash, past), &key) {
                    (None, _) => Place::New,
                    (Some((lane, Some(other))), Some(own)) => {
                        drop(state);
                        *(if (**own).equals(&*other) { &mut equal } else { &mut past }) = Some(lane);
                        quietly(|| drop(other)); // perhaps the last one
                        continue;
                    }
                    (Some((lane, _)), _) => Place::In(lane), // the only one there is
                },
            };
            if let Err(reason) = state.admit(place, now, limit) {
                return Err((request, reason));
            }
            let new = if let Place::New = place { key.take() } else { None };
            let id = state.push(request, place, (hash, new), now, deadline);
            let stranded = state.is_stranded(id);
            state.settle(&mut fx);
            drop(state);
            quietly(|| drop(key)); // a panic must not cost the caller what is let in already
            self.perform(fx);
            return Ok(Entered { id, stranded });
        }
    }

    /// The request, if it has still got one, of a call that nobody would ever end. The call is gone then.
    fn take_back_if_stranded(&self, id: Id) -> Option<Option<R>> {
        let (left, fx) =
            self.decide_only(|state, _, fx| if state.is_stranded(id) { state.leave(id, fx) } else { None });
        self.perform(fx);
        let Left { request, waker, outcome: _ } = left?;
        quietly(|| drop(waker));
        Some(request)
    }

    // ---- runs

    pub(crate) fn seal(&self, run: u64) -> Vec<Item<R, O, E>> {
        let (batch, fx) = self.decide(|state, now, fx| {
            if state.has_deadlines() {
                state.expire(Instant::now(), now, fx);
            }
            state.seal(run, now, fx)
        });
        self.perform(fx);
        let Some(me) = self.me.upgrade().filter(|_| !batch.is_empty()) else { return Vec::new() };
        self.stats.batches.add(1);
        self.stats.batch_size.record(batch.len() as u64);
        let item = |Sealed { id, request, queued }| {
            self.stats.queue_time.record_duration(queued);
            Item { request, reply: Reply::new(me.clone(), id) }
        };
        batch.into_iter().map(item).collect()
    }

    // ---- the end

    pub(crate) fn close(&self) -> Tally {
        let (tally, fx) = self.decide(|state, _, _| state.close());
        self.perform(fx);
        tally
    }

    /// Until nothing will happen any more, or `limit` has passed. Returns what has happened since the start.
    pub(crate) async fn drain(&self, limit: Instant) -> Tally {
        let mut in_time = pin!(async { timeout_at(limit, self.drained()).await.is_ok() });
        // There is no question to ask whether there are timers, or whether their runtime has ended, only a panic.
        let in_time = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| in_time.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(_) => Poll::Ready(self.lock().is_drained()),
        });
        let in_time = in_time.await;
        if !in_time {
            let (abandoned, fx) = self.decide(|state, _, fx| state.abandon(fx));
            self.stats.abandoned.add(abandoned);
            self.perform(fx);
        }
        self.lock().tally
    }

    async fn drained(&self) {
        loop {
            let mut drained = pin!(self.drained.notified());
            drained.as_mut().enable(); // before looking, so that nothing is missed
            if self.look(|state| state.is_drained()) {
                return;
            }
            drained.await;
        }
    }

    // ---- options

    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut State<R, O, E>) -> T) -> T {
        look(&mut self.lock())
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State<R, O, E>)) {
        let ((), fx) = self.decide(|state, _, _| change(state));
        self.perform(fx);
    }

    // ---- private

    fn lock(&self) -> MutexGuard<'_, State<R, O, E>> {
        // The state runs no foreign code, so a panic in it would be a mistake of ours, and hiding it behind another one
        // would help nobody.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step of the state and what follows from it.
    fn decide<T>(
        &self,
        step: impl FnOnce(&mut State<R, O, E>, Tick, &mut Effects<R>) -> T,
    ) -> (T, Effects<R>) {
        let now = self.clock.now(); // a custom clock is foreign code: not under the lock
        let mut fx = Effects::new();
        let mut state = self.lock();
        let answer = step(&mut state, now, &mut fx);
        state.settle(&mut fx);
        drop(state);
        (answer, fx)
    }

    /// As [`decide`](Self::decide), where nothing must be started.
    fn decide_only<T>(
        &self,
        step: impl FnOnce(&mut State<R, O, E>, Tick, &mut Effects<R>) -> T,
    ) -> (T, Effects<R>) {
        let now = self.clock.now();
        let mut fx = Effects::new();
        let answer = step(&mut self.lock(), now, &mut fx);
        (answer, fx)
    }

    fn perform(&self, fx: Effects<R>) {
        let Effects { wake, requests, keys, expired, start, timer, drained } = fx;
        for waker in wake {
            quietly(|| waker.wake());
        }
        if expired > 0 {
            self.stats.expired.add(expired);
        }
        for _ in 0..start {
            self.spawn_runner(None);
        }
        match timer {
            Rouse::Leave => {}
            Rouse::Ring => self.bell.notify_one(),
            Rouse::Spawn => self.spawn_timer(),
        }
        if drained {
            self.drained.notify_waiters();
        }
        for request in requests {
            quietly(|| drop(request));
        }
        for key in keys {
            quietly(|| drop(key));
        }
    }

    fn spawn_runner(&self, solo: Option<Id>) {
        // Nobody can hold a reference without an `Arc` behind it.
        let Some(me) = self.me.upgrade() else { return };
        let runtime = self.runtime();
        let runner = Runner { shared: me, solo, run: None, left: false };
        if let Some(runtime) = runtime {
            drop(runtime.spawn(runner)); // dropped at once by a runtime that has ended
        }
    }

    fn spawn_timer(&self) {
        let Some(me) = self.me.upgrade() else { return };
        let watchman = Watchman { shared: me, left: false };
        let Some(runtime) = self.runtime() else { return };
        // There is no question to ask whether it has timers, only a panic.
        let timers = catch_unwind(AssertUnwindSafe(|| {
            let _entered = runtime.enter();
            drop(sleep(Duration::ZERO));
        }));
        if timers.is_ok() {
            drop(runtime.spawn(watch(watchman)));
        }
    }

    fn runtime(&self) -> Option<Handle> {
        Handle::try_current().ok().or_else(|| self.runtime.clone())
    }
}

impl<R: Send + 'static, O: Send + 'static, E: Send + 'static> Desk<O, E> for Shared<R, O, E> {
    fn poll(&self, id: Id, fresh: bool, cx: &mut Context<'_>) -> Poll<Ending<O, E>> {
        // Cloning a waker runs foreign code, so it is not done under the lock.
        let mut waker = fresh.then(|| cx.waker().clone());
        loop {
            let ((look, stranded), fx) = self.decide(|state, now, fx| {
                if state.has_deadline(id) {
                    state.expire(Instant::now(), now, fx); // the timer may be late, or gone
                }
                let stranded = state.is_stranded(id);
                let mut look = state.look(id, cx.waker());
                if matches!(look, Look::Unknown) && waker.is_some() {
                    waker = waker.take().and_then(|waker| state.set_waker(id, waker));
                    look = Look::Known;
                }
                (look, stranded)
            });
            let tried = fx.start > 0;
            self.perform(fx);
            if tried {
                self.look(|state| state.has_tried(id));
            }
            if let Look::Done(outcome) = look {
                return Poll::Ready(outcome);
            }
            if let Some(request) = stranded.then(|| self.take_back_if_stranded(id)).flatten() {
                self.stats.abandoned.add(1);
                quietly(|| drop(request));
                return Poll::Ready(Err(CallError::RuntimeEnded));
            }
            if matches!(look, Look::Known) {
                quietly(|| drop(waker)); // perhaps the last one of a task that polled before
                return Poll::Pending;
            }
            waker = Some(cx.waker().clone());
        }
    }

    fn leave(&self, id: Id) {
        let (left, fx) = self.decide_only(|state, _, fx| state.leave(id, fx));
        self.perform(fx);
        let Some(Left { request, waker, outcome }) = left else { return };
        if outcome.is_none() {
            self.stats.cancelled.add(1);
        }
        quietly(|| drop(request));
        quietly(|| drop(waker));
        quietly(|| drop(outcome));
    }

    fn answer(&self, id: Id, outcome: Option<Ending<O, E>>) {
        let unwinding = thread::panicking();
        let (answered, fx) = self.decide(|state, _, _| state.answer(id, outcome, unwinding));
        let unwanted = match answered {
            Ok(waker) => {
                self.stats.answered.add(1);
                if let Some(waker) = waker {
                    quietly(|| waker.wake());
                }
                None
            }
            Err(unwanted) => unwanted,
        };
        self.perform(fx);
        quietly(|| drop(unwanted));
    }
}

impl<R: Send + 'static, O: Send + 'static, E: Send + 'static> Observe for Shared<R, O, E> {
    fn observe(&self, visitor: &mut dyn Visitor) {
        let numbers = self.look(|state| state.numbers());
        self.stats.show(numbers, visitor);
    }
}

impl<R, O, E> fmt::Debug for Shared<R, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = state.numbers();
        drop(state);
        f.debug_struct("Batcher")
            .field("queued", &numbers.queued)
            .field("running", &numbers.running)
            .field("lanes", &numbers.lanes)
            .field("mode", &numbers.mode)
            .finish_non_exhaustive()
    }
}

/// Runs batches for as long as there are any; or one request, alone. Has a seat.
struct Runner<R: Send + 'static, O: Send + 'static, E: Send + 'static> {
    shared: Arc<Shared<R, O, E>>,
    solo: Option<Id>,
    run: Option<(u64, Running)>,
    /// The seat has been given back.
    left: bool,
}

impl<R: Send + 'static, O: Send + 'static, E: Send + 'static> Runner<R, O, E> {
    /// Lets the run end. Says whether there is to be another one.
    fn finish(&mut self, run: u64, running: Running, mut fate: Fate) -> bool {
        let shared = &self.shared;
        if fate != Fate::Returned {
            shared.look(|state| state.set_fate(run, fate));
        }
        // What the handler left in its future: replies among it, and destructors that panic.
        if !quietly(|| drop(running)) {
            fate = Fate::Panicked;
            shared.look(|state| state.set_fate(run, fate));
        }
        let solo = self.solo.is_some();
        let ((unanswered, took, stay), fx) = shared.decide(|state, now, fx| {
            let (unanswered, took) = state.end(run, now, fx);
            let stay = if solo { state.solo_ended() } else { state.stay() };
            (unanswered, took, stay)
        });
        self.left = !stay;
        match took {
            Some(took) => shared.stats.batch_time.record_duration(took),
            None => shared.stats.panicked.add(1),
        }
        if unanswered > 0 {
            shared.stats.answered.add(unanswered);
        }
        shared.perform(fx);
        stay
    }
}

impl<R: Send + 'static, O: Send + 'static, E: Send + 'static> Future for Runner<R, O, E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (run, mut running) = match this.run.take() {
            Some(begun) => begun,
            None => {
                let (run, fx) = this.shared.decide(|state, now, _| state.begin(this.solo, now));
                this.left = run.is_none();
                this.shared.perform(fx);
                let Some(run) = run else { return Poll::Ready(()) };
                (run, (this.shared.run)(OpenBatch::new(this.shared.clone(), run)))
            }
        };
        let fate = match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                this.run = Some((run, running));
                return Poll::Pending;
            }
            Ok(Poll::Ready(())) => Fate::Returned,
            Err(_) => Fate::Panicked,
        };
        if !this.finish(run, running, fate) {
            return Poll::Ready(());
        }
        // Those who were woken come first: what they ask for next may join the next batch, and a handler that never waits
        // does not keep a thread to itself.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<R: Send + 'static, O: Send + 'static, E: Send + 'static> Drop for Runner<R, O, E> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let shared = &self.shared;
        let begun = self.run.is_some();
        if let Some((run, running)) = self.run.take() {
            shared.look(|state| state.set_fate(run, Fate::CutOff));
            quietly(|| drop(running));
            let (_, fx) = shared.decide_only(|state, now, fx| state.end(run, now, fx));
            shared.perform(fx);
        }
        let ((), fx) = shared.decide_only(|state, _, fx| match self.solo {
            None => state.lose_seat(!begun, fx),
            Some(id) => state.lose_solo(id, fx),
        });
        shared.perform(fx);
    }
}

/// Ends calls at their deadlines. There is one at most, and only while there is a deadline.
async fn watch<R: Send + 'static, O: Send + 'static, E: Send + 'static>(mut watchman: Watchman<R, O, E>) {
    let shared = watchman.shared.clone();
    loop {
        let at = Instant::now();
        let (next, fx) = shared.decide(|state, now, fx| {
            state.expire(at, now, fx);
            state.arm()
        });
        watchman.left = next.is_none();
        shared.perform(fx);
        let Some(next) = next else { return };
        let _ = timeout_at(next, shared.bell.notified()).await;
    }
}

/// Notices when the timer is dropped by its runtime.
struct Watchman<R: Send + 'static, O: Send + 'static, E: Send + 'static> {
    shared: Arc<Shared<R, O, E>>,
    left: bool,
}

impl<R: Send + 'static, O: Send + 'static, E: Send + 'static> Drop for Watchman<R, O, E> {
    fn drop(&mut self) {
        if !self.left {
            let ((), fx) = self.shared.decide_only(|state, _, fx| state.lose_timer(fx));
            self.shared.perform(fx);
        }
    }
}

/// Does what may be foreign. False if it panicked.
fn quietly(foreign: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(foreign)).is_ok()
}

/// `limit` from `from`, or as good as never.
pub(crate) fn after(from: Instant, limit: Duration) -> Instant {
    from.checked_add(limit).unwrap_or_else(|| from + NEVER)
}

/// What tokio itself takes for never: thirty years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
