//! Many keys at once: what is missing is looked for in the layers together, and loaded by one call.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::Hash,
    ops::Deref,
    sync::Arc,
    task::{Context, Waker},
};

use swiftwater_core::Tick;

use crate::{
    below::Below,
    engine::{Boarded, Engine, Look},
    entry::{Held, Hit},
    error::LoadError,
    flight::Flight,
    lane::Place,
    load::{Got, Landing, within},
    policy::Past,
    scope::{Loading, Readers, Scope},
    sync::Handle,
    waits::{Waiting, wait},
};

/// What a loader of many keys is handed: the keys, a [`Scope`] for each, and one for all of them, to which it
/// dereferences.
pub struct ManyCx<K> {
    keys: Arc<[K]>,
    scopes: Arc<[Scope]>,
    all: Scope,
}

impl<K> ManyCx<K> {
    /// The keys to load, each once.
    #[must_use]
    pub fn keys(&self) -> &[K] {
        &self.keys
    }

    /// What is declared of one value only; `place` is that of its key among [`keys`](Self::keys).
    ///
    /// # Panics
    ///
    /// If there is no such key.
    #[must_use]
    pub fn of(&self, place: usize) -> &Scope {
        &self.scopes[place]
    }
}

impl<K> Deref for ManyCx<K> {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.all
    }
}

impl<K: fmt::Debug> fmt::Debug for ManyCx<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManyCx").field("keys", &self.keys).field("scope", &self.all).finish()
    }
}

/// What there is of a key, and is not good enough.
pub(crate) struct Old<V> {
    pub(crate) entry: Held<V>,
    /// In the place of a load that fails; else it only hands on how much it was used.
    pub(crate) may_stand_in: bool,
}

pub(crate) type Answers<V, E> = Vec<Option<Result<Hit<V>, LoadError<E>>>>;

