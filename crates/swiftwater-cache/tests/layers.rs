//! Layers below memory: what they have is believed only where it may be, and whatever they do fails nobody.

mod common;
mod shelf_common;

use std::{
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use common::{Gates, manual, readings, settle, spawn};
use serde::{Deserialize, Serialize};
use shelf_common::{Mood, Shelf};
use swiftwater_cache::{
    Cache, Dep, Excess, Fill, Hit, Invalidation, LoadCx, ManyCx, Reach, Region, RegionBuilder, Sink, Skip,
    Tier, Writes, dep,
};
use swiftwater_core::{Clock, Gate, Hand, Outcome, Reason, Rejected, Token};
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Price {
    cents: u32,
}

type Prices = Region<u64, Price>;

fn builder(cache: &Cache) -> RegionBuilder<u64, Price> {
    builder_named(cache, "prices")
}

fn builder_named(cache: &Cache, name: &'static str) -> RegionBuilder<u64, Price> {
    cache.region(name).ttl(MINUTE).schema(1)
}

/// A second cache cannot believe the first one's envelopes, so memory is emptied by switching to a tiny region: what is
/// evicted here is what a layer is for.
fn small(cache: &Cache, tier: impl Into<Tier>) -> Prices {
    builder(cache).memory(1).layer(tier).build().unwrap()
}

async fn load(prices: &Prices, key: u64, cents: u32) -> Hit<Price> {
    let load = async move |cx: LoadCx<u64>| {
        cx.depends_on(dep!("tariff", *cx.key()));
        Ok(Price { cents })
    };
    let hit = prices.get_or_load(&key, load).await.unwrap();
    settle().await;
    hit
}

/// Of key 1, in the layer, by a region that is gone.
async fn left_behind(cache: &Cache, shelf: &Arc<Shelf>) {
    let first: Prices = builder(cache).layer(shelf.clone()).build().unwrap();
    first.get_or_load(&1, async |_| Ok(Price { cents: 1 })).await.unwrap();
    settle().await;
}

/// Fills the layer with key 1, and memory with others.
async fn fill(prices: &Prices) {
    load(prices, 1, 10).await;
    fill_others(prices).await;
}

async fn fill_others(prices: &Prices) {
    for key in 100..110 {
        (0..20).for_each(|_| drop(prices.get(&key))); // moka admits what is in demand, once it has settled
        readings(prices);
        load(prices, key, 0).await;
    }
    readings(prices);
    assert!(prices.get(&1).is_none(), "it is in the layer only");
}

fn of_layer(prices: &Prices, counter: &str) -> f64 {
    readings(prices)[&format!("shelf/{counter}")]
}

#[tokio::test]
async fn what_memory_has_not_is_found_in_the_layer() {
    let (cache, hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, shelf.clone());
    fill(&prices).await;
    hand.advance(MINUTE / 2);
    let found = load(&prices, 1, 20).await;
    assert_eq!(found.cents, 10, "the loader was not asked");
    assert_eq!(prices.get(&1).unwrap().cents, 10, "and it has risen");
    hand.advance(MINUTE / 2);
    assert!(prices.get(&1).is_none(), "with what was left of its lifetime");
    assert_eq!(load(&prices, 1, 20).await.cents, 20, "in the layer, too");
    assert_eq!(of_layer(&prices, "hits"), 1.0);
}

#[tokio::test]
async fn what_goes_in_and_out_of_a_layer_is_counted_in_bytes() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, shelf.clone());
    fill(&prices).await;
    let lens: Vec<usize> = shelf.map.lock().unwrap().values().map(|(bytes, _)| bytes.len()).collect();
    assert_eq!(of_layer(&prices, "bytes_in"), lens.iter().sum::<usize>() as f64);
    assert_eq!(of_layer(&prices, "bytes_out"), 0.0);
    load(&prices, 1, 20).await;
    let one = of_layer(&prices, "bytes_out");
    assert!(lens.contains(&(one as usize)), "{one}");
    let gone: Vec<u64> = (100..110).filter(|key| prices.get(key).is_none()).take(2).collect();
    let loader = async |_: ManyCx<u64>| Ok([]);
    prices.get_or_load_many(&[gone[0], gone[1], 500], loader).await.unwrap();
    assert!(of_layer(&prices, "bytes_out") >= 2.0 * one, "many at once as well");
    shelf.be(Mood::Failing);
    let before = of_layer(&prices, "bytes_in");
    load(&prices, 501, 20).await;
    assert_eq!(of_layer(&prices, "bytes_in"), before, "it did not arrive");
}

