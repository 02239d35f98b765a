//! The handle.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use swiftwater_core::{Knob, Observe, Observer, Tunable, Visitor};
use tokio::time::Instant;

use crate::{
    Builder, Call, IntoHandler, Refused,
    builder::{IN_FLIGHT_LIMIT, MAX_ITEMS_LIMIT, MAX_QUEUED_LIMIT},
    shared::{Shared, after},
    stats::{IN_FLIGHT, MAX_ITEMS, MAX_QUEUED},
};

/// Takes requests one by one and has them handled in batches. A handle: cloning is one atomic increment.
///
/// Dropping handles, the last one too, takes nothing back: calls that were made are answered, and when the last of them has
/// ended, nothing is left.
pub struct Batcher<Req, Out, Err> {
    shared: Arc<Shared<Req, Out, Err>>,
    deadline: Option<Duration>,
}

impl Batcher<(), (), ()> {
    /// Starts setting up a batcher over a [`Handler`](crate::Handler) or a closure: see [`IntoHandler`].
    pub fn builder<Via, I: IntoHandler<Via>>(handler: I) -> Builder<I::Handler> {
        Builder::new(handler.into_handler())
    }
}

impl<Req: Send + 'static, Out: Send + 'static, Err: Send + 'static> Batcher<Req, Out, Err> {
    pub(crate) fn new(shared: Arc<Shared<Req, Out, Err>>, deadline: Option<Duration>) -> Self {
        Self { shared, deadline }
    }

    /// Sends a request, now, and waits for its answer when awaited.
    ///
    /// The request joins the queue before this returns, whether or not the [`Call`] is ever polled; dropping the `Call`
    /// withdraws it. It never waits for room: if the request is not let in, the call is ready with
    /// [`CallError::Refused`](crate::CallError::Refused), and the request is gone.
    ///
    /// Costs a short lock here, one per poll and one for the answer; a task, if none is at work and the number of batches
    /// [in flight](Builder::in_flight) allows. Handlers run on the runtime of the caller who starts such a task; callers
    /// without one use the runtime that [`build`](Builder::build) was called on.
    ///
    /// # Cancel safety
    ///
    /// See [`Call`]: dropping it withdraws the request, and touches nobody else.
    ///
    /// # Panics
    ///
    /// If the function given to [`group_by`](Builder::group_by), or its key's `Hash` or `Eq`, panics; nothing has happened
    /// then.
    pub fn call(&self, request: Req) -> Call<Out, Err> {
        match self.try_call(request) {
            Ok(call) => call,
            Err(refused) => Call::refused(refused.reason),
        }
    }

    /// As [`call`](Self::call), and hands the request back if it is not let in.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the request and the [`Reason`](crate::Reason).
    ///
    /// # Panics
    ///
    /// As [`call`](Self::call).
    pub fn try_call(&self, request: Req) -> Result<Call<Out, Err>, Refused<Req>> {
        self.shared.call(request, self.deadline)
    }

    /// A handle of the same batcher whose calls end after `deadline`, answered or not; `None`: whenever they are answered.
    ///
    /// Costs an atomic increment, so it can be made for one call: `lookups.with_deadline(time_left).call(id)`. A request
    /// without any time left is refused. See [`Builder::deadline`].
    #[must_use]
    pub fn with_deadline(&self, deadline: impl Into<Option<Duration>>) -> Self {
        Self { shared: self.shared.clone(), deadline: deadline.into() }
    }

    /// Closes the batcher, now: every later call is refused. What was let in before is handled; the future is ready when
    /// all of it has ended and no handler runs any more, but after `limit` at the latest, counted from here. Calls that have
    /// no answer by then end with [`CallError::Closed`](crate::CallError::Closed); handlers are not cut off, but their
    /// answers are dropped.
    ///
    /// It cannot be opened again. Draining twice is fine: each report counts from its own call, and the shorter limit ends
    /// the calls. Where there are no timers, or the runtime that had them has ended, the limit cannot be waited for: it has
    /// passed.
    ///
    /// # Cancel safety
    ///
    /// The batcher is closed when this returns. Dropping the future loses the report and the limit: what was let in is
    /// still handled, however long that takes.
    pub fn drain(&self, limit: Duration) -> impl Future<Output = Drained> + Send + use<Req, Out, Err> {
        let limit = after(Instant::now(), limit);
        let shared = self.shared.clone();
        let before = shared.close();
        async move {
            let now = shared.drain(limit).await;
            Drained {
                completed: now.completed - before.completed,
                refused: now.refused - before.refused,
                abandoned: now.abandoned - before.abandoned,
            }
        }
    }

    /// Whether requests are batched.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.shared.look(|state| state.is_enabled())
    }

    /// The off switch: see [`Builder::enabled`]. It holds for the calls that come; those that wait already are batched.
    pub fn set_enabled(&self, enabled: bool) {
        self.shared.change(|state| state.options().enabled = enabled);
    }
}

/// What became of the calls while a batcher was drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Calls that ended as they would have ended anyway: answered, well or badly, or expired. Those that were dropped by
    /// their callers are not counted.
    pub completed: u64,
    /// Calls that came too late and were refused.
    pub refused: u64,
    /// Calls that had no answer at the limit.
    pub abandoned: u64,
}

impl<Req, Out, Err> Clone for Batcher<Req, Out, Err> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), deadline: self.deadline }
    }
}

impl<Req, Out, Err> fmt::Debug for Batcher<Req, Out, Err> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<Req: Send + 'static, Out: Send + 'static, Err: Send + 'static> Observe for Batcher<Req, Out, Err> {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.shared.observe(visitor);
    }
}

/// Three knobs: `max_items`, `in_flight` and `max_queued`. Raising one takes effect at once; lowering one lets batches that
/// run and requests that wait be, and holds from then on.
impl<Req: Send + 'static, Out: Send + 'static, Err: Send + 'static> Tunable for Batcher<Req, Out, Err> {
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        each(Knob::new(
            &MAX_ITEMS,
            1.0..=MAX_ITEMS_LIMIT as f64,
            1.0,
            &self.shared,
            |shared| shared.look(|state| state.options().max_items as f64),
            |shared, max_items| shared.change(|state| state.set_max_items(max_items as usize)),
        ));
        each(Knob::new(
            &IN_FLIGHT,
            1.0..=IN_FLIGHT_LIMIT as f64,
            1.0,
            &self.shared,
            |shared| shared.look(|state| state.options().in_flight as f64),
            |shared, in_flight| shared.change(|state| state.options().in_flight = in_flight as usize),
        ));
        each(Knob::new(
            &MAX_QUEUED,
            1.0..=MAX_QUEUED_LIMIT as f64,
            1.0,
            &self.shared,
            |shared| shared.look(|state| state.options().max_queued as f64),
            |shared, max_queued| shared.change(|state| state.options().max_queued = max_queued as usize),
        ));
    }
}

impl<Req: Send + 'static, Out: Send + 'static, Err: Send + 'static> From<&Batcher<Req, Out, Err>>
    for Observer
{
    fn from(batcher: &Batcher<Req, Out, Err>) -> Self {
        Self::from(&batcher.shared)
    }
}
