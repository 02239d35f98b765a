//! The closure form: one call under one permit, whatever becomes of it.

use std::{error::Error, fmt, future::poll_fn, pin::pin};

use swiftwater_core::{Outcome, Rejected};

use crate::{
    breaker::{Breaker, Permit},
    classify::{ByResult, Classify},
};

impl Breaker {
    /// Makes a call if the breaker admits it; `Ok` counts as success, `Err` as failure, a panic as failure.
    ///
    /// Nothing happens before the first poll: only then is the breaker asked, and `f` called if it admits.
    ///
    /// # Errors
    ///
    /// [`CallError::Rejected`] if the breaker refused: `f` was not called. [`CallError::Inner`] with the call's own error.
    ///
    /// # Panics
    ///
    /// If `f` or its future does; the failure is on record first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the call's future and returns the permit; the call counts as dropped, neither as a
    /// success nor as a failure.
    pub async fn call<T, E, F, Fut>(&self, f: F) -> Result<T, CallError<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.call_with(ByResult, f).await
    }

    /// [`call`](Self::call), with a judge of its own: see [`Classify`].
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), whatever the judge says: it decides what is recorded, not what is returned.
    ///
    /// # Panics
    ///
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    ///
    /// As [`call`](Self::call).
    pub async fn call_with<C, T, E, F, Fut>(&self, classify: C, f: F) -> Result<T, CallError<E>>
    where
        C: Classify<Result<T, E>>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut watched = Watched::enter(self)?;
        let result = {
            let mut future = pin!(watched.run(f));
            poll_fn(|cx| watched.run(|| future.as_mut().poll(cx))).await
        };
        watched.finish(classify.classify(&result));
        result.map_err(CallError::Inner)
    }

    /// [`call`](Self::call) for code that does not wait, or that blocks.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    ///
    /// # Panics
    ///
    /// If `f` does; the failure is on record first.
    pub fn call_sync<T, E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<T, CallError<E>> {
        self.call_sync_with(ByResult, f)
    }

    /// [`call_sync`](Self::call_sync), with a judge of its own: see [`Classify`].
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), whatever the judge says: it decides what is recorded, not what is returned.
    ///
    /// # Panics
    ///
    /// If `f` does; the failure is on record first.
    pub fn call_sync_with<T, E>(
        &self,
        classify: impl Classify<Result<T, E>>,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        let mut watched = Watched::enter(self)?;
        let result = watched.run(f);
        watched.finish(classify.classify(&result));
        result.map_err(CallError::Inner)
    }
}

/// A call through a breaker brought no value: refused, or made and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The call was made; this is its own error.
    Inner(E),
    /// The call was not made.
    Rejected(Rejected),
}

impl<E> CallError<E> {
    /// A value in place of a refused call; the call's own error passes through.
    ///
    /// ```
    /// use swiftwater_breaker::Breaker;
    ///
    /// let breaker = Breaker::builder().build()?;
    /// breaker.force_open();
    /// let price = breaker
    ///     .call_sync(|| "17".parse())
    ///     .or_else(|error| error.or_fallback(|_rejected| 15));
    /// assert_eq!(price, Ok(15));
    /// # Ok::<(), swiftwater_core::BuildError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The call's own, if it was made.
    pub fn or_fallback<T>(self, fallback: impl FnOnce(Rejected) -> T) -> Result<T, E> {
        match self {
            Self::Inner(error) => Err(error),
            Self::Rejected(rejected) => Ok(fallback(rejected)),
        }
    }
}

impl<E> From<Rejected> for CallError<E> {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl<E> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inner(_) => "the call failed",
            Self::Rejected(_) => "the breaker refused the call",
        })
    }
}

impl<E: Error + 'static> Error for CallError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Rejected(rejected) => Some(rejected),
        }
    }
}

/// A permit that can tell a panic of the call from the call being dropped.
///
/// Asking whether the thread is panicking would not do: a future may well be dropped by somebody else's panic.
struct Watched<'a> {
    /// `None` once settled.
    permit: Option<Permit<'a>>,
    /// The caller's code is running. Still set in `drop` if, and only if, it unwound.
    inside: bool,
}

impl<'a> Watched<'a> {
    #[inline]
    fn enter(breaker: &'a Breaker) -> Result<Self, Rejected> {
        Ok(Self { permit: Some(breaker.try_acquire()?), inside: false })
    }

    #[inline]
    fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.inside = true;
        let result = f();
        self.inside = false;
        result
    }

    #[inline]
    fn finish(mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            permit.finish(outcome);
        }
    }
}

impl Drop for Watched<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.inside
            && let Some(permit) = self.permit.take()
        {
            permit.finish(Outcome::Failure);
        }
    }
}
