//! Soft and gradual invalidations, and those that hold off storing; of names, keys, regions and everything.

mod common;

use std::time::Duration;

use common::{Gates, cache, manual, readings, region, settle, spawn};
use swiftwater_cache::{Cache, Hit, LoadCx, Region, dep};

const MINUTE: Duration = Duration::from_secs(60);

/// Loads `value`, which depends on the tariff.
async fn load(region: &Region<u64, u32>, key: u64, value: u32) -> Hit<u32> {
    let load = async move |cx: LoadCx<u64>| {
        cx.depends_on(dep!("tariff"));
        Ok(value)
    };
    region.get_or_load(&key, load).await.unwrap()
}

#[tokio::test]
async fn a_soft_one_is_served_once_more_while_it_is_loaded_anew() {
    let cache = cache();
    let prices = region(&cache, "prices");
    load(&prices, 1, 10).await;
    cache.invalidate(dep!("tariff").soft());
    assert!(prices.get(&1).is_none(), "a plain get could not load it anew");
    let old = load(&prices, 1, 20).await;
    assert!(old.is_stale());
    assert_eq!(old, 10);
    settle().await;
    let new = prices.get(&1).unwrap();
    assert!(!new.is_stale());
    assert_eq!(new, 20);
    let readings = readings(&prices);
    assert_eq!((readings["stale_served"], readings["refreshes"], readings["loads"]), (1.0, 1.0, 2.0));
}

#[tokio::test]
async fn one_load_at_a_time_refreshes_what_is_soft() {
    let cache = cache();
    let prices: Region<u64, u32> = region(&cache, "prices");
    prices.insert(1, 10);
    cache.invalidate(prices.dep(&1).soft());
    let gates = Gates::new();
    for _ in 0..10 {
        let inner = gates.clone();
        let old = prices.get_or_load(&1, async move |_| Ok(inner.pass(1).await)).await.unwrap();
        assert!(old.is_stale());
        settle().await;
        assert_eq!(gates.waiting(), 1);
    }
    gates.open(20);
    settle().await;
    assert_eq!(prices.get(&1).unwrap(), 20);
}

#[tokio::test]
async fn a_loader_is_not_served_what_is_soft() {
    let cache = cache();
    let prices = region(&cache, "prices");
    let labels = region::<u32>(&cache, "labels");
    load(&prices, 1, 10).await;
    cache.invalidate(dep!("tariff").soft());
    let inner = prices.clone();
    let label = labels.get_or_load(&1, async move |_| Ok(*load(&inner, 1, 20).await * 2)).await.unwrap();
    assert_eq!(label, 40);
    assert_eq!(labels.get(&1).unwrap(), 40, "so it is worth keeping");
}

#[tokio::test]
async fn what_is_made_of_something_soft_is_soft() {
    let cache = cache();
    let prices = region(&cache, "prices");
    let labels = region::<u32>(&cache, "labels");
    let inner = prices.clone();
    labels.get_or_load(&1, async move |_| Ok(*load(&inner, 1, 10).await)).await.unwrap();
    cache.invalidate(dep!("tariff").soft());
    assert!(labels.get_or_load(&1, async |_| Ok(20)).await.unwrap().is_stale());
}

#[tokio::test]
async fn a_strict_one_is_never_undone_by_a_gentle_one() {
    for gentle in [dep!("tariff").soft(), dep!("tariff").gradual(MINUTE)] {
        for strict_first in [true, false] {
            let cache = cache();
            let prices = region(&cache, "prices");
            load(&prices, 1, 10).await;
            if strict_first {
                cache.invalidate(dep!("tariff"));
            }
            cache.invalidate(gentle);
            if !strict_first {
                cache.invalidate(dep!("tariff"));
            }
            assert!(prices.get(&1).is_none());
            assert_eq!(load(&prices, 1, 20).await, 20, "{gentle:?}, strict first: {strict_first}");
        }
    }
}

