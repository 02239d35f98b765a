//! RFC 1952 around raw deflate. The encoder writes one member; the decoder reads any number.

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Decode, Did, Encode, Fault, Gather, Members, Op, u32_le};
use crate::{error::Limit, limits::Limits};

/// The most that one stored block holds, so that a block that grows can be stored as one.
pub(super) const BLOCK: usize = 65_535;

pub(super) struct Encoder {
    deflate: Compress,
    crc: Crc,
    /// zlib-rs's level 1 writes fixed Huffman codes whatever they cost. There every block ends at a whole byte, and one
    /// that grew is stored instead. The codec need not know: its window holds what was read, however it was written.
    watched: bool,
    started: bool,
}

impl Encoder {
    pub(super) fn new(level: i32) -> Self {
        let level = Compression::new(level.clamp(1, 9) as u32);
        Self {
            deflate: Compress::new(level, false),
            crc: Crc::new(),
            watched: level.level() == 1,
            started: false,
        }
    }

    fn deflate(&mut self, block: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let mut read = 0;
        loop {
            let start = out.len();
            out.resize(start + CHUNK, 0);
            let (in_before, out_before) = (self.deflate.total_in(), self.deflate.total_out());
            let status = self.deflate.compress(&block[read..], &mut out[start..], flush);
            read += (self.deflate.total_in() - in_before) as usize;
            let wrote = (self.deflate.total_out() - out_before) as usize;
            out.truncate(start + wrote);
            let Ok(status) = status else { return Err("deflate refused its input") };
            // Room left over means that nothing is held back.
            let done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                _ => read == block.len() && wrote < CHUNK,
            };
            if done {
                return Ok(());
            }
            if wrote == 0 && read == block.len() {
                return Err("deflate does not come to an end");
            }
        }
    }
}

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8], op: Op, out: &mut Vec<u8>) -> Result<(), &'static str> {
        if !self.started {
            self.started = true;
            // Deflate, no optional field, no time, no hint at the level, an unknown system.
            out.extend([MAGIC[0], MAGIC[1], DEFLATE, 0, 0, 0, 0, 0, 0, 255]);
        }
        self.crc.update(block);
        let start = out.len();
        let flush = match op {
            Op::Continue if !self.watched => FlushCompress::None,
            Op::Continue | Op::Flush => FlushCompress::Sync,
            Op::Finish => FlushCompress::Finish,
        };
        self.deflate(block, flush, out)?;
        if self.watched && !block.is_empty() && out.len() - start > block.len() + STORED_HEADER {
            out.truncate(start);
            let length = block.len() as u16; // a block is no longer than that
            out.push(u8::from(op == Op::Finish));
            out.extend(length.to_le_bytes());
            out.extend((!length).to_le_bytes());
            out.extend(block);
        }
        if op == Op::Finish {
            out.extend(self.crc.sum().to_le_bytes());
            out.extend(self.crc.amount().to_le_bytes());
        }
        Ok(())
    }
}

pub(super) struct Decoder {
    inflate: Decompress,
    crc: Crc,
    header_crc: Crc,
    members: Members,
    header_limit: u64,
    state: State,
}

enum State {
    /// Between members, and in the ten bytes that a member begins with.
    Start(Gather),
    /// An optional field: those still to come as flags, and how many bytes there were.
    Field {
        flags: u8,
        field: Field,
        bytes: u64,
    },
    Body,
    Trailer(Gather),
}

#[derive(Clone, Copy)]
enum Field {
    Comment,
    Crc(Gather),
    Extra(u16),
    ExtraLength(Gather),
    Name,
}

