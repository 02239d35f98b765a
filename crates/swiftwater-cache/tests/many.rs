//! Many keys at once.

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{Gates, cache, readings, region, settle, spawn};
use swiftwater_cache::{Cache, Hit, LoadCx, LoadError, ManyCx, Region, dep};
use swiftwater_core::Clock;

const SECOND: Duration = Duration::from_secs(1);

/// What was asked for, call by call.
type Calls = Arc<Mutex<Vec<Vec<u64>>>>;

async fn load(region: &Region<u64, u64>, keys: &[u64], calls: &Calls) -> Vec<Option<Hit<u64>>> {
    let calls = calls.clone();
    let loader = move |cx: ManyCx<u64>| {
        calls.lock().unwrap().push(cx.keys().to_vec());
        async move {
            cx.depends_on(dep!("table"));
            for (place, key) in cx.keys().iter().enumerate() {
                cx.of(place).depends_on(dep!("row", *key));
            }
            // Nothing for multiples of ten, and something nobody has asked for.
            let there = cx.keys().iter().filter(|key| !key.is_multiple_of(10)).map(|key| (*key, key + 1));
            Ok(there.chain([(999, 0)]).collect::<HashMap<_, _>>())
        }
    };
    region.get_or_load_many(keys, loader).await.unwrap()
}

fn values(hits: &[Option<Hit<u64>>]) -> Vec<Option<u64>> {
    hits.iter().map(|hit| hit.as_deref().copied()).collect()
}

#[tokio::test]
async fn what_is_missing_is_loaded_by_one_call_and_in_order() {
    let cache = cache();
    let (rows, calls) = (region(&cache, "rows"), Calls::default());
    rows.insert(2, 100);
    let found = load(&rows, &[1, 2, 10, 3, 1], &calls).await;
    assert_eq!(values(&found), [Some(2), Some(100), None, Some(4), Some(2)]);
    assert_eq!(*calls.lock().unwrap(), [[1, 10, 3]], "each key once");
    assert!(rows.get(&10).is_none() && rows.get(&999).is_none());
    assert_eq!(values(&load(&rows, &[3, 1], &calls).await), [Some(4), Some(2)]);
    assert_eq!(calls.lock().unwrap().len(), 1);
    assert!(load(&rows, &[], &calls).await.is_empty());
    assert_eq!(readings(&rows)["load_failures"], 0.0);
}

#[tokio::test]
async fn each_value_has_its_own_dependencies_and_those_of_all() {
    let cache = cache();
    let (rows, calls) = (region(&cache, "rows"), Calls::default());
    load(&rows, &[1, 2, 3], &calls).await;
    cache.invalidate(dep!("row", 2));
    let there = || [1, 2, 3].map(|key| rows.get(&key).is_some());
    assert_eq!(there(), [true, false, true]);
    cache.invalidate(dep!("table"));
    assert_eq!(there(), [false; 3]);
}

#[tokio::test]
async fn keys_that_are_being_loaded_are_waited_for() {
    let cache = cache();
    let (rows, calls) = (region(&cache, "rows"), Calls::default());
    let gates = Gates::new();
    let (inner, region) = (gates.clone(), rows.clone());
    let one =
        spawn(async move { *region.get_or_load(&1, async move |_| Ok(inner.pass(1).await)).await.unwrap() });
    settle().await;
    let (region, inner) = (rows.clone(), calls.clone());
    let many = spawn(async move { values(&load(&region, &[1, 2], &inner).await) });
    settle().await;
    assert_eq!(*calls.lock().unwrap(), [[2]]);
    gates.open(50);
    assert_eq!(many.await.unwrap(), [Some(50), Some(3)]);
    assert_eq!(one.await.unwrap(), 50);
}

#[tokio::test]
async fn a_load_from_before_the_invalidation_is_not_taken() {
    let cache = cache();
    let (rows, calls) = (region(&cache, "rows"), Calls::default());
    let gates = Gates::new();
    let (inner, region) = (gates.clone(), rows.clone());
    let load_one = async move |cx: LoadCx<u64>| {
        cx.depends_on(dep!("row", 1));
        Ok(inner.pass(1).await)
    };
    let one = spawn(async move { *region.get_or_load(&1, load_one).await.unwrap() });
    settle().await;
    cache.invalidate(dep!("row", 1));
    let (region, inner) = (rows.clone(), calls.clone());
    let many = spawn(async move { values(&load(&region, &[1, 2], &inner).await) });
    settle().await;
    gates.open(50);
    assert_eq!(many.await.unwrap(), [Some(2), Some(3)]);
    assert_eq!(one.await.unwrap(), 50);
    assert_eq!(*calls.lock().unwrap(), [[2], [1]]);
}

