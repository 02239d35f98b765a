//! Writes that the source gets later: the line in which they wait, and the task that brings them to the sink.
//!
//! # Who may see what
//!
//! A write is queued under the lock that orders everything that changes its key (see [`engine`](crate::engine)), together
//! with the entry in memory: the last one queued is the last one stored. From then until it has arrived the key is in the
//! line, so a load that has begun after it finds it there and waits. One that began before was taken out of the table by
//! the store, and is not stored.
//!
//! Each key has at most one write that waits, and one that is on its way.

use std::{
    collections::{BTreeMap, HashMap},
    future::{Future, poll_fn},
    hash::Hash,
    mem::{replace, take},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Poll,
    time::Duration,
};

use foldhash::fast::RandomState;
use swiftwater_core::Backoff;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    engine::Engine,
    entry::{Held, Hit},
    error::LoadError,
    load::{Begun, Got, Landing, sleep, within},
    policy::Timeouts,
    sink::{Failure, FlushError, Limits, call},
    skip::{NOTHING, Skip},
};

pub(crate) struct Line<K, V, E> {
    max_pending: AtomicUsize,
    max_batch: usize,
    delay: Duration,
    queue: Mutex<Queue<K, V, E>>,
    /// Wakes the task: something is to go sooner than it thought.
    hurry: Notify,
}

struct Queue<K, V, E> {
    /// Those that wait.
    writes: HashMap<K, Write<V, E>, RandomState>,
    /// Their keys, in the order in which they go. A key that is not among them is nothing: its `Hash` or `Eq` panicked.
    order: BTreeMap<Turn, K>,
    /// Those on their way.
    away: HashMap<K, Write<V, E>, RandomState>,
    turns: u64,
    /// How many of those that wait have failed before.
    suspects: usize,
    /// There is a task, or will be.
    running: bool,
    /// How many calls have failed since one succeeded, of writes that had not failed alone before.
    failures: u64,
    backoff: Backoff,
    /// Until then only what is urgent goes.
    paused: Option<Instant>,
}

type Turn = (Rank, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Somebody waits for it.
    Urgent,
    Ordinary,
}

struct Write<V, E> {
    entry: Held<V>,
    turn: u64,
    /// When it has waited for company long enough.
    due: Instant,
    /// Has failed, and goes alone until it succeeds.
    suspect: bool,
    /// Has failed alone, and is not tried again before.
    retry: Option<Instant>,
    backoff: Option<Box<Backoff>>,
    /// Who waits for it to arrive, or to fail alone.
    told: Vec<Teller<E>>,
}

type Teller<E> = mpsc::UnboundedSender<Result<(), Failure<E>>>;

/// Why a write is not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    Full,
}

/// What has come of queueing.
pub(crate) struct Queued<K, V> {
    /// There is no task, and the caller is to start one.
    pub(crate) start: bool,
    /// To be dropped outside of locks.
    _leftover: (Option<Held<V>>, Option<K>, Option<K>),
}

enum Next<K, V> {
    Idle,
    Send(Vec<(K, Hit<V>)>),
    Wait(Instant),
}

impl<V, E> Write<V, E> {
    fn rank(&self) -> Rank {
        if self.told.is_empty() { Rank::Ordinary } else { Rank::Urgent }
    }

    fn turn(&self) -> Turn {
        (self.rank(), self.turn)
    }
}

