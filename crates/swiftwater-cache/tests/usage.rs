//! How much entries are used, what is decided by it, and what the next process makes of it.

mod common;

use std::{io, time::Duration};

use common::{cache, manual, settle};
use swiftwater_cache::{Cache, Facts, Judgement, LoadCx, RarelyUsed, Region, RegionBuilder, Usage, Verdict};

const MINUTE: Duration = Duration::from_secs(60);
const HALF_LIFE: Duration = Duration::from_secs(16);
/// In which a use counts once.
const WINDOW: Duration = Duration::from_secs(1);

fn names(cache: &Cache) -> RegionBuilder<u64, u32> {
    let source = |cx: LoadCx<u64>| async move { Ok(Some(*cx.key() as u32)) };
    cache.region("names").source(source).usage(HALF_LIFE)
}

fn counts(names: &Region<u64, u32>) -> Vec<(u64, f64)> {
    let usage = names.usage(100).unwrap();
    assert!(usage.entries().is_sorted_by(|one, next| one.1 >= next.1), "the most used first");
    let rounded = |(key, count): &(u64, f64)| (*key, (count * 1000.0).round() / 1000.0);
    let mut counts: Vec<_> = usage.entries().iter().map(rounded).collect();
    counts.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
    counts
}

#[tokio::test]
async fn uses_are_counted_once_a_window_and_halve_with_every_half_life() {
    let (cache, hand) = manual();
    let names = names(&cache).build().unwrap();
    names.fetch(&1).await.unwrap();
    names.fetch(&2).await.unwrap();
    assert_eq!(counts(&names), [(1, 1.0), (2, 1.0)]);
    for _ in 0..3 {
        assert!(names.get(&1).is_some() && names.get(&1).is_some());
    }
    assert_eq!(counts(&names)[0].1, 1.0, "all in one window");
    hand.advance(HALF_LIFE);
    assert_eq!(counts(&names), [(1, 0.5), (2, 0.5)]);
    assert!(names.get(&2).is_some());
    assert_eq!(counts(&names), [(2, 1.5), (1, 0.5)]);
    for _ in 0..1000 {
        hand.advance(WINDOW);
        assert!(names.get(&1).is_some());
    }
    let most = counts(&names)[0];
    assert!(most.0 == 1 && (23.0..24.0).contains(&most.1), "{most:?}");
    assert_eq!(names.usage(1).unwrap().entries().len(), 1);
    assert_eq!(names.usage(0).unwrap().entries().len(), 0);
    assert!(common::region::<u32>(&common::cache(), "names").usage(1).is_none());
}

#[tokio::test]
async fn a_count_survives_another_load_and_not_what_nobody_asked_for() {
    let (cache, hand) = manual();
    let names = names(&cache).ttl(MINUTE).stale_for(MINUTE).build().unwrap();
    names.fetch(&1).await.unwrap();
    hand.advance(HALF_LIFE);
    names.invalidate(&1);
    names.fetch(&1).await.unwrap();
    assert_eq!(counts(&names), [(1, 1.0)], "an invalidated key has left memory with its count");
    cache.invalidate(names.whole());
    names.fetch(&1).await.unwrap();
    hand.advance(HALF_LIFE);
    cache.invalidate(names.whole());
    names.fetch(&1).await.unwrap();
    assert_eq!(counts(&names), [(1, 1.5)], "an entry that was found stale hands it on");
    names.warm([2]).await.unwrap();
    assert_eq!(counts(&names), [(1, 1.5), (2, 0.0)], "warming is no use");
    assert!(names.get(&2).is_some());
    assert_eq!(counts(&names)[1], (2, 1.0));
    hand.advance(MINUTE);
    assert!(names.fetch(&1).await.unwrap().unwrap().is_stale());
    settle().await;
    assert!(names.get(&1).is_some(), "loaded in the background");
    assert!(counts(&names)[0].1 > 1.0);
}

#[tokio::test]
async fn the_count_goes_on_when_the_windows_have_been_counted_through() {
    let (cache, hand) = manual();
    let names: Region<u64, u32> = cache.region("names").usage(Duration::from_millis(16)).build().unwrap();
    hand.advance(Duration::from_millis(u64::from(u32::MAX)));
    names.insert(1, 1);
    assert_eq!(counts(&names), [(1, 1.0)]);
    hand.advance(Duration::from_millis(1));
    assert!(names.get(&1).is_some());
    assert!(counts(&names)[0].1 > 1.9);
    hand.advance(Duration::from_millis(16));
    assert!(counts(&names)[0].1 < 1.0);
}