impl<K, V, E> Engine<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// A value for each key, in order; `None` where there is none.
    pub(crate) async fn load_many<F, Fut, M>(
        self: &Arc<Self>,
        keys: &[K],
        load: F,
        readers: Readers,
    ) -> Result<Vec<Option<Hit<V>>>, LoadError<E>>
    where
        F: Fn(ManyCx<K>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, V)>,
    {
        let mut answers: Answers<V, E> = keys.iter().map(|_| None).collect();
        let mut olds: Vec<Option<Old<V>>> = keys.iter().map(|_| None).collect();
        for (place, key) in keys.iter().enumerate() {
            match self.look(key, &readers) {
                Look::Fresh(entry) | Look::Due(entry) => {
                    self.stats.hits.add(1);
                    answers[place] = Some(Ok(Hit::fresh(entry)));
                }
                Look::Throttled(entry) if readers.is_empty() => {
                    self.stats.stale_served.add(1);
                    answers[place] = Some(Ok(Hit::stale(entry)));
                }
                Look::Stale(entry) | Look::Throttled(entry) | Look::Fallback(entry) => {
                    olds[place] = Some(Old { entry, may_stand_in: true })
                }
                Look::Miss(old) => olds[place] = old.map(|entry| Old { entry, may_stand_in: false }),
            }
        }
        let answers = self.load_rest(keys, load, readers, (answers, olds), Origin::Anywhere).await?;
        answers
            .into_iter()
            .map(|answer| match answer {
                Ok(hit) => Ok(Some(hit)),
                Err(LoadError::Absent) => Ok(None),
                Err(error) => Err(error),
            })
            .collect()
    }

    /// The answers that are there, and for the other keys what is loaded; beside each what there is of the key and is not
    /// good enough.
    pub(crate) async fn load_rest<F, Fut, M>(
        self: &Arc<Self>,
        keys: &[K],
        load: F,
        readers: Readers,
        (mut answers, mut olds): (Answers<V, E>, Vec<Option<Old<V>>>),
        origin: Origin,
    ) -> Result<Vec<Result<Hit<V>, LoadError<E>>>, LoadError<E>>
    where
        F: Fn(ManyCx<K>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, V)>,
    {
        let asked = self.cache.stamps.now();
        while answers.iter().any(Option::is_none) {
            let (mut landings, mut flights) = (Vec::new(), Vec::new());
            let mut places: HashMap<&K, Arc<Flight<V, E>>> = HashMap::new();
            for (place, key) in keys.iter().enumerate() {
                if answers[place].is_some() {
                    continue;
                }
                if let Some(before) = places.get(key) {
                    flights.push((place, Arc::clone(before), true)); // the key stands twice in the list
                    continue;
                }
                if !self.enabled() {
                    // Nobody else's business.
                    let flight = Arc::new(Flight::new(self.home));
                    landings.push(Landing::new(self.clone(), key.clone(), flight.clone(), Past::default()));
                    places.insert(key, flight.clone());
                    flights.push((place, flight, true));
                    continue;
                }
                let old = olds[place].as_ref().map(|old| &old.entry);
                match self.board(key, old) {
                    Boarded::Joins(flight) => flights.push((place, flight, false)),
                    Boarded::Leads(mut landing) => {
                        if origin != Origin::Anywhere {
                            landing.past = self.policy.past_unasked(old.map(|old| &**old), self.now());
                        }
                        places.insert(key, landing.flight().clone());
                        flights.push((place, landing.flight().clone(), true));
                        landings.push(landing);
                    }
                    Boarded::Stored(entry) => {
                        self.inherit_entry(&readers, key, &entry);
                        answers[place] = Some(Ok(Hit::fresh(entry)));
                    }
                }
            }
            let _waiting = flights
                .iter()
                .map(|(_, flight, _)| wait(&readers, flight))
                .collect::<Result<Vec<_>, LoadError<E>>>()?;
            let landings = self.after_writes(landings).await;
            if !landings.is_empty() {
                match self.place(&landings).await {
                    Some(place) => lead(self, landings, load.clone(), place, origin),
                    None => landings.into_iter().for_each(|landing| drop(landing.refuse(LoadError::Busy))),
                }
            }
            for (place, flight, ours) in flights {
                let result = flight.landed().await;
                if !ours {
                    self.stats.joins.add(1);
                    if !self.acceptable(&keys[place], result, flight.stamp(), asked) {
                        continue; // in the next round
                    }
                }
                self.inherit(&readers, &keys[place], &flight, result);
                let result = match result {
                    // It had to wait, and was dropped for want of a place where it could.
                    Err(LoadError::Aborted) if Handle::try_current().is_err() => Err(LoadError::NoRuntime),
                    other => other.clone(),
                };
                let old =
                    olds[place].take().filter(|old| old.may_stand_in && self.policy.fail_safe.is_some());
                let fallback = old.map(|old| old.entry);
                answers[place] = Some(self.or_fallback(&keys[place], fallback, result, &readers));
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

/// Where values are to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From layers, and from the loader what they have not; somebody has asked for it.
    Anywhere,
    /// From layers only. Nobody has asked.
    Layers,
    /// From layers, and from the loader what they have not. Nobody has asked.
    LayersFirst,
    /// From the loader. Nobody has asked.
    Loader,
}

/// Runs one load for all of the landings. Not async: it cannot be cancelled half-way.
fn lead<K, V, E, F, Fut, M>(
    engine: &Arc<Engine<K, V, E>>,
    landings: Vec<Landing<K, V, E>>,
    load: F,
    mut place: Option<Place>,
    origin: Origin,
) where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
    F: FnOnce(ManyCx<K>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<M, E>> + Send + 'static,
    M: IntoIterator<Item = (K, V)>,
{
    let since = landings.iter().map(Landing::begin).min().unwrap_or_else(|| engine.now());
    let engine = engine.clone();
    let mut work = Box::pin(async move {
        let missing = match engine.below.clone().filter(|_| engine.enabled() && origin != Origin::Loader) {
            Some(below) => {
                let (found, missing) = look_below(&*below, landings).await;
                if missing.is_empty() || origin == Origin::Layers {
                    place = None; // first, as at the end of every load
                }
                found.into_iter().for_each(|(landing, found)| drop(landing.land_since(Ok(found), since)));
                missing
            }
            None => landings,
        };
        // Dropped, they are loads that were given up: whoever has joined them loads by itself.
        if !missing.is_empty() && origin != Origin::Layers {
            load_missing(&engine, missing, load, since, place).await;
        }
    });
    // As with one key: here while it does not wait, then in a task of its own.
    if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        && let Ok(runtime) = Handle::try_current()
    {
        drop(runtime.spawn(work));
    }
}

/// What the layers have, and what they have not.
async fn look_below<K, V, E>(
    below: &dyn Below<K, V>,
    landings: Vec<Landing<K, V, E>>,
) -> (Vec<(Landing<K, V, E>, Got<V>)>, Vec<Landing<K, V, E>>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    let keys: Vec<K> = landings.iter().map(|landing| landing.key.clone()).collect();
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (landing, value) in landings.into_iter().zip(below.read_many(&keys).await) {
        match value {
            Some(value) => found.push((landing, Got::Found(value))),
            None => missing.push(landing),
        }
    }
    (found, missing)
}

async fn load_missing<K, V, E, F, Fut, M>(
    engine: &Engine<K, V, E>,
    landings: Vec<Landing<K, V, E>>,
    load: F,
    since: Tick,
    place: Option<Place>,
) where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
    F: FnOnce(ManyCx<K>) -> Fut,
    Fut: Future<Output = Result<M, E>> + Send + 'static,
    M: IntoIterator<Item = (K, V)>,
{
    let all = Scope::new(engine.home);
    let keys = landings.iter().map(|landing| landing.key.clone()).collect();
    let scopes: Arc<[Scope]> = landings.iter().map(|landing| landing.flight().scope().clone()).collect();
    // Who waits for one of these keys waits for whatever the loader of all of them waits for.
    let waiting: Vec<_> = scopes.iter().map(|scope| Waiting::carried(scope, &all)).collect();
    let cx = ManyCx { keys, scopes, all: all.clone() };
    let loading = Loading::start(&all, (), |_| {
        let loading = load(cx);
        // Taken out of what the loader gave in here, where its panics are caught.
        async move { loading.await.map(|loaded| Got::Loaded(loaded.into_iter().collect::<Vec<(K, V)>>())) }
    });
    let loaded = match engine.policy.timeouts.hard {
        None => loading.await,
        Some(limit) => within(limit, loading).await,
    };
    drop(place); // first: who is told that the load has ended, and asks for the next, finds room
    drop(waiting);
    let mut values = match loaded {
        Ok(Got::Loaded(loaded)) => Ok(loaded.into_iter().collect::<HashMap<K, V>>()),
        Ok(Got::Absent | Got::Found(_)) => Ok(HashMap::new()), // not what it is mapped to above
        Err(error) => Err(error),
    };
    for landing in landings {
        landing.flight().scope().adopt(&all);
        let value = match &mut values {
            Ok(values) => values.remove(&landing.key).ok_or(LoadError::Absent),
            Err(error) => Err(error.clone()),
        };
        drop(landing.land_since(value.map(Got::Loaded), since));
    }
}
