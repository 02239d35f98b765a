//! What happens when: decisions only. No clock, lock, runtime or foreign code in here; whoever holds the lock calls, and
//! afterwards performs the [`Effects`] without it.
//!
//! # Where a connection is
//!
//! `connecting`, `checking`, `lent` (handed out, or delivered and not yet picked up) or in `idle`; then in `closing` until
//! its `close` has run up to its first await, so that a connector that just drops never has more connections than `max`.
//! The five together never exceed `max`, save after `max` was lowered, and then they only shrink. A goodbye that takes
//! longer is in `lingering`, and takes no room. Every count is given back by a token's `Drop` (see `shared.rs`).
//!
//! # Who is served
//!
//! Waiters in the order of their tickets, by whatever comes first: a returned connection, a new one, or an idle one that
//! passed its check. [`balance`](Engine::balance) runs after every change and sees to it that each waiter has something
//! on its way, as far as `max` and `max_connecting` allow.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use swiftwater_core::{Backoff, Rejected, Tick};
use tokio::time::Instant;

use crate::{
    Check, GetError, State,
    error::{Cause, LastFailure, Timeout},
    stats::Reason,
};

/// What the builder was told.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) max_size: u32,
    pub(crate) min_idle: u32,
    pub(crate) max_connecting: u32,
    pub(crate) max_waiters: Option<u32>,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) acquire_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) check_timeout: Duration,
    pub(crate) check: Check,
    pub(crate) retry: bool,
    pub(crate) backoff: Backoff,
    pub(crate) enabled: bool,
}

/// A connection and what must be known of it.
pub(crate) struct Conn<T> {
    pub(crate) inner: T,
    /// End of its lifetime, jitter included: drawn once, at birth.
    pub(crate) expires: Tick,
    /// When it was last known to work: opened, checked or returned.
    pub(crate) used: Tick,
}

pub(crate) struct Waiter {
    pub(crate) waker: Waker,
    pub(crate) deadline: Instant,
}

/// Why no connection will ever be handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    RuntimeEnded,
}

impl End {
    pub(crate) fn error<E>(self) -> GetError<E> {
        match self {
            Self::Closed => GetError::Closed,
            Self::RuntimeEnded => GetError::RuntimeEnded,
        }
    }
}

/// How a connection that is not idle counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Checking,
    Lent,
}

pub(crate) enum Take<T> {
    End(End),
    Ready(Conn<T>),
    Wait,
}

/// What is to be done once the lock is released. Nothing in here may be dropped under the lock.
pub(crate) struct Effects<T> {
    pub(crate) wake: Vec<Waker>,
    pub(crate) retire: Vec<(Conn<T>, Reason)>,
    pub(crate) check: Vec<Conn<T>>,
    /// How many connections to open; `connecting` counts them already.
    pub(crate) connect: u32,
    pub(crate) keeper: Keeper,
    /// The pool has just ended: tasks that connect or check are to give up.
    pub(crate) ended: bool,
    /// The pool has ended and its last connection is closed.
    pub(crate) drained: bool,
    pub(crate) timeouts: u64,
}

/// What the keeper task must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    Leave,
    Ring,
    Spawn,
}

impl<T> Effects<T> {
    pub(crate) fn new() -> Self {
        Self {
            wake: Vec::new(),
            retire: Vec::new(),
            check: Vec::new(),
            connect: 0,
            keeper: Keeper::Leave,
            ended: false,
            drained: false,
            timeouts: 0,
        }
    }
}

/// When the keeper has to look again: by the pool's clock, by tokio's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due {
    pub(crate) tick: Option<Tick>,
    pub(crate) at: Option<Instant>,
}

/// Connecting rests: until then, and for whom.
struct Pause {
    until: Instant,
    /// Also for waiters; otherwise only for `min_idle`.
    waiters: bool,
}

struct Failure {
    text: Arc<str>,
    at: Instant,
}

pub(crate) struct Engine<T, E> {
    options: Options,
    /// Longest unused in front; taken from the back.
    idle: VecDeque<Conn<T>>,
    /// By ticket, so the first is the oldest and leaving is cheap.
    waiting: BTreeMap<u64, Waiter>,
    /// Served, and not yet picked up.
    delivered: HashMap<u64, Result<Conn<T>, GetError<E>>>,
    next_ticket: u64,
    connecting: u32,
    checking: u32,
    lent: u32,
    closing: u32,
    lingering: u32,
    end: Option<End>,
    /// `None` while no keeper task runs; else when it will look next.
    keeper: Option<Due>,
    pause: Option<Pause>,
    /// The last attempt to connect, unless one has succeeded since.
    failure: Option<Failure>,
    /// When a connect or a check last succeeded, unless an attempt has failed since.
    alive: Option<Instant>,
    /// A check has failed and nothing has succeeded since: the idle connections are not trusted.
    suspect: bool,
    /// Attempts that were under way when the last one failed: they may hang, and must not hold up the next one.
    stale: u32,
}

