//! What the formats allow and our own encoders never write.

mod common;

use std::io::Write;

use flate2::{Crc, GzBuilder};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use swiftwater_compress::{Coding, Error, Setting};

use common::*;

#[test]
fn every_optional_gzip_field_is_read_and_its_checksum_checked() {
    let body = json(1000);
    for fields in 0..16u8 {
        let mut builder = GzBuilder::new().mtime(77);
        if fields & 1 != 0 {
            builder = builder.extra(vec![1, 2, 3, 0]);
        }
        if fields & 2 != 0 {
            builder = builder.filename("name");
        }
        if fields & 4 != 0 {
            builder = builder.comment("a comment");
        }
        let mut writer = builder.write(Vec::new(), flate2::Compression::fast());
        writer.write_all(&body).unwrap();
        let mut stream = writer.finish().unwrap();
        if fields & 8 != 0 {
            // flate2 writes no header checksum: put in by hand, after the other fields.
            let mut end = 10;
            end += if fields & 1 != 0 { 2 + 4 } else { 0 };
            end += if fields & 2 != 0 { 5 } else { 0 };
            end += if fields & 4 != 0 { 10 } else { 0 };
            stream[3] |= 2;
            let mut crc = Crc::new();
            crc.update(&stream[..end]);
            let sum = (crc.sum() as u16).to_le_bytes();
            stream.splice(end..end, sum);
            let mut wrong = stream.clone();
            wrong[4] ^= 1; // the time, which nothing else protects
            let error = decompressor().decompress(Coding::Gzip, &wrong).unwrap_err();
            assert!(matches!(error, Error::Checksum { .. }), "{fields}: {error}");
        }
        for sizes in [&[1][..], &[3, 11], &[9999]] {
            let reader = decompressor().reader(Dribble::new(&stream, sizes), Coding::Gzip).unwrap();
            let (got, result) = read_all(reader);
            result.unwrap();
            assert!(got == body, "{fields}");
        }
    }
}

#[test]
fn reserved_gzip_bits_and_other_methods_are_refused() {
    let stream = compress(Setting::gzip(6), b"body");
    for (at, value) in [(2, 7), (2, 0), (3, 0x20), (3, 0x40), (3, 0x80)] {
        let mut wrong = stream.clone();
        wrong[at] = value;
        let error = decompressor().decompress(Coding::Gzip, &wrong).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{at}: {error}");
    }
}

#[test]
fn several_members_and_frames_are_one_body() {
    for setting in [Setting::gzip(6), Setting::lz4(), Setting::zstd(1)] {
        let parts = [json(50_000), vec![], noise(70_000, 4), b"end".to_vec()];
        let stream: Vec<u8> = parts.iter().flat_map(|part| compress(setting, part)).collect();
        for sizes in [&[1][..], &[7, 40_000]] {
            let reader = decompressor().reader(Dribble::new(&stream, sizes), setting.coding()).unwrap();
            let (got, result) = read_all(reader);
            result.unwrap();
            assert!(got == parts.concat(), "{setting}");
        }
    }
}

#[test]
fn lz4_frames_of_every_shape_are_read() {
    let body = [json(150_000), noise(100_000, 6), vec![1; 200_000]].concat();
    for mode in [BlockMode::Independent, BlockMode::Linked] {
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
            for flags in 0..8 {
                let info = FrameInfo::new()
                    .block_mode(mode)
                    .block_size(size)
                    .block_checksums(flags & 1 != 0)
                    .content_checksum(flags & 2 != 0)
                    .content_size((flags & 4 != 0).then_some(body.len() as u64));
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(&body).unwrap();
                let stream = encoder.finish().unwrap();
                let (got, result) = decode(Coding::Lz4, &stream);
                result.unwrap();
                assert!(got == body, "{mode:?}, {size:?}, {flags:b}");
            }
        }
    }
}

#[test]
fn a_wrong_lz4_content_size_or_block_checksum_is_an_error() {
    let body = json(10_000);
    let write = |claimed: u64| {
        let info = FrameInfo::new().block_checksums(true).content_checksum(false).content_size(Some(claimed));
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&body).unwrap();
        // Theirs checks as well; so the size is changed behind its back.
        encoder.finish()
    };
    let mut stream = write(10_000).unwrap();
    assert!(decode(Coding::Lz4, &stream).1.is_ok());
    // Size and header checksum of a body one byte longer.
    let longer = write(10_001);
    assert!(longer.is_err(), "theirs checks when it ends");
    stream[6..14].copy_from_slice(&10_001u64.to_le_bytes());
    stream[14] = (twox_hash::XxHash32::oneshot(0, &stream[4..14]) >> 8) as u8;
    let error = decompressor().decompress(Coding::Lz4, &stream).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");

    let mut stream = write(10_000).unwrap();
    let checksum = stream.len() - 5;
    stream[checksum] ^= 1;
    let error = decompressor().decompress(Coding::Lz4, &stream).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
}

