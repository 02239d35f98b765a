//! User code that panics where it hurts most, rings in odd places, caches that do not belong together.

mod common;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    task::{Context, Waker},
    thread,
    time::Duration,
};

use common::{Gates, cache, readings, region, settle};
use swiftwater_cache::{Cache, LoadCx, LoadError, Region, dep};
use swiftwater_core::Clock;
use tokio::{
    task::{JoinSet, yield_now},
    time::timeout,
};

thread_local! {
    static PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Panics when dropped, once told to.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!PANICS.replace(false), "the destructor's own");
    }
}

#[tokio::test]
async fn a_destructor_that_panics_does_not_keep_dependents_alive() {
    for replace in [false, true] {
        let cache = cache();
        let (base, derived): (Region<u64, Bomb>, Region<u64, u32>) =
            (region(&cache, "base"), region(&cache, "derived"));
        base.insert(1, Bomb);
        let reading = base.clone();
        let load = async move |_: LoadCx<u64>| Ok(u32::from(reading.get(&1).is_some()));
        assert_eq!(*derived.get_or_load(&1, load).await.expect("loaded"), 1);
        PANICS.set(true);
        let changed = catch_unwind(AssertUnwindSafe(|| {
            if replace {
                base.insert(1, Bomb);
            } else {
                base.invalidate(&1);
            }
        }));
        assert!(changed.is_err(), "the bomb went off");
        assert!(derived.get(&1).is_none(), "replace: {replace}");
    }
}

/// A key whose hashing panics once told to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key(u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(!PANICS.replace(false), "the key's own");
        self.0.hash(state);
    }
}

#[tokio::test]
async fn a_key_whose_hash_panics_as_its_load_lands_leaves_nobody_waiting() {
    let cache = cache();
    let rows: Region<Key, u32> = cache.region("rows").build().expect("valid");
    let load = async |_: LoadCx<Key>| {
        PANICS.set(true); // the next hash is the one of the landing
        Ok(1)
    };
    assert_eq!(*rows.get_or_load(&Key(1), load).await.expect("loaded all the same"), 1);
    assert!(rows.get(&Key(1)).is_none(), "not stored");
    assert_eq!(*rows.get_or_load(&Key(1), async |_| Ok(2)).await.expect("loads anew"), 2);
    assert_eq!(rows.get(&Key(1)).map(|hit| *hit), Some(2));
}