#[tokio::test]
async fn others_may_join_and_learn_that_there_is_nothing() {
    let cache = cache();
    let rows: Region<u64, u64> = region(&cache, "rows");
    let gates = Gates::<()>::new();
    let (inner, region) = (gates.clone(), rows.clone());
    let many = spawn(async move {
        let loader = move |_: ManyCx<u64>| {
            let gates = inner.clone();
            async move {
                gates.pass(0).await;
                Ok([(1, 11)])
            }
        };
        values(&region.get_or_load_many(&[1, 2], loader).await.unwrap())
    });
    settle().await;
    let ask = |key: u64| {
        let region = rows.clone();
        spawn(async move { region.get_or_load(&key, async |_| Ok(77)).await.map(|hit| *hit) })
    };
    let (first, second) = (ask(1), ask(2));
    settle().await;
    gates.open(());
    assert_eq!(first.await.unwrap().unwrap(), 11);
    assert!(matches!(second.await.unwrap().unwrap_err(), LoadError::Absent));
    assert_eq!(many.await.unwrap(), [Some(11), None]);
}

#[tokio::test]
async fn an_error_and_a_panic_concern_all_and_leave_nobody_waiting() {
    let cache = cache();
    let rows: Region<u64, u64> = region(&cache, "rows");
    let failing = |_: ManyCx<u64>| async { Err::<Vec<(u64, u64)>, _>(std::fmt::Error.into()) };
    assert!(matches!(rows.get_or_load_many(&[1, 2], failing).await, Err(LoadError::Loader(_))));
    struct Trap;
    impl IntoIterator for Trap {
        type Item = (u64, u64);
        type IntoIter = std::vec::IntoIter<Self::Item>;
        fn into_iter(self) -> Self::IntoIter {
            panic!("in the user's iterator");
        }
    }
    let trapped = |_: ManyCx<u64>| async { Ok(Trap) };
    assert!(matches!(rows.get_or_load_many(&[1, 2], trapped).await, Err(LoadError::Panicked)));
    rows.insert(1, 5);
    assert!(rows.get_or_load_many(&[1, 2], failing).await.is_err());
    assert_eq!(values(&load(&rows, &[1, 2], &Calls::default()).await), [Some(5), Some(3)]);
}

