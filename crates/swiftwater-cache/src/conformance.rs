//! The laws of [`Layer`], [`Sink`] and [`Source`] as callable tests, for those who implement them.
//!
//! Each panics if its law is broken. They need whatever the layer uses. A layer may forget what it likes, so one that
//! keeps nothing passes: that it keeps what it should is for its own tests. So is law 3, which does not show from outside.
//!
//! ```
//! # use std::{collections::HashMap, sync::Mutex, time::Duration};
//! # use bytes::Bytes;
//! # use swiftwater_cache::{Layer, LayerError, LayerKey, conformance};
//! # use swiftwater_core::{Observe, Visitor};
//! # #[derive(Default)]
//! # struct Memory(Mutex<Option<HashMap<LayerKey, Bytes>>>);
//! # impl Observe for Memory { fn observe(&self, _: &mut dyn Visitor) {} }
//! # impl Memory {
//! #     fn with<T>(&self, f: impl FnOnce(&mut HashMap<LayerKey, Bytes>) -> T) -> Result<T, LayerError> {
//! #         Ok(self.0.lock().unwrap().as_mut().map(f).ok_or("closed")?)
//! #     }
//! # }
//! # #[async_trait::async_trait]
//! # impl Layer for Memory {
//! #     fn name(&self) -> &'static str { "memory" }
//! #     async fn get(&self, key: &LayerKey) -> Result<Option<Bytes>, LayerError> {
//! #         self.with(|map| map.get(key).cloned())
//! #     }
//! #     async fn get_many(&self, keys: &[LayerKey]) -> Result<Vec<Option<Bytes>>, LayerError> {
//! #         self.with(|map| keys.iter().map(|key| map.get(key).cloned()).collect())
//! #     }
//! #     async fn put(&self, key: &LayerKey, value: Bytes, _: Option<Duration>) -> Result<(), LayerError> {
//! #         self.with(|map| drop(map.insert(key.clone(), value)))
//! #     }
//! #     async fn remove(&self, key: &LayerKey) -> Result<(), LayerError> {
//! #         self.with(|map| drop(map.remove(key)))
//! #     }
//! #     async fn close(&self) -> Result<(), LayerError> {
//! #         self.0.lock().unwrap().take();
//! #         Ok(())
//! #     }
//! # }
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! conformance::all(async || Memory(Mutex::new(Some(HashMap::new())))).await;
//! # });
//! ```

#![expect(clippy::missing_panics_doc, reason = "to panic is what they are for")]

use std::{
    fmt,
    future::{Future, poll_fn},
    hash::Hash,
    pin::pin,
    task::Poll,
};

use bytes::Bytes;

use crate::{AsError, Cache, Hit, Layer, LayerError, LayerKey, Region, Sink, Source};

/// Every law but the third. `make` makes an empty layer each time, with room for a MiB.
pub async fn all<L: Layer>(make: impl AsyncFn() -> L) {
    values_come_back_whole(&make().await).await;
    the_past_does_not_come_back(&make().await).await;
    calls_may_be_dropped(&make).await;
    a_closed_layer_refuses(&make().await).await;
    many_are_answered_in_order(&make().await).await;
}

/// Law 1: a value comes back whole and under its own key only, whatever it and the key look like.
pub async fn values_come_back_whole<L: Layer>(layer: &L) {
    let mut keys = Vec::new();
    for region in ["", "a", "aa", "prices"] {
        for len in [0, 1, 2, 15, 16, 17, 300] {
            keys.push(LayerKey::new(region, Bytes::from(vec![b'a'; len])));
        }
    }
    let len_of = |number: usize| [0, 1, 7, 8, 100, 4096, 20_000][number % 7];
    for (number, key) in keys.iter().enumerate() {
        done(layer.put(key, value(number, len_of(number)), None).await, "put");
    }
    for (number, key) in keys.iter().enumerate() {
        let found = done(layer.get(key).await, "get");
        assert!(
            found.is_none() || found == Some(value(number, len_of(number))),
            "law 1: {key:?} has another value than it was given"
        );
    }
    let absent = LayerKey::new("prices", Bytes::from_static(b"never put"));
    assert_eq!(done(layer.get(&absent).await, "get"), None, "law 1: a value that was never put");
}