thread_local! {
    static ON_CLONE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// A key that does something when it is cloned, once told to.
#[derive(PartialEq, Eq, Hash)]
struct Meddling(u64);

impl Clone for Meddling {
    fn clone(&self) -> Self {
        ON_CLONE.take().into_iter().for_each(|meddle| meddle());
        Self(self.0)
    }
}

fn load_at_once(rows: &Region<Meddling, u32>, value: u32) {
    let load = rows.get_or_load(&Meddling(1), async move |cx| {
        cx.depends_on(dep!("row", 1));
        Ok(value)
    });
    assert!(pin!(load).poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

#[tokio::test]
async fn a_load_depends_on_what_was_stored_between_its_look_and_its_turn() {
    let cache = cache();
    let rows: Region<Meddling, u32> = cache.region("rows").build().expect("valid");
    let sums: Region<u64, u32> = region(&cache, "sums");
    let reading = rows.clone();
    let load = async move |_: LoadCx<u64>| {
        let loading = reading.clone();
        // Somebody else's load, on another thread.
        let meddle = move || thread::spawn(move || load_at_once(&loading, 5)).join().expect("no panic");
        ON_CLONE.set(Some(Box::new(meddle)));
        Ok(*reading.get_or_load(&Meddling(1), async |_| Ok(7)).await?)
    };
    assert_eq!(*sums.get_or_load(&1, load).await.expect("no loader fails"), 5, "what was stored meanwhile");
    assert!(sums.get(&1).is_some());
    cache.invalidate(dep!("row", 1));
    assert!(sums.get(&1).is_none());
}

/// A small key whose hashing panics as long as it is told to.
#[derive(Clone, PartialEq, Eq)]
struct Evicted(u64);

static EVICTED_PANICS: AtomicBool = AtomicBool::new(false);

impl Hash for Evicted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(self.0 >= 1000 || !EVICTED_PANICS.load(Relaxed), "the evicted key's own");
        self.0.hash(state);
    }
}

/// Uses its region when dropped, with every lock that its own insert takes.
struct Uses(Option<(Region<Evicted, Self>, mpsc::Sender<&'static str>)>);

impl Drop for Uses {
    fn drop(&mut self) {
        if let Some((rows, tell)) = self.0.take() {
            rows.invalidate(&Evicted(1000));
            tell.send("used").expect("the test waits");
        }
    }
}

#[test]
#[cfg_attr(swiftwater_moka, ignore = "moka hashes no key that it evicts")]
fn a_value_whose_insert_panics_is_dropped_where_its_region_can_be_used() {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let rows: Region<Evicted, Uses> = cache().region("rows").memory(32).build().expect("valid");
        (0..32).for_each(|key| rows.insert(Evicted(key), Uses(None)));
        EVICTED_PANICS.store(true, Relaxed);
        let value = Uses(Some((rows.clone(), tell.clone())));
        let inserted = catch_unwind(AssertUnwindSafe(|| rows.insert(Evicted(1000), value)));
        tell.send(if inserted.is_err() { "panicked" } else { "inserted" }).expect("the test waits");
        EVICTED_PANICS.store(false, Relaxed);
    });
    // It would hang.
    let next = || told.recv_timeout(Duration::from_secs(60));
    assert_eq!((next(), next()), (Ok("used"), Ok("panicked")));
}

#[tokio::test]
async fn an_insert_whose_weigher_panics_changes_nothing() {
    let cache = cache();
    let weigher = |_: &u64, value: &u32| if *value == 0 { panic!("the weigher's own") } else { 1 };
    let rows: Region<u64, u32> = cache.region("rows").weigher(weigher).build().expect("valid");
    rows.insert(1, 1);
    assert!(catch_unwind(AssertUnwindSafe(|| rows.insert(1, 0))).is_err());
    assert_eq!(rows.get(&1).map(|hit| *hit), Some(1));
}

#[tokio::test]
async fn a_ring_through_a_region_that_is_off_is_an_error_and_not_a_hang() {
    let cache = cache();
    let (on, off): (Region<u64, u32>, Region<u64, u32>) = (region(&cache, "on"), region(&cache, "off"));
    off.set_enabled(false);
    let (inner, back) = (off.clone(), on.clone());
    let load = async move |_: LoadCx<u64>| {
        let load = async move |_: LoadCx<u64>| Ok(*back.get_or_load(&1, async |_| Ok(1)).await?);
        Ok(*inner.get_or_load(&1, load).await?)
    };
    assert!(matches!(on.get_or_load(&1, load).await, Err(LoadError::Loader(_))));
}

/// Where each of them goes on in a task of its own before the ring closes.
#[tokio::test(start_paused = true)]
async fn a_ring_of_loads_that_wait_is_an_error_and_not_a_hang() {
    let rows: Region<u64, u32> = region(&cache(), "rows");
    let (inner, back) = (rows.clone(), rows.clone());
    let load = async move |_: LoadCx<u64>| {
        let load = async move |_: LoadCx<u64>| {
            yield_now().await;
            Ok(*back.get_or_load(&1, async |_| Ok(1)).await?)
        };
        Ok(*inner.get_or_load(&2, load).await?)
    };
    let loaded = timeout(Duration::from_secs(60), rows.get_or_load(&1, load)).await;
    assert!(matches!(loaded.expect("it ends"), Err(LoadError::Loader(_))));
}

#[tokio::test]
async fn a_ring_over_two_caches_is_an_error_and_not_a_hang() {
    let (here, there): (Region<u64, u32>, Region<u64, u32>) =
        (region(&cache(), "rows"), region(&cache(), "rows"));
    let (other, back) = (there.clone(), here.clone());
    let load = async move |_: LoadCx<u64>| {
        let load = async move |_: LoadCx<u64>| Ok(*back.get_or_load(&1, async |_| Ok(1)).await?);
        Ok(*other.get_or_load(&1, load).await?)
    };
    assert!(matches!(here.get_or_load(&1, load).await, Err(LoadError::Loader(_))));
}

#[tokio::test]
async fn what_a_loader_makes_of_a_ring_is_not_stored() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    // 1 is made of 2, and 2 of 1, with a makeshift for what cannot be had.
    let (second, third) = (rows.clone(), rows.clone());
    let load = async move |cx: LoadCx<u64>| {
        cx.depends_on(dep!("row", 1_u64));
        let load = async move |cx: LoadCx<u64>| {
            cx.depends_on(dep!("row", 2_u64));
            Ok(third.get_or_load(&1, async |_| Ok(1)).await.map_or(100, |hit| *hit))
        };
        Ok(*second.get_or_load(&2, load).await? + 1)
    };
    assert_eq!(*rows.get_or_load(&1, load).await.expect("made of a makeshift"), 101);
    assert!(rows.get(&2).is_none(), "it cannot know what it depends on");
    assert!(rows.get(&1).is_none(), "nor can what was made of it");
}