/// The source says that there is none any more: the old value does not stand in for that, then or later.
#[tokio::test]
async fn what_is_gone_at_the_source_is_not_made_good_by_what_there_was() {
    let (clock, hand) = Clock::manual();
    let cache = Cache::builder().clock(clock).build().unwrap();
    let builder = cache.region("rows").ttl(SECOND).fail_safe(100 * SECOND, SECOND);
    let rows: Region<u64, u64> = builder.build().unwrap();
    rows.insert(10, 1);
    rows.insert(1, 5);
    hand.advance(SECOND);
    assert_eq!(values(&load(&rows, &[10, 1], &Calls::default()).await), [None, Some(2)]);
    let failing = async |_| Err(std::fmt::Error.into());
    assert!(rows.get_or_load(&10, failing).await.is_err());
    // Where the load has failed, it does.
    hand.advance(SECOND);
    let failing = |_: ManyCx<u64>| async { Err::<Vec<(u64, u64)>, _>(std::fmt::Error.into()) };
    let served = rows.get_or_load_many(&[1], failing).await.unwrap();
    assert!(served[0].as_ref().is_some_and(|hit| hit.is_stale() && **hit == 2));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_load_to_the_others() {
    let cache = cache();
    let rows: Region<u64, u64> = region(&cache, "rows");
    let (gates, calls) = (Gates::<()>::new(), Arc::new(AtomicU32::new(0)));
    let ask = || {
        let (rows, gates, calls) = (rows.clone(), gates.clone(), calls.clone());
        let loader = move |cx: ManyCx<u64>| {
            let gates = gates.clone();
            calls.fetch_add(1, SeqCst);
            async move {
                gates.pass(0).await;
                Ok(cx.keys().iter().map(|key| (*key, 1)).collect::<Vec<_>>())
            }
        };
        spawn(async move { values(&rows.get_or_load_many(&[1, 2], loader).await.unwrap()) })
    };
    let first = ask();
    settle().await;
    let second = ask();
    settle().await;
    first.abort();
    settle().await;
    gates.open(());
    assert_eq!(second.await.unwrap(), [Some(1), Some(1)]);
    assert_eq!(calls.load(SeqCst), 1);
}

#[tokio::test]
async fn switched_off_every_call_loads_for_itself() {
    let cache = cache();
    let (rows, calls) = (region(&cache, "rows"), Calls::default());
    rows.set_enabled(false);
    for _ in 0..2 {
        assert_eq!(values(&load(&rows, &[1, 2, 1], &calls).await), [Some(2), Some(3), Some(2)]);
    }
    assert_eq!(*calls.lock().unwrap(), [[1, 2], [1, 2]]);
    rows.set_enabled(true);
    assert!(rows.get(&1).is_none());
}

#[test]
fn a_load_that_does_not_wait_needs_no_runtime_and_one_that_does_says_so() {
    let cache = Cache::builder().build().unwrap();
    let rows: Region<u64, u64> = region(&cache, "rows");
    fn poll<T>(future: impl Future<Output = T>) -> T {
        let polled =
            std::pin::pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        match polled {
            std::task::Poll::Ready(ready) => ready,
            std::task::Poll::Pending => panic!("it waits"),
        }
    }
    let region = rows.clone();
    let at_once = async move { region.get_or_load_many(&[1], |_| async { Ok([(1, 1)]) }).await };
    assert_eq!(values(&poll(at_once).unwrap()), [Some(1)]);
    let never =
        async move { rows.get_or_load_many(&[2], |_| std::future::pending::<Result<Vec<_>, _>>()).await };
    assert!(matches!(poll(never), Err(LoadError::NoRuntime)));
}

#[tokio::test]
async fn what_a_loader_reads_of_many_keys_it_depends_on() {
    let cache = cache();
    let (rows, pages) = (region(&cache, "rows"), region::<u64>(&cache, "pages"));
    let inner = rows.clone();
    let page = async move |_| {
        Ok(values(&load(&inner, &[1, 2, 10], &Calls::default()).await).into_iter().flatten().sum::<u64>())
    };
    let changes = [dep!("row", 2), rows.dep(&1), rows.dep(&10), rows.whole()];
    assert_eq!(pages.get_or_load(&1, page.clone()).await.unwrap(), 5);
    for change in changes {
        assert!(pages.get(&1).is_some());
        cache.invalidate(change);
        assert!(pages.get(&1).is_none(), "{change:?}");
        pages.get_or_load(&1, page.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn who_still_waits_for_one_of_several_loads_is_in_no_ring_with_what_came_after_another() {
    let (cache, gates) = (cache(), Gates::<u64>::new());
    let (rows, pages) = (region::<u64>(&cache, "rows"), region::<u64>(&cache, "pages"));
    let row = spawn({
        let (rows, gates) = (rows.clone(), gates.clone());
        async move { *rows.get_or_load(&1, async move |_| Ok(gates.pass(1).await)).await.unwrap() }
    });
    settle().await;
    let page = spawn({
        let (rows, pages, gates) = (rows.clone(), pages.clone(), gates.clone());
        async move {
            let load = async move |_: LoadCx<u64>| {
                let second = move |_| {
                    let gates = gates.clone();
                    async move { Ok([(2, gates.pass(2).await)]) }
                };
                Ok(rows.get_or_load_many(&[1, 2], second).await?.into_iter().flatten().map(|row| *row).sum())
            };
            *pages.get_or_load(&1, load).await.unwrap()
        }
    });
    settle().await;
    assert_eq!(gates.keys(), [1, 2]);
    gates.open(10);
    assert_eq!(row.await.unwrap(), 10);
    settle().await;
    // The page waits for the second row only, and this one for the page.
    let other = spawn(async move {
        let load = async move |_: LoadCx<u64>| {
            Ok(*pages.get_or_load(&1, async |_| unreachable!("it is being loaded")).await?)
        };
        rows.get_or_load(&3, load).await.map(|row| *row)
    });
    settle().await;
    gates.open(20);
    assert_eq!(page.await.unwrap(), 30);
    assert_eq!(other.await.unwrap().unwrap(), 30);
}
