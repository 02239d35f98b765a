//! Calls in flight by when they began: one thread's share of them.
//!
//! Time is cut into slices that the caller numbers. The youngest 16 have a place each, what began earlier is one sum. A call
//! may begin in one thread and end in another, so a share may be negative; only the sum over all shares means something,
//! and a share that is read while its owner moves calls from a place to the sum would spoil it. So moving is framed by
//! a version that is odd meanwhile, and a reader takes nothing that it has not read under one even version.

use crate::sync::{
    AtomicI64, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

pub(crate) struct Live {
    version: AtomicU64,
    places: [Place; PLACES],
    /// Of all slices that have no place any more.
    old: AtomicI64,
}

struct Place {
    slice: AtomicU64,
    calls: AtomicI64,
}

// Every store to what a version frames is a release, every load an acquire: who reads something that was stored after a
// version was made odd reads that version, or a later one, afterwards.
impl Live {
    pub(crate) fn new() -> Self {
        let place = || Place { slice: AtomicU64::new(0), calls: AtomicI64::new(0) };
        Self { version: AtomicU64::new(0), places: std::array::from_fn(|_| place()), old: AtomicI64::new(0) }
    }

    /// By the owner: so many more calls in flight that began in `slice`.
    #[inline]
    pub(crate) fn add(&self, slice: u64, more: i64) {
        let place = &self.places[slice as usize % PLACES];
        let at = place.slice.load(Relaxed);
        if at == slice {
            plus(&place.calls, more);
        } else if at < slice {
            self.moving(|| {
                plus(&self.old, place.calls.load(Relaxed));
                place.slice.store(slice, Release);
                place.calls.store(more, Release);
            });
        } else {
            plus(&self.old, more);
        }
    }

    /// By the owner: there are none.
    pub(crate) fn clear(&self) {
        self.moving(|| {
            for place in &self.places {
                place.slice.store(0, Release);
                place.calls.store(0, Release);
            }
            self.old.store(0, Release);
        });
    }

    /// This share of the calls in flight that began before `slice`; `None` if the owner keeps moving them about.
    pub(crate) fn before(&self, slice: u64) -> Option<i64> {
        for _ in 0..TRIES {
            let version = self.version.load(Acquire);
            let places = self.places.iter().map(|place| {
                let calls = place.calls.load(Acquire);
                if place.slice.load(Acquire) < slice { calls } else { 0 }
            });
            let sum = places.fold(self.old.load(Acquire), i64::wrapping_add);
            if version.is_multiple_of(2) && self.version.load(Relaxed) == version {
                return Some(sum);
            }
        }
        None
    }

    fn moving(&self, change: impl FnOnce()) {
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Relaxed);
        change();
        self.version.store(version + 2, Release);
    }
}

/// The owner alone writes, so this loses nothing.
#[inline]
fn plus(count: &AtomicI64, more: i64) {
    count.store(count.load(Relaxed).wrapping_add(more), Release);
}

const PLACES: usize = if cfg!(all(test, swiftwater_loom)) { 2 } else { 16 };
/// An owner moves calls once a slice, for a few nanoseconds.
const TRIES: u32 = 3;

#[cfg(all(test, swiftwater_loom))]
mod models {
    use loom::{sync::Arc, thread};

    use super::*;

    /// One call of slice 0 is in flight all the time. Of slice 2, which takes its place, there are none: one begins and ends.
    #[test]
    fn a_reader_beside_the_owner_sees_what_is_there_or_nothing() {
        loom::model(|| {
            let live = Arc::new(Live::new());
            live.add(0, 1);
            let reader = {
                let live = live.clone();
                thread::spawn(move || {
                    assert!(matches!(live.before(2), None | Some(1)));
                })
            };
            live.add(2, 1);
            live.add(2, -1);
            reader.join().unwrap();
            assert_eq!(live.before(2), Some(1));
            assert_eq!(live.before(3), Some(1));
        });
    }

    /// A share that is less than nothing: its calls began elsewhere. Moving it must not hide it.
    #[test]
    fn what_ended_here_and_began_elsewhere_is_not_forgotten_on_the_way() {
        loom::model(|| {
            let live = Arc::new(Live::new());
            live.add(0, -1);
            let reader = {
                let live = live.clone();
                thread::spawn(move || assert!(matches!(live.before(1), None | Some(-1))))
            };
            live.add(2, 1);
            live.add(0, 0);
            reader.join().unwrap();
            assert_eq!(live.before(1), Some(-1));
        });
    }
}