#[tokio::test]
async fn what_was_invalidated_is_not_believed() {
    type Invalidate = fn(&Cache, &Prices) -> Invalidation;
    let ways: [(&str, Invalidate); 7] = [
        ("its dependency", |cache, _| cache.invalidate(dep!("tariff", 1))),
        ("its key", |_, prices| prices.invalidate(&1)),
        ("its key by name", |cache, prices| cache.invalidate(prices.dep(&1))),
        ("its region", |cache, prices| cache.invalidate(prices.whole())),
        ("everything", |cache, _| cache.invalidate(Dep::everything())),
        ("it softly", |cache, _| cache.invalidate(dep!("tariff", 1).soft())),
        ("it gradually", |cache, _| cache.invalidate(dep!("tariff", 1).gradual(MINUTE))),
    ];
    for (name, invalidate) in ways {
        let (cache, _hand) = manual();
        let prices = small(&cache, Shelf::new());
        fill(&prices).await;
        assert_eq!(invalidate(&cache, &prices).await, Reach::Local);
        settle().await;
        assert_eq!(load(&prices, 1, 20).await.cents, 20, "after invalidating {name}");
        assert_eq!(of_layer(&prices, "outdated"), 1.0, "{name}");
    }
    let (cache, _hand) = manual();
    let prices = small(&cache, Shelf::new());
    fill(&prices).await;
    cache.invalidate(dep!("tariff", 2));
    assert_eq!(load(&prices, 1, 20).await.cents, 10, "nothing else is concerned");
}

#[tokio::test]
async fn an_insert_outdates_what_the_layer_has() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, shelf.clone());
    fill(&prices).await;
    shelf.be(Mood::Failing); // the new value does not arrive
    prices.insert(1, Price { cents: 30 });
    settle().await;
    assert_eq!(prices.get(&1).unwrap().cents, 30);
    shelf.be(Mood::Well);
    fill_others(&prices).await;
    assert_eq!(load(&prices, 1, 40).await.cents, 40, "and not the 10 that are still there");
}

#[tokio::test]
async fn an_inserted_value_goes_to_the_layer_too() {
    let (cache, _hand) = manual();
    let prices = small(&cache, Shelf::new());
    prices.insert_with(1, Price { cents: 30 }, |entry| entry.depends_on(dep!("tariff", 1)));
    settle().await;
    for key in 200..210 {
        load(&prices, key, 0).await;
    }
    assert_eq!(load(&prices, 1, 40).await.cents, 30);
    cache.invalidate(dep!("tariff", 1));
    assert_eq!(load(&prices, 1, 40).await.cents, 40);
}

#[tokio::test]
async fn what_is_inserted_for_no_time_goes_nowhere() {
    let (cache, _hand) = manual();
    let prices = small(&cache, Shelf::new());
    prices.insert_with(1, Price { cents: 30 }, |entry| entry.ttl(Duration::ZERO));
    settle().await;
    assert_eq!(readings(&prices)["shelf/puts"], 0.0);
    assert_eq!(load(&prices, 1, 40).await.cents, 40);
}

#[tokio::test]
async fn what_the_layer_has_lends_its_dependencies() {
    let (cache, _hand) = manual();
    let prices = small(&cache, Shelf::new());
    let labels: Region<u64, u32> = cache.region("labels").build().unwrap();
    fill(&prices).await;
    let inner = prices.clone();
    let label = labels.get_or_load(&1, async move |_| Ok(load(&inner, 1, 20).await.cents)).await.unwrap();
    assert_eq!(label, 10);
    assert!(labels.get(&1).is_some());
    cache.invalidate(dep!("tariff", 1));
    assert!(labels.get(&1).is_none());
}

#[tokio::test]
async fn a_load_from_the_layer_that_races_with_an_invalidation_is_not_served_after_it() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, Tier::from(shelf.clone()).timeout(MINUTE));
    fill(&prices).await;
    shelf.be(Mood::Hanging);
    let (inner, before) = (prices.clone(), shelf.gets.load(SeqCst));
    let first = spawn(async move { load(&inner, 1, 20).await.cents });
    settle().await;
    assert_eq!(shelf.gets.load(SeqCst), before + 1);
    cache.invalidate(dep!("tariff", 1));
    let inner = prices.clone();
    let second = spawn(async move { load(&inner, 1, 30).await.cents });
    settle().await;
    // The first read is dropped with its task: the second caller asks anew.
    first.abort();
    shelf.be(Mood::Well);
    drop(first.await);
    settle().await;
    prices.invalidate(&1); // lets go of the load that hangs
    let inner = prices.clone();
    let third = spawn(async move { load(&inner, 1, 40).await.cents });
    assert_eq!(third.await.unwrap(), 40);
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_fails_or_hangs_costs_its_time_out_and_no_more() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, Tier::from(shelf.clone()).timeout(Duration::from_millis(50)));
    fill(&prices).await;
    shelf.be(Mood::Failing);
    assert_eq!(load(&prices, 1, 20).await.cents, 20);
    assert_eq!(of_layer(&prices, "errors"), 2.0, "the read and the write");
    shelf.be(Mood::Hanging);
    let start = tokio::time::Instant::now();
    assert_eq!(load(&prices, 2, 20).await.cents, 20);
    assert_eq!(start.elapsed(), Duration::from_millis(50));
    tokio::time::sleep(MINUTE).await;
    assert_eq!(of_layer(&prices, "timeouts"), 2.0);
    shelf.be(Mood::Well);
    load(&prices, 3, 20).await;
    assert_eq!(of_layer(&prices, "misses"), 12.0, "it is asked again");
}

