//! The classic table.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use swiftwater_core::{Desc, Knob, Unit};

use super::{Choice, Policy, Question, Reason};
use crate::{coding::Coding, setting::Setting};

/// The classic table, from top to bottom; the first line that fits counts:
///
/// | The body | gets | because |
/// |---|---|---|
/// | has the content type of a compressed format (images, video, audio, archives, fonts; not SVG, BMP, WAV) | identity | [`CompressedType`](Reason::CompressedType) |
/// | begins like one, as far as its [`head`](crate::Hints::head) is known | identity | [`CompressedData`](Reason::CompressedData) |
/// | is known to be shorter than [`min_size`](Self::min_size) | identity | [`TooSmall`](Reason::TooSmall) |
/// | is JSON of at least [`large`](Self::large) | brotli 4 | [`LargeJson`](Reason::LargeJson) |
/// | is binary of at least [`large`](Self::large) | lz4 | [`LargeBinary`](Reason::LargeBinary) |
/// | is anything else, or of unknown length | gzip 6 | [`Default`](Reason::Default) |
///
/// Then the receiver is heard. Of the rule's coding, gzip 6, zstd 3 and brotli 4 it gets the one that it
/// [weighs](crate::Accepted::weight) most, in this order where it weighs several the same; if that is not the rule's
/// coding, the reason is [`Negotiated`](Reason::Negotiated). Lz4 is among them only if the receiver named it. If it accepts
/// none, or likes identity better than any, it gets identity; if it refuses identity, it gets the best of them even where
/// the table says identity ([`IdentityRefused`](Reason::IdentityRefused)). Codings that this build lacks count as
/// refused.
///
/// The table knows neither the link nor the load. It is what most servers do, no more.
#[derive(Debug)]
pub struct Rules {
    shared: Arc<Shared>,
    /// Where the knob ends.
    most_min_size: u64,
    large: u64,
}

/// What the knob holds on to.
#[derive(Debug)]
struct Shared {
    min_size: AtomicU64,
}

impl Rules {
    /// The table with its defaults.
    #[must_use]
    pub fn new() -> Self {
        let min_size = AtomicU64::new(DEFAULT_MIN_SIZE);
        Self { shared: Arc::new(Shared { min_size }), most_min_size: KNOB_MIN_SIZE, large: DEFAULT_LARGE }
    }

    /// Bodies known to be shorter stay as they are. Default 1 KiB, which fits in one packet anyway; lower it where every
    /// byte is paid for. Also a knob, from 0 to 1 MiB, or to what is set here if that is more.
    #[must_use]
    pub fn min_size(mut self, bytes: u64) -> Self {
        self.most_min_size = bytes.max(KNOB_MIN_SIZE);
        // Relaxed, as everywhere: a value in itself.
        self.shared.min_size.store(bytes, Relaxed);
        self
    }

    /// From where on a body is large. Default 64 KiB.
    #[must_use]
    pub fn large(mut self, bytes: u64) -> Self {
        self.large = bytes;
        self
    }

