//! Regions that know where their values come from.

mod common;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use common::{Gates, cache, manual, readings, settle, spawn};
use swiftwater_cache::{
    AnyError, Cache, LoadCx, LoadError, ManyCx, Region, RegionBuilder, Scope, Source, WarmError, Warmed,
    conformance, dep,
};

const MINUTE: Duration = Duration::from_secs(60);

/// A table that remembers what it was asked.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    rows: HashMap<u64, u32>,
    calls: Vec<Vec<u64>>,
    fails: bool,
}

#[derive(Debug)]
struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the table failed")
    }
}

impl std::error::Error for Failed {}

impl Table {
    fn with(keys: std::ops::Range<u64>) -> Self {
        let table = Self::default();
        table.asked().rows = keys.map(|key| (key, key as u32)).collect();
        table
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap()
    }

    fn calls(&self) -> Vec<Vec<u64>> {
        std::mem::take(&mut self.asked().calls)
    }
}

impl Source<u64, u32> for Table {
    type Error = Failed;

    async fn load(&self, cx: LoadCx<u64>) -> Result<Option<u32>, Failed> {
        cx.depends_on(dep!("row", cx.key()));
        let mut asked = self.asked();
        asked.calls.push(vec![*cx.key()]);
        if asked.fails { Err(Failed) } else { Ok(asked.rows.get(cx.key()).copied()) }
    }

    async fn load_many(&self, cx: ManyCx<u64>) -> Result<Vec<(u64, u32)>, Failed> {
        let mut asked = self.asked();
        asked.calls.push(cx.keys().to_vec());
        if asked.fails {
            return Err(Failed);
        }
        let mut found = Vec::new();
        for (place, key) in cx.keys().iter().enumerate() {
            cx.of(place).depends_on(dep!("row", key));
            found.extend(asked.rows.get(key).map(|value| (*key, *value)));
        }
        Ok(found)
    }
}

type Rows = Region<u64, u32, Failed>;

fn rows(cache: &Cache, table: &Table) -> RegionBuilder<u64, u32, Failed> {
    cache.region("rows").error().source(table.clone())
}

#[tokio::test]
async fn what_is_missing_comes_from_the_source_with_its_dependencies() {
    let (cache, table) = (cache(), Table::with(0..3));
    let rows: Rows = rows(&cache, &table).build().unwrap();
    assert_eq!(rows.fetch(&1).await.unwrap().as_deref(), Some(&1));
    assert_eq!(rows.fetch(&1).await.unwrap().as_deref(), Some(&1));
    assert_eq!(table.calls(), [[1]]);
    assert!(rows.fetch(&7).await.unwrap().is_none() && rows.fetch(&7).await.unwrap().is_none());
    assert_eq!(table.calls(), [[7], [7]], "that there is none is not stored");
    assert_eq!(readings(&rows)["load_failures"], 0.0, "and no failure");
    let many = rows.fetch_many(&[0, 1, 2, 9]).await.unwrap();
    assert_eq!(
        many.iter().map(|hit| hit.as_deref().copied()).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2), None]
    );
    assert_eq!(table.calls(), [[0, 2, 9]]);
    cache.invalidate(dep!("row", 2));
    assert!(rows.get(&2).is_none() && rows.get(&0).is_some());
    table.asked().fails = true;
    assert!(matches!(rows.fetch(&2).await, Err(LoadError::Loader(_))));
    assert!(matches!(rows.fetch_many(&[0, 2]).await, Err(LoadError::Loader(_))));
}

#[tokio::test]
async fn a_source_keeps_its_law_or_is_found_out() {
    conformance::a_source_keeps_its_law(Table::with(0..3), &[0, 2, 7, 2]).await;
    let liar = spawn(conformance_of_a_liar());
    let panic = liar.await.unwrap_err().into_panic();
    assert!(panic.downcast_ref::<String>().unwrap().contains("law 1"));
}

async fn conformance_of_a_liar() {
    /// It has nothing when asked for many.
    struct Liar;

    impl Source<u64, u32> for Liar {
        type Error = Failed;

        async fn load(&self, _: LoadCx<u64>) -> Result<Option<u32>, Failed> {
            Ok(Some(1))
        }

        async fn load_many(&self, _: ManyCx<u64>) -> Result<Vec<(u64, u32)>, Failed> {
            Ok(Vec::new())
        }
    }

    conformance::a_source_keeps_its_law(Liar, &[1]).await;
}

#[tokio::test]
async fn a_row_that_has_gone_leaves_when_it_is_loaded_anew() {
    let ((cache, hand), table) = (manual(), Table::with(0..3));
    let rows: Rows = rows(&cache, &table).ttl(MINUTE).stale_for(MINUTE).build().unwrap();
    rows.fetch(&1).await.unwrap();
    hand.advance(MINUTE);
    table.asked().rows.clear();
    assert!(rows.fetch(&1).await.unwrap().unwrap().is_stale());
    settle().await;
    assert!(rows.fetch(&1).await.unwrap().is_none());
}