#[tokio::test]
async fn a_layer_that_lies_is_found_out() {
    type Lie = fn(&mut Vec<u8>);
    let lies: [(&str, Lie); 4] = [
        ("a flipped byte", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("a flipped value", |bytes| bytes[60] ^= 1),
        ("a cut", |bytes| bytes.truncate(30)),
        ("nothing", Vec::clear),
    ];
    for (name, lie) in lies {
        let (cache, _hand) = manual();
        let shelf = Shelf::new();
        let prices = small(&cache, shelf.clone());
        fill(&prices).await;
        shelf.change(lie);
        assert_eq!(load(&prices, 1, 20).await.cents, 20, "{name}");
        assert_eq!(of_layer(&prices, "damaged"), 1.0, "{name}");
    }
    // One key's bytes for another's.
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, shelf.clone());
    fill(&prices).await;
    let any = shelf.map.lock().unwrap().values().next().unwrap().clone();
    shelf.map.lock().unwrap().values_mut().for_each(|value| *value = any.clone());
    let mut wrong = 0;
    let gone: Vec<u64> = (100..110).filter(|key| prices.get(key).is_none()).take(2).collect();
    for key in [1, gone[0], gone[1]] {
        wrong += u32::from(load(&prices, key, 77).await.cents != 77);
    }
    assert!(wrong <= 1, "at most the one whose own they are");
}

#[tokio::test]
async fn another_schema_or_shape_is_not_believed() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    fill(&small(&cache, shelf.clone())).await;
    let prices = builder(&cache).memory(1).schema(2).layer(shelf.clone()).build().unwrap();
    assert_eq!(load(&prices, 1, 20).await.cents, 20);
    assert_eq!(of_layer(&prices, "foreign"), 1.0);
    drop(prices);
    #[derive(Serialize, Deserialize)]
    struct Price {
        cents: u64,
    }
    let other: Region<u64, Price> = cache.region("prices").schema(2).layer(shelf).build().unwrap();
    assert_eq!(other.get_or_load(&1, async |_| Ok(Price { cents: 30 })).await.unwrap().cents, 30);
}

#[tokio::test]
async fn values_that_cannot_be_encoded_stay_in_memory() {
    struct Odd;
    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("in the user's code");
        }
    }
    impl<'de> Deserialize<'de> for Odd {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("in the user's code");
        }
    }
    let (cache, _hand) = manual();
    let odd: Region<u64, Odd> = cache.region("odd").schema(1).layer(Shelf::new()).build().unwrap();
    odd.get_or_load(&1, async |_| Ok(Odd)).await.unwrap();
    assert!(odd.get(&1).is_some());
    assert_eq!(readings(&odd)["shelf/unencodable"], 1.0);
}

#[tokio::test]
async fn many_keys_are_looked_for_in_one_trip() {
    let (cache, _hand) = manual();
    let (near, far) = (Shelf::named("near"), Shelf::named("far"));
    let prices = builder(&cache).memory(1).layer(near.clone()).layer(far.clone()).build().unwrap();
    fill(&prices).await;
    near.map.lock().unwrap().clear();
    let gone = (100..110).find(|key| prices.get(key).is_none()).expect("there is room for one");
    let before = far.gets.load(SeqCst);
    let loader = |cx: ManyCx<u64>| async move {
        assert_eq!(cx.keys(), [7]);
        Ok([(7, Price { cents: 70 })])
    };
    let found = prices.get_or_load_many(&[1, 7, gone], loader).await.unwrap();
    let cents: Vec<u32> = found.into_iter().map(|hit| hit.unwrap().cents).collect();
    assert_eq!(cents, [10, 70, 0]);
    assert_eq!([near.trips.load(SeqCst), far.trips.load(SeqCst), far.gets.load(SeqCst) - before], [1, 1, 0]);
    settle().await;
    assert_eq!(near.len(), 3, "what was found has risen, what was loaded is kept");
    for mood in [Mood::Failing, Mood::Well] {
        near.be(mood);
        far.be(mood);
        cache.invalidate(Dep::everything());
        let loader = |cx: ManyCx<u64>| async move {
            Ok(cx.keys().iter().map(|key| (*key, Price { cents: 5 })).collect::<Vec<_>>())
        };
        let found = prices.get_or_load_many(&[1, 101], loader).await.unwrap();
        assert!(found.into_iter().all(|hit| hit.unwrap().cents == 5));
    }
}

