//! Calls of the recent past, and how many of them were bad: in a ring of time slices, or of single calls.
//!
//! # Time
//!
//! Slice `i` covers the ticks from `i * width` to `(i + 1) * width`; the window at a time in slice `i` holds slices
//! `i - 31 ..= i`. A record of age `window` or more is therefore always out, one younger than 31/32 of it always in.
//!
//! Good calls are mostly not recorded here one by one but counted elsewhere, without a clock or a lock; `good` is always
//! how many of those there were since the window was cleared. Whoever slides the window books the good calls since the last time
//! into the slice that ends, so a good call must not be counted there before the window has slid to its time.

use std::time::Duration;

use swiftwater_core::Tick;

use crate::{
    event::Cause,
    trip::{Kind, Limit, Span, Watch},
};

/// The past of one condition, and what it must not hold.
#[derive(Debug)]
pub(crate) struct Window {
    /// From how many nanoseconds on a call is bad; if there is no such threshold, the ones that failed are.
    slow: Option<u64>,
    limit: Limit,
    past: Past,
}

#[derive(Debug)]
enum Past {
    Calls(Box<Calls>),
    Time(Box<Time>),
}

/// How a call ended, as far as it is known.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    /// `None`: it was dropped.
    pub(crate) failed: Option<bool>,
    /// Nanoseconds; means nothing if no permit tells its start.
    pub(crate) took: u64,
}

impl Window {
    pub(crate) fn new(watch: &Watch, now: Tick) -> Self {
        let past = match watch.span {
            Span::Calls(size) => Past::Calls(Box::new(Calls::new(size))),
            Span::Time(window) => Past::Time(Box::new(Time::new(window, now))),
        };
        Self { slow: slow(watch), limit: watch.limit, past }
    }

    /// A call ended now. A window in time has slid to now.
    #[inline]
    pub(crate) fn record(&mut self, ended: Ended) {
        match (self.slow, ended.failed) {
            (None, Some(failed)) => self.add(failed),
            (Some(threshold), Some(_)) => self.add(ended.took >= threshold),
            (Some(threshold), None) if ended.took >= threshold => self.add(true),
            // Of a call that was dropped earlier nobody knows how it would have ended.
            (_, None) => {}
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, bad: bool) {
        match &mut self.past {
            Past::Calls(calls) => calls.record(bad),
            Past::Time(time) => time.add(1, u64::from(bad)),
        }
    }

    /// Whether it holds what it must not. Adds up the good calls only if they may matter.
    #[inline]
    pub(crate) fn is_reached(&mut self, good: impl FnOnce() -> u64) -> bool {
        match self.limit {
            Limit::Count(count) => self.bad() >= count.into(),
            Limit::None => false,
            Limit::Share { share, min_calls } => self.has_share(share, min_calls, good),
        }
    }

    fn has_share(&mut self, share: f64, min_calls: u64, good: impl FnOnce() -> u64) -> bool {
        if let Past::Time(time) = &self.past
            && time.bad < time.harmless
        {
            return false;
        }
        let (calls, bad) = self.totals(good());
        // Divided, not multiplied: 7 of 100 is the same number as the literal 0.07, 0.07 * 100 is not 7.
        let has = calls >= min_calls && bad as f64 / calls as f64 >= share;
        if let Past::Time(time) = &mut self.past
            && calls >= min_calls
            && !has
        {
            // More good calls only make it less. A trifle off, for what floating point may err by.
            time.harmless = (share * (calls - bad) as f64 / (1.0 - share) * 0.999_999) as u64;
        }
        has
    }

    pub(crate) fn cause(&self) -> Cause {
        match (self.slow, self.limit) {
            (Some(_), _) => Cause::SlowRate,
            (None, Limit::Count(_)) => Cause::FailureCount,
            (None, Limit::None | Limit::Share { .. }) => Cause::FailureRate,
        }
    }

    /// Calls, and bad ones among them.
    pub(crate) fn totals(&self, good: u64) -> (u64, u64) {
        match &self.past {
            Past::Calls(calls) => (calls.filled as u64, calls.bad),
            Past::Time(time) => (time.calls + good.wrapping_sub(time.booked), time.bad),
        }
    }

    #[inline]
    pub(crate) fn bad(&self) -> u64 {
        match &self.past {
            Past::Calls(calls) => calls.bad,
            Past::Time(time) => time.bad,
        }
    }

    /// When it has to slide next; never, if it does not follow time.
    pub(crate) fn end(&self) -> Tick {
        match &self.past {
            Past::Calls(_) => Tick::from_nanos(u64::MAX),
            Past::Time(time) => time.end(),
        }
    }

    pub(crate) fn slide(&mut self, now: Tick, good: u64) {
        if let Past::Time(time) = &mut self.past {
            time.slide(now, good);
        }
    }

    /// Knows nothing of the past; `good` counts from zero again.
    pub(crate) fn clear(&mut self, now: Tick) {
        match &mut self.past {
            Past::Calls(calls) => **calls = Calls::new(calls.size as u64),
            Past::Time(time) => time.clear(now),
        }
    }

    /// Other values in the same condition. Of a longer past than it held before it knows nothing.
    pub(crate) fn change(&mut self, watch: &Watch, now: Tick, good: u64) {
        (self.slow, self.limit) = (slow(watch), watch.limit);
        match (&mut self.past, watch.span) {
            (Past::Time(time), Span::Time(window)) => time.resize(window, now, good),
            (Past::Calls(calls), Span::Calls(size)) => calls.resize(size),
            // An option changes its value, never its kind.
            _ => {}
        }
    }
}

fn slow(watch: &Watch) -> Option<u64> {
    match watch.kind {
        Kind::Failures => None,
        Kind::Slow(threshold) => Some(u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX)),
    }
}

