//! What the handles show, and what their knobs turn.

mod common;

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{Read, Write},
};

use swiftwater_compress::{Coding, Compressor, Decompressor, Fixed, Hints, Reason, Rules, Setting};
use swiftwater_core::{Desc, Observe, Registry, Tunable, Visitor, conformance};

use common::*;

#[derive(Default)]
struct Readings {
    path: String,
    all: BTreeMap<String, u64>,
}

impl Visitor for Readings {
    fn counter(&mut self, desc: &'static Desc, value: u64) {
        self.all.insert(format!("{}{}", self.path, desc.name), value);
    }

    fn part(&mut self, _: &'static str, name: &dyn Display, inner: &dyn Observe) {
        let outer = std::mem::replace(&mut self.path, format!("{name}."));
        inner.observe(self);
        self.path = outer;
    }
}

/// Those that are not zero.
fn readings(shown: &dyn Observe) -> BTreeMap<String, u64> {
    let mut readings = Readings::default();
    shown.observe(&mut readings);
    readings.all.retain(|_, value| *value > 0);
    readings.all
}

fn expect(shown: &dyn Observe, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> =
        expected.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(readings(shown), expected);
}

#[test]
fn bodies_and_bytes_are_counted_by_coding_and_reason() {
    let compressor = Compressor::builder().policy(Fixed(Setting::gzip(6))).build().unwrap();
    expect(&compressor, &[]);
    let one_shot = compressor.compress(&Hints::new(), &json(5000)).unwrap().into_bytes().into_owned();
    let mut writer = compressor.writer(Vec::new(), &Hints::new()).unwrap();
    writer.write_all(&json(7000)).unwrap();
    let written = writer.finish().unwrap();
    let mut reader = compressor.reader(&b"body"[..], &Hints::new()).unwrap();
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    compressor.compress(&Hints::new().content_encoding("br"), b"encoded").unwrap();
    let bytes_out = (one_shot.len() + written.len() + read.len()) as u64;
    expect(
        &compressor,
        &[
            ("gzip.bodies", 3),
            ("gzip.input", 12_004),
            ("gzip.output", bytes_out),
            ("identity.bodies", 1),
            ("identity.input", 7),
            ("identity.output", 7),
            ("fixed.chosen", 3),
            ("already_encoded.chosen", 1),
        ],
    );
}

#[test]
fn what_could_not_be_decoded_is_counted_by_why() {
    let decompressor = Decompressor::builder().build().unwrap();
    let stream = compress(Setting::gzip(6), b"body");
    let length = stream.len();
    decompressor.decompress(Coding::Gzip, &stream).unwrap();
    decompressor.decompress(Coding::Gzip, b"nonsense").unwrap_err();
    let three = [Coding::Gzip; 3].into_iter().collect::<swiftwater_compress::Codings>();
    decompressor.decompress(three, b"").unwrap_err();
    let mut reader = decompressor.reader(&stream[..length - 1], Coding::Gzip).unwrap();
    for _ in 0..3 {
        // Told three times, counted once.
        reader.read_to_end(&mut Vec::new()).unwrap_err();
    }
    expect(
        &decompressor,
        &[
            ("bodies", 4),
            ("input", length as u64 + length as u64 - 1),
            ("output", 8),
            ("failed_corrupt", 1),
            ("failed_truncated", 1),
            ("codings.exceeded", 1),
        ],
    );
}

#[test]
fn the_seams_keep_their_laws() {
    let compressor = Compressor::builder().build().unwrap();
    conformance::observe(&compressor);
    conformance::observe(&decompressor());
    conformance::tunable(&compressor);
    for min_size in [0, 10 << 20, u64::MAX] {
        let rules = Rules::new().min_size(min_size); // also above where the knob ends by itself
        conformance::tunable(&Compressor::builder().policy(rules).build().unwrap());
    }
    let registry = Registry::new();
    registry.add("compress", "pages", &compressor).unwrap();
    registry.add("decompress", "uploads", &decompressor()).unwrap();
    compressor.compress(&Hints::new(), &json(5000)).unwrap();
    let page = registry.prometheus();
    assert!(
        page.contains("swiftwater_compress_coding_bodies_total{compress=\"pages\",coding=\"gzip\"} 1"),
        "{page}"
    );
}

#[test]
fn the_knob_moves_the_smallest_size() {
    let compressor = Compressor::builder().policy(Rules::new().min_size(500)).build().unwrap();
    let mut knobs = Vec::new();
    compressor.knobs(&mut |knob| knobs.push(knob));
    let [knob] = &knobs[..] else { panic!("there is one") };
    assert_eq!((knob.name(), knob.get()), ("min_size", Ok(500.0)));
    let reason = || compressor.choose(&Hints::new().size(700)).reason();
    assert_eq!(reason(), Reason::Default);
    knob.set(701.0).unwrap();
    assert_eq!(reason(), Reason::TooSmall);
    assert!(knob.set(1e9).is_err());
    let fixed = Compressor::builder().policy(Fixed(Setting::gzip(6))).build().unwrap();
    fixed.knobs(&mut |knob| panic!("{} turns nothing", knob.name()));
    drop(compressor);
    assert!(knob.get().is_err(), "a knob keeps nothing alive");
}