#[tokio::test]
async fn an_invalidation_while_a_value_is_decoded_counts() {
    thread_local!(static MEANWHILE: std::cell::RefCell<Option<Cache>> = const { std::cell::RefCell::new(None) });
    #[derive(Serialize)]
    struct Slow(u32);
    impl<'de> Deserialize<'de> for Slow {
        fn deserialize<D: serde::Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
            if let Some(cache) = MEANWHILE.take() {
                drop(spawn(cache.invalidate(dep!("tariff")))); // it takes effect when called
            }
            u32::deserialize(decoder).map(Self)
        }
    }
    let (cache, _hand) = manual();
    let slow: Region<u64, Slow> =
        cache.region("slow").memory(1).schema(1).layer(Shelf::new()).build().unwrap();
    let load = async |key: u64| {
        let load = async |cx: LoadCx<u64>| {
            cx.depends_on(dep!("tariff"));
            Ok(Slow(1))
        };
        slow.get_or_load(&key, load).await.unwrap();
        settle().await;
    };
    for key in 1..=10 {
        load(key).await;
    }
    readings(&slow); // settles the store
    let gone = (1..=10).find(|key| slow.get(key).is_none()).expect("there is room for one");
    MEANWHILE.set(Some(cache));
    load(gone).await;
    assert!(slow.get(&gone).is_none());
}

#[tokio::test]
async fn two_layers_are_asked_in_order_and_the_upper_one_is_told() {
    let (cache, _hand) = manual();
    let (near, far) = (Shelf::named("near"), Shelf::named("far"));
    let prices = builder(&cache).memory(1).layer(near.clone()).layer(far.clone()).build().unwrap();
    fill(&prices).await;
    assert_eq!((near.len(), far.len()), (11, 11));
    near.map.lock().unwrap().clear();
    assert_eq!(load(&prices, 1, 20).await.cents, 10);
    assert_eq!(near.len(), 1, "it has risen");
    fill(&prices).await;
    let asked = far.gets.load(SeqCst);
    assert_eq!(load(&prices, 1, 20).await.cents, 10);
    assert_eq!(far.gets.load(SeqCst), asked);
}

#[tokio::test]
async fn what_is_evicted_goes_down_where_it_is_wanted() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, Tier::from(shelf.clone()).fill(Fill::OnEviction));
    load(&prices, 1, 10).await;
    assert_eq!(shelf.len(), 0);
    fill(&prices).await;
    assert!(shelf.len() >= 9, "{} of 11 have been evicted", shelf.len());
    assert_eq!(load(&prices, 1, 20).await.cents, 10);
    prices.insert(7, Price { cents: 70 });
    prices.insert(8, Price { cents: 80 });
    settle().await;
    assert_eq!(load(&prices, 7, 20).await.cents, 70, "an insert evicts as well");
    // What is not current any more is not worth it.
    shelf.map.lock().unwrap().clear();
    cache.invalidate(Dep::everything());
    load(&prices, 2, 20).await;
    assert_eq!(shelf.len(), 0);
}

#[tokio::test]
async fn what_is_too_heavy_for_memory_goes_to_the_layers() {
    for fill in [Fill::OnLoad, Fill::OnEviction] {
        let (cache, _hand) = manual();
        let heavy = builder(&cache).memory(10).weigher(|_, _| 100);
        let heavy = heavy.layer(Tier::from(Shelf::new()).fill(fill)).build().unwrap();
        load(&heavy, 1, 10).await;
        assert!(heavy.get(&1).is_none());
        assert_eq!(load(&heavy, 1, 20).await.cents, 10, "{fill:?}");
    }
}

#[tokio::test]
async fn a_layer_may_keep_things_for_a_shorter_time() {
    let (cache, hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, Tier::from(shelf.clone()).ttl(MINUTE / 4));
    fill(&prices).await;
    assert!(shelf.map.lock().unwrap().values().all(|(_, ttl)| *ttl == Some(MINUTE / 4)));
    hand.advance(MINUTE / 4);
    assert_eq!(load(&prices, 1, 20).await.cents, 20);
}

#[tokio::test]
async fn what_rises_is_kept_no_longer_than_the_upper_layer_may() {
    let (cache, hand) = manual();
    let (near, far) = (Shelf::named("near"), Shelf::named("far"));
    let upper = Tier::from(near.clone()).ttl(MINUTE / 4);
    let prices = builder(&cache).memory(1).layer(upper).layer(far.clone()).build().unwrap();
    fill(&prices).await;
    near.map.lock().unwrap().clear();
    load(&prices, 1, 20).await;
    assert_eq!(near.map.lock().unwrap().values().next().unwrap().1, Some(MINUTE / 4));
    far.map.lock().unwrap().clear();
    fill_others(&prices).await;
    hand.advance(MINUTE / 4);
    assert_eq!(load(&prices, 1, 20).await.cents, 20);
}

/// Refuses while it is told to, and counts how calls went.
#[derive(Default)]
struct Turnstile {
    shut: AtomicBool,
    outcomes: Mutex<Vec<Option<Outcome>>>,
}

impl Gate for Turnstile {
    fn admit(&self) -> Result<Token, Rejected> {
        match self.shut.load(SeqCst) {
            true => Err(Rejected::new(Reason::Open, MINUTE)),
            false => Ok(Token::new(0)),
        }
    }

    fn settle(&self, _: Token, outcome: Option<Outcome>) {
        self.outcomes.lock().unwrap().push(outcome);
    }
}

