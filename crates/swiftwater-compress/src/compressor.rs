//! The handle that encodes.

use std::{
    borrow::Cow,
    fmt,
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use swiftwater_core::{BuildError, Knob, Observe, Observer, Tunable, Visitor};

use crate::{
    codec::Size,
    coding::Coding,
    encoder::Encoder,
    error::Error,
    hints::Hints,
    policy::{Choice, Policy, Question, Reason, Rules},
    reader::CompressReader,
    stats::Encoded,
    writer::CompressWriter,
};

/// Encodes bodies, each in the coding that its [`Policy`] chooses: a handle, cloned freely; all clones are one compressor.
#[derive(Clone)]
pub struct Compressor(Arc<Shared>);

pub(crate) struct Shared {
    policy: Box<dyn Policy>,
    enabled: AtomicBool,
    pub(crate) stats: Encoded,
}

impl Compressor {
    /// Starts from the defaults: [`Rules`].
    pub fn builder() -> CompressorBuilder {
        CompressorBuilder { policy: Box::new(Rules::new()), enabled: true }
    }

    /// What a body with these hints would get. It counts nothing.
    #[must_use]
    pub fn choose(&self, hints: &Hints<'_>) -> Choice {
        self.0.choose(hints)
    }

    /// A writer that encodes what it is given into `inner`. Call [`finish`](CompressWriter::finish) at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if the codec has no memory.
    pub fn writer<W: Write>(&self, inner: W, hints: &Hints<'_>) -> Result<CompressWriter<W>, Error> {
        let (choice, encoder) = self.0.start(hints, None)?;
        Ok(CompressWriter::new(inner, choice, encoder, self.0.clone()))
    }

    /// A reader of `inner`, encoded.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if the codec has no memory.
    pub fn reader<R: Read>(&self, inner: R, hints: &Hints<'_>) -> Result<CompressReader<R>, Error> {
        let (choice, encoder) = self.0.start(hints, None)?;
        Ok(CompressReader::new(inner, choice, encoder, self.0.clone()))
    }

    /// All of a body at once. Length and first bytes are taken from `data`, whatever the hints say.
    ///
    /// ```
    /// use swiftwater_compress::{Accepted, Coding, Compressor, Hints};
    ///
    /// # #[cfg(feature = "gzip")] {
    /// let accepted = Accepted::parse(["gzip"]);
    /// let page = "row\n".repeat(1000);
    /// let body = Compressor::builder().build()?.compress(&Hints::new().accepted(&accepted), page.as_bytes())?;
    /// assert_eq!(body.coding(), Coding::Gzip);
    /// assert!(body.bytes().len() < page.len() / 10);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Codec`] if the codec fails, for lack of memory above all.
    pub fn compress<'d>(&self, hints: &Hints<'_>, data: &'d [u8]) -> Result<Compressed<'d>, Error> {
        let head = &data[..data.len().min(HEAD)];
        let hints = hints.head(head).size(data.len() as u64);
        let (choice, encoder) = self.0.start(&hints, Some(data.len() as u64))?;
        let Some(mut encoder) = encoder else {
            self.0.stats.moved(Coding::Identity, data.len(), data.len());
            return Ok(Compressed { bytes: Cow::Borrowed(data), choice });
        };
        let encoded = (|| {
            let mut rest = data;
            while !rest.is_empty() {
                rest = &rest[encoder.feed(rest)?..];
            }
            encoder.finish()
        })();
        if let Err(error) = encoded {
            self.0.stats.failed();
            return Err(error);
        }
        let bytes = encoder.into_ready();
        self.0.stats.moved(choice.coding(), data.len(), bytes.len());
        Ok(Compressed { bytes: Cow::Owned(bytes), choice })
    }

    /// Off: every body is identity from now on. Bodies under way go on as they began, since their headers are out.
    pub fn set_enabled(&self, enabled: bool) {
        // Relaxed: a value in itself.
        self.0.enabled.store(enabled, Relaxed);
    }

    /// Whether it encodes anything at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.enabled.load(Relaxed)
    }
}

