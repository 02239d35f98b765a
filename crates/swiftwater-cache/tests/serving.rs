//! What is served of entries that have expired, and what is done before they do.

mod common;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::{Gates, readings, region, settle, spawn};
use swiftwater_cache::{Cache, Excess, Hit, LoadCx, LoadError, Loaded, Region, RegionBuilder, dep};
use swiftwater_core::{Clock, Hand, Tunable};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

type Prices = Region<u64, u32, Failed>;

#[derive(Debug, PartialEq)]
struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the source failed")
    }
}

impl std::error::Error for Failed {}

fn prices(
    options: impl FnOnce(RegionBuilder<u64, u32, Failed>) -> RegionBuilder<u64, u32, Failed>,
) -> (Cache, Prices, Hand) {
    let (clock, hand) = Clock::manual();
    let cache = Cache::builder().clock(clock).build().unwrap();
    let prices = options(cache.region("prices").error().ttl(MINUTE)).build().unwrap();
    (cache, prices, hand)
}

async fn load(prices: &Prices, value: u32) -> Hit<u32> {
    prices.get_or_load(&1, async move |_| Ok(value)).await.unwrap()
}

async fn fail(prices: &Prices) -> Result<Hit<u32>, LoadError<Failed>> {
    prices.get_or_load(&1, async |_| Err(Failed)).await
}

#[tokio::test]
async fn an_expired_one_is_served_while_it_is_loaded_anew() {
    let (_, prices, hand) = prices(|region| region.stale_for(MINUTE));
    load(&prices, 1).await;
    hand.advance(MINUTE);
    assert!(prices.get(&1).is_none(), "a plain get could not load it anew");
    let old = load(&prices, 2).await;
    assert!(old.is_stale() && old == 1);
    settle().await;
    let new = prices.get(&1).unwrap();
    assert!(!new.is_stale() && new == 2);
    // Beyond that time it is as if it were not there.
    hand.advance(2 * MINUTE);
    let new = load(&prices, 3).await;
    assert!(!new.is_stale() && new == 3);
}

#[tokio::test]
async fn one_that_was_invalidated_is_never_served_in_any_way() {
    let (cache, prices, hand) =
        prices(|region| region.stale_for(MINUTE).fail_safe(10 * MINUTE, SECOND).soft_timeout(SECOND));
    for by_key in [true, false] {
        for late in [false, true] {
            prices.insert_with(1, 1, |entry| entry.depends_on(dep!("tariff")));
            if late {
                hand.advance(MINUTE);
            }
            if by_key {
                prices.invalidate(&1);
            } else {
                cache.invalidate(dep!("tariff"));
            }
            assert!(matches!(fail(&prices).await, Err(LoadError::Loader(_))));
            assert!(!load(&prices, 2).await.is_stale());
            prices.invalidate(&1);
        }
    }
}

#[tokio::test]
async fn a_background_load_that_races_with_an_invalidation_is_not_stored() {
    let (cache, prices, hand) = prices(|region| region.stale_for(MINUTE));
    load(&prices, 1).await;
    hand.advance(MINUTE);
    let gates = Gates::new();
    let inner = gates.clone();
    let slow = async move |cx: LoadCx<u64>| {
        cx.depends_on(dep!("tariff"));
        Ok(inner.pass(1).await)
    };
    assert!(prices.get_or_load(&1, slow).await.unwrap().is_stale());
    settle().await;
    cache.invalidate(dep!("tariff"));
    gates.open(2);
    settle().await;
    assert!(prices.get(&1).is_none());
}

#[tokio::test]
async fn a_failed_load_is_made_good_by_what_there_was_and_not_tried_again_at_once() {
    let (_, prices, hand) = prices(|region| region.fail_safe(10 * MINUTE, SECOND));
    load(&prices, 1).await;
    hand.advance(MINUTE);
    let old = fail(&prices).await.unwrap();
    assert!(old.is_stale() && old == 1);
    let calls = readings(&prices)["loads"];
    hand.advance(SECOND - Duration::from_nanos(1));
    assert!(fail(&prices).await.unwrap().is_stale());
    assert_eq!(readings(&prices)["loads"], calls, "the source is left alone");
    hand.advance(Duration::from_nanos(1));
    assert!(fail(&prices).await.unwrap().is_stale());
    assert_eq!(readings(&prices)["loads"], calls + 1.0);
    hand.advance(SECOND);
    let new = load(&prices, 2).await;
    assert!(!new.is_stale() && new == 2);
    hand.advance(11 * MINUTE);
    assert!(fail(&prices).await.is_err(), "too old");
}

