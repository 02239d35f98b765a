//! RFC 8878. The decoder reads frame and block headers itself and hands the library one block at a time, so that limits
//! are checked before anything is allocated and every block before a bad one is delivered.

use zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, compress_bound, zstd_sys};
use zstd_sys::ZSTD_EndDirective;

use super::{Decode, Did, Encode, Fault, Gather, Kind, Members, Op, Size, Skipped, kind_of};
use crate::{error::Limit, limits::Limits};

/// The most that one zstd block holds. A body up to this length is given whole, so the library knows its size.
pub(super) const BLOCK: usize = 128 << 10;

pub(super) struct Encoder(CCtx<'static>);

impl Encoder {
    pub(super) fn new(level: i32, size: Size) -> Result<Self, &'static str> {
        let mut context = CCtx::try_create().ok_or("no memory")?;
        let mut set = |parameter| context.set_parameter(parameter).map_err(zstd_safe::get_error_name);
        set(CParameter::CompressionLevel(level))?;
        set(CParameter::ChecksumFlag(true))?;
        match size {
            // A window no longer than the body keeps the tables small. Not pledged: a hint may be wrong. Longer bodies
            // get the level's own window, which none of the levels has smaller.
            Size::Hint(size) if size <= SMALL => {
                let bits = size.next_power_of_two().trailing_zeros();
                set(CParameter::WindowLog(bits.max(SMALLEST_WINDOW_BITS)))?;
            }
            Size::Exactly(size) => {
                context.set_pledged_src_size(Some(size)).map_err(zstd_safe::get_error_name)?;
            }
            Size::Hint(_) | Size::Unknown => {}
        }
        Ok(Self(context))
    }
}

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8], op: Op, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let directive = match op {
            Op::Continue => ZSTD_EndDirective::ZSTD_e_continue,
            Op::Finish => ZSTD_EndDirective::ZSTD_e_end,
            Op::Flush => ZSTD_EndDirective::ZSTD_e_flush,
        };
        let mut input = InBuffer::around(block);
        loop {
            out.reserve(compress_bound(block.len()) + FRAME);
            let start = out.len();
            let mut output = OutBuffer::around_pos(out, start);
            let (read, wrote) = (input.pos(), output.pos());
            let left = self.0.compress_stream2(&mut output, &mut input, directive);
            let left = left.map_err(zstd_safe::get_error_name)?;
            let idle = input.pos() == read && output.pos() == wrote;
            if input.pos() == block.len() && (op == Op::Continue || left == 0) {
                return Ok(());
            }
            if idle {
                return Err("the zstd encoder does not come to an end");
            }
        }
    }
}

pub(super) struct Decoder {
    context: DCtx<'static>,
    members: Members,
    skipped: Skipped,
    window: u64,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// Between frames, and in the header of one.
    Start(Gather),
    Skip(u64),
    BlockHeader(Frame, Gather),
    Block {
        frame: Frame,
        left: u32,
        last: bool,
        /// There was no room for all that the library had to give: a raw block is delivered as it comes.
        held: bool,
    },
    /// The block has been read, and some of it is still to be delivered.
    Drain {
        frame: Frame,
        last: bool,
    },
    Checksum {
        left: usize,
    },
}

#[derive(Clone, Copy)]
struct Frame {
    checksum: bool,
    largest_block: u32,
}

