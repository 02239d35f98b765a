//! What an entry may depend on, as a hash.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
};

use foldhash::quality::FixedState;

/// A dependency: the name of something outside the cache whose change makes entries wrong, such as a row, a table or a
/// tariff. Made with [`dep!`](crate::dep).
///
/// It is a hash of 64 bits and nothing else, so it is free to copy and costs 8 bytes in every entry that depends on it.
/// Two names that happen to have one hash invalidate each other's entries: a load too many, never a stale value.
///
/// Names are exact: `dep!("product", 42)` and `dep!("product")` have nothing to do with each other. The first part,
/// the *kind*, matters in one case only: an entry with very many dependencies (more than [`MAX_EDGES`]) keeps their kinds
/// instead, and goes stale with every invalidation of one of those kinds; with as many kinds, with every invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dep(u64);

impl Dep {
    /// The dependency of that kind that has no further parts.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        Self::in_space(SPACE_NAMED, kind)
    }

    /// Every entry of the cache.
    #[must_use]
    pub const fn everything() -> Self {
        Self(ALL)
    }

    /// Every key of the region of that name.
    pub(crate) fn whole(region: &str) -> Self {
        Self((Self::in_space(SPACE_KEYS, region).0 & KIND_MASK) | WHOLE)
    }

    /// One key of the region whose `whole` this is.
    pub(crate) fn key<T: Hash + ?Sized>(self, key: &T) -> Self {
        let mut hasher = Canonical(HASHER.build_hasher());
        self.0.hash(&mut hasher);
        key.hash(&mut hasher);
        Self((self.0 & KIND_MASK) | (hasher.finish() & !KIND_MASK) | KEY)
    }

    /// The same name with one more part. The order of parts matters; the width of a number does not: `42_u64`, `42_i32`
    /// and `42_usize` are one part.
    #[must_use]
    pub fn with<T: Hash + ?Sized>(self, part: &T) -> Self {
        let mut hasher = Canonical(HASHER.build_hasher());
        self.0.hash(&mut hasher);
        part.hash(&mut hasher);
        Self::join(self.0, hasher.finish())
    }

    fn in_space(space: u64, kind: &str) -> Self {
        let hash = HASHER.hash_one((space, kind));
        Self::join(hash << KIND_SHIFT, hash)
    }

    fn join(kind: u64, rest: u64) -> Self {
        Self((kind & KIND_MASK) | (rest & !KIND_MASK & !KEY) | NAME)
    }

    pub(crate) fn edge(self) -> Edge {
        Edge(self.0)
    }
}

impl fmt::Debug for Dep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dep({:016x})", self.0)
    }
}

/// Names a dependency: a kind and any number of parts, each of which implements [`Hash`].
///
/// ```
/// use swiftwater_cache::dep;
///
/// let id = 42_u64;
/// assert_eq!(dep!("product", id), dep!("product", 42));
/// assert_eq!(dep!("user", "ada"), dep!("user", String::from("ada")));
/// assert_ne!(dep!("product", id), dep!("category", id));
/// assert_ne!(dep!("price", "eur", id), dep!("price", "usd", id));
/// let _everything = dep!("catalogue");
/// ```
///
/// Whole numbers are compared by value, whatever their type, and strings whether owned or not. Everything else is hashed
/// by its own type, so write the same type on both sides.
#[macro_export]
macro_rules! dep {
    ($kind:expr $(, $part:expr)* $(,)?) => {
        $crate::Dep::of($kind)$(.with(&$part))*
    };
}

/// Hashes whole numbers by value: an id is `u64` in the database, `i64` in its driver and `i32` as a literal, and a name
/// that is spelled with the wrong one would be invalidated in vain, silently.
struct Canonical<H>(H);

