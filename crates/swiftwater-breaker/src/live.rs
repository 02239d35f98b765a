//! Calls in flight by when they began: one thread's share of them.
//!
//! Time is cut into slices that the caller numbers. The youngest 16 have a place each, what began earlier is one sum. A call
//! may begin in one thread and end in another, so a share may be negative; only the sum over all shares means something,
//! and a share that is read while its owner moves calls from a place to the sum would spoil it. So moving is framed by
//! a version that is odd meanwhile, and a reader takes nothing that it has not read under one even version.

use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    add_alone,
};

pub(crate) struct Live {
    version: AtomicU64,
    places: [Place; PLACES],
    /// Of all slices that have no place any more; as all counts of calls, modulo 2^64.
    old: AtomicU64,
}

struct Place {
    slice: AtomicU64,
    calls: AtomicU64,
}

// Every store to what a version frames is a release, every load an acquire: who reads something that was stored after a
// version was made odd reads that version, or a later one, afterwards.
impl Live {
    pub(crate) fn new() -> Self {
        let place = || Place { slice: AtomicU64::new(0), calls: AtomicU64::new(0) };
        Self { version: AtomicU64::new(0), places: std::array::from_fn(|_| place()), old: AtomicU64::new(0) }
    }

    /// By the owner: so many more calls in flight that began in `slice`.
    #[inline]
    pub(crate) fn add(&self, slice: u64, more: i64) {
        let place = &self.places[slice as usize % PLACES];
        let at = place.slice.load(Relaxed);
        let more = more.cast_unsigned();
        if at == slice {
            add_alone(&place.calls, more, Release);
        } else if at < slice {
            self.moving(|| {
                add_alone(&self.old, place.calls.load(Relaxed), Release);
                place.slice.store(slice, Release);
                place.calls.store(more, Release);
            });
        } else {
            add_alone(&self.old, more, Release);
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
            let sum = places.fold(self.old.load(Acquire), u64::wrapping_add);
            if version.is_multiple_of(2) && self.version.load(Relaxed) == version {
                return Some(sum.cast_signed());
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

const PLACES: usize = if cfg!(all(test, swiftwater_loom)) { 1 } else { 16 };
/// An owner moves calls once a slice, for a few nanoseconds.
const TRIES: u32 = if cfg!(all(test, swiftwater_loom)) { 1 } else { 3 };

#[cfg(all(test, swiftwater_loom))]
mod models {
    use loom::{sync::Arc, thread};

    use super::*;

    /// The owner runs first, or the checker overlooks what a reader does between its loads and its stores.
    fn beside_a_reader(before: u64, owner: fn(&Live), allowed: &'static [Option<i64>]) {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let all = seen.clone();
        loom::model(move || {
            let live = Arc::new(Live::new());
            live.add(0, 1);
            let reader = {
                let (live, seen) = (live.clone(), seen.clone());
                thread::spawn(move || seen.lock().unwrap().push(live.before(before)))
            };
            owner(&live);
            reader.join().unwrap();
        });
        let all = all.lock().unwrap();
        assert!(all.iter().all(|seen| allowed.contains(seen)), "{all:?}");
        assert!(allowed.iter().all(|allowed| all.contains(allowed)), "not explored: {all:?}");
    }

    /// One call of slice 0 is in flight all the time; of slice 2, which takes its place, one begins.
    #[test]
    fn a_call_that_is_moved_is_neither_missed_nor_seen_twice_nor_taken_for_another() {
        beside_a_reader(2, |live| live.add(2, 1), &[Some(1), None]);
    }

    /// It ends while it is moved.
    #[test]
    fn a_call_that_ends_after_it_was_moved_is_taken_off() {
        let owner = |live: &Live| {
            live.add(2, 5);
            live.add(0, -1);
        };
        beside_a_reader(1, owner, &[Some(1), Some(0), None]);
    }

    #[test]
    fn a_share_may_be_less_than_nothing() {
        let live = |live: &Live| {
            live.add(0, -3);
            live.add(2, 1);
        };
        beside_a_reader(2, live, &[Some(1), Some(-2), None]);
    }
}
