//! Values that the source gets later: what readers see meanwhile, in which order they arrive, and what can be lost.

mod common;
mod sink_common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{Gates, cache, manual, readings, settle, spawn};
use sink_common::{Ends, Source, press};
use swiftwater_cache::{Behind, Cache, Hit, LoadError, ManyCx, Region, Sink, StoreError, Writes, dep};
use swiftwater_core::Tunable;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, advance},
};

const DELAY: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);

fn behind(cache: &Cache, writes: Behind<Source>) -> Region<u64, u32> {
    cache.region("rows").writes(writes).build().unwrap()
}

/// Lets so much time pass, and all that is to happen then happen.
async fn pass(time: Duration) {
    settle().await;
    advance(time).await;
    settle().await;
}

/// A region with room for one entry, where `key` has been stored and evicted since.
async fn evicted(cache: &Cache, source: &Source, key: u64, value: u32) -> Region<u64, u32> {
    let rows = cache.region("rows").memory(1).writes(Writes::behind(source.clone())).build().unwrap();
    rows.store(key, value).await.unwrap();
    press(&rows, key);
    rows
}

#[tokio::test(start_paused = true)]
async fn a_store_shows_at_once_and_arrives_when_its_time_has_come() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    rows.store(1, 7).await.unwrap();
    assert_eq!(*rows.get(&1).unwrap(), 7);
    pass(DELAY - Duration::from_millis(2)).await;
    assert!(source.calls().is_empty());
    pass(Duration::from_millis(4)).await;
    assert_eq!(source.calls(), [[(1, 7)]]);
    assert_eq!(source.row(1), 7);
    pass(MINUTE).await;
    assert!(source.calls().is_empty(), "once is enough");
}

#[tokio::test(start_paused = true)]
async fn a_later_write_takes_the_place_of_one_that_waits() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    rows.store(1, 10).await.unwrap();
    rows.store(2, 20).await.unwrap();
    rows.store(1, 11).await.unwrap();
    pass(DELAY * 2).await;
    assert_eq!(source.calls(), [[(1, 11), (2, 20)]], "in its place in the line");
}

