//! What a client says it can decode: RFC 9110, sections 12.4.2 and 12.5.3.

use crate::coding::Coding;

/// The `Accept-Encoding` fields of a request, read once.
///
/// | The client sent | What it accepts |
/// |---|---|
/// | no such field | identity. The RFC allows anything then, but who cannot decode does not know the field either |
/// | an empty field, or only names unknown here | identity |
/// | `gzip, br;q=0.5` | these two, gzip rather than brotli, and identity if it must be |
/// | `gzip;q=0` | not gzip |
/// | `*` | gzip, brotli and zstd as far as not named elsewhere; `lz4`, which HTTP does not know, only by name |
/// | `identity;q=0`, or `*;q=0` without `identity` | not identity (which it gets all the same if there is nothing else: an answer that may be unreadable beats a 406) |
///
/// Names and `q` are read in any case, `x-gzip` is gzip, several fields count as one. What is no valid element grants
/// nothing: a coding named with a weight that is none is refused. Of a coding named twice the lower weight counts.
///
/// ```
/// use swiftwater_compress::{Accepted, Coding};
///
/// let accepted = Accepted::parse(["gzip;q=0.8, zstd", "lz4;q=0"]);
/// assert!(accepted.accepts(Coding::Gzip) && accepted.accepts(Coding::Identity));
/// assert!(!accepted.accepts(Coding::Lz4) && !accepted.accepts(Coding::Brotli));
/// assert!(accepted.weight(Coding::Zstd) > accepted.weight(Coding::Gzip));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// In thousandths; by `Coding::ALL`.
    named: [Option<u16>; Coding::ALL.len()],
    any: Option<u16>,
}

impl Accepted {
    /// Reads the values of all `Accept-Encoding` fields. It never fails: what it does not understand grants nothing.
    pub fn parse<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Self {
        let mut accepted = Self::default();
        for value in values {
            for element in value.as_ref().split(|&byte| byte == b',') {
                accepted.read(element);
            }
        }
        accepted
    }

    /// Whether a body in this coding is welcome.
    #[must_use]
    pub fn accepts(&self, coding: Coding) -> bool {
        self.weight(coding) > 0
    }

    /// How welcome it is, in thousandths: 1000 for a coding without `q`, 0 for one that is refused. Identity that is
    /// neither named nor meant by `*` has 1: acceptable, after everything else.
    #[must_use]
    pub fn weight(&self, coding: Coding) -> u16 {
        let unnamed = match coding {
            Coding::Identity => Some(self.any.unwrap_or(LEAST)),
            Coding::Lz4 => None, // `*` speaks of what HTTP knows
            Coding::Brotli | Coding::Gzip | Coding::Zstd => self.any,
        };
        self.named[coding as usize].or(unnamed).unwrap_or(0)
    }

    fn read(&mut self, element: &[u8]) {
        let (name, parameter) = match element.iter().position(|&byte| byte == b';') {
            Some(at) => (&element[..at], Some(&element[at + 1..])),
            None => (element, None),
        };
        let name = trim(name);
        let weight = parameter.map_or(Some(WHOLE), |parameter| weight(trim(parameter)));
        let slot = if name == b"*" {
            &mut self.any
        } else if let Some(coding) = Coding::from_token(name) {
            &mut self.named[coding as usize]
        } else {
            return;
        };
        // Named with something that is no weight: that is no consent.
        let weight = weight.unwrap_or(0);
        *slot = Some(slot.map_or(weight, |seen| seen.min(weight)));
    }
}

/// `q=` and a number from 0 to 1 with at most three decimals, in thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = parameter else { return None };
    let decimals = match rest {
        [] => &[][..],
        [b'.', decimals @ ..] if decimals.len() <= 3 => decimals,
        _ => return None,
    };
    let mut thousandths = u16::from(whole - b'0');
    for at in 0..3 {
        let digit = decimals.get(at).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths = thousandths * 10 + u16::from(digit - b'0');
    }
    (thousandths <= WHOLE).then_some(thousandths)
}

/// Optional white space of HTTP: spaces and tabs, nothing else.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

const WHOLE: u16 = 1000;
const LEAST: u16 = 1;