#[test]
fn a_dictionary_is_asked_for_by_number() {
    // Flags: version 01, independent, dictionary id; blocks of 64 KiB; id 77.
    let descriptor = [0x61, 0x40, 77, 0, 0, 0];
    let check = (twox_hash::XxHash32::oneshot(0, &descriptor) >> 8) as u8;
    let lz4 = [&[0x04, 0x22, 0x4d, 0x18][..], &descriptor, &[check], &[0; 4]].concat();
    // A descriptor that announces an id of one byte, and a window.
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x00, 77, 0x01, 0x00, 0x00];
    for (coding, stream) in [(Coding::Lz4, &lz4[..]), (Coding::Zstd, &zstd)] {
        let error = decompressor().decompress(coding, stream).unwrap_err();
        assert!(matches!(error, Error::DictionaryRequired { id: 77, .. }), "{coding}: {error}");
        let (_, result) = decode(coding, stream);
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::Unsupported);
    }
    let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x03, 0x00, 1, 2, 3, 4, 0x01, 0x00, 0x00];
    let error = decompressor().decompress(Coding::Zstd, &wide).unwrap_err();
    assert!(matches!(error, Error::DictionaryRequired { id: 0x0403_0201, .. }), "{error}");
}

/// Every frame header of RFC 8878 3.1.1.1: with or without a window, an id that says "no dictionary", a content size of any
/// width, a checksum.
#[test]
fn zstd_frames_of_every_shape_are_read() {
    let body = json(700);
    let ours = compress(Setting::zstd(1), &body);
    let checksum = &ours[ours.len() - 4..];
    for descriptor in (0..=255u8).filter(|descriptor| descriptor & 0x18 == 0) {
        let (single, id) = (descriptor & 0x20 != 0, [0, 1, 2, 4][usize::from(descriptor & 3)]);
        let width = match descriptor >> 6 {
            0 => usize::from(single),
            n => 1 << n,
        };
        let frame = |body: &[u8], size: u64| {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, descriptor];
            frame.extend((!single).then_some(0)); // 1 KiB
            frame.resize(frame.len() + id, 0);
            let size = if width == 2 { size - 256 } else { size };
            frame.extend(&size.to_le_bytes()[..width]);
            frame.extend(&(1 | (body.len() as u32) << 3).to_le_bytes()[..3]); // the last, raw
            frame.extend(body);
            frame
        };
        if width == 1 {
            let short = frame(b"", 0); // whose checksum is another
            assert!(descriptor & 4 != 0 || decode(Coding::Zstd, &short).1.is_ok(), "{descriptor:08b}");
            continue;
        }
        let end = if descriptor & 4 != 0 { checksum } else { &[] };
        let stream = [&frame(&body, 700)[..], end].concat();
        for sizes in [&[1][..], &[5000]] {
            let twice = stream.repeat(2);
            let (got, result) =
                read_all(decompressor().reader(Dribble::new(&twice, sizes), Coding::Zstd).unwrap());
            assert!(result.is_ok() && got == body.repeat(2), "{descriptor:08b}: {result:?}");
        }
        if width > 0 {
            for wrong in [699, 701] {
                let stream = [&frame(&body, wrong)[..], end].concat();
                let error = decompressor().decompress(Coding::Zstd, &stream).unwrap_err();
                assert!(matches!(error, Error::Corrupt { .. }), "{descriptor:08b}, {wrong}: {error}");
            }
        }
    }
}

#[test]
fn zstd_blocks_that_the_format_forbids_are_refused() {
    let frame = |blocks: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00][..], blocks].concat();
    let word = |last: u32, kind: u32, size: u32| (last | kind << 1 | size << 3).to_le_bytes()[..3].to_vec();
    let decode = |stream: &[u8]| decompressor().decompress(Coding::Zstd, stream);
    // A raw block and a run, as they should be, in a window of 1 KiB.
    let good = frame(&[word(0, 0, 3), b"abc".to_vec(), word(1, 1, 1000), b"z".to_vec()].concat());
    assert_eq!(decode(&good).unwrap(), [b"abc".to_vec(), vec![b'z'; 1000]].concat());
    assert_eq!(decode(&frame(&word(1, 0, 0))).unwrap(), b"", "an empty last block");
    for wrong in [word(1, 3, 0), word(1, 0, 1025), [word(1, 1, 2_000_000), b"z".to_vec()].concat()] {
        let error = decode(&frame(&wrong)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}
