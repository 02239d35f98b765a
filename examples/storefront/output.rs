//! Files that a run is asked to write. Opened before it starts, so that nobody waits a minute to learn of a typing error.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

pub struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// What the file holds stays until [`write`](Self::write).
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        Ok(Self { file: file.map_err(|e| cannot_write(path, &e))?, path: path.to_path_buf() })
    }

    /// Whether the two are one file, under whatever names.
    pub fn is(&self, other: &Self) -> bool {
        match (self.path.canonicalize(), other.path.canonicalize()) {
            (Ok(one), Ok(two)) => one == two,
            _ => false,
        }
    }

    pub fn write(mut self, content: &str) -> Result<(), String> {
        let mut replace = || {
            // Pipes and terminals have no length to cut.
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            self.file.write_all(content.as_bytes())
        };
        replace().map_err(|e| cannot_write(&self.path, &e))
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}
