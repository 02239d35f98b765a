//! One cell per thread, more or less: where threads write that would otherwise fight for one cache line.
//!
//! Both users start with a single cell, and set the stripes up once several threads come, once and for good. What the
//! single cell holds stays where it is, so nothing moves and nothing can be lost on the way: a sum is always the single cell
//! plus all stripes.
//!
//! Why reads are monotone and complete: each cell only grows, a thread never reads an older value of a cell than it has
//! read or been told of before (coherence), and stripes that were seen once are seen for ever.

use std::{sync::LazyLock, thread};

use crate::sync::OnceLock;

/// A power of two of cells, set up on demand.
pub(crate) struct Stripes<T>(OnceLock<Box<[T]>>);

impl<T: Default> Stripes<T> {
    pub(crate) fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The cell of a thread, once there are stripes: perhaps with others.
    #[inline]
    pub(crate) fn get(&self, thread: impl FnOnce() -> u32) -> Option<&T> {
        self.0.get().map(|cells| pick(cells, thread()))
    }

    /// The cell that this thread has for itself, if there are stripes and it has one.
    #[inline]
    pub(crate) fn get_alone(&self, thread: u32) -> Option<&T> {
        self.0.get()?.get(thread as usize)
    }

    /// The cell of a thread, perhaps with others; sets the stripes up if need be.
    #[cold]
    #[inline(never)]
    pub(crate) fn get_or_set_up(&self, thread: u32) -> &T {
        pick(self.set_up(), thread)
    }

    pub(crate) fn set_up(&self) -> &[T] {
        self.0.get_or_init(|| (0..*STRIPES).map(|_| T::default()).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.get().into_iter().flatten()
    }
}

#[inline]
fn pick<T>(cells: &[T], thread: u32) -> &T {
    // The length is a power of two.
    &cells[thread as usize & (cells.len() - 1)]
}

/// Alone on its cache lines: two of them, because processors fetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

static STRIPES: LazyLock<usize> =
    LazyLock::new(|| stripes_for(thread::available_parallelism().map_or(1, usize::from)));

/// As many as there are processors, up to a power of two: that many threads run at a time.
fn stripes_for(processors: usize) -> usize {
    if cfg!(all(test, swiftwater_loom)) {
        return 2;
    }
    processors.next_power_of_two().clamp(LEAST_STRIPES, MOST_STRIPES)
}

/// The count of processors is that of the thread which asks: 1 where a service pins its threads to one each.
const LEAST_STRIPES: usize = 8;
/// Bounds what one contended counter may take: 8 KiB.
const MOST_STRIPES: usize = 64;

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use super::*;

    #[test]
    fn stripes_are_a_power_of_two_from_8_to_64() {
        let stripes = [1, 8, 9, 48, 64, 65, 1000].map(stripes_for);
        assert_eq!(stripes, [8, 8, 16, 64, 64, 64, 64]);
    }

    #[test]
    fn every_thread_has_a_cell_and_neighbours_have_different_ones() {
        let stripes = Stripes::<Padded<usize>>::new();
        assert!(stripes.get(|| 0).is_none());
        let cell = |thread| -> *const _ { stripes.get_or_set_up(thread) };
        assert_ne!(cell(0), cell(1));
        assert_eq!(cell(1), cell(1 + 64), "a thread beyond the last cell shares");
        assert_eq!(stripes.iter().count(), *STRIPES);
        assert!(cell(u32::MAX).addr().abs_diff(cell(0).addr()) >= 128);
    }
}
