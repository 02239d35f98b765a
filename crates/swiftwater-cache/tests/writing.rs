//! Changes of the source that are declared on every way out; and links between dependencies.

mod common;

use std::{
    future::{pending, poll_fn},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use common::{cache, region, settle, spawn};
use swiftwater_cache::{Cache, LinkError, Region, dep};
use tokio::sync::Notify;

/// A source of one number, and what is cached of it.
struct World {
    cache: Cache,
    source: Arc<AtomicU32>,
    rows: Region<u64, u32>,
}

impl World {
    fn new() -> Self {
        let cache = cache();
        let rows = region(&cache, "rows");
        Self { rows, cache, source: Arc::new(AtomicU32::new(0)) }
    }

    async fn read(&self) -> u32 {
        let source = self.source.clone();
        let load = async move |cx: swiftwater_cache::LoadCx<u64>| {
            cx.depends_on(dep!("row"));
            Ok(source.load(SeqCst))
        };
        *self.rows.get_or_load(&1, load).await.unwrap()
    }
}

async fn once() {
    let mut first = true;
    poll_fn(|cx| {
        if std::mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn success_and_error_invalidate() {
    for failing in [false, true] {
        let world = World::new();
        assert_eq!(world.read().await, 0);
        let source = world.source.clone();
        let write = async move {
            source.store(1, SeqCst);
            if failing { Err("it was committed all the same") } else { Ok(()) }
        };
        assert_eq!(world.cache.writing([dep!("row")], write).await.is_err(), failing);
        assert_eq!(world.read().await, 1);
    }
}

/// A handler whose client goes away, at every point where it can.
#[tokio::test]
async fn a_handler_that_is_cancelled_at_any_await_invalidates() {
    for polls in 0..4 {
        let world = World::new();
        assert_eq!(world.read().await, 0);
        let source = world.source.clone();
        let mut writing = Box::pin(world.cache.writing([dep!("row")], async move {
            once().await;
            source.store(1, SeqCst);
            once().await;
            pending::<()>().await;
        }));
        for _ in 0..polls {
            assert!(writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(writing);
        assert_eq!(world.read().await, world.source.load(SeqCst), "after {polls} polls");
    }
}

#[tokio::test]
async fn a_panic_invalidates() {
    let world = World::new();
    assert_eq!(world.read().await, 0);
    let source = world.source.clone();
    let writing = world.cache.writing([dep!("row")], async move {
        source.store(1, SeqCst);
        panic!("after the commit");
    });
    let task = spawn(async move {
        writing.await;
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(world.read().await, 1);
}

/// The destructor of the write comes before the invalidation: it may be what commits, and somebody may read before that.
#[tokio::test]
async fn what_the_write_does_when_dropped_counts() {
    struct Commit(Arc<AtomicU32>, Region<u64, u32>);
    impl Drop for Commit {
        fn drop(&mut self) {
            self.1.insert_with(1, self.0.load(SeqCst), |entry| entry.depends_on(dep!("row")));
            self.0.store(1, SeqCst);
        }
    }
    let world = World::new();
    assert_eq!(world.read().await, 0);
    let commit = Commit(world.source.clone(), world.rows.clone());
    let mut writing = Box::pin(world.cache.writing([dep!("row")], async move {
        let _commit = commit;
        pending::<()>().await;
    }));
    assert!(writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(writing);
    assert_eq!(world.read().await, 1);
}

#[test]
fn a_destructor_that_panics_does_not_keep_the_past() {
    struct Fatal;
    impl Drop for Fatal {
        fn drop(&mut self) {
            panic!("in the destructor");
        }
    }
    let cache = cache();
    let rows = region::<u32>(&cache, "rows");
    rows.insert_with(1, 0, |entry| entry.depends_on(dep!("row")));
    let fatal = Fatal;
    let writing = cache.writing([dep!("row")], async move { drop(fatal) });
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| drop(writing))).is_err());
    assert!(rows.get(&1).is_none());
}

#[tokio::test]
async fn several_changes_are_all_made() {
    let cache = cache();
    let rows = region::<u32>(&cache, "rows");
    rows.insert_with(1, 0, |entry| entry.depends_on(dep!("row", 1)));
    rows.insert_with(2, 0, |entry| entry.depends_on(dep!("row", 2)));
    cache.writing([dep!("row", 1).into(), dep!("row", 2).soft()], async {}).await;
    assert!(rows.get(&1).is_none() && rows.get(&2).is_none());
    assert!(rows.get_or_load(&2, async |_| Ok(1)).await.unwrap().is_stale());
}

#[test]
fn what_depends_on_one_depends_on_all_that_it_lies_under() {
    let cache = cache();
    let prices = region::<u32>(&cache, "prices");
    cache.link(dep!("product", 42), dep!("category", 7)).unwrap();
    cache.link(dep!("category", 7), dep!("shop")).unwrap();
    let fill = || prices.insert_with(42, 1, |entry| entry.depends_on(dep!("product", 42)));
    for above in [dep!("product", 42), dep!("category", 7), dep!("shop")] {
        fill();
        assert!(prices.get(&42).is_some());
        cache.invalidate(above);
        assert!(prices.get(&42).is_none(), "{above:?}");
    }
    fill();
    cache.invalidate(dep!("category", 8));
    assert!(prices.get(&42).is_some());
    fill();
    assert!(cache.unlink(dep!("category", 7), dep!("shop")));
    assert!(!cache.unlink(dep!("category", 7), dep!("shop")), "it is gone");
    assert!(prices.get(&42).is_none(), "to unlink invalidates as well");
    fill();
    cache.invalidate(dep!("shop"));
    assert!(prices.get(&42).is_some());
}

#[test]
fn a_link_counts_for_what_was_filled_before() {
    let cache = cache();
    let prices = region::<u32>(&cache, "prices");
    prices.insert_with(42, 1, |entry| entry.depends_on(dep!("product", 42)));
    cache.link(dep!("product", 42), dep!("category", 7)).unwrap();
    cache.invalidate(dep!("category", 7));
    assert!(prices.get(&42).is_none());
    // The same link again counts as well: whoever made it first may not have invalidated yet.
    prices.insert_with(42, 1, |entry| entry.depends_on(dep!("product", 42)));
    cache.link(dep!("product", 42), dep!("category", 7)).unwrap();
    assert!(prices.get(&42).is_none());
}

#[test]
fn a_link_reaches_what_keeps_kinds() {
    let cache = cache();
    let prices = region::<u32>(&cache, "prices");
    cache.link(dep!("product", 42), dep!("category", 7)).unwrap();
    prices.insert_with(1, 1, |entry| (0..100).for_each(|n| entry.depends_on(dep!("product", n))));
    assert!(prices.get(&1).is_some());
    cache.invalidate(dep!("category", 7));
    assert!(prices.get(&1).is_none());
}

#[test]
fn a_link_under_a_key_reaches_its_entry() {
    let cache = cache();
    let prices = region::<u32>(&cache, "prices");
    let labels = region::<u32>(&cache, "labels");
    cache.link(prices.dep(&1), dep!("tariff")).unwrap();
    prices.insert(1, 1);
    prices.insert(2, 1);
    labels.insert_with(1, 1, |entry| entry.depends_on(prices.dep(&1)));
    cache.invalidate(dep!("tariff"));
    assert!(prices.get(&1).is_none() && labels.get(&1).is_none());
    assert!(prices.get(&2).is_some());
}

#[test]
fn a_cycle_is_an_error_that_names_it_and_a_limit_one_that_says_so() {
    let cache = Cache::builder().max_links(3).build().unwrap();
    let [a, b, c] = [dep!("a"), dep!("b"), dep!("c")];
    cache.link(a, b).unwrap();
    cache.link(b, c).unwrap();
    let error = cache.link(c, a).unwrap_err();
    assert_eq!(error, LinkError::Cycle(vec![c, a, b]));
    assert_eq!(
        error.to_string(),
        format!("the link would close a cycle: {c:?} under {a:?} under {b:?} under {c:?}")
    );
    assert_eq!(cache.link(a, a).unwrap_err(), LinkError::Cycle(vec![a]));
    cache.link(a, c).unwrap();
    assert_eq!(cache.link(c, dep!("d")).unwrap_err(), LinkError::Full(3));
    assert!(cache.unlink(a, c));
    cache.link(c, dep!("d")).unwrap();
}

#[tokio::test]
async fn a_link_of_a_key_reaches_what_keeps_kinds() {
    let cache = Cache::builder().build().unwrap();
    let rows: Region<u64, u32> = cache.region("rows").build().unwrap();
    let sums: Region<u64, u32> = cache.region("sums").build().unwrap();
    cache.link(rows.dep(&1), dep!("category", 7)).unwrap();
    sums.get_or_load(&1, |cx| {
        cx.depends_on(rows.dep(&1));
        async move {
            (0..100).for_each(|n| cx.depends_on(dep!("other", n)));
            Ok(1)
        }
    })
    .await
    .unwrap();
    cache.invalidate(dep!("category", 7));
    assert!(sums.get(&1).is_none());
}

/// It began while the link stood, missed an invalidation of the upper name, and ended after the link was gone.
#[tokio::test]
async fn unlinking_does_not_hide_an_invalidation_from_a_running_load() {
    let cache = Cache::builder().build().unwrap();
    let rows: Region<u64, u32> = cache.region("rows").build().unwrap();
    cache.link(dep!("row", 1), dep!("table", 7)).unwrap();
    let gate = Arc::new(Notify::new());
    let load = {
        let (rows, gate) = (rows.clone(), gate.clone());
        spawn(async move {
            rows.get_or_load(&1, async move |cx| {
                cx.depends_on(dep!("row", 1));
                gate.notified().await; // read before the change
                Ok(1)
            })
            .await
            .map(|row| *row)
        })
    };
    settle().await;
    cache.invalidate(dep!("table", 7)); // while the link stands
    assert!(cache.unlink(dep!("row", 1), dep!("table", 7)));
    gate.notify_one();
    assert_eq!(load.await.unwrap().unwrap(), 1);
    assert!(rows.get(&1).is_none(), "from before the invalidation");
}
