//! The decoding side without I/O: bytes in, bytes out, and every limit in between.

use crate::{
    codec::{self, Decode, Did, Fault},
    coding::{Coding, Codings},
    error::{Error, Limit},
    limits::Limits,
};

/// What a step did. With neither bytes nor `done` it waits for more input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    pub(crate) did: Did,
    /// The input is over, and so is the stream.
    pub(crate) done: bool,
}

/// The decoders of all codings of a body; what comes out of one goes into the next.
pub(crate) struct Decoder {
    /// The last one applied first.
    stages: Vec<Stage>,
    /// Between the stages.
    links: Vec<Link>,
}

struct Link {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Decoder {
    pub(crate) fn new(codings: &Codings, limits: &Limits) -> Result<Self, Error> {
        let codings = codings.as_slice();
        if codings.len() > limits.codings {
            return Err(Error::LimitExceeded { which: Limit::Codings, limit: limits.codings as u64 });
        }
        // A body without a coding is held to the limits as well.
        let codings = if codings.is_empty() { &[Coding::Identity] } else { codings };
        let stages = codings.iter().rev().map(|&coding| Stage::new(coding, limits));
        let stages = stages.collect::<Result<Vec<_>, _>>()?;
        let link = || Link { bytes: vec![0; LINK].into(), from: 0, to: 0 };
        let links = (1..stages.len()).map(|_| link()).collect();
        Ok(Self { stages, links })
    }

    /// Consumes some of `input`, fills some of `out`, which is not empty. `eof`: nothing comes after `input`.
    ///
    /// Fails only where nothing before the failure is left to deliver, and then always.
    pub(crate) fn step(&mut self, input: &[u8], eof: bool, out: &mut [u8]) -> Result<Step, Error> {
        let mut did = Did::default();
        let last = self.stages.len() - 1;
        'progress: loop {
            // From the end of the line: what is on its way comes out before anything, or a failure, goes in after it.
            for at in (0..=last).rev() {
                let (before, after) = self.links.split_at_mut(at);
                let (source, source_eof) = match before.last() {
                    None => (&input[did.consumed..], eof),
                    Some(link) => (&link.bytes[link.from..link.to], self.stages[at - 1].done),
                };
                let sink = match after.first_mut() {
                    None => &mut out[did.produced..],
                    Some(link) if link.from == link.to => {
                        (link.from, link.to) = (0, 0);
                        &mut link.bytes[..]
                    }
                    Some(_) => continue, // it waits for the stage after it
                };
                if sink.is_empty() || self.stages[at].done {
                    continue;
                }
                let step = self.stages[at].step(source, source_eof, sink);
                let Step { did: Did { consumed, produced }, done } = match step {
                    Err(_) if did != Did::default() => return Ok(Step { did, done: false }),
                    other => other?,
                };
                match before.last_mut() {
                    None => did.consumed += consumed,
                    Some(link) => link.from += consumed,
                }
                match after.first_mut() {
                    None => did.produced += produced,
                    Some(link) => link.to += produced,
                }
                if consumed > 0 || produced > 0 || done {
                    if did.produced == out.len() {
                        break 'progress;
                    }
                    continue 'progress;
                }
            }
            break;
        }
        Ok(Step { did, done: self.stages[last].done && did == Did::default() })
    }
}

/// One coding, held to the limits.
struct Stage {
    coding: Coding,
    codec: Box<dyn Decode>,
    limits: Limits,
    consumed: u64,
    produced: u64,
    done: bool,
    /// From then on it says nothing else, and the codec is not called any more.
    failed: Option<Error>,
}

impl Stage {
    fn new(coding: Coding, limits: &Limits) -> Result<Self, Error> {
        let codec = codec::decoder(coding, limits)?;
        Ok(Self { coding, codec, limits: *limits, consumed: 0, produced: 0, done: false, failed: None })
    }