#[tokio::test]
async fn gradually_entries_take_their_turns_over_the_window() {
    let (cache, hand) = manual();
    let prices = region(&cache, "prices");
    for key in 0..1000 {
        load(&prices, key, 10).await;
    }
    let served = || (0..1000).filter(|key| prices.get(key).is_some()).count();
    cache.invalidate(dep!("tariff").gradual(MINUTE));
    let mut left = Vec::new();
    for _ in 0..6 {
        left.push(served());
        hand.advance(MINUTE / 6);
    }
    for (place, left) in left.iter().enumerate() {
        let expected = 1000 - place * 1000 / 6;
        assert!(left.abs_diff(expected) < 100, "{left} of about {expected} after {place} sixths");
    }
    assert_eq!(served(), 0, "all of them by its end");
}

/// What has had its turn stays gone, and nobody gets more time than the first one gave.
#[tokio::test]
async fn a_second_gradual_one_brings_nothing_back_and_delays_nothing() {
    for later in [MINUTE / 10, MINUTE, MINUTE * 10] {
        let (cache, hand) = manual();
        let prices = region(&cache, "prices");
        for key in 0..300 {
            load(&prices, key, 10).await;
        }
        // Not looked at before the end, since a look lets go of what is stale.
        cache.invalidate(dep!("tariff").gradual(MINUTE));
        hand.advance(MINUTE / 2);
        cache.invalidate(dep!("tariff").gradual(later));
        let half = (0..300).filter(|key| prices.get(key).is_some()).count();
        assert!(half < 200, "{half} of about 150 after a second one of {later:?}");
        hand.advance(MINUTE / 2);
        assert_eq!((0..300).filter(|key| prices.get(key).is_some()).count(), 0);
    }
}

#[tokio::test]
async fn one_that_has_run_its_course_does_not_concern_what_came_later() {
    let (cache, hand) = manual();
    let prices = region(&cache, "prices");
    load(&prices, 1, 10).await;
    cache.invalidate(dep!("tariff").gradual(MINUTE));
    hand.advance(MINUTE);
    load(&prices, 1, 20).await;
    cache.invalidate(dep!("tariff").soft());
    let once_more = load(&prices, 1, 30).await;
    assert!(once_more.is_stale() && once_more == 20);
    cache.invalidate(dep!("tariff").gradual(MINUTE));
    hand.advance(MINUTE);
    settle().await;
    load(&prices, 1, 40).await;
    cache.invalidate(dep!("tariff").gradual(MINUTE));
    assert!(prices.get(&1).is_some(), "its turn has not come");
}

#[tokio::test]
async fn what_was_loaded_since_is_not_taken_again() {
    let (cache, hand) = manual();
    let prices = region(&cache, "prices");
    cache.invalidate(dep!("tariff").gradual(MINUTE));
    for key in 0..100 {
        load(&prices, key, 10).await;
    }
    for _ in 0..4 {
        hand.advance(MINUTE / 2);
        assert_eq!((0..100).filter(|key| prices.get(key).is_some()).count(), 100);
    }
}

#[tokio::test]
async fn softly_and_gradually_is_both() {
    let (cache, hand) = manual();
    let prices = region(&cache, "prices");
    load(&prices, 1, 10).await;
    cache.invalidate(dep!("tariff").soft().gradual(MINUTE));
    hand.advance(MINUTE);
    let old = load(&prices, 1, 20).await;
    assert!(old.is_stale() && old == 10);
}