impl Decoder {
    pub(super) fn new(limits: &Limits) -> Result<Self, &'static str> {
        let mut context = DCtx::try_create().ok_or("no memory")?;
        let window = limits.window.unwrap_or(DEFAULT_WINDOW);
        // The header is judged here, to the byte; this only keeps the library from being stricter.
        let bits = window.checked_next_power_of_two().map_or(31, u64::trailing_zeros).clamp(10, 31);
        context.set_parameter(DParameter::WindowLogMax(bits)).map_err(zstd_safe::get_error_name)?;
        Ok(Self {
            context,
            members: Members::new(limits),
            skipped: Skipped::new(limits),
            window,
            state: State::Start(Gather::default()),
        })
    }

    fn start(&mut self, input: &[u8], mut gather: Gather) -> (usize, Result<(), Fault>) {
        let mut n = gather.fill(input, 5);
        let Some(kind) = kind_of(gather.bytes(), MAGIC) else { return (0, Err(self.members.no_magic())) };
        let needed = match kind {
            _ if gather.len < 5 => 5,
            Kind::Frame => header_length(gather.bytes[4]),
            Kind::Skippable => 8,
        };
        n += gather.fill(&input[n..], needed);
        self.state = State::Start(gather);
        if gather.len < needed {
            return (n, Ok(()));
        }
        let result = self.members.begin().and_then(|()| match kind {
            Kind::Frame => self.frame(gather),
            Kind::Skippable => self.skip(gather),
        });
        (n, result)
    }

    fn skip(&mut self, gather: Gather) -> Result<(), Fault> {
        let left = self.skipped.begin(gather.u32_at(4))?;
        self.state = if left == 0 { State::Start(Gather::default()) } else { State::Skip(left) };
        Ok(())
    }

    /// The frame header (RFC 8878 3.1.1.1), whole.
    fn frame(&mut self, gather: Gather) -> Result<(), Fault> {
        let descriptor = gather.bytes[4];
        let single_segment = descriptor & 0x20 != 0;
        if descriptor & 0x08 != 0 {
            return Err(Fault::Corrupt); // reserved
        }
        let mut at = 5;
        let mut window = 0;
        if !single_segment {
            let byte = gather.bytes[at];
            let base = 1u64 << (10 + (byte >> 3));
            window = base + base / 8 * u64::from(byte & 7);
            at += 1;
        }
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let little_endian = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        let id = little_endian(&gather.bytes[at..at + dictionary]);
        if id != 0 {
            return Err(Fault::DictionaryRequired(id as u32));
        }
        at += dictionary;
        if single_segment {
            let size = little_endian(&gather.bytes[at..gather.len]);
            window = size + if gather.len - at == 2 { 256 } else { 0 };
        }
        if window > self.window {
            return Err(Fault::LimitExceeded(Limit::Window, self.window));
        }
        let frame = Frame { checksum: descriptor & 4 != 0, largest_block: window.min(BLOCK as u64) as u32 };
        self.state = State::BlockHeader(frame, Gather::default());
        self.feed(gather.bytes(), &mut []).1
    }

    /// Gives bytes to the library. The first answer is what it did, the second also whether the frame is over.
    fn feed(&mut self, input: &[u8], out: &mut [u8]) -> (Did, Result<(), Fault>) {
        let (did, result) = self.feed_and_see(input, out);
        (did, result.map(|_| ()))
    }

    fn feed_and_see(&mut self, input: &[u8], out: &mut [u8]) -> (Did, Result<bool, Fault>) {
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(out);
        let result = self.context.decompress_stream(&mut to, &mut from);
        let did = Did { consumed: from.pos(), produced: to.pos() };
        let result = match result {
            Ok(hint) => Ok(hint == 0),
            // Error codes are negative numbers, and those below 100 never change (zstd_errors.h).
            Err(code) => Err(match 0usize.wrapping_sub(code) {
                CHECKSUM_WRONG => Fault::Checksum,
                MEMORY_ALLOCATION => Fault::Codec("no memory"),
                _ => Fault::Corrupt,
            }),
        };
        (did, result)
    }

    fn block_header(&mut self, frame: Frame, mut gather: Gather, input: &[u8]) -> (usize, Result<(), Fault>) {
        let n = gather.fill(input, 3);
        self.state = State::BlockHeader(frame, gather);
        if gather.len < 3 {
            return (n, Ok(()));
        }
        let word = gather.u32_at(0);
        let (last, kind, size) = (word & 1 != 0, word >> 1 & 3, word >> 3);
        // Also for a run, whose size is that of what it decodes to.
        if kind == RESERVED || size > frame.largest_block {
            return (n, Err(Fault::Corrupt));
        }
        let left = if kind == RUN { 1 } else { size };
        self.state = State::Block { frame, left, last, held: false };
        let (did, result) = self.feed(gather.bytes(), &mut []);
        debug_assert!(result.is_err() || did.consumed == 3);
        (n, result)
    }

    fn after_block(frame: Frame, last: bool) -> State {
        match (last, frame.checksum) {
            (false, _) => State::BlockHeader(frame, Gather::default()),
            (true, true) => State::Checksum { left: 4 },
            (true, false) => State::Start(Gather::default()),
        }
    }
}

