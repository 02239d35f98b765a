//! How values are loaded: one load per key at a time, which others join; in the background where there is something to
//! serve meanwhile; with time-outs, and no more at a time than the region allows.

use std::{
    future::Future,
    hash::Hash,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    slice,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use swiftwater_core::Tick;
use tokio::time::Sleep;

use crate::{
    below::{Found, Moment},
    engine::{Boarded, Engine, Look},
    entry::{Held, Hit},
    error::LoadError,
    flight::{Flight, Landed},
    lane::{Excess, Lane, Place},
    policy::Past,
    scope::{LoadCx, Loading, NEVER, Readers, Scope},
    skip::Skip,
    stamps::Stamp,
    store::Evicted,
    sync::Handle,
    waits::{Notes, wait},
};

impl<K, V, E> Engine<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// What was found, or what `load` gives, which gets what was found and is not good enough any more.
    pub(crate) async fn load<F, Fut>(
        self: &Arc<Self>,
        key: K,
        load: F,
        readers: Readers,
        found: Look<V>,
        skip: &Skip,
    ) -> Answer<V, E>
    where
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<Got<V>, E>> + Send + 'static,
    {
        match self.begin(key, load, readers, found, skip) {
            Ok(result) => result,
            Err(rest) => rest.await,
        }
    }

    /// The same as far as it goes without waiting, or what is left to do. That takes a kilobyte: apart, so that it is not moved
    /// about with the future of a call that need not wait.
    fn begin<F, Fut>(
        self: &Arc<Self>,
        key: K,
        load: F,
        readers: Readers,
        found: Look<V>,
        skip: &Skip,
    ) -> Result<Answer<V, E>, impl Future<Output = Answer<V, E>> + Unpin>
    where
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<Got<V>, E>> + Send + 'static,
    {
        let asked = self.cache.stamps.now();
        let (old, fallback) = match found {
            Look::Fresh(entry) => {
                self.stats.hits.add(1);
                return Ok(Ok(Hit::fresh(entry)));
            }
            Look::Due(entry) => {
                self.stats.hits.add(1);
                self.refresh(key, load, &entry, skip);
                return Ok(Ok(Hit::fresh(entry)));
            }
            // A value that is made of something stale is stale itself, which nobody could tell later.
            Look::Stale(entry) if readers.is_empty() => {
                self.stats.stale_served.add(1);
                self.refresh(key, load, &entry, skip);
                return Ok(Ok(Hit::stale(entry)));
            }
            Look::Throttled(entry) if readers.is_empty() => {
                self.stats.stale_served.add(1);
                return Ok(Ok(Hit::stale(entry)));
            }
            Look::Stale(entry) | Look::Throttled(entry) | Look::Fallback(entry) => {
                (Some(entry.clone()), self.policy.fail_safe.map(|_| entry))
            }
            Look::Miss(old) => (old, None),
        };
        let mut call = Call { key, readers, skip, asked, old, fallback };
        match self.step(&mut call, load) {
            Step::Ended(result) => Ok(result),
            step => Err(Box::pin(self.proceed(call, step))),
        }
    }

    /// Joins a load of the key, or leads one.
    fn step<F, Fut>(self: &Arc<Self>, call: &mut Call<'_, K, V>, load: F) -> Step<K, V, E, F>
    where
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<Got<V>, E>> + Send + 'static,
    {
        let landing = if !self.enabled() || call.skip.memory {
            self.alone(call)
        } else {
            match self.board(&call.key, call.old.as_ref()) {
                Boarded::Leads(landing) => landing,
                // It may have what it gets from where the caller does not want it from.
                Boarded::Joins(_) if !call.skip.is_empty() => self.alone(call),
                Boarded::Joins(flight) => {
                    return match wait(&call.readers, &flight) {
                        Ok(waiting) => {
                            self.stats.joins.add(1);
                            Step::Joined(waiting, flight, load)
                        }
                        Err(ring) => Step::Ended(Err(ring)),
                    };
                }
                Boarded::Stored(entry) => {
                    self.inherit_entry(&call.readers, &call.key, &entry);
                    return Step::Ended(Ok(Hit::fresh(entry)));
                }
            }
        };
        let waiting = match wait(&call.readers, landing.flight()) {
            Ok(waiting) => waiting,
            Err(ring) => return Step::Ended(Err(ring)),
        };
        let place = if self.is_unwritten(&landing.key) { None } else { self.place_at_once().ok() };
        match place {
            Some(place) => self.lead(call, (waiting, landing), load, place),
            None => Step::Turn(waiting, landing, load),
        }
    }

    /// A load that is nobody else's business: the region is off, or the caller wants it otherwise than others do.
    fn alone(self: &Arc<Self>, call: &Call<'_, K, V>) -> Landing<K, V, E> {
        Landing::new(self.clone(), call.key.clone(), Arc::new(Flight::new(self.home)), Past::default())
    }

    fn lead<F, Fut>(
        &self,
        call: &mut Call<'_, K, V>,
        (waiting, landing): (Notes, Landing<K, V, E>),
        load: F,
        place: Option<Place>,
    ) -> Step<K, V, E, F>
    where
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<Got<V>, E>> + Send + 'static,
    {
        let old = call.old.take().map(Hit::stale);
        let led = landing.lead(|cx| load(cx, old), place, Start::Here, call.skip);
        self.led(call, waiting, led)
    }

    fn led<F>(&self, call: &mut Call<'_, K, V>, waiting: Notes, led: Led<V, E>) -> Step<K, V, E, F> {
        match led {
            Led::Landed(result, flight) => Step::Ended(self.conclude(call, &flight, Ok(result))),
            Led::Running(flight) => Step::Running(waiting, flight),
        }
    }

    /// Goes on until there is a result, waiting where it has to.
    async fn proceed<F, Fut>(
        self: &Arc<Self>,
        mut call: Call<'_, K, V>,
        mut step: Step<K, V, E, F>,
    ) -> Answer<V, E>
    where
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<Got<V>, E>> + Send + 'static,
    {
        loop {
            step = match step {
                Step::Ended(result) => return result,
                Step::Joined(waiting, flight, load) => {
                    match self.landed(&flight, call.fallback.is_some()).await.cloned() {
                        // From before we asked. The next load begins after this one has ended, hence after we asked.
                        Ok(result) if !self.acceptable(&call.key, &result, flight.stamp(), call.asked) => {
                            drop(waiting);
                            self.step(&mut call, load)
                        }
                        result => Step::Ended(self.conclude(&mut call, &flight, result)),
                    }
                }
                Step::Turn(waiting, landing, load) => {
                    match self.after_write(landing, call.fallback.is_some(), call.skip).await {
                        Ok(Begun::Not(landing)) => match self.place(slice::from_ref(&landing)).await {
                            Some(place) => self.lead(&mut call, (waiting, landing), load, place),
                            None => {
                                drop(landing.refuse(LoadError::Busy));
                                Step::Ended(self.instead(&mut call, Err(LoadError::Busy)))
                            }
                        },
                        Ok(Begun::Ended(led)) => self.led(&mut call, waiting, led),
                        Err(late) => Step::Ended(self.instead(&mut call, Err(late))),
                    }
                }
                Step::Running(_waiting, flight) => {
                    let result = self.landed(&flight, call.fallback.is_some()).await.cloned();
                    Step::Ended(self.conclude(&mut call, &flight, result))
                }
            };
        }
    }

    /// What the caller gets, who has waited for the flight; an error if not until its end.
    fn conclude(
        &self,
        call: &mut Call<'_, K, V>,
        flight: &Flight<V, E>,
        result: Result<Landed<V, E>, LoadError<E>>,
    ) -> Answer<V, E> {
        if let Ok(result) = &result {
            self.inherit(&call.readers, &call.key, flight, result);
        }
        self.instead(call, result.and_then(|result| result))
    }

    fn instead(&self, call: &mut Call<'_, K, V>, result: Landed<V, E>) -> Answer<V, E> {
        self.or_fallback(&call.key, call.fallback.take(), result, &call.readers)
    }

    /// Waits for the flight, where there is a fallback no longer than the soft time-out allows.
    async fn landed<'a>(
        &self,
        flight: &'a Flight<V, E>,
        has_fallback: bool,
    ) -> Result<&'a Landed<V, E>, LoadError<E>> {
        let soft = self.policy.timeouts.soft.filter(|_| has_fallback && !flight.has_landed());
        let Some(sleep) = soft.and_then(sleep) else {
            return Ok(flight.landed().await);
        };
        let (mut landed, mut sleep) = (std::pin::pin!(flight.landed()), std::pin::pin!(sleep));
        std::future::poll_fn(|cx| match landed.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| Err(LoadError::TimedOut)),
        })
        .await
    }

    /// What the caller gets of a load that failed: the expired entry, if there is one that has not been invalidated.
    pub(crate) fn or_fallback(
        &self,
        key: &K,
        fallback: Option<Held<V>>,
        result: Landed<V, E>,
        readers: &Readers,
    ) -> Answer<V, E> {
        match (result, fallback) {
            (Ok(entry), _) => Ok(Hit::fresh(entry)),
            (Err(LoadError::Absent), _) => Err(LoadError::Absent), // an answer, and no failure
            (Err(_), Some(entry)) if self.may_stand_in(key, &entry, readers) => {
                self.stats.stale_served.add(1);
                readers.all().for_each(Scope::taint);
                Ok(Hit::stale(entry))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Loads the key in the background, unless somebody does, or too many do.
    fn refresh<F, Fut>(self: &Arc<Self>, key: K, load: F, old: &Held<V>, skip: &Skip)
    where
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<Got<V>, E>> + Send + 'static,
    {
        if self.is_unwritten(&key) {
            return; // as below, for less
        }
        let Ok(place) = self.place_at_once() else { return }; // somebody else will ask
        if let Boarded::Leads(landing) = self.board(&key, Some(old)) {
            // Asked for now that a later store would take the load out of the table.
            if self.is_unwritten(&landing.key) {
                return; // the source would answer from the past
            }
            if let Some(extra) = old.extra() {
                extra.set_refresh_at(NEVER);
            }
            self.stats.refreshes.add(1);
            let old = Hit::stale(old.clone());
            drop(landing.lead(|cx| load(cx, Some(old)), place, Start::Apart, skip));
        }
    }

    /// A place in the lane, if there is a lane; or the lane, if it is full.
    fn place_at_once(&self) -> Result<Option<Place>, &Lane> {
        match &self.lane {
            None => Ok(None),
            Some(lane) => lane.try_enter().map(Some).ok_or(lane),
        }
    }

    /// A place in the lane for one load of all these, if there is a lane, and none of them has to go without; `None` if it
    /// is full and the load is not to wait.
    pub(crate) async fn place(&self, landings: &[Landing<K, V, E>]) -> Option<Option<Place>> {
        let lane = match self.place_at_once() {
            Ok(place) => return Some(place),
            Err(lane) => lane,
        };
        // In this order: the first takes the lock under which others say that they want it.
        let goes_without =
            || self.home.is_on_ring() && landings.iter().any(|landing| landing.flight().is_wanted());
        match lane.excess {
            Excess::Fail => goes_without().then_some(None),
            Excess::Wait => Some(lane.enter(goes_without).await),
        }
    }

    /// Whether a load with that stamp may answer a caller who asked at that ticket.
    pub(crate) fn acceptable(&self, key: &K, result: &Landed<V, E>, stamp: Stamp, asked: Stamp) -> bool {
        match result {
            Err(LoadError::Aborted) => false,
            // What it is made of may have had its turn in a gradual invalidation, which moves no ticket.
            Ok(entry) if !self.cache.relaxed.is_quiet(entry.stamp()) => self.servable(key, entry),
            // Nothing has been invalidated between the start of the load and the asking: as good as our own.
            _ if stamp >= asked => true,
            // Nothing that it depends on has.
            Ok(entry) => self.servable(key, entry),
            // What an error is made of is not fully known, so only its age counts.
            Err(_) => false,
        }
    }
}

/// What a caller gets.
type Answer<V, E> = Result<Hit<V>, LoadError<E>>;

/// One loading call that was not served from memory.
struct Call<'a, K, V> {
    key: K,
    /// Who waits for it.
    readers: Readers,
    skip: &'a Skip,
    asked: Stamp,
    /// What there is of the key and is not good enough.
    old: Option<Held<V>>,
    /// What is served if the load fails.
    fallback: Option<Held<V>>,
}

/// How far a loading call has come without waiting.
enum Step<K: Hash + Eq, V, E, F> {
    Ended(Answer<V, E>),
    /// It has joined a load.
    Joined(Notes, Arc<Flight<V, E>>, F),
    /// Its load goes on in a task.
    Running(Notes, Arc<Flight<V, E>>),
    /// Its load has to wait before it begins: for a write of the key, or for a place.
    Turn(Notes, Landing<K, V, E>, F),
}

/// What a load gives.
pub(crate) enum Got<V> {
    /// There is no such thing.
    Absent,
    /// A layer had it.
    Found(Found<V>),
    /// The loader gave it.
    Loaded(V),
}

/// Where a load begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// In a task of its own, if there is a runtime: nobody waits for it.
    Apart,
    /// Where it is asked for, until it has to wait.
    Here,
}