#[tokio::test(start_paused = true)]
async fn of_one_key_one_write_is_on_its_way_at_a_time() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = behind(&cache, Writes::behind(source.clone()).delay(Duration::ZERO));
    rows.store(1, 10).await.unwrap();
    settle().await;
    for value in 11..14 {
        rows.store(1, value).await.unwrap();
        pass(DELAY).await;
    }
    assert_eq!(source.calls(), [[(1, 10)]]);
    gates.open(Ends::Applied);
    settle().await;
    assert_eq!(source.calls(), [[(1, 13)]], "the last one; those in between have been replaced");
    gates.open(Ends::Applied);
    settle().await;
    assert_eq!(source.row(1), 13);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_and_a_full_one_goes_at_once() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()).max_batch(3));
    for key in 0..7 {
        rows.store(key, 1).await.unwrap();
    }
    settle().await;
    let sent: Vec<Vec<u64>> =
        source.calls().iter().map(|call| call.iter().map(|(key, _)| *key).collect()).collect();
    assert_eq!(sent, [[0, 1, 2], [3, 4, 5]], "first come, first served");
    pass(DELAY * 2).await;
    assert_eq!(source.calls(), [[(6, 1)]]);
    // Also when the task waits already.
    for key in 0..3 {
        rows.store(key, 2).await.unwrap();
        assert!(source.calls().is_empty());
        settle().await;
    }
    assert_eq!(source.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_too_many_comes_back_and_changes_nothing() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()).max_pending(2));
    rows.insert(3, 1);
    rows.store(1, 7).await.unwrap();
    rows.store(2, 7).await.unwrap();
    let error = rows.store(3, 7).await.unwrap_err();
    assert!(matches!(error, StoreError::Full(7)), "{error}");
    assert_eq!(*rows.get(&3).unwrap(), 1);
    rows.store(1, 8).await.unwrap(); // in the place of the other
    rows.flush().await.unwrap();
    assert_eq!(source.rows(), [(1, 8), (2, 7)].into());
    rows.store(3, 7).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_counts_as_pending() {
    let (cache, gates) = (cache(), Gates::new());
    let rows = behind(&cache, Writes::behind(Source::gated(&gates)).max_pending(1).delay(Duration::ZERO));
    rows.store(1, 7).await.unwrap();
    settle().await;
    assert_eq!(gates.waiting(), 1);
    assert!(matches!(rows.store(1, 8).await, Err(StoreError::Full(8))));
    gates.open(Ends::Applied);
    settle().await;
    rows.store(1, 8).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_refused_holds_up_only_itself() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    source.refuse(1, true);
    for key in 0..4 {
        rows.store(key, 7).await.unwrap();
    }
    pass(DELAY * 2).await;
    let calls = source.calls();
    assert_eq!(calls[0].len(), 4);
    assert!(calls[1..].iter().all(|call| call.len() == 1), "one by one: {calls:?}");
    assert_eq!(source.rows(), [(0, 7), (2, 7), (3, 7)].into());
    // Others go together as before, while it is tried again and again.
    let mut tries = 0;
    for round in 0..100 {
        rows.store(10, round).await.unwrap();
        rows.store(11, round).await.unwrap();
        pass(DELAY * 2).await;
        let calls = source.calls();
        let (alone, others): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| *call == [(1, 7)]);
        tries += alone.len();
        assert_eq!(others, [[(10, round), (11, round)]]);
    }
    assert!((3..20).contains(&tries), "{tries} tries in 20 s");
    source.refuse(1, false);
    pass(MINUTE).await;
    assert_eq!(source.row(1), 7);
    source.calls();
    pass(MINUTE).await;
    assert!(source.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_value_is_tried_without_waiting_for_the_pause_of_the_one_before() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    source.refuse(1, true);
    rows.store(1, 7).await.unwrap();
    for _ in 0..200 {
        pass(DELAY * 10).await; // its pauses are long by now
    }
    source.refuse(1, false);
    source.calls();
    rows.store(1, 8).await.unwrap();
    pass(DELAY * 2).await;
    assert_eq!(source.row(1), 8);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_down_is_left_in_peace_and_gets_all_of_it_afterwards() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()).max_batch(100));
    source.set_down(true);
    for key in 0..1000 {
        rows.store(key, 7).await.unwrap();
    }
    for _ in 0..600 {
        pass(Duration::from_secs(1)).await;
    }
    let calls = source.calls().len();
    assert!((50..500).contains(&calls), "{calls} calls in ten minutes");
    assert!(source.rows().is_empty());
    assert_eq!(readings(&rows)["pending"], 1000.0);
    source.set_down(false);
    for _ in 0..60 {
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(source.rows().len(), 1000);
    let calls = source.calls().len();
    assert!(calls < 300, "{calls} calls for what is left");
    assert_eq!(readings(&rows)["pending"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_sink_is_an_error_like_any_other() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = behind(&cache, Writes::behind(source.clone()).delay(Duration::ZERO));
    rows.store(1, 7).await.unwrap();
    settle().await;
    gates.open(Ends::Panicked);
    pass(DELAY * 2).await;
    gates.open(Ends::Applied);
    settle().await;
    assert_eq!(source.row(1), 7);
}

/// Nobody waits for ever for what a key does that is not well.
#[tokio::test(start_paused = true)]
async fn a_key_that_panics_ends_the_task_and_not_the_line() {
    static CLONES: AtomicU32 = AtomicU32::new(u32::MAX);
    #[derive(Debug, Hash, PartialEq, Eq)]
    struct Fragile(u64);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert_ne!(CLONES.fetch_sub(1, SeqCst), 0, "as the test wants it");
            Self(self.0)
        }
    }
    struct Rows(Source);
    impl Sink<Fragile, u32> for Rows {
        type Error = std::io::Error;
        async fn store(&self, writes: Vec<(Fragile, Hit<u32>)>) -> Result<(), Self::Error> {
            self.0.store(writes.into_iter().map(|(key, value)| (key.0, value)).collect()).await
        }
    }
    let (cache, source) = (cache(), Source::default());
    let rows: Region<Fragile, u32> =
        cache.region("rows").writes(Writes::behind(Rows(source.clone()))).build().unwrap();
    rows.store(Fragile(1), 7).await.unwrap();
    rows.store(Fragile(2), 7).await.unwrap();
    CLONES.store(1, SeqCst); // the second that the task makes
    rows.flush().await.unwrap();
    assert_eq!(CLONES.load(SeqCst) >> 31, 1, "it has happened");
    assert_eq!(source.rows(), [(1, 7), (2, 7)].into());
}

