//! One load per key, and how long anybody waits for it.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use common::{Gates, cache, readings, region, settle};
use swiftwater_cache::{LoadError, Region, dep};
use tokio::{runtime::Handle, task::JoinSet};

type Answer = Result<u32, LoadError<swiftwater_cache::AnyError>>;

fn ask(tasks: &mut JoinSet<Answer>, region: &Region<u64, u32>, gates: &Gates<u32>) {
    let (region, gates) = (region.clone(), gates.clone());
    tasks.spawn(async move {
        let load = async move |cx: swiftwater_cache::LoadCx<u64>| {
            cx.depends_on(dep!("row", *cx.key()));
            Ok(gates.pass(*cx.key()).await)
        };
        region.get_or_load(&1, load).await.map(|hit| *hit)
    });
}

/// Callers keep it in their own futures, whether it ever waits or not.
#[test]
fn the_future_of_a_call_is_small() {
    let rows: Region<u64, u32> = region(&cache(), "rows");
    let load = async |cx: swiftwater_cache::LoadCx<u64>| Ok(*cx.key() as u32);
    let sizes = [size_of_val(&rows.get_or_load(&1, load)), size_of_val(&rows.fetch(&1))];
    assert!(sizes.iter().all(|size| *size <= 256), "{sizes:?} bytes");
}

#[tokio::test]
async fn a_hundred_callers_share_one_load() {
    let (cache, gates, mut tasks) = (cache(), Gates::new(), JoinSet::new());
    let rows = region(&cache, "rows");
    for _ in 0..100 {
        ask(&mut tasks, &rows, &gates);
    }
    settle().await;
    assert_eq!(gates.waiting(), 1);
    gates.open(7);
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(7))) && answers.len() == 100);
    let readings = readings(&rows);
    assert_eq!((readings["loads"], readings["joins"]), (1.0, 99.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stampede_of_threads_loads_each_key_once() {
    let cache = cache();
    let rows: Region<u64, u64> = region(&cache, "rows");
    let loads = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let (rows, loads) = (rows.clone(), loads.clone());
        tasks.spawn(async move {
            for key in 0..500_u64 {
                let loads = loads.clone();
                let load = async move |cx: swiftwater_cache::LoadCx<u64>| {
                    loads.fetch_add(1, SeqCst);
                    tokio::task::yield_now().await;
                    Ok(cx.key() * 2)
                };
                assert_eq!(*rows.get_or_load(&key, load).await.expect("no loader fails"), key * 2);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(loads.load(SeqCst), 500);
}

#[tokio::test]
async fn a_joiner_from_before_the_invalidation_takes_the_running_load() {
    let (cache, gates, mut tasks) = (cache(), Gates::new(), JoinSet::new());
    let rows = region(&cache, "rows");
    ask(&mut tasks, &rows, &gates);
    ask(&mut tasks, &rows, &gates);
    settle().await;
    cache.invalidate(dep!("other", 1_u64)); // moves the ticket, not the dependency
    ask(&mut tasks, &rows, &gates);
    settle().await;
    gates.open(1);
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(1))));
    assert_eq!(rows.get(&1).map(|hit| *hit), Some(1), "nothing of it has moved, so it is stored");
}

#[tokio::test]
async fn a_joiner_from_after_the_invalidation_loads_once_more_and_only_once() {
    let (cache, gates, mut tasks) = (cache(), Gates::new(), JoinSet::new());
    let rows = region(&cache, "rows");
    ask(&mut tasks, &rows, &gates);
    settle().await;
    cache.invalidate(dep!("row", 1_u64));
    for _ in 0..3 {
        ask(&mut tasks, &rows, &gates);
    }
    settle().await;
    assert_eq!(gates.waiting(), 1, "they wait for the running load first");
    gates.open(1);
    settle().await;
    assert_eq!(gates.waiting(), 1, "it is from before they asked: one of them leads the next");
    // Whatever moves now, they take this one: it began after they asked.
    cache.invalidate(dep!("row", 1_u64));
    gates.open(2);
    let mut answers: Vec<u32> =
        tasks.join_all().await.into_iter().map(|answer| answer.expect("loaded")).collect();
    answers.sort_unstable();
    assert_eq!(answers, [1, 2, 2, 2]);
    assert_eq!(gates.waiting(), 0);
    assert!(rows.get(&1).is_none(), "the dependency moved during both loads, so neither is stored");
}

#[tokio::test]
async fn an_error_from_before_the_invalidation_is_not_shared_with_later_callers() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    let (gates, mut tasks) = (Gates::<Result<u32, std::io::Error>>::new(), JoinSet::new());
    let ask = |tasks: &mut JoinSet<Answer>| {
        let (rows, gates) = (rows.clone(), gates.clone());
        tasks.spawn(async move {
            rows.get_or_load(&1, async move |cx| Ok(gates.pass(*cx.key()).await?)).await.map(|hit| *hit)
        });
    };
    ask(&mut tasks);
    settle().await;
    cache.invalidate(dep!("row", 1_u64)); // the row was just created
    ask(&mut tasks);
    settle().await;
    gates.open(Err(std::io::Error::other("no such row")));
    settle().await;
    assert_eq!(gates.waiting(), 1, "the second caller looks for itself");
    gates.open(Ok(5));
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Ok(5))).count(), 1);
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Err(LoadError::Loader(_)))).count(), 1);
}

#[tokio::test]
async fn an_error_is_shared_and_not_stored() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    let failed = rows.get_or_load(&1, async |_| Err(std::io::Error::other("no such row").into())).await;
    let error = failed.expect_err("the loader fails");
    assert_eq!(error.to_string(), "the loader failed");
    let source = std::error::Error::source(&error).expect("the loader's error");
    assert_eq!(source.to_string(), "no such row");
    assert_eq!(*rows.get_or_load(&1, async |_| Ok(2)).await.expect("loaded"), 2);
}

#[tokio::test]
async fn nothing_is_called_on_a_hit() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    rows.insert(1, 5);
    let hit = rows.get_or_load(&1, |_| -> std::future::Ready<_> { unreachable!("it is stored") }).await;
    assert_eq!(*hit.expect("stored"), 5);
}

#[test]
fn a_load_that_does_not_wait_needs_no_runtime() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    let mut ready = Box::pin(rows.get_or_load(&1, async |_| Ok(1)));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(ready.as_mut().poll(&mut cx), std::task::Poll::Ready(Ok(_))));

    let mut waits = Box::pin(rows.get_or_load(&2, async |_| std::future::pending().await));
    let std::task::Poll::Ready(answer) = waits.as_mut().poll(&mut cx) else { panic!("an error, at once") };
    assert!(matches!(answer, Err(LoadError::NoRuntime)));
    assert!(Handle::try_current().is_err());
}