/// How far a load has come that was begun.
pub(crate) enum Led<V, E> {
    /// It has ended. Whoever has joined it knows.
    Landed(Landed<V, E>, Arc<Flight<V, E>>),
    /// It goes on in a task.
    Running(Arc<Flight<V, E>>),
}

/// Whether a load has come to its loader.
pub(crate) enum Begun<K: Hash + Eq, V, E> {
    /// It ended before.
    Ended(Led<V, E>),
    Not(Landing<K, V, E>),
}

/// Ends a flight on every way out: `Aborted`, if its task was dropped.
pub(crate) struct Landing<K: Hash + Eq, V, E> {
    engine: Arc<Engine<K, V, E>>,
    pub(crate) key: K,
    /// Taken when it has landed.
    flight: Option<Arc<Flight<V, E>>>,
    /// What its entry takes over from the one before it.
    pub(crate) past: Past,
    /// What it does not tell.
    skip: Skip,
    landed: bool,
}

impl<K, V, E> Landing<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Runs the load: asks the layers first, then the loader. Not async: a leader cannot be cancelled half-way.
    fn lead<F, Fut>(mut self, load: F, place: Option<Place>, start: Start, skip: &Skip) -> Led<V, E>
    where
        F: FnOnce(LoadCx<K>) -> Fut,
        Fut: Future<Output = Result<Got<V>, E>> + Send + 'static,
    {
        self.skip = skip.clone();
        let since = self.begin();
        let loading = Loading::start(self.flight().scope(), self.key.clone(), load);
        match self.engine.below.clone() {
            // A refresh is for a newer value than the layers have, and a region that is off has none.
            Some(below) if start == Start::Here && self.engine.enabled() => {
                let (key, skip) = (self.key.clone(), self.skip.clone());
                let loading = Box::pin(async move {
                    match below.read(&key, &skip).await {
                        Some(found) => Ok(Got::Found(found)),
                        None => loading.await,
                    }
                });
                self.drive(loading, since, place, start)
            }
            _ => self.drive(loading, since, place, start),
        }
    }

    fn drive<L>(self, mut loading: L, since: Tick, place: Option<Place>, start: Start) -> Led<V, E>
    where
        L: Future<Output = Result<Got<V>, LoadError<E>>> + Send + Unpin + 'static,
    {
        if start == Start::Here || Handle::try_current().is_err() {
            // A waker that does nothing is enough: the task polls again as soon as it runs.
            match Pin::new(&mut loading).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(loaded) => {
                    drop(place);
                    return self.land_since(loaded, since);
                }
                Poll::Pending => {}
            }
        }
        let Ok(runtime) = Handle::try_current() else {
            return self.land_since(Err(LoadError::NoRuntime), since);
        };
        let limit = self.engine.policy.timeouts.hard;
        let flight = self.flight().clone();
        let task = async move {
            let loaded = match limit {
                None => loading.await,
                Some(limit) => within(limit, loading).await,
            };
            drop(place); // first: who is told that the load has ended, and asks for the next, finds room
            drop(self.land_since(loaded, since));
        };
        drop(runtime.spawn(task));
        Led::Running(flight)
    }
}