#[tokio::test]
async fn a_load_within_a_load_inherits_from_the_source() {
    let (cache, table) = (cache(), Table::with(0..3));
    let rows: Rows = rows(&cache, &table).build().unwrap();
    let sums: Region<u64, u32> = cache.region("sums").build().unwrap();
    let load = async || {
        let inner = rows.clone();
        let sum = sums.get_or_load(&0, async move |cx| {
            let here = inner.fetch(&1).await?.map_or(0, |hit| *hit);
            let scope = Scope::clone(&cx);
            let there = spawn(async move {
                Ok::<_, LoadError<Failed>>(inner.within(&scope).fetch(&2).await?.map_or(0, |hit| *hit))
            });
            Ok(here + there.await??)
        });
        assert_eq!(sum.await.unwrap(), 3);
    };
    for key in [1, 2] {
        load().await;
        cache.invalidate(dep!("row", key));
        assert!(sums.get(&0).is_none());
    }
}

#[tokio::test]
async fn a_closure_is_a_source_and_loads_many_one_by_one() {
    let (cache, gates) = (cache(), Gates::<Option<u32>>::new());
    let gate = gates.clone();
    let source = move |cx: LoadCx<u64>| {
        let gate = gate.clone();
        async move {
            cx.depends_on(dep!("row", cx.key()));
            Ok::<_, Infallible>(gate.pass(*cx.key()).await)
        }
    };
    let rows: Region<u64, u32, Infallible> = cache.region("rows").error().source(source).build().unwrap();
    let asked = spawn({
        let rows = rows.clone();
        async move { rows.fetch_many(&[1, 2]).await }
    });
    for (key, value) in [(1, Some(10)), (2, None)] {
        settle().await;
        assert_eq!(gates.keys(), [key]);
        gates.open(value);
    }
    let found = asked.await.unwrap().unwrap();
    assert!(found[0].as_deref() == Some(&10) && found[1].is_none());
    cache.invalidate(dep!("row", 1));
    assert!(rows.get(&1).is_none(), "each has its own dependencies");
}

#[tokio::test]
async fn without_a_source_the_error_says_so() {
    let rows: Region<u64, u32> = cache().region("rows").build().unwrap();
    assert!(matches!(rows.fetch(&1).await, Err(LoadError::NoSource)));
    assert!(matches!(rows.fetch_many(&[1]).await, Err(LoadError::NoSource)));
    assert!(matches!(rows.warm([1]).await, Err(WarmError::NoSource)));
    let named = |region: RegionBuilder<u64, u32>| region.build().unwrap_err().to_string();
    assert!(named(cache().region("rows").refresh_every(MINUTE)).starts_with("refresh_every"));
    let source = async |_: LoadCx<u64>| Ok::<_, AnyError>(Some(1));
    let source = move |cx| source(cx);
    let lost: RegionBuilder<u64, u32, Infallible> = cache().region("rows").source(source).error();
    assert!(lost.build().unwrap_err().to_string().starts_with("source"), "it is not dropped in silence");
}

