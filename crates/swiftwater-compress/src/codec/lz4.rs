//! The LZ4 frame format 1.6 around blocks. The encoder writes independent blocks of 64 KiB; the decoder reads them all.

use std::hash::Hasher;

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into_with_dict, get_maximum_output_size,
};
use twox_hash::XxHash32;

use super::{Decode, Did, Encode, Fault, Gather, Kind, Members, Op, Skipped, kind_of, u32_le};
use crate::{error::Limit, limits::Limits};

pub(super) const BLOCK: usize = 64 << 10;

pub(super) struct Encoder {
    table: CompressTable,
    content: XxHash32,
    started: bool,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { table: CompressTable::default(), content: XxHash32::with_seed(0), started: false }
    }
}

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8], op: Op, out: &mut Vec<u8>) -> Result<(), &'static str> {
        if !self.started {
            self.started = true;
            let descriptor = [VERSION | INDEPENDENT | CONTENT_CHECKSUM, BLOCKS_OF_64_KIB];
            out.extend(MAGIC.to_le_bytes());
            out.extend(descriptor);
            out.push(header_checksum(&descriptor));
        }
        if !block.is_empty() {
            self.content.write(block);
            let start = out.len();
            out.resize(start + 4 + get_maximum_output_size(block.len()), 0);
            let length = compress_into_with_table(block, &mut out[start + 4..], &mut self.table)
                .map_err(|_| "the lz4 encoder refused its input")?;
            out.truncate(start + 4 + length);
            let mut word = length as u32; // both are far below 2^31
            if length >= block.len() {
                out.truncate(start + 4);
                out.extend(block);
                word = RAW | block.len() as u32;
            }
            out[start..start + 4].copy_from_slice(&word.to_le_bytes());
        }
        if op == Op::Finish {
            out.extend([0; 4]);
            out.extend(self.content.finish_32().to_le_bytes());
        }
        Ok(())
    }
}

pub(super) struct Decoder {
    members: Members,
    skipped: Skipped,
    window: u64,
    state: State,
    frame: Frame,
    /// A block as it was read, with its checksum.
    block: Vec<u8>,
    /// A block as it was decoded.
    decoded: Vec<u8>,
    /// At least the last 64 KiB before it, if there are as many and blocks are linked.
    history: Vec<u8>,
}

enum State {
    /// Between frames, and in the header of one.
    Start(Gather),
    Skip(u64),
    BlockSize(Gather),
    /// Reading a block of this length, its checksum included.
    Block {
        length: usize,
        raw: bool,
    },
    /// Delivering what was decoded, from here to there.
    Deliver {
        from: usize,
        to: usize,
    },
    ContentChecksum(Gather),
}

struct Frame {
    flags: u8,
    largest_block: usize,
    content_size: Option<u64>,
    content: XxHash32,
    decoded: u64,
}

