//! The layers of one region: what is read from them is checked before it is believed, and what is written to them
//! carries all that the check needs.
//!
//! A layer never fails a lookup: while its gate refuses, and whenever it fails, hangs or lies, it is as if it had nothing.

use std::{
    future::Future,
    hash::Hash,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use swiftwater_core::{Counter, Desc, Observe, Outcome, Pass, Tick, Unit, Visitor};
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    below::{Below, Found, Moment, Waits},
    cache::{CloseError, Shared},
    dep::{Dep, Edge},
    entry::Entry,
    envelope::{self, Fault, Head},
    layer::{LayerError, LayerKey},
    load::sleep,
    relaxed::Fate,
    scope::NEVER,
    skip::{NOTHING, Skip},
    stamps::Stamp,
    tier::{Fill, Tier},
};

pub(crate) struct Tiers<K, V> {
    region: &'static str,
    whole: Dep,
    schema: u64,
    cache: Arc<Shared>,
    codec: Codec<K, V>,
    line: Arc<[Place]>,
    /// How many more writes may be on their way.
    writes: Arc<Semaphore>,
}

/// A layer and what came of it.
struct Place {
    tier: Tier,
    stats: Stats,
}

/// The bounds on keys and values end here.
pub(crate) struct Codec<K, V> {
    key: fn(&K) -> Option<Bytes>,
    encode: fn(&V) -> Option<Vec<u8>>,
    decode: fn(&[u8]) -> Option<V>,
}

impl<K: Serialize, V: Serialize + DeserializeOwned> Codec<K, V> {
    pub(crate) const POSTCARD: Self = Self {
        key: |key| guarded(|| postcard::to_allocvec(key).ok()).map(Bytes::from),
        encode: |value| guarded(|| postcard::to_allocvec(value).ok()),
        decode: |bytes| {
            guarded(|| match postcard::take_from_bytes(bytes) {
                Ok((value, [])) => Some(value),
                _ => None,
            })
        },
    };
}

/// The user's `Serialize` or `Deserialize`, whose panic has been reported and is no more than a failure.
fn guarded<T>(code: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).ok().flatten()
}

impl<K, V> Clone for Codec<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Codec<K, V> {}

impl<K: Hash, V> Tiers<K, V> {
    pub(crate) fn new(
        region: &'static str,
        schema: u64,
        cache: Arc<Shared>,
        codec: Codec<K, V>,
        tiers: Vec<Tier>,
    ) -> Self {
        let place = |tier| Place { tier, stats: Stats::default() };
        Self {
            region,
            whole: Dep::whole(region),
            schema,
            cache,
            codec,
            line: tiers.into_iter().map(place).collect(),
            writes: Arc::new(Semaphore::new(MOST_WRITES)),
        }
    }

    fn layer_key(&self, key: &K) -> Option<LayerKey> {
        Some(LayerKey::new(self.region, (self.codec.key)(key)?))
    }

    /// What the bytes say, if that may be served now.
    fn judge(&self, place: &Place, key: &K, bytes: &[u8]) -> Option<Found<V>> {
        let Stats { damaged, foreign, outdated, .. } = &place.stats;
        // Before anything is looked at: up to there is known afterwards what has moved.
        let ticket = self.cache.stamps.now();
        let dep = self.whole.key(key);
        let (head, edges, value) = match envelope::open(bytes, self.schema, dep.edge().number()) {
            Ok(opened) => opened,
            Err(fault) => {
                if fault == Fault::Damaged { damaged } else { foreign }.add(1);
                return None;
            }
        };
        let now = self.cache.clock.now();
        let expires = self.cache.life.tick(head.expires);
        let fate = self.cache.life.stamp(head.life, head.stamp).map_or(Fate::Stale, |stamp| {
            // Gently invalidated ones are not worth the trouble of telling apart here: they are by the first moment.
            self.cache.fate((self.whole, || dep), &edges, stamp, now, || 0.0)
        });
        if fate != Fate::Clean || expires <= now {
            outdated.add(1);
            return None;
        }
        let Some(value) = (self.codec.decode)(value) else {
            damaged.add(1);
            return None;
        };
        Some(Found { value, edges, stamp: ticket, expires })
    }

    /// What a layer had goes to those above it, with what is left of its lifetime.
    fn rise(&self, from: usize, key: &K, found: &Found<V>, skip: &Skip) {
        self.line[from].stats.hits.add(1);
        let wants = |at: &usize| self.line[*at].wants(Fill::OnLoad, skip);
        for at in (0..from).filter(wants) {
            self.put(at, key, &found.value, &found.edges, found.stamp, found.expires);
        }
    }

