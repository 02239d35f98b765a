//! Waiting for an answer.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{CallError, Reason, shared::Desk, slab::Id};

/// The future of [`Batcher::call`](crate::Batcher::call): named, so that it can be stored, and `'static`.
///
/// The request is on its way since the call was made; polling only waits for the answer, on any runtime or none.
///
/// # Cancel safety
///
/// Dropping it withdraws the request. One that still waits is removed at once, its capacity is free and the handler never
/// sees it; the answer to one that is running is dropped when it comes. Nobody else's call is touched.
///
/// # Panics
///
/// When polled again after it was ready.
#[must_use = "dropping it withdraws the request"]
pub struct Call<Out, Err>(Stage<Out, Err>);

enum Stage<O, E> {
    Over,
    Refused(Reason),
    Waiting { desk: Arc<dyn Desk<O, E>>, id: Id, fresh: bool },
}

impl<O, E> Call<O, E> {
    pub(crate) fn new(desk: Arc<dyn Desk<O, E>>, id: Id) -> Self {
        Self(Stage::Waiting { desk, id, fresh: true })
    }

    pub(crate) fn refused(reason: Reason) -> Self {
        Self(Stage::Refused(reason))
    }

    /// The call is gone already.
    pub(crate) fn forget(mut self) {
        self.0 = Stage::Over;
    }
}

impl<O, E> Unpin for Call<O, E> {}

impl<O, E> Future for Call<O, E> {
    type Output = Result<O, CallError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let outcome = match &mut this.0 {
            Stage::Over => panic!("`Call` polled after it was ready"),
            Stage::Refused(reason) => Err(CallError::Refused(*reason)),
            Stage::Waiting { desk, id, fresh } => {
                let polled = desk.poll(*id, *fresh, cx);
                *fresh = false;
                match polled {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => return Poll::Pending,
                }
            }
        };
        this.0 = Stage::Over;
        Poll::Ready(outcome)
    }
}

impl<O, E> Drop for Call<O, E> {
    fn drop(&mut self) {
        if let Stage::Waiting { desk, id, .. } = mem::replace(&mut self.0, Stage::Over) {
            desk.leave(id);
        }
    }
}

impl<O, E> fmt::Debug for Call<O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.0 {
            Stage::Over => "over",
            Stage::Refused(_) => "refused",
            Stage::Waiting { .. } => "waiting",
        };
        f.debug_tuple("Call").field(&format_args!("{stage}")).finish()
    }
}