#[tokio::test]
async fn a_gate_keeps_calls_away_and_hears_how_they_went() {
    let (cache, _hand) = manual();
    let (shelf, gate) = (Shelf::new(), Arc::new(Turnstile::default()));
    let prices = small(&cache, Tier::from(shelf.clone()).gate(gate.clone()));
    load(&prices, 1, 10).await;
    assert_eq!(*gate.outcomes.lock().unwrap(), [Some(Outcome::Success); 2]);
    shelf.be(Mood::Failing);
    load(&prices, 2, 10).await;
    assert_eq!(gate.outcomes.lock().unwrap()[2..], [Some(Outcome::Failure); 2]);
    gate.shut.store(true, SeqCst);
    let asked = shelf.gets.load(SeqCst);
    assert_eq!(load(&prices, 3, 10).await.cents, 10);
    assert_eq!(shelf.gets.load(SeqCst), asked);
    assert_eq!(of_layer(&prices, "refused"), 2.0);
}

#[tokio::test]
async fn what_is_loaded_anew_is_not_taken_from_the_layer() {
    let (cache, hand) = manual();
    let shelf = Shelf::new();
    let prices = builder(&cache).refresh_after(0.5).layer(shelf.clone()).build().unwrap();
    load(&prices, 1, 10).await;
    hand.advance(MINUTE / 2);
    assert_eq!(load(&prices, 1, 20).await.cents, 10);
    assert_eq!(prices.get(&1).unwrap().cents, 20, "and not the 10 that the layer has");
}

#[tokio::test]
async fn a_region_that_is_off_asks_no_layer() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, shelf.clone());
    fill(&prices).await;
    let (asked, held) = (shelf.gets.load(SeqCst), shelf.len());
    prices.set_enabled(false);
    assert_eq!(load(&prices, 1, 20).await.cents, 20);
    load(&prices, 50, 20).await;
    assert_eq!((shelf.gets.load(SeqCst), shelf.len()), (asked, held));
}

#[test]
fn without_a_runtime_layers_are_read_and_not_written() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    let prices = small(&cache, shelf.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(fill(&prices));
    let mut asked = Box::pin(prices.get_or_load(&1, async |_| Ok(Price { cents: 20 })));
    let polled = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(hit)) if hit.cents == 10));
    prices.insert(7, Price { cents: 1 });
    assert_eq!(of_layer(&prices, "skipped"), 1.0);
}

#[test]
fn nonsense_is_refused_by_name() {
    let cache = Cache::builder().build().unwrap();
    let refused = |builder: RegionBuilder<u64, u32>| builder.build().unwrap_err().to_string();
    let region = || cache.region::<u64, u32>("prices");
    assert!(refused(region().layer(Shelf::new())).starts_with("schema = none"));
    let hasty = Tier::new(Shelf::default()).timeout(Duration::ZERO);
    assert!(refused(region().schema(1).layer(hasty)).starts_with("timeout = 0s"));
    let nowhere = Cache::builder().persist("/nowhere/at/all").build().unwrap_err().to_string();
    assert!(nowhere.starts_with("persist = /nowhere/at/all"), "{nowhere}");
}

/// A directory that is removed with its test, for the versions.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn versions(&self) -> PathBuf {
        self.0.path().join("versions")
    }

    fn cache(&self) -> (Cache, Hand) {
        let (clock, hand) = Clock::manual();
        hand.advance(MINUTE);
        (Cache::builder().clock(clock).persist(self.versions()).build().unwrap(), hand)
    }
}

#[tokio::test]
async fn after_a_clean_close_what_layers_have_is_served_and_what_was_invalidated_is_not() {
    let folder = Folder::new();
    let shelf = Shelf::new();
    let (cache, _hand) = folder.cache();
    let prices = small(&cache, shelf.clone());
    for key in 1..=4 {
        load(&prices, key, 10).await;
    }
    cache.invalidate(dep!("tariff", 2));
    prices.invalidate(&3);
    settle().await;
    cache.close().await.unwrap();
    assert!(shelf.closed.load(SeqCst) && folder.versions().exists());
    drop((cache, prices));

    let (cache, hand) = folder.cache();
    assert!(!folder.versions().exists(), "it is believed once");
    let prices = small(&cache, shelf.clone());
    for (key, cents) in [(1, 10), (2, 20), (3, 20), (4, 10)] {
        assert_eq!(load(&prices, key, 20).await.cents, cents, "key {key}");
    }
    // Invalidations count on: an entry from the earlier life is as good as one of this.
    cache.invalidate(dep!("tariff", 4));
    assert_eq!(load(&prices, 4, 30).await.cents, 30);
    // So does the lifetime.
    hand.advance(MINUTE);
    assert_eq!(load(&prices, 1, 30).await.cents, 30);
}

#[tokio::test]
async fn a_close_waits_for_the_writes_of_all_regions_and_may_be_called_again() {
    let folder = Folder::new();
    let shelf = Shelf::new();
    let (cache, _hand) = folder.cache();
    let near = builder_named(&cache, "near").layer(shelf.clone()).build().unwrap();
    let far = builder_named(&cache, "far").layer(shelf.clone()).build().unwrap();
    shelf.be(Mood::Slow);
    near.insert(1, Price { cents: 1 });
    far.insert(1, Price { cents: 1 });
    for _ in 0..2 {
        cache.close().await.unwrap();
        assert_eq!(shelf.len(), 2, "both have arrived before their layer was closed");
    }
    far.insert(2, Price { cents: 2 });
    settle().await;
    assert_eq!((shelf.len(), of_layer(&far, "skipped")), (2, 1.0));
}

