//! A distribution that many threads record to and few read.

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::{
    Distribution,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// Counts of values by size, written by hot paths: any `u64`, in buckets whose width is at most 1/16 of their lower end.
///
/// Durations are recorded in nanoseconds. Memory is fixed at first use; nothing is ever lost or merged away.
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Records one value.
    #[inline]
    pub fn record(&self, value: u64) {
        // Relaxed: nothing is published through a count.
        self.buckets[bucket_of(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Records a duration in nanoseconds, up to 584 years.
    #[inline]
    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// The upper end of the bucket that holds the `quantile` (0 to 1, clamped): at most 1/16 above the true value.
    /// `None` while nothing was recorded.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = (quantile.clamp(0.0, 1.0) * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(*range_of(bucket).end());
            }
        }
        unreachable!("the rank is at most the total")
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Distribution for Histogram {
    fn buckets(&self, each: &mut dyn FnMut(RangeInclusive<u64>, u64)) {
        for (bucket, count) in self.buckets.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                each(range_of(bucket), count);
            }
        }
    }

    fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
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

/// Values below 16 have a bucket each; above, every power of two is cut into 16.
const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB;

#[inline]
fn bucket_of(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let power = 63 - value.leading_zeros(); // at least SUB_BITS
    let sub = (value >> (power - SUB_BITS)) as usize & (SUB - 1);
    (power - SUB_BITS + 1) as usize * SUB + sub
}

fn range_of(bucket: usize) -> RangeInclusive<u64> {
    if bucket < SUB {
        return bucket as u64..=bucket as u64;
    }
    let shift = (bucket / SUB - 1) as u32;
    let low = ((SUB + bucket % SUB) as u64) << shift;
    low..=low + ((1u64 << shift) - 1)
}