#[derive(Debug)]
pub(crate) struct Time {
    /// Nanoseconds per slice.
    width: u64,
    /// The slice that is being written; older ones lie behind it in the ring.
    newest: u64,
    /// How many good calls are in the slices.
    booked: u64,
    /// Sums over the slices.
    calls: u64,
    bad: u64,
    /// Fewer bad calls than this are not the share that was last asked for, as long as no good ones leave the window.
    harmless: u64,
    slices: [Slice; SLICES],
}

/// 32 bits, since a registry keeps a ring for each of its keys.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    calls: u32,
    bad: u32,
}

impl Time {
    fn new(window: Duration, now: Tick) -> Self {
        let width = width(window);
        Self {
            width,
            newest: now.as_nanos() / width,
            booked: 0,
            calls: 0,
            bad: 0,
            harmless: 0,
            slices: [Slice::default(); SLICES],
        }
    }

    fn end(&self) -> Tick {
        Tick::from_nanos((self.newest + 1).saturating_mul(self.width))
    }

    #[inline]
    fn add(&mut self, calls: u64, bad: u64) {
        let slice = &mut self.slices[place(self.newest)];
        let (mut all, mut wrong) = (u64::from(slice.calls) + calls, u64::from(slice.bad) + bad);
        while all > u64::from(u32::MAX) {
            // Four billion calls in one slice: what counts is the share.
            (all, wrong) = (all / 2, wrong / 2);
        }
        self.calls = self.calls - u64::from(slice.calls) + all;
        self.bad = self.bad - u64::from(slice.bad) + wrong;
        *slice = Slice { calls: all as u32, bad: wrong as u32 };
    }

    /// Empties the slices between the newest written one and now; after a long silence that is all of them, once.
    fn slide(&mut self, now: Tick, good: u64) {
        let current = now.as_nanos() / self.width;
        if current <= self.newest {
            return;
        }
        self.book(good);
        for back in 0..(current - self.newest).min(SLICES as u64) {
            let slice = std::mem::take(&mut self.slices[place(current - back)]);
            self.calls -= u64::from(slice.calls);
            self.bad -= u64::from(slice.bad);
        }
        self.newest = current;
        self.harmless = 0;
    }

    fn book(&mut self, good: u64) {
        self.add(good.wrapping_sub(self.booked), 0);
        self.booked = good;
    }

    fn clear(&mut self, now: Tick) {
        self.newest = now.as_nanos() / self.width;
        (self.booked, self.calls, self.bad, self.harmless) = (0, 0, 0, 0);
        self.slices = [Slice::default(); SLICES];
    }

    /// What was in a slice is taken to have happened at its end.
    fn resize(&mut self, window: Duration, now: Tick, good: u64) {
        self.slide(now, good);
        self.book(good);
        let mut wanted = Self::new(window, now);
        let oldest = self.newest.saturating_sub(SLICES as u64 - 1);
        for number in oldest..=self.newest {
            let slice = self.slices[place(number)];
            let at = ((number + 1).saturating_mul(self.width) - 1).min(now.as_nanos()) / wanted.width;
            if at + SLICES as u64 > wanted.newest {
                let newest = std::mem::replace(&mut wanted.newest, at);
                wanted.add(slice.calls.into(), slice.bad.into());
                wanted.newest = newest;
            }
        }
        wanted.booked = good;
        *self = wanted;
    }
}

fn place(slice: u64) -> usize {
    (slice % SLICES as u64) as usize
}

/// Nanoseconds of a slice. Rounded down, so that all of them are never longer than the window.
fn width(window: Duration) -> u64 {
    let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
    (nanos / SLICES as u64).max(1)
}

/// The last so many calls, one bit each.
#[derive(Debug)]
pub(crate) struct Calls {
    size: usize,
    filled: usize,
    /// The place of the next call: the oldest one's, once the ring is full.
    next: usize,
    bad: u64,
    bits: Box<[u64]>,
}

impl Calls {
    fn new(size: u64) -> Self {
        let size = size as usize;
        Self { size, filled: 0, next: 0, bad: 0, bits: vec![0; size.div_ceil(64)].into() }
    }

    fn record(&mut self, bad: bool) {
        let (word, bit) = (&mut self.bits[self.next / 64], 1 << (self.next % 64));
        if self.filled == self.size {
            self.bad -= u64::from(*word & bit != 0);
        } else {
            self.filled += 1;
        }
        self.bad += u64::from(bad);
        *word = if bad { *word | bit } else { *word & !bit };
        self.next = if self.next + 1 == self.size { 0 } else { self.next + 1 };
    }

    /// Keeps the latest calls.
    fn resize(&mut self, size: u64) {
        let mut wanted = Self::new(size);
        let oldest = if self.filled == self.size { self.next } else { 0 };
        for back in (self.filled - self.filled.min(wanted.size))..self.filled {
            let at = (oldest + back) % self.size;
            wanted.record(self.bits[at / 64] & (1 << (at % 64)) != 0);
        }
        *self = wanted;
    }
}

/// 3 % of the window as resolution, for 256 bytes.
const SLICES: usize = 32;