#[tokio::test]
async fn a_layer_that_cannot_be_closed_is_named_and_the_versions_are_written_all_the_same() {
    let folder = Folder::new();
    let shelf = Shelf::new();
    let (cache, _hand) = folder.cache();
    let _prices = small(&cache, shelf.clone());
    shelf.be(Mood::Failing);
    let error = cache.close().await.unwrap_err();
    assert_eq!(
        (error.layer(), error.to_string().as_str()),
        (Some("shelf"), "the layer `shelf` could not be closed")
    );
    assert!(folder.versions().exists());
    let nowhere = Folder::new();
    let (cache, _hand) = nowhere.cache();
    std::fs::remove_dir_all(nowhere.0.path()).unwrap();
    let error = cache.close().await.unwrap_err();
    assert_eq!((error.layer(), error.to_string().as_str()), (None, "the versions could not be written down"));
}

#[tokio::test]
async fn after_a_crash_nothing_from_before_is_served() {
    let folder = Folder::new();
    let shelf = Shelf::new();
    for run in 0..3 {
        let (cache, _hand) = folder.cache();
        let prices = small(&cache, shelf.clone());
        assert_eq!(load(&prices, 1, run).await.cents, run);
        // A clean close once, to have a file that must not be read a second time.
        if run == 0 {
            cache.close().await.unwrap();
            let (again, _hand) = folder.cache();
            assert_eq!(load(&small(&again, shelf.clone()), 1, 7).await.cents, 0);
        }
    }
}

#[tokio::test]
async fn an_invalidation_after_the_close_takes_the_file_back() {
    let folder = Folder::new();
    let shelf = Shelf::new();
    let (cache, _hand) = folder.cache();
    load(&small(&cache, shelf.clone()), 1, 10).await;
    cache.close().await.unwrap();
    cache.invalidate(dep!("tariff", 1));
    assert!(!folder.versions().exists());
    let (cache, _hand) = folder.cache();
    assert_eq!(load(&small(&cache, shelf), 1, 20).await.cents, 20);
}

#[tokio::test]
async fn a_gentle_invalidation_is_strict_after_a_restart() {
    let folder = Folder::new();
    let shelf = Shelf::new();
    let (cache, _hand) = folder.cache();
    load(&small(&cache, shelf.clone()), 1, 10).await;
    cache.invalidate(dep!("tariff", 1).gradual(MINUTE));
    cache.close().await.unwrap();
    let (cache, _hand) = folder.cache();
    assert_eq!(load(&small(&cache, shelf), 1, 20).await.cents, 20);
}

#[tokio::test]
async fn a_damaged_file_of_versions_is_as_good_as_none() {
    let folder = Folder::new();
    let shelf = Shelf::new();
    let (cache, _hand) = folder.cache();
    load(&small(&cache, shelf.clone()), 1, 10).await;
    cache.invalidate(dep!("tariff", 1));
    cache.close().await.unwrap();
    let good = std::fs::read(folder.versions()).unwrap();
    // Every byte of the head and of the end, and some of the cells; cut anywhere.
    let flips = (0..64).chain((64..good.len()).step_by(9973)).chain(good.len() - 9..good.len());
    let flipped = flips.map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let cuts = [0, 3, 8, 47, 48, good.len() / 2, good.len() - 1].map(|length| good[..length].to_vec());
    let longer = [&good[..], &[0]].concat();
    for bytes in flipped.chain(cuts).chain([longer]) {
        std::fs::write(folder.versions(), bytes).unwrap();
        let (cache, _hand) = folder.cache();
        assert_eq!(load(&small(&cache, shelf.clone()), 1, 20).await.cents, 20);
    }
    // Of another size.
    std::fs::write(folder.versions(), good).unwrap();
    let cache = Cache::builder().version_cells(1 << 10).persist(folder.versions()).build().unwrap();
    assert_eq!(load(&small(&cache, shelf.clone()), 1, 20).await.cents, 20);
}

#[tokio::test]
async fn what_is_inserted_and_made_of_something_whose_turn_will_come_has_its_turn_too() {
    let (cache, hand) = manual();
    let tariffs: Region<u64, u32> = cache.region("tariffs").build().unwrap();
    let prices: Prices = builder(&cache).ttl(None).layer(Shelf::new()).build().unwrap();
    tariffs.insert_with(1, 10, |entry| entry.depends_on(dep!("tariff")));
    cache.invalidate(dep!("tariff").gradual(MINUTE));
    prices
        .insert_with(1, Price { cents: 10 }, |entry| assert_eq!(tariffs.within(entry).get(&1).unwrap(), 10));
    hand.advance(MINUTE);
    assert!(tariffs.get(&1).is_none() && prices.get(&1).is_none());
}