impl Observe for Compressor {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.0.observe(visitor);
    }
}

/// The knobs of its policy.
impl Tunable for Compressor {
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        self.0.policy.knobs(each);
    }
}

impl From<&Compressor> for Observer {
    fn from(compressor: &Compressor) -> Self {
        Self::from(&compressor.0)
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("enabled", &self.is_enabled()).finish_non_exhaustive()
    }
}

impl Shared {
    fn choose(&self, hints: &Hints<'_>) -> Choice {
        // Relaxed, as where it is set.
        if !self.enabled.load(Relaxed) {
            return Choice::identity(Reason::Disabled);
        }
        if is_encoded(hints.content_encoding) {
            return Choice::identity(Reason::AlreadyEncoded);
        }
        let question = Question::new(*hints);
        let choice = self.policy.choose(&question);
        // Only a policy that breaks its laws gets here with something else.
        let lawful = choice.coding() == Coding::Identity
            || (question.accepts(choice.coding()) && choice.setting().check().is_ok());
        if lawful { choice } else { Choice::identity(Reason::NotAccepted) }
    }

    fn start(&self, hints: &Hints<'_>, exactly: Option<u64>) -> Result<(Choice, Option<Encoder>), Error> {
        let choice = self.choose(hints);
        let size = match (exactly, hints.size) {
            (Some(size), _) => Size::Exactly(size),
            (None, Some(size)) => Size::Hint(size),
            (None, None) => Size::Unknown,
        };
        let encoder = if choice.coding() == Coding::Identity {
            None
        } else {
            let encoder = Encoder::new(choice.setting(), size);
            Some(encoder.inspect_err(|_| self.stats.failed())?)
        };
        self.stats.started(choice);
        Ok((choice, encoder))
    }
}

impl Observe for Shared {
    fn observe(&self, visitor: &mut dyn Visitor) {
        // Relaxed, as where it is set.
        self.stats.show(self.enabled.load(Relaxed), visitor);
    }
}

fn is_encoded(content_encoding: &str) -> bool {
    let mut tokens = content_encoding.split(',').map(str::trim);
    tokens.any(|token| !token.is_empty() && !token.eq_ignore_ascii_case("identity"))
}

/// Makes a [`Compressor`].
#[must_use = "a builder does nothing until `build`"]
pub struct CompressorBuilder {
    policy: Box<dyn Policy>,
    enabled: bool,
}

impl CompressorBuilder {
    /// What chooses. Default: [`Rules`].
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.policy = Box::new(policy);
        self
    }

    /// `false` makes a compressor that leaves everything as it is, until [`set_enabled`](Compressor::set_enabled).
    /// Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Makes the compressor.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the first of the policy's settings that cannot work: a level that its coding does not have,
    /// or a coding whose feature is off in this build.
    pub fn build(self) -> Result<Compressor, BuildError> {
        let mut wrong = None;
        self.policy.settings(&mut |setting| {
            if let (None, Err(error)) = (&wrong, setting.check()) {
                wrong = Some(error);
            }
        });
        if let Some(error) = wrong {
            return Err(error);
        }
        Ok(Compressor(Arc::new(Shared {
            policy: self.policy,
            enabled: AtomicBool::new(self.enabled),
            stats: Encoded::default(),
        })))
    }
}

impl fmt::Debug for CompressorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressorBuilder").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

/// A whole body, encoded; or, as identity, the very bytes that were given.
#[derive(Clone, Debug)]
pub struct Compressed<'d> {
    bytes: Cow<'d, [u8]>,
    choice: Choice,
}

impl<'d> Compressed<'d> {
    /// The bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The coding they are in.
    #[must_use]
    pub fn coding(&self) -> Coding {
        self.choice.coding()
    }

    /// The coding with its level, and why.
    #[must_use]
    pub fn choice(&self) -> Choice {
        self.choice
    }

    /// The bytes to keep; copied only as identity, if they are to be owned.
    #[must_use]
    pub fn into_bytes(self) -> Cow<'d, [u8]> {
        self.bytes
    }
}

/// As many first bytes as a policy may want to see.
const HEAD: usize = 512;
