//! What is said of another capacity, beside what that capacity does.

mod common;

use std::time::Duration;

use common::{cache, manual};
use swiftwater_cache::{Advice, Cache, LoadCx, Region, RegionBuilder, dep};
use swiftwater_core::Tunable;

const MINUTE: Duration = Duration::from_secs(60);

fn advised(cache: &Cache, capacity: u64) -> RegionBuilder<u64, u64> {
    cache.region("rows").memory(capacity).advice(true)
}

async fn read(rows: &Region<u64, u64>, key: u64) {
    let load = async |cx: LoadCx<u64>| {
        cx.depends_on(dep!("row", *cx.key() % 2));
        Ok(*cx.key())
    };
    assert_eq!(*rows.get_or_load(&key, load).await.expect("loaded"), key);
}

/// Reads as many keys in turn, so often, and does something between two rounds.
async fn rounds(rows: &Region<u64, u64>, keys: u64, rounds: u32, between: impl Fn()) -> Advice {
    for round in 0..rounds {
        if round > 0 {
            between();
        }
        for key in 0..keys {
            read(rows, key).await;
        }
    }
    rows.advice().expect("it was asked for")
}

#[test]
fn none_is_given_unless_it_was_asked_for() {
    let cache = cache();
    let rows: Region<u64, u64> = cache.region("rows").build().expect("valid");
    rows.insert(1, 1);
    assert!(rows.get(&1).is_some());
    assert_eq!(rows.advice(), None);
}

#[tokio::test]
async fn before_anything_has_happened_all_is_zero() {
    let advice = advised(&cache(), 10).build().expect("valid").advice().expect("it was asked for");
    let Advice { hit_ratio, hit_ratio_at_half, hit_ratio_at_twice, never_paid, lookups, entries, .. } =
        advice;
    assert_eq!([hit_ratio, hit_ratio_at_half, hit_ratio_at_twice, never_paid], [0.0; 4]);
    assert_eq!((lookups, entries), (0, 0));
}

/// A small one is looked at as a whole, of a large one a part.
#[tokio::test]
#[cfg_attr(swiftwater_moka, ignore = "the simulations are not moka's, and nowhere are the two further apart")]
async fn a_loop_that_is_too_long_would_fit_into_twice_the_room() {
    for capacity in [400, 4_000] {
        let rows = advised(&cache(), capacity).build().expect("valid");
        let advice = rounds(&rows, capacity * 3 / 2, 21, || ()).await;
        assert!((advice.hit_ratio_at_twice - 20.0 / 21.0).abs() < 0.01, "{advice:?}");
        assert!(advice.hit_ratio < 0.7 && advice.hit_ratio_at_half < advice.hit_ratio - 0.1, "{advice:?}");
        let all = capacity * 3 / 2 * 21;
        assert_eq!(advice.lookups == all, capacity == 400, "{advice:?}");
        assert!(advice.lookups > all / 4, "{advice:?}");
    }
}

/// Some tables of a known law, without a generator's crate: rank `n` has a share of about `n ^ -0.9`.
struct Zipf {
    shares: Vec<f64>,
    state: u64,
}

impl Zipf {
    fn new(keys: u32) -> Self {
        let mut sum = 0.0;
        let shares = (1..=keys).map(|rank| {
            sum += f64::from(rank).powf(-0.9);
            sum
        });
        Self { shares: shares.collect(), state: 1 }
    }

    fn draw(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let point = (self.state >> 11) as f64 / (1_u64 << 53) as f64 * self.shares.last().expect("some");
        self.shares.partition_point(|sum| *sum < point) as u64
    }
}

#[tokio::test]
async fn the_estimates_are_what_caches_of_these_sizes_do() {
    let mut real = Vec::new();
    let mut advice = None;
    // All from one trace: the ranks of its keys never change, so a sample is as good as another.
    for capacity in [2_500, 5_000, 10_000] {
        let rows = advised(&cache(), capacity).build().expect("valid");
        let mut zipf = Zipf::new(50_000);
        for _ in 0..200_000 {
            read(&rows, zipf.draw()).await;
        }
        let found = rows.advice().expect("it was asked for");
        real.push(found.hit_ratio);
        if capacity == 5_000 {
            advice = Some(found);
        }
    }
    let advice = advice.expect("one of them");
    // The simulations are not moka's.
    let off = if cfg!(swiftwater_moka) { 0.05 } else { 0.02 };
    assert!((advice.hit_ratio_at_half - real[0]).abs() < off, "{advice:?} {real:?}");
    assert!((advice.hit_ratio_at_twice - real[2]).abs() < off, "{advice:?} {real:?}");
    assert!(real[2] - real[0] > 0.1, "they differ: {real:?}");
}

