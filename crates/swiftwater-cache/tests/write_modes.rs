//! Values that are written to the source by way of the region, around it and through it.

mod common;
mod sink_common;

use std::{
    error::Error,
    future::{Future, pending, poll_fn},
    io,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::{Gates, cache, readings, settle, spawn};
use sink_common::{Ends, Source};
use swiftwater_cache::{Cache, Hit, Region, Sink, StoreError, Writes, conformance, dep};

fn around<S: Sink<u64, u32, Error = io::Error>>(cache: &Cache, sink: S) -> Region<u64, u32> {
    cache.region("rows").writes(Writes::around(sink)).build().unwrap()
}

fn through<S: Sink<u64, u32, Error = io::Error>>(cache: &Cache, sink: S) -> Region<u64, u32> {
    cache.region("rows").writes(Writes::through(sink)).build().unwrap()
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn once() {
    let mut first = true;
    poll_fn(|_| if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

/// A sink that waits before and after it writes, for as long as it is not dropped.
struct Slow(Arc<AtomicU32>);

impl Sink<u64, u32> for Slow {
    type Error = io::Error;

    async fn store(&self, writes: Vec<(u64, Hit<u32>)>) -> io::Result<()> {
        once().await;
        self.0.store(*writes[0].1, SeqCst);
        once().await;
        pending().await
    }
}

#[tokio::test]
async fn a_store_around_leaves_the_value_to_the_source_alone() {
    let (cache, source) = (cache(), Source::default());
    let rows = around(&cache, source.clone());
    assert_eq!(source.read(&rows, 1).await, 0);
    rows.store(1, 7).await.unwrap();
    assert_eq!(source.rows(), [(1, 7)].into());
    assert!(rows.get(&1).is_none());
    assert_eq!(source.read(&rows, 1).await, 7);
}

#[tokio::test]
async fn a_store_through_leaves_the_value_in_both() {
    let (cache, source) = (cache(), Source::default());
    let rows = through(&cache, source.clone());
    assert_eq!(source.read(&rows, 1).await, 0);
    rows.store(1, 7).await.unwrap();
    assert_eq!(source.rows(), [(1, 7)].into());
    assert_eq!(*rows.get(&1).unwrap(), 7);
}

#[tokio::test]
async fn however_a_store_ends_nothing_old_is_left() {
    for mode in [around::<Source>, through::<Source>] {
        for ends in Ends::ALL {
            let (cache, gates) = (cache(), Gates::new());
            let source = Source::gated(&gates);
            let rows = mode(&cache, source.clone());
            assert_eq!(source.read(&rows, 1).await, 0);
            let mut store = Box::pin(rows.store(1, 7));
            assert!(poll(store.as_mut()).is_pending());
            gates.open(ends);
            let stored = store.await;
            match ends {
                Ends::Applied => assert!(stored.is_ok()),
                Ends::AppliedAndFailed | Ends::Failed => {
                    let error = stored.unwrap_err();
                    assert!(matches!(&error, StoreError::Sink(_)), "{error}");
                    assert_eq!(error.source().unwrap().to_string(), "refused");
                    assert_eq!(error.into_value(), None);
                }
                Ends::AppliedAndPanicked | Ends::Panicked => {
                    assert!(matches!(stored, Err(StoreError::Panicked)));
                }
            }
            assert_eq!(source.read(&rows, 1).await, source.row(1), "{ends:?}");
        }
    }
}

#[tokio::test]
async fn a_store_that_is_dropped_at_any_await_leaves_nothing_old() {
    for mode in [around::<Slow>, through::<Slow>] {
        for polls in 0..4 {
            let (cache, source) = (cache(), Arc::new(AtomicU32::new(0)));
            let rows = mode(&cache, Slow(source.clone()));
            rows.insert(1, 0);
            let mut store = Box::pin(rows.store(1, 7));
            for _ in 0..polls {
                assert!(poll(store.as_mut()).is_pending());
            }
            drop(store);
            let read = source.clone();
            let load = async move |_| Ok(read.load(SeqCst));
            let row = rows.get_or_load(&1, load).await.unwrap();
            assert_eq!(*row, source.load(SeqCst), "after {polls} polls");
        }
    }
}

/// The destructor of the sink's future comes before the invalidation.
#[tokio::test]
async fn what_the_sink_does_when_dropped_counts() {
    struct Late(Arc<AtomicU32>, Arc<std::sync::OnceLock<Region<u64, u32>>>);
    struct Commit(Arc<AtomicU32>, Region<u64, u32>);
    impl Drop for Commit {
        fn drop(&mut self) {
            self.1.insert(1, self.0.load(SeqCst)); // a reader at the worst of moments
            self.0.store(7, SeqCst);
        }
    }
    impl Sink<u64, u32> for Late {
        type Error = io::Error;
        async fn store(&self, _: Vec<(u64, Hit<u32>)>) -> io::Result<()> {
            let _commit = Commit(self.0.clone(), self.1.get().unwrap().clone());
            pending().await
        }
    }
    for mode in [around::<Late>, through::<Late>] {
        let (cache, source, handle) = (cache(), Arc::new(AtomicU32::new(0)), Arc::default());
        let rows = mode(&cache, Late(source.clone(), Arc::clone(&handle)));
        assert!(handle.set(rows.clone()).is_ok());
        let mut store = Box::pin(rows.store(1, 7));
        assert!(poll(store.as_mut()).is_pending());
        drop(store);
        assert_eq!(source.load(SeqCst), 7);
        assert!(rows.get(&1).is_none());
    }
}

#[tokio::test]
async fn of_overlapping_stores_none_is_believed() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = through(&cache, source.clone());
    // Each overlaps the next, the first and the last do not.
    let mut first = Box::pin(rows.store(1, 10));
    assert!(poll(first.as_mut()).is_pending());
    let mut second = Box::pin(rows.store(1, 20));
    assert!(poll(second.as_mut()).is_pending());
    let mut other = Box::pin(rows.store(2, 5));
    assert!(poll(other.as_mut()).is_pending());
    gates.open(Ends::Applied);
    first.await.unwrap();
    assert!(rows.get(&1).is_none(), "the second may have been before it");
    let mut third = Box::pin(rows.store(1, 30));
    assert!(poll(third.as_mut()).is_pending());
    gates.open(Ends::Applied);
    second.await.unwrap();
    assert!(rows.get(&1).is_none());
    gates.open(Ends::Applied);
    other.await.unwrap();
    assert_eq!(*rows.get(&2).unwrap(), 5, "of another key");
    gates.open(Ends::Applied);
    third.await.unwrap();
    assert!(rows.get(&1).is_none());
    // One that is alone is believed again.
    let mut last = Box::pin(rows.store(1, 40));
    assert!(poll(last.as_mut()).is_pending());
    gates.open(Ends::Applied);
    last.await.unwrap();
    assert_eq!(*rows.get(&1).unwrap(), 40);
}

#[tokio::test]
async fn one_that_was_dropped_overlapped_as_well() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = through(&cache, source.clone());
    let mut first = Box::pin(rows.store(1, 10));
    assert!(poll(first.as_mut()).is_pending());
    let mut dropped = Box::pin(rows.store(1, 20));
    assert!(poll(dropped.as_mut()).is_pending());
    drop(dropped);
    gates.open(Ends::Applied);
    first.await.unwrap();
    assert!(rows.get(&1).is_none());
    // But it is in nobody's way afterwards.
    gates.forget();
    let mut alone = Box::pin(rows.store(1, 30));
    assert!(poll(alone.as_mut()).is_pending());
    gates.open(Ends::Applied);
    alone.await.unwrap();
    assert_eq!(*rows.get(&1).unwrap(), 30);
}

#[tokio::test]
async fn whatever_happens_to_the_key_meanwhile_the_value_is_not_kept() {
    type Happens = fn(&Cache, &Region<u64, u32>);
    let happens: [(&str, Happens); 5] = [
        ("insert", |_, rows| rows.insert(1, 99)),
        ("invalidate", |_, rows| {
            rows.invalidate(&1);
        }),
        ("by name", |cache, rows| {
            cache.invalidate(rows.dep(&1));
        }),
        ("softly", |cache, rows| {
            cache.invalidate(rows.dep(&1).soft());
        }),
        ("the region", |cache, rows| {
            cache.invalidate(rows.whole());
        }),
    ];
    for (what, happens) in happens {
        let (cache, gates) = (cache(), Gates::new());
        let source = Source::gated(&gates);
        let rows = through(&cache, source.clone());
        let mut store = Box::pin(rows.store(1, 7));
        assert!(poll(store.as_mut()).is_pending());
        happens(&cache, &rows);
        gates.open(Ends::Applied);
        store.await.unwrap();
        assert!(rows.get(&1).is_none(), "{what}");
    }
}

#[tokio::test]
async fn a_dependency_that_moves_meanwhile_takes_the_value_with_it() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = through(&cache, source.clone());
    let declare = |entry: &swiftwater_cache::Scope| entry.depends_on(dep!("tariff", 7));
    for moved in [true, false] {
        let mut store = Box::pin(rows.store_with(1, 7, declare));
        assert!(poll(store.as_mut()).is_pending());
        cache.invalidate(dep!("tariff", if moved { 7 } else { 8 }));
        gates.open(Ends::Applied);
        store.await.unwrap();
        assert_eq!(rows.get(&1).is_some(), !moved);
    }
    cache.invalidate(dep!("tariff", 7));
    assert!(rows.get(&1).is_none(), "afterwards as well");
}

#[tokio::test]
async fn a_lifetime_counts_from_before_the_write() {
    let (cache, hand) = common::manual();
    let gates = Gates::new();
    let rows = through(&cache, Source::gated(&gates));
    let mut store = Box::pin(rows.store_with(1, 7, |entry| entry.ttl(Duration::from_secs(10))));
    assert!(poll(store.as_mut()).is_pending());
    hand.advance(Duration::from_secs(4));
    gates.open(Ends::Applied);
    store.await.unwrap();
    hand.advance(Duration::from_secs(5));
    assert!(rows.get(&1).is_some());
    hand.advance(Duration::from_secs(1));
    assert!(rows.get(&1).is_none());
}

#[tokio::test]
async fn a_load_that_began_before_a_store_ended_is_not_stored_after_it() {
    for mode in [around::<Source>, through::<Source>] {
        for before in [true, false] {
            let (cache, gates, loads) = (cache(), Gates::new(), Gates::new());
            let source = Source::gated(&gates);
            let rows = mode(&cache, source.clone());
            let start = || {
                let (rows, source, loads) = (rows.clone(), source.clone(), loads.clone());
                spawn(async move {
                    let load = async move |_| {
                        let row = source.row(1);
                        loads.pass(1).await;
                        Ok(row)
                    };
                    *rows.get_or_load(&1, load).await.unwrap()
                })
            };
            let mut load = before.then(start);
            settle().await;
            let mut store = Box::pin(rows.store(1, 7));
            assert!(poll(store.as_mut()).is_pending());
            load = load.or_else(|| Some(start()));
            settle().await;
            assert_eq!(loads.waiting(), 1);
            gates.open(Ends::Applied);
            store.await.unwrap();
            loads.open(());
            assert_eq!(load.unwrap().await.unwrap(), 0, "it asked before");
            assert_ne!(rows.get(&1).map(|row| *row), Some(0));
            assert_eq!(source.read(&rows, 1).await, 7);
        }
    }
}

#[tokio::test]
async fn what_was_made_of_the_old_value_is_the_past() {
    for mode in [around::<Source>, through::<Source>] {
        let (cache, source) = (cache(), Source::default());
        let rows = mode(&cache, source.clone());
        let labels: Region<u64, String> = cache.region("labels").build().unwrap();
        let label = async || {
            let (rows, source) = (rows.clone(), source.clone());
            let load = async move |_| Ok(format!("row {}", source.read(&rows, 1).await));
            labels.get_or_load(&1, load).await.unwrap().to_string()
        };
        assert_eq!(label().await, "row 0");
        rows.store(1, 7).await.unwrap();
        assert_eq!(label().await, "row 7");
    }
}

#[tokio::test]
async fn without_a_sink_or_after_the_end_the_value_comes_back() {
    let cache = cache();
    let plain: Region<u64, u32> = cache.region("plain").build().unwrap();
    let error = plain.store(1, 7).await.unwrap_err();
    assert!(matches!(error, StoreError::NoSink(7)));
    assert_eq!(error.into_value(), Some(7));
    plain.flush().await.unwrap();
    let source = Source::default();
    for mode in [around::<Source>, through::<Source>] {
        let cache = common::cache();
        let rows = mode(&cache, source.clone());
        cache.close().await.unwrap();
        assert!(matches!(rows.store(1, 7).await, Err(StoreError::Closed(7))));
        assert!(source.calls().is_empty() && rows.get(&1).is_none());
    }
}

#[tokio::test]
async fn stores_and_failures_are_counted() {
    let (cache, source) = (cache(), Source::default());
    let rows = through(&cache, source.clone());
    rows.store(1, 7).await.unwrap();
    source.refuse(2, true);
    assert!(rows.store(2, 7).await.is_err());
    let readings = readings(&rows);
    assert_eq!((readings["stores"], readings["store_failures"], readings["inserts"]), (2.0, 1.0, 0.0));
    assert!(!readings.contains_key("pending"));
}

#[test]
fn nonsense_is_refused_by_name() {
    let cache = cache();
    let option = |writes: Writes<Source>| {
        let built = cache.region::<u64, u32>("rows").writes(writes).build();
        built.map(drop).map_err(|error| error.option().to_owned())
    };
    let behind = || Writes::behind(Source::default());
    assert_eq!(option(behind().max_pending(0).into()).unwrap_err(), "max_pending");
    assert_eq!(option(behind().max_pending((1 << 24) + 1).into()).unwrap_err(), "max_pending");
    assert_eq!(option(behind().max_batch(0).into()).unwrap_err(), "max_batch");
    assert_eq!(option(behind().delay(Duration::MAX).into()).unwrap_err(), "delay");
    option(behind().delay(Duration::ZERO).into()).unwrap();
    let misplaced = cache.region::<u64, u32>("rows").writes(behind()).error::<io::Error>().build();
    assert_eq!(misplaced.unwrap_err().option(), "writes");
    let region = cache.region::<u64, u32>("rows").error::<io::Error>().writes(behind()).build();
    drop(region.unwrap());
}

/// The one that the tests use; and one that forgets is found out.
#[tokio::test]
async fn a_sink_that_keeps_the_laws_passes_and_one_that_does_not_fails() {
    struct Forgetful(Source);
    impl Sink<u64, u32> for Forgetful {
        type Error = io::Error;
        async fn store(&self, mut writes: Vec<(u64, Hit<u32>)>) -> io::Result<()> {
            writes.pop();
            self.0.store(writes).await
        }
    }
    let rows = [(1, 10, 11), (2, 20, 21), (3, 30, 31)];
    let source = Source::default();
    let read = async |key: &u64| source.rows().get(key).copied();
    conformance::a_sink_keeps_its_laws(&source, &rows, read).await;
    let source = Source::default();
    let forgetful = Forgetful(source.clone());
    let read = async |key: &u64| source.rows().get(key).copied();
    let rows = [(1, 10, 11), (2, 20, 21)];
    let mut laws = Box::pin(conformance::a_sink_keeps_its_laws(&forgetful, &rows, read));
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| poll(laws.as_mut()))).is_err());
}

#[test]
fn futures_of_stores_may_travel() {
    fn travels<T: Send>(_: T) {}
    let rows = through(&cache(), Source::default());
    travels(rows.store(1, 7));
    travels(rows.flush());
}
