//! What takes breaking the system's calls to see.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use super::index::lock;

/// Makes the calls of `files` fail.
pub(super) struct Faults {
    /// Bytes that can still be written.
    room: AtomicU64,
    /// Nothing can be shortened or removed.
    stuck: AtomicBool,
    /// Whoever holds it holds the writer up.
    gate: Mutex<()>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { room: AtomicU64::new(u64::MAX), stuck: AtomicBool::new(false), gate: Mutex::new(()) }
    }
}

impl Faults {
    pub(super) fn pass_gate(&self) {
        drop(lock(&self.gate));
    }

    pub(super) fn create(&self) -> io::Result<()> {
        if self.room.load(SeqCst) == 0 { Err(full()) } else { Ok(()) }
    }

    /// As a full device does it: what fits is written.
    pub(super) fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let len = bytes.len() as u64;
        let before = self.room.fetch_update(SeqCst, SeqCst, |room| Some(room.saturating_sub(len)));
        match before {
            Ok(room) if room < len => {
                file.write_all_at(&bytes[..room as usize], at)?;
                Err(full())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn change(&self) -> io::Result<()> {
        if self.stuck.load(SeqCst) { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}
