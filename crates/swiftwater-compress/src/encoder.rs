//! The encoding side without I/O: bytes go in, whole blocks go to the codec, bytes wait to be taken.
//!
//! Input is cut into blocks of the codec's own size wherever the caller's cuts are, so the same bytes give the same
//! stream however they were written, and small writes cost nothing in size.

use crate::{
    codec::{self, Encode, Op, Size},
    error::Error,
    setting::Setting,
};

pub(crate) struct Encoder {
    setting: Setting,
    /// After an error the codec must not be called again.
    codec: Result<Box<dyn Encode>, Error>,
    block_size: usize,
    /// Shorter than `block_size`, between calls.
    block: Vec<u8>,
    out: Vec<u8>,
    taken: usize,
    /// Something went in since the last flush.
    dirty: bool,
    finished: bool,
}

impl Encoder {
    pub(crate) fn new(setting: Setting, size: Size) -> Result<Self, Error> {
        let (codec, block_size) = codec::encoder(setting, size)?;
        Ok(Self {
            setting,
            codec: Ok(codec),
            block_size,
            block: Vec::new(),
            out: Vec::new(),
            taken: 0,
            dirty: false,
            finished: false,
        })
    }

    /// Takes at least one byte, if there is any, and at most a block. What is [`ready`](Self::ready) should be taken
    /// before, or it piles up.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Result<usize, Error> {
        debug_assert!(!self.finished);
        if let Err(error) = &self.codec {
            return Err(error.clone());
        }
        self.dirty |= !input.is_empty();
        let room = self.block_size - self.block.len();
        let n = room.min(input.len());
        if self.block.is_empty() && n == self.block_size {
            self.encode(&input[..n], Op::Continue)?; // without a copy
            return Ok(n);
        }
        self.block.extend(&input[..n]);
        if n == room {
            self.encode_block(Op::Continue)?;
        }
        Ok(n)
    }

    /// Makes everything so far decodable. Nothing new, nothing done.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        if self.dirty && !self.finished {
            self.encode_block(Op::Flush)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Ends the stream; once.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        if !self.finished {
            self.encode_block(Op::Finish)?;
            self.finished = true;
        }
        Ok(())
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn ready(&self) -> &[u8] {
        &self.out[self.taken..]
    }

    /// `n` bytes of what is ready have been taken.
    pub(crate) fn advance(&mut self, n: usize) {
        self.taken += n;
        if self.taken >= self.out.len() {
            self.out.clear();
            self.taken = 0;
        }
    }

    /// All that is ready, of an encoder that nothing was taken from.
    pub(crate) fn into_ready(self) -> Vec<u8> {
        debug_assert_eq!(self.taken, 0);
        self.out
    }

    fn encode_block(&mut self, op: Op) -> Result<(), Error> {
        let mut block = std::mem::take(&mut self.block);
        let result = self.encode(&block, op);
        block.clear();
        self.block = block;
        result
    }

    fn encode(&mut self, block: &[u8], op: Op) -> Result<(), Error> {
        let codec = self.codec.as_mut().map_err(|error| error.clone())?;
        codec.encode(block, op, &mut self.out).map_err(|what| {
            let error = Error::Codec { coding: self.setting.coding(), what };
            self.codec = Err(error.clone());
            error
        })
    }
}
