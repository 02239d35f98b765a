//! Changes of the source that are declared however they end.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use crate::{cache::Cache, change::Change};

/// A change under way. Made by [`Cache::writing`].
#[must_use = "nothing is written until it is awaited"]
pub struct Writing<F> {
    /// Boxed, so that it may be dropped before the invalidation is made. `None` once it has ended.
    write: Option<Pin<Box<F>>>,
    /// Empty once they have been made.
    changes: Vec<Change>,
    cache: Cache,
}

impl<F> Writing<F> {
    pub(crate) fn new(cache: Cache, changes: Vec<Change>, write: F) -> Self {
        Self { write: Some(Box::pin(write)), changes, cache }
    }

    fn end(&mut self) {
        // The write may do its last in its destructor, which may panic as well.
        let write = self.write.take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(write)));
        for change in self.changes.drain(..) {
            self.cache.shared().invalidate(change);
        }
        if let Err(panic) = dropped
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl<F: Future> Future for Writing<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let write = self.write.as_mut().expect("it is not polled after it has ended");
        let output = std::task::ready!(write.as_mut().poll(cx));
        self.end();
        Poll::Ready(output)
    }
}

impl<F> Drop for Writing<F> {
    fn drop(&mut self) {
        if self.write.is_some() {
            self.end();
        }
    }
}

impl<F> std::fmt::Debug for Writing<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writing").field("changes", &self.changes).finish_non_exhaustive()
    }
}