#[tokio::test]
async fn a_load_that_is_put_aside_and_dropped_is_not_waited_for() {
    let (cache, gates) = (cache(), Gates::<u32>::new());
    let rows: Region<u64, u32> = region(&cache, "rows");
    let mut tasks = JoinSet::new();
    {
        let (rows, gates) = (rows.clone(), gates.clone());
        tasks.spawn(async move {
            let asking = rows.clone();
            let load = async move |_: LoadCx<u64>| {
                let (back, waiting) = (asking.clone(), gates.clone());
                let load = async move |_: LoadCx<u64>| {
                    Ok(waiting.pass(2).await + *back.get_or_load(&1, async |_| Ok(0)).await?)
                };
                {
                    let mut other = Box::pin(asking.get_or_load(&2, load));
                    let waker = Waker::noop();
                    assert!(other.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
                } // gone: 1 waits for 2 no longer, which goes on by itself
                Ok(gates.pass(1).await)
            };
            rows.get_or_load(&1, load).await.map(|hit| *hit)
        });
    }
    settle().await;
    assert_eq!(gates.keys(), [2, 1]);
    gates.open(20); // 2 asks for 1, which is still being loaded: no ring
    settle().await;
    gates.open(10);
    settle().await;
    assert!(matches!(tasks.join_all().await[..], [Ok(10)]));
    assert_eq!(rows.get(&2).map(|hit| *hit), Some(30));
}

#[tokio::test]
async fn another_caches_dependencies_and_times_stay_its_own() {
    let (clock, hand) = Clock::manual();
    hand.advance(Duration::from_secs(1_000));
    let late = Cache::builder().clock(clock).build().expect("valid");
    let (clock, _hand) = Clock::manual();
    let early = Cache::builder().clock(clock).build().expect("valid");
    let base: Region<u64, u32> = early.region("rows").ttl(Duration::from_secs(1)).build().expect("valid");
    let derived: Region<u64, u32> = region(&late, "rows");
    base.insert(1, 1);
    let load = async move |_: LoadCx<u64>| Ok(base.get(&1).map_or(0, |hit| *hit));
    assert_eq!(*derived.get_or_load(&1, load).await.expect("loaded"), 1);
    assert!(derived.get(&1).is_some(), "not expired by a clock that it does not go by");
}

#[tokio::test]
async fn a_region_that_was_rebuilt_still_reaches_what_was_made_of_the_old_one() {
    let cache = cache();
    let derived: Region<u64, u32> = region(&cache, "derived");
    let base: Region<u64, u32> = region(&cache, "base");
    base.insert(1, 10);
    let reading = base.clone();
    let load = async move |_: LoadCx<u64>| Ok(reading.get(&1).map_or(0, |hit| *hit));
    assert_eq!(*derived.get_or_load(&1, load).await.expect("loaded"), 10);
    drop(base);
    let base: Region<u64, u32> = region(&cache, "base");
    base.insert(1, 20);
    assert!(derived.get(&1).is_none());
}

#[tokio::test]
async fn reading_within_an_outer_load_makes_the_inner_one_depend_too() {
    let cache = cache();
    let (base, inner, outer): (Region<u64, u32>, Region<u64, u32>, Region<u64, u32>) =
        (region(&cache, "base"), region(&cache, "inner"), region(&cache, "outer"));
    base.insert_with(1, 1, |entry| entry.depends_on(dep!("a")));
    let (reading, middle) = (base.clone(), inner.clone());
    let load = async move |cx: LoadCx<u64>| {
        let scope = (*cx).clone();
        let load = async move |_: LoadCx<u64>| Ok(reading.within(&scope).get(&1).map_or(0, |hit| *hit));
        Ok(*middle.get_or_load(&1, load).await?)
    };
    assert_eq!(*outer.get_or_load(&1, load).await.expect("loaded"), 1);
    cache.invalidate(dep!("a"));
    assert!(inner.get(&1).is_none() && outer.get(&1).is_none());
}

#[tokio::test]
async fn a_makeshift_for_a_failed_load_lives_no_longer_than_what_that_one_had_read() {
    let (clock, hand) = Clock::manual();
    let cache = Cache::builder().clock(clock).build().expect("valid");
    let base: Region<u64, u32> = cache.region("base").ttl(Duration::from_secs(10)).build().expect("valid");
    let (fails, derived): (Region<u64, u32>, Region<u64, u32>) =
        (region(&cache, "fails"), region(&cache, "derived"));
    base.insert(1, 1);
    let (reading, failing) = (base.clone(), fails.clone());
    let load = async move |_: LoadCx<u64>| {
        let load = async move |_: LoadCx<u64>| {
            assert!(reading.get(&1).is_some());
            Err(std::io::Error::other("not today").into())
        };
        Ok(failing.get_or_load(&1, load).await.map_or(7, |hit| *hit))
    };
    assert_eq!(*derived.get_or_load(&1, load).await.expect("made of nothing"), 7);
    assert!(derived.get(&1).is_some());
    hand.advance(Duration::from_secs(10));
    assert!(derived.get(&1).is_none());
}

#[tokio::test]
async fn of_ten_thousand_kinds_none_is_forgotten() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    let load = async |cx: LoadCx<u64>| {
        (0..10_000).for_each(|kind| cx.depends_on(dep!(&format!("kind {kind}"))));
        Ok(1)
    };
    for kind in [0, 77, 9_999] {
        rows.get_or_load(&1, load).await.expect("loaded");
        assert!(rows.get(&1).is_some());
        cache.invalidate(dep!(&format!("kind {kind}")));
        assert!(rows.get(&1).is_none(), "kind {kind}");
    }
    assert_eq!(readings(&rows)["unstored"], 0.0);
}
