//! The closure form: one call under one permit, whatever becomes of it.

use std::{error::Error, fmt, future::poll_fn, mem, pin::pin};

use swiftwater_core::{Outcome, Rejected};

use crate::{
    breaker::{Breaker, Shared},
    classify::{ByResult, Classify},
};

/// A breaker with a judge of its calls: made by [`Breaker::judged_by`].
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a, C> {
    breaker: &'a Breaker,
    classify: C,
}

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
    pub fn call<T, E, F, Fut>(&self, f: F) -> impl Future<Output = Result<T, CallError<E>>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.judged_by(ByResult).call(f)
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
    #[inline(always)]
    pub fn call_sync<T, E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<T, CallError<E>> {
        self.judged_by(ByResult).call_sync(f)
    }

    /// [`call`](Self::call) with something that the call would use up: a refusal gives it back.
    ///
    /// ```
    /// use swiftwater_breaker::{Breaker, RequestError};
    ///
    /// # async fn send(request: Vec<u8>) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let breaker = Breaker::builder().build()?;
    /// breaker.force_open();
    /// match breaker.call_request(vec![1, 2, 3], send).await {
    ///     Err(RequestError::Rejected { request, rejected }) => {
    ///         assert_eq!(request, [1, 2, 3]); // spool it, or send it to another replica
    ///     }
    ///     sent => panic!("{sent:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// # let mut example = std::pin::pin!(example());
    /// # let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    /// # assert!(matches!(example.as_mut().poll(&mut cx), std::task::Poll::Ready(Ok(()))));
    /// ```
    ///
    /// # Errors
    ///
    /// [`RequestError::Rejected`] with the request if the breaker refused: `f` was not called. [`RequestError::Inner`] with
    /// the call's own error.
    ///
    /// # Panics
    ///
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    ///
    /// As [`call`](Self::call); the request is dropped with the future.
    pub fn call_request<R, T, E, F, Fut>(
        &self,
        request: R,
        f: F,
    ) -> impl Future<Output = Result<T, RequestError<E, R>>>
    where
        F: FnOnce(R) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.judged_by(ByResult).call_request(request, f)
    }

    /// The same breaker with a judge of how calls went: see [`Classify`].
    #[inline]
    pub fn judged_by<C>(&self, classify: C) -> Judged<'_, C> {
        Judged { breaker: self, classify }
    }
}

impl<C> Judged<'_, C> {
    /// As [`Breaker::call`], but what is recorded is what the judge says; what is returned is the call's own.
    ///
    /// # Errors
    ///
    /// As [`Breaker::call`].
    ///
    /// # Panics
    ///
    /// As [`Breaker::call`].
    ///
    /// # Cancel safety
    ///
    /// As [`Breaker::call`].
    pub async fn call<T, E, F, Fut>(self, f: F) -> Result<T, CallError<E>>
    where
        C: Classify<Result<T, E>>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut watched = Watched::new(self.breaker)?;
        let result = {
            let mut future = pin!(watched.inside(f));
            poll_fn(|cx| watched.inside(|| future.as_mut().poll(cx))).await
        };
        watched.finish(self.classify.classify(&result));
        result.map_err(CallError::Inner)
    }

    /// As [`Breaker::call_sync`], but what is recorded is what the judge says; what is returned is the call's own.
    ///
    /// # Errors
    ///
    /// As [`Breaker::call`].
    ///
    /// # Panics
    ///
    /// If `f` does; the failure is on record first.
    #[inline(always)]
    pub fn call_sync<T, E>(self, f: impl FnOnce() -> Result<T, E>) -> Result<T, CallError<E>>
    where
        C: Classify<Result<T, E>>,
    {
        let breaker = self.breaker.shared();
        match breaker.begin_at_once() {
            Some(bits) => Watched::under(breaker, bits).run_sync(self.classify, f).map_err(CallError::Inner),
            None => match self.refuse_at_once() {
                Some(rejected) => Err(CallError::Rejected(rejected)),
                None => self.call_sync_otherwise(f),
            },
        }
    }

    /// Here, where it is compiled with the caller: that knows where its thread-locals are, and a library has to ask.
    #[inline(never)]
    fn refuse_at_once(&self) -> Option<Rejected> {
        self.breaker.shared().refuse_at_once()
    }

    /// Apart, so that what is inlined into callers has nothing to save for it.
    #[inline(never)]
    fn call_sync_otherwise<T, E>(self, f: impl FnOnce() -> Result<T, E>) -> Result<T, CallError<E>>
    where
        C: Classify<Result<T, E>>,
    {
        let breaker = self.breaker.shared();
        let bits = breaker.begin_otherwise()?;
        Watched::under(breaker, bits).run_sync(self.classify, f).map_err(CallError::Inner)
    }

    /// As [`Breaker::call_request`], but what is recorded is what the judge says; what is returned is the call's own.
    ///
    /// # Errors
    ///
    /// As [`Breaker::call_request`].
    ///
    /// # Panics
    ///
    /// As [`Breaker::call`].
    ///
    /// # Cancel safety
    ///
    /// As [`Breaker::call_request`].
    pub async fn call_request<R, T, E, F, Fut>(self, request: R, f: F) -> Result<T, RequestError<E, R>>
    where
        C: Classify<Result<T, E>>,
        F: FnOnce(R) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut watched = match Watched::new(self.breaker) {
            Err(rejected) => return Err(RequestError::Rejected { request, rejected }),
            Ok(watched) => watched,
        };
        let result = {
            let mut future = pin!(watched.inside(|| f(request)));
            poll_fn(|cx| watched.inside(|| future.as_mut().poll(cx))).await
        };
        watched.finish(self.classify.classify(&result));
        result.map_err(RequestError::Inner)
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

