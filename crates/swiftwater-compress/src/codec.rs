//! The codings, each as two machines that know no I/O: one takes blocks and gives bytes, one takes bytes and gives bytes.
//!
//! The framing is ours (gzip members, zstd and lz4 frames), so that every end is seen as what it is: a stream that is
//! over, one that was cut, one that is followed by something else.

#[cfg(feature = "brotli")]
mod brotli;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "zstd")]
mod zstd;

use crate::{
    coding::Coding,
    error::{Error, Limit},
    limits::Limits,
    setting::Setting,
};

/// What becomes of a block after it was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// More follows; the output may be kept back.
    Continue,
    /// It was the last; the stream is complete.
    Finish,
    /// Everything so far must be decodable.
    Flush,
}

/// Takes whole blocks. After `Finish` it is not called again, after an error neither.
pub(crate) trait Encode: Send {
    /// Appends to `out`. The input is empty only with `Flush` or `Finish`.
    fn encode(&mut self, block: &[u8], op: Op, out: &mut Vec<u8>) -> Result<(), &'static str>;
}

/// What is known of the length of what will be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Exactly(u64),
    /// Somebody says so; it may be wrong.
    Hint(u64),
    Unknown,
}

/// The machine for a setting that was checked, and the size of its blocks.
pub(crate) fn encoder(setting: Setting, size: Size) -> Result<(Box<dyn Encode>, usize), Error> {
    let _ = size; // for builds without the codings that ask
    match setting.coding() {
        #[cfg(feature = "brotli")]
        Coding::Brotli => Ok((Box::new(brotli::Encoder::new(setting.level(), size)), brotli::BLOCK)),
        #[cfg(feature = "gzip")]
        Coding::Gzip => Ok((Box::new(gzip::Encoder::new(setting.level())), gzip::BLOCK)),
        #[cfg(feature = "lz4")]
        Coding::Lz4 => Ok((Box::new(lz4::Encoder::new()), lz4::BLOCK)),
        #[cfg(feature = "zstd")]
        Coding::Zstd => match zstd::Encoder::new(setting.level(), size) {
            Ok(encoder) => Ok((Box::new(encoder), zstd::BLOCK)),
            Err(what) => Err(Error::Codec { coding: Coding::Zstd, what }),
        },
        coding => Err(Error::unsupported(coding.token().as_bytes())),
    }
}

/// Takes bytes as they come.
pub(crate) trait Decode: Send {
    /// One piece of work. `out` is never empty; `input` may be, and then what is left inside comes out. It reports what
    /// it did even where it failed. Doing nothing means that it waits for input.
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> (Did, Result<(), Fault>);

    /// Whether the input may end here.
    fn is_complete(&self) -> bool;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Did {
    pub(crate) consumed: usize,
    pub(crate) produced: usize,
}

/// An [`Error`] without the place, which the machine does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "zstd"), expect(dead_code, reason = "only zstd has them all"))]
pub(crate) enum Fault {
    Checksum,
    Codec(&'static str),
    Corrupt,
    DictionaryRequired(u32),
    LimitExceeded(Limit, u64),
    TrailingData,
}

pub(crate) fn decoder(coding: Coding, limits: &Limits) -> Result<Box<dyn Decode>, Error> {
    let _ = limits; // for builds without the codings that ask
    match coding {
        #[cfg(feature = "brotli")]
        Coding::Brotli => Ok(Box::new(brotli::Decoder::new(limits))),
        #[cfg(feature = "gzip")]
        Coding::Gzip => Ok(Box::new(gzip::Decoder::new(limits))),
        Coding::Identity => Ok(Box::new(Identity)),
        #[cfg(feature = "lz4")]
        Coding::Lz4 => Ok(Box::new(lz4::Decoder::new(limits))),
        #[cfg(feature = "zstd")]
        Coding::Zstd => match zstd::Decoder::new(limits) {
            Ok(decoder) => Ok(Box::new(decoder)),
            Err(what) => Err(Error::Codec { coding, what }),
        },
        #[cfg(not(all(feature = "brotli", feature = "gzip", feature = "lz4", feature = "zstd")))]
        _ => Err(Error::unsupported(coding.token().as_bytes())),
    }
}

struct Identity;

impl Decode for Identity {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> (Did, Result<(), Fault>) {
        let n = input.len().min(out.len());
        out[..n].copy_from_slice(&input[..n]);
        (Did { consumed: n, produced: n }, Ok(()))
    }

