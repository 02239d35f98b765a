//! From a result to an outcome.

use swiftwater_core::Outcome;

/// Judges how a call went by what it returned.
///
/// Implemented by every `Fn(&R) -> Outcome` and by [`ByResult`].
///
/// # Laws
///
/// 1. Pure: the same result gets the same outcome, and nothing else happens.
/// 2. It does not panic. If it does, the panic passes on and the call counts as dropped.
///
/// # Examples
///
/// A closure states the type of its argument, since the compiler cannot guess it through the trait:
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use swiftwater_breaker::{Breaker, CallError};
/// use swiftwater_core::Outcome;
///
/// let breaker = Breaker::builder().build()?;
/// let judge = |result: &Result<String, Error>| match result {
///     Ok(_) => Outcome::Success,
///     Err(error) if error.kind() == ErrorKind::NotFound => Outcome::Ignored,
///     Err(_) => Outcome::Failure,
/// };
/// let missing = breaker.judged_by(judge).call_sync(|| Err(ErrorKind::NotFound.into()));
/// assert!(matches!(missing, Err(CallError::Inner(_))));
/// # Ok::<(), swiftwater_core::BuildError>(())
/// ```
pub trait Classify<R> {
    /// How did the call go that returned this?
    fn classify(&self, result: &R) -> Outcome;
}

impl<R, F: Fn(&R) -> Outcome> Classify<R> for F {
    #[inline]
    fn classify(&self, result: &R) -> Outcome {
        self(result)
    }
}

/// The default: `Ok` is [`Outcome::Success`], `Err` is [`Outcome::Failure`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ByResult;

impl<T, E> Classify<Result<T, E>> for ByResult {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }
}
