//! What is known of a body before it is encoded.

use crate::accept::Accepted;

/// What is known of a body before its first byte: all of it optional, none of it trusted.
///
/// ```
/// use swiftwater_compress::{Accepted, Hints};
///
/// let accepted = Accepted::parse(["gzip, br"]);
/// let hints = Hints::new().accepted(&accepted).content_type("application/json").size(120_000);
/// # let _ = hints;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Hints<'a> {
    pub(crate) accepted: Option<&'a Accepted>,
    pub(crate) content_encoding: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) head: &'a [u8],
    pub(crate) size: Option<u64>,
}

impl<'a> Hints<'a> {
    /// Nothing is known.
    pub const fn new() -> Self {
        Self { accepted: None, content_encoding: "", content_type: "", head: &[], size: None }
    }

    /// What the receiver accepts. Without it nobody was asked: the policy alone decides, and `lz4` is not offered by
    /// [`Rules`](crate::Rules).
    pub const fn accepted(mut self, accepted: &'a Accepted) -> Self {
        self.accepted = Some(accepted);
        self
    }

    /// The body's `Content-Encoding`. If it names anything but `identity`, the body stays as it is.
    pub const fn content_encoding(mut self, value: &'a str) -> Self {
        self.content_encoding = value;
        self
    }

    /// The body's `Content-Type`, parameters included.
    pub const fn content_type(mut self, value: &'a str) -> Self {
        self.content_type = value;
        self
    }

    /// The first bytes of the body, 16 or more if there are as many. One-shot compression looks for itself.
    pub const fn head(mut self, bytes: &'a [u8]) -> Self {
        self.head = bytes;
        self
    }

    /// The length of the body. A wrong one costs memory or some of the gain, never correctness.
    pub const fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }
}