/// Law 2: what was replaced or removed is not seen again.
pub async fn the_past_does_not_come_back<L: Layer>(layer: &L) {
    let key = key(0);
    for round in 0..20 {
        for version in [2 * round, 2 * round + 1] {
            done(layer.put(&key, value(version, 50), None).await, "put");
            let found = done(layer.get(&key).await, "get");
            assert!(found.is_none() || found == Some(value(version, 50)), "law 2: a replaced value is back");
        }
        done(layer.remove(&key).await, "remove");
        assert_eq!(done(layer.get(&key).await, "get"), None, "law 2: a removed value is back");
    }
    done(layer.remove(&key).await, "remove of what is not there");
}

/// Law 4: a call that is dropped at any of its first awaits is done or not done, and the layer goes on.
pub async fn calls_may_be_dropped<L: Layer>(make: impl AsyncFn() -> L) {
    for polls in 0..POLLS {
        let layer = make().await;
        let (kept, key) = (key(0), key(1));
        let (before, after) = (Some(value(1, 70)), Some(value(2, 70)));
        done(layer.put(&kept, value(0, 70), None).await, "put");
        done(layer.put(&key, value(1, 70), None).await, "put");
        cut_short(layer.put(&key, value(2, 70), None), polls).await;
        let found = done(layer.get(&key).await, "get");
        assert!(
            found.is_none() || found == before || found == after,
            "law 4: neither done nor not done by a dropped `put`"
        );
        cut_short(layer.get(&key), polls).await;
        cut_short(layer.get_many(&[key.clone(), kept.clone()]), polls).await;
        cut_short(layer.remove(&key), polls).await;
        let found = done(layer.get(&key).await, "get");
        assert!(
            found.is_none() || found == before || found == after,
            "law 4: neither done nor not done by a dropped `remove`"
        );
        let found = done(layer.get(&kept).await, "get");
        assert!(found.is_none() || found == Some(value(0, 70)), "law 4: another key has changed");
        the_past_does_not_come_back(&layer).await;
        cut_short(layer.close(), polls).await;
        done(layer.close().await, "close after a dropped close");
    }
}

/// Law 5: after `close` every call but `close` is an error.
pub async fn a_closed_layer_refuses<L: Layer>(layer: &L) {
    let key = key(0);
    done(layer.put(&key, value(0, 10), None).await, "put");
    done(layer.close().await, "close");
    assert!(layer.get(&key).await.is_err(), "law 5: `get` after `close`");
    assert!(layer.get_many(std::slice::from_ref(&key)).await.is_err(), "law 5: `get_many` after `close`");
    assert!(layer.put(&key, value(1, 10), None).await.is_err(), "law 5: `put` after `close`");
    assert!(layer.remove(&key).await.is_err(), "law 5: `remove` after `close`");
    done(layer.close().await, "a second close");
}

/// Law 6: `get_many` answers in the order of its keys, repeated and absent ones, too.
pub async fn many_are_answered_in_order<L: Layer>(layer: &L) {
    assert!(done(layer.get_many(&[]).await, "get_many").is_empty(), "law 6: answers to no question");
    for number in (0..20).filter(|number| number % 3 != 0) {
        done(layer.put(&key(number), value(number, 90), None).await, "put");
    }
    let asked: Vec<_> = (0..20).rev().chain([7, 7, 3, 0]).collect();
    let keys: Vec<_> = asked.iter().map(|number| key(*number)).collect();
    let found = done(layer.get_many(&keys).await, "get_many");
    assert_eq!(found.len(), keys.len(), "law 6: as many answers as keys");
    for (number, found) in asked.into_iter().zip(found) {
        let right = found.is_none() || (number % 3 != 0 && found == Some(value(number, 90)));
        assert!(right, "law 6: key {number} has the answer of another one");
    }
}

