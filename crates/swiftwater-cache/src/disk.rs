//! A layer in files of a local directory: the public handle. What is behind it, from the bottom up:
//!
//! - `format`: bytes, no I/O; `files`: the calls that change something.
//! - `index`: where the newest record of each key is; `queue`: what waits for the writer.
//! - `log`: the writer's files; `shared`: what callers, the writer and readers share; `reader`: reads.
//! - `recovery`: opening.

#[cfg(not(unix))]
compile_error!("the feature `disk` needs a Unix: it locks its directory with flock and reads at offsets");

use std::{fmt, path::PathBuf, sync::Arc, sync::atomic::Ordering::Relaxed, thread, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use swiftwater_core::{Observe, Observer, Visitor};

use crate::layer::{Layer, LayerError, LayerKey};

mod builder;
mod error;
mod files;
mod format;
mod index;
mod log;
mod queue;
mod reader;
mod recovery;
mod shared;
mod stats;
#[cfg(test)]
mod tests;

pub use builder::DiskBuilder;
pub use error::DiskError;

use builder::Options;
use files::Files;
use shared::Shared;
use stats::{CAPACITY, ENTRIES, QUEUED, USED};

/// A [`Layer`] in files of a local directory: a handle, cloned freely; all clones are one layer.
///
/// ```
/// # use bytes::Bytes;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), swiftwater_cache::LayerError> {
/// # let temporary = tempfile::tempdir()?;
/// # let path = temporary.path().join("cache");
/// use swiftwater_cache::{Disk, Layer, LayerKey};
///
/// let disk = Disk::builder(&path).capacity(64 << 20).build()?;
/// let key = LayerKey::new("prices", Bytes::from_static(b"42"));
/// disk.put(&key, Bytes::from_static(b"995"), None).await?;
/// disk.close().await?;
///
/// let disk = Disk::builder(&path).capacity(64 << 20).build()?;
/// assert_eq!(disk.get(&key).await?, Some(Bytes::from_static(b"995")));
/// # disk.close().await?;
/// # Ok(())
/// # }
/// ```
///
/// # The picture
///
/// A log, cut into segments of one size. What is put or removed is appended to the newest one by a thread of the layer's
/// own; when the capacity is reached, the oldest segment goes, with what is in it. What was read since it was put has a second
/// chance, as in the [CLOCK family](https://doi.org/10.1145/3593856.3595887): it is written again before that, byte for
/// byte, up to half of the segment; to have another one it must be read again. An index in memory knows where the newest
/// record of each key is. A value is served only if its record's checksum, region and key are right.
///
/// # Guarantees
///
/// The laws of [`Layer`], and of what is on disk:
///
/// 1. **The capacity is never exceeded**, not for a moment, by all files of the layer together.
/// 2. `put` answers when the queue to the writer has taken the value in, and it is served from there. A value that cannot be
///    written afterwards is counted as `lost`, and nothing is served in its place, now or later. (With one exception: if the
///    disk can neither be written nor removed from any more when the layer is closed, what it had before may be there
///    when it is opened again.)
/// 3. `remove` answers when what the key had is gone for good: nobody gets it any more, and the removal has been handed to
///    the system. The queue is in order, so all that was taken in before has been handed over, too. The removal of
///    a key that the layer does not have writes nothing.
/// 4. **After [`close`](Layer::close)** everything is there that was not removed, replaced or evicted, also after a loss of
///    power.
/// 5. **After the process was killed**, while the system runs on, there is what the layer had at some moment (less what was
///    evicted): not earlier than the last removal that was answered and had something to remove. So what was queued may
///    be missing, and a key may have an older value than the newest that was taken in; but none from before an answered
///    removal of it.
/// 6. **After the system went down** without a `close`, the directory is started empty: any part of what was written may
///    be missing. Where the system does not tell one boot from the next (other than Linux), that is so after a kill, too.
/// 7. **Damage is never served.** A damaged value is missed. Where damage hides what was written (a segment that is gone, or
///    whose records can neither be listed nor read; an end that is earlier than it was), everything before it is forgotten
///    as well, since what cannot be read may have superseded it. What stands in later segments stays.
/// 8. Only files that have both our name and our first bytes are ever removed. A directory of another version of the format
///    is started empty.
/// 9. One handle (with its clones) has a directory at a time, in this and in other processes.
///
/// Dropping the last handle is a close in the background: the writer goes on until all is done, and the directory is in
/// use until then. Await `close` to know, and before the process exits.
///
/// # Costs
///
/// Per entry 20 to 40 bytes of memory, and 24 per record of the newest segment; on disk 56 and its padding besides key,
/// region and value. One open file per segment. Half a segment is left free for second chances. Where all is read, half of what
/// is written was written before.
///
/// A `get` of what the system has in memory is one system call on the caller's thread; what it has to fetch, values of more than
/// 256 KiB, and all where the file system has no such call (tmpfs), are fetched by one of up to four threads. A `put` takes the locks of one of 64
/// shards of the index and of the queue. The writer writes what has gathered at once, up to about a MiB, and asks the
/// device for nothing before the close. Per value it copies, takes a checksum and changes one entry of the index.
///
/// Opening reads 16 bytes per record, and after a crash one segment.
///
/// # Limits
///
/// - The oldest goes first: one bit says that a value was read, not when or how often. Values that take more than half a
///   segment have no second chance.
/// - The hint `ttl` is not used.
/// - A value takes at most a segment, and 16 MiB.
/// - What is on the device can be taken back where the system runs on: a disk that is pulled, a snapshot that is restored.
///   If all files are then of one earlier moment, nothing shows it.
/// - Checksums are against accidents. Whoever can write to the directory can forge.
/// - Unix only.
#[derive(Clone)]
pub struct Disk(Arc<Handle>);

/// What all clones share; the threads do not.
struct Handle(Arc<Shared>);

impl Disk {
    /// Starts from the defaults, for this directory: 1 GiB.
    pub fn builder(path: impl Into<PathBuf>) -> DiskBuilder {
        DiskBuilder::new(path.into())
    }

    fn open(options: Options, files: Files) -> Result<Self, DiskError> {
        let log = recovery::open(&options, files)?;
        let handle = Handle(log.shared.clone());
        let writer = thread::Builder::new().name("swiftwater-disk".into());
        let started = writer.spawn(|| Shared::run(log));
        started.map_err(DiskError::io("start a thread for", &options.path))?;
        Ok(Self(Arc::new(handle)))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

#[async_trait]
impl Layer for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    async fn get(&self, key: &LayerKey) -> Result<Option<Bytes>, LayerError> {
        Ok(self.shared().read(key).answer().await?)
    }

    async fn get_many(&self, keys: &[LayerKey]) -> Result<Vec<Option<Bytes>>, LayerError> {
        // All that have to wait wait at the same time.
        let reads: Vec<_> = keys.iter().map(|key| self.shared().read(key)).collect();
        let mut values = Vec::with_capacity(keys.len());
        for read in reads {
            values.push(read.answer().await?);
        }
        Ok(values)
    }

    async fn put(&self, key: &LayerKey, value: Bytes, _: Option<Duration>) -> Result<(), LayerError> {
        Ok(self.shared().put(key, value).await?)
    }

    async fn remove(&self, key: &LayerKey) -> Result<(), LayerError> {
        Ok(self.shared().remove(key).await?)
    }

    async fn close(&self) -> Result<(), LayerError> {
        Ok(self.shared().close().await?)
    }
}

impl Observe for Handle {
    fn observe(&self, visitor: &mut dyn Visitor) {
        let shared = &*self.0;
        shared.stats.observe(visitor);
        visitor.gauge(&ENTRIES, shared.index.entries() as f64);
        visitor.gauge(&USED, shared.used.load(Relaxed) as f64);
        visitor.gauge(&CAPACITY, shared.capacity as f64);
        visitor.gauge(&QUEUED, shared.queued() as f64);
    }
}

impl Observe for Disk {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.0.observe(visitor);
    }
}

impl From<&Disk> for Observer {
    fn from(disk: &Disk) -> Self {
        Self::from(&disk.0)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared();
        let mut debug = f.debug_struct("Disk");
        debug.field("path", &shared.path).field("capacity", &shared.capacity);
        debug.field("entries", &shared.index.entries()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}