impl<K: Hash + Eq, V, E> Landing<K, V, E> {
    pub(crate) fn new(engine: Arc<Engine<K, V, E>>, key: K, flight: Arc<Flight<V, E>>, past: Past) -> Self {
        Self { engine, key, flight: Some(flight), past, skip: Skip::new(), landed: false }
    }

    pub(crate) fn flight(&self) -> &Arc<Flight<V, E>> {
        self.flight.as_ref().expect("it is taken by what takes the landing")
    }

    /// The load begins now: what is invalidated from here on it may not have seen.
    pub(crate) fn begin(&self) -> Tick {
        self.engine.stats.loads.add(1);
        self.flight().begin(self.engine.cache.stamps.now());
        // Stored while the load waited for its turn: from before its stamp, and the source may not have it yet.
        if self.engine.is_unwritten(&self.key) {
            self.flight().hold();
        }
        self.engine.now()
    }

    /// The load waits before it begins: as far as joiners are concerned it begins now.
    pub(crate) fn wait(&self) -> Tick {
        self.flight().begin(self.engine.cache.stamps.now());
        self.engine.now()
    }

    /// The load is not even begun.
    pub(crate) fn refuse(mut self, error: LoadError<E>) -> Led<V, E> {
        self.engine.stats.load_failures.add(1);
        let result = Err(error);
        self.end(&result, Tick::default());
        self.landed(result)
    }