#[test]
fn a_timed_refresh_needs_a_runtime_and_a_time() {
    let source = |_| async { Ok::<_, AnyError>(Some(1)) };
    let build = |every| {
        let region: RegionBuilder<u64, u32> = cache().region("rows").source(source).refresh_every(every);
        region.build().map(drop).unwrap_err().to_string()
    };
    assert!(build(MINUTE).contains("needs a runtime"));
    assert!(build(Duration::ZERO).contains("longer than zero"));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_memory_is_loaded_anew_every_so_often_and_no_longer_than_the_region_lives() {
    let ((cache, hand), table) = (manual(), Table::with(0..250));
    let rows: Rows = rows(&cache, &table).ttl(2 * MINUTE).refresh_every(MINUTE).build().unwrap();
    rows.fetch_many(&(0..250).collect::<Vec<_>>()).await.unwrap();
    table.calls();
    table.asked().rows.insert(7, 70);
    table.asked().rows.remove(&8);
    cache.invalidate(dep!("row", 9));
    for round in 1..=3 {
        hand.advance(MINUTE);
        tokio::time::sleep(MINUTE).await;
        settle().await;
        let sizes: Vec<usize> = table.calls().iter().map(Vec::len).collect();
        let expected: &[usize] = if round == 1 { &[100, 100, 49] } else { &[100, 100, 48] };
        assert_eq!(sizes, expected, "what was invalidated is loaded when asked for, what is gone is gone");
        assert_eq!(rows.get(&7).as_deref(), Some(&70));
        assert!(rows.get(&8).is_none());
    }
    // Failures leave what is there, up to its lifetime.
    table.asked().fails = true;
    hand.advance(MINUTE);
    tokio::time::sleep(MINUTE).await;
    settle().await;
    assert!(!table.calls().is_empty() && rows.get(&7).is_some());
    hand.advance(MINUTE);
    assert!(rows.get(&7).is_none());
    drop(rows);
    tokio::time::sleep(2 * MINUTE).await;
    settle().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_keeps_nothing_alive_that_nobody_asks_for() {
    let ((cache, hand), table) = (manual(), Table::with(0..2));
    let rows: Rows = rows(&cache, &table).idle(3 * MINUTE).refresh_every(MINUTE).build().unwrap();
    rows.fetch_many(&[0, 1]).await.unwrap();
    for _ in 0..5 {
        assert!(rows.get(&0).is_some());
        hand.advance(MINUTE);
        tokio::time::sleep(MINUTE).await;
        settle().await;
    }
    assert!(rows.get(&1).is_none() && rows.get(&0).is_some());
    assert_eq!(table.calls().last().unwrap(), &[0]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_races_with_an_invalidation_is_not_stored() {
    let (cache, gates) = (cache(), Gates::<Option<u32>>::new());
    let gate = gates.clone();
    let source = move |cx: LoadCx<u64>| {
        let gate = gate.clone();
        async move { Ok::<_, AnyError>(gate.pass(*cx.key()).await) }
    };
    let rows: Region<u64, u32> = cache.region("rows").source(source).refresh_every(MINUTE).build().unwrap();
    rows.insert(1, 1);
    tokio::time::sleep(MINUTE).await;
    settle().await;
    assert_eq!(rows.get(&1).as_deref(), Some(&1), "it is served meanwhile");
    rows.invalidate(&1);
    gates.open(Some(2));
    settle().await;
    assert!(rows.get(&1).is_none());
}

#[tokio::test]
async fn keys_are_warmed_in_batches_and_counted() {
    let (cache, table) = (cache(), Table::with(0..10));
    let rows: Rows = rows(&cache, &table).build().unwrap();
    rows.insert(3, 33);
    let mut steps = Vec::new();
    let warmed = rows.warm(0..13).batch(5).on_progress(|warmed: Warmed| steps.push(warmed)).await.unwrap();
    assert_eq!((warmed.present, warmed.loaded, warmed.absent, warmed.failed), (1, 9, 3, 0));
    assert_eq!(table.calls(), [vec![0, 1, 2, 4], vec![5, 6, 7, 8, 9], vec![10, 11, 12]]);
    assert_eq!(rows.get(&3).as_deref(), Some(&33), "what is there stays");
    assert!((0..10).all(|key| rows.get(&key).is_some()));
    assert_eq!((steps.len(), steps[0].loaded, steps[2]), (3, 4, warmed));
    table.asked().fails = true;
    let warmed = rows.warm(20..30).await.unwrap();
    assert_eq!((warmed.failed, warmed.loaded), (10, 0));
    for (zero, option) in [(rows.warm([]).batch(0), "batch"), (rows.warm([]).concurrency(0), "concurrency")] {
        let Err(WarmError::Option(error)) = zero.await else { panic!("{option}") };
        assert!(error.to_string().contains(option));
    }
}

#[tokio::test]
async fn no_more_batches_are_on_their_way_than_were_allowed() {
    let (cache, gates) = (cache(), Gates::<Option<u32>>::new());
    let gate = gates.clone();
    let source = move |cx: LoadCx<u64>| {
        let gate = gate.clone();
        async move { Ok::<_, AnyError>(gate.pass(*cx.key()).await) }
    };
    let rows: Region<u64, u32> = cache.region("rows").source(source).build().unwrap();
    let warming = spawn({
        let rows = rows.clone();
        async move { rows.warm(0..5).batch(1).concurrency(2).await }
    });
    for expected in [vec![0, 1], vec![1, 2], vec![2, 3], vec![3, 4], vec![4]] {
        settle().await;
        assert_eq!(gates.keys(), expected);
        gates.open(Some(1));
    }
    assert_eq!(warming.await.unwrap().unwrap().loaded, 5);
    // Dropped half-way, it begins no more.
    let warming = spawn({
        let rows = rows.clone();
        async move { rows.warm(10..15).batch(1).await }
    });
    settle().await;
    warming.abort();
    settle().await;
    gates.open(Some(1));
    settle().await;
    assert!(gates.keys().is_empty() && rows.get(&10).is_some());
}

#[test]
fn warming_needs_a_runtime() {
    let source = |_| async { Ok::<_, AnyError>(Some(1)) };
    let rows: Region<u64, u32> = cache().region("rows").source(source).build().unwrap();
    let mut warm = rows.warm([1]).into_future();
    let polled = warm.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(matches!(polled, std::task::Poll::Ready(Err(WarmError::NoRuntime))));
}

#[tokio::test]
async fn what_has_gone_idle_is_warmed_again() {
    let ((cache, hand), table) = (manual(), Table::with(0..3));
    let rows: Rows = rows(&cache, &table).idle(MINUTE).build().unwrap();
    rows.fetch_many(&[0, 1]).await.unwrap();
    hand.advance(2 * MINUTE);
    let warmed = rows.warm(0..3).await.unwrap();
    assert_eq!((warmed.loaded, warmed.present), (3, 0));
    assert!((0..3).all(|key| rows.get(&key).is_some()));
}
