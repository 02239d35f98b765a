//! What layers keep of an entry: all that decides whether its value may be served, and the value, under a checksum.
//!
//! | Bytes | |
//! |---|---|
//! | 0..4 | `swE1`: the format |
//! | 4..6 | how many dependencies |
//! | 6..8 | zero |
//! | 8..16 | the schema: the region's name and version, and the shape of its types |
//! | 16..24 | the life of the versions that the stamp counts in |
//! | 24..32 | the key, hashed |
//! | 32..40 | the stamp |
//! | 40..48 | when it expires, in nanoseconds of that life |
//! | 48.. | the dependencies, eight bytes each |
//! | | the value, encoded |
//! | last 8 | a checksum (xxh3) of everything before |
//!
//! Numbers are little-endian.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::dep::Edge;

/// Everything but the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) schema: u64,
    pub(crate) life: u64,
    pub(crate) key: u64,
    pub(crate) stamp: u64,
    pub(crate) expires: u64,
}

/// Why bytes are no envelope of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They are not what was written.
    Damaged,
    /// Of another schema, or another format.
    Foreign,
}

pub(crate) fn seal(head: Head, edges: &[Edge], value: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD + 8 * edges.len() + value.len() + CHECKSUM);
    bytes.put_slice(MAGIC);
    // An entry has at most `MAX_EDGES` of them.
    bytes.put_u16_le(edges.len() as u16);
    bytes.put_u16_le(0);
    for word in [head.schema, head.life, head.key, head.stamp, head.expires] {
        bytes.put_u64_le(word);
    }
    edges.iter().for_each(|edge| bytes.put_u64_le(edge.number()));
    bytes.put_slice(value);
    bytes.put_u64_le(xxh3_64(&bytes));
    bytes.freeze()
}

/// The head, the dependencies and the value; for the schema and the key that are expected.
pub(crate) fn open(bytes: &[u8], schema: u64, key: u64) -> Result<(Head, Vec<Edge>, &[u8]), Fault> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(Fault::Damaged)?;
    let (head, rest) = body.split_first_chunk::<HEAD>().ok_or(Fault::Damaged)?;
    if &head[..4] != MAGIC {
        return Err(Fault::Foreign);
    }
    if u64::from_le_bytes(*checksum) != xxh3_64(body) {
        return Err(Fault::Damaged);
    }
    let word = |at: usize| head[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let (of_schema, life, of_key, stamp, expires) = (word(8), word(16), word(24), word(32), word(40));
    if of_schema != schema {
        return Err(Fault::Foreign);
    }
    if of_key != key {
        return Err(Fault::Damaged); // a layer that gives one key's bytes for another's
    }
    let count = usize::from(u16::from_le_bytes([head[4], head[5]]));
    let (edges, value) = rest.split_at_checked(8 * count).ok_or(Fault::Damaged)?;
    let edge = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let edges = edges.chunks_exact(8).map(|bytes| Edge::from_number(edge(bytes))).collect();
    Ok((Head { schema, life, key, stamp, expires }, edges, value))
}

const MAGIC: &[u8; 4] = b"swE1";
const HEAD: usize = 48;
const CHECKSUM: usize = 8;

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use super::*;
    use crate::dep::Dep;

    fn sealed() -> (Head, Vec<Edge>, Bytes) {
        let head = Head { schema: 1, life: 2, key: 3, stamp: 4, expires: 5 };
        let edges = vec![Dep::of("one").edge(), Dep::of("two").edge()];
        let bytes = seal(head, &edges, b"value");
        (head, edges, bytes)
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let (head, edges, bytes) = sealed();
        assert_eq!(open(&bytes, 1, 3).unwrap(), (head, edges, &b"value"[..]));
        assert_eq!(open(&bytes, 7, 3), Err(Fault::Foreign));
        assert_eq!(open(&bytes, 1, 7), Err(Fault::Damaged));
        let empty = seal(head, &[], b"");
        assert_eq!(open(&empty, 1, 3).unwrap(), (head, vec![], &b""[..]));
    }

    #[test]
    fn no_flipped_byte_and_no_cut_goes_unseen() {
        let (_, _, bytes) = sealed();
        for at in 0..bytes.len() {
            for mask in 1..=255 {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= mask;
                assert!(open(&damaged, 1, 3).is_err(), "byte {at} by {mask}");
            }
            assert!(open(&bytes[..at], 1, 3).is_err(), "cut at {at}");
        }
        assert!(open(&[&bytes[..], b"x"].concat(), 1, 3).is_err());
    }
}