impl Decoder {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            members: Members::new(limits),
            skipped: Skipped::new(limits),
            window: limits.window.unwrap_or(u64::MAX),
            state: State::Start(Gather::default()),
            frame: Frame {
                flags: 0,
                largest_block: 0,
                content_size: None,
                content: XxHash32::with_seed(0),
                decoded: 0,
            },
            block: Vec::new(),
            decoded: Vec::new(),
            history: Vec::new(),
        }
    }

    fn start(&mut self, input: &[u8]) -> (usize, Result<(), Fault>) {
        let State::Start(gather) = &mut self.state else { return (0, Ok(())) };
        let mut n = gather.fill(input, 4);
        let Some(kind) = kind_of(gather.bytes(), MAGIC) else { return (0, Err(self.members.no_magic())) };
        let needed = if gather.len < 4 {
            4
        } else if kind == Kind::Skippable {
            8
        } else {
            n += gather.fill(&input[n..], 5);
            let flags = gather.bytes[4]; // zero until it is there
            4 + 3
                + if flags & CONTENT_SIZE != 0 { 8 } else { 0 }
                + if flags & DICTIONARY != 0 { 4 } else { 0 }
        };
        n += gather.fill(&input[n..], needed);
        if gather.len < needed || gather.len == 4 {
            return (n, Ok(()));
        }
        let gather = *gather;
        let result = self.members.begin().and_then(|()| {
            if kind == Kind::Frame {
                return self.header(gather);
            }
            let left = self.skipped.begin(gather.u32_at(4))?;
            self.state = if left == 0 { State::Start(Gather::default()) } else { State::Skip(left) };
            Ok(())
        });
        (n, result)
    }

    /// The frame descriptor, whole.
    fn header(&mut self, gather: Gather) -> Result<(), Fault> {
        let (descriptor, checksum) = gather.bytes()[4..].split_at(gather.len - 5);
        let (flags, sizes) = (descriptor[0], descriptor[1]);
        if flags & 0xc0 != VERSION || flags & 0x02 != 0 || sizes & 0x8f != 0 || sizes >> 4 < 4 {
            return Err(Fault::Corrupt);
        }
        if checksum[0] != header_checksum(descriptor) {
            return Err(Fault::Checksum);
        }
        if flags & DICTIONARY != 0 {
            return Err(Fault::DictionaryRequired(u32_le(&descriptor[descriptor.len() - 4..])));
        }
        let largest_block = 1 << (8 + 2 * (sizes >> 4));
        if largest_block as u64 > self.window {
            return Err(Fault::LimitExceeded(Limit::Window, self.window));
        }
        let content_size = (flags & CONTENT_SIZE != 0)
            .then(|| u64::from(u32_le(&descriptor[2..])) | u64::from(u32_le(&descriptor[6..])) << 32);
        let content = XxHash32::with_seed(0);
        self.frame = Frame { flags, largest_block, content_size, content, decoded: 0 };
        self.history.clear();
        self.state = State::BlockSize(Gather::default());
        Ok(())
    }

    fn block_size(&mut self, input: &[u8]) -> (usize, Result<(), Fault>) {
        let State::BlockSize(gather) = &mut self.state else { return (0, Ok(())) };
        let n = gather.fill(input, 4);
        if gather.len < 4 {
            return (n, Ok(()));
        }
        let word = gather.u32_at(0);
        if word == 0 {
            return (n, self.end_mark());
        }
        let length = (word & !RAW) as usize;
        if length > self.frame.largest_block || length == 0 {
            return (n, Err(Fault::Corrupt));
        }
        let checksum = if self.frame.flags & BLOCK_CHECKSUM != 0 { 4 } else { 0 };
        self.block.clear();
        self.state = State::Block { length: length + checksum, raw: word & RAW != 0 };
        (n, Ok(()))
    }

    fn block(&mut self, input: &[u8]) -> (usize, Result<(), Fault>) {
        let State::Block { length, raw } = self.state else { return (0, Ok(())) };
        // Grows with what has come, not with what was announced.
        let n = input.len().min(length - self.block.len());
        self.block.extend(&input[..n]);
        if self.block.len() < length {
            return (n, Ok(()));
        }
        let mut block = &self.block[..];
        if self.frame.flags & BLOCK_CHECKSUM != 0 {
            let (data, checksum) = block.split_at(length - 4);
            if XxHash32::oneshot(0, data) != u32_le(checksum) {
                return (n, Err(Fault::Checksum));
            }
            block = data;
        }
        // No byte of a block stands for more than 255.
        let room = if raw { block.len() } else { block.len().saturating_mul(255) };
        let room = room.min(self.frame.largest_block);
        // Never shortened, or every block could be made to cost filling the longest with zeros again.
        if self.decoded.len() < room {
            self.decoded.resize(room, 0);
        }
        let decoded = &mut self.decoded[..room];
        let to = if raw {
            decoded[..block.len()].copy_from_slice(block);
            block.len()
        } else {
            let history = &self.history[self.history.len().saturating_sub(HISTORY)..];
            match decompress_into_with_dict(block, decoded, history) {
                Ok(length) => length,
                Err(_) => return (n, Err(Fault::Corrupt)),
            }
        };
        let decoded = &decoded[..to];
        self.frame.decoded += to as u64;
        if self.frame.flags & CONTENT_CHECKSUM != 0 {
            self.frame.content.write(decoded);
        }
        if self.frame.flags & INDEPENDENT == 0 {
            self.history.extend(&decoded[to.saturating_sub(HISTORY)..]);
            // Not with every block, which may be a byte long.
            if self.history.len() > 2 * HISTORY {
                self.history.drain(..self.history.len() - HISTORY);
            }
        }
        self.state = State::Deliver { from: 0, to };
        (n, Ok(()))
    }

    fn end_mark(&mut self) -> Result<(), Fault> {
        if self.frame.content_size.is_some_and(|size| size != self.frame.decoded) {
            return Err(Fault::Corrupt);
        }
        self.state = if self.frame.flags & CONTENT_CHECKSUM != 0 {
            State::ContentChecksum(Gather::default())
        } else {
            State::Start(Gather::default())
        };
        Ok(())
    }
}

impl Decode for Decoder {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> (Did, Result<(), Fault>) {
        let (consumed, result) = match &mut self.state {
            State::Start(_) => self.start(input),
            State::Skip(left) => {
                let n = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                if *left == 0 {
                    self.state = State::Start(Gather::default());
                }
                (n, Ok(()))
            }
            State::BlockSize(_) => self.block_size(input),
            State::Block { .. } => self.block(input),
            State::Deliver { from, to } => {
                let n = out.len().min(*to - *from);
                out[..n].copy_from_slice(&self.decoded[*from..*from + n]);
                *from += n;
                if from == to {
                    self.state = State::BlockSize(Gather::default());
                }
                if n > 0 {
                    return (Did { consumed: 0, produced: n }, Ok(()));
                }
                return self.decode(input, out); // the block was empty
            }
            State::ContentChecksum(gather) => {
                let n = gather.fill(input, 4);
                if gather.len < 4 {
                    (n, Ok(()))
                } else if gather.u32_at(0) != self.frame.content.finish_32() {
                    (n, Err(Fault::Checksum))
                } else {
                    self.state = State::Start(Gather::default());
                    (n, Ok(()))
                }
            }
        };
        (Did { consumed, produced: 0 }, result)
    }

    fn is_complete(&self) -> bool {
        matches!(&self.state, State::Start(gather) if gather.len == 0) && self.members.seen > 0
    }
}

/// The second byte of the hash.
fn header_checksum(descriptor: &[u8]) -> u8 {
    (XxHash32::oneshot(0, descriptor) >> 8) as u8
}

const MAGIC: u32 = 0x184D_2204;
/// Version 01 in the two highest bits of the flags.
const VERSION: u8 = 0x40;
const INDEPENDENT: u8 = 0x20;
const BLOCK_CHECKSUM: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
const DICTIONARY: u8 = 0x01;
const BLOCKS_OF_64_KIB: u8 = 4 << 4;
/// In a block's size: it is not compressed.
const RAW: u32 = 1 << 31;
/// How far a linked block may look back.
const HISTORY: usize = 64 << 10;
