//! What readers owe to the caller: every byte once, an end only where there is one.

mod common;

use std::io::{ErrorKind, Read};

use swiftwater_compress::{Coding, Error, Hints, Setting};

use common::*;

fn read_patiently(mut reader: impl Read, size: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = vec![0; size];
    loop {
        match patiently(|| reader.read(&mut piece)).unwrap() {
            0 => return all,
            n => all.extend(&piece[..n]),
        }
    }
}

#[test]
fn an_inner_reader_that_blocks_and_stutters_loses_and_doubles_nothing() {
    let body = mixed(200_000);
    for setting in quick().into_iter().chain([Setting::identity()]) {
        for (at_most, size) in [(1, 1000), (7, 3), (50_000, 20_000)] {
            let inner = Flaky::new(&body[..], at_most);
            let stream = read_patiently(compressor(setting).reader(inner, &Hints::new()).unwrap(), size);
            let inner = Flaky::new(&stream[..], at_most);
            let got = read_patiently(decompressor().reader(inner, setting.coding()).unwrap(), size);
            assert!(got == body, "{setting}, {at_most} and {size} at a time");
        }
    }
}

#[test]
fn the_end_stays_the_end() {
    for setting in quick() {
        let mut reader = compressor(setting).reader(&b"body"[..], &Hints::new()).unwrap();
        let mut stream = Vec::new();
        reader.read_to_end(&mut stream).unwrap();
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
        let mut reader = decompressor().reader(&stream[..], setting.coding()).unwrap();
        assert_eq!(reader.read(&mut []).unwrap(), 0, "no room is not the end");
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"body");
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
    }
}

/// Fails for good after its data.
struct Breaks<'a>(&'a [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() { Err(ErrorKind::ConnectionReset.into()) } else { self.0.read(buf) }
    }
}

#[test]
fn a_connection_that_breaks_is_no_end() {
    for setting in quick() {
        let stream = compress(setting, &json(5000));
        let (got, result) = read_all(decompressor().reader(Breaks(&stream), setting.coding()).unwrap());
        assert_eq!(got, json(5000));
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the inner reader's own error");
        assert!(Error::of(&error).is_none());
        let (_, result) = read_all(compressor(setting).reader(Breaks(&json(5000)), &Hints::new()).unwrap());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn errors_of_a_stream_stay() {
    for coding in CODINGS {
        let mut reader = decompressor().reader(&b"certainly not a stream"[..], coding).unwrap();
        let first = reader.read(&mut [0; 64]).unwrap_err();
        for _ in 0..3 {
            let again = reader.read(&mut [0; 64]).unwrap_err();
            assert_eq!(Error::of(&again), Error::of(&first), "{coding}");
        }
    }
}

#[test]
fn the_inner_one_can_be_looked_at_and_had_back() {
    let mut reader = compressor(Setting::gzip(6)).reader(&b"body"[..], &Hints::new()).unwrap();
    assert_eq!((reader.get_ref(), reader.coding()), (&&b"body"[..], Coding::Gzip));
    *reader.get_mut() = b"other";
    let mut stream = Vec::new();
    reader.read_to_end(&mut stream).unwrap();
    assert_eq!(reader.into_inner(), b"");
    let mut reader = decompressor().reader(&stream[..], Coding::Gzip).unwrap();
    assert_eq!(reader.get_ref().len(), stream.len());
    assert_eq!(reader.get_mut().len(), stream.len());
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    assert_eq!((got.as_slice(), reader.into_inner()), (&b"other"[..], &b""[..]));
}
