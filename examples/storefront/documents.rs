//! The files of `--documents DIR`, in memory: what the shop then sends in place of its lists.

use std::{ffi::OsStr, fmt::Display, fs, path::Path};

use axum::body::Bytes;

/// Something to send, as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub media_type: &'static str,
    pub body: Bytes,
}

#[derive(Debug, Default, PartialEq)]
pub struct Documents(Vec<Document>);

impl Documents {
    /// The files of a folder by name, without those in its folders. The error is one line for people.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let in_file = |path: &Path, error: &dyn Display| format!("{}: {error}", path.display());
        let entries = fs::read_dir(folder).map_err(|e| in_file(folder, &e))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(|e| in_file(folder, &e))?.path());
        }
        paths.sort();

        let mut documents = Vec::new();
        let mut bytes = 0;
        for path in paths {
            let metadata = fs::metadata(&path).map_err(|e| in_file(&path, &e))?;
            if !metadata.is_file() || metadata.len() == 0 {
                continue;
            }
            bytes += metadata.len();
            if bytes > MOST_BYTES {
                return Err(in_file(folder, &format_args!("holds more than {} MB", MOST_BYTES / 1_000_000)));
            }
            let body = fs::read(&path).map_err(|e| in_file(&path, &e))?.into();
            documents.push(Document { media_type: media_type(&path), body });
        }
        if documents.is_empty() {
            return Err(in_file(folder, &"holds no files"));
        }
        Ok(Self(documents))
    }

    /// By number, from 0.
    pub fn get(&self, number: usize) -> Option<&Document> {
        self.0.get(number)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(OsStr::to_str).unwrap_or_default() {
        "css" => "text/css",
        "csv" => "text/csv",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "gif" => "image/gif",
        "gz" => "application/gzip",
        "har" | "json" => "application/json",
        "htm" | "html" => "text/html",
        "jpeg" | "jpg" => "image/jpeg",
        "js" => "text/javascript",
        "md" | "txt" => "text/plain",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "xls" => "application/vnd.ms-excel",
        "xml" => "application/xml",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

/// They are held in memory, once as they are and once in each coding.
const MOST_BYTES: u64 = 256_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn the_files_of_a_folder_are_read_in_the_order_of_their_names() {
        let folder = folder();
        fs::write(folder.path().join("b.json"), "{}").unwrap();
        fs::write(folder.path().join("a"), "A").unwrap();
        fs::write(folder.path().join("empty.txt"), "").unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        let documents = Documents::read(folder.path()).unwrap();
        let document = |media_type, body| Document { media_type, body: Bytes::from_static(body) };
        assert_eq!(
            documents,
            Documents(vec![document("application/octet-stream", b"A"), document("application/json", b"{}"),])
        );
    }

    #[test]
    fn a_folder_that_is_none_or_holds_nothing_is_named() {
        let folder = folder();
        let nothing = Documents::read(folder.path()).unwrap_err();
        assert_eq!(nothing, format!("{}: holds no files", folder.path().display()));
        let missing = folder.path().join("missing");
        assert!(Documents::read(&missing).unwrap_err().starts_with(&format!("{}: ", missing.display())));
    }
}
