//! How a batcher is set up.

use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use swiftwater_core::{BuildError, Clock};

use crate::{
    Batch, Batcher, Handler,
    group::{Group, group},
    shared::{Running, Shared},
    state::Options,
};

/// Sets up a [`Batcher`]: [`Batcher::builder`], setters, [`build`](Self::build).
#[must_use = "nothing is built before `build`"]
pub struct Builder<H: Handler> {
    handler: H,
    options: Options,
    deadline: Option<Duration>,
    group: Option<Group<H::Request>>,
    clock: Clock,
}

impl<H: Handler> Builder<H> {
    pub(crate) fn new(handler: H) -> Self {
        Self {
            handler,
            options: Options {
                max_items: DEFAULT_MAX_ITEMS,
                in_flight: DEFAULT_IN_FLIGHT,
                max_queued: DEFAULT_MAX_QUEUED,
                enabled: true,
            },
            deadline: None,
            group: None,
            clock: Clock::coarse(),
        }
    }

    /// The most requests a batch may have. Default: 64. Between 1 and 65,536. Can be turned later, as a knob.
    ///
    /// A batch is never held back to fill up: it takes what is there. More is worth it as long as another request in a
    /// batch costs less than a batch of its own; each one of them waits for the whole batch.
    pub fn max_items(mut self, max_items: usize) -> Self {
        self.options.max_items = max_items;
        self
    }

    /// How many batches may run at a time, over all lanes. Default: 1: what comes while a batch runs forms the next one.
    /// Between 1 and 65,536. Can be turned later, as a knob.
    ///
    /// More is for handlers that wait, for a network say; where batches share a processor, more of them at a time are
    /// smaller and each takes longer.
    pub fn in_flight(mut self, in_flight: usize) -> Self {
        self.options.in_flight = in_flight;
        self
    }

    /// How many requests may wait, over all lanes; those of batches that run do not count. The next call is refused with
    /// [`Reason::Full`](crate::Reason::Full). Default: 1000. Between 1 and 16,777,216. Can be turned later, as a knob.
    ///
    /// The backstop that bounds memory; what bounds waiting is [`deadline`](Self::deadline).
    pub fn max_queued(mut self, max_queued: usize) -> Self {
        self.options.max_queued = max_queued;
        self
    }

    /// How long a call may take in all. At its deadline a call that has no answer ends with
    /// [`CallError::Expired`](crate::CallError::Expired), in the queue (it is never handed to the handler then, and takes
    /// up no room any more) or in the handler's hands (whose answer is dropped). Default: none.
    /// [`Batcher::with_deadline`] is for those who have less time, or more.
    ///
    /// It bounds the queue by time: a call whose answer is not expected before its deadline is refused at once, with
    /// [`Reason::Late`](crate::Reason::Late), so that under overload the work goes into answers that somebody still waits
    /// for. What is expected is learned from the batches that ran; nothing is refused that could run at once.
    ///
    /// Deadlines are the runtime's business, with timers of millisecond precision, so a [`clock`](Self::clock) that stands
    /// still never makes a caller wait for ever.
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// Keeps requests with different keys apart: each key has a lane, a batch takes requests of one lane only, and lanes
    /// take turns. Default: one lane for all.
    ///
    /// Lanes share one queue bound and one number of batches in flight. They cost nothing when they are empty, so there may
    /// be as many keys as there are requests. Each call costs one allocation for its key, and one more lock if its lane is
    /// waiting already. `key`, and the key's `Hash`, `Eq` and `Drop`, run without a lock.
    pub fn group_by<K: Hash + Eq + Send + Sync + 'static>(
        mut self,
        key: impl Fn(&H::Request) -> K + Send + Sync + 'static,
    ) -> Self {
        self.group = Some(group(key));
        self
    }

    /// Where the times are read that are learned and shown: how long batches take and requests wait. Default:
    /// [`Clock::coarse`]. It must not panic: it is read in destructors, too.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// `false`: the batcher is transparent. Each request is a batch of its own, run at once, whatever else runs, without a
    /// queue and without admission; errors, panics, deadlines and [`drain`](Batcher::drain) are the same. Default: `true`.
    /// Can be turned later with [`Batcher::set_enabled`].
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.options.enabled = enabled;
        self
    }

    /// Builds the batcher. Starts nothing: there is no task and no timer while nobody calls.
    ///
    /// Need not be called on a runtime. If it is, callers without one of their own use that.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option that is out of range.
    #[expect(clippy::type_complexity, reason = "an alias would hide what the handle is called")]
    pub fn build(self) -> Result<Batcher<H::Request, H::Output, H::Error>, BuildError> {
        let Self { handler, options, deadline, group, clock } = self;
        for (option, value, most, expected) in [
            ("max_items", options.max_items, MAX_ITEMS_LIMIT, "must be from 1 to 65536"),
            ("in_flight", options.in_flight, IN_FLIGHT_LIMIT, "must be from 1 to 65536"),
            ("max_queued", options.max_queued, MAX_QUEUED_LIMIT, "must be from 1 to 16777216"),
        ] {
            if !(1..=most).contains(&value) {
                return Err(BuildError::new(option, value, expected));
            }
        }
        if deadline.is_some_and(|deadline| deadline.is_zero()) {
            return Err(BuildError::new("deadline", "0s", "must be longer than zero"));
        }
        let handler = Arc::new(handler);
        let run = Box::new(move |batch: Batch<H>| -> Running {
            let handler = handler.clone();
            Box::pin(async move { handler.run(batch).await })
        });
        Ok(Batcher::new(Shared::new(run, group, options, clock), deadline))
    }
}

impl<H: Handler> fmt::Debug for Builder<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .field("deadline", &self.deadline)
            .field("group_by", &self.group.is_some())
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

const DEFAULT_MAX_ITEMS: usize = 64;
const DEFAULT_IN_FLIGHT: usize = 1;
const DEFAULT_MAX_QUEUED: usize = 1000;
/// The highest values, of the knobs too: beyond them, it is a mistake.
pub(crate) const MAX_ITEMS_LIMIT: usize = 65_536;
pub(crate) const IN_FLIGHT_LIMIT: usize = 65_536;
pub(crate) const MAX_QUEUED_LIMIT: usize = 1 << 24;