#[tokio::test]
async fn a_log_is_written_and_read_and_warms_the_next_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("usage");
    let (cache, hand) = manual();
    let names = names(&cache).build().unwrap();
    names.fetch_many(&[1, 2, 3, 4]).await.unwrap();
    for used in [&[2, 3][..], &[3]] {
        hand.advance(WINDOW);
        used.iter().for_each(|key| assert!(names.get(key).is_some()));
    }
    let usage = names.usage(3).unwrap();
    usage.write(&path).unwrap();
    assert_eq!(Usage::read(&path).unwrap(), usage);
    let next = self::names(&common::cache()).build().unwrap();
    let log = Usage::read(&path).unwrap();
    assert_eq!(log.clone().top(1).into_keys().collect::<Vec<u64>>(), [3]);
    let warmed = next.warm(log.above(1.5).into_keys()).await.unwrap();
    assert_eq!(warmed.loaded, 2);
    assert!(next.get(&3).is_some() && next.get(&2).is_some() && next.get(&1).is_none());
    // Whatever has become of the file: an error, and no other keys.
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert_eq!(Usage::<u64>::read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{len}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Usage::<u64>::read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{at}");
    }
    assert_eq!(
        Usage::<u64>::read(directory.path().join("none")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[tokio::test]
async fn what_is_rarely_used_is_dropped() {
    let (cache, hand) = manual();
    let rare = RarelyUsed::new(1.0, 2 * WINDOW);
    let names = names(&cache).invalidation_policy(rare, WINDOW).build().unwrap();
    names.fetch_many(&[1, 2]).await.unwrap();
    for _ in 0..3 {
        hand.advance(WINDOW);
        assert!(names.get(&1).is_some());
    }
    assert_eq!(names.explain(&2).verdict, Verdict::Unwanted);
    assert_eq!(names.explain(&1).verdict, Verdict::Fresh);
    assert_eq!(cache.sweep(1000).await.freed, 1);
    assert_eq!(names.explain(&2).verdict, Verdict::Absent);
    // Without a count nothing is rare.
    let rare = RarelyUsed::new(1.0, Duration::ZERO);
    let uncounted = cache.region("uncounted").invalidation_policy(rare, WINDOW).build().unwrap();
    uncounted.insert(1, 1);
    hand.advance(MINUTE);
    assert!(uncounted.get(&1).is_some());
}

#[tokio::test]
async fn a_policy_drops_keeps_or_loads_anew() {
    let (cache, hand) = manual();
    let policy = |facts: &Facts<'_, u32>| match facts.value() {
        0 if facts.age() > MINUTE => Judgement::Drop,
        1 if facts.age() > MINUTE => Judgement::Refresh,
        _ => Judgement::Keep,
    };
    let names: Region<u64, u32> = cache.region("names").invalidation_policy(policy, WINDOW).build().unwrap();
    for (key, value) in [(0, 0), (1, 1), (2, 2)] {
        names.insert(key, value);
    }
    assert!((0..3).all(|key| names.get(&key).is_some()));
    hand.advance(MINUTE + WINDOW);
    assert!(names.get(&0).is_none() && names.get(&2).is_some());
    let load = async |key: u64| names.get_or_load(&key, async |_| Ok(10)).await.unwrap();
    assert_eq!(load(1).await, 1);
    settle().await;
    assert_eq!(load(1).await, 10);
    assert_eq!(load(0).await, 10);
    assert_eq!(load(2).await, 2);
}

#[test]
fn what_was_kept_is_not_judged_again_at_every_look() {
    let (cache, hand) = manual();
    let looks = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = looks.clone();
    let policy = move |_: &Facts<'_, u32>| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Judgement::Keep
    };
    let names: Region<u64, u32> = cache.region("names").invalidation_policy(policy, WINDOW).build().unwrap();
    names.insert(1, 1);
    for expected in [1, 2] {
        for _ in 0..5 {
            assert!(names.get(&1).is_some());
        }
        assert_eq!(looks.load(std::sync::atomic::Ordering::SeqCst), expected);
        hand.advance(WINDOW);
    }
}

#[test]
fn nonsense_is_refused_by_name() {
    let region = |options: fn(RegionBuilder<u64, u32>) -> RegionBuilder<u64, u32>| {
        options(cache().region("names")).build().unwrap_err().to_string()
    };
    assert!(region(|region| region.usage(Duration::ZERO)).starts_with("usage = 0"));
    let keep = |region: RegionBuilder<u64, u32>| {
        region.invalidation_policy(|_: &Facts<'_, u32>| Judgement::Keep, Duration::ZERO)
    };
    assert!(region(keep).starts_with("invalidation_policy"));
}

#[tokio::test]
async fn a_count_survives_a_load_of_many_keys() {
    let (cache, hand) = manual();
    let names = names(&cache).ttl(HALF_LIFE).build().unwrap();
    names.fetch_many(&[1, 2]).await.unwrap();
    hand.advance(HALF_LIFE);
    names.fetch_many(&[1]).await.unwrap();
    assert_eq!(counts(&names)[0], (1, 1.5));
}
