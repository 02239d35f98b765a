//! The engine under its lock, and the tasks that do what it decides.
//!
//! # Invariants
//!
//! - Nothing foreign runs under the lock: no method of the connector, no waker (not even its clone), no destructor of a
//!   connection, an error or a waker, no clock. The engine collects what is to be done, and it is done after unlocking.
//! - Every connection that is not idle, and every attempt to get one, is held by a token ([`Lease`], [`Connecting`],
//!   [`Closing`]) whose `Drop` gives the count back: on panic, on cancellation, and when a runtime drops its tasks. A
//!   runtime that has ended drops what is spawned on it at once, so the tokens learn of that as well.

use std::{
    borrow::Borrow,
    future::{Future, poll_fn},
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use swiftwater_core::{Clock, Gate, Observe, Outcome, Pass, Rejected, Tick, Visitor};
use tokio::{
    runtime::{EnterGuard, Handle},
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Check, Connect, GetError,
    engine::{Conn, Due, Effects, End, Engine, Held, Keeper, NEVER, Options, after},
    stats::{Reason, Stats},
};

pub(crate) struct Shared<C: Connect> {
    pub(crate) connector: Arc<C>,
    pub(crate) clock: Clock,
    pub(crate) stats: Stats,
    pub(crate) gate: Option<Arc<dyn Gate>>,
    runtime: Handle,
    limits: Limits,
    engine: Mutex<Engine<C::Connection, C::Error>>,
    /// Wakes the keeper.
    bell: Arc<Notify>,
    /// The pool has ended: connecting and checking give up.
    ended: Notify,
    /// The pool has ended and nothing is open any more.
    drained: Notify,
    /// For knobs, which reach us by reference.
    me: Weak<Self>,
}

/// The options that the tasks need; they never change.
struct Limits {
    acquire_timeout: Duration,
    connect_timeout: Duration,
    check_timeout: Duration,
    check: Check,
    max_lifetime: Option<Duration>,
}

type Fx<C> = Effects<<C as Connect>::Connection>;

impl<C: Connect> Shared<C> {
    pub(crate) fn start(
        connector: C,
        options: Options,
        clock: Clock,
        gate: Option<Arc<dyn Gate>>,
        runtime: Handle,
    ) -> Arc<Self> {
        let shared = Arc::new_cyclic(|me| Self {
            connector: Arc::new(connector),
            clock,
            stats: Stats::default(),
            gate,
            runtime,
            limits: Limits {
                acquire_timeout: options.acquire_timeout,
                connect_timeout: options.connect_timeout,
                check_timeout: options.check_timeout,
                check: options.check,
                max_lifetime: options.max_lifetime,
            },
            engine: Mutex::new(Engine::new(options)),
            bell: Arc::new(Notify::new()),
            ended: Notify::new(),
            drained: Notify::new(),
            me: me.clone(),
        });
        shared.change(|_, _, _| ()); // opens `min_idle`
        shared
    }

    /// One step of the engine and everything that follows from it. `step` sees the engine and the time.
    pub(crate) fn change<R>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut Engine<C::Connection, C::Error>, Tick, &mut Fx<C>) -> R,
    ) -> R {
        let (answer, fx) = self.decide(step);
        self.perform(fx);
        answer
    }

    /// The engine as it is, without a step.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Engine<C::Connection, C::Error>) -> R) -> R {
        look(&mut self.lock())
    }

    /// tokio's time, as the pool's runtime sees it (it may be paused); for deadlines only.
    pub(crate) fn deadline(&self) -> Instant {
        after(self.instant(), self.limits.acquire_timeout)
    }

    /// Whether the connector says so. A panic means yes.
    pub(crate) fn is_broken(&self, conn: &mut Conn<C::Connection>) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.connector.is_broken(&mut conn.inner))).unwrap_or(true)
    }

    pub(crate) fn end(self: &Arc<Self>, end: End) {
        self.change(|engine, _, fx| engine.end(end, fx));
    }

    pub(crate) async fn drained(&self) {
        loop {
            let mut drained = pin!(self.drained.notified());
            drained.as_mut().enable(); // before looking, so that nothing is missed
            if self.look(|engine| engine.is_empty()) {
                return;
            }
            drained.await;
        }
    }

    pub(crate) fn set_max_size(&self, max_size: u32) {
        if let Some(me) = self.me.upgrade() {
            me.change(|engine, _, _| engine.set_max_size(max_size));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Engine<C::Connection, C::Error>> {
        // The engine runs no foreign code, so a panic in it would be a mistake of ours; its tokens still count.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instant(&self) -> Instant {
        let _entered = enter(&self.runtime);
        Instant::now()
    }

    fn decide<R>(
        &self,
        step: impl FnOnce(&mut Engine<C::Connection, C::Error>, Tick, &mut Fx<C>) -> R,
    ) -> (R, Fx<C>) {
        let now = self.clock.now(); // a custom clock is foreign code: not under the lock
        let mut fx = Effects::new();
        let mut engine = self.lock();
        let answer = step(&mut engine, now, &mut fx);
        engine.balance(now, &mut fx);
        drop(engine);
        (answer, fx)
    }

    fn perform(self: &Arc<Self>, fx: Fx<C>) {
        let mut next = Some(fx);
        let mut later = Vec::new();
        // A loop, since an attempt that the gate refuses leads to the next one, for as many waiters as there are.
        while let Some(fx) = next {
            // Tokens first: from here on nothing is lost, whatever panics.
            let attempts: Vec<_> = (0..fx.connect).map(|_| Connecting::new(self)).collect();
            let checks: Vec<_> = fx.check.into_iter().map(|c| Lease::checking(self, c)).collect();
            let goodbyes: Vec<_> = fx.retire.into_iter().map(|r| (r, Closing::new(self))).collect();
            for waker in fx.wake {
                // A foreign waker that panics must not cost the others their turn.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            }
            if fx.timeouts > 0 {
                self.stats.timeouts.add(fx.timeouts);
            }
            match fx.keeper {
                Keeper::Leave => {}
                Keeper::Ring => self.bell.notify_one(),
                Keeper::Spawn => {
                    let keeper = keep(self.me.clone(), self.bell.clone(), Sentinel(Some(self.me.clone())));
                    drop(self.runtime.spawn(keeper));
                }
            }
            if fx.ended {
                self.ended.notify_waiters();
            }
            for ((conn, reason), token) in goodbyes {
                self.stats.closed(reason);
                say_goodbye(self.connector.clone(), &self.runtime, conn.inner, token);
            }
            for lease in checks {
                drop(self.runtime.spawn(check(lease)));
            }
            for attempt in attempts {
                later.extend(self.attempt(attempt));
            }
            if fx.drained {
                self.drained.notify_waiters();
            }
            next = later.pop();
        }
    }

    /// Asks the gate and connects. What follows from a refusal, or a panic of the gate, is returned.
    fn attempt(self: &Arc<Self>, token: Connecting<C>) -> Option<Fx<C>> {
        let pass = match &self.gate {
            None => None,
            Some(gate) => match catch_unwind(AssertUnwindSafe(|| Pass::enter(gate.clone()))) {
                Ok(Ok(pass)) => Some(pass),
                Ok(Err(rejected)) => return Some(token.rejected(rejected)),
                Err(_) => return Some(token.fail("the gate panicked".into(), GetError::ConnectPanicked)),
            },
        };
        drop(self.runtime.spawn(connect(token, pass)));
        None
    }

    /// `future`, unless the pool ends first.
    async fn unless_ended<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut ended = pin!(self.ended.notified());
        ended.as_mut().enable(); // before looking, so that nothing is missed
        if self.look(|engine| engine.ended().is_some()) {
            return None;
        }
        let mut future = pin!(future);
        poll_fn(|cx| match ended.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// A new connection's end of life: drawn once, so that those who were born together do not die together.
    fn expires(&self, now: Tick) -> Tick {
        let Some(lifetime) = self.limits.max_lifetime else {
            return NEVER;
        };
        let nanos = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX) / 10;
        // nine tenths to eleven tenths
        let jittered = nanos.saturating_mul(9).saturating_add(fastrand::u64(0..=nanos.saturating_mul(2)));
        now + Duration::from_nanos(jittered)
    }
}

impl<C: Connect> Observe for Shared<C> {
    fn observe(&self, visitor: &mut dyn Visitor) {
        let (state, mode) = self.look(|engine| {
            let mode = match (engine.ended(), engine.is_enabled()) {
                (Some(_), _) => "closed",
                (None, true) => "on",
                (None, false) => "off",
            };
            (engine.state(), mode)
        });
        self.stats.show(state, mode, visitor);
    }
}

/// What keeps a pool going: handles, gets and guards. The pool's own tasks do not, and end with the last of these.
pub(crate) struct Owner<C: Connect>(Arc<EndsThePool<C>>);

struct EndsThePool<C: Connect>(Arc<Shared<C>>);

impl<C: Connect> Owner<C> {
    pub(crate) fn new(shared: Arc<Shared<C>>) -> Self {
        Self(Arc::new(EndsThePool(shared)))
    }
}

impl<C: Connect> Clone for Owner<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Connect> Borrow<Arc<Shared<C>>> for Owner<C> {
    fn borrow(&self) -> &Arc<Shared<C>> {
        &self.0.0
    }
}

impl<C: Connect> Deref for Owner<C> {
    type Target = Arc<Shared<C>>;

    fn deref(&self) -> &Arc<Shared<C>> {
        &self.0.0
    }
}

impl<C: Connect> Drop for EndsThePool<C> {
    fn drop(&mut self) {
        self.0.end(End::Closed);
    }
}

/// A connection that is in use or being checked. Dropped without a word: it is discarded.
///
/// Of a user, who keeps the pool going, or of a task, which does not.
pub(crate) struct Lease<C: Connect, H: Borrow<Arc<Shared<C>>> = Arc<Shared<C>>> {
    holder: H,
    conn: Option<Conn<C::Connection>>,
    held: Held,
}

impl<C: Connect> Lease<C> {
    fn checking(shared: &Arc<Shared<C>>, conn: Conn<C::Connection>) -> Self {
        Self { holder: shared.clone(), conn: Some(conn), held: Held::Checking }
    }

    fn check_passed(mut self) {
        if let Some(conn) = self.conn.take() {
            let at = self.holder.instant();
            self.holder.change(|engine, now, fx| engine.check_passed(conn, now, at, fx));
        }
    }
}

impl<C: Connect, H: Borrow<Arc<Shared<C>>>> Lease<C, H> {
    /// Of a connection that the engine counts as lent.
    pub(crate) fn lent(holder: H, conn: Conn<C::Connection>) -> Self {
        Self { holder, conn: Some(conn), held: Held::Lent }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<C>> {
        self.holder.borrow()
    }

    pub(crate) fn conn(&self) -> &Conn<C::Connection> {
        self.conn.as_ref().expect("taken only when the lease ends")
    }

    pub(crate) fn conn_mut(&mut self) -> &mut Conn<C::Connection> {
        self.conn.as_mut().expect("taken only when the lease ends")
    }

    pub(crate) fn is_broken(&mut self) -> bool {
        let Self { holder, conn, .. } = self;
        let shared: &Arc<Shared<C>> = (*holder).borrow();
        conn.as_mut().is_some_and(|conn| shared.is_broken(conn))
    }

    /// Back to the pool, fit to be used again.
    pub(crate) fn give_back(&mut self) {
        if let Some(conn) = self.conn.take() {
            let held = self.held;
            self.shared().change(|engine, now, fx| engine.give_back(conn, held, now, fx));
        }
    }

    pub(crate) fn discard(&mut self, reason: Reason) {
        if let Some(conn) = self.conn.take() {
            let held = self.held;
            self.shared().change(|engine, _, fx| engine.discard(conn, held, reason, fx));
        }
    }
}

impl<C: Connect, H: Borrow<Arc<Shared<C>>>> Drop for Lease<C, H> {
    fn drop(&mut self) {
        self.discard(Reason::Discarded);
    }
}

/// An attempt to connect. Dropped without a word, and without a panic: the runtime has ended.
struct Connecting<C: Connect>(Option<Arc<Shared<C>>>);

impl<C: Connect> Connecting<C> {
    fn new(shared: &Arc<Shared<C>>) -> Self {
        Self(Some(shared.clone()))
    }

    fn shared(&self) -> &Arc<Shared<C>> {
        self.0.as_ref().expect("taken only when the attempt ends")
    }

    fn connected(mut self, conn: Conn<C::Connection>) {
        if let Some(shared) = self.0.take() {
            let at = shared.instant();
            shared.stats.connects.add(1);
            shared.change(|engine, now, fx| engine.connected(conn, now, at, fx));
        }
    }

    /// Opened, and of no use: a failure, or callers would open one after the other without a pause.
    fn broken(mut self, conn: Conn<C::Connection>) {
        if let Some(shared) = self.0.take() {
            let at = shared.instant();
            shared.stats.connects.add(1);
            shared.stats.connect_failures.add(1);
            shared.change(|engine, _, fx| engine.connected_broken(conn, at, fx));
        }
    }

    fn failed(self, text: Arc<str>, error: GetError<C::Error>) {
        let shared = self.shared().clone();
        let fx = self.fail(text, error);
        shared.perform(fx);
    }

    /// Returns what is to be done, for those who do it in a loop.
    fn fail(mut self, text: Arc<str>, error: GetError<C::Error>) -> Fx<C> {
        let Some(shared) = self.0.take() else {
            return Effects::new();
        };
        let at = shared.instant();
        shared.stats.connect_failures.add(1);
        let (untold, fx) = shared.decide(|engine, _, fx| engine.connect_failed(text, error, at, fx));
        // Foreign: dropped out here, and what it panics must not cost what follows from the failure.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(untold)));
        fx
    }

    /// As [`fail`](Self::fail).
    fn rejected(mut self, rejected: Rejected) -> Fx<C> {
        let Some(shared) = self.0.take() else {
            return Effects::new();
        };
        let at = shared.instant();
        let (told, fx) = shared.decide(|engine, _, fx| engine.connect_rejected(rejected, at, fx));
        shared.stats.rejected.add(told.into());
        fx
    }

    fn abandoned(mut self) {
        if let Some(shared) = self.0.take() {
            shared.change(|engine, _, _| engine.connect_abandoned());
        }
    }
}

impl<C: Connect> Drop for Connecting<C> {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        if thread::panicking() {
            // A destructor of the connector's future.
            Self(Some(shared)).failed("connecting panicked".into(), GetError::ConnectPanicked);
        } else {
            shared.change(|engine, _, fx| {
                engine.connect_abandoned();
                engine.end(End::RuntimeEnded, fx);
            });
        }
    }
}

/// A connection that is said goodbye to.
struct Closing<C: Connect> {
    shared: Arc<Shared<C>>,
    lingering: bool,
}

impl<C: Connect> Closing<C> {
    fn new(shared: &Arc<Shared<C>>) -> Self {
        Self { shared: shared.clone(), lingering: false }
    }

    /// It takes longer: from now on it stands in nobody's way.
    fn lingers(&mut self) {
        if !self.lingering {
            self.lingering = true;
            self.shared.change(|engine, _, _| engine.lingers());
        }
    }
}

impl<C: Connect> Drop for Closing<C> {
    fn drop(&mut self) {
        let lingering = self.lingering;
        self.shared.change(|engine, _, _| engine.closed(lingering));
    }
}

async fn connect<C: Connect>(token: Connecting<C>, pass: Option<Pass<Arc<dyn Gate>>>) {
    let shared = token.shared().clone();
    let limit = shared.limits.connect_timeout;
    let began = shared.clock.now();
    let work = timeout(limit, caught(async { shared.connector.connect().await }));
    let result = shared.unless_ended(work).await;
    let finish = |outcome| {
        if let Some(pass) = pass {
            // A gate that panics is not the connection's fault.
            let _ = catch_unwind(AssertUnwindSafe(|| pass.finish(outcome)));
        }
    };
    match result {
        None => token.abandoned(),
        Some(Ok(Some(Ok(connection)))) => {
            let now = shared.clock.now();
            let mut conn = Conn { inner: connection, expires: shared.expires(now), used: now };
            if shared.is_broken(&mut conn) {
                finish(Outcome::Failure);
                return token.broken(conn);
            }
            finish(Outcome::Success);
            shared.stats.connect_time.record_duration(now - began);
            token.connected(conn);
        }
        Some(Ok(Some(Err(error)))) => {
            finish(Outcome::Failure);
            let text = catch_unwind(AssertUnwindSafe(|| format!("{error:?}")));
            let text = text.unwrap_or_else(|_| "an error whose Debug panics".into());
            token.failed(text.into(), GetError::Connect(error));
        }
        Some(Ok(None)) => {
            finish(Outcome::Local);
            token.failed("connecting panicked".into(), GetError::ConnectPanicked);
        }
        Some(Err(_)) => {
            finish(Outcome::Failure);
            let text = format!("connecting took longer than {limit:?}");
            token.failed(text.into(), GetError::ConnectTimeout { limit });
        }
    }
}

async fn check<C: Connect>(mut lease: Lease<C>) {
    if lease.is_broken() {
        return lease.discard(Reason::Broken);
    }
    let shared = lease.shared().clone();
    if shared.limits.check != Check::Never {
        let conn = &mut lease.conn_mut().inner;
        let work = timeout(shared.limits.check_timeout, caught(async { shared.connector.check(conn).await }));
        match shared.unless_ended(work).await {
            Some(Ok(Some(Ok(())))) => {}
            None => return lease.discard(Reason::Surplus),
            Some(_) => return lease.discard(Reason::CheckFailed),
        }
    }
    lease.check_passed();
}

/// Looks after what only time brings: callers whose patience ends, connections that expire, attempts that are due. Runs
/// only while there is something to wait for.
async fn keep<C: Connect>(shared: Weak<Shared<C>>, bell: Arc<Notify>, sentinel: Sentinel<C>) {
    while let Some(strong) = shared.upgrade() {
        let at = strong.instant();
        let (due, fx, now) = {
            let now = strong.clock.now();
            let mut fx = Effects::new();
            let due = strong.look(|engine| engine.upkeep(now, at, &mut fx));
            (due, fx, now)
        };
        strong.perform(fx);
        drop(strong);
        let Some(Due { tick, at: deadline }) = due else {
            break;
        };
        let by_age = tick.map(|tick| after(at, tick - now));
        let Some(next) = by_age.into_iter().chain(deadline).min() else {
            break;
        };
        let _ = timeout_at(next, bell.notified()).await;
    }
    sentinel.dismiss();
}

/// Notices when the keeper is dropped by its runtime, so that nobody waits for what will never come.
struct Sentinel<C: Connect>(Option<Weak<Shared<C>>>);

impl<C: Connect> Sentinel<C> {
    fn dismiss(mut self) {
        self.0 = None;
    }
}

impl<C: Connect> Drop for Sentinel<C> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take().and_then(|shared| shared.upgrade()) {
            shared.end(End::RuntimeEnded);
        }
    }
}

