//! What the tests share: bodies, and inner readers and writers that misbehave.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::io::{self, ErrorKind, Read, Write};

use swiftwater_compress::{Coding, Compressor, Decompressor, Fixed, Hints, Limits, Setting};

/// The codings that change anything.
pub(crate) const CODINGS: [Coding; 4] = [Coding::Brotli, Coding::Gzip, Coding::Lz4, Coding::Zstd];

/// Every level, save those that take seconds on the sizes used here.
pub(crate) fn settings() -> Vec<Setting> {
    let brotli = (0..=11).map(Setting::brotli);
    let gzip = (1..=9).map(Setting::gzip);
    let zstd = (-7..=19).filter(|&level| level != 0).map(Setting::zstd);
    brotli.chain(gzip).chain(zstd).chain([Setting::lz4()]).collect()
}

/// A quick one of each.
pub(crate) fn quick() -> [Setting; 5] {
    [Setting::brotli(2), Setting::gzip(1), Setting::gzip(6), Setting::lz4(), Setting::zstd(1)]
}

pub(crate) fn compressor(setting: Setting) -> Compressor {
    Compressor::builder().policy(Fixed(setting)).build().expect("a setting that there is")
}

pub(crate) fn decompressor() -> Decompressor {
    with(Limits::new())
}

pub(crate) fn with(limits: Limits) -> Decompressor {
    Decompressor::builder().limits(limits).build().expect("limits that let something through")
}

pub(crate) fn compress(setting: Setting, data: &[u8]) -> Vec<u8> {
    compressor(setting).compress(&Hints::new(), data).expect("nothing fails").into_bytes().into_owned()
}

/// As a reader gives it: what came, and how it ended.
pub(crate) fn read_all(mut reader: impl Read) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    let result = reader.read_to_end(&mut all).map(|_| ());
    (all, result)
}

pub(crate) fn decode(coding: Coding, data: &[u8]) -> (Vec<u8>, io::Result<()>) {
    read_all(decompressor().reader(data, coding).expect("it is compiled in"))
}

/// Repeatable noise that nothing compresses.
pub(crate) fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        // SplitMix64 (Steele, Lea, Flood, 2014).
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = seed;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ word >> 31
    };
    (0..len).map(|_| next() as u8).collect()
}

/// Something like a catalogue in JSON.
pub(crate) fn json(len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut seed = 1u64;
    for id in 0.. {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let price = (seed >> 40) % 100_000;
        write!(all, "{{\"id\":{id},\"name\":\"item {}\",\"price\":{price},\"stock\":true}},", price % 97)
            .expect("a vector takes everything");
        if all.len() >= len {
            all.truncate(len);
            return all;
        }
    }
    unreachable!("the numbers do not end")
}

/// Text, noise and runs by turns.
pub(crate) fn mixed(len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for turn in 0.. {
        match turn % 3 {
            0 => all.extend(json(20_000)),
            1 => all.extend(noise(30_000, turn)),
            _ => all.extend(vec![turn as u8; 10_000]),
        }
        if all.len() >= len {
            all.truncate(len);
            return all;
        }
    }
    unreachable!("the turns do not end")
}

/// Gives at most so many bytes at a time, by turns.
pub(crate) struct Dribble<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) sizes: Vec<usize>,
    pub(crate) turn: usize,
}

impl<'a> Dribble<'a> {
    pub(crate) fn new(data: &'a [u8], sizes: &[usize]) -> Self {
        Self { data, sizes: sizes.to_vec(), turn: 0 }
    }
}

impl Read for Dribble<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.turn % self.sizes.len()].max(1);
        self.turn += 1;
        let n = size.min(buf.len());
        self.data.read(&mut buf[..n])
    }
}

/// Fails on every other call, takes or gives little on the others.
pub(crate) struct Flaky<I> {
    pub(crate) inner: I,
    pub(crate) calls: usize,
    pub(crate) at_most: usize,
}

impl<I> Flaky<I> {
    pub(crate) fn new(inner: I, at_most: usize) -> Self {
        Self { inner, calls: 0, at_most }
    }

    fn mood(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.calls % 4 {
            1 => Err(ErrorKind::WouldBlock.into()),
            3 => Err(ErrorKind::Interrupted.into()),
            _ => Ok(()),
        }
    }
}

impl<W: Write> Write for Flaky<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.mood()?;
        self.inner.write(&buf[..buf.len().min(self.at_most)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.mood()?;
        self.inner.flush()
    }
}

impl<R: Read> Read for Flaky<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.mood()?;
        let n = buf.len().min(self.at_most);
        self.inner.read(&mut buf[..n])
    }
}

/// Repeats a call for as long as it would block or was interrupted.
pub(crate) fn patiently<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            other => return other,
        }
    }
}
