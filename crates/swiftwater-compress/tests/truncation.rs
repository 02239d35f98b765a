//! Where a stream is cut, somebody is told.

mod common;

use std::io::{ErrorKind, Read, Write};

use swiftwater_compress::{Coding, Error, Hints, Setting};

use common::*;

/// Lz4 with everything that its frames may have: linked blocks, block checksums, the content's size and checksum.
fn rich_lz4(body: &[u8]) -> Vec<u8> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Linked)
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(body.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Every prefix but the whole gives a prefix of the body, then `Truncated`, and stays there.
fn every_cut_is_told(coding: Coding, stream: &[u8], body: &[u8]) {
    assert_eq!(decode(coding, stream).0, body);
    for cut in 0..stream.len() {
        let mut reader = decompressor().reader(&stream[..cut], coding).unwrap();
        let mut got = Vec::new();
        let error = reader.read_to_end(&mut got).expect_err("a cut went unseen");
        assert!(body.starts_with(&got), "{coding} cut at {cut} gave something else");
        let truncated = matches!(Error::of(&error), Some(Error::Truncated { .. }));
        assert!(truncated, "{coding} cut at {cut} of {}: {error}", stream.len());
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let again = reader.read(&mut [0; 10]).expect_err("a failed stream ended well after all");
        assert_eq!(Error::of(&again), Error::of(&error));

        let mut writer = decompressor().writer(Vec::new(), coding).unwrap();
        writer.write_all(&stream[..cut]).unwrap();
        let error = writer.finish().expect_err("a cut went unseen");
        assert!(matches!(Error::of(&error), Some(Error::Truncated { .. })), "{coding} cut at {cut}: {error}");
    }
}

#[test]
fn every_cut_of_every_stream_is_an_error() {
    let body = json(5000);
    for setting in [Setting::brotli(0), Setting::brotli(5), Setting::zstd(-3), Setting::zstd(9)]
        .into_iter()
        .chain(quick())
    {
        every_cut_is_told(setting.coding(), &compress(setting, &body), &body);
        every_cut_is_told(setting.coding(), &compress(setting, b""), b"");
    }
}

#[test]
fn every_cut_of_a_flushed_stream_is_an_error() {
    for setting in quick() {
        let mut writer = compressor(setting).writer(Vec::new(), &Hints::new()).unwrap();
        for piece in json(2000).chunks(500) {
            writer.write_all(piece).unwrap();
            writer.flush().unwrap();
        }
        every_cut_is_told(setting.coding(), &writer.finish().unwrap(), &json(2000));
    }
}

/// The library's own frame decoder takes cuts in the frame header, at a block header and before the end mark for the
/// end. Each of them by name.
#[test]
fn lz4_cuts_that_pass_for_an_end_elsewhere_are_errors() {
    let body = [json(3000), noise(3000, 3)].concat();
    let rich = rich_lz4(&body);
    let (header, end_mark) = (4 + 2 + 8 + 1, rich.len() - 8);
    let named = [
        ("nothing at all", 0),
        ("inside the magic number", 2),
        ("after the magic number", 4),
        ("inside the frame header", 10),
        ("at the first block header", header),
        ("inside the first block header", header + 2),
        ("at the end mark", end_mark),
        ("inside the end mark", end_mark + 1),
        ("before the content checksum", end_mark + 4),
        ("inside the content checksum", end_mark + 6),
    ];
    for (name, cut) in named {
        let (_, result) = decode(Coding::Lz4, &rich[..cut]);
        let error = result.expect_err(name);
        assert!(matches!(Error::of(&error), Some(Error::Truncated { .. })), "{name}: {error}");
    }
    assert_eq!(rich[end_mark..end_mark + 4], [0; 4]);
    every_cut_is_told(Coding::Lz4, &rich, &body);
}

#[test]
fn a_cut_in_a_later_member_is_an_error() {
    for setting in [Setting::gzip(6), Setting::lz4(), Setting::zstd(1)] {
        let first = compress(setting, b"first");
        let both = [&first[..], &compress(setting, b"second")].concat();
        assert_eq!(decode(setting.coding(), &both).0, b"firstsecond");
        for cut in first.len() + 1..both.len() {
            let (got, result) = decode(setting.coding(), &both[..cut]);
            assert!(got.starts_with(b"first"), "the first member comes out");
            assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof, "{setting} cut at {cut}");
        }
    }
}

#[test]
fn a_cut_outer_coding_is_an_error_of_the_stack() {
    let once = compress(Setting::gzip(6), &json(3000));
    let twice = compress(Setting::zstd(1), &once);
    let codings = swiftwater_compress::Codings::parse(["gzip, zstd"]).unwrap();
    for cut in 0..twice.len() {
        let error = decompressor().decompress(codings.clone(), &twice[..cut]).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{cut}: {error}");
    }
    // The outer one whole, the inner one cut.
    let cut = compress(Setting::zstd(1), &once[..once.len() - 1]);
    let error = decompressor().decompress(codings, &cut).unwrap_err();
    assert!(matches!(error, Error::Truncated { coding: Coding::Gzip, .. }), "{error}");
}

#[test]
fn what_follows_the_stream_is_an_error() {
    for setting in quick() {
        let body = json(3000);
        let whole = compress(setting, &body);
        for garbage in
            [&b"\0"[..], b"\0\0\0\0\0\0\0\0\0\0", b"garbage", b"\xff", b"\x1f\x00", b"\x28\xb5\x00"]
        {
            let (got, result) = decode(setting.coding(), &[&whole[..], garbage].concat());
            assert_eq!(got, body, "{setting}: the body comes first");
            let error = result.expect_err("garbage went unseen");
            let trailing = matches!(Error::of(&error), Some(Error::TrailingData { .. }));
            // A first byte that begins another member is told apart only by the second.
            assert!(trailing, "{setting} and {garbage:x?}: {error}");
        }
    }
}

/// A writer that is dropped leaves nothing that passes for whole, wherever that happens.
#[test]
fn dropped_without_finish_a_stream_is_cut() {
    for setting in quick() {
        for flush in [false, true] {
            for written in [0, 1, 1000, 65_535, 65_536, 131_072, 200_000] {
                let mut sink = Vec::new();
                let mut writer = compressor(setting).writer(&mut sink, &Hints::new()).unwrap();
                writer.write_all(&mixed(written)).unwrap();
                if flush {
                    writer.flush().unwrap();
                }
                drop(writer);
                let (got, result) = decode(setting.coding(), &sink);
                assert_eq!(
                    result.unwrap_err().kind(),
                    ErrorKind::UnexpectedEof,
                    "{setting}, {written} bytes"
                );
                assert!(!flush || got == mixed(written), "{setting}: what was flushed can be read");
            }
        }
    }
}

#[test]
fn nothing_is_no_stream_but_of_identity() {
    for coding in CODINGS {
        let error = decompressor().decompress(coding, b"").unwrap_err();
        assert!(matches!(error, Error::Truncated { offset: 0, .. }), "{coding}: {error}");
    }
    assert_eq!(decompressor().decompress(Coding::Identity, b"").unwrap(), b"");
}
