//! RFC 7932, through the machines of the `brotli` crate.

use brotli::{
    BrotliDecompressStream, BrotliResult, BrotliState,
    enc::{
        StandardAlloc,
        encode::{BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct},
    },
};

use super::{Decode, Did, Encode, Fault, Op, Size};
use crate::{error::Limit, limits::Limits};

/// What qualities 0 and 1 close a meta-block at, at the latest; given less, they would close it earlier and gain less.
pub(super) const BLOCK: usize = 128 << 10;

pub(super) struct Encoder(BrotliEncoderStateStruct<StandardAlloc>);

impl Encoder {
    pub(super) fn new(quality: i32, size: Size) -> Self {
        let mut state = BrotliEncoderStateStruct::new(StandardAlloc::default());
        // Neither fails before the first byte.
        state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, quality.clamp(0, 11) as u32);
        state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, WINDOW_BITS);
        if let Size::Exactly(size) | Size::Hint(size) = size {
            let hint = u32::try_from(size).unwrap_or(u32::MAX).min(LARGEST_HINT);
            state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_SIZE_HINT, hint);
        }
        Self(state)
    }
}

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8], op: Op, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let op = match op {
            Op::Continue => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
            Op::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
            Op::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
        };
        let (mut left, mut read) = (block.len(), 0);
        loop {
            let before = left;
            // Without room of ours it keeps the output in its own storage, which is then taken as it is.
            let worked = self.0.compress_stream(
                op,
                &mut left,
                block,
                &mut read,
                &mut 0,
                &mut [],
                &mut 0,
                &mut None,
                &mut |_, _, _, _| (),
            );
            if !worked {
                return Err("the brotli encoder refused its input");
            }
            let start = out.len();
            while self.0.has_more_output() {
                let mut length = 0; // for all there is; the slice is longer than that
                let taken = self.0.take_output(&mut length);
                out.extend(&taken[..length]);
            }
            let idle = out.len() == start && left == before;
            let finishing = matches!(op, BrotliEncoderOperation::BROTLI_OPERATION_FINISH);
            if left == 0 && (!finishing || self.0.is_finished()) {
                return Ok(());
            }
            if idle {
                return Err("the brotli encoder does not come to an end");
            }
        }
    }
}

pub(super) struct Decoder {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    window: Option<u64>,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Body,
    End,
    Start,
}

impl Decoder {
    pub(super) fn new(limits: &Limits) -> Self {
        let alloc = StandardAlloc::default;
        Self {
            state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())),
            window: limits.window,
            stage: Stage::Start,
        }
    }

    /// Reads the window off the first byte (RFC 7932 9.1), before the decoder makes room for it.
    fn check_window(&self, first: u8) -> Result<(), Fault> {
        let bits = match (first & 1, first >> 1 & 7, first >> 4 & 7) {
            (0, _, _) => 16,
            (_, 0, 0) => 17,
            (_, 0, 1) => return Err(Fault::LimitExceeded(Limit::Window, self.window.unwrap_or(1 << 24))),
            (_, 0, n) => 8 + u32::from(n),
            (_, n, _) => 17 + u32::from(n),
        };
        match self.window {
            Some(limit) if 1 << bits > limit => Err(Fault::LimitExceeded(Limit::Window, limit)),
            _ => Ok(()),
        }
    }
}

impl Decode for Decoder {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> (Did, Result<(), Fault>) {
        match self.stage {
            Stage::End if input.is_empty() => return (Did::default(), Ok(())),
            Stage::End => return (Did::default(), Err(Fault::TrailingData)),
            Stage::Start => {
                let Some(&first) = input.first() else { return (Did::default(), Ok(())) };
                if let Err(fault) = self.check_window(first) {
                    return (Did::default(), Err(fault));
                }
                self.stage = Stage::Body;
            }
            Stage::Body => {}
        }
        let mut did = Did::default();
        let result = BrotliDecompressStream(
            &mut input.len(),
            &mut did.consumed,
            input,
            &mut out.len(),
            &mut did.produced,
            out,
            &mut 0,
            &mut self.state,
        );
        match result {
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => (did, Ok(())),
            BrotliResult::ResultFailure => (did, Err(Fault::Corrupt)),
            BrotliResult::ResultSuccess => {
                self.stage = Stage::End;
                (did, Ok(()))
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.stage == Stage::End
    }
}

/// 256 KiB. At 16 and below, qualities from 5 on take a table of 32 MiB; above, memory grows faster than the gain.
const WINDOW_BITS: u32 = 18;
/// More than this changes nothing.
const LARGEST_HINT: u32 = 1 << 30;