impl Decoder {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            inflate: Decompress::new(false),
            crc: Crc::new(),
            header_crc: Crc::new(),
            members: Members::new(limits),
            header_limit: limits.header_bytes,
            state: State::Start(Gather::default()),
        }
    }

    /// The next optional field that the flags name, or the body.
    fn next_field(flags: u8, bytes: u64) -> State {
        let field = if flags & FEXTRA != 0 {
            Field::ExtraLength(Gather::default())
        } else if flags & FNAME != 0 {
            Field::Name
        } else if flags & FCOMMENT != 0 {
            Field::Comment
        } else if flags & FHCRC != 0 {
            Field::Crc(Gather::default())
        } else {
            return State::Body;
        };
        State::Field { flags, field, bytes }
    }

    fn start(&mut self, input: &[u8]) -> (usize, Result<(), Fault>) {
        let State::Start(gather) = &mut self.state else { return (0, Ok(())) };
        let n = gather.fill(input, 10);
        let gather = *gather;
        let seen = gather.bytes();
        // At the first wrong byte, so that what follows a member is not taken for a member that was cut.
        if seen.iter().zip(MAGIC).any(|(&byte, magic)| byte != magic) {
            return (0, Err(self.members.no_magic()));
        }
        if seen.len() < 10 {
            return (n, Ok(()));
        }
        if seen[2] != DEFLATE || seen[3] & RESERVED != 0 {
            return (n, Err(Fault::Corrupt));
        }
        if let Err(fault) = self.members.begin() {
            return (n, Err(fault));
        }
        self.header_crc.reset();
        self.header_crc.update(seen);
        self.crc.reset();
        self.inflate.reset(false);
        self.state = Self::next_field(seen[3], 0);
        (n, Ok(()))
    }

    fn field(&mut self, input: &[u8]) -> (usize, Result<(), Fault>) {
        let State::Field { flags, field, bytes } = &mut self.state else { return (0, Ok(())) };
        let room = usize::try_from(self.header_limit - *bytes).unwrap_or(usize::MAX);
        let over = Err(Fault::LimitExceeded(Limit::HeaderBytes, self.header_limit));
        let (n, done) = match field {
            Field::ExtraLength(gather) => {
                let n = gather.fill(input, 2);
                if gather.len == 2 {
                    let length = u32_le(gather.bytes()) as u16;
                    if u64::from(length) > self.header_limit - *bytes {
                        return (n, over);
                    }
                    self.header_crc.update(gather.bytes());
                    *field = Field::Extra(length);
                    (n, length == 0)
                } else {
                    (n, false)
                }
            }
            Field::Extra(left) => {
                let n = input.len().min((*left).into());
                *left -= n as u16;
                *bytes += n as u64;
                self.header_crc.update(&input[..n]);
                (n, *left == 0)
            }
            Field::Name | Field::Comment => {
                let end = input.iter().position(|&byte| byte == 0);
                let n = end.map_or(input.len(), |end| end + 1);
                if n > room {
                    return (room, over);
                }
                *bytes += n as u64;
                self.header_crc.update(&input[..n]);
                (n, end.is_some())
            }
            Field::Crc(gather) => {
                let n = gather.fill(input, 2);
                if gather.len == 2 && u32_le(gather.bytes()) != self.header_crc.sum() & 0xffff {
                    return (n, Err(Fault::Checksum));
                }
                (n, gather.len == 2)
            }
        };
        if done {
            let flag = match field {
                Field::Comment => FCOMMENT,
                Field::Crc(_) => FHCRC,
                Field::Extra(_) | Field::ExtraLength(_) => FEXTRA,
                Field::Name => FNAME,
            };
            self.state = Self::next_field(*flags & !flag, *bytes);
        }
        (n, Ok(()))
    }

    fn trailer(&mut self, input: &[u8]) -> (usize, Result<(), Fault>) {
        let State::Trailer(gather) = &mut self.state else { return (0, Ok(())) };
        let n = gather.fill(input, 8);
        if gather.len == 8 {
            let seen = gather.bytes();
            if u32_le(seen) != self.crc.sum() || u32_le(&seen[4..]) != self.crc.amount() {
                return (n, Err(Fault::Checksum));
            }
            self.state = State::Start(Gather::default());
        }
        (n, Ok(()))
    }
}

impl Decode for Decoder {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> (Did, Result<(), Fault>) {
        let (consumed, result) = match self.state {
            State::Start(_) => self.start(input),
            State::Field { .. } => self.field(input),
            State::Trailer(_) => self.trailer(input),
            State::Body => {
                let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
                let status = self.inflate.decompress(input, out, FlushDecompress::None);
                let did = Did {
                    consumed: (self.inflate.total_in() - in_before) as usize,
                    produced: (self.inflate.total_out() - out_before) as usize,
                };
                self.crc.update(&out[..did.produced]);
                return match status {
                    Ok(Status::StreamEnd) => {
                        self.state = State::Trailer(Gather::default());
                        (did, Ok(()))
                    }
                    Ok(Status::Ok | Status::BufError) => (did, Ok(())),
                    Err(_) => (did, Err(Fault::Corrupt)),
                };
            }
        };
        (Did { consumed, produced: 0 }, result)
    }

    fn is_complete(&self) -> bool {
        matches!(&self.state, State::Start(gather) if gather.len == 0) && self.members.seen > 0
    }
}

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const DEFLATE: u8 = 8;
const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;
const RESERVED: u8 = 0b1110_0000;
/// Three bits, filled up to a byte, and the length twice.
const STORED_HEADER: usize = 5;
/// How much room the codec is given at a time.
const CHUNK: usize = 16 << 10;
