//! What was invalidated, written down when the cache is closed, and read when it starts again.
//!
//! Without it nothing that layers have kept may be believed after a restart: something may have been invalidated that they
//! know nothing of. So:
//!
//! 1. A file is believed once. It is removed, and the removal is on the disk, before the cache is there: a crash leaves none
//!    behind, and what follows a crash begins a new life, in which nothing from before is served.
//! 2. A file that is damaged, cut short, or of other sizes is as good as none.
//! 3. It is written after the layers are closed, and taken back if anything is invalidated afterwards.
//!
//! | Bytes | |
//! |---|---|
//! | 0..4 | `swV1`: the format |
//! | 4..8 | the sizes of the tables: bits for names, kinds, regions, and zero |
//! | 8..48 | the life, the ticket, the cell of everything, the time in that life, the wall clock's time |
//! | 48.. | the cells |
//! | last 8 | a checksum (xxh3) of everything before |

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use swiftwater_core::Tick;
use xxhash_rust::xxh3::xxh3_64;

use crate::{life::Life, stamps::Stamps};

/// Where a cache writes itself down.
pub(crate) struct Persist {
    path: PathBuf,
    /// Set before the versions are read for the file.
    closed: AtomicBool,
    /// Held while the file is written or taken back.
    file: Mutex<()>,
}

impl Persist {
    /// Reads what was written, and removes it. `now` is the present time of the cache's clock.
    pub(crate) fn open(
        path: PathBuf,
        bits: [u32; 3],
        now: Tick,
    ) -> io::Result<(Self, Option<(Life, Stamps)>)> {
        let resumed = match fs::read(&path) {
            Ok(bytes) => {
                fs::remove_file(&path)?;
                parse(&bytes, bits, now)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // Also where there is no file: it shows now that the directory is there, and not at the end.
        sync_directory(&path)?;
        Ok((Self { path, closed: AtomicBool::new(false), file: Mutex::new(()) }, resumed))
    }

    /// Writes the versions down. The layers have been closed. `floor` says before which version nothing is to be believed.
    pub(crate) fn write(&self, life: &Life, stamps: &Stamps, floor: u64, now: Tick) -> io::Result<()> {
        let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Relaxed);
        // Whoever invalidates does so first and looks for `closed` then: one of us sees the other.
        fence(SeqCst);
        let bytes = compose(life, stamps, floor, now);
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        sync_directory(&self.path)
    }

    /// Something has been invalidated: what was written down, if it was, does not say so.
    pub(crate) fn invalidated(&self) {
        fence(SeqCst);
        if self.closed.load(Relaxed) {
            let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            // Where it cannot be removed it can hardly have been written.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn compose(life: &Life, stamps: &Stamps, floor: u64, now: Tick) -> Vec<u8> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (bits, ticket, all) = (stamps.bits(), stamps.now().number(), stamps.all().max(floor));
    let mut bytes = Vec::from(MAGIC);
    bytes.extend(bits.map(|bits| bits as u8)); // at most 32
    bytes.push(0);
    for word in
        [life.id(), ticket, all, life.nanos(now), wall.as_nanos() as u64].into_iter().chain(stamps.cells())
    {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn parse(bytes: &[u8], bits: [u32; 3], now: Tick) -> Option<(Life, Stamps)> {
    let (body, checksum) = bytes.split_last_chunk::<8>()?;
    let (head, words) = body.split_first_chunk::<8>()?;
    let same = &head[..4] == MAGIC && head[4..7].iter().map(|bits| u32::from(*bits)).eq(bits);
    if !same || u64::from_le_bytes(*checksum) != xxh3_64(body) {
        return None;
    }
    let mut words =
        words.chunks_exact(8).map(|word| word.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    let (id, ticket, all, at, wall) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let stamps = Stamps::restore(bits, ticket, all, words)?;
    // The one place where a wall clock counts, and for lifetimes only: if it went back no time has passed.
    let elapsed =
        SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_nanos(wall)).unwrap_or_default();
    let at = at.saturating_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    Some((Life::resume(id, at, now), stamps))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

const MAGIC: &[u8; 4] = b"swV1";
