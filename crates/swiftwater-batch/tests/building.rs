//! The builder judges in `build`, and names the option; what is built can be moved where it should.

mod common;

use std::time::Duration;

use common::*;
use swiftwater_batch::{
    Batch, Batcher, Builder, Call, CallError, Drained, Handler, Item, Missing, OpenBatch, Reason, Refused,
    Reply,
};
use swiftwater_core::BuildError;

fn refused(build: impl FnOnce(Builder<Hold>) -> Builder<Hold>) -> BuildError {
    build(Batcher::builder(Hold::new())).build().unwrap_err()
}

#[test]
fn nonsense_is_named() {
    for (error, text) in [
        (refused(|b| b.max_items(0)), "max_items = 0: must be from 1 to 65536"),
        (refused(|b| b.max_items(65_537)), "max_items = 65537: must be from 1 to 65536"),
        (refused(|b| b.in_flight(0)), "in_flight = 0: must be from 1 to 65536"),
        (refused(|b| b.in_flight(65_537)), "in_flight = 65537: must be from 1 to 65536"),
        (refused(|b| b.max_queued(0)), "max_queued = 0: must be from 1 to 16777216"),
        (refused(|b| b.max_queued(1 << 24 | 1)), "max_queued = 16777217: must be from 1 to 16777216"),
        (refused(|b| b.deadline(Duration::ZERO)), "deadline = 0s: must be longer than zero"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn the_widest_options_work() {
    let hold = Hold::new();
    let builder = Batcher::builder(hold.clone()).max_items(65_536).in_flight(65_536).max_queued(1 << 24);
    let lookups = builder.deadline(Duration::MAX).build().unwrap();
    let call = lookups.call(1);
    settle().await;
    hold.answer().await;
    assert_eq!(ready(call), Ok(10));
    assert_eq!(lookups.drain(Duration::MAX).await.abandoned, 0);
}

#[tokio::test]
async fn the_defaults_are_those_that_are_promised() {
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    for (name, expected) in [("max_items", 64), ("in_flight", 1), ("max_queued", 1000)] {
        assert_eq!(reading(&lookups, name), expected);
    }
    assert!(lookups.is_enabled());
}

#[tokio::test]
async fn handlers_in_boxes_and_arcs_are_handlers() {
    let hold = Hold::new();
    let lookups = Batcher::builder(std::sync::Arc::new(Box::new(hold.clone()))).build().unwrap();
    let call = lookups.call(1);
    settle().await;
    hold.answer().await;
    assert_eq!(ready(call), Ok(10));
}

/// An output and an error that are `Send` and nothing more.
type Sendable = std::cell::Cell<u32>;

struct Cells;

impl Handler for Cells {
    type Request = Sendable;
    type Output = Sendable;
    type Error = Sendable;

    async fn run(&self, batch: Batch<Self>) {
        batch.seal().into_iter().for_each(|item| item.reply.send(Ok(item.request)));
    }
}

#[test]
fn what_can_be_sent_and_shared_can_be() {
    fn both<T: Send + Sync + 'static>() {}
    fn unpin<T: Unpin>() {}
    both::<Batcher<Sendable, Sendable, Sendable>>();
    both::<Builder<Cells>>();
    both::<Call<Sendable, Sendable>>();
    unpin::<Call<Sendable, Sendable>>();
    both::<OpenBatch<Sendable, Sendable, Sendable>>();
    both::<Reply<Sendable, Sendable>>();
    both::<Item<u32, Sendable, Sendable>>();
    both::<Refused<u32>>();
    both::<(CallError<u32>, Reason, Missing, Drained)>();
    fn future<F: Future + Send + 'static>(_: &F) {}
    let batcher = Batcher::builder(Cells).build().unwrap();
    future(&batcher.drain(Duration::ZERO));
    future(&batcher.call(Sendable::new(1)));
}
