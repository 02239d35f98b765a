//! Streams that are made to cost much for little input.

mod common;

use std::io::Read;

use swiftwater_compress::Coding;

use common::*;

/// An lz4 frame of tiny blocks that announces the largest there are: raw and compressed by turns, linked. Were each of
/// them to cost its announced length, the test would run into its time-out.
#[test]
fn tiny_lz4_blocks_cost_what_they_are_not_what_they_announce() {
    let descriptor = [0x40, 0x70]; // version 01, linked, blocks of up to 4 MiB
    let check = (twox_hash::XxHash32::oneshot(0, &descriptor) >> 8) as u8;
    let mut stream = vec![0x04, 0x22, 0x4d, 0x18, descriptor[0], descriptor[1], check];
    for _ in 0..200_000 {
        stream.extend([1, 0, 0, 0x80, b'r']); // raw: one byte
        stream.extend([2, 0, 0, 0, 0x10, b'c']); // compressed: one literal
    }
    stream.extend([0; 4]);
    let (got, result) = decode(Coding::Lz4, &stream);
    result.unwrap();
    assert!(got == b"rc".repeat(200_000));
}

/// Half a million empty blocks: nothing comes out, and it ends.
#[test]
fn empty_blocks_come_to_an_end() {
    let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00];
    zstd.extend([0; 3].repeat(500_000)); // raw, empty, not the last
    zstd.extend([1, 0, 0]);
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    gzip.extend([0, 0, 0, 0xff, 0xff].repeat(500_000)); // stored, empty, not the last
    gzip.extend([3, 0]);
    gzip.extend([0; 8]);
    for (coding, stream) in [(Coding::Zstd, zstd), (Coding::Gzip, gzip)] {
        let mut got = Vec::new();
        decompressor().reader(&stream[..], coding).unwrap().read_to_end(&mut got).unwrap();
        assert_eq!(got, b"", "{coding}");
        let (_, result) = decode(coding, &stream[..stream.len() - 9]);
        assert!(result.is_err());
    }
}