/// The write fails and a newer one of its key has come meanwhile: the older is not brought to the source after it.
#[tokio::test(start_paused = true)]
async fn what_failed_does_not_come_back_after_a_newer_one() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = behind(&cache, Writes::behind(source.clone()).delay(Duration::ZERO));
    rows.store(1, 10).await.unwrap();
    settle().await;
    rows.store(1, 11).await.unwrap();
    gates.open(Ends::Failed);
    pass(DELAY * 2).await;
    assert_eq!(source.calls(), [[(1, 10)], [(1, 11)]]);
    gates.open(Ends::Applied);
    pass(MINUTE).await;
    assert_eq!((source.row(1), source.calls().len(), gates.waiting()), (11, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_load_lets_the_write_go_first_at_once() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = evicted(&cache, &source, 1, 7).await;
    let asked = Instant::now();
    let load = {
        let (rows, source) = (rows.clone(), source.clone());
        spawn(async move { source.read(&rows, 1).await })
    };
    settle().await;
    assert_eq!(source.calls(), [[(1, 7)]], "without waiting for company");
    assert!(source.loads().is_empty(), "it would read the past");
    gates.open(Ends::Applied);
    assert_eq!(load.await.unwrap(), 7);
    assert_eq!(source.loads(), [1]);
    assert_eq!(Instant::now(), asked);
    assert_eq!(*rows.get(&1).unwrap(), 7);
}

/// It reads in the call that makes its future.
#[tokio::test(start_paused = true)]
async fn a_loader_is_not_even_made_before_the_write_has_arrived() {
    let (cache, source) = (cache(), Source::default());
    let rows = evicted(&cache, &source, 1, 7).await;
    let load = |_| {
        let row = source.row(1);
        async move { Ok(row) }
    };
    assert_eq!(*rows.get_or_load(&1, load).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_load_of_many_keys_waits_for_all_their_writes_at_a_time() {
    let (cache, source) = (cache(), Source::default());
    source.set(9, 90);
    let rows = behind(&cache, Writes::behind(source.clone()));
    for key in 0..4 {
        rows.store(key, 7).await.unwrap();
        rows.invalidate(&key);
    }
    let asked = Instant::now();
    let read = source.clone();
    let load = move |cx: ManyCx<u64>| {
        let found: Vec<_> = cx.keys().iter().map(|key| (*key, read.row(*key))).collect();
        async move { Ok(found) }
    };
    let found = rows.get_or_load_many(&[0, 9, 2, 3], load).await.unwrap();
    let found: Vec<u32> = found.into_iter().map(|row| *row.unwrap()).collect();
    assert_eq!(found, [7, 90, 7, 7]);
    assert_eq!(source.calls(), [[(0, 7), (2, 7), (3, 7)]]);
    assert_eq!(Instant::now(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_load_whose_write_fails_fails_and_all_who_wait_for_it() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = evicted(&cache, &source, 1, 7).await;
    cache.invalidate(dep!("something else"));
    let loads: Vec<_> = (0..3)
        .map(|_| {
            let (rows, source) = (rows.clone(), source.clone());
            spawn(async move { source.load(&rows, 1).await.map(|row| *row) })
        })
        .collect();
    settle().await;
    gates.open(Ends::Failed);
    for load in loads {
        assert!(matches!(load.await.unwrap(), Err(LoadError::Unwritten)));
    }
    assert!(source.loads().is_empty());
    // It is pending still.
    pass(DELAY * 2).await;
    gates.open(Ends::Applied);
    settle().await;
    assert_eq!(source.read(&rows, 1).await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_while_the_write_is_on_its_way_leaves_the_load_to_the_others() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = evicted(&cache, &source, 1, 7).await;
    let load = || {
        let (rows, source) = (rows.clone(), source.clone());
        spawn(async move { source.read(&rows, 1).await })
    };
    let leader = load();
    settle().await;
    let joiner = load();
    settle().await;
    leader.abort();
    settle().await;
    gates.open(Ends::Applied);
    assert_eq!(joiner.await.unwrap(), 7);
    assert_eq!((source.calls().len(), source.loads().len()), (1, 1));
}

/// Failing together says nothing of one of them.
#[tokio::test(start_paused = true)]
async fn a_load_does_not_fail_because_of_another_write() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    source.refuse(2, true);
    for key in 1..4 {
        rows.store(key, 7).await.unwrap();
        rows.invalidate(&key);
    }
    let load = |key| {
        let (rows, source) = (rows.clone(), source.clone());
        spawn(async move { source.load(&rows, key).await.map(|row| *row) })
    };
    let loads = [load(1), load(2), load(3)];
    let mut results = Vec::new();
    for load in loads {
        results.push(load.await.unwrap().ok());
    }
    assert_eq!(source.calls()[0].len(), 3, "they went together");
    assert_eq!(results, [Some(7), None, Some(7)]);
}

#[tokio::test(start_paused = true)]
async fn fail_safe_serves_what_expired_while_the_write_fails() {
    let (cache, hand) = manual();
    let source = Source::default();
    let rows: Region<u64, u32> = cache
        .region("rows")
        .ttl(Duration::from_secs(1))
        .fail_safe(MINUTE, Duration::from_secs(1))
        .writes(Writes::behind(source.clone()))
        .build()
        .unwrap();
    source.set_down(true);
    rows.store(1, 7).await.unwrap();
    hand.advance(Duration::from_secs(2));
    let row = source.load(&rows, 1).await.unwrap();
    assert!(row.is_stale() && row == 7);
    assert!(source.loads().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_does_not_hold_a_load_beyond_its_time_outs() {
    let (cache, hand) = manual();
    let gates = Gates::new();
    let source = Source::gated(&gates);
    let rows: Region<u64, u32> = cache
        .region("rows")
        .ttl(Duration::from_secs(1))
        .fail_safe(MINUTE, Duration::from_secs(1))
        .soft_timeout(Duration::from_secs(1))
        .load_timeout(Duration::from_secs(5))
        .writes(Writes::behind(source.clone()))
        .build()
        .unwrap();
    rows.store(1, 7).await.unwrap();
    rows.store(2, 7).await.unwrap();
    rows.invalidate(&2);
    hand.advance(Duration::from_secs(2));
    let start = Instant::now();
    let row = source.load(&rows, 1).await.unwrap();
    assert!(row.is_stale() && row == 7);
    assert_eq!((Instant::now() - start).as_secs(), 1);
    let start = Instant::now();
    assert!(matches!(source.load(&rows, 2).await, Err(LoadError::TimedOut)));
    assert_eq!((Instant::now() - start).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_background_does_not_bring_back_the_old_value() {
    let (cache, hand) = manual();
    let source = Source::default();
    let rows: Region<u64, u32> = cache
        .region("rows")
        .ttl(Duration::from_secs(10))
        .refresh_after(0.5)
        .stale_for(MINUTE)
        .writes(Writes::behind(source.clone()).delay(MINUTE))
        .build()
        .unwrap();
    rows.store(1, 7).await.unwrap();
    for seconds in [6, 6] {
        hand.advance(Duration::from_secs(seconds)); // due, then expired
        assert_eq!(source.read(&rows, 1).await, 7);
        settle().await;
        assert!(source.loads().is_empty());
    }
    rows.flush().await.unwrap();
    assert_eq!(source.read(&rows, 1).await, 7);
    settle().await;
    assert_eq!(source.loads(), [1]);
    assert_eq!(*rows.get(&1).unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_began_before_the_store_is_not_stored() {
    let (cache, source, gates) = (cache(), Source::default(), Gates::new());
    let rows = behind(&cache, Writes::behind(source.clone()));
    let load = {
        let (rows, gates) = (rows.clone(), gates.clone());
        spawn(async move { *rows.get_or_load(&1, async move |_| Ok(gates.pass(1).await)).await.unwrap() })
    };
    settle().await;
    rows.store(1, 7).await.unwrap();
    gates.open(0);
    assert_eq!(load.await.unwrap(), 0);
    assert_eq!(*rows.get(&1).unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_the_source_himself_is_told_when_the_write_arrives() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    let labels: Region<u64, u32> = cache.region("labels").build().unwrap();
    let label = async || {
        let (rows, source) = (rows.clone(), source.clone());
        let load = async move |cx: swiftwater_cache::LoadCx<u64>| {
            cx.depends_on(rows.dep(cx.key()));
            Ok(source.row(*cx.key()))
        };
        *labels.get_or_load(&1, load).await.unwrap()
    };
    let _named = rows.dep(&1);
    rows.store(1, 7).await.unwrap();
    assert_eq!(label().await, 0, "from the past");
    assert!(labels.get(&1).is_some());
    rows.flush().await.unwrap();
    assert_eq!(label().await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_declared_dependency_counts_from_the_store_on() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    rows.store_with(1, 7, |entry| entry.depends_on(dep!("tariff", 7))).await.unwrap();
    cache.invalidate(dep!("tariff", 7));
    assert!(rows.get(&1).is_none());
    assert_eq!(source.read(&rows, 1).await, 7, "it is not lost for that");
}

#[tokio::test(start_paused = true)]
async fn a_flush_lets_everything_go_at_once_and_waits_for_it() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = behind(&cache, Writes::behind(source.clone()).max_batch(2).delay(MINUTE));
    rows.flush().await.unwrap();
    let start = Instant::now();
    for key in 0..3 {
        rows.store(key, 7).await.unwrap();
    }
    let flush = {
        let rows = rows.clone();
        spawn(async move { rows.flush().await })
    };
    for sent in [2, 1] {
        settle().await;
        assert!(!flush.is_finished());
        assert_eq!(source.calls()[0].len(), sent);
        gates.open(Ends::Applied);
    }
    flush.await.unwrap().unwrap();
    assert_eq!(source.rows().len(), 3);
    assert_eq!(Instant::now(), start);
}

#[tokio::test(start_paused = true)]
async fn a_flush_says_how_much_has_failed() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    source.refuse(1, true);
    source.refuse(3, true);
    for key in 0..5 {
        rows.store(key, 7).await.unwrap();
    }
    let error = rows.flush().await.unwrap_err();
    assert_eq!(error.writes(), 2);
    assert_eq!(error.to_string(), "2 writes have not arrived at the sink");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "refused");
    assert_eq!(source.rows(), [(0, 7), (2, 7), (4, 7)].into());
    source.refuse(1, false);
    source.refuse(3, false);
    rows.flush().await.unwrap();
    assert_eq!(source.rows().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_is_dropped_loses_nothing() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = behind(&cache, Writes::behind(source.clone()));
    rows.store(1, 7).await.unwrap();
    let flush = {
        let rows = rows.clone();
        spawn(async move { rows.flush().await })
    };
    settle().await;
    flush.abort();
    settle().await;
    gates.open(Ends::Applied);
    settle().await;
    assert_eq!(source.row(1), 7);
    rows.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_brings_everything_to_the_source_and_takes_no_more() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()).delay(MINUTE));
    for key in 0..5 {
        rows.store(key, 7).await.unwrap();
    }
    let start = Instant::now();
    cache.close().await.unwrap();
    assert_eq!(Instant::now(), start);
    assert_eq!(source.rows().len(), 5);
    assert!(matches!(rows.store(9, 7).await, Err(StoreError::Closed(7))));
    assert!(rows.get(&9).is_none());
    assert_eq!(*rows.get(&1).unwrap(), 7, "the region goes on");
}

#[tokio::test(start_paused = true)]
async fn closing_says_what_has_not_arrived_and_makes_it_the_past() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    source.refuse(1, true);
    source.refuse(2, true);
    for key in 0..4 {
        rows.store(key, 7).await.unwrap();
    }
    let error = cache.close().await.unwrap_err();
    assert_eq!(error.unwritten(), Some(("rows", 2)));
    assert_eq!(error.layer(), None);
    assert_eq!(error.to_string(), "2 writes of the region `rows` have not arrived at the source");
    assert_eq!(source.rows(), [(0, 7), (3, 7)].into());
    assert!(rows.get(&0).is_some() && rows.get(&1).is_none() && rows.get(&2).is_none());
    // They are tried as long as the process lives.
    source.refuse(1, false);
    source.refuse(2, false);
    cache.close().await.unwrap();
    assert_eq!(source.rows().len(), 4);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// As when the process dies: its tasks end wherever they are.
#[test]
fn what_was_pending_when_the_runtime_ended_is_lost_and_nothing_else() {
    let (cache, gates) = (cache(), Gates::new());
    let source = Source::gated(&gates);
    let rows = behind(&cache, Writes::behind(source.clone()).max_batch(2));
    let first = runtime();
    first.block_on(async {
        rows.store(1, 10).await.unwrap();
        rows.store(2, 20).await.unwrap();
        settle().await;
        gates.open(Ends::Applied);
        rows.flush().await.unwrap();
        rows.store(2, 21).await.unwrap();
        rows.store(3, 30).await.unwrap();
        settle().await;
        assert_eq!(gates.waiting(), 1, "on their way");
        rows.store(4, 40).await.unwrap();
    });
    drop(first);
    assert_eq!(source.rows(), [(1, 10), (2, 20)].into());
    // The process has not died, so they wait for a runtime.
    source.calls();
    let second = runtime();
    second.block_on(async {
        gates.forget();
        let flush = {
            let rows = rows.clone();
            spawn(async move { rows.flush().await })
        };
        for _ in 0..3 {
            settle().await;
            gates.open(Ends::Applied);
        }
        flush.await.unwrap().unwrap();
    });
    assert_eq!(source.rows(), [(1, 10), (2, 21), (3, 30), (4, 40)].into());
}

#[test]
fn a_load_in_another_runtime_takes_over_what_was_lost() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    runtime().block_on(async { rows.store(1, 7).await.unwrap() });
    rows.invalidate(&1);
    assert_eq!(runtime().block_on(source.read(&rows, 1)), 7);
}

#[test]
fn without_a_runtime_the_value_comes_back() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source));
    let timeless = Builder::new_current_thread().build().unwrap();
    for stored in [futures(rows.store(1, 7)), timeless.block_on(rows.store(1, 7))] {
        assert!(matches!(stored, Err(StoreError::NoRuntime(7))));
        assert!(rows.get(&1).is_none());
    }
}

/// Polls once: what never waits needs no runtime.
fn futures<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

/// A region lives in its handles and in what it has to do: its name shows which.
#[tokio::test(start_paused = true)]
async fn there_is_a_task_only_while_something_is_pending_and_it_needs_no_handle() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    rows.store(1, 7).await.unwrap();
    drop(rows);
    assert!(cache.region::<u64, u32>("rows").build().is_err(), "a write is pending");
    pass(DELAY * 2).await;
    assert_eq!(source.row(1), 7);
    let rows = behind(&cache, Writes::behind(source.clone()));
    rows.store(1, 8).await.unwrap();
    rows.flush().await.unwrap();
    settle().await;
    drop(rows);
    drop(cache.region::<u64, u32>("rows").build().expect("nothing holds the old one"));
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_shows_and_its_bound_can_be_turned() {
    let (cache, source) = (cache(), Source::default());
    let rows = behind(&cache, Writes::behind(source.clone()));
    source.refuse(1, true);
    rows.store(1, 7).await.unwrap();
    rows.store(2, 7).await.unwrap();
    let shown = readings(&rows);
    assert_eq!((shown["stores"], shown["pending"]), (2.0, 2.0));
    assert!(rows.flush().await.is_err());
    let shown = readings(&rows);
    assert_eq!((shown["pending"], shown["store_failures"]), (1.0, 2.0), "together, and alone");
    let mut found = false;
    rows.knobs(&mut |knob| {
        if knob.name() == "max_pending" {
            found = true;
            knob.set(1.0).unwrap();
        }
    });
    assert!(found);
    assert!(matches!(rows.store(3, 7).await, Err(StoreError::Full(7))));
}

/// Many threads store, load and flush; what was acknowledged is never unseen, and arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_never_load_what_is_older_than_what_they_stored() {
    const KEYS: u64 = 4;
    let (cache, source) = (cache(), Source::default());
    let writes = Writes::behind(source.clone()).delay(Duration::from_millis(1)).max_batch(3);
    let rows: Region<u64, u32> = cache.region("rows").memory(2).writes(writes).build().unwrap();
    let latest: Arc<Vec<Mutex<u32>>> = Arc::new((0..KEYS).map(|_| Mutex::new(0)).collect());
    let acknowledged: Arc<Vec<AtomicU32>> = Arc::new((0..KEYS).map(|_| AtomicU32::new(0)).collect());
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (rows, source) = (rows.clone(), source.clone());
            let (latest, acknowledged) = (latest.clone(), acknowledged.clone());
            spawn(async move {
                for step in 0..500 {
                    let key = (task * 7 + step * 13) % KEYS;
                    let place = key as usize;
                    if (task + step) % 3 == 0 {
                        // One writer of a key at a time, so that the last is known.
                        let value = {
                            let mut latest = latest[place].lock().unwrap();
                            *latest += 1;
                            futures(rows.store(key, *latest)).unwrap();
                            *latest
                        };
                        acknowledged[place].fetch_max(value, SeqCst);
                    } else {
                        let least = acknowledged[place].load(SeqCst);
                        let read = source.clone();
                        let load = async move |_| {
                            let row = read.row(key);
                            tokio::task::yield_now().await;
                            Ok(row)
                        };
                        let row = *rows.get_or_load(&key, load).await.unwrap();
                        assert!(row >= least, "{row} of {key}, after {least} was acknowledged");
                    }
                    if step % 50 == 0 {
                        rows.flush().await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    rows.flush().await.unwrap();
    for key in 0..KEYS {
        assert_eq!(source.row(key), *latest[key as usize].lock().unwrap());
    }
}
