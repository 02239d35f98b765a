//! Compression streams for services: gzip, zstd, brotli and lz4 behind one policy that listens to the client, and decoders
//! that take bytes from strangers.
//!
//! ```
//! use std::io::Write;
//! use swiftwater_compress::{Accepted, Coding, Compressor, Decompressor, Error, Hints};
//!
//! # #[cfg(feature = "brotli")] {
//! let compressor = Compressor::builder().build()?; // by the classic table: see `Rules`
//! let accepted = Accepted::parse(["gzip;q=0.8, br, zstd"]); // the request's Accept-Encoding
//! let catalogue = r#"{"id":17,"price":4200}"#.repeat(5000);
//! let hints = Hints::new().accepted(&accepted).content_type("application/json").size(110_000);
//!
//! let mut writer = compressor.writer(Vec::new(), &hints)?;
//! assert_eq!(writer.coding(), Coding::Brotli); // the answer's Content-Encoding
//! writer.write_all(catalogue.as_bytes())?;
//! let body = writer.finish()?;
//! assert!(body.len() * 10 < catalogue.len());
//!
//! let decompressor = Decompressor::builder().build()?; // limits on every axis: see `Limits`
//! let cut = decompressor.decompress(Coding::Brotli, &body[..body.len() - 1]);
//! assert!(matches!(cut, Err(Error::Truncated { .. })));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The picture
//!
//! ```text
//!  Accept-Encoding ─▶ Accepted ─┐                       ┌─ Setting (coding, level) ─▶ encoder ─▶ writer, reader, bytes
//!  type, length, first bytes ───┴─▶ Hints ─▶ Policy ─▶ Choice
//!                                                       └─ Reason ─▶ your log, our counters
//!
//!  Content-Encoding ─▶ Codings ─▶ decoder ◀─▶ decoder ─▶ reader, writer, bytes
//!                                    each one held to the same Limits
//! ```
//!
//! A [`Compressor`] asks its [`Policy`] once per body, before the first byte: [`Rules`] is the classic table, [`Fixed`] is
//! one setting for everything, and a policy of your own is two functions. The choice carries its reason.
//!
//! Encoders and decoders are machines without I/O; [`Read`](std::io::Read) and [`Write`](std::io::Write) are thin wrappers
//! over them. An encoder cuts its input into blocks of the codec's own size, wherever the caller cuts it. A decoder reads
//! the framing (gzip members, zstd and lz4 frames) itself and asks the codec for no more bytes than the limits leave.
//!
//! # Guarantees
//!
//! 1. **No cut passes for an end.** A stream that stops anywhere before its end is [`Error::Truncated`], an empty one
//!    included; one that is followed by anything but another member or frame is [`Error::TrailingData`], be it zeros.
//!    (Identity has no end to check.)
//! 2. **No half body passes for a whole one.** A [`CompressWriter`] that is dropped without
//!    [`finish`](CompressWriter::finish) leaves a stream that is cut.
//! 3. **Limits hold to the byte**, each on its own, all on by default: exactly the bytes up to the limit come out, then
//!    [`Error::LimitExceeded`] names it. Windows, header fields and skippable frames are judged by what their headers
//!    announce, before anything is allocated or read for them.
//! 4. **What was good comes first.** Bytes decoded before an error are delivered before it. They are provisional until the
//!    end: a checksum may still refuse them. (How far brotli and zstd get in a damaged stream depends on how it was cut.)
//! 5. **Errors of a stream stay**: who asks again is told again, never `Ok(0)`.
//! 6. **Errors of the inner reader or writer pass**: no byte is lost or doubled, and the same call can be made again, be it
//!    `WouldBlock` or a full disk. (An interrupted write is made again at once, as `write_all` does.)
//! 7. **Cuts do not show.** The same bytes give the same stream however they were written or read, flushes apart, and the
//!    same whole stream gives the same bytes.
//! 8. **A flush makes everything so far decodable**, and writes nothing when nothing is new.
//! 9. **Nothing grows much.** A stream is at most 1/1000 of the input and 64 bytes longer than the input, and 16 bytes more
//!    for each flush. (Gzip level 1 would grow noise by more; a block that grows is stored instead.)
//! 10. **Every call ends**: a codec that neither takes nor gives nor fails is an error, whatever the bytes.
//! 11. **Nothing is sent that the client does not accept**, whatever the policy says, and nothing encoded is encoded again.
//!     Where nothing acceptable is left, identity is: an answer that may not be wanted beats a 406.
//!
//! # What each coding protects
//!
//! | Coding | A flipped bit | Its end | Several in a row |
//! |---|---|---|---|
//! | gzip | CRC-32 and length; the header only where it has its own CRC | checked | one body, up to the [`members`](Limits::members) limit |
//! | zstd | XXH64, which our encoder always writes | checked | one body, skippable frames are skipped |
//! | lz4 | XXH32 of header and content, which our encoder always writes | checked, end mark required | one body, skippable frames are skipped |
//! | brotli | **nothing**: it may decode to other bytes unnoticed | checked | an error |
//!
//! Streams that others wrote without the optional checksums of zstd and lz4 are accepted. Our encoders write one member or
//! frame: browsers stop after the first.
//!
//! # Costs
//!
//! Per stream, beside the codec's own memory ([`Setting`] has the table): a writer holds one block of input (64 KiB; 128
//! for brotli and zstd), as far as the body is that long, and what one block became; readers, and writers that decode, a
//! buffer of 32 KiB. Whole blocks are encoded without being copied. Decoders hold the window that the stream announces:
//! 32 KiB for gzip, up to 8 MiB for zstd, 16 for brotli, and for lz4 two blocks of up to 4 MiB.
//!
//! A zstd stream whose body is known to be small takes a fraction of the memory: give [`Hints::size`] where it is known. A
//! body that ends within the first block is known to be small without it.
//!
//! A choice costs a look at a few header values; counters cost an atomic operation each.
//!
//! # Limits
//!
//! - **BREACH**: where a page holds a secret and something that an attacker chose, its compressed length tells about the
//!   secret, over TLS as well. Leave such bodies as they are, or keep the two apart; no padding here hides it. Every flush
//!   shows besides where a piece of the body ends.
//! - Synchronous and on the caller's thread: a block of brotli 11 or zstd 19 takes long, so keep such levels off async
//!   runtimes. Hostile streams take long to decode, too: [`Limits::encoded_bytes`] is what bounds the time.
//! - The policy knows neither link nor load, and a stream keeps its level to its end.
//! - Not decoded: lz4's legacy frames, zstd before 0.8, large-window brotli, anything that needs a dictionary
//!   ([`Error::DictionaryRequired`] says which). `deflate` is not offered, since servers and
//!   clients never agreed whether zlib's header belongs to it.
//! - [`Vary`](https://www.rfc-editor.org/rfc/rfc9110#name-vary), entity tags, ranges and `no-transform` are the HTTP
//!   server's matter.
//!
//! # Use something else when
//!
//! - archives are to be written: `zip` and `tar` know files, this knows streams;
//! - a format inside a file is all you need, without clients or strangers: `flate2`, `zstd`, `brotli` or `lz4_flex` alone;
//! - the bodies flow through async code today: `async-compression` and tower-http's layers do that.
//!
//! # Features
//!
//! | Feature | Default | Adds |
//! |---|---|---|
//! | `brotli` | yes | [`Coding::Brotli`], in Rust |
//! | `gzip` | yes | [`Coding::Gzip`], on zlib-rs, in Rust |
//! | `lz4` | yes | [`Coding::Lz4`], in safe Rust |
//! | `zstd` | yes | [`Coding::Zstd`], on libzstd: needs a C compiler |
//! | `testing` | no | `conformance`: the laws of [`Policy`] as a function for tests |
//!
//! A coding without its feature can still be named: `build` refuses it by name, [`Rules`] does without it.
//!
//! Minimum supported Rust version: 1.88.

#![forbid(unsafe_code)]

mod accept;
mod codec;
mod coding;
mod compressor;
#[cfg(feature = "testing")]
pub mod conformance;
mod decoder;
mod decompressor;
mod encoder;
mod error;
mod hints;
mod limits;
mod policy;
mod reader;
mod setting;
mod stats;
mod writer;

pub use accept::Accepted;
pub use coding::{Coding, Codings};
pub use compressor::{Compressed, Compressor, CompressorBuilder};
pub use decompressor::{Decompressor, DecompressorBuilder};
pub use error::{Error, Limit};
pub use hints::Hints;
pub use limits::Limits;
pub use policy::{Choice, Fixed, Policy, Question, Reason, Rules};
pub use reader::{CompressReader, DecompressReader};
pub use setting::Setting;
pub use writer::{CompressWriter, DecompressWriter};

/// The README's program, kept working.
#[cfg(all(doctest, feature = "gzip"))]
#[doc = include_str!("../README.md")]
struct Readme;