    fn put(&self, at: usize, key: &K, value: &V, edges: &[Edge], stamp: Stamp, expires: Tick) {
        let Place { tier, stats } = &self.line[at];
        let Some((layer_key, value)) = self.layer_key(key).zip((self.codec.encode)(value)) else {
            stats.unencodable.add(1);
            return;
        };
        let now = self.cache.clock.now();
        let expires = tier.ttl.map_or(NEVER, |ttl| now + ttl).min(expires);
        let head = Head {
            schema: self.schema,
            life: self.cache.life.id(),
            key: self.whole.key(key).edge().number(),
            stamp: stamp.number(),
            expires: self.cache.life.nanos(expires),
        };
        let left = (expires != NEVER).then(|| expires - now);
        self.write(at, Write::Put(layer_key, envelope::seal(head, edges, &value), left));
    }

    /// Writes in a task of its own.
    fn write(&self, at: usize, write: Write) {
        let (Ok(runtime), Ok(permit)) = (Handle::try_current(), self.writes.clone().try_acquire_owned())
        else {
            self.line[at].stats.skipped.add(1);
            return;
        };
        let line = self.line.clone();
        drop(runtime.spawn(async move {
            line[at].write(write).await;
            drop(permit);
        }));
    }
}

impl<K, V> Below<K, V> for Tiers<K, V>
where
    K: Hash + Send + Sync,
    V: Send + Sync,
{
    fn read<'a>(&'a self, key: &'a K, skip: &'a Skip) -> Waits<'a, Option<Found<V>>> {
        Box::pin(async move {
            let layer_key = self.layer_key(key)?;
            let asked = |place: &Place| !skip.has_layer(place.tier.layer.name());
            for (at, place) in self.line.iter().enumerate().filter(|(_, place)| asked(place)) {
                let Some(bytes) = place.read(&layer_key).await else { continue };
                let Some(found) = self.judge(place, key, &bytes) else { continue };
                self.rise(at, key, &found, skip);
                return Some(found);
            }
            None
        })
    }

    fn read_many<'a>(&'a self, keys: &'a [K]) -> Waits<'a, Vec<Option<Found<V>>>> {
        Box::pin(async move {
            let mut all: Vec<Option<Found<V>>> = keys.iter().map(|_| None).collect();
            let layer_keys: Vec<Option<LayerKey>> = keys.iter().map(|key| self.layer_key(key)).collect();
            for (at, place) in self.line.iter().enumerate() {
                let (asked, wanted): (Vec<usize>, Vec<LayerKey>) = (layer_keys.iter().enumerate())
                    .filter(|(number, _)| all[*number].is_none())
                    .filter_map(|(number, key)| Some((number, key.clone()?)))
                    .unzip();
                if wanted.is_empty() {
                    break;
                }
                let Some(bytes) = place.call(place.tier.layer.get_many(&wanted)).await else { continue };
                // One that answers with too few has nothing for the others.
                for (number, bytes) in asked.into_iter().zip(bytes) {
                    place.count(bytes.as_ref());
                    let Some(bytes) = bytes else { continue };
                    if let Some(found) = self.judge(place, &keys[number], &bytes) {
                        self.rise(at, &keys[number], &found, &NOTHING);
                        all[number] = Some(found);
                    }
                }
            }
            all
        })
    }

    fn keep(&self, key: &K, entry: &Entry<V>, moment: Moment, skip: &Skip) {
        let wanted = match moment {
            Moment::Evicted => Fill::OnEviction,
            Moment::Filled => Fill::OnLoad,
        };
        for at in (0..self.line.len()).filter(|at| self.line[*at].wants(wanted, skip)) {
            self.put(at, key, &entry.value, entry.edges(), entry.stamp(), entry.expires());
        }
    }

    fn forget(&self, key: &K) {
        if let Some(key) = self.layer_key(key) {
            (0..self.line.len()).for_each(|at| self.write(at, Write::Remove(key.clone())));
        }
    }

    fn settle(&self) -> Waits<'_, ()> {
        Box::pin(async {
            // All of them: every write holds one. An error says that this has been done before.
            drop(self.writes.acquire_many(MOST_WRITES as u32).await);
            self.writes.close();
        })
    }

    fn close(&self) -> Waits<'_, Result<(), CloseError>> {
        Box::pin(async {
            let mut closed = Ok(());
            for Place { tier, stats } in &*self.line {
                if let Err(error) = tier.layer.close().await {
                    stats.errors.add(1);
                    closed = closed.and(Err(CloseError::of_layer(tier.layer.name(), error.0)));
                }
            }
            closed
        })
    }

    fn observe(&self, visitor: &mut dyn Visitor) {
        for place in &*self.line {
            visitor.part("layer", &place.tier.layer.name(), &place.stats);
        }
    }
}