#[tokio::test]
async fn a_load_for_which_there_is_no_place_is_made_good_by_what_there_was() {
    let (_, prices, hand) = prices(|region| region.max_loads(1, Excess::Fail).fail_safe(10 * MINUTE, SECOND));
    load(&prices, 1).await;
    hand.advance(MINUTE);
    let gates = Gates::<u32>::new();
    let (source, region) = (gates.clone(), prices.clone());
    spawn(async move { drop(region.get_or_load(&2, async move |_| Ok(source.pass(2).await)).await) });
    settle().await;
    let old = load(&prices, 2).await;
    assert!(old.is_stale() && old == 1);
    assert!(
        matches!(prices.get_or_load(&3, async |_| Ok(3)).await, Err(LoadError::Busy)),
        "there is nothing"
    );
    gates.open(2);
}

#[tokio::test]
async fn what_was_invalidated_while_the_load_ran_does_not_make_good_for_it() {
    let (cache, prices, hand) = prices(|region| region.fail_safe(10 * MINUTE, SECOND));
    prices.insert_with(1, 1, |entry| entry.depends_on(dep!("tariff")));
    hand.advance(MINUTE);
    let gates = Gates::<Result<u32, Failed>>::new();
    let (inner, region) = (gates.clone(), prices.clone());
    let asked = spawn(async move { region.get_or_load(&1, async move |_| inner.pass(1).await).await });
    settle().await;
    cache.invalidate(dep!("tariff"));
    gates.open(Err(Failed));
    assert!(asked.await.unwrap().is_err());
}

#[tokio::test]
async fn what_was_softened_does_not_make_good_for_a_load_within_a_load() {
    let (cache, prices, _hand) = prices(|region| region.fail_safe(10 * MINUTE, SECOND));
    let labels = region::<u32>(&cache, "labels");
    prices.insert_with(1, 1, |entry| entry.depends_on(dep!("tariff")));
    cache.invalidate(dep!("tariff").soft());
    let inner = prices.clone();
    assert!(labels.get_or_load(&1, async move |_| Ok(*fail(&inner).await?)).await.is_err());
    assert!(fail(&prices).await.unwrap().is_stale(), "by itself it says so");
}

#[tokio::test]
async fn everybody_who_waits_for_a_load_that_fails_is_served_what_there_was() {
    let (_, prices, hand) = prices(|region| region.fail_safe(10 * MINUTE, SECOND));
    load(&prices, 1).await;
    hand.advance(MINUTE);
    let gates = Gates::<Result<u32, Failed>>::new();
    let ask = || {
        let (prices, gates) = (prices.clone(), gates.clone());
        spawn(async move { prices.get_or_load(&1, async move |_| gates.pass(1).await).await })
    };
    let asked = [ask(), ask(), ask()];
    settle().await;
    assert_eq!(gates.waiting(), 1);
    gates.open(Err(Failed));
    for answer in asked {
        let answer = answer.await.unwrap().unwrap();
        assert!(answer.is_stale() && answer == 1);
    }
}

