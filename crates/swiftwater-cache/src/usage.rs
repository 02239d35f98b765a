//! How much entries were used lately, and a list of those that were used most, to warm the next process with.

use std::time::Duration;

use swiftwater_core::Tick;

/// How much an entry was used: a count that halves with every half-life, of the sixteenths of a half-life in which it was
/// used at all. So counting costs a hit nothing but once in that time. In one word, to be read and written at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Uses {
    /// The sixteenth of its latest use, from the start of the clock, modulo 2^32.
    window: u32,
    count: f32,
}

impl Uses {
    pub(crate) fn from_word(word: u64) -> Self {
        Self { window: (word >> 32) as u32, count: f32::from_bits(word as u32) }
    }

    pub(crate) fn word(self) -> u64 {
        u64::from(self.window) << 32 | u64::from(self.count.to_bits())
    }

    /// The count as it is now.
    pub(crate) fn at(self, now: Tick, half_life: Duration) -> f64 {
        // Who was a little late to read the clock is not before the latest use, but at it.
        let passed = (window(now, half_life).wrapping_sub(self.window) as i32).max(0);
        f64::from(self.count) * (-f64::from(passed) / f64::from(WINDOWS)).exp2()
    }

    /// The same after a use.
    pub(crate) fn used(self, now: Tick, half_life: Duration) -> Self {
        let window = window(now, half_life);
        if self.count > 0.0 && window.wrapping_sub(self.window) as i32 <= 0 {
            return self;
        }
        Self { window, count: self.at(now, half_life) as f32 + 1.0 }
    }
}

fn window(now: Tick, half_life: Duration) -> u32 {
    (now.as_nanos() / window_nanos(half_life)) as u32
}

/// When the next use counts.
pub(crate) fn next_window(now: Tick, half_life: Duration) -> Tick {
    let nanos = window_nanos(half_life);
    Tick::from_nanos((now.as_nanos() / nanos + 1).saturating_mul(nanos))
}

fn window_nanos(half_life: Duration) -> u64 {
    u64::try_from(half_life.as_nanos() / u128::from(WINDOWS)).unwrap_or(u64::MAX).max(1)
}

const WINDOWS: u32 = 16;

/// Keys of a region and how much they were used, the most used first. Made by [`Region::usage`](crate::Region::usage), or read
/// from where an earlier process has written it; for [`Region::warm`](crate::Region::warm).
#[derive(Clone, Debug, PartialEq)]
pub struct Usage<K> {
    entries: Vec<(K, f64)>,
}

impl<K> Usage<K> {
    pub(crate) fn of(mut entries: Vec<(K, f64)>, most: usize) -> Self {
        let by_use = |one: &(K, f64), other: &(K, f64)| other.1.total_cmp(&one.1);
        if entries.len() > most {
            if most > 0 {
                entries.select_nth_unstable_by(most - 1, by_use);
            }
            entries.truncate(most);
        }
        entries.sort_by(by_use);
        Self { entries }
    }

    /// The keys, the most used first.
    pub fn into_keys(self) -> impl Iterator<Item = K> {
        self.entries.into_iter().map(|(key, _)| key)
    }

    /// The keys with their counts, the most used first.
    #[must_use]
    pub fn entries(&self) -> &[(K, f64)] {
        &self.entries
    }

    /// Only so many of them, the most used.
    #[must_use]
    pub fn top(mut self, most: usize) -> Self {
        self.entries.truncate(most);
        self
    }

    /// Only those that were used so much: a count as [`RegionBuilder::usage`](crate::RegionBuilder::usage) explains it.
    #[must_use]
    pub fn above(mut self, count: f64) -> Self {
        self.entries.retain(|(_, used)| *used >= count);
        self
    }
}

#[cfg(feature = "layers")]
mod log {
    use std::{
        error::Error,
        fmt,
        fs::{self, File},
        io::{self, Write},
        path::Path,
    };

    use serde::{Serialize, de::DeserializeOwned};
    use xxhash_rust::xxh3::xxh3_64;

    use super::Usage;

    impl<K: Serialize + DeserializeOwned> Usage<K> {
        /// Writes it to a file, in the place of what was there, so that a crash leaves the old or the new one. Blocks on
        /// the disk.
        ///
        /// # Errors
        ///
        /// What the file system says; or that a key could not be encoded.
        pub fn write(&self, path: impl AsRef<Path>) -> io::Result<()> {
            let path = path.as_ref();
            let encoded = postcard::to_allocvec(&self.entries).map_err(io::Error::other)?;
            let mut bytes = Vec::with_capacity(HEAD + encoded.len());
            bytes.extend_from_slice(&MAGIC);
            bytes.extend_from_slice(&xxh3_64(&encoded).to_le_bytes());
            bytes.extend_from_slice(&encoded);
            let mut name = path.as_os_str().to_owned();
            name.push(".new");
            let mut file = File::create(&name)?;
            file.write_all(&bytes)?;
            file.sync_all()?; // before it takes the place of the old one
            fs::rename(&name, path)
        }

        /// Reads what [`write`](Self::write) has written. Blocks on the disk.
        ///
        /// # Errors
        ///
        /// What the file system says; or, with [`io::ErrorKind::InvalidData`], that the file is damaged, no such log, or one of
        /// other keys.
        pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
            let bytes = fs::read(path)?;
            let encoded = bytes
                .get(HEAD..)
                .filter(|encoded| bytes[..8] == MAGIC && bytes[8..HEAD] == xxh3_64(encoded).to_le_bytes());
            let entries = encoded.and_then(|encoded| match postcard::take_from_bytes(encoded) {
                Ok((entries, [])) => Some(entries),
                _ => None,
            });
            match entries {
                Some(entries) => Ok(Self { entries }),
                None => Err(io::Error::new(io::ErrorKind::InvalidData, Damaged)),
            }
        }
    }

    #[derive(Debug)]
    struct Damaged;

    impl fmt::Display for Damaged {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("not a whole usage log of such keys")
        }
    }

    impl Error for Damaged {}

    const MAGIC: [u8; 8] = *b"sw-usage";
    /// The magic and a checksum of the rest.
    const HEAD: usize = 16;
}
