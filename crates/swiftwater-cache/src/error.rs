//! What can go wrong in a load.

use std::{error::Error, fmt, sync::Arc};

/// Any error, cheap to clone, made by `?` from whatever a loader meets: the error type of a region that names no other.
///
/// It does not implement [`Error`] itself, which is what lets every error convert into it; [`AsError`] leads back.
#[derive(Clone)]
pub struct AnyError(Arc<dyn Error + Send + Sync>);

impl AnyError {
    /// The error as it was, if it is of type `E`.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for AnyError {
    fn from(error: E) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Debug for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a region's error type must offer. Implemented for every [`Error`] and for [`AnyError`].
pub trait AsError: fmt::Debug + Send + Sync + 'static {
    /// The error as a link of a chain of sources.
    fn as_error(&self) -> &(dyn Error + 'static);
}

impl<E: Error + Send + Sync + 'static> AsError for E {
    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl AsError for AnyError {
    fn as_error(&self) -> &(dyn Error + 'static) {
        &*self.0
    }
}

/// Why a load gave no value. Every caller who waited for the load gets the same one.
#[non_exhaustive]
pub enum LoadError<E> {
    /// The load's task was dropped before it ended: its runtime shut down.
    Aborted,
    /// A load of [several keys](crate::Region::get_or_load_many) gave no value for this one; or the region's
    /// [`Source`](crate::Source) has none, see [`fetch`](crate::Region::fetch).
    Absent,
    /// As many loads as [`max_loads`](crate::RegionBuilder::max_loads) allows are running, and this one was not to wait.
    Busy,
    /// The loader asked, directly or through other loaders, for the very entry that it is loading. Whatever it makes of this
    /// error is returned to those who wait and not stored.
    ///
    /// A loader waits for every load that it has begun to ask for and neither finished nor dropped, also one that it has
    /// put aside, as with `select!` on a reference.
    Cycle,
    /// The loader returned this error.
    Loader(Arc<E>),
    /// The load has to wait, and was not called from within a tokio runtime that it could go on in; or it has a
    /// time-out, and the runtime has no timers.
    NoRuntime,
    /// The region was built without the [`source`](crate::RegionBuilder::source) that was to be asked.
    NoSource,
    /// The loader panicked.
    Panicked,
    /// The load took longer than [`load_timeout`](crate::RegionBuilder::load_timeout) allows, and was dropped.
    TimedOut,
    /// A write of the key is pending [behind](crate::Behind), was tried, and has failed: the source would have answered from
    /// the past.
    Unwritten,
}

impl<E> LoadError<E> {
    /// The loader's own error, if it is one.
    #[must_use]
    pub fn loader(&self) -> Option<&E> {
        match self {
            Self::Loader(error) => Some(error),
            _ => None,
        }
    }
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Aborted => Self::Aborted,
            Self::Absent => Self::Absent,
            Self::Busy => Self::Busy,
            Self::Cycle => Self::Cycle,
            Self::Loader(error) => Self::Loader(error.clone()),
            Self::NoRuntime => Self::NoRuntime,
            Self::NoSource => Self::NoSource,
            Self::Panicked => Self::Panicked,
            Self::TimedOut => Self::TimedOut,
            Self::Unwritten => Self::Unwritten,
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted => f.write_str("Aborted"),
            Self::Absent => f.write_str("Absent"),
            Self::Busy => f.write_str("Busy"),
            Self::Cycle => f.write_str("Cycle"),
            Self::Loader(error) => f.debug_tuple("Loader").field(error).finish(),
            Self::NoRuntime => f.write_str("NoRuntime"),
            Self::NoSource => f.write_str("NoSource"),
            Self::Panicked => f.write_str("Panicked"),
            Self::TimedOut => f.write_str("TimedOut"),
            Self::Unwritten => f.write_str("Unwritten"),
        }
    }
}

impl<E> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aborted => "the load was aborted, its runtime shut down",
            Self::Absent => "the load had no value for the key",
            Self::Busy => "too many loads of the region are running",
            Self::Cycle => "the loader waits for the entry that it is loading",
            Self::Loader(_) => "the loader failed",
            Self::NoRuntime => "the load has to wait, but there is no tokio runtime here",
            Self::NoSource => "the region has no source to load from",
            Self::Panicked => "the loader panicked",
            Self::TimedOut => "the loader took too long",
            Self::Unwritten => "a write of the key has not arrived at the source",
        })
    }
}

impl<E: AsError> Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.loader().map(AsError::as_error)
    }
}