#[tokio::test]
async fn what_a_loader_makes_of_an_expired_value_is_not_stored() {
    let (cache, prices, hand) = prices(|region| region.stale_for(MINUTE).fail_safe(10 * MINUTE, SECOND));
    let labels = region::<u32>(&cache, "labels");
    load(&prices, 1).await;
    hand.advance(MINUTE);
    let inner = prices.clone();
    let label = labels.get_or_load(&1, async move |_| Ok(*fail(&inner).await? * 2)).await.unwrap();
    assert_eq!(label, 2, "there was nothing better");
    assert!(labels.get(&1).is_none());
    // Where the source answers, the loader waits for it, however lately a load has failed.
    let inner = prices.clone();
    let label = labels.get_or_load(&1, async move |_| Ok(*load(&inner, 2).await * 2)).await.unwrap();
    assert_eq!(label, 4);
    assert!(labels.get(&1).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slow_load_is_made_good_after_the_soft_time_out_and_ends_in_the_background() {
    let (_, prices, hand) = prices(|region| region.fail_safe(10 * MINUTE, SECOND).soft_timeout(SECOND));
    let slow = async |_| {
        tokio::time::sleep(3 * SECOND).await;
        Ok(2)
    };
    let start = tokio::time::Instant::now();
    assert_eq!(prices.get_or_load(&1, slow).await.unwrap(), 2, "with nothing to serve it waits");
    assert_eq!(start.elapsed(), 3 * SECOND);
    hand.advance(MINUTE);
    let start = tokio::time::Instant::now();
    let slow = async |_| {
        tokio::time::sleep(3 * SECOND).await;
        Ok(3)
    };
    let old = prices.get_or_load(&1, slow).await.unwrap();
    assert!(old.is_stale() && old == 2);
    assert_eq!(start.elapsed(), SECOND);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(prices.get(&1).unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_takes_too_long_is_dropped() {
    struct Guard(Arc<AtomicU32>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let (_, prices, hand) = prices(|region| region.load_timeout(SECOND).fail_safe(10 * MINUTE, SECOND));
    let dropped = Arc::new(AtomicU32::new(0));
    let hang = |_: LoadCx<u64>| {
        let guard = Guard(dropped.clone());
        async move {
            let _guard = guard;
            std::future::pending::<Result<u32, Failed>>().await
        }
    };
    let start = tokio::time::Instant::now();
    let error = prices.get_or_load(&1, hang).await.unwrap_err();
    assert!(matches!(error, LoadError::TimedOut), "{error}");
    assert_eq!((start.elapsed(), dropped.load(SeqCst)), (SECOND, 1));
    assert_eq!(load(&prices, 1).await, 1, "the key is free");
    hand.advance(MINUTE);
    assert!(prices.get_or_load(&1, hang).await.unwrap().is_stale(), "a time-out is a failure like others");
}

#[test]
fn without_timers_a_time_out_is_an_error_and_no_panic() {
    let (_, prices, _hand) = prices(|region| region.load_timeout(SECOND));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let hang = async |_| std::future::pending().await;
    let error = runtime.block_on(prices.get_or_load(&1, hang)).unwrap_err();
    assert!(matches!(error, LoadError::NoRuntime), "{error}");
}

#[tokio::test]
async fn what_is_in_demand_is_loaded_before_it_expires() {
    let (_, prices, hand) = prices(|region| region.refresh_after(0.8));
    load(&prices, 1).await;
    hand.advance(MINUTE.mul_f64(0.79));
    assert_eq!(load(&prices, 2).await, 1);
    settle().await;
    assert_eq!(readings(&prices)["loads"], 1.0, "not yet");
    hand.advance(MINUTE.mul_f64(0.02));
    let old = load(&prices, 2).await;
    assert!(!old.is_stale() && old == 1, "it is still right");
    settle().await;
    assert_eq!(prices.get(&1).unwrap(), 2);
    hand.advance(MINUTE.mul_f64(0.79));
    assert_eq!(prices.get(&1).unwrap(), 2, "its life began anew");
}

#[tokio::test]
async fn of_many_keys_each_is_made_good_by_what_there_was_and_by_nothing_older() {
    let (_, prices, hand) = prices(|region| region.fail_safe(10 * MINUTE, SECOND));
    load(&prices, 1).await;
    let fail = |_| async { Err::<Vec<_>, _>(Failed) };
    hand.advance(MINUTE);
    let found = prices.get_or_load_many(&[1], fail).await.unwrap();
    assert!(found[0].as_ref().unwrap().is_stale());
    hand.advance(10 * MINUTE);
    assert!(prices.get_or_load_many(&[1], fail).await.is_err(), "too old");
}

#[tokio::test]
async fn who_cannot_load_does_not_keep_others_from_loading_in_good_time() {
    let (_, prices, hand) = prices(|region| region.refresh_after(0.8).max_loads(1, Excess::Fail));
    load(&prices, 1).await;
    hand.advance(MINUTE.mul_f64(0.81));
    assert_eq!(prices.get(&1).unwrap(), 1);
    let many = |_| async { unreachable!("it is there") };
    let found = prices.get_or_load_many::<_, _, Vec<_>>(&[1], many).await.unwrap();
    assert_eq!(**found[0].as_ref().unwrap(), 1);
    // Nor does one who finds no place to load in.
    let (gates, other) = (Gates::<u32>::new(), prices.clone());
    let gate = gates.clone();
    let busy =
        spawn(async move { *other.get_or_load(&2, async move |_| Ok(gate.pass(2).await)).await.unwrap() });
    settle().await;
    assert_eq!(load(&prices, 2).await, 1);
    gates.open(0);
    busy.await.unwrap();
    assert_eq!(load(&prices, 2).await, 1);
    settle().await;
    assert_eq!(prices.get(&1).unwrap(), 2);
}

#[tokio::test]
async fn an_early_load_that_fails_is_not_tried_again_and_harms_nobody() {
    let (cache, prices, hand) = prices(|region| region.refresh_after(0.5));
    load(&prices, 1).await;
    hand.advance(MINUTE / 2);
    for _ in 0..3 {
        cache.invalidate(dep!("something else")); // so that the entry is looked at closely each time
        assert_eq!(fail(&prices).await.unwrap(), 1);
        settle().await;
    }
    assert_eq!(readings(&prices)["loads"], 2.0);
    hand.advance(MINUTE / 2);
    assert!(fail(&prices).await.is_err());
}

#[tokio::test]
async fn what_nobody_asks_for_expires() {
    let (_, prices, hand) = prices(|region| region.ttl(None).idle(MINUTE));
    prices.insert(1, 1);
    for _ in 0..20 {
        hand.advance(MINUTE - Duration::from_nanos(1));
        assert!(prices.get(&1).is_some(), "used often enough");
    }
    hand.advance(MINUTE + MINUTE / 16);
    assert!(prices.get(&1).is_none());
    assert_eq!(readings(&prices)["misses_expired"], 1.0);
}

#[tokio::test]
async fn a_use_does_not_prolong_the_lifetime() {
    let (_, prices, hand) = prices(|region| region.ttl(2 * MINUTE).idle(MINUTE));
    prices.insert(1, 1);
    for _ in 0..3 {
        hand.advance(MINUTE / 2);
        assert!(prices.get(&1).is_some());
    }
    hand.advance(MINUTE / 2);
    assert!(prices.get(&1).is_none());
}

#[tokio::test]
async fn jitter_spreads_the_ends_of_what_began_together() {
    let (_, prices, hand) = prices(|region| region.jitter(0.5));
    (0..1000).for_each(|key| prices.insert(key, 1));
    let left = || (0..1000).filter(|key| prices.get(key).is_some()).count();
    hand.advance(MINUTE / 2 - SECOND);
    assert_eq!(left(), 1000);
    hand.advance(MINUTE / 4 + SECOND);
    assert!((400..600).contains(&left()), "{} of about 500", left());
    hand.advance(MINUTE / 4);
    assert_eq!(left(), 0, "never longer than the lifetime");
}

#[tokio::test]
async fn values_that_say_no_have_a_lifetime_of_their_own() {
    let (_, prices, hand) = prices(|region| region.negative(SECOND, |price| *price == 0));
    prices.insert(1, 0);
    prices.insert(2, 1);
    prices.insert_with(3, 0, |entry| entry.ttl(MINUTE));
    hand.advance(SECOND);
    let there = [1, 2, 3].map(|key| prices.get(&key).is_some());
    assert_eq!(there, [false, true, true], "what the loader says comes first");
}

#[tokio::test]
async fn no_more_loads_run_at_a_time_than_the_region_allows() {
    let (_, prices, _hand) = prices(|region| region.max_loads(2, Excess::Wait));
    let gates = Gates::<u32>::new();
    let ask = |key: u64| {
        let (prices, gates) = (prices.clone(), gates.clone());
        spawn(async move { prices.get_or_load(&key, async move |_| Ok(gates.pass(key).await)).await })
    };
    let asked: Vec<_> = (0..5).map(ask).collect();
    settle().await;
    assert_eq!(gates.keys(), [0, 1]);
    asked[2].abort(); // one that waits for its turn goes away
    let joined = ask(3); // and one joins another that waits
    settle().await;
    gates.open(10);
    settle().await;
    assert_eq!(gates.keys(), [1, 3]);
    // The knob takes effect at once.
    let mut knobs = Vec::new();
    prices.knobs(&mut |knob| knobs.push(knob));
    let limit = knobs.iter().find(|knob| knob.name() == "max_loads").unwrap();
    limit.set(3.0).unwrap();
    settle().await;
    assert_eq!(gates.keys(), [1, 3, 4]);
    limit.set(1.0).unwrap();
    let last = ask(5);
    for _ in 0..3 {
        gates.open(10);
        settle().await;
    }
    assert_eq!(gates.keys(), [5]);
    let another = ask(6);
    settle().await;
    assert_eq!(gates.keys(), [5], "three places were given up, and one is left");
    gates.open(10);
    settle().await;
    gates.open(10);
    for answer in [last, another, joined] {
        assert_eq!(answer.await.unwrap().unwrap(), 10);
    }
}

#[tokio::test]
async fn or_what_is_too_much_fails_by_name() {
    let (_, prices, hand) =
        prices(|region| region.max_loads(1, Excess::Fail).stale_for(MINUTE).fail_safe(10 * MINUTE, SECOND));
    prices.insert(3, 7);
    hand.advance(MINUTE);
    let gates = Gates::<u32>::new();
    let (inner, region) = (gates.clone(), prices.clone());
    let first = spawn(async move { region.get_or_load(&1, async move |_| Ok(inner.pass(1).await)).await });
    settle().await;
    let error = prices.get_or_load(&2, async |_| Ok(1)).await.unwrap_err();
    assert!(matches!(error, LoadError::Busy), "{error}");
    let old = prices.get_or_load(&3, async |_| Ok(8)).await.unwrap();
    assert!(old.is_stale(), "what can be served is, and not loaded");
    gates.open(1);
    assert_eq!(first.await.unwrap().unwrap(), 1);
    assert_eq!(prices.get_or_load(&2, async |_| Ok(1)).await.unwrap(), 1);
}

/// A value's destructor runs when everybody has been told of the load that put the value out.
#[cfg_attr(swiftwater_moka, ignore = "moka makes room later, whoever stores")]
#[tokio::test]
async fn who_asks_when_a_load_has_ended_finds_room() {
    type Found = Arc<Mutex<Vec<bool>>>;
    struct Asks(Option<(Region<u64, Self>, Found)>);
    impl Drop for Asks {
        fn drop(&mut self) {
            let Some((region, found)) = self.0.take() else { return };
            let load = pin!(region.get_or_load(&9, async |_| Ok(Self(None))));
            let asked = load.poll(&mut Context::from_waker(Waker::noop()));
            found.lock().unwrap().push(matches!(asked, Poll::Ready(Ok(_))));
        }
    }
    let found = Found::default();
    let cache = Cache::builder().build().unwrap();
    let region: Region<u64, Asks> =
        cache.region("asks").memory(1).max_loads(1, Excess::Fail).build().unwrap();
    for (key, waits) in [(1, false), (2, true), (3, false)] {
        let value = Asks(Some((region.clone(), found.clone())));
        let load = async move |_| {
            if waits {
                settle().await;
            }
            Ok(value)
        };
        drop(region.get_or_load(&key, load).await.unwrap());
        settle().await;
    }
    let found = found.lock().unwrap();
    assert!(
        found.len() >= 2 && found.iter().all(|found| *found),
        "in a task, and where it was asked for: {found:?}"
    );
}

#[tokio::test]
async fn a_caller_who_goes_away_while_it_waits_for_its_turn_leaves_the_key_to_others() {
    let (_, prices, _hand) = prices(|region| region.max_loads(1, Excess::Wait));
    let gates = Gates::<u32>::new();
    let ask = |key: u64| {
        let (prices, gates) = (prices.clone(), gates.clone());
        spawn(async move { prices.get_or_load(&key, async move |_| Ok(gates.pass(key).await)).await })
    };
    let first = ask(1);
    settle().await;
    let (waits, joins) = (ask(2), ask(2));
    settle().await;
    waits.abort();
    settle().await;
    gates.open(1);
    settle().await;
    gates.open(2);
    assert_eq!(first.await.unwrap().unwrap(), 1);
    assert_eq!(joins.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn a_load_that_was_not_tried_is_no_failure_of_the_source() {
    for excess in [Excess::Wait, Excess::Fail] {
        let (_, prices, hand) = prices(|region| region.max_loads(1, excess).fail_safe(10 * MINUTE, MINUTE));
        load(&prices, 1).await;
        hand.advance(MINUTE);
        let gates = Gates::<u32>::new();
        let ask = |key: u64| {
            let (prices, gates) = (prices.clone(), gates.clone());
            spawn(async move { prices.get_or_load(&key, async move |_| Ok(gates.pass(key).await)).await })
        };
        let busy = ask(7);
        settle().await;
        let turned_away = ask(1);
        settle().await;
        turned_away.abort();
        gates.open(7);
        settle().await;
        drop((busy.await, turned_away.await));
        assert!(!load(&prices, 2).await.is_stale(), "{excess:?}");
    }
}

#[tokio::test]
async fn a_load_within_a_load_of_its_own_region_does_not_wait_for_its_turn() {
    for excess in [Excess::Wait, Excess::Fail] {
        let (_, prices, _hand) = prices(|region| region.max_loads(1, excess));
        let inner = prices.clone();
        let outer = prices.get_or_load(&2, async move |_| {
            let below =
                inner.get_or_load_many(&[0, 1], async |_| Ok([(0, 20), (1, 1)])).await.map_err(|_| Failed)?;
            Ok(below.into_iter().flatten().map(|hit| *hit).sum())
        });
        assert_eq!(outer.await.unwrap(), 21, "{excess:?}");
    }
}

#[tokio::test]
async fn a_load_that_waits_for_its_turn_goes_ahead_if_the_one_before_it_waits_for_it() {
    let (cache, prices, _hand) = prices(|region| region.max_loads(1, Excess::Wait));
    let between: Prices = cache.region("between").error().build().unwrap();
    let gates = Gates::<u32>::new();
    let (inner, gate) = (prices.clone(), gates.clone());
    let first = spawn({
        let (prices, between) = (prices.clone(), between.clone());
        async move {
            let load = async move |_| {
                gate.pass(1).await;
                between
                    .get_or_load(&2, async move |_| {
                        inner.get_or_load(&2, async |_| Err(Failed)).await.map(|hit| *hit).map_err(|_| Failed)
                    })
                    .await
                    .map(|hit| *hit)
                    .map_err(|_| Failed)
            };
            prices.get_or_load(&1, load).await
        }
    });
    settle().await;
    let ask = |key: u64, value: u32| {
        let prices = prices.clone();
        spawn(async move { prices.get_or_load(&key, async move |_| Ok(value)).await })
    };
    let (second, third) = (ask(2, 7), ask(3, 8));
    settle().await;
    assert!(!second.is_finished());
    gates.open(1);
    for asked in [first, second] {
        assert_eq!(asked.await.unwrap().unwrap(), 7);
    }
    assert_eq!(third.await.unwrap().unwrap(), 8);
}

#[tokio::test]
async fn a_load_within_a_load_of_another_region_waits_for_its_turn() {
    let (cache, prices, _hand) = prices(|region| region.max_loads(1, Excess::Wait));
    let outer: Prices = cache.region("outer").error().max_loads(2, Excess::Wait).build().unwrap();
    let gates = Gates::<u32>::new();
    let ask = |key: u64| {
        let (outer, prices, gates) = (outer.clone(), prices.clone(), gates.clone());
        spawn(async move {
            let load = async move |_| {
                let inner = prices.get_or_load(&key, async move |_| Ok(gates.pass(key).await)).await;
                inner.map(|hit| *hit).map_err(|_| Failed)
            };
            outer.get_or_load(&key, load).await
        })
    };
    let asked: Vec<_> = (0..3).map(ask).collect();
    for key in 0..3 {
        settle().await;
        assert_eq!(gates.keys(), [key]);
        gates.open(0);
    }
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_loader_may_keep_what_was_there() {
    let (cache, prices, hand) = prices(|region| region.stale_for(MINUTE));
    let keep = async |_: LoadCx<u64>, old: Option<Hit<u32>>| match old {
        Some(old) => Ok(Loaded::Kept(old)),
        None => Ok(Loaded::New(1)),
    };
    assert_eq!(prices.get_or_refresh(&1, keep).await.unwrap(), 1);
    prices.insert_with(1, 7, |entry| entry.depends_on(dep!("tariff")));
    hand.advance(MINUTE);
    assert!(prices.get_or_refresh(&1, keep).await.unwrap().is_stale());
    settle().await;
    assert_eq!(prices.get(&1).unwrap(), 7, "its life has begun anew");
    cache.invalidate(dep!("tariff"));
    assert!(prices.get(&1).is_none(), "it depends on what it did");
}

#[tokio::test]
async fn what_was_invalidated_may_be_kept_by_who_has_asked_the_source() {
    let (cache, prices, _hand) = prices(|region| region);
    prices.insert_with(1, 7, |entry| entry.depends_on(dep!("tariff")));
    cache.invalidate(dep!("tariff"));
    let kept = prices
        .get_or_refresh(&1, async |_, old: Option<Hit<u32>>| {
            Ok(Loaded::Kept(old.expect("it was there a moment ago")))
        })
        .await
        .unwrap();
    assert_eq!(kept, 7);
    assert_eq!(prices.get(&1).unwrap(), 7);
    // A change while the source is asked counts as ever.
    cache.invalidate(dep!("tariff"));
    let inner = cache.clone();
    let kept = async move |_: LoadCx<u64>, old: Option<Hit<u32>>| {
        inner.invalidate(dep!("tariff"));
        Ok(Loaded::Kept(old.unwrap()))
    };
    prices.get_or_refresh(&1, kept).await.unwrap();
    assert!(prices.get(&1).is_none());
}

#[test]
fn nonsense_is_refused_by_name_and_value() {
    let cache = Cache::builder().build().unwrap();
    let refused = |options: fn(RegionBuilder<u64, u32>) -> RegionBuilder<u64, u32>| {
        options(cache.region("prices")).build().unwrap_err().to_string()
    };
    let zero = Duration::ZERO;
    assert_eq!(refused(|r| r.idle(Duration::ZERO)), "idle = 0s: must be longer than zero");
    for (error, option) in [
        (refused(|r| r.negative(Duration::ZERO, |_| true)), "negative"),
        (refused(|r| r.fail_safe(Duration::ZERO, SECOND)), "fail_safe"),
        (refused(|r| r.load_timeout(Duration::ZERO)), "load_timeout"),
        (refused(|r| r.soft_timeout(SECOND)), "soft_timeout"),
        (refused(|r| r.fail_safe(SECOND, SECOND).soft_timeout(SECOND).load_timeout(SECOND)), "soft_timeout"),
        (refused(|r| r.jitter(1.5)), "jitter"),
        (refused(|r| r.jitter(f64::NAN)), "jitter"),
        (refused(|r| r.refresh_after(-0.1)), "refresh_after"),
        (refused(|r| r.max_loads(0, Excess::Wait)), "max_loads"),
        (refused(|r| r.max_loads(usize::MAX, Excess::Wait)), "max_loads"),
    ] {
        assert!(error.starts_with(option), "{error}, {zero:?}");
    }
}
