//! What stands in the files, byte by byte; no I/O here. Numbers are little-endian.
//!
//! - *Control*, written in place: two slots of 64 bytes, taken in turns. Who owns the directory (a number drawn when it was
//!   started, the boot of the system) and the *mark*: the log reaches at least this sequence number.
//! - *Segment*: a head of 64 bytes, records, and once it is sealed a footer: 16 bytes per record and a tail of 64.
//! - *Record*: a head of 40 bytes, region, key, value, zeros up to a multiple of 16. Sequence numbers are consecutive through
//!   all segments, so that whatever is missing shows as a gap.
//! - *Clean*: 64 bytes that say that the log ends with this number and was closed.
//!
//! Everything carries an XXH3 of itself seeded with the directory's number, so that nothing of another directory, or of an
//! earlier life of this one, can pass for its own.

use bytes::{Buf, Bytes};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::layer::LayerKey;

/// Where a record is: 15 bits of its segment's number, 28 of its offset and 20 of its length, both in units of 16 bytes.
/// The highest bit is left to the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    pub(super) fn new(number: u64, offset: u64, len: usize) -> Self {
        debug_assert!(offset.is_multiple_of(UNIT as u64) && len.is_multiple_of(UNIT));
        debug_assert!(offset < MAX_SEGMENT && len <= MAX_RECORD);
        Self::of(number, (offset / UNIT as u64) << OFFSET_AT | (len / UNIT) as u64)
    }

    /// In the segment with this number; `rest` is what [`within`](Self::within) gave.
    fn of(number: u64, rest: u64) -> Self {
        Self::from_bits(number << NUMBER_AT | rest & WITHIN)
    }

    /// Where it is in its segment.
    fn within(self) -> u64 {
        self.0 & WITHIN
    }

    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    /// Whatever the highest bit is.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits & (u64::MAX >> 1))
    }

    /// How many segments after the one with this number its own is, if that is one of the next [`SEGMENTS`].
    pub(super) fn after(self, number: u64) -> usize {
        (self.0 >> NUMBER_AT).wrapping_sub(number) as usize % SEGMENTS
    }

    pub(super) fn offset(self) -> u64 {
        (self.within() >> OFFSET_AT) * UNIT as u64
    }

    pub(super) fn len(self) -> usize {
        (self.0 & ((1 << OFFSET_AT) - 1)) as usize * UNIT
    }
}

/// What a record does to the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Forgets everything that came before.
    Clear,
    /// The hash is at this place.
    Put(Place),
    /// The hash has nothing.
    Remove,
}

/// One record's line of a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) hash: u64,
    pub(super) effect: Effect,
}