#[tokio::test]
async fn of_two_gentle_ones_the_stricter_stays() {
    // Each pair in both orders: what is left of an entry from before, at the start, in the middle and at the end.
    let soft = dep!("tariff").soft();
    let gradual = dep!("tariff").gradual(MINUTE);
    let later = dep!("tariff").gradual(MINUTE * 10);
    let both = dep!("tariff").soft().gradual(MINUTE);
    for (pair, expected) in [
        ((soft, gradual), "gone"),
        ((both, gradual), "gone"),
        ((gradual, later), "gone"),
        ((soft, later), "any"),
    ] {
        for (first, second) in [pair, (pair.1, pair.0)] {
            let (cache, hand) = manual();
            let prices = region(&cache, "prices");
            load(&prices, 1, 10).await;
            cache.invalidate(first);
            hand.advance(Duration::from_secs(1));
            cache.invalidate(second);
            hand.advance(MINUTE);
            let served = load(&prices, 1, 20).await;
            match expected {
                "gone" => assert!(!served.is_stale(), "{first:?}, then {second:?}"),
                _ => assert!(served.is_stale() || served == 20, "{first:?}, then {second:?}"),
            }
        }
    }
    // One that has run its course is as strict as a strict one, whatever comes later.
    let (cache, hand) = manual();
    let prices = region(&cache, "prices");
    load(&prices, 1, 10).await;
    cache.invalidate(gradual);
    hand.advance(MINUTE);
    cache.invalidate(soft);
    assert!(!load(&prices, 1, 20).await.is_stale());
}

#[tokio::test]
async fn a_whole_region_and_everything_can_be_invalidated() {
    let cache = cache();
    let prices = region::<u32>(&cache, "prices");
    let labels = region::<u32>(&cache, "labels");
    let stock = region::<u32>(&cache, "stock");
    let fill = async || {
        prices.insert(1, 10);
        stock.insert(1, 5);
        let inner = prices.clone();
        labels.get_or_load(&1, async move |_| Ok(*inner.get(&1).unwrap())).await.unwrap();
    };
    let there = || [&prices, &labels, &stock].map(|region| region.get(&1).is_some());
    fill().await;
    assert_eq!(there(), [true; 3]);
    cache.invalidate(prices.whole());
    assert_eq!(there(), [false, false, true], "and what was made of it");
    fill().await;
    assert_eq!(there(), [true; 3]);
    cache.invalidate(swiftwater_cache::Dep::everything());
    assert_eq!(there(), [false; 3]);
    fill().await;
    assert_eq!(there(), [true; 3], "what is stored later is another matter");
    cache.invalidate(prices.whole().soft());
    assert_eq!(there(), [false, false, true]);
    assert!(prices.get_or_load(&1, async |_| Ok(11)).await.unwrap().is_stale());
    cache.invalidate(swiftwater_cache::Dep::everything().soft());
    assert!(stock.get_or_load(&1, async |_| Ok(6)).await.unwrap().is_stale());
}

#[tokio::test]
async fn the_whole_of_a_region_reaches_what_has_too_many_dependencies() {
    let cache = cache();
    let parts = region::<u32>(&cache, "parts");
    let wholes = region::<u32>(&cache, "wholes");
    let inner = parts.clone();
    let sum = async move |_| {
        let mut sum = 0;
        for key in 0..500 {
            sum += *inner.get_or_load(&key, async |_| Ok(1)).await?;
        }
        Ok(sum)
    };
    assert_eq!(wholes.get_or_load(&1, sum).await.unwrap(), 500);
    assert!(wholes.get(&1).is_some());
    cache.invalidate(parts.whole());
    assert!(wholes.get(&1).is_none());
}

#[tokio::test]
async fn a_key_can_be_invalidated_by_its_name() {
    let cache = cache();
    let prices = region::<u32>(&cache, "prices");
    let labels = region::<u32>(&cache, "labels");
    prices.insert(1, 10);
    prices.insert(2, 10);
    let name = prices.dep(&1);
    labels.insert_with(1, 10, |entry| entry.depends_on(name));
    cache.invalidate(name);
    assert!(prices.get(&1).is_none() && labels.get(&1).is_none());
    assert!(prices.get(&2).is_some());
    // An insert changes the key, and what depends on it; its own entry stays.
    labels.insert_with(1, 10, |entry| entry.depends_on(name));
    prices.insert(1, 11);
    assert!(labels.get(&1).is_none());
    assert_eq!(prices.get(&1).unwrap(), 11);
}