    /// The line of the table.
    fn by_table(&self, question: &Question<'_>) -> Choice {
        let class = Class::of(question.content_type(), question.head());
        if class == Class::Compressed {
            return Choice::identity(Reason::CompressedType);
        }
        if is_compressed(question.head()) {
            return Choice::identity(Reason::CompressedData);
        }
        if question.size().is_some_and(|size| size < self.shared.min_size.load(Relaxed)) {
            return Choice::identity(Reason::TooSmall);
        }
        let large = question.size().is_some_and(|size| size >= self.large);
        match class {
            Class::Json if large => Choice::new(BROTLI, Reason::LargeJson),
            Class::Binary if large => Choice::new(LZ4, Reason::LargeBinary),
            _ => Choice::new(GZIP, Reason::Default),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Rules {
    fn choose(&self, question: &Question<'_>) -> Choice {
        let choice = self.by_table(question);
        let weight = |coding: Coding| match question.accepted() {
            _ if !coding.is_available() => 0,
            Some(accepted) => accepted.weight(coding),
            // Nobody was asked: what HTTP knows, and identity where the table says so.
            None => u16::from(coding != Coding::Lz4),
        };
        let mut best: Option<(Setting, u16)> = None;
        for setting in [choice.setting(), GZIP, ZSTD, BROTLI] {
            let weight = weight(setting.coding());
            let better = best.is_none_or(|(_, most)| weight > most);
            if setting.coding() != Coding::Identity && weight > 0 && better {
                best = Some((setting, weight));
            }
        }
        let identity = weight(Coding::Identity);
        match best {
            None if choice.coding() == Coding::Identity => choice,
            None => Choice::identity(Reason::NotAccepted),
            Some((setting, _)) if choice.coding() == Coding::Identity => {
                if identity == 0 {
                    Choice::new(setting, Reason::IdentityRefused)
                } else {
                    choice
                }
            }
            Some((_, most)) if identity > most => Choice::identity(Reason::Negotiated),
            Some((setting, _)) if setting == choice.setting() => choice,
            Some((setting, _)) => Choice::new(setting, Reason::Negotiated),
        }
    }

    fn settings(&self, each: &mut dyn FnMut(Setting)) {
        for setting in [BROTLI, GZIP, LZ4, ZSTD] {
            if setting.coding().is_available() {
                each(setting);
            }
        }
    }

    /// [`min_size`](Self::min_size): the next body is judged by it.
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        each(Knob::new(
            &MIN_SIZE,
            0.0..=self.most_min_size as f64,
            1.0,
            &self.shared,
            |shared| shared.min_size.load(Relaxed) as f64,
            |shared, value| shared.min_size.store(value as u64, Relaxed),
        ));
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Class {
    Binary,
    Compressed,
    Json,
    Other,
}

impl Class {
    fn of(content_type: &str, head: &[u8]) -> Self {
        let essence = content_type.split(';').next().unwrap_or("").trim();
        if essence.is_empty() {
            // Text has no zeros.
            return if head.contains(&0) { Self::Binary } else { Self::Other };
        }
        let Some((kind, subtype)) = essence.split_once('/') else { return Self::Other };
        let is = |names: &[&str]| names.iter().any(|name| subtype.eq_ignore_ascii_case(name));
        let ends = |suffix: &str| {
            let start = subtype.len().checked_sub(suffix.len());
            start.and_then(|start| subtype.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        };
        if is(&["json", "json-seq", "x-ndjson", "ndjson", "jsonl"]) || ends("+json") || ends("+json-seq") {
            return Self::Json;
        }
        if ends("+xml") || ends("+yaml") {
            return Self::Other; // image/svg+xml among them
        }
        let plain = match kind.to_ascii_lowercase().as_str() {
            "text" => return Self::Other,
            "audio" => is(PLAIN_AUDIO),
            "font" => is(PLAIN_FONTS),
            "image" => is(PLAIN_IMAGES),
            "video" => false,
            "application" if is(TEXT) => return Self::Other,
            "application" => !(is(ARCHIVES) || ends("+zip") || ends("+gzip")),
            _ => return Self::Other,
        };
        if plain { Self::Binary } else { Self::Compressed }
    }
}

fn is_compressed(head: &[u8]) -> bool {
    let container = |brand: &[u8]| head.get(4..).is_some_and(|rest| rest.starts_with(brand));
    let riff = head.starts_with(b"RIFF") && head.get(8..).is_some_and(|rest| rest.starts_with(b"WEBP"));
    MAGIC.iter().any(|magic| head.starts_with(magic)) || container(b"ftyp") || riff
}

const GZIP: Setting = Setting::gzip(6);
const ZSTD: Setting = Setting::zstd(3);
const BROTLI: Setting = Setting::brotli(4);
const LZ4: Setting = Setting::lz4();

const DEFAULT_MIN_SIZE: u64 = 1024;
const KNOB_MIN_SIZE: u64 = 1 << 20;
const DEFAULT_LARGE: u64 = 64 << 10;

const PLAIN_AUDIO: &[&str] = &["wav", "x-wav", "vnd.wave", "basic", "midi", "l16"];
const PLAIN_FONTS: &[&str] = &["otf", "ttf", "sfnt", "collection"];
const PLAIN_IMAGES: &[&str] = &["bmp", "x-ms-bmp", "vnd.microsoft.icon", "x-icon", "tiff"];
const TEXT: &[&str] = &[
    "xml",
    "javascript",
    "x-javascript",
    "graphql",
    "sql",
    "yaml",
    "x-yaml",
    "toml",
    "x-www-form-urlencoded",
];
const ARCHIVES: &[&str] = &[
    "gzip",
    "x-gzip",
    "zip",
    "x-zip-compressed",
    "zstd",
    "x-xz",
    "x-bzip2",
    "x-7z-compressed",
    "x-rar-compressed",
    "vnd.rar",
    "java-archive",
    "font-woff",
    "font-woff2",
    "vnd.android.package-archive",
];
const MAGIC: &[&[u8]] = &[
    b"\x1f\x8b",           // gzip
    b"\x28\xb5\x2f\xfd",   // zstd
    b"\x04\x22\x4d\x18",   // lz4
    b"\xfd7zXZ\0",         // xz
    b"BZh",                // bzip2
    b"7z\xbc\xaf\x27\x1c", // 7-Zip
    b"PK\x03\x04",         // zip, and office documents in it
    b"Rar!\x1a\x07",       // rar
    b"\x89PNG\r\n\x1a\n",  // png
    b"\xff\xd8\xff",       // jpeg
    b"GIF8",               // gif
    b"OggS",               // ogg
    b"\x1a\x45\xdf\xa3",   // matroska, webm
    b"ID3",                // mp3
    b"fLaC",               // flac
    b"wOF2",               // woff2
    b"wOFF",               // woff
    b"PAR1",               // parquet
];

static MIN_SIZE: Desc = Desc::new("min_size", Unit::Bytes, "bodies known to be shorter stay as they are");
