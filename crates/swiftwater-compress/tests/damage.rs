//! Flipped bytes and noise: an error or a declared output, never a panic, never a hang, and no wrong bytes where the
//! format has a checksum.

mod common;

use std::io::Read;

use proptest::prelude::*;
use swiftwater_compress::{Coding, Error, Setting};

use common::*;

/// Flips each byte in several ways and gives what came of it to `judge`.
fn flip(setting: Setting, body: &[u8], mut judge: impl FnMut(usize, Result<Vec<u8>, Error>)) {
    let stream = compress(setting, body);
    for at in 0..stream.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut damaged = stream.clone();
            damaged[at] ^= mask;
            judge(at, decompressor().decompress(setting.coding(), &damaged));
        }
    }
}

#[test]
fn a_flipped_byte_never_gives_other_bytes_where_there_is_a_checksum() {
    for setting in [Setting::gzip(1), Setting::gzip(6), Setting::lz4(), Setting::zstd(1), Setting::zstd(9)] {
        for body in [json(1500), noise(300, 5), vec![7; 5000]] {
            let mut refused = 0;
            flip(setting, &body, |at, result| match result {
                // Bits that mean nothing: gzip's time, system and hint at the level.
                Ok(got) => assert!(got == body, "{setting}: byte {at} flipped unseen"),
                Err(_) => refused += 1,
            });
            assert!(refused > 50, "{setting}: the flips were not even looked at");
        }
    }
}

#[test]
fn a_flipped_byte_in_brotli_ends() {
    let mut refused = 0;
    for body in [json(1500), noise(300, 5)] {
        // No checksum: other bytes may come out, within the limits.
        flip(Setting::brotli(5), &body, |_, result| refused += usize::from(result.is_err()));
    }
    assert!(refused > 0);
}

#[test]
fn checksums_are_told_from_nonsense() {
    for setting in [Setting::gzip(6), Setting::lz4(), Setting::zstd(1)] {
        let mut stream = compress(setting, &json(3000));
        let last = stream.len() - 1;
        stream[if setting.coding() == Coding::Gzip { last - 7 } else { last }] ^= 1;
        let (got, result) = decode(setting.coding(), &stream);
        assert_eq!(got, json(3000), "{setting}: provisional bytes come first");
        let error = result.unwrap_err();
        assert!(matches!(Error::of(&error), Some(Error::Checksum { .. })), "{setting}: {error}");
        let nonsense = decompressor().decompress(setting.coding(), b"certainly not a stream").unwrap_err();
        assert!(matches!(nonsense, Error::Corrupt { .. }), "{setting}: {nonsense}");
    }
    // The length in gzip's trailer counts as well.
    let mut stream = compress(Setting::gzip(6), &json(3000));
    let last = stream.len() - 1;
    stream[last] ^= 1;
    let error = decompressor().decompress(Coding::Gzip, &stream).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
}

/// Blocks before a bad one are delivered, however large the input that they came in.
#[test]
fn what_was_good_comes_before_the_error() {
    let body = noise(600_000, 9);
    for setting in [Setting::gzip(6), Setting::lz4(), Setting::zstd(1)] {
        let mut stream = compress(setting, &body);
        let at = stream.len() - 100_000;
        stream.truncate(at);
        stream.extend([0xff; 100_000]);
        let (got, result) = decode(setting.coding(), &stream);
        assert!(result.is_err());
        assert!(got.len() > 300_000, "{setting} gave {} bytes", got.len());
        assert!(body.starts_with(&got[..300_000]));
    }
}

/// The library takes a raw block as it comes, and may hold back what there was no room for.
#[test]
fn a_raw_block_that_was_cut_is_delivered_up_to_the_cut() {
    // A frame with a window of a megabyte, and a raw block of which 33 bytes are there.
    let stream =
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x50][..], &(4096u32 << 3).to_le_bytes()[..3], &[7; 33]].concat();
    for room in 1..40 {
        let (mut reader, mut got) =
            (decompressor().reader(&stream[..], Coding::Zstd).unwrap(), Vec::<u8>::new());
        let mut buffer = vec![0; room];
        let error = loop {
            match reader.read(&mut buffer) {
                Ok(n) => got.extend(&buffer[..n]),
                Err(error) => break error,
            }
        };
        assert!(matches!(Error::of(&error), Some(Error::Truncated { .. })), "{error}");
        assert_eq!(got, [7; 33], "read {room} at a time");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_ends_the_same_way_under_any_cuts(
        coding in prop::sample::select(CODINGS.to_vec()),
        good in 0..200usize,
        noise in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(1..40usize, 1..4),
    ) {
        let setting = quick().into_iter().find(|setting| setting.coding() == coding).unwrap();
        let whole = compress(setting, &json(400));
        let bytes = [&whole[..good.min(whole.len())], &noise].concat();
        let at_once = decode(coding, &bytes);
        let cut = read_all(decompressor().reader(Dribble::new(&bytes, &cuts), coding).unwrap());
        prop_assert_eq!(at_once.1.is_ok(), cut.1.is_ok());
        let kind = |result: std::io::Result<()>| result.err().map(|error| error.kind());
        prop_assert_eq!(kind(at_once.1), kind(cut.1));
        if coding != Coding::Brotli {
            prop_assert_eq!(at_once.0, cut.0);
        }
    }
}
