//! Nothing is allocated for a request, only for the batch it is in.
#![expect(unsafe_code, reason = "counting needs an allocator")]

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
};

use common::*;
use swiftwater_batch::{Batch, Batcher, Call, Handler};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; the count is a plain thread-local that never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // `try_with`: a thread may still allocate while its locals are gone.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocates nothing of its own.
struct Echo;

impl Handler for Echo {
    type Request = u32;
    type Output = u32;
    type Error = Infallible;

    async fn run(&self, batch: Batch<Self>) {
        batch.seal().into_iter().for_each(|item| item.reply.send(Ok(item.request)));
    }
}

/// Allocations while a batch of so many is called, handled and answered.
async fn batch(
    batcher: &Batcher<u32, u32, Infallible>,
    calls: &mut Vec<Call<u32, Infallible>>,
    of: u32,
) -> u64 {
    let before = ALLOCATIONS.get();
    calls.extend((0..of).map(|id| batcher.call(id)));
    calls.iter_mut().for_each(pending);
    settle().await;
    for (id, call) in (0..).zip(calls.drain(..)) {
        assert_eq!(ready(call), Ok(id));
    }
    ALLOCATIONS.get() - before
}

#[tokio::test]
async fn a_large_batch_allocates_no_more_than_a_small_one() {
    let batcher = Batcher::builder(Echo).max_items(1000).build().unwrap();
    let mut calls = Vec::with_capacity(1000);
    // Places for so many are made once.
    batch(&batcher, &mut calls, 1000).await;
    let small = batch(&batcher, &mut calls, 2).await;
    assert!(small > 0, "it counts");
    assert_eq!(batch(&batcher, &mut calls, 1000).await, small);
    assert_eq!(reading(&batcher, "batches"), 3);
}
