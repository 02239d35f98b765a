//! The laws of [`Handler`] as callable tests, for those who implement it.
//!
//! Each panics if its law is broken. They need whatever the handler uses, and a tokio runtime with timers.
//!
//! ```
//! # use std::sync::Arc;
//! # use swiftwater_batch::{Batch, Handler, conformance};
//! # struct Doubler;
//! # impl Handler for Doubler {
//! #     type Request = u32;
//! #     type Output = u32;
//! #     type Error = std::convert::Infallible;
//! #     async fn run(&self, batch: Batch<Self>) {
//! #         batch.seal().into_iter().for_each(|item| item.reply.send(Ok(item.request * 2)));
//! #     }
//! # }
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! # runtime.block_on(async {
//! conformance::all(&Arc::new(Doubler), || 21).await;
//! # });
//! ```

#![expect(clippy::missing_panics_doc, reason = "to panic is what they are for")]

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::{Batch, Batcher, Call, CallError, Handler};

/// Every law.
pub async fn all<H: Handler>(handler: &Arc<H>, request: impl Fn() -> H::Request) {
    every_request_is_answered(handler, &request).await;
    empty_batches_are_no_error(handler, &request).await;
    runs_may_be_dropped(handler, &request).await;
}

/// Laws 1 and 2: the batch is sealed and each of its items answered, be there one or several.
pub async fn every_request_is_answered<H: Handler>(handler: &Arc<H>, request: impl Fn() -> H::Request) {
    for items in [1, 2, 7] {
        let batcher = Batcher::builder(handler.clone()).build().expect("the defaults are in range");
        let calls: Vec<_> = (0..items).map(|_| batcher.call(request())).collect();
        for (number, call) in calls.into_iter().enumerate() {
            let missing = match answer(call).await {
                Ok(_) | Err(CallError::Handler(_)) => continue,
                Err(CallError::HandlerPanicked) => "was lost in a panic",
                Err(_) => "was not answered",
            };
            panic!("laws 1 and 2: request {number} of {items} {missing}");
        }
    }
}

/// Law 3: a batch that everybody has left before it was sealed is no error.
pub async fn empty_batches_are_no_error<H: Handler>(handler: &Arc<H>, request: impl Fn() -> H::Request) {
    let ((begin, begun), (go_on, going_on), (end, ended)) =
        (oneshot::channel(), oneshot::channel(), oneshot::channel());
    let steps = Mutex::new(Some((begin, going_on, end)));
    let batcher = Batcher::builder(Late { handler: handler.clone(), steps });
    let leaves = batcher.build().expect("the defaults are in range").call(request());
    begun.await.expect("it has work, so it begins");
    drop(leaves);
    go_on.send(()).expect("it waits for that");
    match timeout(LIMIT, ended).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => panic!("law 3: the run with an empty batch panicked"),
        Err(_) => panic!("law 3: the run with an empty batch did not end within {LIMIT:?}"),
    }
}

/// Law 4: a run that is dropped after any of its first polls harms only its own batch.
pub async fn runs_may_be_dropped<H: Handler>(handler: &Arc<H>, request: impl Fn() -> H::Request) {
    for polls in 0..POLLS {
        let short = Batcher::builder(CutShort { handler: handler.clone(), polls });
        // Whatever becomes of it: it was cut short.
        let _ = answer(short.build().expect("the defaults are in range").call(request())).await;
    }
    every_request_is_answered(handler, request).await;
}

async fn answer<O, E>(call: Call<O, E>) -> Result<O, CallError<E>> {
    match timeout(LIMIT, call).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("law 1: a request was not answered within {LIMIT:?}"),
    }
}

/// Runs its first batch when it is told to, and tells when it begins and ends.
struct Late<H> {
    handler: Arc<H>,
    steps: Mutex<Option<Steps>>,
}

/// It begins, it is to go on, it has ended.
type Steps = (oneshot::Sender<()>, oneshot::Receiver<()>, oneshot::Sender<()>);

impl<H: Handler> Handler for Late<H> {
    type Request = H::Request;
    type Output = H::Output;
    type Error = H::Error;

    async fn run(&self, batch: Batch<Self>) {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (begin, going_on, end) = steps.expect("there is one call, so one run");
        let _ = begin.send(());
        let _ = going_on.await;
        self.handler.run(batch).await;
        let _ = end.send(());
    }
}

/// Drops the handler's future after so many polls.
struct CutShort<H> {
    handler: Arc<H>,
    polls: usize,
}

impl<H: Handler> Handler for CutShort<H> {
    type Request = H::Request;
    type Output = H::Output;
    type Error = H::Error;

    async fn run(&self, batch: Batch<Self>) {
        let mut run = pin!(self.handler.run(batch));
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            if polls > self.polls { Poll::Ready(()) } else { run.as_mut().poll(cx) }
        })
        .await;
    }
}

/// How long everything may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Runs are dropped after up to so many polls.
const POLLS: usize = 8;
