//! Which coding a body gets.

mod rules;

use std::{fmt, sync::Arc};

use swiftwater_core::Knob;

pub use self::rules::Rules;
use crate::{accept::Accepted, coding::Coding, hints::Hints, setting::Setting};

/// Chooses a setting for each body, before its first byte.
///
/// # Laws
///
/// 1. [`choose`](Self::choose) answers at once: it does not block, and a panic in it is the caller's.
/// 2. It chooses identity or one of the [`settings`](Self::settings), whatever the question.
/// 3. It chooses nothing but identity that the question does not [`accept`](Question::accepts).
/// 4. The same settings come on every call of [`settings`](Self::settings).
///
/// `conformance::policy` (feature `testing`) checks 2 to 4. A [`Compressor`](crate::Compressor) relies on none of
/// them: what breaks 2 or 3 becomes identity, for [`Reason::NotAccepted`].
pub trait Policy: Send + Sync + 'static {
    /// The setting for one body, and why.
    fn choose(&self, question: &Question<'_>) -> Choice;

    /// Calls `each` with every setting that it may choose, identity apart, so that a builder can judge them.
    fn settings(&self, each: &mut dyn FnMut(Setting));

    /// Calls `each` once per knob, as [`Tunable`](swiftwater_core::Tunable) says. Default: there is none.
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        let _ = each;
    }
}

impl<P: Policy + ?Sized> Policy for Box<P> {
    fn choose(&self, question: &Question<'_>) -> Choice {
        (**self).choose(question)
    }

    fn settings(&self, each: &mut dyn FnMut(Setting)) {
        (**self).settings(each);
    }

    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        (**self).knobs(each);
    }
}

impl<P: Policy + ?Sized> Policy for Arc<P> {
    fn choose(&self, question: &Question<'_>) -> Choice {
        (**self).choose(question)
    }

    fn settings(&self, each: &mut dyn FnMut(Setting)) {
        (**self).settings(each);
    }

    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        (**self).knobs(each);
    }
}

/// Always the same setting, where the receiver accepts it; otherwise identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is its setting")]
pub struct Fixed(pub Setting);

impl Policy for Fixed {
    fn choose(&self, question: &Question<'_>) -> Choice {
        if question.accepts(self.0.coding()) {
            Choice::new(self.0, Reason::Fixed)
        } else {
            Choice::identity(Reason::NotAccepted)
        }
    }

    fn settings(&self, each: &mut dyn FnMut(Setting)) {
        each(self.0);
    }
}

/// What a [`Policy`] is asked: the [`Hints`] of a body, to read.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a>(Hints<'a>);

impl<'a> Question<'a> {
    /// For tests of policies; the [`Compressor`](crate::Compressor) asks by itself.
    #[must_use]
    pub const fn new(hints: Hints<'a>) -> Self {
        Self(hints)
    }

    /// What the receiver accepts, if it was asked.
    #[must_use]
    pub const fn accepted(&self) -> Option<&'a Accepted> {
        self.0.accepted
    }

    /// Whether the receiver accepts it. One that was not asked accepts everything.
    #[must_use]
    pub fn accepts(&self, coding: Coding) -> bool {
        self.0.accepted.is_none_or(|accepted| accepted.accepts(coding))
    }

    /// `Content-Type`; empty if unknown.
    #[must_use]
    pub const fn content_type(&self) -> &'a str {
        self.0.content_type
    }

    /// The first bytes of the body; empty if unknown.
    #[must_use]
    pub const fn head(&self) -> &'a [u8] {
        self.0.head
    }

    /// The length of the body, if known.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        self.0.size
    }
}

/// What a body gets, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    setting: Setting,
    reason: Reason,
}

impl Choice {
    /// This setting, for this reason.
    #[must_use]
    pub const fn new(setting: Setting, reason: Reason) -> Self {
        Self { setting, reason }
    }

    /// The bytes as they are.
    #[must_use]
    pub const fn identity(reason: Reason) -> Self {
        Self::new(Setting::identity(), reason)
    }

    /// The coding: what `Content-Encoding` says, unless it is identity.
    #[must_use]
    pub const fn coding(&self) -> Coding {
        self.setting.coding()
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The coding with its level.
    #[must_use]
    pub const fn setting(&self) -> Setting {
        self.setting
    }
}

/// Why a body got what it got: for logs and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The body is encoded already.
    AlreadyEncoded,
    /// Its first bytes are those of a compressed format.
    CompressedData,
    /// Its content type is that of a compressed format.
    CompressedType,
    /// For a reason of a policy of your own.
    Custom,
    /// The coding for everything that needs no other.
    Default,
    /// The compressor is switched off.
    Disabled,
    /// The policy is [`Fixed`].
    Fixed,
    /// There was a reason against it, but the receiver refuses identity.
    IdentityRefused,
    /// It is binary, and large.
    LargeBinary,
    /// It is JSON, and large.
    LargeJson,
    /// Not what the rule says: the receiver likes this one better, or refuses the rule's.
    Negotiated,
    /// The receiver accepts nothing that there is.
    NotAccepted,
    /// It is too small to gain anything.
    TooSmall,
}

impl Reason {
    /// All of them, in alphabetical order.
    pub(crate) const ALL: [Self; 13] = [
        Self::AlreadyEncoded,
        Self::CompressedData,
        Self::CompressedType,
        Self::Custom,
        Self::Default,
        Self::Disabled,
        Self::Fixed,
        Self::IdentityRefused,
        Self::LargeBinary,
        Self::LargeJson,
        Self::Negotiated,
        Self::NotAccepted,
        Self::TooSmall,
    ];
}

/// In words joined by `_`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AlreadyEncoded => "already_encoded",
            Self::CompressedData => "compressed_data",
            Self::CompressedType => "compressed_type",
            Self::Custom => "custom",
            Self::Default => "default",
            Self::Disabled => "disabled",
            Self::Fixed => "fixed",
            Self::IdentityRefused => "identity_refused",
            Self::LargeBinary => "large_binary",
            Self::LargeJson => "large_json",
            Self::Negotiated => "negotiated",
            Self::NotAccepted => "not_accepted",
            Self::TooSmall => "too_small",
        })
    }
}