impl Line {
    fn read(bytes: &[u8], number: u64) -> Option<Self> {
        let effect = match u64_at(bytes, 8)? {
            u64::MAX => Effect::Clear,
            0 => Effect::Remove,
            // The footer leaves the segment's number out.
            place => Effect::Put(Some(Place::of(number, place)).filter(|place| place.len() > 0)?),
        };
        Some(Self { hash: u64_at(bytes, 0)?, effect })
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        let place = match self.effect {
            Effect::Clear => u64::MAX,
            Effect::Put(place) => place.within(),
            Effect::Remove => 0,
        };
        out.extend_from_slice(&place.to_le_bytes());
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body<'a> {
    /// What an earlier record said, in the bytes that [`whole_put`] gave.
    Again(&'a [u8]),
    Clear,
    Put(&'a LayerKey, &'a [u8]),
    Remove,
}

/// How long the record of this is, with its padding. `None` is beyond what can be said.
pub(super) fn record_len(key: &LayerKey, value: usize) -> Option<usize> {
    let len = HEAD.checked_add(key.region().len())?.checked_add(key.bytes().len())?.checked_add(value)?;
    let padded = len.checked_next_multiple_of(UNIT)?;
    (padded <= MAX_RECORD && key.region().len() <= usize::from(u16::MAX)).then_some(padded)
}

/// Appends a record, padded.
pub(super) fn write_record(out: &mut Vec<u8>, id: u64, sequence: u64, hash: u64, body: Body<'_>) {
    let start = out.len();
    match body {
        Body::Again(record) => out.extend_from_slice(record),
        Body::Clear => write_new(out, hash, CLEAR, [&[]; 3]),
        Body::Put(key, value) => write_new(out, hash, PUT, [key.region().as_bytes(), key.bytes(), value]),
        Body::Remove => write_new(out, hash, REMOVE, [&[]; 3]),
    }
    out[start + 8..start + 16].copy_from_slice(&sequence.to_le_bytes());
    let checksum = xxh3_64_with_seed(&out[start + 8..], id);
    out[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
    out.resize(out.len().next_multiple_of(UNIT), 0);
}

/// All but the checksum and the sequence number.
fn write_new(out: &mut Vec<u8>, hash: u64, kind: u8, [region, key, value]: [&[u8]; 3]) {
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&hash.to_le_bytes());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(&(region.len() as u16).to_le_bytes());
    out.extend_from_slice(&[kind, VERSION as u8]);
    out.extend_from_slice(&RECORD);
    out.extend_from_slice(region);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// A record without its padding, if it is whole and puts something under the hash.
pub(super) fn whole_put(record: &[u8], id: u64, hash: u64) -> Option<&[u8]> {
    let head = Head::read(record)?;
    let right = head.kind == PUT && head.hash == hash && head.is_whole(record, id);
    record.get(..head.len()).filter(|_| right)
}

/// The head of a record, not yet known to be right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    checksum: u64,
    pub(super) sequence: u64,
    pub(super) hash: u64,
    key: usize,
    value: usize,
    region: usize,
    kind: u8,
}

impl Head {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let plausible =
            head[36..40] == RECORD && head[35] == VERSION as u8 && matches!(head[34], CLEAR..=REMOVE);
        Some(Self {
            checksum: u64_at(head, 0)?,
            sequence: u64_at(head, 8)?,
            hash: u64_at(head, 16)?,
            key: u32_at(head, 24)? as usize,
            value: u32_at(head, 28)? as usize,
            region: usize::from(u16::from_le_bytes([head[32], head[33]])),
            kind: head[34],
        })
        .filter(|head| plausible && head.len() <= MAX_RECORD)
    }

    /// Without padding. Cannot overflow where `usize` has 64 bits, and is bounded by `read`.
    pub(super) fn len(&self) -> usize {
        HEAD.saturating_add(self.region).saturating_add(self.key).saturating_add(self.value)
    }

    /// Whether `record`, which begins with this head, is as it was written.
    pub(super) fn is_whole(&self, record: &[u8], id: u64) -> bool {
        record.get(8..self.len()).is_some_and(|rest| xxh3_64_with_seed(rest, id) == self.checksum)
    }

    pub(super) fn line(&self, number: u64, offset: u64) -> Line {
        let effect = match self.kind {
            CLEAR => Effect::Clear,
            PUT => Effect::Put(Place::new(number, offset, self.len().next_multiple_of(UNIT))),
            _ => Effect::Remove,
        };
        Line { hash: self.hash, effect }
    }
}

/// What was found where the index said.
#[derive(Debug)]
pub(super) enum Found {
    Damaged,
    /// A key with the same hash.
    Other,
    Value(Bytes),
}

/// The value in a record, if the record is whole and of this key.
pub(super) fn read_value(mut record: Vec<u8>, id: u64, key: &LayerKey) -> Found {
    let Some(head) = Head::read(&record).filter(|head| head.kind == PUT && head.is_whole(&record, id)) else {
        return Found::Damaged;
    };
    let (region, value) = (HEAD + head.region, HEAD + head.region + head.key);
    if &record[HEAD..region] != key.region().as_bytes() || record[region..value] != key.bytes()[..] {
        return Found::Other;
    }
    record.truncate(head.len());
    let mut bytes = Bytes::from(record);
    bytes.advance(value);
    Found::Value(bytes)
}

/// What the index knows a key by.
pub(super) fn hash(id: u64, key: &LayerKey) -> u64 {
    #[cfg(test)]
    if key.region() == super::tests::COLLIDING {
        return 7;
    }
    xxh3_64_with_seed(key.bytes(), xxh3_64_with_seed(key.region().as_bytes(), id))
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) number: u64,
    /// The sequence number of its first record.
    pub(super) first: u64,
}

impl SegmentHead {
    pub(super) fn read(bytes: &[u8], id: u64) -> Option<Self> {
        let [number, first, _, _] = read_block(bytes, SEGMENT, id)?;
        Some(Self { number, first })
    }

    pub(super) fn write(self, id: u64) -> [u8; BLOCK] {
        block(SEGMENT, id, [self.number, self.first, 0, 0])
    }
}

