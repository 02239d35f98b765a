//! A distribution that many threads record to and few read.

use std::{array, fmt, ops::RangeInclusive, time::Duration};

use crate::{
    Distribution,
    stripes::Stripes,
    sync::{AtomicU64, OnceLock, Ordering::Relaxed},
    threads::this_thread,
};

/// Counts of values by size, written by hot paths: any `u64`, in buckets narrow enough that a quantile is at most 1/16
/// too high.
///
/// Values up to 16 have a bucket each; above, every range from a power of two (exclusive) to the next (inclusive) is cut
/// into 16. Durations are recorded in nanoseconds.
///
/// # Guarantees
///
/// 1. `record` never blocks and never loses a record; nothing is sampled, aged or merged away.
/// 2. Every reading is at least what was recorded before it began and at most what was recorded when it ends, and for one
///    reader it never decreases. Count, buckets and sum are read one after the other.
/// 3. The sum is exact and saturates at `u64::MAX`.
///
/// # Costs
///
/// 40 bytes until the first record, then 7.8 KiB, and two atomic operations per record. Once two threads are caught
/// recording at the same moment, each thread records to a table of its own: 7.8 KiB per thread that records, at most as
/// many as there are processors, rounded up to a power of two, at least 8 and at most 64 of them. Reading walks every
/// table and allocates nothing.
///
/// ```
/// use std::time::Duration;
/// use swiftwater_core::Histogram;
///
/// let latency = Histogram::new();
/// for ms in 1..=100 {
///     latency.record_duration(Duration::from_millis(ms));
/// }
/// let p99 = latency.quantile(0.99).map(Duration::from_nanos);
/// assert!(p99 >= Some(Duration::from_millis(99)) && p99 <= Some(Duration::from_millis(106)));
/// ```
pub struct Histogram {
    /// Everything until the stripes are there, and what was recorded by threads that had not seen them yet.
    base: OnceLock<Box<Table>>,
    /// A table each, made when its thread first records.
    stripes: Stripes<OnceLock<Box<Table>>>,
}

