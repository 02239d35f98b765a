//! What can go wrong with a stream.

use std::{error, fmt, io};

use crate::coding::Coding;

/// Why a body could not be decoded, or could not be encoded.
///
/// [`Read`](io::Read) and [`Write`](io::Write) speak `io::Error`; [`Error::of`] finds this one inside.
///
/// | Variant | `io::ErrorKind` |
/// |---|---|
/// | [`Checksum`](Self::Checksum), [`Corrupt`](Self::Corrupt), [`TrailingData`](Self::TrailingData) | `InvalidData` |
/// | [`LimitExceeded`](Self::LimitExceeded) | `QuotaExceeded` |
/// | [`Truncated`](Self::Truncated) | `UnexpectedEof` |
/// | [`DictionaryRequired`](Self::DictionaryRequired), [`UnsupportedCoding`](Self::UnsupportedCoding) | `Unsupported` |
/// | [`Codec`](Self::Codec) | `Other` |
///
/// Offsets count encoded bytes from the start of the body, as the coding that failed has seen them; they say about where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The bytes decode, but a checksum of the format says that they are not what was encoded.
    #[non_exhaustive]
    Checksum {
        /// Which coding.
        coding: Coding,
        /// Where.
        offset: u64,
    },
    /// The codec itself failed: no memory, or a promise of its own broken. The body may be fine.
    #[non_exhaustive]
    Codec {
        /// Which coding.
        coding: Coding,
        /// In a few words.
        what: &'static str,
    },
    /// Not a stream of this coding.
    #[non_exhaustive]
    Corrupt {
        /// Which coding.
        coding: Coding,
        /// Where.
        offset: u64,
    },
    /// Decodes only with a dictionary, and there is none.
    #[non_exhaustive]
    DictionaryRequired {
        /// Which coding.
        coding: Coding,
        /// The dictionary's number.
        id: u32,
    },
    /// The body would go beyond one of the [`Limits`](crate::Limits).
    #[non_exhaustive]
    LimitExceeded {
        /// Which one.
        which: Limit,
        /// Where it stands.
        limit: u64,
    },
    /// The stream is over, and more bytes follow.
    #[non_exhaustive]
    TrailingData {
        /// Which coding.
        coding: Coding,
        /// Where they begin.
        offset: u64,
    },
    /// The input ended before the stream did. No input at all is truncated, too, for every coding but identity.
    #[non_exhaustive]
    Truncated {
        /// Which coding.
        coding: Coding,
        /// How much there was.
        offset: u64,
    },
    /// A coding that this build or this [`Decompressor`](crate::Decompressor) does not know.
    #[non_exhaustive]
    UnsupportedCoding {
        /// What was asked for, cut to 32 bytes.
        token: Box<str>,
    },
}

impl Error {
    /// The error inside an `io::Error` that came out of a reader or a writer of this crate; `None` if it is the inner
    /// reader's or writer's own.
    ///
    /// ```
    /// use std::io::Read;
    /// use swiftwater_compress::{Coding, Decompressor, Error};
    ///
    /// # #[cfg(feature = "gzip")] {
    /// let mut reader = Decompressor::builder().build()?.reader(&b"\x1f\x8b\x08"[..], Coding::Gzip)?;
    /// let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    /// assert!(matches!(Error::of(&error), Some(Error::Truncated { coding: Coding::Gzip, .. })));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    pub(crate) fn unsupported(token: &[u8]) -> Self {
        let token = &token[..token.len().min(TOKEN_SHOWN)];
        Self::UnsupportedCoding { token: String::from_utf8_lossy(token).into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum { coding, offset } => {
                write!(f, "the {coding} stream does not match its checksum, at byte {offset}")
            }
            Self::Codec { coding, what } => write!(f, "the {coding} codec failed: {what}"),
            Self::Corrupt { coding, offset } => {
                write!(f, "the {coding} stream is not valid, at byte {offset}")
            }
            Self::DictionaryRequired { coding, id } => {
                write!(f, "the {coding} stream needs the dictionary {id}")
            }
            Self::LimitExceeded { which, limit } => write!(f, "more than {limit} {which}"),
            Self::TrailingData { coding, offset } => {
                write!(f, "the {coding} stream ends at byte {offset}, and more follows")
            }
            Self::Truncated { coding, offset } => {
                write!(f, "the {coding} stream was cut off after {offset} bytes")
            }
            Self::UnsupportedCoding { token } => write!(f, "the coding {token:?} is not supported"),
        }
    }
}

impl error::Error for Error {}

/// With the kinds of the [table](Error), and the error itself inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Checksum { .. } | Error::Corrupt { .. } | Error::TrailingData { .. } => {
                io::ErrorKind::InvalidData
            }
            Error::LimitExceeded { .. } => io::ErrorKind::QuotaExceeded,
            Error::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            Error::DictionaryRequired { .. } | Error::UnsupportedCoding { .. } => io::ErrorKind::Unsupported,
            Error::Codec { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// One of the [`Limits`](crate::Limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// [`codings`](crate::Limits::codings).
    Codings,
    /// [`decoded_bytes`](crate::Limits::decoded_bytes).
    DecodedBytes,
    /// [`encoded_bytes`](crate::Limits::encoded_bytes).
    EncodedBytes,
    /// [`header_bytes`](crate::Limits::header_bytes).
    HeaderBytes,
    /// [`members`](crate::Limits::members).
    Members,
    /// [`ratio`](crate::Limits::ratio).
    Ratio,
    /// [`skipped_bytes`](crate::Limits::skipped_bytes).
    SkippedBytes,
    /// [`window`](crate::Limits::window).
    Window,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Codings => "codings on top of one another",
            Self::DecodedBytes => "decoded bytes",
            Self::EncodedBytes => "encoded bytes",
            Self::HeaderBytes => "bytes of header fields",
            Self::Members => "members or frames",
            Self::Ratio => "decoded bytes for each encoded one",
            Self::SkippedBytes => "bytes in skippable frames",
            Self::Window => "bytes of window",
        })
    }
}

const TOKEN_SHOWN: usize = 32;
