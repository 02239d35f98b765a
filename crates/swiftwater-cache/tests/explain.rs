//! Why entries are or are not served; and the sweep that lets go of those that are not.

mod common;

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use common::{Gates, manual, readings, region, settle, spawn};
use swiftwater_cache::{Cache, Cause, Dep, LoadCx, Region, Verdict, dep};

const MINUTE: Duration = Duration::from_secs(60);

fn fill(prices: &Region<u64, u32>) {
    prices.insert_with(1, 10, |entry| {
        entry.depends_on(dep!("tariff", 7));
        entry.depends_on(dep!("product", 1));
    });
}

#[test]
fn the_verdict_names_what_was_invalidated() {
    let (cache, _hand) = manual();
    let prices = region(&cache, "prices");
    assert_eq!(prices.explain(&1).verdict, Verdict::Absent);
    let causes = [
        (dep!("tariff", 7), Cause::Dependency(dep!("tariff", 7))),
        (dep!("product", 1), Cause::Dependency(dep!("product", 1))),
        (prices.dep(&1), Cause::Key),
        (prices.whole(), Cause::Region),
        (Dep::everything(), Cause::Everything),
    ];
    for (dep, cause) in causes {
        fill(&prices);
        let fresh = prices.explain(&1);
        assert_eq!((fresh.verdict, fresh.dependencies, fresh.expires_in), (Verdict::Fresh, 2, None));
        cache.invalidate(dep.soft());
        assert_eq!(prices.explain(&1).verdict, Verdict::Softened(cause));
        cache.invalidate(dep);
        assert_eq!(prices.explain(&1).verdict, Verdict::Invalidated(cause));
        assert_eq!(prices.explain(&1).verdict, Verdict::Invalidated(cause), "asking changes nothing");
        assert!(prices.get(&1).is_none());
        assert_eq!(prices.explain(&1).verdict, Verdict::Absent);
    }
}

#[test]
fn too_many_dependencies_are_a_kind_or_anything() {
    let (cache, _hand) = manual();
    let prices = region::<u32>(&cache, "prices");
    prices.insert_with(1, 1, |entry| (0..100).for_each(|n| entry.depends_on(dep!("product", n))));
    cache.invalidate(dep!("product", 5));
    assert_eq!(prices.explain(&1).verdict, Verdict::Invalidated(Cause::Kind));
    let kinds: Vec<String> = (0..100).map(|n| format!("kind {n}")).collect();
    prices.insert_with(2, 1, |entry| kinds.iter().for_each(|kind| entry.depends_on(dep!(kind))));
    cache.invalidate(dep!("whatever"));
    assert_eq!(prices.explain(&2).verdict, Verdict::Invalidated(Cause::Unknown));
}

#[tokio::test]
async fn time_the_switch_and_loads_are_told() {
    let (cache, hand) = manual();
    let prices: Region<u64, u32> = cache.region("prices").ttl(MINUTE).idle(MINUTE / 2).build().unwrap();
    fill(&prices);
    hand.advance(MINUTE / 4);
    assert!(prices.get(&1).is_some());
    assert_eq!(prices.explain(&1).expires_in, Some(MINUTE * 3 / 4));
    hand.advance(MINUTE * 5 / 8);
    assert_eq!(prices.explain(&1).verdict, Verdict::Expired(Duration::ZERO), "idle");
    let other: Region<u64, u32> = cache.region("other").ttl(MINUTE).build().unwrap();
    fill(&other);
    hand.advance(MINUTE + MINUTE / 2);
    assert_eq!(other.explain(&1).verdict, Verdict::Expired(MINUTE / 2));
    other.set_enabled(false);
    assert_eq!(other.explain(&1).verdict, Verdict::Off);
    other.set_enabled(true);
    let gates = Gates::new();
    let (inner, region) = (gates.clone(), other.clone());
    let load = async move |_: LoadCx<u64>| Ok(inner.pass(1).await);
    let asked = spawn(async move { region.get_or_load(&1, load).await.map(|hit| *hit) });
    settle().await;
    let explanation = other.explain(&1);
    assert!(explanation.is_loading);
    gates.open(5);
    assert_eq!(asked.await.unwrap().unwrap(), 5);
    assert!(!other.explain(&1).is_loading);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_lets_go_of_what_cannot_be_served_and_of_nothing_else() {
    let (cache, hand) = manual();
    let prices: Region<u64, u32> = cache.region("prices").ttl(MINUTE).stale_for(MINUTE).build().unwrap();
    let labels = region::<u32>(&cache, "labels");
    for key in 0..1000 {
        prices.insert_with(key, 1, |entry| entry.depends_on(dep!("shelf", key % 4)));
        labels.insert(key, 1);
    }
    cache.invalidate(dep!("shelf", 1));
    cache.invalidate(dep!("shelf", 2).soft());
    let start = tokio::time::Instant::now();
    let swept = cache.sweep(1000).await;
    assert_eq!((swept.visited, swept.freed), (2000, 250), "what is soft may still be served");
    assert_eq!(start.elapsed().as_secs(), 1, "about a second for each thousand, but the rest of a batch");
    assert_eq!(readings(&prices)["entries"], 750.0);
    assert_eq!(readings(&prices)["swept"], 250.0);
    // Some share a mark with what was softened, and are as soft.
    let served = (0..1000).filter(|key| prices.get(key).is_some()).count();
    assert!((490..=500).contains(&served), "{served}");
    hand.advance(MINUTE);
    assert_eq!(cache.sweep(1_000_000).await.freed, 0, "it may be served while it is loaded anew");
    hand.advance(MINUTE);
    assert_eq!(cache.sweep(u32::MAX).await.freed, 750);
    assert_eq!(readings(&labels)["entries"], 1000.0);
    assert_eq!(cache.sweep(0).await.freed, 0);
}

#[test]
fn a_sweep_without_timers_tries_them_once() {
    let cache = Cache::builder().build().unwrap();
    let prices = region::<u32>(&cache, "prices");
    (0..1000).for_each(|key| prices.insert(key, 1));
    cache.invalidate(prices.whole());
    // Other tests of this file may panic meanwhile, each on its thread.
    let (here, panics) = (thread::current().id(), Arc::new(AtomicU32::new(0)));
    let (others, counted) = (panic::take_hook(), panics.clone());
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == here {
            counted.fetch_add(1, SeqCst);
        } else {
            others(info);
        }
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let swept = runtime.block_on(cache.sweep(1));
    drop(panic::take_hook());
    assert_eq!((swept.visited, swept.freed), (1000, 1000));
    assert!(panics.load(SeqCst) <= 1, "{panics:?} panics are reported");
}
