//! Why a server is not there.

use std::{error, fmt, io, time::Duration};

/// A server could not be started or signalled.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A program ended before the server answered.
    Exited {
        /// The program.
        program: &'static str,
        /// The end of what it wrote.
        output: String,
    },
    /// The operating system refused something.
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program is not installed.
    Missing {
        /// The program.
        program: &'static str,
        /// How to get it.
        how: &'static str,
    },
    /// The server runs and does not answer.
    Silent {
        /// The program.
        program: &'static str,
        /// How long it was waited for.
        waited: Duration,
        /// The end of what it wrote.
        output: String,
    },
}

impl Error {
    /// For `map_err`: names what was tried.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { program, output } => write!(f, "{program} ended before it answered:\n{output}"),
            Self::Io { what, .. } => write!(f, "cannot {what}"),
            Self::Missing { program, how } => write!(f, "{program} is not installed: {how}"),
            Self::Silent { program, waited, output } => {
                write!(f, "{program} did not answer within {waited:?}:\n{output}")
            }
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
