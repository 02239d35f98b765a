//! Successes and failures of the recent past, in a ring of time slices.
//!
//! Slice `i` covers the ticks from `i * width` to `(i + 1) * width`; the window at a time in slice `i` holds slices
//! `i - 31 ..= i`. A record of age `window` or more is therefore always out, one younger than 31/32 of it always in.

use std::time::Duration;

use swiftwater_core::Tick;

#[derive(Debug)]
pub(crate) struct Window {
    /// Nanoseconds per slice.
    width: u64,
    /// The slice that is being written; older ones lie behind it in the ring.
    newest: u64,
    slices: [Slice; SLICES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    calls: u64,
    failures: u64,
}

impl Window {
    pub(crate) fn new(window: Duration) -> Self {
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self {
            // Rounded down, so that 32 slices are never longer than the window.
            width: (nanos / SLICES as u64).max(1),
            newest: 0,
            slices: [Slice::default(); SLICES],
        }
    }

    /// `now` never decreases from call to call: the state machine sees to that.
    pub(crate) fn record(&mut self, now: Tick, failed: bool) {
        self.slide(now);
        let slice = &mut self.slices[place(self.newest)];
        slice.calls += 1;
        slice.failures += u64::from(failed);
    }

    /// Calls and failures in the window that ends now.
    pub(crate) fn totals(&mut self, now: Tick) -> (u64, u64) {
        self.slide(now);
        self.slices
            .iter()
            .fold((0, 0), |(calls, failures), slice| (calls + slice.calls, failures + slice.failures))
    }

    pub(crate) fn clear(&mut self) {
        self.slices = [Slice::default(); SLICES];
    }

    /// Empties the slices between the newest written one and now; after a long silence that is all of them, once.
    fn slide(&mut self, now: Tick) {
        let current = now.as_nanos() / self.width;
        let stale = current.saturating_sub(self.newest).min(SLICES as u64);
        for back in 0..stale {
            self.slices[place(current - back)] = Slice::default();
        }
        self.newest = self.newest.max(current);
    }
}

fn place(slice: u64) -> usize {
    (slice % SLICES as u64) as usize
}

/// 3 % of the window as resolution, for 512 bytes.
const SLICES: usize = 32;