#[tokio::test]
async fn within_the_hold_off_loads_are_returned_and_not_stored() {
    let (cache, hand) = manual();
    let prices = region(&cache, "prices");
    load(&prices, 1, 10).await;
    cache.invalidate(dep!("tariff").hold_off(MINUTE));
    assert!(prices.get(&1).is_none());
    assert_eq!(load(&prices, 1, 11).await, 11, "from a replica that lags");
    assert!(prices.get(&1).is_none());
    prices.insert(2, 5);
    assert!(prices.get(&2).is_some(), "nothing else is concerned");
    hand.advance(MINUTE - Duration::from_nanos(1));
    load(&prices, 1, 11).await;
    assert!(prices.get(&1).is_none());
    hand.advance(Duration::from_nanos(1));
    load(&prices, 1, 12).await;
    assert_eq!(prices.get(&1).unwrap(), 12);
}

#[tokio::test]
async fn a_load_from_within_the_hold_off_is_not_stored_after_it_either() {
    let (cache, hand) = manual();
    let prices = region::<u32>(&cache, "prices");
    cache.invalidate(dep!("tariff").hold_off(MINUTE));
    let gates = Gates::new();
    let (inner, region) = (gates.clone(), prices.clone());
    let asked = spawn(async move {
        let load = async move |cx: LoadCx<u64>| {
            cx.depends_on(dep!("tariff"));
            Ok(inner.pass(1).await)
        };
        region.get_or_load(&1, load).await.unwrap()
    });
    settle().await;
    hand.advance(MINUTE * 2);
    gates.open(10);
    assert_eq!(asked.await.unwrap(), 10);
    assert!(prices.get(&1).is_none());
}

#[tokio::test]
async fn what_depends_on_too_much_is_held_and_softened_as_well() {
    let (cache, _hand) = manual();
    let prices = region::<u32>(&cache, "prices");
    let many = async |cx: LoadCx<u64>| {
        (0..200).for_each(|n| cx.depends_on(dep!("product", n)));
        Ok(1)
    };
    prices.get_or_load(&1, many).await.unwrap();
    cache.invalidate(dep!("product", 7).soft());
    assert!(prices.get_or_load(&1, many).await.unwrap().is_stale());
    settle().await;
    assert!(prices.get(&1).is_some());
    cache.invalidate(dep!("product", 7).hold_off(MINUTE));
    prices.get_or_load(&1, many).await.unwrap();
    assert!(prices.get(&1).is_none());
}

/// It may depend on whatever was softened, so it is as good as invalidated.
#[tokio::test]
async fn what_depends_on_too_many_kinds_is_stale_with_any_gentle_one() {
    let (cache, _hand) = manual();
    let prices = region::<u32>(&cache, "prices");
    let many = async |cx: LoadCx<u64>| {
        (0..200).for_each(|n| cx.depends_on(dep!(&format!("kind {n}"))));
        Ok(1)
    };
    prices.get_or_load(&1, many).await.unwrap();
    assert!(prices.get(&1).is_some());
    cache.invalidate(dep!("whatever").soft());
    assert!(!prices.get_or_load(&1, many).await.unwrap().is_stale());
    cache.invalidate(dep!("whatever").hold_off(MINUTE));
    prices.get_or_load(&1, many).await.unwrap();
    assert!(prices.get(&1).is_none(), "and held with any");
}

#[tokio::test]
async fn what_is_made_of_something_whose_turn_will_come_has_its_turn_too() {
    let (cache, hand) = manual();
    let prices = region(&cache, "prices");
    let labels = region::<u32>(&cache, "labels");
    load(&prices, 1, 10).await;
    cache.invalidate(dep!("tariff").gradual(MINUTE));
    // Made after the invalidation, of a value from before it.
    let inner = prices.clone();
    let label = labels.get_or_load(&1, async move |_| Ok(*inner.get(&1).unwrap())).await.unwrap();
    assert_eq!(label, 10);
    hand.advance(MINUTE);
    assert!(prices.get(&1).is_none() && labels.get(&1).is_none());
}

