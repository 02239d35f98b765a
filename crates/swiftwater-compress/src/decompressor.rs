//! The handle that decodes.

use std::{
    fmt,
    io::{Read, Write},
    sync::Arc,
};

use swiftwater_core::{BuildError, Observe, Observer, Visitor};

use crate::{
    coding::{Coding, Codings},
    decoder::{Decoder, Step},
    error::Error,
    limits::Limits,
    reader::DecompressReader,
    stats::Decoded,
    writer::DecompressWriter,
};

/// Decodes bodies within [`Limits`]: a handle, cloned freely; all clones are one decompressor.
///
/// It has no off switch, since bytes that were not decoded are not the body, and no knobs: limits protect against
/// strangers, and automation must not be talked into raising them.
#[derive(Clone)]
pub struct Decompressor(Arc<Shared>);

struct Shared {
    codings: Vec<Coding>,
    limits: Limits,
    stats: Decoded,
}

impl Decompressor {
    /// Starts from the defaults: every coding of this build, the default [`Limits`].
    pub fn builder() -> DecompressorBuilder {
        DecompressorBuilder { codings: None, limits: Limits::new() }
    }

    /// A reader of `inner`, decoded: from a [`Coding`], or from the [`Codings`] of a `Content-Encoding`.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedCoding`], [`Error::LimitExceeded`] with too many codings, or [`Error::Codec`] without memory.
    pub fn reader<R: Read>(
        &self,
        inner: R,
        codings: impl Into<Codings>,
    ) -> Result<DecompressReader<R>, Error> {
        Ok(DecompressReader::new(inner, self.start(&codings.into())?))
    }

    /// A writer that decodes what it is given into `inner`. Call [`finish`](DecompressWriter::finish) at the end, or a cut
    /// goes unseen.
    ///
    /// # Errors
    ///
    /// As [`reader`](Self::reader).
    pub fn writer<W: Write>(
        &self,
        inner: W,
        codings: impl Into<Codings>,
    ) -> Result<DecompressWriter<W>, Error> {
        Ok(DecompressWriter::new(inner, self.start(&codings.into())?))
    }

    /// All of a body at once.
    ///
    /// # Errors
    ///
    /// Those of [`reader`](Self::reader), and whatever is wrong with the stream.
    pub fn decompress(&self, codings: impl Into<Codings>, data: &[u8]) -> Result<Vec<u8>, Error> {
        let mut decoding = self.start(&codings.into())?;
        let (mut out, mut read) = (Vec::new(), 0);
        // In pieces that stay in the processor's cache: cheaper than filling all of `out` with zeros first.
        let mut piece = vec![0; BUFFER];
        loop {
            let step = decoding.step(&data[read..], true, &mut piece)?;
            read += step.did.consumed;
            out.extend(&piece[..step.did.produced]);
            if step.done {
                return Ok(out);
            }
        }
    }

    /// The limits that every body is held to.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    fn start(&self, codings: &Codings) -> Result<Decoding, Error> {
        let shared = &self.0;
        shared.stats.started();
        let refused = codings.as_slice().iter().find(|coding| !shared.codings.contains(coding));
        let decoder = match refused {
            Some(coding) => Err(Error::unsupported(coding.token().as_bytes())),
            None => Decoder::new(codings, &shared.limits),
        };
        let decoder = decoder.inspect_err(|error| shared.stats.failed(error))?;
        Ok(Decoding { decoder, failed: false, shared: shared.clone() })
    }
}

impl Observe for Decompressor {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.0.observe(visitor);
    }
}

impl From<&Decompressor> for Observer {
    fn from(decompressor: &Decompressor) -> Self {
        Self::from(&decompressor.0)
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor")
            .field("codings", &self.0.codings)
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}

impl Observe for Shared {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.stats.show(visitor);
    }
}

/// The decoding of one body, counted.
pub(crate) struct Decoding {
    decoder: Decoder,
    /// An error is counted once, however often it is told.
    failed: bool,
    shared: Arc<Shared>,
}

impl Decoding {
    pub(crate) fn step(&mut self, input: &[u8], eof: bool, out: &mut [u8]) -> Result<Step, Error> {
        let step = self.decoder.step(input, eof, out);
        match &step {
            Ok(step) => self.shared.stats.moved(step.did.consumed, step.did.produced),
            Err(error) if !self.failed => {
                self.failed = true;
                self.shared.stats.failed(error);
            }
            Err(_) => {}
        }
        step
    }
}

/// Makes a [`Decompressor`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct DecompressorBuilder {
    codings: Option<Vec<Coding>>,
    limits: Limits,
}

impl DecompressorBuilder {
    /// What is decoded; anything else is [`Error::UnsupportedCoding`]. Default: every coding of this build. Identity is
    /// always among them.
    pub fn codings(mut self, codings: impl IntoIterator<Item = Coding>) -> Self {
        self.codings = Some(codings.into_iter().collect());
        self
    }

    /// How far it goes. Default: [`Limits::new`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the decompressor.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names a coding whose feature is off in this build, or a limit that lets nothing through.
    pub fn build(self) -> Result<Decompressor, BuildError> {
        let all = || Coding::ALL.into_iter().filter(|coding| coding.is_available()).collect();
        let codings: Vec<Coding> = self.codings.unwrap_or_else(all);
        if let Some(missing) = codings.iter().find(|coding| !coding.is_available()) {
            return Err(BuildError::new("codings", missing, "needs the feature of its name"));
        }
        self.limits.check()?;
        Ok(Decompressor(Arc::new(Shared { codings, limits: self.limits, stats: Decoded::default() })))
    }
}

/// What readers and writers hold between them and their inner one.
pub(crate) const BUFFER: usize = 32 << 10;