impl Decode for Decoder {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> (Did, Result<(), Fault>) {
        let (consumed, result) = match self.state {
            State::Start(gather) => {
                if input.is_empty() {
                    return (Did::default(), Ok(()));
                }
                self.start(input, gather)
            }
            State::Skip(left) => {
                let n = left.min(input.len() as u64);
                self.state = if left == n { State::Start(Gather::default()) } else { State::Skip(left - n) };
                (n as usize, Ok(()))
            }
            State::BlockHeader(frame, gather) => self.block_header(frame, gather, input),
            State::Block { frame, left, last, held } => {
                let n = input.len().min(left as usize);
                if n == 0 && left > 0 && !held {
                    return (Did::default(), Ok(()));
                }
                if left == 0 {
                    self.state = State::Drain { frame, last };
                    return self.decode(input, out);
                }
                let (did, result) = self.feed(&input[..n], out);
                let left = left - did.consumed as u32;
                self.state = if left == 0 {
                    State::Drain { frame, last }
                } else {
                    State::Block { frame, left, last, held: did.produced == out.len() }
                };
                return (did, result);
            }
            State::Drain { frame, last } => {
                let (did, result) = self.feed(&[], out);
                if result.is_err() || did.produced == out.len() {
                    return (did, result);
                }
                self.state = Self::after_block(frame, last);
                if did.produced > 0 {
                    return (did, Ok(()));
                }
                return self.decode(input, out);
            }
            State::Checksum { left } => {
                let n = input.len().min(left);
                if n == 0 {
                    return (Did::default(), Ok(()));
                }
                let (did, result) = self.feed_and_see(&input[..n], &mut []);
                self.state = match left - did.consumed {
                    0 => State::Start(Gather::default()),
                    left => State::Checksum { left },
                };
                let result = match result {
                    Ok(over) if over == (left == did.consumed) => Ok(()),
                    Ok(_) => Err(Fault::Corrupt),
                    Err(fault) => Err(fault),
                };
                (did.consumed, result)
            }
        };
        (Did { consumed, produced: 0 }, result)
    }

    fn is_complete(&self) -> bool {
        matches!(self.state, State::Start(gather) if gather.len == 0) && self.members.seen > 0
    }
}

/// Of a frame header, magic number included, by its descriptor.
fn header_length(descriptor: u8) -> usize {
    let single_segment = descriptor & 0x20 != 0;
    let size = match (descriptor >> 6, single_segment) {
        (0, false) => 0,
        (0, true) => 1,
        (n, _) => 1 << n,
    };
    5 + usize::from(!single_segment) + [0, 1, 2, 4][usize::from(descriptor & 3)] + size
}

const MAGIC: u32 = 0xFD2F_B528;
const RUN: u32 = 1;
const RESERVED: u32 = 3;
const MEMORY_ALLOCATION: usize = 64;
const CHECKSUM_WRONG: usize = 22;
/// RFC 9659.
const DEFAULT_WINDOW: u64 = 8 << 20;
const SMALL: u64 = 256 << 10;
const SMALLEST_WINDOW_BITS: u32 = 10;
/// Header, checksum and the first block's header.
const FRAME: usize = 32;