/// Appends the footer of a segment whose records end at `end`.
pub(super) fn write_footer(out: &mut Vec<u8>, id: u64, head: SegmentHead, end: u64, lines: &[Line]) {
    let start = out.len();
    lines.iter().for_each(|line| line.write(out));
    let sum = xxh3_64_with_seed(&out[start..], id);
    out.extend_from_slice(&block(FOOTER, id, [head.number, head.first, end, sum]));
}

/// Where the lines of the footer are, by the last [`BLOCK`] bytes of a segment of this length: offset and length.
pub(super) fn footer_at(tail: &[u8], id: u64, head: SegmentHead, len: u64) -> Option<(u64, usize)> {
    let [number, first, end, _] = read_block(tail, FOOTER, id)?;
    let lines = len.checked_sub(BLOCK as u64)?.checked_sub(end)?;
    let fits = end >= BLOCK as u64 && lines.is_multiple_of(UNIT as u64);
    (fits && number == head.number && first == head.first).then_some((end, lines as usize))
}

/// The lines of a footer whose tail was accepted by [`footer_at`].
pub(super) fn read_lines(lines: &[u8], tail: &[u8], id: u64, number: u64) -> Option<Vec<Line>> {
    let [_, _, _, sum] = read_block(tail, FOOTER, id)?;
    if xxh3_64_with_seed(lines, id) != sum {
        return None;
    }
    lines.chunks_exact(UNIT).map(|line| Line::read(line, number)).collect()
}

/// A slot of the control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) id: u64,
    /// 0: not known.
    pub(super) boot: u128,
    pub(super) mark: u64,
    /// Counts the writes.
    pub(super) turn: u64,
}

impl Slot {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        // It names its own seed: whoever writes a slot on purpose is not who the checksum is for.
        let id = u64_at(bytes, 16)?;
        let [low, high, mark, turn] = read_block(bytes, CONTROL, id)?;
        Some(Self { id, boot: u128::from(high) << 64 | u128::from(low), mark, turn })
    }

    pub(super) fn write(self) -> [u8; BLOCK] {
        block(CONTROL, self.id, [self.boot as u64, (self.boot >> 64) as u64, self.mark, self.turn])
    }
}

/// The file that says that all was closed when the log ended with this number.
pub(super) fn write_clean(id: u64, mark: u64) -> [u8; BLOCK] {
    block(CLEAN, id, [mark, 0, 0, 0])
}

/// The mark in such a file, if it is of this directory.
pub(super) fn read_clean(bytes: &[u8], id: u64) -> Option<u64> {
    read_block(bytes, CLEAN, id).map(|[mark, ..]| mark)
}

/// Whether a file that begins with these bytes was written by us, in this or in another version of the format, or is what
/// is left of one whose making was cut short.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    let len = bytes.len().min(OURS.len());
    bytes[..len] == OURS[..len]
}

