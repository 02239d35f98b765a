//! What a batcher counts, and how it is described.

use swiftwater_core::{Counter, Desc, Histogram, Unit, Visitor};

use crate::{Reason, state::Numbers};

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) calls: Counter,
    pub(crate) answered: Counter,
    pub(crate) expired: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) abandoned: Counter,
    pub(crate) batches: Counter,
    pub(crate) panicked: Counter,
    refused_closed: Counter,
    refused_full: Counter,
    refused_late: Counter,
    refused_no_runtime: Counter,
    pub(crate) batch_size: Histogram,
    pub(crate) queue_time: Histogram,
    pub(crate) batch_time: Histogram,
}

impl Stats {
    pub(crate) fn refused(&self, reason: Reason) {
        let counter = match reason {
            Reason::Closed => &self.refused_closed,
            Reason::Full { .. } => &self.refused_full,
            Reason::Late { .. } => &self.refused_late,
            Reason::NoRuntime => &self.refused_no_runtime,
        };
        counter.add(1);
    }

    pub(crate) fn show(&self, numbers: Numbers, visitor: &mut dyn Visitor) {
        visitor.counter(&CALLS, self.calls.read());
        visitor.counter(&ANSWERED, self.answered.read());
        visitor.counter(&EXPIRED, self.expired.read());
        visitor.counter(&CANCELLED, self.cancelled.read());
        visitor.counter(&ABANDONED, self.abandoned.read());
        visitor.counter(&BATCHES, self.batches.read());
        visitor.counter(&PANICKED, self.panicked.read());
        visitor.counter(&REFUSED_CLOSED, self.refused_closed.read());
        visitor.counter(&REFUSED_FULL, self.refused_full.read());
        visitor.counter(&REFUSED_LATE, self.refused_late.read());
        visitor.counter(&REFUSED_NO_RUNTIME, self.refused_no_runtime.read());
        visitor.histogram(&BATCH_SIZE, &self.batch_size);
        visitor.histogram(&QUEUE, &self.queue_time);
        visitor.histogram(&BATCH, &self.batch_time);
        visitor.gauge(&QUEUED, numbers.queued as f64);
        visitor.gauge(&RUNNING, numbers.running as f64);
        visitor.gauge(&LANES, numbers.lanes as f64);
        visitor.gauge(&MAX_ITEMS, numbers.max_items as f64);
        visitor.gauge(&IN_FLIGHT, numbers.in_flight as f64);
        visitor.gauge(&MAX_QUEUED, numbers.max_queued as f64);
        visitor.state(&MODE, &numbers.mode);
    }
}

static CALLS: Desc = Desc::new("calls", Unit::Count, "calls that were let in");
static ANSWERED: Desc = Desc::new(
    "answered",
    Unit::Count,
    "calls that ended by the handler: its answer, or its failure to give one",
);
static EXPIRED: Desc = Desc::new("expired", Unit::Count, "calls that ended by their deadline");
static CANCELLED: Desc = Desc::new("cancelled", Unit::Count, "calls that were dropped before they had ended");
static ABANDONED: Desc =
    Desc::new("abandoned", Unit::Count, "calls that ended by a drain's limit, or for want of a runtime");
static BATCHES: Desc =
    Desc::new("batches", Unit::Count, "batches that were sealed with at least one request");
static PANICKED: Desc = Desc::new("panicked", Unit::Count, "runs of the handler that panicked");
static REFUSED_CLOSED: Desc =
    Desc::new("refused_closed", Unit::Count, "calls refused because the batcher was closed");
static REFUSED_FULL: Desc =
    Desc::new("refused_full", Unit::Count, "calls refused because max_queued requests waited");
static REFUSED_LATE: Desc = Desc::new(
    "refused_late",
    Unit::Count,
    "calls refused because the answer was not expected before the deadline",
);
static REFUSED_NO_RUNTIME: Desc =
    Desc::new("refused_no_runtime", Unit::Count, "calls refused because there was no runtime");
static BATCH_SIZE: Desc = Desc::new("batch_size", Unit::Count, "requests in a batch");
static QUEUE: Desc =
    Desc::new("queue", Unit::Seconds, "time that requests waited until their batch was sealed");
static BATCH: Desc = Desc::new("batch", Unit::Seconds, "time that runs of the handler took, panics left out");
static QUEUED: Desc = Desc::new("queued", Unit::Count, "requests that wait");
static RUNNING: Desc = Desc::new("running", Unit::Count, "runs of the handler that have begun and not ended");
static LANES: Desc = Desc::new("lanes", Unit::Count, "lanes with requests that wait");
pub(crate) static MAX_ITEMS: Desc = Desc::new("max_items", Unit::Count, "requests that a batch may have");
pub(crate) static IN_FLIGHT: Desc = Desc::new("in_flight", Unit::Count, "batches that may run at a time");
pub(crate) static MAX_QUEUED: Desc = Desc::new("max_queued", Unit::Count, "requests that may wait");
static MODE: Desc = Desc::new("mode", Unit::Count, "on, off (no batching) or closed");
