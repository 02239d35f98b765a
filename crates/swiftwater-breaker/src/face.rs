//! What callers may go by without asking the [`Machine`](crate::state::Machine): a decision that holds until it is replaced.
//!
//! # The protocol
//!
//! `serial << 3 | kind` in one word, next to it what depends on time. All are only ever written by the holder of the breaker's
//! lock, the word last and with release order; callers load the word first, with acquire order. So whoever sees a word
//! sees the times that belong to it, or later ones.
//!
//! | Kind | A call begins | A call of this generation succeeds |
//! |---|---|---|
//! | `Pass` | with the word's serial as its generation, before `slice_end` if it looks at the time | is counted in a stripe, before `slice_end` if it looks at the time |
//! | `Run` | as with `Pass` | asks: there is a series of failures to end |
//! | `Open`, `Full` | is refused before `until` | asks |
//! | `Off` | untracked | asks |
//! | `Ask` | asks | asks |
//!
//! Who asks, asks under the lock. What goes by the face takes effect when it loads the word: a transition that has ended
//! before that is seen, because its word was stored before its lock was released.
//!
//! # The bits of a permit
//!
//! `serial << 3 | kind` again: `Pass` with its generation, or `Probe` with a serial of its own. Where it matters when a call began,
//! a closed permit is `start << 19 | generation << 3 | Pass` with 45 bits for the start, in units of 4096 ns, and the lowest
//! 16 of the generation. Those recur, but by then `began`, the start of the present generation, lies after the permit's
//! own start, which gives it away.

use swiftwater_core::Tick;

use crate::sync::{
    AtomicU64,
    Ordering::{Relaxed, Release},
};

/// One decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Face {
    pub(crate) word: u64,
    pub(crate) until: Tick,
    pub(crate) slice_end: Tick,
    /// When the generation began, or the refusing; nobody goes by what lies ahead, by a clock that goes back.
    pub(crate) began: Tick,
    /// From how many nanoseconds on a call is slow.
    pub(crate) slow: u64,
}

/// The face as callers see it.
pub(crate) struct Published {
    pub(crate) word: AtomicU64,
    pub(crate) until: AtomicU64,
    pub(crate) slice_end: AtomicU64,
    pub(crate) began: AtomicU64,
    pub(crate) slow: AtomicU64,
}

impl Published {
    pub(crate) fn new(face: Face) -> Self {
        Self {
            word: AtomicU64::new(face.word),
            until: AtomicU64::new(face.until.as_nanos()),
            slice_end: AtomicU64::new(face.slice_end.as_nanos()),
            began: AtomicU64::new(face.began.as_nanos()),
            slow: AtomicU64::new(face.slow),
        }
    }

    /// By the holder of the breaker's lock, when something has changed: a store costs all other threads a miss.
    pub(crate) fn publish(&self, face: Face) {
        self.until.store(face.until.as_nanos(), Relaxed);
        self.slice_end.store(face.slice_end.as_nanos(), Relaxed);
        self.began.store(face.began.as_nanos(), Relaxed);
        self.slow.store(face.slow, Relaxed);
        // Release: see the head of this file.
        self.word.store(face.word, Release);
    }
}

/// A word, or the bits of a permit that does not tell its start.
#[inline]
pub(crate) const fn word(kind: u64, serial: u64) -> u64 {
    serial << SERIAL | kind
}

#[inline]
pub(crate) const fn kind_of(word: u64) -> u64 {
    word & KIND
}

#[inline]
pub(crate) const fn serial_of(word: u64) -> u64 {
    word >> SERIAL
}

/// The bits of a closed permit that tells its start.
#[inline]
pub(crate) const fn started(generation: u64, start: Tick) -> u64 {
    start.as_nanos() >> UNIT << START | (word(PASS, generation) & LOW)
}

/// When the call under a permit that tells its start began: what [`rounded`] has left of it. Right until two years later.
#[inline]
pub(crate) const fn start_of(bits: u64, now: Tick) -> Tick {
    let now = now.as_nanos() >> UNIT;
    let took = now.wrapping_sub(bits >> START) & UNITS;
    // More than half of what there is: it lies ahead, by a clock that goes back.
    Tick::from_nanos(if took > UNITS / 2 { now } else { now.saturating_sub(took) } << UNIT)
}

/// A start as a permit tells it.
#[inline]
pub(crate) const fn rounded(start: Tick) -> Tick {
    Tick::from_nanos(start.as_nanos() >> UNIT << UNIT)
}

/// Whether a permit that tells its start is of this generation, which began then.
#[inline]
pub(crate) fn is_of(generation: u64, began: Tick, bits: u64, now: Tick) -> bool {
    bits & LOW == word(PASS, generation) & LOW && start_of(bits, now) >= rounded(began)
}

pub(crate) const PASS: u64 = 1;
pub(crate) const RUN: u64 = 2;
pub(crate) const ASK: u64 = 3;
pub(crate) const OPEN: u64 = 4;
pub(crate) const FULL: u64 = 5;
pub(crate) const OFF: u64 = 6;
/// Of a permit alone.
pub(crate) const PROBE: u64 = 7;
/// The bits of a call that passed while the breaker did not look.
pub(crate) const UNTRACKED: u64 = 0;
const KIND: u64 = 0b111;
const SERIAL: u32 = 3;
const START: u32 = 19;
/// What is before the start.
const LOW: u64 = (1 << START) - 1;
/// Of the start: as many units as fit.
const UNITS: u64 = u64::MAX >> START;
/// 4096 ns.
const UNIT: u32 = 12;

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_permit_tells_its_start_and_its_generation() {
        for start in [0, 1, 4095, 4096, 123_456_789_012, 1 << 56, (1 << 57) + 5_000, u64::MAX - 10_000] {
            let start = Tick::from_nanos(start);
            for generation in [1, 2, 65_535, 65_536, 1 << 40] {
                let bits = started(generation, start);
                for later in [0, 1, 4096, 1 << 40, (1 << 55)] {
                    let now = start + Duration::from_nanos(later);
                    assert_eq!(start_of(bits, now), rounded(start));
                    assert!(is_of(generation, start, bits, now));
                    assert!(!is_of(generation + 1, start, bits, now));
                    // The same low bits, but it began after the permit was granted.
                    if later >= 8192 {
                        let began = start + Duration::from_nanos(4096);
                        assert!(!is_of(generation + 65_536, began, bits, now));
                    }
                }
            }
        }
    }

    #[test]
    fn bits_without_a_start_keep_their_serial() {
        for serial in [1, 7, 1 << 60] {
            assert_eq!(serial_of(word(PROBE, serial)), serial);
            assert_eq!(kind_of(word(PROBE, serial)), PROBE);
        }
    }
}