/// Closes a connection: at once where the connector does not wait, else in a task.
fn say_goodbye<C: Connect>(
    connector: Arc<C>,
    runtime: &Handle,
    connection: C::Connection,
    mut token: Closing<C>,
) {
    let mut goodbye = Box::pin(async move { connector.close(connection).await });
    let first = catch_unwind(AssertUnwindSafe(|| {
        let _entered = enter(runtime);
        // A waker that does nothing is enough: a task polls again as soon as it runs.
        goodbye.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }));
    if matches!(first, Ok(Poll::Pending)) {
        token.lingers();
        drop(runtime.spawn(async move {
            let work = timeout(CLOSE_TIMEOUT, caught(goodbye));
            let _token = token; // taken last and dropped last: by then the connection is closed
            let _ = work.await;
        }));
    } else {
        // Whatever is left of it, destructors included, may panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(goodbye)));
    }
}

/// Enters, unless the thread is so far at its end that it cannot (a guard in one of its thread-locals is dropped): its
/// time is only another one where tokio's is paused.
fn enter(runtime: &Handle) -> Option<EnterGuard<'_>> {
    let ending = Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed());
    (!ending).then(|| runtime.enter())
}

/// `future`, or `None` if it panics.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// How long a connector's `close` may take before it is cut off.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