impl<K: Hash + Eq, V, E> Line<K, V, E> {
    pub(crate) fn new(limits: Limits) -> Self {
        let Limits { max_pending, max_batch, delay } = limits;
        let hasher = RandomState::default();
        let queue = Queue {
            writes: HashMap::with_hasher(hasher.clone()),
            order: BTreeMap::new(),
            away: HashMap::with_hasher(hasher),
            turns: 0,
            suspects: 0,
            running: false,
            failures: 0,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE_OF_ALL),
            paused: None,
        };
        let max_pending = AtomicUsize::new(max_pending);
        Self { max_pending, max_batch, delay, queue: Mutex::new(queue), hurry: Notify::new() }
    }

    // Relaxed, both: a limit, not a message.

    pub(crate) fn max_pending(&self) -> usize {
        self.max_pending.load(Relaxed)
    }

    pub(crate) fn set_max_pending(&self, writes: usize) {
        self.max_pending.store(writes, Relaxed);
    }

    pub(crate) fn pending(&self) -> usize {
        self.queue().pending()
    }

    /// Whether a write of the key has not arrived yet.
    pub(crate) fn has(&self, key: &K) -> bool {
        let queue = self.queue();
        queue.writes.contains_key(key) || queue.away.contains_key(key)
    }

    /// The keys of the writes that have not arrived.
    pub(crate) fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        let queue = self.queue();
        let away = queue.away.keys().filter(|key| !queue.writes.contains_key(*key));
        away.chain(queue.writes.keys()).cloned().collect()
    }

    /// Queues a write, in the place of the one of its key that waits, if there is one. To be called under the lock that
    /// orders the stores of the key. Twice the key, so that none is cloned here.
    pub(crate) fn push(
        &self,
        [key, spare]: [K; 2],
        entry: Held<V>,
        closed: &AtomicBool,
    ) -> Result<Queued<K, V>, (Refused, [K; 2])> {
        let due = Instant::now() + self.delay;
        let mut queue = self.queue();
        // Under the lock: who closes says so first, and then takes it to see what is pending.
        if closed.load(SeqCst) {
            return Err((Refused::Closed, [key, spare]));
        }
        let (leftover, hurry) = if let Some(write) = queue.writes.get_mut(&key) {
            // Another value, another try.
            let hurry = write.retry.take().is_some();
            if hurry {
                write.due = due;
            }
            ((Some(replace(&mut write.entry, entry)), Some(key), Some(spare)), hurry)
        } else {
            if queue.pending() >= self.max_pending() {
                return Err((Refused::Full, [key, spare]));
            }
            let turn = queue.turns;
            queue.turns += 1;
            queue.order.insert((Rank::Ordinary, turn), spare);
            let (suspect, retry, backoff, told) = (false, None, None, Vec::new());
            queue.writes.insert(key, Write { entry, turn, due, suspect, retry, backoff, told });
            // The task may be waiting for something that is due later, or for company.
            (<_>::default(), [1, self.max_batch].contains(&queue.fresh()))
        };
        let start = !replace(&mut queue.running, true);
        drop(queue);
        if hurry {
            self.hurry.notify_one();
        }
        Ok(Queued { start, _leftover: leftover })
    }

    /// Lets the write of the key go at once, and has it told how that ends. `None`: it has arrived; else whether the caller is to start
    /// a task.
    fn hasten(&self, key: &K, teller: Teller<E>) -> Option<bool> {
        let mut queue = self.queue();
        let Queue { writes, order, away, .. } = &mut *queue;
        if let Some(write) = writes.get_mut(key) {
            let key = order.remove(&write.turn());
            write.told.push(teller);
            order.extend(key.map(|key| (write.turn(), key)));
        } else {
            away.get_mut(key)?.told.push(teller);
        }
        let start = !replace(&mut queue.running, true);
        drop(queue);
        self.hurry.notify_one();
        Some(start)
    }

    /// The same for all of them. How many they are, and whether the caller is to start a task.
    fn hasten_all(&self, teller: &Teller<E>) -> Option<(usize, bool)> {
        let mut queue = self.queue();
        let count = queue.pending();
        if count == 0 {
            return None;
        }
        let Queue { writes, order, away, .. } = &mut *queue;
        writes.values_mut().chain(away.values_mut()).for_each(|write| write.told.push(teller.clone()));
        *order = take(order).into_iter().map(|((_, turn), key)| ((Rank::Urgent, turn), key)).collect();
        let start = !replace(&mut queue.running, true);
        drop(queue);
        self.hurry.notify_one();
        Some((count, start))
    }

    /// What the task does next.
    fn next(&self, now: Instant) -> Next<K, V> {
        let mut queue = self.queue();
        let Queue { writes, order, suspects, paused, .. } = &*queue;
        let is_full = queue.fresh() >= self.max_batch;
        let (mut batch, mut wake) = (Vec::<Turn>::new(), None::<Instant>);
        for (turn, key) in order {
            let Some(write) = writes.get(key) else { continue };
            let at = match turn.0 {
                Rank::Urgent => now,
                Rank::Ordinary => {
                    let at = write.retry.unwrap_or(if is_full { now } else { write.due });
                    paused.map_or(at, |paused| at.max(paused))
                }
            };
            match batch.first() {
                None if at <= now => {
                    batch.push(*turn);
                    if write.suspect {
                        break;
                    }
                }
                // Who goes because it is time takes along whoever is there.
                Some((lead, _)) if !write.suspect && (at <= now || *lead == Rank::Ordinary) => {
                    batch.push(*turn)
                }
                Some(_) if *suspects == 0 => break, // the others are due later still
                Some(_) => {}
                None => {
                    wake = Some(wake.map_or(at, |wake| wake.min(at)));
                    if *suspects == 0 {
                        break;
                    }
                }
            }
            if batch.len() >= self.max_batch {
                break;
            }
        }
        if batch.is_empty() {
            return wake.map_or_else(
                || {
                    queue.running = false;
                    Next::Idle
                },
                Next::Wait,
            );
        }
        let Queue { writes, order, away, suspects, .. } = &mut *queue;
        let mut sent = Vec::with_capacity(batch.len());
        for turn in batch {
            let Some(key) = order.remove(&turn) else { continue };
            if let Some((own, write)) = writes.remove_entry(&key) {
                *suspects -= usize::from(write.suspect);
                sent.push((key, Hit::fresh(write.entry.clone())));
                away.insert(own, write);
            }
        }
        Next::Send(sent)
    }

    /// Until then, or until there is something to hurry for.
    async fn wait(&self, until: Instant) {
        let hurry = self.hurry.notified();
        let Some(sleep) = sleep(until - Instant::now()) else {
            return hurry.await;
        };
        let (mut hurry, mut sleep) = (pin!(hurry), pin!(sleep));
        poll_fn(|cx| match hurry.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => sleep.as_mut().poll(cx),
        })
        .await;
    }

    /// What was on its way has arrived, or has not: then it waits again.
    fn landed(&self, keys: Vec<K>, result: &Result<(), Failure<E>>) {
        // To be told, and dropped, outside of the lock.
        let (mut tellers, mut leftover) = (Vec::new(), Vec::new());
        let now = Instant::now();
        let mut queue = self.queue();
        let alone = keys.len() == 1;
        if result.is_ok() {
            queue.failures = 0;
            queue.backoff.reset();
            queue.paused = None;
        } else {
            // That one fails again which has failed alone says nothing new of the source.
            let known = alone
                && keys.iter().all(|key| queue.away.get(key).is_some_and(|write| write.backoff.is_some()));
            queue.failures += u64::from(!known);
            if queue.failures > 1 {
                // Not a write, but the source.
                queue.paused = Some(now + queue.backoff.next_delay());
            }
        }
        for key in keys {
            let Some((own, mut write)) = queue.away.remove_entry(&key) else { continue };
            if result.is_ok() || alone {
                tellers.append(&mut write.told);
            }
            if result.is_ok() {
                leftover.push((own, key, write));
                continue;
            }
            if alone {
                let first = || Box::new(Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
                let backoff = write.backoff.get_or_insert_with(first);
                write.retry = Some(now + backoff.next_delay());
            }
            write.due = now;
            leftover.extend(queue.put_back(own, key, write));
        }
        drop(queue);
        for teller in tellers {
            // Who has gone need not be told.
            let _ = teller.send(result.clone());
        }
    }

    /// The task is gone, with what was on its way.
    fn lost(&self, keys: Vec<K>) {
        let (mut tellers, mut leftover) = (Vec::new(), Vec::new());
        let mut queue = self.queue();
        queue.running = false;
        for key in keys {
            if let Some((own, write)) = queue.away.remove_entry(&key) {
                leftover.extend(queue.put_back(own, key, write));
            }
        }
        // What is left there had a key whose `Hash` or `Eq` panicked. Nobody is to wait for it for ever.
        let unfound: Vec<_> = queue.away.drain().collect();
        // Whoever waits learns of it by being told nothing, and starts another one.
        let Queue { writes, order, .. } = &mut *queue;
        writes.values_mut().for_each(|write| tellers.append(&mut write.told));
        *order = take(order).into_iter().map(|((_, turn), key)| ((Rank::Ordinary, turn), key)).collect();
        drop(queue);
        drop((tellers, leftover, unfound));
    }

    fn queue(&self) -> MutexGuard<'_, Queue<K, V, E>> {
        // A panic in the key's `Hash` or `Eq` leaves at most a key in the order that has no write.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, V, E> Queue<K, V, E> {
    fn pending(&self) -> usize {
        self.writes.len() + self.away.len()
    }

    /// Those that may go with others.
    fn fresh(&self) -> usize {
        self.writes.len() - self.suspects
    }

    /// It waits again, in its old place, as a suspect; or a newer one of its key does in its stead. What comes back is to be dropped
    /// outside of the lock.
    fn put_back(&mut self, key: K, spare: K, mut write: Write<V, E>) -> Option<(K, K, Write<V, E>)> {
        if let Some(newer) = self.writes.get_mut(&key) {
            let place = self.order.remove(&newer.turn());
            newer.told.append(&mut write.told);
            self.order.extend(place.map(|key| (newer.turn(), key)));
            self.suspects += usize::from(!replace(&mut newer.suspect, true));
            return Some((key, spare, write));
        }
        write.suspect = true;
        self.suspects += 1;
        self.order.insert(write.turn(), spare);
        self.writes.insert(key, write);
        None
    }
}

