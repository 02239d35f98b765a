//! Something in place of a refused call, labelled as such.

use swiftwater_core::Rejected;

use crate::call::CallError;

/// A value, and whether it is what was asked for or what stood in for it: so that nobody takes a last known price for the
/// price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it says whether the value is the real one"]
#[expect(clippy::exhaustive_enums, reason = "a value is the real one or it is not")]
pub enum Served<T> {
    /// From the fallback, since the call was refused.
    Degraded {
        /// What stands in.
        value: T,
        /// Why, and when asking again may help.
        rejected: Rejected,
    },
    /// From the call.
    Fresh(T),
}

impl<T> Served<T> {
    /// The value, whatever it is.
    #[must_use]
    pub fn into_inner(self) -> T {
        match self {
            Self::Degraded { value, .. } | Self::Fresh(value) => value,
        }
    }

    /// Whether it is from the fallback.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        matches!(self, Self::Degraded { .. })
    }
}

/// Fallbacks for what a call through a breaker returned.
pub trait OrFallback<T, E>: Sized {
    /// A labelled value in place of a refused call; the call's own error passes through.
    ///
    /// ```
    /// use swiftwater_breaker::{Breaker, OrFallback, Served};
    ///
    /// let breaker = Breaker::builder().build()?;
    /// breaker.force_open();
    /// let price = breaker.call_sync(|| "17".parse()).or_fallback(|_| 15);
    /// assert!(matches!(price, Ok(Served::Degraded { value: 15, .. })));
    ///
    /// breaker.reset();
    /// let price = breaker.call_sync(|| "17".parse()).or_fallback(|_| 15);
    /// assert_eq!(price, Ok(Served::Fresh(17)));
    /// # Ok::<(), swiftwater_core::BuildError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The call's own, if it was made.
    fn or_fallback(self, fallback: impl FnOnce(Rejected) -> T) -> Result<Served<T>, E>;
}

impl<T, E> OrFallback<T, E> for Result<T, CallError<E>> {
    fn or_fallback(self, fallback: impl FnOnce(Rejected) -> T) -> Result<Served<T>, E> {
        match self {
            Ok(value) => Ok(Served::Fresh(value)),
            Err(CallError::Inner(error)) => Err(error),
            Err(CallError::Rejected(rejected)) => {
                Ok(Served::Degraded { value: fallback(rejected), rejected })
            }
        }
    }
}
