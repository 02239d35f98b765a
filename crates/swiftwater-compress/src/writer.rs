//! The writers: whatever goes wrong inside, no byte is lost and none is written twice.
//!
//! Both keep what the machine made until the inner writer has taken it, byte by byte, and take new input only once
//! that is done. So an inner error (`WouldBlock`, a full disk, anything) comes before any of the input is taken, and the
//! caller repeats the call.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
    sync::Arc,
};

use crate::{
    coding::Coding, compressor, decompressor, decompressor::Decoding, encoder::Encoder, policy::Choice,
};

/// Encodes what is written to it into the inner writer. From [`Compressor::writer`](crate::Compressor::writer).
///
/// [`finish`](Self::finish) ends the stream. **Dropped without it, the stream is cut**: every decoder of ours, and every
/// other that checks the end, says so. (Identity has no end to check: there, as with any file, a cut goes unseen.) So a
/// panic or an early return never passes off half a body as a whole one.
///
/// `write` takes at most one block of the codec, 64 or 128 KiB, and writes what the blocks before have become: it may
/// take bytes and write none. `flush` makes everything so far decodable, and costs a few bytes and some of the gain each
/// time.
///
/// After an error of the inner writer nothing is lost, and nothing taken that was not reported: the same call can be made
/// again.
pub struct CompressWriter<W: Write> {
    inner: W,
    choice: Choice,
    /// `None` for identity.
    encoder: Option<Encoder>,
    finished: bool,
    shared: Arc<compressor::Shared>,
}

impl<W: Write> CompressWriter<W> {
    pub(crate) fn new(
        inner: W,
        choice: Choice,
        encoder: Option<Encoder>,
        shared: Arc<compressor::Shared>,
    ) -> Self {
        Self { inner, choice, encoder, finished: false, shared }
    }

    /// Ends the stream and returns the inner writer, which is not flushed.
    ///
    /// # Errors
    ///
    /// As [`try_finish`](Self::try_finish); the writer is gone then, so call that where another try makes sense.
    pub fn finish(mut self) -> io::Result<W> {
        self.try_finish()?;
        Ok(self.inner)
    }

    /// Ends the stream. Once it is `Ok`, the inner writer has everything, and writing more is an error.
    ///
    /// # Errors
    ///
    /// Those of the inner writer: call again to go on where it stopped. [`Error::Codec`](crate::Error::Codec) if the codec
    /// fails, for good.
    pub fn try_finish(&mut self) -> io::Result<()> {
        self.drain()?;
        if let Some(encoder) = &mut self.encoder {
            encoder.finish().inspect_err(|_| self.shared.stats.failed())?;
        }
        self.finished = true;
        self.drain()
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

    /// The inner writer.
    #[must_use]
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The inner writer. What is written to it directly lands in the middle of the stream.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    fn drain(&mut self) -> io::Result<()> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        while !encoder.ready().is_empty() {
            let n = write_some(&mut self.inner, encoder.ready())?;
            encoder.advance(n);
            self.shared.stats.moved(self.choice.coding(), 0, n);
        }
        Ok(())
    }
}

impl<W: Write> Write for CompressWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.finished {
            return Err(finished());
        }
        self.drain()?;
        let Some(encoder) = &mut self.encoder else {
            let n = self.inner.write(buf)?;
            self.shared.stats.moved(Coding::Identity, n, n);
            return Ok(n);
        };
        let n = encoder.feed(buf).inspect_err(|_| self.shared.stats.failed())?;
        self.shared.stats.moved(self.choice.coding(), n, 0);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain()?;
        if let Some(encoder) = &mut self.encoder {
            encoder.flush().inspect_err(|_| self.shared.stats.failed())?;
        }
        self.drain()?;
        self.inner.flush()
    }
}

impl<W: Write + fmt::Debug> fmt::Debug for CompressWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressWriter")
            .field("inner", &self.inner)
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}

/// Decodes what is written to it into the inner writer. From [`Decompressor::writer`](crate::Decompressor::writer).
///
/// [`finish`](Self::finish) says whether the stream was whole; without it nobody knows. Bytes before an error are written
/// before the error is told, and what was written is provisional until `finish` is `Ok`.
///
/// After an error of the inner writer nothing is lost: the same call can be made again. An error of the stream stays.
pub struct DecompressWriter<W: Write> {
    inner: W,
    decoding: Decoding,
    out: Box<[u8]>,
    /// What is ready and not yet written.
    from: usize,
    to: usize,
    /// Somebody said that the input is over.
    eof: bool,
    /// And it was.
    finished: bool,
}

impl<W: Write> DecompressWriter<W> {
    pub(crate) fn new(inner: W, decoding: Decoding) -> Self {
        let out = vec![0; decompressor::BUFFER].into();
        Self { inner, decoding, out, from: 0, to: 0, eof: false, finished: false }
    }

    /// Says that the input is over, and returns the inner writer if the stream is, too.
    ///
    /// # Errors
    ///
    /// As [`try_finish`](Self::try_finish); the writer is gone then.
    pub fn finish(mut self) -> io::Result<W> {
        self.try_finish()?;
        Ok(self.inner)
    }

    /// Says that the input is over; writing more is an error from then on. Once it is `Ok`, the stream was whole and the
    /// inner writer has all of it.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`](crate::Error::Truncated) if more should have come; those of the inner writer: call again to
    /// go on.
    pub fn try_finish(&mut self) -> io::Result<()> {
        self.eof = true;
        while !self.finished {
            self.pump(&[])?;
        }
        self.drain()
    }

    /// The inner writer.
    #[must_use]
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The inner writer. What is written to it directly lands in the middle of the body.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    fn drain(&mut self) -> io::Result<()> {
        while self.from < self.to {
            self.from += write_some(&mut self.inner, &self.out[self.from..self.to])?;
        }
        Ok(())
    }

    /// Writes what is ready, then makes more ready. Returns what it took and made.
    fn pump(&mut self, input: &[u8]) -> io::Result<(usize, usize)> {
        self.drain()?;
        let step = self.decoding.step(input, self.eof, &mut self.out)?;
        (self.from, self.to) = (0, step.did.produced);
        self.finished = step.done;
        Ok((step.did.consumed, step.did.produced))
    }
}

impl<W: Write> Write for DecompressWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.eof {
            self.try_finish()?; // an error of the stream stays
            return Err(finished());
        }
        // Where nothing is taken, something was made, or it fails: so this ends.
        loop {
            let (consumed, _) = self.pump(buf)?;
            if consumed > 0 {
                return Ok(consumed);
            }
        }
    }

    /// Writes everything that the input so far decodes to.
    fn flush(&mut self) -> io::Result<()> {
        while !self.finished {
            let (_, produced) = self.pump(&[])?;
            if produced == 0 {
                break;
            }
        }
        self.drain()?;
        self.inner.flush()
    }
}

impl<W: Write + fmt::Debug> fmt::Debug for DecompressWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecompressWriter").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn finished() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "the stream has been finished")
}

/// At least one byte, or an error. Like `write_all` it goes on where it was interrupted, since nobody calls `flush` or
/// `finish` again for that.
fn write_some<W: Write>(inner: &mut W, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match inner.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