    pub(crate) fn land_since(mut self, loaded: Result<Got<V>, LoadError<E>>, since: Tick) -> Led<V, E> {
        let result = match loaded {
            Ok(Got::Found(found)) => {
                let result = self.engine.found(&self.key, found, self.past);
                self.end(&result, since);
                result
            }
            Ok(Got::Absent) => self.land_loaded(Err(LoadError::Absent), since),
            Ok(Got::Loaded(value)) => self.land_loaded(Ok(value), since),
            Err(error) => self.land_loaded(Err(error), since),
        };
        self.landed(result)
    }

    fn landed(mut self, result: Landed<V, E>) -> Led<V, E> {
        Led::Landed(result, self.flight.take().expect("it is taken here"))
    }

    fn land_loaded(&mut self, loaded: Result<V, LoadError<E>>, since: Tick) -> Landed<V, E> {
        let born = (self.flight().stamp(), since);
        let result = self.engine.finish(&self.key, loaded, self.flight().scope(), born, self.past);
        let stored = self.end(&result, since);
        if let (Some(below), Ok(entry)) = (&self.engine.below, &result)
            && (stored
                || (self.skip.memory && self.engine.servable(&self.key, entry) && !self.flight().is_held()))
        {
            below.keep(&self.key, entry, Moment::Filled, &self.skip);
        }
        result
    }

