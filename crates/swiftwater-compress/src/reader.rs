//! The readers: an error of the inner reader costs no byte, and the same call can be made again.

use std::{
    fmt,
    io::{self, Read},
    sync::Arc,
};

use crate::{
    coding::Coding, compressor, decompressor, decompressor::Decoding, encoder::Encoder, policy::Choice,
};

/// Reads the inner reader, encoded. From [`Compressor::reader`](crate::Compressor::reader).
///
/// It reads the inner reader to its end, in pieces of up to 32 KiB, and ends the stream there. An error of the inner
/// reader passes through, and the next `read` goes on.
pub struct CompressReader<R> {
    inner: R,
    choice: Choice,
    /// `None` for identity.
    encoder: Option<Encoder>,
    input: Box<[u8]>,
    /// What was read and is not yet encoded.
    from: usize,
    to: usize,
    shared: Arc<compressor::Shared>,
}

impl<R: Read> CompressReader<R> {
    pub(crate) fn new(
        inner: R,
        choice: Choice,
        encoder: Option<Encoder>,
        shared: Arc<compressor::Shared>,
    ) -> Self {
        let input = if encoder.is_some() { vec![0; decompressor::BUFFER] } else { Vec::new() };
        Self { inner, choice, encoder, input: input.into(), from: 0, to: 0, shared }
    }

    /// What the body gets, and why.
    #[must_use]
    pub fn choice(&self) -> Choice {
        self.choice
    }

    /// The coding of the stream.
    #[must_use]
    pub fn coding(&self) -> Coding {
        self.choice.coding()
    }

    /// The inner reader.
    #[must_use]
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The inner reader. What is read from it directly is missing in the stream.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The inner reader, wherever it is.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for CompressReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(encoder) = &mut self.encoder else {
            let n = self.inner.read(buf)?;
            self.shared.stats.moved(Coding::Identity, n, n);
            return Ok(n);
        };
        if buf.is_empty() {
            return Ok(0);
        }
        let coding = self.choice.coding();
        loop {
            let ready = encoder.ready();
            if !ready.is_empty() {
                let n = ready.len().min(buf.len());
                buf[..n].copy_from_slice(&ready[..n]);
                encoder.advance(n);
                self.shared.stats.moved(coding, 0, n);
                return Ok(n);
            }
            if encoder.is_finished() {
                return Ok(0);
            }
            if self.from == self.to {
                (self.from, self.to) = (0, self.inner.read(&mut self.input)?);
            }
            let encoded = if self.to == 0 {
                encoder.finish()
            } else {
                encoder.feed(&self.input[self.from..self.to]).map(|n| {
                    self.from += n;
                    self.shared.stats.moved(coding, n, 0);
                })
            };
            encoded.inspect_err(|_| self.shared.stats.failed())?;
        }
    }
}

impl<R: fmt::Debug> fmt::Debug for CompressReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressReader")
            .field("inner", &self.inner)
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}

/// Reads the inner reader, decoded. From [`Decompressor::reader`](crate::Decompressor::reader).
///
/// It reads the inner reader to its end, in pieces of up to 32 KiB: only there is it known that nothing follows the
/// stream. `Ok(0)` means that the stream was whole. What came before is provisional until then.
///
/// An error of the stream comes after the bytes before it, and again on every later `read`. An error of the inner reader
/// passes through, and the next `read` goes on.
pub struct DecompressReader<R> {
    inner: R,
    decoding: Decoding,
    input: Box<[u8]>,
    /// What was read and is not yet decoded.
    from: usize,
    to: usize,
    eof: bool,
}

impl<R: Read> DecompressReader<R> {
    pub(crate) fn new(inner: R, decoding: Decoding) -> Self {
        Self { inner, decoding, input: vec![0; decompressor::BUFFER].into(), from: 0, to: 0, eof: false }
    }

    /// The inner reader.
    #[must_use]
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The inner reader. What is read from it directly is missing in the stream.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The inner reader, wherever it is.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for DecompressReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let step = self.decoding.step(&self.input[self.from..self.to], self.eof, buf)?;
            self.from += step.did.consumed;
            if step.did.produced > 0 || step.done {
                return Ok(step.did.produced);
            }
            if self.from == self.to && !self.eof {
                (self.from, self.to) = (0, 0);
                self.to = self.inner.read(&mut self.input)?;
                self.eof = self.to == 0;
            }
        }
    }
}

impl<R: fmt::Debug> fmt::Debug for DecompressReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecompressReader").field("inner", &self.inner).finish_non_exhaustive()
    }
}
