//! What goes in comes out: every coding, level and way of cutting.

mod common;

use std::io::{Read, Write};

use proptest::prelude::*;
use swiftwater_compress::{Coding, Hints};

use common::*;

/// Written in pieces of these sizes.
fn write_in(setting: swiftwater_compress::Setting, data: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut writer = compressor(setting).writer(Vec::new(), &Hints::new()).unwrap();
    let mut rest = data;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).clamp(1, rest.len()));
        writer.write_all(piece).unwrap();
        rest = after;
    }
    writer.finish().unwrap()
}

/// Read in pieces of these sizes, from a source that gives pieces of those.
fn read_in(mut reader: impl Read, sizes: &[usize]) -> Vec<u8> {
    let mut all = Vec::new();
    for size in sizes.iter().cycle() {
        let mut piece = vec![0; (*size).max(1)];
        match reader.read(&mut piece).unwrap() {
            0 => break,
            n => all.extend(&piece[..n]),
        }
    }
    all
}

#[test]
fn every_setting_gives_back_every_kind_of_body() {
    for setting in settings() {
        // Seconds, at the high levels.
        let long = if setting.coding() == Coding::Brotli && setting.level() > 8 { 20_000 } else { 150_000 };
        for body in [vec![], b"a".to_vec(), json(3000), noise(3000, 1), vec![0; 70_000], mixed(long)] {
            let encoded = compress(setting, &body);
            let decoded = decompressor().decompress(setting.coding(), &encoded).unwrap();
            assert!(decoded == body, "{setting}, {} bytes", body.len());
        }
    }
}

#[test]
fn bodies_around_the_size_of_a_block_come_back() {
    let data = mixed(300_000);
    for setting in quick() {
        for block in [65_535, 65_536, 131_072] {
            for len in [block - 1, block, block + 1, 2 * block, 2 * block + 1] {
                let decoded = decode(setting.coding(), &compress(setting, &data[..len]));
                assert!(decoded.1.is_ok() && decoded.0 == data[..len], "{setting}, {len} bytes");
            }
        }
    }
}

#[test]
fn stacked_codings_come_back() {
    let body = json(200_000);
    let once = compress(swiftwater_compress::Setting::gzip(6), &body);
    let twice = compress(swiftwater_compress::Setting::brotli(2), &once);
    let codings = swiftwater_compress::Codings::parse(["gzip", "br"]).unwrap();
    let mut reader = decompressor().reader(Dribble::new(&twice, &[1, 7, 1000]), codings.clone()).unwrap();
    let mut decoded = Vec::new();
    reader.read_to_end(&mut decoded).unwrap();
    assert!(decoded == body);
    assert!(decompressor().decompress(codings, &twice).unwrap() == body);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cuts_change_nothing(
        pick in any::<prop::sample::Index>(),
        kind in 0..3,
        len in 0..300_000usize,
        writes in prop::collection::vec(1..100_000usize, 1..5),
        sources in prop::collection::vec(1..50_000usize, 1..5),
        reads in prop::collection::vec(1..50_000usize, 1..5),
    ) {
        let quick: Vec<_> = settings().into_iter()
            .filter(|setting| setting.coding() != Coding::Zstd || setting.level() < 10)
            .filter(|setting| setting.coding() != Coding::Brotli || setting.level() < 6)
            .collect();
        let setting = *pick.get(&quick);
        let body = match kind { 0 => json(len), 1 => noise(len, 7), _ => mixed(len) };

        let whole = write_in(setting, &body, &[usize::MAX]);
        prop_assert!(write_in(setting, &body, &writes) == whole, "cuts between writes show in the stream");
        let source = Dribble::new(&body, &sources);
        let read = read_in(compressor(setting).reader(source, &Hints::new()).unwrap(), &reads);
        prop_assert!(read == whole, "a reader gives another stream than a writer");

        let source = Dribble::new(&whole, &sources);
        let decoded = read_in(decompressor().reader(source, setting.coding()).unwrap(), &reads);
        prop_assert!(decoded == body);

        let mut writer = decompressor().writer(Vec::new(), setting.coding()).unwrap();
        for piece in whole.chunks(writes[0]) {
            writer.write_all(piece).unwrap();
        }
        prop_assert!(writer.finish().unwrap() == body);
    }
}