#[tokio::test]
async fn what_is_made_of_a_load_that_was_held_off_is_not_stored() {
    let (cache, hand) = manual();
    let prices = region::<u32>(&cache, "prices");
    let labels = region::<u32>(&cache, "labels");
    cache.invalidate(dep!("tariff").hold_off(MINUTE));
    let gates = Gates::new();
    let (inner, region) = (gates.clone(), prices.clone());
    let slow = async move |cx: LoadCx<u64>| {
        cx.depends_on(dep!("tariff"));
        Ok(inner.pass(1).await)
    };
    let asked = spawn(async move { region.get_or_load(&1, slow).await.map(|hit| *hit) });
    settle().await;
    hand.advance(MINUTE);
    // Begun after the time is over, it joins a load from within it.
    let (inner, region) = (prices.clone(), labels.clone());
    let made = spawn(async move {
        let label =
            region.get_or_load(&1, async move |_| Ok(*inner.get_or_load(&1, async |_| Ok(99)).await?));
        label.await.map(|hit| *hit)
    });
    settle().await;
    gates.open(10);
    assert_eq!((asked.await.unwrap().unwrap(), made.await.unwrap().unwrap()), (10, 10));
    assert!(prices.get(&1).is_none() && labels.get(&1).is_none());
}

#[tokio::test]
async fn the_whole_of_a_region_reaches_what_declares_a_key_by_name() {
    let cache = Cache::builder().build().unwrap();
    let rows: Region<u64, u32> = cache.region("rows").build().unwrap();
    let sums: Region<u64, u32> = cache.region("sums").build().unwrap();
    let key = rows.dep(&1);
    sums.get_or_load(&1, async move |cx| {
        cx.depends_on(key);
        Ok(1)
    })
    .await
    .unwrap();
    cache.invalidate(rows.whole());
    assert!(sums.get(&1).is_none());
}

/// A window's end moves no version, so a load that read something within it is looked at closely by who asks after it.
#[tokio::test]
async fn a_load_that_read_something_before_its_turn_is_not_joined_after_it() {
    let (cache, hand) = manual();
    let prices = region(&cache, "prices");
    let labels = region::<u32>(&cache, "labels");
    load(&prices, 1, 10).await;
    cache.invalidate(dep!("tariff").gradual(MINUTE));
    let gates = Gates::<()>::new();
    let ask = |value: u32| {
        let (inner, region, gates) = (prices.clone(), labels.clone(), gates.clone());
        spawn(async move {
            let label = region.get_or_load(&1, async move |_| {
                let price = *load(&inner, 1, value).await;
                gates.pass(1).await;
                Ok(price)
            });
            label.await.map(|hit| *hit)
        })
    };
    let early = ask(20);
    settle().await;
    hand.advance(MINUTE);
    let late = ask(30);
    settle().await;
    gates.open(());
    settle().await;
    gates.open(());
    assert_eq!((early.await.unwrap().unwrap(), late.await.unwrap().unwrap()), (10, 30));
}

#[tokio::test]
async fn what_stands_in_for_a_load_that_read_something_before_its_turn_has_its_turn_too() {
    let (cache, hand) = manual();
    let prices = region(&cache, "prices");
    let (labels, pages) = (region::<u32>(&cache, "labels"), region::<u32>(&cache, "pages"));
    load(&prices, 1, 10).await;
    cache.invalidate(dep!("tariff").gradual(MINUTE));
    let failing = async move |_| {
        prices.get(&1).expect("its turn has not come");
        Err(std::fmt::Error.into())
    };
    let makeshift = async move |_| Ok(labels.get_or_load(&1, failing).await.map_or(0, |label| *label));
    assert_eq!(pages.get_or_load(&1, makeshift).await.unwrap(), 0);
    assert!(pages.get(&1).is_some());
    hand.advance(MINUTE);
    assert!(pages.get(&1).is_none());
}