#[tokio::test]
async fn what_is_skipped_is_neither_asked_nor_told() {
    let (cache, _hand) = manual();
    let (near, far) = (Shelf::named("near"), Shelf::named("far"));
    let prices: Prices = builder(&cache).layer(near.clone()).layer(far.clone()).build().unwrap();
    let ask = async |key: u64, cents: u32, skip: Skip| {
        let price =
            prices.skipping(skip).get_or_load(&key, async move |_| Ok(Price { cents })).await.unwrap();
        settle().await;
        price.cents
    };
    let asked = || (near.gets.swap(0, SeqCst), far.gets.swap(0, SeqCst));
    let kept = || (near.len(), far.len());
    assert_eq!(ask(1, 1, Skip::new().layer("far")).await, 1);
    assert_eq!((asked(), kept(), prices.get(&1).is_some()), ((1, 0), (1, 0), true));
    assert_eq!(ask(2, 2, Skip::new().layers()).await, 2);
    assert_eq!((asked(), kept(), prices.get(&2).is_some()), ((0, 0), (1, 0), true));
    assert_eq!(ask(3, 3, Skip::new().memory()).await, 3);
    assert_eq!((asked(), kept(), prices.get(&3).is_some()), ((1, 1), (2, 1), false));
    // Found where it was not to be skipped, and not told to memory.
    assert_eq!(ask(3, 30, Skip::new().memory().layer("near")).await, 3);
    assert_eq!((asked(), prices.get(&3).is_some()), ((0, 1), false));
    assert_eq!(ask(3, 30, Skip::new().memory().layer("near").layer("far")).await, 30);
    assert_eq!((asked(), kept()), ((0, 0), (2, 1)));
    // Nor does it rise to one that is skipped.
    for _ in 0..2 {
        assert_eq!(ask(4, 4, Skip::new().memory().layer("near")).await, 4);
        assert_eq!((asked(), kept()), ((0, 1), (2, 2)));
    }
    // What is in memory is served without asking anybody.
    assert_eq!(ask(1, 10, Skip::new().layers()).await, 1);
    assert_eq!(ask(3, 31, Skip::new()).await, 3);
    assert_eq!(asked(), (1, 0));
}

#[tokio::test]
async fn who_skips_a_layer_does_not_join_a_load_that_may_ask_it() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    left_behind(&cache, &shelf).await;
    let prices: Prices = builder(&cache).layer(shelf.clone()).build().unwrap();
    shelf.be(Mood::Slow);
    let usual = spawn({
        let prices = prices.clone();
        async move { prices.get_or_load(&1, async |_| Ok(Price { cents: 2 })).await }
    });
    tokio::task::yield_now().await;
    assert!(prices.explain(&1).is_loading);
    let skipping = prices.skipping(Skip::new().layers());
    let own = skipping.get_or_load(&1, async |_| Ok(Price { cents: 3 })).await.unwrap();
    assert_eq!((own.cents, usual.await.unwrap().unwrap().cents), (3, 1));
    assert_eq!(prices.get(&1).unwrap().cents, 1, "what was got alone is not stored");
}

#[tokio::test]
async fn layers_are_warmed_from_without_the_source() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    let source = |cx: LoadCx<u64>| async move { Ok(Some(Price { cents: *cx.key() as u32 })) };
    let region = || builder(&cache).layer(shelf.clone()).source(source).build().unwrap();
    let first: Prices = region();
    first.fetch_many(&[1, 2, 3]).await.unwrap();
    settle().await;
    cache.invalidate(first.dep(&2));
    drop(first);
    let prices: Prices = region();
    let warmed = prices.warm(1..=4).from_layers().await.unwrap();
    assert_eq!((warmed.loaded, warmed.absent, warmed.failed), (2, 2, 0));
    assert_eq!([1, 2, 3, 4].map(|key| prices.get(&key).is_some()), [true, false, true, false]);
    // Whoever joins such a load is not told that there is nothing.
    shelf.be(Mood::Slow);
    let warming = spawn({
        let prices = prices.clone();
        async move { prices.warm([4]).from_layers().await }
    });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert!(prices.explain(&4).is_loading);
    assert_eq!(prices.fetch(&4).await.unwrap().unwrap().cents, 4);
    assert_eq!(warming.await.unwrap().unwrap().absent, 1);
}

#[tokio::test]
async fn an_insert_after_the_close_takes_the_file_back_too() {
    let folder = Folder::new();
    let shelf = Shelf::new();
    let (cache, _hand) = folder.cache();
    let prices = small(&cache, shelf.clone());
    load(&prices, 1, 10).await;
    settle().await;
    cache.close().await.unwrap();
    prices.insert(1, Price { cents: 20 });
    drop((prices, cache));
    let (cache, _hand) = folder.cache();
    assert_eq!(load(&small(&cache, shelf), 1, 30).await.cents, 30, "what the layer has was replaced");

    // Of a key that a value in a layer is made of.
    let (folder, shelf) = (Folder::new(), Shelf::new());
    let (cache, _hand) = folder.cache();
    let bases: Region<u64, u32> = cache.region("bases").build().unwrap();
    let prices = small(&cache, shelf.clone());
    bases.insert(2, 10);
    let base = bases.clone();
    let made = async move |_: LoadCx<u64>| Ok(Price { cents: *base.get(&2).unwrap() });
    assert_eq!(prices.get_or_load(&2, made).await.unwrap().cents, 10);
    settle().await;
    cache.close().await.unwrap();
    bases.insert(2, 20);
    drop((prices, bases, cache));
    let (cache, _hand) = folder.cache();
    assert_eq!(load(&small(&cache, shelf), 2, 20).await.cents, 20);
}

