//! What users implement.

use std::{fmt, future::Future, mem, sync::Arc};

use crate::{
    CallError,
    error::Ending,
    shared::{Desk, Shared},
    slab::Id,
};

/// Runs batches.
///
/// Most handlers are closures, see [`IntoHandler`](crate::IntoHandler). Implement this to answer one request before the
/// others, or to get hold of something first, a connection say, and only then take what has gathered:
///
/// ```
/// # use swiftwater_batch::{Batch, Batcher, Handler};
/// # use std::convert::Infallible;
/// struct Doubler;
///
/// impl Handler for Doubler {
///     type Request = u32;
///     type Output = u32;
///     type Error = Infallible;
///
///     async fn run(&self, batch: Batch<Self>) {
///         tokio::task::yield_now().await; // more may come meanwhile
///         for item in batch.seal() {
///             item.reply.send(Ok(item.request * 2));
///         }
///     }
/// }
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let doubler = Batcher::builder(Doubler).build()?;
/// assert_eq!(doubler.call(21).await?, 42);
/// # Ok::<_, Box<dyn std::error::Error>>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Laws
///
/// 1. Every item is answered through its [`Reply`], once. (A `Reply` that is dropped ends the call with
///    [`CallError::NoReply`], or [`CallError::HandlerPanicked`] during a panic.)
/// 2. The batch is sealed before `run` ends. (Otherwise the requests that it would have taken end with one of the same
///    errors, so that they are not run over and over; what is sealed afterwards is empty.)
/// 3. An empty batch is no error: everybody may have left.
/// 4. `run` may be dropped at any await, when its runtime ends.
///
/// A batch counts as in flight until the future of `run` has ended, even if its replies were sent before, or handed to
/// somebody who sends them later.
///
/// A handler that awaits its own batcher waits for itself, unless there is another batch [in
/// flight](crate::Builder::in_flight) free for it; and one that owns a handle of it keeps it alive for ever.
pub trait Handler: Sized + Send + Sync + 'static {
    /// What callers give.
    type Request: Send + 'static;
    /// What callers get.
    type Output: Send + 'static;
    /// Why they do not.
    type Error: Send + 'static;

    /// Runs one batch. It may block or panic: that harms only its own batch, and those that wait for its place.
    fn run(&self, batch: Batch<Self>) -> impl Future<Output = ()> + Send;
}

/// The batch of a handler, spelled short.
pub type Batch<H> = OpenBatch<<H as Handler>::Request, <H as Handler>::Output, <H as Handler>::Error>;

impl<H: Handler> Handler for Arc<H> {
    type Request = H::Request;
    type Output = H::Output;
    type Error = H::Error;

    fn run(&self, batch: Batch<Self>) -> impl Future<Output = ()> + Send {
        (**self).run(batch)
    }
}

impl<H: Handler> Handler for Box<H> {
    type Request = H::Request;
    type Output = H::Output;
    type Error = H::Error;

    fn run(&self, batch: Batch<Self>) -> impl Future<Output = ()> + Send {
        (**self).run(batch)
    }
}

/// A batch that more requests may join until it is sealed.
#[must_use = "a batch that is never sealed ends its calls without an answer"]
pub struct OpenBatch<Req, Out, Err> {
    shared: Arc<Shared<Req, Out, Err>>,
    run: u64,
}

impl<R: Send + 'static, O: Send + 'static, E: Send + 'static> OpenBatch<R, O, E> {
    pub(crate) fn new(shared: Arc<Shared<R, O, E>>, run: u64) -> Self {
        Self { shared, run }
    }

    /// Takes what has gathered: up to [`max_items`](crate::Builder::max_items) requests of the lane whose turn it is, in
    /// the order in which they came, none of them past its deadline or left by its caller. Empty if there are none left,
    /// or if `run` has ended.
    #[must_use = "items that are dropped end without an answer"]
    pub fn seal(self) -> Vec<Item<R, O, E>> {
        self.shared.seal(self.run)
    }
}

impl<R, O, E> fmt::Debug for OpenBatch<R, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBatch").finish_non_exhaustive()
    }
}

/// A request, and the way to answer it.
#[non_exhaustive]
pub struct Item<Req, Out, Err> {
    /// As the caller gave it.
    pub request: Req,
    /// Takes the answer.
    pub reply: Reply<Out, Err>,
}

impl<R: fmt::Debug, O, E> fmt::Debug for Item<R, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Answers one call, by value, so that two answers do not compile. Dropped, it ends the call with an error. It may outlive
/// the run and travel; leaked (`mem::forget`), it leaves the caller waiting until the deadline, if there is one.
#[must_use = "a reply that is dropped ends its call without an answer"]
pub struct Reply<Out, Err> {
    /// `None` once the answer is sent.
    desk: Option<Arc<dyn Desk<Out, Err>>>,
    id: Id,
}

impl<O, E> Reply<O, E> {
    pub(crate) fn new(desk: Arc<dyn Desk<O, E>>, id: Id) -> Self {
        Self { desk: Some(desk), id }
    }

    /// Sends the answer. If the caller is gone, or its deadline has passed, the answer is dropped here.
    pub fn send(self, answer: Result<O, E>) {
        self.end(answer.map_err(CallError::Handler));
    }

    pub(crate) fn end(mut self, outcome: Ending<O, E>) {
        if let Some(desk) = mem::take(&mut self.desk) {
            desk.answer(self.id, Some(outcome));
        }
    }
}

impl<O, E> Drop for Reply<O, E> {
    fn drop(&mut self) {
        if let Some(desk) = mem::take(&mut self.desk) {
            desk.answer(self.id, None);
        }
    }
}

impl<O, E> fmt::Debug for Reply<O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