    fn step(&mut self, input: &[u8], eof: bool, out: &mut [u8]) -> Result<Step, Error> {
        let mut did = Did::default();
        while self.failed.is_none() && did.produced < out.len() {
            let (more, result) = self.work(&input[did.consumed..], &mut out[did.produced..]);
            did.consumed += more.consumed;
            did.produced += more.produced;
            if let Err(error) = result {
                self.failed = Some(error);
            } else if more == Did::default() {
                self.judge_rest(input.len() - did.consumed, eof, did);
                break;
            }
        }
        match &self.failed {
            Some(error) if did == Did::default() => Err(error.clone()),
            _ => Ok(Step { did, done: self.done }),
        }
    }

    /// The codec has done what it could with this input.
    fn judge_rest(&mut self, left: usize, eof: bool, did: Did) {
        let (coding, offset) = (self.coding, self.consumed);
        if left > 0 && self.consumed == self.limits.encoded_bytes {
            self.failed = Some(self.over(Limit::EncodedBytes, self.limits.encoded_bytes));
        } else if left > 0 {
            // A codec that neither takes nor gives nor fails would be called for ever.
            self.failed = Some(Error::Codec { coding, what: "it stands still" });
        } else if eof && !self.codec.is_complete() {
            self.failed = Some(Error::Truncated { coding, offset });
        } else if eof && did == Did::default() {
            self.done = true;
        }
    }

    /// One call of the codec, with no more input and room than the limits leave.
    fn work(&mut self, input: &[u8], out: &mut [u8]) -> (Did, Result<(), Error>) {
        let left = at_most(self.limits.encoded_bytes - self.consumed);
        let input = &input[..input.len().min(left)];
        let room = at_most(self.room());
        if room > 0 {
            let room = room.min(out.len());
            let (did, result) = self.codec.decode(input, &mut out[..room]);
            return (self.count(did), result.map_err(|fault| self.error(fault)));
        }
        // At the limit exactly. Whether there is more shows in whether the codec fills one more byte.
        let mut probe = [0];
        let (did, result) = self.codec.decode(input, &mut probe);
        self.consumed += did.consumed as u64;
        let consumed = Did { consumed: did.consumed, produced: 0 };
        if did.produced == 0 {
            return (consumed, result.map_err(|fault| self.error(fault)));
        }
        if self.room() == 0 {
            let error = if self.produced >= self.limits.decoded_bytes {
                self.over(Limit::DecodedBytes, self.limits.decoded_bytes)
            } else {
                self.over(Limit::Ratio, self.limits.ratio)
            };
            return (consumed, Err(error));
        }
        out[0] = probe[0]; // what was read meanwhile has earned it
        self.produced += 1;
        (did, result.map_err(|fault| self.error(fault)))
    }

    /// How many more bytes may come out, for what has been read so far.
    fn room(&self) -> u64 {
        let by_ratio = self.limits.ratio.saturating_mul(self.consumed).saturating_add(self.limits.burst);
        by_ratio.min(self.limits.decoded_bytes).saturating_sub(self.produced)
    }

    fn count(&mut self, did: Did) -> Did {
        self.consumed += did.consumed as u64;
        self.produced += did.produced as u64;
        did
    }

    fn over(&self, which: Limit, limit: u64) -> Error {
        Error::LimitExceeded { which, limit }
    }

    fn error(&self, fault: Fault) -> Error {
        let (coding, offset) = (self.coding, self.consumed);
        match fault {
            Fault::Checksum => Error::Checksum { coding, offset },
            Fault::Codec(what) => Error::Codec { coding, what },
            Fault::Corrupt => Error::Corrupt { coding, offset },
            Fault::DictionaryRequired(id) => Error::DictionaryRequired { coding, id },
            Fault::LimitExceeded(which, limit) => Error::LimitExceeded { which, limit },
            Fault::TrailingData => Error::TrailingData { coding, offset },
        }
    }
}

fn at_most(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

const LINK: usize = 16 << 10;
