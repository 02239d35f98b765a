//! Other people's code reads what we write, and we read what it writes.

mod common;

use std::io::{Read, Write};

use swiftwater_compress::{Coding, Setting};

use common::*;

fn bodies() -> Vec<Vec<u8>> {
    vec![vec![], b"x".to_vec(), json(5000), noise(70_000, 1), vec![0; 300_000], mixed(400_000)]
}

fn others_read(setting: Setting, read: impl Fn(&[u8]) -> Vec<u8>) {
    for body in bodies() {
        assert!(read(&compress(setting, &body)) == body, "{setting}, {} bytes", body.len());
        // Flushed, and as a reader makes it.
        let mut writer = compressor(setting).writer(Vec::new(), &swiftwater_compress::Hints::new()).unwrap();
        for piece in body.chunks(30_000) {
            writer.write_all(piece).unwrap();
            writer.flush().unwrap();
        }
        assert!(read(&writer.finish().unwrap()) == body, "{setting}, flushed, {} bytes", body.len());
    }
}

fn all(mut reader: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn flate2_reads_our_gzip() {
    for level in 1..=9 {
        others_read(Setting::gzip(level), |stream| all(flate2::read::MultiGzDecoder::new(stream)));
        others_read(Setting::gzip(level), |stream| all(flate2::read::GzDecoder::new(stream))); // one member
    }
}

#[test]
fn the_brotli_crates_reader_reads_our_brotli() {
    for level in [0, 1, 2, 3, 4, 5, 9] {
        others_read(Setting::brotli(level), |stream| all(brotli::Decompressor::new(stream, 4096)));
    }
}

#[test]
fn lz4_flex_reads_our_frames() {
    others_read(Setting::lz4(), |stream| all(lz4_flex::frame::FrameDecoder::new(stream)));
}

/// A decoder that shares no code with the C library.
#[test]
fn ruzstd_reads_our_zstd() {
    for level in [-7, 1, 3, 9, 19] {
        others_read(Setting::zstd(level), |stream| {
            let mut decoder = ruzstd::decoding::FrameDecoder::new();
            let mut stream = stream;
            decoder.init(&mut stream).unwrap();
            decoder.decode_blocks(&mut stream, ruzstd::decoding::BlockDecodingStrategy::All).unwrap();
            let body = decoder.collect().unwrap_or_default();
            assert_eq!(decoder.get_checksum_from_data(), decoder.get_calculated_checksum(), "its checksum");
            assert!(stream.is_empty(), "one frame");
            body
        });
    }
}

fn we_read(coding: Coding, write: impl Fn(&[u8]) -> Vec<u8>) {
    for body in bodies() {
        let (got, result) = decode(coding, &write(&body));
        result.unwrap();
        assert!(got == body, "{coding}, {} bytes", body.len());
    }
}

#[test]
fn we_read_flate2() {
    for level in 0..=9 {
        we_read(Coding::Gzip, |body| {
            let mut writer =
                flate2::GzBuilder::new().filename("name").write(Vec::new(), flate2::Compression::new(level));
            writer.write_all(body).unwrap();
            writer.finish().unwrap()
        });
    }
}

#[test]
fn we_read_the_brotli_crates_writer() {
    for (quality, window) in [(0, 10), (1, 22), (4, 24), (5, 16), (6, 20)] {
        we_read(Coding::Brotli, |body| {
            let mut stream = Vec::new();
            let mut writer = brotli::CompressorWriter::new(&mut stream, 4096, quality, window);
            writer.write_all(body).unwrap();
            drop(writer);
            stream
        });
    }
}

#[test]
fn we_read_ruzstds_encoder() {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    for level in [CompressionLevel::Uncompressed, CompressionLevel::Fastest] {
        we_read(Coding::Zstd, |body| compress_to_vec(body, level));
    }
}