impl<H: Hasher> Hasher for Canonical<H> {
    fn finish(&self) -> u64 {
        self.0.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn write_u8(&mut self, number: u8) {
        self.0.write_u64(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.0.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.0.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.0.write_u64(number as u64);
    }

    // Negative ones keep their sign bits; that -1 and the largest `u64` are one part costs at most a load too many.

    fn write_i8(&mut self, number: i8) {
        self.0.write_u64(i64::from(number) as u64);
    }

    fn write_i16(&mut self, number: i16) {
        self.0.write_u64(i64::from(number) as u64);
    }

    fn write_i32(&mut self, number: i32) {
        self.0.write_u64(i64::from(number) as u64);
    }

    fn write_i64(&mut self, number: i64) {
        self.0.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.0.write_u64(number as u64);
    }
}

/// What an entry stores of a dependency: the hash of its name, or of its kind alone.
///
/// The upper 16 bits are the kind's; the lower ones say what it is.
///
/// | Lower bits | Stands for |
/// |---|---|
/// | `..01` | a name |
/// | `..11` | a key of a region |
/// | `0`, of a kind | every name of the kind |
/// | `0`, of no kind | every dependency there is, see [`Edge::EVERYTHING`] |
/// | `4` | every key of a region |
/// | `8`, of no kind | every entry there is, see [`Edge::ALL`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Edge(u64);

/// What an edge stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    All,
    Everything,
    Key,
    Kind,
    Name,
    Whole,
}

impl Edge {
    /// Goes stale with every invalidation, whatever it is of: an entry that depends on too much to say. (The one kind in
    /// 65,536 that has this hash goes stale too often where it is kept as a kind.)
    pub(crate) const EVERYTHING: Self = Self(0);
    /// Every entry of the cache depends on it, and it is stored in none.
    pub(crate) const ALL: Self = Self(ALL);
    /// Stands for no dependency.
    pub(crate) const NONE: Self = Self(2);

    /// Of a key, its region.
    pub(crate) fn whole(self) -> Option<Self> {
        (self.form() == Form::Key).then_some(Self((self.0 & KIND_MASK) | WHOLE))
    }

    /// As layers keep it.
    #[cfg(feature = "layers")]
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    #[cfg(feature = "layers")]
    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The dependency, if it stands for one alone.
    pub(crate) fn dep(self) -> Option<Dep> {
        matches!(self.form(), Form::Key | Form::Name | Form::Whole).then_some(Dep(self.0))
    }

    /// The edge that stands for everything of this one's kind.
    pub(crate) fn coarse(self) -> Self {
        Self(self.0 & KIND_MASK)
    }

    /// Of a region: what its own entries depend on, while others, that were made of them, depend on the region. Apart,
    /// because naming its keys for the first time makes those stale and not these.
    pub(crate) fn own(self) -> Self {
        Self(self.0 ^ 1 << (u64::BITS - 1))
    }

    pub(crate) fn form(self) -> Form {
        if self.0 & KEY == KEY {
            Form::Key
        } else if self.0 & NAME != 0 {
            Form::Name
        } else if self.0 & !KIND_MASK == WHOLE {
            Form::Whole
        } else if self == Self::ALL {
            Form::All
        } else if self == Self::EVERYTHING {
            Form::Everything
        } else {
            Form::Kind
        }
    }

    /// The uppermost bits: all that tells kinds apart.
    pub(crate) fn upper(self, bits: u32) -> usize {
        (self.0 >> (u64::BITS - bits)) as usize
    }

    /// So many bits out of all of the hash: the uppermost of a product.
    pub(crate) fn mixed(self, bits: u32) -> usize {
        Self(self.0.wrapping_mul(MIX)).upper(bits)
    }
}

/// An entry with more dependencies than this keeps their kinds instead.
pub const MAX_EDGES: usize = 64;

const HASHER: FixedState = FixedState::with_seed(0x5377_6966_7457_6174);
const SPACE_NAMED: u64 = 1;
const SPACE_KEYS: u64 = 2;
const KIND_SHIFT: u32 = 48;
const KIND_MASK: u64 = 0xffff << KIND_SHIFT;
const NAME: u64 = 0b01;
const KEY: u64 = 0b11;
const WHOLE: u64 = 0b100;
const ALL: u64 = 0b1000;
/// 2^64 divided by the golden ratio, made odd.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