impl Histogram {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self { base: OnceLock::new(), stripes: Stripes::new() }
    }

    /// Records one value.
    #[inline]
    pub fn record(&self, value: u64) {
        self.record_as(this_thread, value);
    }

    /// Records a duration in nanoseconds; 584 years and more count as `u64::MAX`.
    #[inline]
    pub fn record_duration(&self, duration: Duration) {
        self.record(crate::clock::nanos(duration));
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        (0..BUCKETS).map(|bucket| self.read(bucket)).sum()
    }

    /// The smallest value that at least this share (0 to 1, clamped) of the values does not exceed, rounded up to the
    /// end of its bucket: at most 1/16 above the true one, never below. 0, like NaN, asks for the smallest value.
    /// `None` while nothing was recorded.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let total = self.count();
        // A trifle less, so that 0.07 of 100 is 7 and not, as floating point has it, a little more, hence 8.
        let rank = quantile.clamp(0.0, 1.0) * total as f64 * (1.0 - 2.0 * f64::EPSILON);
        // `max` also replaces NaN; a total beyond 2^53 rounds.
        let rank = (rank.ceil().max(1.0) as u64).min(total);
        let mut seen = 0;
        // Counts only grow, so the rank is reached in this second pass.
        (0..BUCKETS)
            .find(|&bucket| {
                seen += self.read(bucket);
                seen >= rank && seen > 0
            })
            .map(|bucket| *range_of(bucket).end())
    }

    // Relaxed throughout: nothing is published through a count; see `stripes` for why reads are right.
    #[inline]
    fn record_as(&self, thread: impl Fn() -> u32, value: u64) {
        let bucket = bucket_of(value);
        if let Some(own) = self.stripes.get(&thread) {
            let table = table(own);
            table.buckets[bucket].fetch_add(1, Relaxed);
            table.add_to_sum(value);
            return;
        }
        let table = table(&self.base);
        table.buckets[bucket].fetch_add(1, Relaxed);
        // Every record comes by the sum, so this is where threads meet.
        let seen = table.sum.load(Relaxed);
        let added = table.sum.compare_exchange(seen, seen.saturating_add(value), Relaxed, Relaxed);
        if added.is_err() {
            self.part_ways(thread(), value);
        }
    }

    /// The record is counted; only its value has still to go to a sum.
    #[cold]
    #[inline(never)]
    fn part_ways(&self, thread: u32, value: u64) {
        table(self.stripes.get_or_set_up(thread)).add_to_sum(value);
    }

    fn read(&self, bucket: usize) -> u64 {
        self.tables().map(|table| table.buckets[bucket].load(Relaxed)).sum()
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        let base = self.base.get().into_iter();
        base.chain(self.stripes.iter().filter_map(OnceLock::get)).map(|table| &**table)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Distribution for Histogram {
    fn buckets(&self, each: &mut dyn FnMut(RangeInclusive<u64>, u64)) {
        for bucket in 0..BUCKETS {
            let count = self.read(bucket);
            if count > 0 {
                each(range_of(bucket), count);
            }
        }
    }

    fn sum(&self) -> u64 {
        self.tables().fold(0, |sum, table| sum.saturating_add(table.sum.load(Relaxed)))
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish_non_exhaustive()
    }
}

/// Aligned so that two tables share no cache line.
#[repr(align(128))]
struct Table {
    sum: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Table {
    /// A loop and no plain addition: a sum saturates.
    #[inline]
    fn add_to_sum(&self, value: u64) {
        let add = |sum: u64| Some(sum.saturating_add(value));
        // Never an error: `add` always has an answer.
        let _ = self.sum.fetch_update(Relaxed, Relaxed, add);
    }
}

#[inline]
fn table(slot: &OnceLock<Box<Table>>) -> &Table {
    if let Some(table) = slot.get() { table } else { make_table(slot) }
}

#[cold]
#[inline(never)]
fn make_table(slot: &OnceLock<Box<Table>>) -> &Table {
    slot.get_or_init(|| {
        Box::new(Table { sum: AtomicU64::new(0), buckets: array::from_fn(|_| AtomicU64::new(0)) })
    })
}

/// Every power of two is cut into 16.
const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;
/// One for zero, `SUB` for 1 to 16, `SUB` for each of the 60 powers above. The model checker's tables hold 0 and 1.
const BUCKETS: usize =
    if cfg!(all(test, swiftwater_loom)) { 2 } else { 1 + SUB + (64 - SUB_BITS as usize) * SUB };

// Buckets end at powers of two inclusive, because that is how a scraper's bounds count ("at most").
#[inline]
fn bucket_of(value: u64) -> usize {
    let Some(below) = value.checked_sub(1) else {
        return 0;
    };
    if below < SUB as u64 {
        return 1 + below as usize;
    }
    let power = 63 - below.leading_zeros(); // at least SUB_BITS
    let sub = (below >> (power - SUB_BITS)) as usize & (SUB - 1);
    1 + (power - SUB_BITS + 1) as usize * SUB + sub
}

fn range_of(bucket: usize) -> RangeInclusive<u64> {
    let Some(below) = bucket.checked_sub(1) else {
        return 0..=0;
    };
    if below < SUB {
        return bucket as u64..=bucket as u64;
    }
    let shift = (below / SUB - 1) as u32;
    let low = ((SUB + below % SUB) as u64) << shift;
    // Saturating: the last bucket ends at u64::MAX, one less than its like.
    low + 1..=low.saturating_add(1 << shift)
}

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_covers_it() {
        let around = (0..64).flat_map(|power| {
            let end = 1u64 << power;
            [end - 1, end, end + 1, end + end / 3, end + end / 16]
        });
        for value in around.chain(0..5000).chain([u64::MAX - 1, u64::MAX]) {
            let range = range_of(bucket_of(value));
            assert!(range.contains(&value), "{value} in {range:?}");
        }
    }

    #[test]
    fn the_sum_saturates_in_a_stripe_and_across_stripes() {
        let histogram = Histogram::new();
        histogram.stripes.get_or_set_up(0);
        histogram.record_as(|| 0, u64::MAX - 1);
        histogram.record_as(|| 0, 7);
        assert_eq!(histogram.sum(), u64::MAX);
        histogram.record_as(|| 1, 5);
        assert_eq!((histogram.sum(), histogram.count()), (u64::MAX, 3));
    }

    #[test]
    fn buckets_follow_one_another_without_gap_or_overlap() {
        assert_eq!(range_of(0), 0..=0);
        for bucket in 1..BUCKETS {
            let (before, here) = (range_of(bucket - 1), range_of(bucket));
            assert_eq!(before.end() + 1, *here.start(), "bucket {bucket}");
        }
        assert_eq!(*range_of(BUCKETS - 1).end(), u64::MAX);
    }
}

#[cfg(all(test, swiftwater_loom))]
mod models {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use loom::{sync::Arc, thread};

    use super::*;

    /// Two threads record while the third reads: no record and no part of the sum is lost, whether or not they met.
    #[test]
    fn nothing_is_lost_across_the_switch_to_stripes() {
        static STRIPED: AtomicUsize = AtomicUsize::new(0);
        static PLAIN: AtomicUsize = AtomicUsize::new(0);
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let histogram = Arc::new(Histogram::new());
            let other = {
                let histogram = histogram.clone();
                thread::spawn(move || {
                    histogram.record_as(|| 1, 1);
                    histogram.record_as(|| 1, 1);
                })
            };
            histogram.record_as(|| 0, 1);
            let (first, first_sum) = (histogram.count(), histogram.sum());
            let (second, second_sum) = (histogram.count(), histogram.sum());
            assert!(1 <= first && first <= second && second <= 3, "{first} then {second}");
            assert!(
                1 <= first_sum && first_sum <= second_sum && second_sum <= 3,
                "{first_sum} then {second_sum}"
            );
            other.join().unwrap();
            assert_eq!((histogram.count(), histogram.sum()), (3, 3));
            let seen = if histogram.stripes.iter().count() > 0 { &STRIPED } else { &PLAIN };
            seen.fetch_add(1, SeqCst);
        });
        assert!(STRIPED.load(SeqCst) > 0 && PLAIN.load(SeqCst) > 0, "both ways were explored");
    }
}