    fn is_complete(&self) -> bool {
        true
    }
}

/// Counts members or frames against their limit.
#[cfg(any(feature = "gzip", feature = "lz4", feature = "zstd"))]
#[derive(Debug)]
struct Members {
    seen: u64,
    limit: u64,
}

#[cfg(any(feature = "gzip", feature = "lz4", feature = "zstd"))]
impl Members {
    fn new(limits: &Limits) -> Self {
        Self { seen: 0, limit: limits.members }
    }

    /// What a bad magic number means here.
    fn no_magic(&self) -> Fault {
        if self.seen == 0 { Fault::Corrupt } else { Fault::TrailingData }
    }

    fn begin(&mut self) -> Result<(), Fault> {
        if self.seen == self.limit {
            return Err(Fault::LimitExceeded(Limit::Members, self.limit));
        }
        self.seen += 1;
        Ok(())
    }
}

/// Collects the few bytes of a header that may come in pieces.
#[cfg(any(feature = "gzip", feature = "lz4", feature = "zstd"))]
#[derive(Clone, Copy, Debug, Default)]
struct Gather {
    bytes: [u8; 20],
    len: usize,
}

#[cfg(any(feature = "gzip", feature = "lz4", feature = "zstd"))]
impl Gather {
    /// Takes from the input until there are `upto` bytes; how many it took.
    fn fill(&mut self, input: &[u8], upto: usize) -> usize {
        let n = input.len().min(upto.saturating_sub(self.len));
        self.bytes[self.len..self.len + n].copy_from_slice(&input[..n]);
        self.len += n;
        n
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[cfg(any(feature = "lz4", feature = "zstd"))]
    fn u32_at(&self, at: usize) -> u32 {
        u32_le(&self.bytes[at..])
    }
}

/// The first four bytes, little-endian; missing ones are zero.
#[cfg(any(feature = "gzip", feature = "lz4", feature = "zstd"))]
fn u32_le(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// What begins with the bytes that are there, as far as they go; `None` if nothing does. So what follows a frame is not
/// taken for a frame that was cut.
#[cfg(any(feature = "lz4", feature = "zstd"))]
fn kind_of(seen: &[u8], magic: u32) -> Option<Kind> {
    let begins = |magic: u32, mask: u8| {
        let mut bytes = seen.iter().zip(magic.to_le_bytes()).enumerate();
        bytes.all(|(at, (&byte, magic))| if at == 0 { byte & mask == magic } else { byte == magic })
    };
    if begins(magic, 0xff) { Some(Kind::Frame) } else { begins(SKIPPABLE, 0xf0).then_some(Kind::Skippable) }
}

#[cfg(any(feature = "lz4", feature = "zstd"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Frame,
    /// 16 magic numbers that zstd and lz4 share, a length, and that many bytes of no meaning here.
    Skippable,
}

/// Counts the bytes of skippable frames against their limit.
#[cfg(any(feature = "lz4", feature = "zstd"))]
#[derive(Debug)]
struct Skipped {
    bytes: u64,
    limit: u64,
}

#[cfg(any(feature = "lz4", feature = "zstd"))]
impl Skipped {
    fn new(limits: &Limits) -> Self {
        Self { bytes: 0, limit: limits.skipped_bytes }
    }

    /// Judges a frame by its header, before its bytes are read; how many there are.
    fn begin(&mut self, length: u32) -> Result<u64, Fault> {
        self.bytes = self.bytes.saturating_add(8 + u64::from(length));
        if self.bytes > self.limit {
            return Err(Fault::LimitExceeded(Limit::SkippedBytes, self.limit));
        }
        Ok(length.into())
    }
}

#[cfg(any(feature = "lz4", feature = "zstd"))]
const SKIPPABLE: u32 = 0x184D_2A50;
