//! What a disk layer can be told, and what of it is nonsense.

use std::path::PathBuf;

use swiftwater_core::BuildError;

use super::{
    Disk,
    error::DiskError,
    files::Files,
    format::{MAX_RECORD, MAX_SEGMENT},
    log,
};

/// Makes a [`Disk`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct DiskBuilder {
    path: PathBuf,
    capacity: u64,
    segment: Option<u64>,
    queue: u32,
}

/// What the builder found to be sound.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) path: PathBuf,
    pub(super) capacity: u64,
    pub(super) segment: u64,
    pub(super) queue: u32,
    /// The longest record.
    pub(super) limit: usize,
}

impl DiskBuilder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, capacity: DEFAULT_CAPACITY, segment: None, queue: DEFAULT_QUEUE }
    }

    /// The most bytes that all files together ever take. Default: 1 GiB. At least four segments and a KiB.
    ///
    /// A file that was evicted while it is being read takes its room on the device until that is done. The index takes 20 to
    /// 40 bytes of memory per entry.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// The longest that one file may get, 4 KiB to 4 GiB less 32 bytes. Default: a 64th of the capacity, within 64 KiB
    /// and 256 MiB.
    ///
    /// What makes room goes by whole segments, half of one is left free to write again what was read, and after a crash one
    /// segment is read. Smaller is finer and opens sooner; each is an open file, and a value must fit into one (and into
    /// 16 MiB), or into half of one to be written again.
    pub fn segment(mut self, bytes: u64) -> Self {
        self.segment = Some(bytes);
        self
    }

    /// How many bytes may wait to be written, in memory. Default: 8 MiB; 4 KiB to 1 GiB.
    ///
    /// When it is full, `put` and `remove` wait. More takes longer bursts; each byte is memory, and lost in a crash.
    pub fn queue(mut self, bytes: u32) -> Self {
        self.queue = bytes;
        self
    }

    /// Opens the directory, or makes it. **Blocks**: it reads what the index is made of, so build before you serve.
    ///
    /// # Errors
    ///
    /// [`DiskError`]: an option cannot work, the directory is in use or cannot be written, or a file in it has one of our
    /// names and is not ours.
    pub fn build(self) -> Result<Disk, DiskError> {
        Disk::open(self.judge()?, Files::default())
    }

    #[cfg(test)]
    pub(super) fn build_on(self, files: Files) -> Result<Disk, DiskError> {
        Disk::open(self.judge()?, files)
    }

    fn judge(self) -> Result<Options, BuildError> {
        let default = (self.capacity / 64).clamp(SMALL_SEGMENT, LARGE_SEGMENT);
        let segment = match self.segment {
            Some(segment) => segment,
            // Small capacities still have segments to evict.
            None => default.min(self.capacity / 8).max(MIN_SEGMENT),
        };
        if !(MIN_SEGMENT..=MAX_SEGMENT).contains(&segment) {
            return Err(BuildError::new("segment", segment, "must be 4 KiB to 4 GiB less 32 bytes"));
        }
        if self.capacity < segment.saturating_mul(4).saturating_add(RESERVED) {
            return Err(BuildError::new(
                "capacity",
                self.capacity,
                "must be at least four segments and a KiB",
            ));
        }
        if self.capacity / segment > MAX_SEGMENTS {
            return Err(BuildError::new("segment", segment, "must be at least a 16,384th of the capacity"));
        }
        if !(MIN_QUEUE..=MAX_QUEUE).contains(&self.queue) {
            return Err(BuildError::new("queue", self.queue, "must be 4 KiB to 1 GiB"));
        }
        let limit =
            usize::try_from(segment - log::overhead()).map_or(MAX_RECORD, |limit| limit.min(MAX_RECORD));
        Ok(Options { path: self.path, capacity: self.capacity, segment, queue: self.queue, limit })
    }
}

const DEFAULT_CAPACITY: u64 = 1 << 30;
const DEFAULT_QUEUE: u32 = 8 << 20;
const MIN_QUEUE: u32 = 4 << 10;
const MAX_QUEUE: u32 = 1 << 30;
const MIN_SEGMENT: u64 = 4 << 10;
const SMALL_SEGMENT: u64 = 64 << 10;
const LARGE_SEGMENT: u64 = 256 << 20;
/// More than the files that are not segments.
const RESERVED: u64 = 1 << 10;
/// Half-filled ones may be many more, and a place tells 65,536 apart.
const MAX_SEGMENTS: u64 = 1 << 14;
