//! What is on the heap, counted only while somebody measures: two atomic additions an allocation would otherwise weigh on
//! every contestant, and most on those that allocate most.
#![expect(unsafe_code, reason = "counting what is on the heap takes an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ops::Sub,
    sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
};

/// The system's allocator, with a count. For `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

/// What has been allocated and not been freed, and how many allocations there were, since counting began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    pub bytes: i64,
    pub allocations: i64,
}

/// What `work` leaves on the heap, by whatever thread. One measurement at a time. What was there before must not be freed
/// meanwhile: it would count as negative.
pub fn of<T>(work: impl FnOnce() -> T) -> (T, Heap) {
    let before = begin();
    let result = work();
    (result, end(before))
}

/// [`of`], for work that awaits: pass the result to [`end`].
#[must_use]
pub fn begin() -> Heap {
    COUNTS.store(true, Relaxed);
    count()
}

/// What has come since [`begin`].
#[must_use]
pub fn end(before: Heap) -> Heap {
    COUNTS.store(false, Relaxed);
    count() - before
}

/// Bytes on the heap of the whole process, those of C libraries included; zero where nobody says.
#[must_use]
pub fn of_process() -> i64 {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes nothing, and returns numbers.
        let heap = unsafe { libc::mallinfo2() };
        (heap.uordblks + heap.hblkhd) as i64
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    0
}

fn count() -> Heap {
    Heap { bytes: BYTES.load(Relaxed), allocations: ALLOCATIONS.load(Relaxed) }
}

impl Sub for Heap {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { bytes: self.bytes - before.bytes, allocations: self.allocations - before.allocations }
    }
}

// Relaxed throughout: whoever measures has joined, or awaited, those who allocate.
static COUNTS: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);
static ALLOCATIONS: AtomicI64 = AtomicI64::new(0);

#[inline]
fn add(bytes: i64, allocations: i64) {
    if COUNTS.load(Relaxed) {
        BYTES.fetch_add(bytes, Relaxed);
        ALLOCATIONS.fetch_add(allocations, Relaxed);
    }
}

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as i64, 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as i64, 1);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same. (The default would write the zeros
        // that the system has for nothing, which large tables would pay for.)
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size as i64 - layout.size() as i64, 1);
        // SAFETY: `pointer` came from `System`, since `alloc` gave it out; the caller keeps the rest.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as i64), 0);
        // SAFETY: `pointer` came from `System`, since `alloc` gave it out.
        unsafe { System.dealloc(pointer, layout) }
    }
}
