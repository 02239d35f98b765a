//! How far a decoder goes.

use swiftwater_core::BuildError;

/// What a body may cost to decode. Every axis stands alone, all are on by default, and each is checked before it is
/// crossed: a reader delivers exactly the bytes up to the limit, then fails. (A stream that is damaged besides may fail for
/// that instead, and sooner: brotli and zstd look ahead.)
///
/// With stacked codings every coding is held to all of them.
///
/// ```
/// use swiftwater_compress::Limits;
///
/// let upload = Limits::new().decoded_bytes(1 << 20).ratio(50);
/// let own_archive = Limits::new().encoded_bytes(None).decoded_bytes(None).ratio(None);
/// # let _ = (upload, own_archive);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Limits {
    pub(crate) burst: u64,
    pub(crate) codings: usize,
    pub(crate) decoded_bytes: u64,
    pub(crate) encoded_bytes: u64,
    pub(crate) header_bytes: u64,
    pub(crate) members: u64,
    pub(crate) ratio: u64,
    pub(crate) skipped_bytes: u64,
    pub(crate) window: Option<u64>,
}

impl Limits {
    /// The defaults, fit for bodies from strangers.
    pub const fn new() -> Self {
        Self {
            burst: DEFAULT_BURST,
            codings: DEFAULT_CODINGS,
            decoded_bytes: DEFAULT_DECODED_BYTES,
            encoded_bytes: DEFAULT_ENCODED_BYTES,
            header_bytes: DEFAULT_HEADER_BYTES,
            members: DEFAULT_MEMBERS,
            ratio: DEFAULT_RATIO,
            skipped_bytes: DEFAULT_SKIPPED_BYTES,
            window: None,
        }
    }

    /// Decoded bytes that the [`ratio`](Self::ratio) is not asked about. Default 1 MiB.
    ///
    /// Short runs of zeros are harmless and compress without bound; more lets larger bombs through, less refuses them.
    pub const fn burst(mut self, bytes: u64) -> Self {
        self.burst = bytes;
        self
    }

    /// Codings on top of one another (`gzip, br` are two). Default 2; at least 1.
    pub const fn codings(mut self, codings: usize) -> Self {
        self.codings = codings;
        self
    }

    /// Decoded bytes of a body. Default 64 MiB; `None` for no bound.
    pub fn decoded_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.decoded_bytes = bytes.into().unwrap_or(u64::MAX);
        self
    }

    /// Encoded bytes of a body. Default 64 MiB; `None` for no bound.
    ///
    /// This bounds the time as well, and nothing else does: blocks that announce large tables and hold next to nothing take
    /// far longer for each byte than honest ones, brotli's most of all. Where strangers send to a busy server, set it to
    /// what an honest body needs.
    pub fn encoded_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.encoded_bytes = bytes.into().unwrap_or(u64::MAX);
        self
    }

    /// Bytes of the optional header fields (extra, name, comment) of one gzip member. Default 8 KiB; `None` for no bound.
    pub fn header_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.header_bytes = bytes.into().unwrap_or(u64::MAX);
        self
    }

    /// Gzip members, or zstd or lz4 frames (skippable ones included), in a body. Default 1024; `None` for no bound.
    pub fn members(mut self, members: impl Into<Option<u64>>) -> Self {
        self.members = members.into().unwrap_or(u64::MAX);
        self
    }

    /// Decoded bytes for each encoded byte read so far, beyond the [`burst`](Self::burst). Default 200; `None` for no
    /// bound.
    ///
    /// Deflate cannot go beyond 1032, lz4 not beyond 255; the others have no such end.
    pub fn ratio(mut self, ratio: impl Into<Option<u64>>) -> Self {
        self.ratio = ratio.into().unwrap_or(u64::MAX);
        self
    }

    /// Bytes in skippable zstd and lz4 frames of a body: they cost input and give nothing. Default 1 MiB; `None` for no
    /// bound.
    pub fn skipped_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.skipped_bytes = bytes.into().unwrap_or(u64::MAX);
        self
    }

    /// The largest window or block that a stream may make the decoder allocate, in bytes: what it holds is this much and
    /// a fixed part besides. Default `None`: 8 MiB for zstd, which RFC 9659 demands of every HTTP decoder, 16 MiB for
    /// brotli and 4 MiB for lz4, the most their formats have (large-window brotli is always refused); gzip has 32 KiB.
    pub fn window(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.window = bytes.into();
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let positive = |option, value| match value {
            0 => Err(BuildError::new(option, 0, "must be at least 1")),
            _ => Ok(()),
        };
        positive("codings", self.codings as u64)?;
        positive("members", self.members)?;
        positive("ratio", self.ratio)?;
        match self.window {
            Some(bytes) if bytes < SMALLEST_WINDOW => {
                Err(BuildError::new("window", bytes, "must be at least 1024 bytes"))
            }
            _ => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

const DEFAULT_BURST: u64 = 1 << 20;
const DEFAULT_CODINGS: usize = 2;
const DEFAULT_DECODED_BYTES: u64 = 64 << 20;
const DEFAULT_ENCODED_BYTES: u64 = 64 << 20;
const DEFAULT_HEADER_BYTES: u64 = 8 << 10;
/// More are rather an attack than a log that was appended to.
const DEFAULT_MEMBERS: u64 = 1024;
const DEFAULT_RATIO: u64 = 200;
const DEFAULT_SKIPPED_BYTES: u64 = 1 << 20;
/// The smallest that zstd and brotli have.
const SMALLEST_WINDOW: u64 = 1024;
