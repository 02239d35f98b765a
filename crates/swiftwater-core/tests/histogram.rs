//! Histograms against a sorted list of everything that was recorded.

use std::{thread, time::Duration};

use proptest::prelude::*;
use swiftwater_core::{Distribution, Histogram};

/// The value of which `thousandths` of all are at most as big, by definition.
fn exact(sorted: &[u64], thousandths: usize) -> u64 {
    let rank = (thousandths * sorted.len()).div_ceil(1000).max(1);
    sorted[rank - 1]
}

fn filled(values: &[u64]) -> Histogram {
    let histogram = Histogram::new();
    values.iter().for_each(|value| histogram.record(*value));
    histogram
}

/// Values of every size, not only large ones as `any` would give.
fn value() -> impl Strategy<Value = u64> {
    (0..64u32, any::<u64>()).prop_map(|(shift, bits)| bits >> shift)
}

proptest! {
    #[test]
    fn a_quantile_is_never_below_and_at_most_a_sixteenth_above(
        mut values in prop::collection::vec(value(), 1..500),
        thousandths in 0..=1000usize,
    ) {
        let histogram = filled(&values);
        values.sort_unstable();
        let exact = exact(&values, thousandths);
        let found = histogram.quantile(thousandths as f64 / 1000.0).unwrap();
        prop_assert!(found >= exact, "{} is below {}", found, exact);
        prop_assert!(found - exact <= exact / 16, "{} for {}", found, exact);
    }

    #[test]
    fn count_sum_and_buckets_agree_with_what_was_recorded(values in prop::collection::vec(value(), 0..500)) {
        let histogram = filled(&values);
        prop_assert_eq!(histogram.count(), values.len() as u64);
        let sum = values.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
        prop_assert_eq!(histogram.sum(), sum);
        let mut last = None;
        let mut covered = 0;
        histogram.buckets(&mut |range, count| {
            assert!(last < Some(*range.start()), "ascending, without overlap");
            last = Some(*range.end());
            assert_eq!(values.iter().filter(|value| range.contains(value)).count() as u64, count);
            covered += count;
        });
        prop_assert_eq!(covered, values.len() as u64);
    }
}

#[test]
fn nothing_recorded_has_no_quantile() {
    let histogram = Histogram::new();
    assert_eq!(histogram.quantile(0.5), None);
    assert_eq!((histogram.count(), histogram.sum()), (0, 0));
    histogram.buckets(&mut |range, _| panic!("{range:?} is shown"));
}

#[test]
fn small_values_are_exact() {
    let histogram = filled(&(0..=16).collect::<Vec<_>>());
    for value in 0..=16 {
        assert_eq!(histogram.quantile((value + 1) as f64 / 17.0), Some(value));
    }
}

#[test]
fn the_extremes_are_recorded_and_the_sum_saturates() {
    let histogram = filled(&[0, u64::MAX, u64::MAX]);
    assert_eq!(histogram.quantile(0.0), Some(0));
    assert_eq!(histogram.quantile(1.0), Some(u64::MAX));
    assert_eq!(histogram.count(), 3);
    assert_eq!(histogram.sum(), u64::MAX);
    histogram.record_duration(Duration::MAX);
    assert_eq!(histogram.count(), 4);
    assert_eq!(histogram.sum(), u64::MAX);
}

#[test]
fn a_quantile_outside_0_to_1_is_clamped_and_nan_is_the_smallest() {
    let histogram = filled(&[1, 2, 3]);
    assert_eq!(histogram.quantile(-7.0), Some(1));
    assert_eq!(histogram.quantile(f64::NAN), Some(1));
    assert_eq!(histogram.quantile(f64::INFINITY), Some(3));
}

#[test]
fn a_share_that_floating_point_overstates_hits_its_rank() {
    // 0.07 * 100 is a little more than 7 in floating point.
    let histogram = filled(&[vec![1; 7], vec![10; 93]].concat());
    assert_eq!(histogram.quantile(0.07), Some(1));
    assert_eq!(histogram.quantile(0.0701), Some(10));
}

#[test]
fn durations_are_recorded_in_nanoseconds() {
    let histogram = Histogram::new();
    histogram.record_duration(Duration::from_micros(3));
    assert_eq!(histogram.sum(), 3_000);
}

#[test]
fn threads_that_record_at_once_lose_nothing() {
    let histogram = Histogram::new();
    let (threads, each) = (8, 20_000u64);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..each).for_each(|value| histogram.record(value % 100)));
        }
        // Meanwhile readings grow.
        let (mut count, mut sum) = (0, 0);
        for _ in 0..50 {
            let (next_count, next_sum) = (histogram.count(), histogram.sum());
            assert!(next_count >= count && next_sum >= sum);
            (count, sum) = (next_count, next_sum);
        }
    });
    assert_eq!(histogram.count(), threads * each);
    assert_eq!(histogram.sum(), threads * (0..each).map(|value| value % 100).sum::<u64>());
}
