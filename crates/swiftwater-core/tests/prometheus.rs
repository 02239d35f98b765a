//! The text that a scraper reads, letter by letter.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use swiftwater_core::{Desc, Distribution, Histogram, NameTaken, Observe, Registry, Unit, Visitor};

/// The page of one component, of kind `cache` and name `shop`.
fn page(component: impl Fn(&mut dyn Visitor) + Send + Sync + 'static) -> String {
    page_of("cache", "shop", component)
}

fn page_of(
    kind: &'static str,
    name: &str,
    component: impl Fn(&mut dyn Visitor) + Send + Sync + 'static,
) -> String {
    let (registry, component) = (Registry::new(), Arc::new(component));
    registry.add(kind, name, &component).unwrap();
    registry.prometheus()
}

#[test]
fn a_whole_page_reads_like_this() {
    static HITS: Desc = Desc::new("hits", Unit::Count, "answers found");
    static READ: Desc = Desc::new("read", Unit::Bytes, "bytes read");
    static BUSY: Desc = Desc::new("busy", Unit::Seconds, "time spent at work");
    static SIZE: Desc = Desc::new("size", Unit::Bytes, "bytes held");
    static FULL: Desc = Desc::new("full", Unit::Ratio, "share of the capacity in use");
    static AGE: Desc = Desc::new("age", Unit::Seconds, "age of the oldest entry");
    static MODE: Desc = Desc::new("mode", Unit::Count, "what it does now");

    let region = |visitor: &mut dyn Visitor| visitor.counter(&HITS, 2);
    let text = page(move |visitor| {
        visitor.counter(&HITS, 5);
        visitor.counter(&READ, 7);
        visitor.counter(&BUSY, 1_500_000_000);
        visitor.gauge(&SIZE, 0.5);
        visitor.gauge(&FULL, 0.25);
        visitor.gauge(&AGE, 60.0);
        visitor.state(&MODE, &"open");
        visitor.part("region", &"prices", &region);
        visitor.part("region", &"stock", &region);
    });
    let expected = "\
# HELP swiftwater_cache_age_seconds age of the oldest entry
# TYPE swiftwater_cache_age_seconds gauge
swiftwater_cache_age_seconds{cache=\"shop\"} 60
# HELP swiftwater_cache_busy_seconds_total time spent at work
# TYPE swiftwater_cache_busy_seconds_total counter
swiftwater_cache_busy_seconds_total{cache=\"shop\"} 1.5
# HELP swiftwater_cache_full_ratio share of the capacity in use
# TYPE swiftwater_cache_full_ratio gauge
swiftwater_cache_full_ratio{cache=\"shop\"} 0.25
# HELP swiftwater_cache_hits_total answers found
# TYPE swiftwater_cache_hits_total counter
swiftwater_cache_hits_total{cache=\"shop\"} 5
# HELP swiftwater_cache_mode what it does now
# TYPE swiftwater_cache_mode gauge
swiftwater_cache_mode{cache=\"shop\",mode=\"open\"} 1
# HELP swiftwater_cache_read_bytes_total bytes read
# TYPE swiftwater_cache_read_bytes_total counter
swiftwater_cache_read_bytes_total{cache=\"shop\"} 7
# HELP swiftwater_cache_region_hits_total answers found
# TYPE swiftwater_cache_region_hits_total counter
swiftwater_cache_region_hits_total{cache=\"shop\",region=\"prices\"} 2
swiftwater_cache_region_hits_total{cache=\"shop\",region=\"stock\"} 2
# HELP swiftwater_cache_size_bytes bytes held
# TYPE swiftwater_cache_size_bytes gauge
swiftwater_cache_size_bytes{cache=\"shop\"} 0.5
";
    assert_eq!(text, expected);
}

#[test]
fn two_components_of_a_kind_share_one_help_and_type() -> Result<(), NameTaken> {
    static HITS: Desc = Desc::new("hits", Unit::Count, "answers found");
    static MISSES: Desc = Desc::new("misses", Unit::Count, "answers not found");
    let part = Arc::new(|visitor: &mut dyn Visitor| {
        visitor.counter(&HITS, 1);
        visitor.counter(&MISSES, 2);
    });
    let registry = Registry::new();
    registry.add("cache", "shop", &part)?;
    registry.add("cache", "stock", &part)?;
    let expected = "\
# HELP swiftwater_cache_hits_total answers found
# TYPE swiftwater_cache_hits_total counter
swiftwater_cache_hits_total{cache=\"shop\"} 1
swiftwater_cache_hits_total{cache=\"stock\"} 1
# HELP swiftwater_cache_misses_total answers not found
# TYPE swiftwater_cache_misses_total counter
swiftwater_cache_misses_total{cache=\"shop\"} 2
swiftwater_cache_misses_total{cache=\"stock\"} 2
";
    assert_eq!(registry.prometheus(), expected);
    Ok(())
}

#[test]
fn labels_and_help_are_escaped() {
    static ODD: Desc = Desc::new("odd", Unit::Count, "a \\ and a \"quote\"\nand a line");
    let text = page_of("cache", "a\"b\\c\nd", |visitor| {
        visitor.counter(&ODD, 1);
        visitor.state(&ODD, &"x\"y");
    });
    assert_eq!(
        text,
        "# HELP swiftwater_cache_odd a \\\\ and a \"quote\"\\nand a line\n\
         # TYPE swiftwater_cache_odd gauge\n\
         swiftwater_cache_odd{cache=\"a\\\"b\\\\c\\nd\",odd=\"x\\\"y\"} 1\n\
         # HELP swiftwater_cache_odd_total a \\\\ and a \"quote\"\\nand a line\n\
         # TYPE swiftwater_cache_odd_total counter\n\
         swiftwater_cache_odd_total{cache=\"a\\\"b\\\\c\\nd\"} 1\n"
    );
}

#[test]
fn names_that_the_format_does_not_know_are_spelled_with_underscores() {
    static ODD: Desc = Desc::new("größe in %", Unit::Count, "odd");
    let text = page_of("my-cache:2", "shop", |visitor| visitor.gauge(&ODD, 1.0));
    assert!(text.ends_with("\nswiftwater_my_cache_2_gr__e_in__{my_cache_2=\"shop\"} 1\n"), "{text}");
}

#[test]
fn label_names_that_are_reserved_or_no_names_get_a_prefix() {
    static SIZE: Desc = Desc::new("size", Unit::Count, "how big it is");
    for (kind, label) in [("2nd", "part_2nd"), ("__x", "part___x"), ("le", "part_le"), ("", "part_")] {
        let text = page_of(kind, "shop", |visitor| visitor.gauge(&SIZE, 1.0));
        assert!(text.contains(&format!("{{{label}=\"shop\"}} 1\n")), "{text}");
    }
}

#[test]
fn a_part_of_its_own_kind_has_two_labels_and_not_one_twice() {
    static SIZE: Desc = Desc::new("size", Unit::Count, "how big it is");
    let inner = |visitor: &mut dyn Visitor| visitor.state(&SIZE, &"big");
    let text = page(move |visitor| visitor.part("cache", &"inner", &inner));
    assert!(
        text.ends_with("\nswiftwater_cache_cache_size{cache=\"shop\",cache_=\"inner\",size=\"big\"} 1\n"),
        "{text}"
    );
}

#[test]
fn a_metric_keeps_one_type_when_two_readings_come_by_one_name() {
    static HITS: Desc = Desc::new("hits", Unit::Count, "a counter");
    static HITS_TOTAL: Desc = Desc::new("hits_total", Unit::Count, "a gauge by a counter's name");
    let text = page(|visitor| {
        visitor.counter(&HITS, 1);
        visitor.gauge(&HITS_TOTAL, 2.0);
    });
    assert!(
        text.contains(
            "# TYPE swiftwater_cache_hits_total counter\nswiftwater_cache_hits_total{cache=\"shop\"} 1\n"
        ),
        "{text}"
    );
    assert!(text.contains("# TYPE swiftwater_cache_hits_total_gauge gauge\nswiftwater_cache_hits_total_gauge{cache=\"shop\"} 2\n"), "{text}");
}

#[test]
fn numbers_that_are_not_finite_are_spelled_as_the_format_does() {
    static SIZE: Desc = Desc::new("size", Unit::Count, "how big it is");
    for (value, text) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (-0.5, "-0.5"),
        (1e21, "1000000000000000000000"),
    ] {
        let page = page(move |visitor| visitor.gauge(&SIZE, value));
        assert!(page.ends_with(&format!(" {text}\n")), "{page}");
    }
}

/// The lines of a page's histogram, without what they share: `le=..` and the number, `sum` and `count`.
fn buckets(text: &str) -> Vec<(String, f64)> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = match series.split_once("le=\"") {
                Some((_, end)) => end.trim_end_matches("\"}").to_owned(),
                None => series.split('{').next().unwrap().rsplit('_').next().unwrap().to_owned(),
            };
            (name, value.parse().unwrap())
        })
        .collect()
}

#[test]
fn a_histogram_of_times_is_cumulative_in_seconds() {
    static WAIT: Desc = Desc::new("wait", Unit::Seconds, "time in the queue");
    let text = page(|visitor| {
        let histogram = Histogram::new();
        for time in [
            Duration::ZERO,
            Duration::from_nanos(1_024), // exactly on the first end
            Duration::from_nanos(1_025),
            Duration::from_millis(1),
            Duration::from_secs(3_600), // above the last end
        ] {
            histogram.record_duration(time);
        }
        visitor.histogram(&WAIT, &histogram);
    });
    assert!(
        text.starts_with(
            "# HELP swiftwater_cache_wait_seconds time in the queue\n\
         # TYPE swiftwater_cache_wait_seconds histogram\n\
         swiftwater_cache_wait_seconds_bucket{cache=\"shop\",le=\"0.000001024\"} 2\n\
         swiftwater_cache_wait_seconds_bucket{cache=\"shop\",le=\"0.000002048\"} 3\n"
        ),
        "{text}"
    );
    assert!(
        text.ends_with(
            "swiftwater_cache_wait_seconds_bucket{cache=\"shop\",le=\"68.719476736\"} 4\n\
         swiftwater_cache_wait_seconds_bucket{cache=\"shop\",le=\"+Inf\"} 5\n\
         swiftwater_cache_wait_seconds_sum{cache=\"shop\"} 3600.001002049\n\
         swiftwater_cache_wait_seconds_count{cache=\"shop\"} 5\n"
        ),
        "{text}"
    );
    let lines = buckets(&text);
    assert_eq!(lines.len(), 27 + 3);
    let counts: Vec<f64> = lines[..28].iter().map(|(_, count)| *count).collect();
    assert!(counts.is_sorted(), "{counts:?}");
}

#[test]
fn every_bound_counts_exactly_what_is_at_most_as_big() {
    static BATCH: Desc = Desc::new("batch", Unit::Count, "items in a batch");
    let values: Vec<u64> =
        (0..=30).flat_map(|power| [(1u64 << power) - 1, 1 << power, (1 << power) + 1]).collect();
    let recorded = values.clone();
    let text = page(move |visitor| {
        let histogram = Histogram::new();
        recorded.iter().for_each(|value| histogram.record(*value));
        visitor.histogram(&BATCH, &histogram);
    });
    let mut bounds = 0;
    for (end, count) in buckets(&text) {
        if let Ok(end) = end.parse::<u64>() {
            let at_most = values.iter().filter(|value| **value <= end).count();
            assert_eq!(count, at_most as f64, "le {end}");
            bounds += 1;
        }
    }
    assert_eq!(bounds, 31);
}

#[test]
fn an_empty_histogram_is_all_zeros() {
    static WAIT: Desc = Desc::new("wait", Unit::Seconds, "time in the queue");
    let text = page(|visitor| visitor.histogram(&WAIT, &Histogram::new()));
    assert!(buckets(&text).iter().all(|(_, value)| *value == 0.0), "{text}");
    assert!(text.contains("le=\"+Inf\"} 0\n"));
}

#[test]
fn a_foreign_distribution_counts_under_the_first_end_that_holds_all_of_a_bucket() {
    static SIZE: Desc = Desc::new("size", Unit::Bytes, "bytes an answer");
    struct Coarse;
    impl Distribution for Coarse {
        fn buckets(&self, each: &mut dyn FnMut(RangeInclusive<u64>, u64)) {
            each(0..=2, 1);
            each(3..=5, 10); // reaches beyond 4
            each(6..=u64::MAX, 100);
        }
        fn sum(&self) -> u64 {
            u64::MAX
        }
    }
    let text = page(|visitor| visitor.histogram(&SIZE, &Coarse));
    let found = |end: &str| buckets(&text).iter().find(|(name, _)| name == end).unwrap().1;
    assert_eq!([found("1"), found("2"), found("4"), found("8")], [0.0, 1.0, 1.0, 11.0]);
    assert_eq!([found("+Inf"), found("count")], [111.0, 111.0]);
}

/// What any page must be, whatever the readings: every line a comment or a sample, no series twice.
#[test]
fn no_series_comes_twice() {
    static SIZE: Desc = Desc::new("size", Unit::Count, "how big it is");
    struct Nested(u32);
    impl Observe for Nested {
        fn observe(&self, visitor: &mut dyn Visitor) {
            visitor.gauge(&SIZE, 1.0);
            if self.0 > 0 {
                visitor.part("cache", &"left", &Self(self.0 - 1));
                visitor.part("cache", &"right", &Self(self.0 - 1));
            }
        }
    }
    let text = page(|visitor| Nested(3).observe(visitor));
    let mut series: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    assert_eq!(series.len(), 15);
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), 15);
    assert_eq!(text.matches("# TYPE").count(), 4, "one per depth");
}