    /// Whether the entry was stored.
    fn end(&mut self, result: &Landed<V, E>, since: Tick) -> bool {
        self.landed = true;
        let flight = self.flight();
        // If the key's `Hash` or `Eq` panics nothing is stored, but nobody is left waiting; the panic has been reported.
        let mut outgoing = Evicted::default();
        let arrive = AssertUnwindSafe(|| self.engine.arrive(&self.key, flight, result, since, &mut outgoing));
        let arrived = catch_unwind(arrive).ok();
        // It is not in the table any more, so nobody joins it from now on; who has joined it before has a handle, which was made
        // under the table's lock.
        if Arc::strong_count(flight) > 1 {
            flight.land(result.clone());
        }
        // Now that everybody is on the way: the layers, and the user's destructors.
        let Some(key) = arrived else { return false };
        self.engine.demote(&outgoing);
        outgoing.stored && key.is_none()
    }
}

impl<K: Hash + Eq, V, E> Drop for Landing<K, V, E> {
    fn drop(&mut self) {
        if !self.landed {
            self.end(&Err(LoadError::Aborted), Tick::default());
        }
    }
}

/// The load's result, or `TimedOut`; or `NoRuntime`, where there are no timers to tell.
pub(crate) async fn within<T, E>(
    limit: Duration,
    loading: impl Future<Output = Result<T, LoadError<E>>>,
) -> Result<T, LoadError<E>> {
    let Some(sleep) = sleep(limit) else { return Err(LoadError::NoRuntime) };
    let (mut loading, mut sleep) = (std::pin::pin!(loading), std::pin::pin!(sleep));
    std::future::poll_fn(|cx| match loading.as_mut().poll(cx) {
        Poll::Ready(loaded) => Poll::Ready(loaded),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| Err(LoadError::TimedOut)),
    })
    .await
}

/// `None` outside of runtimes with timers, where tokio panics.
pub(crate) fn sleep(duration: Duration) -> Option<Sleep> {
    catch_unwind(|| tokio::time::sleep(duration)).ok()
}