impl<E> From<Rejected> for CallError<E> {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl<E> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inner(_) => FAILED,
            Self::Rejected(_) => REFUSED,
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

/// A call with a request brought no value: refused, with the request back, or made and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError<E, R> {
    /// The call was made; this is its own error.
    Inner(E),
    /// The call was not made.
    Rejected {
        /// What the call would have used up.
        request: R,
        /// Why, and when asking again may help.
        rejected: Rejected,
    },
}

/// Lets go of the request.
impl<E, R> From<RequestError<E, R>> for CallError<E> {
    fn from(error: RequestError<E, R>) -> Self {
        match error {
            RequestError::Inner(error) => Self::Inner(error),
            RequestError::Rejected { rejected, .. } => Self::Rejected(rejected),
        }
    }
}

impl<E, R> fmt::Display for RequestError<E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inner(_) => FAILED,
            Self::Rejected { .. } => REFUSED,
        })
    }
}

impl<E: Error + 'static, R: fmt::Debug> Error for RequestError<E, R> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Rejected { rejected, .. } => Some(rejected),
        }
    }
}

const FAILED: &str = "the call failed";
const REFUSED: &str = "the breaker refused the call";

/// A permit that can tell a panic of the call from the call being dropped.
///
/// Asking whether the thread is panicking would not do: a future may well be dropped by somebody else's panic.
///
/// Not a [`Permit`](crate::Permit): what is moved about in pieces costs more than the breaker does.
struct Watched<'a> {
    breaker: &'a Shared,
    bits: u64,
    /// The caller's code is running. Still set in `drop` if, and only if, it unwound.
    inside: bool,
}

impl<'a> Watched<'a> {
    #[inline(always)]
    fn new(breaker: &'a Breaker) -> Result<Self, Rejected> {
        let breaker = breaker.shared();
        Ok(Self::under(breaker, breaker.begin()?))
    }

    #[inline(always)]
    fn under(breaker: &'a Shared, bits: u64) -> Self {
        Self { breaker, bits, inside: false }
    }

    #[inline(always)]
    fn inside<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.inside = true;
        let result = f();
        self.inside = false;
        result
    }

    #[inline(always)]
    fn run_sync<T, E>(
        mut self,
        classify: impl Classify<Result<T, E>>,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let result = self.inside(f);
        self.finish(classify.classify(&result));
        result
    }

    #[inline(always)]
    fn finish(self, outcome: Outcome) {
        let (breaker, bits) = (self.breaker, self.bits);
        mem::forget(self);
        breaker.end(bits, Some(outcome));
    }
}

impl Drop for Watched<'_> {
    #[cold]
    fn drop(&mut self) {
        self.breaker.end(self.bits, self.inside.then_some(Outcome::Failure));
    }
}
