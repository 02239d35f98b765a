//! Reads a trace: one decimal key a line, plain or gzip, as a stream.

use std::{
    fmt::Display,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

/// A longer trace is cut here: 40 MB of memory, and more keys than the clients can ask for in minutes.
const MAX_KEYS: usize = 10_000_000;

/// No decimal `u64` is longer than 20 digits: a line beyond this is no key, however much of it there is.
const MAX_LINE: u64 = 64;

/// The keys of a file, in order. The error is one line for people.
pub fn read(path: &Path) -> Result<Vec<u64>, String> {
    let in_file = |error: &dyn Display| format!("{}: {error}", path.display());
    let mut file = BufReader::new(File::open(path).map_err(|e| in_file(&e))?);
    // By content, not by name: a compressed trace that was renamed is still a trace.
    let is_gzip = file.fill_buf().map_err(|e| in_file(&e))?.starts_with(&[0x1f, 0x8b]);
    if is_gzip { parse(BufReader::new(MultiGzDecoder::new(file))) } else { parse(file) }
        .map_err(|e| in_file(&e))
}

fn parse(mut text: impl BufRead) -> Result<Vec<u64>, String> {
    let mut keys = Vec::new();
    let mut line = Vec::new();
    while keys.len() < MAX_KEYS {
        let number = keys.len() + 1;
        line.clear();
        read_line(&mut text, &mut line).map_err(|e| format!("line {number}: {e}"))?;
        if line.is_empty() {
            break;
        }
        let key = str::from_utf8(&line).ok().and_then(|text| text.trim().parse().ok());
        keys.push(key.ok_or_else(|| {
            let shown = String::from_utf8_lossy(&line);
            format!("line {number}: {:?} is no decimal key", shown.trim_end())
        })?);
    }
    if keys.is_empty() {
        return Err("holds no keys".into());
    }
    Ok(keys)
}

/// Like `read_until`, but a file without line ends is not read into memory whole.
fn read_line(text: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    text.take(MAX_LINE).read_until(b'\n', line)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn error(content: &[u8]) -> String {
        let file = file(content);
        let error = read(file.path()).unwrap_err();
        let name = format!("{}: ", file.path().display());
        error.strip_prefix(&name).expect("names the file").into()
    }

    #[test]
    fn a_trace_is_read_plain_or_compressed() {
        let text = b"7\n 8 \r\n18446744073709551615";
        assert_eq!(read(file(text).path()), Ok(vec![7, 8, u64::MAX]));

        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).unwrap();
        assert_eq!(read(file(&gzip.finish().unwrap()).path()), Ok(vec![7, 8, u64::MAX]));
    }

    #[test]
    fn a_malformed_line_is_named() {
        assert_eq!(error(b"1\n2\nthree\n"), "line 3: \"three\" is no decimal key");
        assert_eq!(error(b"1\n\n2\n"), "line 2: \"\" is no decimal key");
        assert_eq!(error(b"-1"), "line 1: \"-1\" is no decimal key");
        assert_eq!(error(b"1\n18446744073709551616"), "line 2: \"18446744073709551616\" is no decimal key");
        assert_eq!(error(b"\xff\xfe"), "line 1: \"\u{fffd}\u{fffd}\" is no decimal key");
    }

    #[test]
    fn an_endless_line_is_not_read_to_its_end() {
        let mut endless = BufReader::new(io::repeat(b'1'));
        assert!(parse(&mut endless).unwrap_err().starts_with("line 1: "));
    }

    #[test]
    fn a_trace_without_keys_is_refused() {
        assert_eq!(error(b""), "holds no keys");
    }

    #[test]
    fn a_broken_archive_is_an_error_not_a_short_trace() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        for key in 0..10_000 {
            writeln!(gzip, "{key}").unwrap();
        }
        let mut bytes = gzip.finish().unwrap();
        bytes.truncate(bytes.len() / 2);
        assert!(error(&bytes).starts_with("line "));
    }
}
