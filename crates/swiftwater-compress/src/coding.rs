//! The codings by name.

use std::{fmt, str::FromStr};

use crate::error::Error;

/// A way to write bytes down. All of them can be named in every build; [`is_available`](Self::is_available) tells which
/// ones this build can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Coding {
    /// `br`, RFC 7932. It carries no checksum: a flipped bit may decode to other bytes unnoticed.
    Brotli,
    /// `gzip` (and `x-gzip`), RFC 1952, with CRC-32 and length.
    Gzip,
    /// The bytes themselves.
    Identity,
    /// `lz4`: LZ4 frames with checksums. Not registered for HTTP and known to no browser, so only between peers that
    /// agreed on it by name.
    Lz4,
    /// `zstd`, RFC 8878 and RFC 9659, with a checksum.
    Zstd,
}

impl Coding {
    /// All of them, in alphabetical order.
    pub const ALL: [Self; 5] = [Self::Brotli, Self::Gzip, Self::Identity, Self::Lz4, Self::Zstd];

    /// The token of `Content-Encoding` and `Accept-Encoding`.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Whether the feature of this coding is on in this build. [`Identity`](Self::Identity) always is.
    #[must_use]
    pub const fn is_available(self) -> bool {
        match self {
            Self::Brotli => cfg!(feature = "brotli"),
            Self::Gzip => cfg!(feature = "gzip"),
            Self::Identity => true,
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    pub(crate) fn from_token(token: &[u8]) -> Option<Self> {
        if token.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip); // RFC 9110 8.4.1.3: equivalent to "gzip"
        }
        Self::ALL.into_iter().find(|coding| token.eq_ignore_ascii_case(coding.token().as_bytes()))
    }
}

/// The [`token`](Coding::token).
impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.token())
    }
}

/// From a token, in any case; `x-gzip` is gzip.
impl FromStr for Coding {
    type Err = Error;

    fn from_str(token: &str) -> Result<Self, Error> {
        Self::from_token(token.as_bytes()).ok_or_else(|| Error::unsupported(token.as_bytes()))
    }
}

/// What a body went through, in the order in which it was applied: the value of a `Content-Encoding` field.
///
/// ```
/// use swiftwater_compress::{Coding, Codings};
///
/// let codings = Codings::parse(["gzip, br"])?;
/// assert_eq!(codings.as_slice(), [Coding::Gzip, Coding::Brotli]); // brotli is decoded first
/// assert!(Codings::parse(["identity"])?.as_slice().is_empty());
/// assert!(Codings::parse(["rot13"]).is_err());
/// # Ok::<(), swiftwater_compress::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codings(Vec<Coding>);

impl Codings {
    /// Reads the values of all `Content-Encoding` fields of a message, in their order; no value means no coding.
    /// `identity`, which should not be there, is left out.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedCoding`] for the first token that is none of ours; HTTP answers 415 then.
    pub fn parse<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Result<Self, Error> {
        let mut codings = Vec::new();
        for value in values {
            for token in value.as_ref().split(|&byte| byte == b',') {
                let token = token.trim_ascii();
                if token.is_empty() {
                    continue; // RFC 9110 5.6.1: empty elements do not count
                }
                let coding = Coding::from_token(token).ok_or_else(|| Error::unsupported(token))?;
                codings.push(coding);
            }
        }
        Ok(codings.into_iter().collect())
    }

    /// In the order in which they were applied.
    #[must_use]
    pub fn as_slice(&self) -> &[Coding] {
        &self.0
    }
}

impl From<Coding> for Codings {
    fn from(coding: Coding) -> Self {
        [coding].into_iter().collect()
    }
}

impl FromIterator<Coding> for Codings {
    fn from_iter<I: IntoIterator<Item = Coding>>(codings: I) -> Self {
        Self(codings.into_iter().filter(|&coding| coding != Coding::Identity).collect())
    }
}