impl<T, E> Engine<T, E> {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            idle: VecDeque::new(),
            waiting: BTreeMap::new(),
            delivered: HashMap::new(),
            next_ticket: 0,
            connecting: 0,
            checking: 0,
            lent: 0,
            closing: 0,
            lingering: 0,
            end: None,
            keeper: None,
            pause: None,
            failure: None,
            alive: None,
            suspect: false,
            stale: 0,
        }
    }

    /// An idle connection, if nobody waits for one. `trust`: also one that would have to be checked.
    pub(crate) fn take(&mut self, now: Tick, trust: bool, fx: &mut Effects<T>) -> Take<T> {
        if let Some(end) = self.end {
            return Take::End(end);
        }
        if !self.waiting.is_empty() {
            return Take::Wait;
        }
        while let Some(conn) = self.idle.pop_back() {
            if now >= conn.expires {
                self.retire(conn, Reason::Expired, fx);
            } else if trust || self.trusted(&conn, now) {
                self.lent += 1;
                return Take::Ready(conn);
            } else {
                self.idle.push_back(conn);
                break;
            }
        }
        Take::Wait
    }

    /// Joins the queue at its end.
    pub(crate) fn enqueue(&mut self, waiter: Waiter, fx: &mut Effects<T>) -> Result<u64, (Waiter, u32)> {
        let waiters = self.waiting.len() as u32;
        // Every place that is not lent serves one of them sooner or later; only the others wait for a return.
        let free = self.options.max_size.saturating_sub(self.lent);
        let most = self.options.max_waiters.map(|most| most.saturating_add(free));
        if most.is_some_and(|most| waiters >= most) {
            return Err((waiter, waiters));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.requeue(ticket, waiter, fx);
        Ok(ticket)
    }

    /// Takes its old place again: what was delivered was no good.
    pub(crate) fn requeue(&mut self, ticket: u64, waiter: Waiter, fx: &mut Effects<T>) {
        if let Some(end) = self.end {
            self.delivered.insert(ticket, Err(end.error()));
            fx.wake.push(waiter.waker);
            return;
        }
        let due = Due { at: Some(waiter.deadline), tick: None };
        self.arm(due, fx);
        self.waiting.insert(ticket, waiter);
    }

    pub(crate) fn pick_up(&mut self, ticket: u64) -> Option<Result<Conn<T>, GetError<E>>> {
        self.delivered.remove(&ticket)
    }

    pub(crate) fn waiter(&mut self, ticket: u64) -> Option<&mut Waiter> {
        self.waiting.get_mut(&ticket)
    }

    /// A `get` was dropped. What it leaves behind goes on to others; the rest is for the caller to drop.
    pub(crate) fn leave(
        &mut self,
        ticket: u64,
        now: Tick,
        fx: &mut Effects<T>,
    ) -> (Option<Waiter>, Option<GetError<E>>) {
        let error = match self.delivered.remove(&ticket) {
            Some(Ok(conn)) => {
                self.lent -= 1;
                if self.options.enabled {
                    self.put(conn, now, fx);
                } else {
                    self.retire(conn, Reason::Surplus, fx); // it may have been used before
                }
                None
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        (self.waiting.remove(&ticket), error)
    }

    /// A connection came back from its user or its check, fit to be used again.
    pub(crate) fn give_back(&mut self, mut conn: Conn<T>, held: Held, now: Tick, fx: &mut Effects<T>) {
        self.unhold(held);
        conn.used = now;
        if self.options.enabled {
            self.put(conn, now, fx);
        } else {
            self.retire(conn, Reason::Surplus, fx);
        }
    }

    pub(crate) fn check_passed(&mut self, conn: Conn<T>, now: Tick, at: Instant, fx: &mut Effects<T>) {
        self.alive = Some(at);
        self.suspect = false;
        self.give_back(conn, Held::Checking, now, fx);
    }

    /// A connection was held and is of no use any more.
    pub(crate) fn discard(&mut self, conn: Conn<T>, held: Held, reason: Reason, fx: &mut Effects<T>) {
        self.unhold(held);
        self.suspect |= reason == Reason::CheckFailed;
        self.retire(conn, reason, fx);
    }

    pub(crate) fn connected(&mut self, conn: Conn<T>, now: Tick, at: Instant, fx: &mut Effects<T>) {
        self.connecting -= 1;
        self.alive = Some(at);
        self.suspect = false;
        self.failure = None;
        self.pause = None;
        self.options.backoff.reset();
        self.put(conn, now, fx);
    }

    /// An attempt gave a connection that is of no use.
    pub(crate) fn connected_broken(&mut self, conn: Conn<T>, at: Instant, fx: &mut Effects<T>) {
        self.retire(conn, Reason::Broken, fx);
        let text = "the new connection was broken at once".into();
        // That error is ours, so it may be dropped under the lock.
        let _ = self.connect_failed(text, GetError::ConnectBroken, at, fx);
    }

    /// An attempt failed. Gives `error` back if nobody is to be told.
    pub(crate) fn connect_failed(
        &mut self,
        text: Arc<str>,
        error: GetError<E>,
        at: Instant,
        fx: &mut Effects<T>,
    ) -> Option<GetError<E>> {
        self.connecting -= 1;
        if self.end.is_some() {
            return Some(error);
        }
        self.stale = self.connecting;
        self.alive = None;
        self.failure = Some(Failure { text, at });
        let retry = self.options.retry;
        // One pause for all attempts that fail together; a pause for `min_idle` alone gives way.
        if self.pause.as_ref().is_none_or(|pause| retry && !pause.waiters) {
            let delay = self.options.backoff.next_delay().max(LEAST_PAUSE);
            self.rest(after(at, delay), retry, fx);
        }
        if retry {
            return Some(error);
        }
        match self.waiting.pop_first() {
            Some((ticket, waiter)) => {
                self.deliver(ticket, waiter, Err(error), fx);
                None
            }
            None => Some(error),
        }
    }

    /// The gate said no to one attempt: that fails the waiter for whom it was made, the first one behind those who have
    /// something on its way. Returns whether there was one.
    pub(crate) fn connect_rejected(&mut self, rejected: Rejected, at: Instant, fx: &mut Effects<T>) -> bool {
        self.connecting -= 1;
        let served = (self.connecting - self.hanging() + self.hopeful_checks()) as usize;
        if let Some((&ticket, _)) = self.waiting.iter().nth(served) {
            if let Some(waiter) = self.waiting.remove(&ticket) {
                self.deliver(ticket, waiter, Err(GetError::Rejected(rejected)), fx);
            }
            return true;
        }
        // Made for `min_idle`: nobody is waiting, so nobody is told; but it must not be asked again and again.
        if self.pause.is_none() {
            let delay = self.options.backoff.next_delay().max(rejected.retry_after()).max(LEAST_PAUSE);
            self.rest(after(at, delay), false, fx);
        }
        false
    }

    /// No more connections: whoever waits is told, whatever is idle is closed.
    pub(crate) fn end(&mut self, end: End, fx: &mut Effects<T>) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        fx.ended = true;
        fx.keeper = Keeper::Ring;
        for (ticket, waiter) in std::mem::take(&mut self.waiting) {
            self.deliver(ticket, waiter, Err(end.error()), fx);
        }
        while let Some(conn) = self.idle.pop_front() {
            self.retire(conn, Reason::Surplus, fx);
        }
    }

    /// The attempt to connect ended with the pool.
    pub(crate) fn connect_abandoned(&mut self) {
        self.connecting -= 1;
    }

    /// A goodbye takes longer.
    pub(crate) fn lingers(&mut self) {
        self.closing -= 1;
        self.lingering += 1;
    }

    pub(crate) fn closed(&mut self, lingering: bool) {
        if lingering {
            self.lingering -= 1;
        } else {
            self.closing -= 1;
        }
    }

    pub(crate) fn set_enabled(&mut self, enabled: bool, fx: &mut Effects<T>) {
        self.options.enabled = enabled;
        if !enabled {
            while let Some(conn) = self.idle.pop_front() {
                self.retire(conn, Reason::Surplus, fx);
            }
        }
    }

    pub(crate) fn set_max_size(&mut self, max_size: u32) {
        self.options.max_size = max_size;
    }

    /// What time has brought. Returns when to look again; `None` ends the keeper.
    pub(crate) fn upkeep(&mut self, now: Tick, at: Instant, fx: &mut Effects<T>) -> Option<Due> {
        if self.end.is_none() {
            self.time_out(at, fx);
            if self.pause.as_ref().is_some_and(|pause| pause.until <= at) {
                self.pause = None;
            }
            self.expire(now, fx);
            self.balance(now, fx);
        }
        self.keeper = self.next_due();
        fx.keeper = Keeper::Leave; // it is the keeper who asks
        self.keeper
    }

    /// After every change: sets in motion what the waiters and `min_idle` need.
    pub(crate) fn balance(&mut self, now: Tick, fx: &mut Effects<T>) {
        if self.end.is_some() {
            fx.drained |= self.is_empty();
            return;
        }
        while self.open() > self.options.max_size {
            let Some(conn) = self.idle.pop_front() else { break };
            self.retire(conn, Reason::Surplus, fx);
        }
        let waiters = self.waiting.len() as u32;
        // Idle connections beside waiters are those that must be checked first.
        if waiters > 0 && !self.idle.is_empty() {
            while self.suspect || self.checking < waiters {
                let Some(conn) = self.idle.pop_back() else { break };
                if now >= conn.expires {
                    self.retire(conn, Reason::Expired, fx);
                } else {
                    self.checking += 1;
                    fx.check.push(conn);
                }
            }
        }
        let resting = |waiters: bool| {
            let pause = self.pause.as_ref();
            pause.is_some_and(|pause| pause.waiters || !waiters)
        };
        let mut wanted = 0;
        if !resting(true) {
            wanted += waiters.saturating_sub(self.hopeful_checks());
        }
        if !resting(false) && self.options.enabled {
            wanted += self.min_idle().saturating_sub(self.idle.len() as u32);
        }
        if self.is_probing() {
            wanted = wanted.min(1) + self.hanging(); // one prober, beside those that hang
        }
        let room = self.options.max_size.saturating_sub(self.open() + self.closing);
        let start = wanted.min(self.options.max_connecting).saturating_sub(self.connecting).min(room);
        self.connecting += start;
        fx.connect += start;
    }

    pub(crate) fn state(&self) -> State {
        State {
            connecting: self.connecting,
            idle: self.idle.len() as u32,
            in_use: self.lent + self.checking,
            waiters: self.waiting.len() as u32,
            max_size: self.options.max_size,
        }
    }

    pub(crate) fn ended(&self) -> Option<End> {
        self.end
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.options.enabled
    }

    /// Nothing is open any more, nor being opened or closed.
    pub(crate) fn is_empty(&self) -> bool {
        self.open() + self.closing + self.lingering == 0
    }

    fn open(&self) -> u32 {
        self.connecting + self.checking + self.lent + self.idle.len() as u32
    }

    fn min_idle(&self) -> u32 {
        self.options.min_idle.min(self.options.max_size)
    }

    /// Checks that may serve a waiter: none once the backend is suspected of having gone, or nothing is reused.
    fn hopeful_checks(&self) -> u32 {
        if self.suspect || !self.options.enabled { 0 } else { self.checking }
    }

    /// The last attempt failed, and one at a time finds out when the backend is back.
    fn is_probing(&self) -> bool {
        self.options.retry && self.failure.is_some()
    }

    /// Attempts of which nothing is hoped any more, though they may yet succeed.
    fn hanging(&self) -> u32 {
        if self.is_probing() { self.stale.min(self.connecting) } else { 0 }
    }

    fn trusted(&self, conn: &Conn<T>, now: Tick) -> bool {
        match self.options.check {
            Check::Always => false,
            Check::IdleFor(limit) => !self.suspect && now - conn.used < limit,
            Check::Never => true,
        }
    }

    fn unhold(&mut self, held: Held) {
        match held {
            Held::Checking => self.checking -= 1,
            Held::Lent => self.lent -= 1,
        }
    }

    /// To the oldest waiter, else to the idle ones, else out.
    fn put(&mut self, conn: Conn<T>, now: Tick, fx: &mut Effects<T>) {
        if self.end.is_some() || self.open() >= self.options.max_size {
            self.retire(conn, Reason::Surplus, fx);
        } else if now >= conn.expires {
            self.retire(conn, Reason::Expired, fx);
        } else if let Some((ticket, waiter)) = self.waiting.pop_first() {
            self.lent += 1;
            self.deliver(ticket, waiter, Ok(conn), fx);
        } else if self.options.enabled {
            let mut tick = conn.expires;
            if let Some(limit) = self.options.idle_timeout {
                tick = tick.min(conn.used + limit);
            }
            self.idle.push_back(conn);
            if tick < NEVER {
                let due = Due { tick: Some(tick), at: None };
                self.arm(due, fx);
            }
        } else {
            self.retire(conn, Reason::Surplus, fx);
        }
    }

    fn deliver(
        &mut self,
        ticket: u64,
        waiter: Waiter,
        what: Result<Conn<T>, GetError<E>>,
        fx: &mut Effects<T>,
    ) {
        self.delivered.insert(ticket, what);
        fx.wake.push(waiter.waker);
    }

    fn retire(&mut self, conn: Conn<T>, reason: Reason, fx: &mut Effects<T>) {
        self.closing += 1;
        fx.retire.push((conn, reason));
    }

    fn rest(&mut self, until: Instant, waiters: bool, fx: &mut Effects<T>) {
        self.pause = Some(Pause { until, waiters });
        let due = Due { at: Some(until), tick: None };
        self.arm(due, fx);
    }

    /// The keeper must look at `due` at the latest.
    fn arm(&mut self, due: Due, fx: &mut Effects<T>) {
        let Some(planned) = &mut self.keeper else {
            self.keeper = Some(due);
            fx.keeper = Keeper::Spawn;
            return;
        };
        let mut sooner = false;
        if due.tick.is_some_and(|due| planned.tick.is_none_or(|tick| due < tick)) {
            planned.tick = due.tick;
            sooner = true;
        }
        if due.at.is_some_and(|due| planned.at.is_none_or(|at| due < at)) {
            planned.at = due.at;
            sooner = true;
        }
        if sooner && fx.keeper == Keeper::Leave {
            fx.keeper = Keeper::Ring;
        }
    }

    fn next_due(&self) -> Option<Due> {
        if self.end.is_some() {
            return None;
        }
        let first = self.waiting.first_key_value().map(|(_, waiter)| waiter.deadline);
        let at = [first, self.pause.as_ref().map(|pause| pause.until)];
        let mut tick = self.idle.iter().map(|conn| conn.expires).min();
        // Those that `min_idle` keeps have no end but their lifetime.
        if self.idle.len() as u32 > self.min_idle()
            && let (Some(oldest), Some(limit)) = (self.idle.front(), self.options.idle_timeout)
        {
            let idle = oldest.used + limit;
            tick = Some(tick.map_or(idle, |tick| tick.min(idle)));
        }
        let at = at.into_iter().flatten().min();
        let tick = tick.filter(|tick| *tick < NEVER);
        (at.is_some() || tick.is_some()).then_some(Due { tick, at })
    }

    fn time_out(&mut self, at: Instant, fx: &mut Effects<T>) {
        // All have the same patience, so the oldest is the first to go.
        while let Some(oldest) = self.waiting.first_entry() {
            if oldest.get().deadline > at {
                break;
            }
            let (ticket, waiter) = oldest.remove_entry();
            let waited = self.options.acquire_timeout + (at - waiter.deadline);
            let since = at.checked_sub(waited);
            let alive = self.alive.is_some_and(|alive| since.is_none_or(|since| alive >= since));
            let cause = if alive || self.lent >= self.options.max_size {
                Cause::Exhausted
            } else {
                Cause::Unreachable
            };
            let last_failure = self.failure.as_ref().map(|failure| LastFailure {
                text: failure.text.clone(),
                ago: at.saturating_duration_since(failure.at),
            });
            let timeout = Timeout { waited, cause, state: self.state(), last_failure };
            self.deliver(ticket, waiter, Err(GetError::Timeout(timeout)), fx);
            fx.timeouts += 1;
        }
    }

    fn expire(&mut self, now: Tick, fx: &mut Effects<T>) {
        for conn in std::mem::take(&mut self.idle) {
            if now >= conn.expires {
                self.retire(conn, Reason::Expired, fx);
            } else {
                self.idle.push_back(conn);
            }
        }
        let Some(limit) = self.options.idle_timeout else {
            return;
        };
        while self.idle.len() as u32 > self.min_idle() {
            match self.idle.pop_front() {
                Some(conn) if now - conn.used >= limit => self.retire(conn, Reason::Idle, fx),
                Some(conn) => {
                    self.idle.push_front(conn);
                    break;
                }
                None => break,
            }
        }
    }
}

/// Jitter may draw a pause of nothing, and a backoff may be told never to wait: neither may make the keeper spin.
const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// The expiry of what does not expire.
pub(crate) const NEVER: Tick = Tick::from_nanos(u64::MAX);

/// `at + delay`, or a time that nobody lives to see.
pub(crate) fn after(at: Instant, delay: Duration) -> Instant {
    at.checked_add(delay).unwrap_or_else(|| at + FAR)
}

/// Thirty years: `Instant` cannot represent every sum.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