#[tokio::test]
async fn what_an_earlier_process_made_of_a_parameter_is_not_served() {
    let folder = Folder::new();
    let shelf = Shelf::new();
    for cents in [19, 7] {
        let (cache, _hand) = folder.cache();
        let vat = cache.parameter("vat", cents);
        let load = async move |_: LoadCx<u64>| Ok(Price { cents: vat.get() });
        let price = small(&cache, shelf.clone()).get_or_load(&1, load).await.unwrap();
        assert_eq!(price.cents, cents);
        settle().await;
        cache.close().await.unwrap();
    }
}

/// Loads another key as soon as it is woken, in the midst of what wakes it.
struct Next {
    prices: Prices,
    has_loaded: Mutex<Option<bool>>,
}

impl Wake for Next {
    fn wake(self: Arc<Self>) {
        let past_layers = self.prices.skipping(Skip::new().layers());
        let load = pin!(past_layers.get_or_load(&2, async |_| Ok(Price { cents: 2 })));
        let polled = load.poll(&mut Context::from_waker(Waker::noop()));
        *self.has_loaded.lock().unwrap() = Some(matches!(polled, Poll::Ready(Ok(_))));
    }
}

#[tokio::test]
async fn who_is_told_what_a_layer_had_of_many_keys_finds_room_for_a_load() {
    let (cache, _hand) = manual();
    let shelf = Shelf::new();
    left_behind(&cache, &shelf).await;
    let prices: Prices = builder(&cache).layer(shelf.clone()).max_loads(1, Excess::Fail).build().unwrap();
    shelf.be(Mood::Slow);
    let many = spawn({
        let prices = prices.clone();
        async move {
            let unasked = |_| async { unreachable!("the layer has it") };
            prices.get_or_load_many::<_, _, Vec<_>>(&[1], unasked).await.map(|found| found.len())
        }
    });
    tokio::task::yield_now().await;
    let next = Arc::new(Next { prices: prices.clone(), has_loaded: Mutex::default() });
    let waker = Waker::from(next.clone());
    let mut joiner = pin!(prices.get_or_load(&1, async |_| unreachable!("it is being loaded")));
    assert!(joiner.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(many.await.unwrap().unwrap(), 1);
    assert_eq!(*next.has_loaded.lock().unwrap(), Some(true), "its place has been given back");
    assert_eq!(joiner.await.unwrap().cents, 1);
}

/// A row that is written to.
#[derive(Clone, Default)]
struct Row(Arc<AtomicU32>);

impl Sink<u64, Price> for Row {
    type Error = std::io::Error;

    async fn store(&self, writes: Vec<(u64, Hit<Price>)>) -> Result<(), std::io::Error> {
        writes.iter().for_each(|(_, price)| self.0.store(price.cents, SeqCst));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_waited_for_its_turn_while_its_key_was_stored_leaves_nothing_in_a_layer() {
    let (cache, _hand) = manual();
    let (shelf, row, gates) = (Shelf::new(), Row::default(), Gates::<()>::new());
    let prices = builder(&cache).max_loads(1, Excess::Wait).layer(shelf.clone());
    let prices: Prices = prices.writes(Writes::behind(row.clone())).build().unwrap();
    let past_memory = |key: u64| {
        let (prices, row, gates) = (prices.clone(), row.clone(), gates.clone());
        spawn(async move {
            let load = async move |_| {
                let cents = row.0.load(SeqCst);
                gates.pass(key).await;
                Ok(Price { cents })
            };
            prices.skipping(Skip::new().memory()).get_or_load(&key, load).await.unwrap().cents
        })
    };
    let first = past_memory(9);
    settle().await;
    let waits = past_memory(1);
    settle().await;
    assert_eq!(gates.keys(), [9]);
    // Its way to the layer is longer than that of the load, and to the source longer still.
    shelf.be(Mood::Slow);
    prices.store(1, Price { cents: 7 }).await.unwrap();
    tokio::task::yield_now().await;
    shelf.be(Mood::Well);
    gates.open(());
    first.await.unwrap();
    settle().await;
    assert_eq!(gates.keys(), [1], "the layer had nothing yet");
    settle().await;
    gates.open(());
    assert_eq!(waits.await.unwrap(), 0, "it had asked before");
    prices.flush().await.unwrap();
    settle().await;
    let again = past_memory(1);
    settle().await;
    if gates.waiting() > 0 {
        gates.open(());
    }
    assert_eq!(again.await.unwrap(), 7);
}