/// The task that brings writes to the sink, or is to be one. Dropped before its end, it leaves the line to the next.
struct Runner<K: Hash + Eq, V, E> {
    engine: Arc<Engine<K, V, E>>,
    /// What is to be given to the sink.
    writes: Vec<(K, Hit<V>)>,
    /// Of what has been.
    keys: Vec<K>,
    ended: bool,
}

impl<K, V, E> Runner<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    async fn run(mut self) {
        let engine = self.engine.clone();
        let Some((outlet, line)) = engine.outlet.as_ref().and_then(|outlet| Some((outlet, outlet.line()?)))
        else {
            return;
        };
        loop {
            match line.next(Instant::now()) {
                Next::Idle => {
                    self.ended = true;
                    return;
                }
                Next::Wait(until) => line.wait(until).await,
                Next::Send(writes) => {
                    self.writes = writes; // the keys' `Clone` may panic
                    let keys = self.writes.iter().map(|(key, _)| key.clone()).collect();
                    self.keys = keys;
                    let result = call(&*outlet.sink, take(&mut self.writes)).await;
                    match &result {
                        Ok(()) => engine.have_arrived(&self.keys),
                        Err(_) => engine.stats.store_failures.add(1),
                    }
                    line.landed(take(&mut self.keys), &result);
                }
            }
        }
    }
}

