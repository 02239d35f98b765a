//! What calls allocate, and what entries take, in the default store.
#![cfg(not(swiftwater_moka))]
#![expect(unsafe_code, reason = "counting needs an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use swiftwater_cache::{Cache, LoadCx, Region, dep};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(allocations: u64, bytes: isize) {
    // `try_with`: a thread may still allocate while its locals are gone.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + allocations));
    let _ = BYTES.try_with(|count| count.set(count.get() + bytes));
}

// SAFETY: everything is the system allocator's; the counts are plain thread-locals that never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as isize - layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread in `f`, and the bytes that it has kept.
fn counted<T>(f: impl FnOnce() -> T) -> (u64, isize, T) {
    let (allocations, bytes) = (ALLOCATIONS.get(), BYTES.get());
    let result = f();
    (ALLOCATIONS.get() - allocations, BYTES.get() - bytes, result)
}

/// Of what never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

fn region(cache: &Cache, memory: u64) -> Region<u64, u64> {
    cache.region("rows").memory(memory).ttl(Duration::from_secs(3600)).build().expect("valid")
}

fn insert(region: &Region<u64, u64>, key: u64) {
    region.insert_with(key, key, |entry| {
        entry.depends_on(dep!("row", key));
        entry.depends_on(dep!("table"));
    });
}

fn load(region: &Region<u64, u64>, key: u64) -> u64 {
    let load = async |cx: LoadCx<u64>| {
        cx.depends_on(dep!("row", *cx.key()));
        cx.depends_on(dep!("table"));
        Ok(*cx.key())
    };
    *at_once(region.get_or_load(&key, load)).expect("it loads")
}

#[test]
fn the_counts_count() {
    let (allocations, bytes, kept) = counted(|| std::hint::black_box(Box::new([0_u64; 3])));
    assert_eq!((allocations, bytes), (1, 24));
    assert_eq!(counted(|| drop(kept)).1, -24);
}

#[test]
fn a_hit_allocates_nothing_and_a_miss_three_blocks() {
    let cache = Cache::builder().build().expect("valid");
    let rows = region(&cache, 1000);
    for key in 0..2000 {
        load(&rows, key); // until everything is there that is made once
    }
    insert(&rows, 5000);
    assert_eq!(counted(|| rows.get(&5000)).0, 0);
    assert_eq!(counted(|| load(&rows, 5000)).0, 0);
    cache.invalidate(dep!("other"));
    assert_eq!(counted(|| load(&rows, 5000)).0, 0, "looks at its dependencies");
    assert_eq!(counted(|| insert(&rows, 5001)).0, 1, "the entry");
    assert_eq!(counted(|| load(&rows, 5002)).0, 3, "the entry, the flight and the loader's future");
    assert_eq!(counted(|| cache.invalidate(dep!("table"))).0, 0);
}

/// In the middle of its life, when the store remembers what was evicted as well.
#[test]
fn a_full_region_takes_at_most_128_bytes_an_entry() {
    let entries = 100_000;
    let cache = Cache::builder().build().expect("valid");
    let (_, bytes, rows) = counted(|| {
        let rows = region(&cache, entries);
        (0..5 * entries).for_each(|key| insert(&rows, key));
        rows
    });
    let held = (0..5 * entries).filter(|key| rows.get(key).is_some()).count();
    assert!(held > entries as usize * 9 / 10, "holds {held} of {entries}");
    let each = bytes as f64 / held as f64 - 16.0;
    assert!((100.0..=128.0).contains(&each), "{each} bytes beside key and value");
}

#[test]
fn nothing_grows_with_what_is_invalidated() {
    let cache = Cache::builder().build().expect("valid");
    let rows = region(&cache, 1000);
    let invalidate = |n: u64| {
        cache.invalidate(dep!("row", n));
        cache.invalidate(dep!("row", n).soft());
        rows.invalidate(&n);
    };
    invalidate(0); // tables of one size each, when they are needed first
    assert_eq!(counted(|| (1..100_000).for_each(invalidate)).1, 0);
}
