//! What can go wrong with a directory.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
};

use swiftwater_core::BuildError;

/// Why a [`Disk`](crate::Disk) could not be built, or did not do as it was asked. Inside of a
/// [`LayerError`](crate::LayerError) it is found by `downcast_ref`.
#[derive(Debug)]
#[non_exhaustive]
pub enum DiskError {
    /// An option cannot work.
    Build(BuildError),
    /// The layer is closed.
    Closed,
    /// A file has the name of one of ours and is not: choose another directory, or remove it.
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried with it.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another handle, here or in another process, has the directory open.
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The record of a value would not fit into a segment. What the key had is forgotten.
    TooLarge {
        /// The length of the value.
        len: usize,
        /// The longest record.
        limit: usize,
    },
}

impl DiskError {
    /// For `map_err`.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), operation, source }
    }

    /// The same, for one more who is waiting.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Build(error) => Self::Build(error.clone()),
            Self::Closed => Self::Closed,
            Self::Foreign { path } => Self::Foreign { path: path.clone() },
            Self::Io { path, operation, source } => {
                let code = source.raw_os_error();
                let source = code.map_or_else(|| source.kind().into(), io::Error::from_raw_os_error);
                Self::Io { path: path.clone(), operation, source }
            }
            Self::Locked { path } => Self::Locked { path: path.clone() },
            Self::TooLarge { len, limit } => Self::TooLarge { len: *len, limit: *limit },
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(error) => error.fmt(f),
            Self::Closed => f.write_str("the disk layer is closed"),
            Self::Foreign { path } => write!(f, "{} is not a file of this cache", path.display()),
            Self::Io { path, operation, .. } => write!(f, "cannot {operation} {}", path.display()),
            Self::Locked { path } => write!(f, "{} is in use by another handle or process", path.display()),
            Self::TooLarge { len, limit } => {
                write!(f, "a value of {len} bytes does not fit: a record has at most {limit}")
            }
        }
    }
}

impl Error for DiskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<BuildError> for DiskError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}
