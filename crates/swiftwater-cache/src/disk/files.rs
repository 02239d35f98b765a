//! The few calls that change files, each with what to say if it fails; the place where tests break things.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::error::DiskError;

/// A segment's file. Readers hold it while they read, so it may outlive its name.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
}

#[derive(Clone, Default)]
pub(super) struct Files {
    #[cfg(test)]
    pub(super) faults: std::sync::Arc<super::tests::Faults>,
}

impl Files {
    /// Makes an empty file, or empties it.
    pub(super) fn create(&self, path: &Path) -> Result<File, DiskError> {
        #[cfg(test)]
        self.faults.create().map_err(DiskError::io("create", path))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.open(path).map_err(DiskError::io("create", path))
    }

    pub(super) fn write(&self, file: &File, path: &Path, bytes: &[u8], at: u64) -> Result<(), DiskError> {
        #[cfg(test)]
        self.faults.write(file, path, bytes, at).map_err(DiskError::io("write", path))?;
        file.write_all_at(bytes, at).map_err(DiskError::io("write", path))
    }

    pub(super) fn cut(&self, file: &File, path: &Path, len: u64) -> Result<(), DiskError> {
        #[cfg(test)]
        self.faults.change().map_err(DiskError::io("shorten", path))?;
        file.set_len(len).map_err(DiskError::io("shorten", path))
    }

    /// Nothing to remove is fine: somebody else was quicker.
    pub(super) fn remove(&self, path: &Path) -> Result<(), DiskError> {
        #[cfg(test)]
        self.faults.change().map_err(DiskError::io("remove", path))?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DiskError::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// To the device: data and length of a file, or the names in a directory.
    pub(super) fn sync(&self, file: &File, path: &Path) -> Result<(), DiskError> {
        file.sync_data().map_err(DiskError::io("sync", path))
    }

    pub(super) fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        let directory = File::open(path).map_err(DiskError::io("open", path))?;
        directory.sync_all().map_err(DiskError::io("sync", path))
    }
}

/// Reads up to the end of the file or of the buffer; how much that was.
pub(super) fn read_at(file: &File, mut into: &mut [u8], mut at: u64) -> std::io::Result<usize> {
    let wanted = into.len();
    while !into.is_empty() {
        match file.read_at(into, at) {
            Ok(0) => break,
            Ok(read) => {
                at += read as u64;
                into = &mut into[read..];
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wanted - into.len())
}

pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{number:016x}{SUFFIX}"))
}

/// The number in a segment's name, if it is one.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    // One name per number.
    (digits == format!("{number:016x}")).then_some(number)
}

const PREFIX: &str = "swiftwater-";
const SUFFIX: &str = ".segment";
pub(super) const CONTROL: &str = "swiftwater.control";
pub(super) const CLEAN: &str = "swiftwater.clean";
/// What becomes [`CLEAN`] once it is whole.
pub(super) const CLEAN_NEW: &str = "swiftwater.clean.new";