/// Law 1 of [`Source`]: of these keys, which it may have or not, it gives one by one what it gives together. They must not
/// change meanwhile.
pub async fn a_source_keeps_its_law<K, V, S>(source: S, keys: &[K])
where
    K: Hash + Eq + Clone + fmt::Debug + Send + Sync + 'static,
    V: PartialEq + Send + Sync + 'static,
    S: Source<K, V, Error: AsError>,
{
    let cache = Cache::builder().build().expect("the defaults are valid");
    let region = cache.region("conformance").error().source(source).build();
    let region: Region<K, V, S::Error> = region.expect("it is the only one");
    let mut alone = Vec::new();
    for key in keys {
        alone.push(found(region.fetch(key).await));
        let _reached = region.invalidate(key);
    }
    let together = found(region.fetch_many(keys).await);
    assert_eq!(together.len(), keys.len());
    for ((key, alone), together) in keys.iter().zip(alone).zip(together) {
        assert!(alone.as_deref() == together.as_deref(), "law 1: {key:?} is another one among others");
    }
}

fn found<T, E: fmt::Debug>(outcome: Result<T, E>) -> T {
    match outcome {
        Ok(found) => found,
        Err(error) => panic!("a load failed: {error:?}"),
    }
}

/// Laws 1 to 3 of a [`Sink`]: what it has said to have applied is found, however often and after whatever it was called. `read`
/// asks its source. Each row is a key, a value and another value of it; the keys differ.
pub async fn a_sink_keeps_its_laws<K, V, S>(sink: &S, rows: &[(K, V, V)], read: impl AsyncFn(&K) -> Option<V>)
where
    K: Clone,
    V: Clone + PartialEq,
    S: Sink<K, V, Error: fmt::Debug>,
{
    let olds = || rows.iter().map(|(key, old, _)| (key.clone(), Hit::made(old.clone()))).collect::<Vec<_>>();
    let news = || rows.iter().map(|(key, _, new)| (key.clone(), Hit::made(new.clone()))).collect::<Vec<_>>();
    let applied = async |writes: Vec<(K, Hit<V>)>, law: &str| {
        let expected: Vec<(K, V)> =
            writes.iter().map(|(key, value)| (key.clone(), V::clone(value))).collect();
        let stored = sink.store(writes).await;
        assert!(stored.is_ok(), "{law}: {stored:?}");
        for (key, value) in expected {
            assert!(read(&key).await.as_ref() == Some(&value), "{law}");
        }
    };
    applied(olds(), "law 1: a write that was applied is not found").await;
    applied(news(), "law 1: a later write is not found").await;
    applied(news(), "law 3: the same writes again are not found").await;
    for polls in 1..POLLS {
        cut_short(sink.store(olds()), polls).await;
        for (key, old, new) in rows {
            let found = read(key).await;
            let either = found.as_ref() == Some(old) || found.as_ref() == Some(new);
            assert!(either, "law 2: neither applied nor not applied by a dropped call");
        }
        applied(news(), "law 3: a write after a dropped call is not found").await;
    }
}

/// Polls so many times, and drops.
async fn cut_short(call: impl Future, mut polls: usize) {
    let mut call = pin!(call);
    poll_fn(|cx| {
        if polls == 0 || call.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        polls -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn done<T>(outcome: Result<T, LayerError>, call: &str) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("{call} failed: {error}"),
    }
}

fn key(number: usize) -> LayerKey {
    LayerKey::new("conformance", Bytes::from(number.to_le_bytes().to_vec()))
}

/// Different for each number, unless it is shorter than 8 bytes.
fn value(number: usize, len: usize) -> Bytes {
    (number as u64).to_le_bytes().into_iter().cycle().take(len).collect()
}

/// Calls are dropped after up to so many polls.
const POLLS: usize = 5;