/// All small structures are one block: magic, version, the directory's number, four words, and the checksum.
fn block(magic: [u8; 8], id: u64, words: [u64; 4]) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    out[..8].copy_from_slice(&magic);
    out[8..16].copy_from_slice(&VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&id.to_le_bytes());
    for (to, word) in out[24..56].chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    let checksum = xxh3_64_with_seed(&out[..56], id);
    out[56..].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn read_block(bytes: &[u8], magic: [u8; 8], id: u64) -> Option<[u64; 4]> {
    let bytes = bytes.get(..BLOCK)?;
    let sound = bytes[..8] == magic
        && u64_at(bytes, 8)? == VERSION
        && u64_at(bytes, 16)? == id
        && u64_at(bytes, 56)? == xxh3_64_with_seed(&bytes[..56], id);
    if !sound {
        return None;
    }
    Some([u64_at(bytes, 24)?, u64_at(bytes, 32)?, u64_at(bytes, 40)?, u64_at(bytes, 48)?])
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Raised with every change of what is written. A directory of another version is started anew.
const VERSION: u64 = 1;
/// What every file of ours begins with, in every version.
const OURS: [u8; 7] = *b"swcache";
const CONTROL: [u8; 8] = *b"swcacheC";
const SEGMENT: [u8; 8] = *b"swcacheS";
const FOOTER: [u8; 8] = *b"swcacheF";
const CLEAN: [u8; 8] = *b"swcacheE";
const RECORD: [u8; 4] = *b"swRD";

const CLEAR: u8 = 1;
const PUT: u8 = 2;
const REMOVE: u8 = 3;

/// Records begin at multiples of this; a line of a footer is as long.
pub(super) const UNIT: usize = 16;
/// The length of every head, tail and slot.
pub(super) const BLOCK: usize = 64;
/// The head of a record.
const HEAD: usize = 40;
/// A record without key and value, padded.
pub(super) const EMPTY_RECORD: usize = HEAD.next_multiple_of(UNIT);
/// What 20 bits of units can say.
pub(super) const MAX_RECORD: usize = 0xF_FFFF * UNIT;
/// Where in a place its offset begins, above the length; and its segment's number.
pub(super) const OFFSET_AT: u32 = 20;
const NUMBER_AT: u32 = 48;
/// Offset and length.
const WITHIN: u64 = (1 << NUMBER_AT) - 1;
/// How many segments 15 bits tell apart.
pub(super) const SEGMENTS: usize = 1 << 15;
/// What 28 bits of units can say.
pub(super) const MAX_SEGMENT: u64 = UNIT as u64 * 0x0FFF_FFFF;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_its_parts_at_the_edges() {
        let place = Place::new(0x1_FFFE, MAX_SEGMENT - UNIT as u64, MAX_RECORD);
        assert_eq!(place.after(0x1_FFFE), 0);
        assert_eq!(place.after(0xFFFF), 0x7FFF);
        assert_eq!(Place::from_bits(place.to_bits() | 1 << 63), place);
        assert_eq!(place.offset(), MAX_SEGMENT - UNIT as u64);
        assert_eq!(place.len(), MAX_RECORD);
    }

    #[test]
    fn a_line_without_a_length_is_none() {
        let line = Line { hash: 1, effect: Effect::Put(Place::new(3, 4096, UNIT)) };
        let mut bytes = Vec::new();
        line.write(&mut bytes);
        assert_eq!(Line::read(&bytes, 3), Some(line));
        // The index would take it for a ticket.
        bytes[8..11].fill(0);
        assert_eq!(Line::read(&bytes, 3), None);
    }

    #[test]
    fn a_record_that_is_written_again_is_the_same_but_for_its_number() {
        let key = LayerKey::new("region", Bytes::from_static(b"key"));
        let (mut first, mut again, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        write_record(&mut first, 7, 1, 2, Body::Put(&key, b"value"));
        write_record(&mut expected, 7, 9, 2, Body::Put(&key, b"value"));
        write_record(&mut again, 7, 9, 2, Body::Again(whole_put(&first, 7, 2).unwrap()));
        assert_eq!(again, expected);
        assert_eq!(whole_put(&first, 7, 3), None, "another hash");
        assert_eq!(whole_put(&first, 8, 2), None, "another directory's");
        first[50] ^= 1;
        assert_eq!(whole_put(&first, 7, 2), None, "damaged");
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_record_is_found() {
        let key = LayerKey::new("region", Bytes::from_static(b"key"));
        let mut record = Vec::new();
        write_record(&mut record, 7, 1, 2, Body::Put(&key, b"value"));
        assert!(matches!(read_value(record.clone(), 7, &key), Found::Value(value) if value == "value"));
        assert!(matches!(read_value(record.clone(), 8, &key), Found::Damaged), "another directory's");
        let len = Head::read(&record).unwrap().len();
        for bit in 0..len * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read_value(flipped, 7, &key), Found::Damaged), "bit {bit}");
        }
        for cut in 0..len {
            assert!(matches!(read_value(record[..cut].to_vec(), 7, &key), Found::Damaged), "cut at {cut}");
        }
    }

    #[test]
    fn another_key_of_the_same_hash_is_told_apart() {
        let key = LayerKey::new("region", Bytes::from_static(b"key"));
        let mut record = Vec::new();
        write_record(&mut record, 7, 1, 2, Body::Put(&key, b"value"));
        // The same letters, split elsewhere.
        for (region, other) in [("region", "kex"), ("regionk", "ey"), ("regio", "nkey"), ("region", "keyv")] {
            let other = LayerKey::new(region, Bytes::from_static(other.as_bytes()));
            assert!(matches!(read_value(record.clone(), 7, &other), Found::Other), "{other:?}");
        }
    }

    #[test]
    fn regions_have_keys_of_their_own() {
        let [a, b] = ["a", "b"].map(|region| LayerKey::new(region, Bytes::from_static(b"key")));
        assert_ne!(hash(1, &a), hash(1, &b));
        assert_ne!(hash(1, &a), hash(2, &a));
    }
}
