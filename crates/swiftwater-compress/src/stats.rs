//! What is counted, and how it is described.

use swiftwater_core::{Counter, Desc, Observe, Unit, Visitor};

use crate::{
    coding::Coding,
    error::{Error, Limit},
    policy::{Choice, Reason},
};

/// Of a compressor.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    by_coding: [Bodies; Coding::ALL.len()],
    by_reason: [Reasoned; Reason::ALL.len()],
    failed: Counter,
}

impl Encoded {
    pub(crate) fn started(&self, choice: Choice) {
        self.by_coding[choice.coding() as usize].bodies.add(1);
        self.by_reason[choice.reason() as usize].0.add(1);
    }

    pub(crate) fn moved(&self, coding: Coding, bytes_in: usize, bytes_out: usize) {
        self.by_coding[coding as usize].moved(bytes_in, bytes_out);
    }

    pub(crate) fn failed(&self) {
        self.failed.add(1);
    }

    pub(crate) fn show(&self, enabled: bool, visitor: &mut dyn Visitor) {
        visitor.counter(&FAILED, self.failed.read());
        visitor.state(&MODE, if enabled { &"on" } else { &"off" });
        for coding in Coding::ALL {
            visitor.part("coding", &coding, &self.by_coding[coding as usize]);
        }
        for reason in Reason::ALL {
            visitor.part("reason", &reason, &self.by_reason[reason as usize]);
        }
    }
}

/// Of a decompressor.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    all: Bodies,
    checksum: Counter,
    codec: Counter,
    corrupt: Counter,
    dictionary: Counter,
    limits: [Limited; Self::LIMITS.len()],
    trailing: Counter,
    truncated: Counter,
    unsupported: Counter,
}

impl Decoded {
    const LIMITS: [(Limit, &'static str); 8] = [
        (Limit::Codings, "codings"),
        (Limit::DecodedBytes, "decoded_bytes"),
        (Limit::EncodedBytes, "encoded_bytes"),
        (Limit::HeaderBytes, "header_bytes"),
        (Limit::Members, "members"),
        (Limit::Ratio, "ratio"),
        (Limit::SkippedBytes, "skipped_bytes"),
        (Limit::Window, "window"),
    ];

    pub(crate) fn started(&self) {
        self.all.bodies.add(1);
    }

    pub(crate) fn moved(&self, bytes_in: usize, bytes_out: usize) {
        self.all.moved(bytes_in, bytes_out);
    }

    pub(crate) fn failed(&self, error: &Error) {
        let counter = match error {
            Error::Checksum { .. } => &self.checksum,
            Error::Codec { .. } => &self.codec,
            Error::Corrupt { .. } => &self.corrupt,
            Error::DictionaryRequired { .. } => &self.dictionary,
            Error::LimitExceeded { which, .. } => &self.limits[*which as usize].0,
            Error::TrailingData { .. } => &self.trailing,
            Error::Truncated { .. } => &self.truncated,
            Error::UnsupportedCoding { .. } => &self.unsupported,
        };
        counter.add(1);
    }

    pub(crate) fn show(&self, visitor: &mut dyn Visitor) {
        self.all.observe(visitor);
        visitor.counter(&CHECKSUM, self.checksum.read());
        visitor.counter(&CODEC, self.codec.read());
        visitor.counter(&CORRUPT, self.corrupt.read());
        visitor.counter(&DICTIONARY, self.dictionary.read());
        visitor.counter(&TRAILING, self.trailing.read());
        visitor.counter(&TRUNCATED, self.truncated.read());
        visitor.counter(&UNSUPPORTED, self.unsupported.read());
        for (limit, name) in Self::LIMITS {
            visitor.part("limit", &name, &self.limits[limit as usize]);
        }
    }
}

#[derive(Debug, Default)]
struct Bodies {
    bodies: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
}

impl Bodies {
    fn moved(&self, bytes_in: usize, bytes_out: usize) {
        if bytes_in > 0 {
            self.bytes_in.add(bytes_in as u64);
        }
        if bytes_out > 0 {
            self.bytes_out.add(bytes_out as u64);
        }
    }
}

impl Observe for Bodies {
    fn observe(&self, visitor: &mut dyn Visitor) {
        visitor.counter(&BODIES, self.bodies.read());
        visitor.counter(&BYTES_IN, self.bytes_in.read());
        visitor.counter(&BYTES_OUT, self.bytes_out.read());
    }
}

#[derive(Debug, Default)]
struct Reasoned(Counter);

impl Observe for Reasoned {
    fn observe(&self, visitor: &mut dyn Visitor) {
        visitor.counter(&CHOSEN, self.0.read());
    }
}

#[derive(Debug, Default)]
struct Limited(Counter);

impl Observe for Limited {
    fn observe(&self, visitor: &mut dyn Visitor) {
        visitor.counter(&EXCEEDED, self.0.read());
    }
}

static BODIES: Desc = Desc::new("bodies", Unit::Count, "bodies begun");
static BYTES_IN: Desc = Desc::new("input", Unit::Bytes, "bytes taken in");
static BYTES_OUT: Desc = Desc::new("output", Unit::Bytes, "bytes given out");
static CHOSEN: Desc = Desc::new("chosen", Unit::Count, "bodies whose coding was chosen for this reason");
static EXCEEDED: Desc = Desc::new("exceeded", Unit::Count, "bodies that went beyond this limit");
static FAILED: Desc = Desc::new("failed", Unit::Count, "calls that a codec failed in");
static MODE: Desc = Desc::new("mode", Unit::Count, "on, or off (everything is identity)");
static CHECKSUM: Desc = Desc::new("failed_checksum", Unit::Count, "bodies that did not match their checksum");
static CODEC: Desc = Desc::new("failed_codec", Unit::Count, "bodies that a codec failed on");
static CORRUPT: Desc = Desc::new("failed_corrupt", Unit::Count, "bodies that were not valid");
static DICTIONARY: Desc = Desc::new("failed_dictionary", Unit::Count, "bodies that need a dictionary");
static TRAILING: Desc = Desc::new("failed_trailing", Unit::Count, "bodies with something after their end");
static TRUNCATED: Desc = Desc::new("failed_truncated", Unit::Count, "bodies that were cut off");
static UNSUPPORTED: Desc =
    Desc::new("failed_unsupported", Unit::Count, "bodies in a coding that is not decoded");