#[tokio::test]
async fn what_is_read_once_has_not_paid() {
    let rows = advised(&cache(), 1_000).build().expect("valid");
    let scan = rounds(&rows, 10_000, 1, || ()).await;
    assert_eq!(scan.never_paid, 1.0, "{scan:?}");
    assert!(scan.entries > 8_000, "{scan:?}");
    let rows = advised(&cache(), 1_000).build().expect("valid");
    for key in 0..10_000 {
        read(&rows, key).await;
        read(&rows, key).await;
    }
    let twice = rows.advice().expect("it was asked for");
    assert_eq!(twice.never_paid, 0.0, "{twice:?}");
    assert!(twice.entries > 8_000, "{twice:?}");
}

#[tokio::test]
async fn no_capacity_helps_against_what_ends_entries() {
    type End = fn(&Cache, &Region<u64, u64>, &swiftwater_core::Hand);
    let ends: [(&str, End); 5] = [
        ("time", |_, _, hand| hand.advance(MINUTE)),
        ("no use", |_, _, hand| hand.advance(MINUTE * 2 / 3)),
        ("its dependency", |cache, _, _| {
            cache.invalidate(dep!("row", 0_u64));
            cache.invalidate(dep!("row", 1_u64));
        }),
        ("its key", |_, rows, _| {
            (0..600).for_each(|key| {
                rows.invalidate(&key);
            });
        }),
        ("its region", |cache, rows, _| {
            cache.invalidate(rows.whole());
        }),
    ];
    for (name, end) in ends {
        let (cache, hand) = manual();
        let rows = advised(&cache, 400).ttl(MINUTE).idle(MINUTE / 2).build().expect("valid");
        let advice = rounds(&rows, 600, 4, || end(&cache, &rows, &hand)).await;
        assert_eq!([advice.hit_ratio, advice.hit_ratio_at_half], [0.0; 2], "{name}");
        assert_eq!(advice.hit_ratio_at_twice, 0.0, "{name}");
    }
}

#[tokio::test]
#[cfg_attr(swiftwater_moka, ignore = "exact only where the simulations are the region's store")]
async fn room_helps_what_is_not_ended() {
    let (cache, _hand) = manual();
    let rows = advised(&cache, 400).ttl(MINUTE).idle(MINUTE / 2).build().expect("valid");
    let half = || {
        cache.invalidate(dep!("row", 0_u64));
    };
    assert_eq!(rounds(&rows, 600, 5, half).await.hit_ratio_at_twice, 0.4, "half of what it could be");
}

#[tokio::test]
async fn a_lookup_that_nobody_loads_for_fails_with_any_room() {
    let rows = advised(&cache(), 100).build().expect("valid");
    for _ in 0..10 {
        assert!((0..100).all(|key| rows.get(&key).is_none()));
    }
    let advice = rows.advice().expect("it was asked for");
    assert_eq!((advice.hit_ratio_at_twice, advice.lookups), (0.0, 1_000));
}

#[tokio::test]
async fn what_is_switched_off_is_not_counted_and_is_right_when_switched_on() {
    let rows = advised(&cache(), 100).enabled(false).build().expect("valid");
    rounds(&rows, 50, 3, || ()).await;
    assert_eq!(rows.advice().expect("it was asked for").lookups, 0);
    rows.set_enabled(true);
    let advice = rounds(&rows, 50, 2, || ()).await;
    assert_eq!((advice.hit_ratio, advice.lookups), (0.5, 100));
    rows.set_enabled(false);
    assert!(rows.get(&1).is_none(), "nor does the advisor switch it on");
}

#[tokio::test]
#[cfg_attr(swiftwater_moka, ignore = "moka's capacity cannot be changed, so there is no knob for it")]
async fn another_capacity_is_another_question() {
    let rows = advised(&cache(), 400).build().expect("valid");
    rounds(&rows, 600, 5, || ()).await;
    rows.knobs(&mut |knob| assert_eq!(knob.set(800.0), Ok(800.0)));
    assert_eq!(rows.advice().expect("it was asked for").lookups, 0);
    let advice = rounds(&rows, 600, 5, || ()).await;
    assert!(advice.hit_ratio > 0.79 && advice.hit_ratio_at_half < 0.6, "{advice:?}");
}