enum Write {
    Put(LayerKey, Bytes, Option<Duration>),
    Remove(LayerKey),
}

impl Place {
    fn wants(&self, fill: Fill, skip: &Skip) -> bool {
        self.tier.fill == fill && !skip.has_layer(self.tier.layer.name())
    }

    async fn read(&self, key: &LayerKey) -> Option<Bytes> {
        let found = self.call(self.tier.layer.get(key)).await?;
        self.count(found.as_ref());
        found
    }

    /// What a lookup has given.
    fn count(&self, found: Option<&Bytes>) {
        match found {
            Some(bytes) => self.stats.bytes_out.add(bytes.len() as u64),
            None => self.stats.misses.add(1),
        }
    }

    async fn write(&self, write: Write) {
        let written = match write {
            Write::Put(key, value, left) => {
                let len = value.len() as u64;
                self.call(self.tier.layer.put(&key, value, left)).await.inspect(|()| {
                    self.stats.puts.add(1);
                    self.stats.bytes_in.add(len);
                })
            }
            Write::Remove(key) => {
                self.call(self.tier.layer.remove(&key)).await.inspect(|()| self.stats.removes.add(1))
            }
        };
        if written.is_none() {
            self.stats.unwritten.add(1);
        }
    }

    /// Calls the layer, behind its gate and within its time.
    async fn call<T>(&self, call: impl Future<Output = Result<T, LayerError>>) -> Option<T> {
        let Ok(pass) = self.tier.gate.as_deref().map(Pass::enter).transpose() else {
            self.stats.refused.add(1);
            return None;
        };
        let done = self.in_time(call).await;
        if let Some(pass) = pass {
            pass.finish(if done.is_some() { Outcome::Success } else { Outcome::Failure });
        }
        done
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, LayerError>>) -> Option<T> {
        let mut call = pin!(call);
        let mut limit = None;
        let done = std::future::poll_fn(|cx| {
            if let std::task::Poll::Ready(done) = call.as_mut().poll(cx) {
                return std::task::Poll::Ready(Some(done));
            }
            // A layer that answers at once needs no timer.
            let limit = limit.get_or_insert_with(|| sleep(self.tier.timeout).map(Box::pin));
            match limit {
                Some(limit) => limit.as_mut().poll(cx).map(|()| None),
                None => std::task::Poll::Ready(None), // there are no timers, and without one it may hang for ever
            }
        })
        .await;
        match done {
            Some(Ok(done)) => return Some(done),
            Some(Err(_)) => self.stats.errors.add(1),
            None => self.stats.timeouts.add(1),
        }
        None
    }
}

macro_rules! counters {
    ($($field:ident $desc:ident $unit:ident $help:literal;)*) => {
        #[derive(Debug, Default)]
        struct Stats {
            $($field: Counter,)*
        }

        impl Observe for Stats {
            fn observe(&self, visitor: &mut dyn Visitor) {
                $(visitor.counter(&$desc, self.$field.read());)*
            }
        }

        $(static $desc: Desc = Desc::new(stringify!($field), Unit::$unit, $help);)*
    };
}

counters! {
    hits HITS Count "values that could be served";
    misses MISSES Count "lookups that found nothing";
    outdated OUTDATED Count "values that had expired or been invalidated, or were of another life";
    foreign FOREIGN Count "values of another schema or format";
    damaged DAMAGED Count "values that were not what was written";
    errors ERRORS Count "calls that failed";
    timeouts TIMEOUTS Count "calls that took too long";
    refused REFUSED Count "calls that the gate refused";
    puts PUTS Count "values written";
    removes REMOVES Count "keys removed";
    unwritten UNWRITTEN Count "values and removals that did not arrive";
    skipped SKIPPED Count "writes that were not begun: too many were on their way, or there was no runtime";
    unencodable UNENCODABLE Count "values that could not be encoded";
    bytes_in BYTES_IN Bytes "length of the values written, with all that the check needs";
    bytes_out BYTES_OUT Bytes "length of the values read, whether they could be served or not";
}

/// So many writes to layers may be on their way for one region; what is more is not written.
const MOST_WRITES: usize = 1024;