impl<K: Hash + Eq, V, E> Drop for Runner<K, V, E> {
    fn drop(&mut self) {
        if let Some(line) = self.engine.line().filter(|_| !self.ended) {
            let (mut keys, writes) = (take(&mut self.keys), take(&mut self.writes));
            if keys.is_empty() {
                keys.extend(writes.into_iter().map(|(key, _)| key));
            }
            line.lost(keys);
        }
    }
}

impl<K: Hash + Eq, V, E> Engine<K, V, E> {
    /// Where writes wait, if they do.
    pub(crate) fn line(&self) -> Option<&Line<K, V, E>> {
        self.outlet.as_ref()?.line()
    }

    /// Whether a write of the key is pending.
    pub(crate) fn is_unwritten(&self, key: &K) -> bool {
        self.line().is_some_and(|line| line.has(key))
    }
}

impl<K, V, E> Engine<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Starts the task of the line; to be called by whoever was told to.
    pub(crate) fn run_line(self: &Arc<Self>, runtime: &Handle) {
        let runner = Runner { engine: self.clone(), writes: Vec::new(), keys: Vec::new(), ended: false };
        drop(runtime.spawn(runner.run()));
    }

    /// The load, once the source would not answer from the past: no write of the key is pending any more. It has ended
    /// if a layer had the value, which is newer than the source's then, or the write has failed. An error if the caller has
    /// something to be served instead, and has waited for long enough.
    ///
    /// Before the loader is even made, since it may read in the call that makes it.
    pub(crate) async fn after_write(
        self: &Arc<Self>,
        landing: Landing<K, V, E>,
        has_fallback: bool,
        skip: &Skip,
    ) -> Result<Begun<K, V, E>, LoadError<E>> {
        if !self.is_unwritten(&landing.key) {
            return Ok(Begun::Not(landing));
        }
        Box::pin(self.after_pending_write(landing, has_fallback, skip)).await
    }

    async fn after_pending_write(
        self: &Arc<Self>,
        landing: Landing<K, V, E>,
        has_fallback: bool,
        skip: &Skip,
    ) -> Result<Begun<K, V, E>, LoadError<E>> {
        // So that who joins meanwhile shares the outcome, whatever it is. A loader has a later stamp.
        let since = landing.wait();
        if let Some(below) = self.below.clone().filter(|_| self.enabled())
            && let Some(found) = below.read(&landing.key, skip).await
        {
            return Ok(Begun::Ended(landing.land_since(Ok(Got::Found(found)), since)));
        }
        let Timeouts { soft, hard } = self.policy.timeouts;
        let soft = soft.filter(|_| has_fallback);
        let written = self.written(&landing.key);
        let written = match soft.or(hard) {
            None => written.await,
            Some(limit) => within(limit, written).await,
        };
        match written {
            Ok(()) => Ok(Begun::Not(landing)),
            // Who has joined and has no fallback takes the load over.
            Err(LoadError::TimedOut) if soft.is_some() => Err(LoadError::TimedOut),
            Err(error) => Ok(Begun::Ended(landing.refuse(error))),
        }
    }

    /// The same for many, all at a time.
    pub(crate) async fn after_writes(
        self: &Arc<Self>,
        landings: Vec<Landing<K, V, E>>,
    ) -> Vec<Landing<K, V, E>> {
        if self.line().is_none() {
            return landings;
        }
        let (unwritten, mut landings): (Vec<_>, Vec<_>) =
            landings.into_iter().partition(|landing| self.is_unwritten(&landing.key));
        let mut waits: Vec<_> = unwritten
            .into_iter()
            .map(|landing| Box::pin(self.after_pending_write(landing, false, &NOTHING)))
            .collect();
        poll_fn(|cx| {
            waits.retain_mut(|wait| match wait.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(landing) => {
                    if let Ok(Begun::Not(landing)) = landing {
                        landings.push(landing);
                    }
                    false
                }
            });
            if waits.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        landings
    }

    /// Waits until the write of the key that is pending has arrived.
    pub(crate) async fn written(self: &Arc<Self>, key: &K) -> Result<(), LoadError<E>> {
        let Some(line) = self.line() else { return Ok(()) };
        for _ in 0..TRIES {
            let runtime = runtime().ok_or(LoadError::NoRuntime)?;
            let (teller, mut told) = mpsc::unbounded_channel();
            let Some(start) = line.hasten(key, teller) else { return Ok(()) };
            if start {
                self.run_line(&runtime);
            }
            match told.recv().await {
                Some(Ok(())) => return Ok(()),
                Some(Err(_)) => return Err(LoadError::Unwritten),
                None => {} // its task is gone
            }
        }
        Err(LoadError::Unwritten)
    }

    /// Tries every write that is pending, at once.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), FlushError<E>> {
        let Some(line) = self.line() else { return Ok(()) };
        let mut error = None;
        for _ in 0..TRIES {
            let Some(runtime) = runtime() else { break };
            let (teller, mut told) = mpsc::unbounded_channel();
            let Some((count, start)) = line.hasten_all(&teller) else { return Ok(()) };
            drop(teller);
            if start {
                self.run_line(&runtime);
            }
            let (mut arrived, mut failed) = (0, 0);
            while let Some(result) = told.recv().await {
                match result {
                    Ok(()) => arrived += 1,
                    Err(failure) => {
                        failed += 1;
                        if let (None, Failure::Sink(sink)) = (&error, failure) {
                            error = Some(sink);
                        }
                    }
                }
            }
            if failed > 0 {
                return Err(FlushError { writes: failed, error });
            }
            if arrived == count {
                return Ok(());
            }
            // Its task is gone.
        }
        match line.pending() {
            0 => Ok(()),
            writes => Err(FlushError { writes, error }),
        }
    }
}

/// The one that this is called in, if it has timers.
pub(crate) fn runtime() -> Option<Handle> {
    let runtime = Handle::try_current().ok()?;
    sleep(Duration::ZERO).map(|_| runtime)
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Shorter, since it may be that only some writes are refused, and others wait.
const LONGEST_PAUSE_OF_ALL: Duration = Duration::from_secs(5);
/// In how many runtimes that end it is tried.
const TRIES: u32 = 3;
