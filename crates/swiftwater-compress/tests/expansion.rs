//! What does not shrink hardly grows: the bounds that the crate's documentation states.

mod common;

use std::io::Write;

use swiftwater_compress::Hints;

use common::*;

#[test]
fn noise_grows_by_less_than_a_thousandth_and_64_bytes() {
    for setting in settings() {
        for len in [0, 1, 10, 100, 5000, 65_535, 65_536, 200_000, 1 << 20] {
            if len > if setting.level() > 8 { 65_536 } else { 200_000 } && !quick().contains(&setting) {
                continue; // seconds, at the high levels
            }
            let body = noise(len, 1 + len as u64);
            let bound = len + len / 1000 + 64;
            let stream = compress(setting, &body).len();
            assert!(stream <= bound, "{setting}: {len} bytes became {stream}");
            let mut writer = compressor(setting).writer(Vec::new(), &Hints::new()).unwrap();
            writer.write_all(&body).unwrap();
            let stream = writer.finish().unwrap().len();
            assert!(stream <= bound, "{setting}, written: {len} bytes became {stream}");
        }
    }
}

#[test]
fn a_flush_costs_at_most_16_bytes() {
    for setting in settings() {
        let body = noise(100 * 50, 3);
        let mut writer = compressor(setting).writer(Vec::new(), &Hints::new()).unwrap();
        for piece in body.chunks(50) {
            writer.write_all(piece).unwrap();
            writer.flush().unwrap();
        }
        let stream = writer.finish().unwrap().len();
        assert!(stream <= body.len() + 64 + 100 * 16, "{setting}: {stream} bytes for {}", body.len());
    }
}
