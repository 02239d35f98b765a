//! Any bytes, in any coding or two, cut in any way, within any limits, through every decoder:
//!
//! - The reader, the writer and the call for all at once tell the same story, however input and output are cut, and
//!   whatever an inner reader or writer fails with meanwhile.
//! - No more comes out than the limits allow, and an error is told again.
//! - What was encoded, with any writes and flushes, comes back; what was flushed is decodable before the end; what was cut
//!   is an error; and where the coding has a checksum, a flipped bit never passes for other bytes.

#![no_main]

use std::{
    io::{self, ErrorKind, Read, Write},
    mem::discriminant,
};

use libfuzzer_sys::fuzz_target;
use swiftwater_compress::{
    Coding, Codings, Compressor, Decompressor, Error, Fixed, Hints, Limit, Limits, Setting,
};
use swiftwater_fuzz::{Input, ready};

/// More takes time and shows nothing new.
const MOST_DECODED: u64 = 1 << 20;
/// A few blocks of every codec.
const MOST_ENCODED: usize = 300 << 10;

/// A body, decoded: what came out, and how it ended.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    bytes: Vec<u8>,
    end: Result<(), Error>,
}

/// Cuts that follow from a seed.
#[derive(Clone, Copy)]
struct Cuts(u32);

impl Cuts {
    fn next(&mut self) -> u32 {
        // Xorshift; never zero.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// How much of `most`, at least one.
    fn piece(&mut self, most: usize) -> usize {
        let random = self.next() as usize;
        let bound = [1, 7, 100, 5_000, 100_000][random % 5];
        (random / 8 % bound + 1).min(most)
    }

    /// Now and then nothing goes.
    fn hitch(&mut self) -> io::Result<()> {
        match self.next() % 16 {
            0 => Err(ErrorKind::Interrupted.into()),
            1 => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}

/// An inner reader or writer that takes and gives pieces, and fails in between.
struct Pieces<T> {
    inner: T,
    cuts: Option<Cuts>,
}

impl Read for Pieces<&[u8]> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(cuts) = &mut self.cuts else { return self.inner.read(buf) };
        cuts.hitch()?;
        let most = cuts.piece(buf.len());
        self.inner.read(&mut buf[..most])
    }
}

impl Write for Pieces<Vec<u8>> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(cuts) = &mut self.cuts else { return self.inner.write(buf) };
        cuts.hitch()?;
        let most = cuts.piece(buf.len());
        self.inner.write(&buf[..most])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.cuts.as_mut().map_or(Ok(()), Cuts::hitch)
    }
}

/// Repeats what an inner reader or writer let fail.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> Result<T, Error> {
    loop {
        match call() {
            Ok(done) => return Ok(done),
            Err(error) => match Error::of(&error) {
                Some(error) => return Err(error.clone()),
                None => {
                    let hitches = [ErrorKind::Interrupted, ErrorKind::WouldBlock];
                    assert!(hitches.contains(&error.kind()), "an error of nobody's: {error:?}");
                }
            },
        }
    }
}

fn read_all(decompressor: &Decompressor, codings: &Codings, data: &[u8], cuts: Option<Cuts>) -> Told {
    let mut told = Told { bytes: Vec::new(), end: Ok(()) };
    let inner = Pieces { inner: data, cuts };
    let mut reader = match decompressor.reader(inner, codings.clone()) {
        Ok(reader) => reader,
        Err(error) => return Told { end: Err(error), ..told },
    };
    let mut cuts = cuts.map(|cuts| Cuts(cuts.0 ^ 0x5555));
    let mut buf = vec![0; 100_000];
    loop {
        let most = cuts.as_mut().map_or(buf.len(), |cuts| cuts.piece(buf.len()));
        match again(|| reader.read(&mut buf[..most])) {
            Ok(0) => {
                assert_eq!(again(|| reader.read(&mut buf)), Ok(0), "the end is the end");
                return told;
            }
            Ok(n) => told.bytes.extend(&buf[..n]),
            Err(error) => {
                assert_eq!(again(|| reader.read(&mut buf)), Err(error.clone()), "an error stays");
                told.end = Err(error);
                return told;
            }
        }
    }
}

fn write_all(decompressor: &Decompressor, codings: &Codings, mut data: &[u8], cuts: Option<Cuts>) -> Told {
    let inner = Pieces { inner: Vec::new(), cuts };
    let mut writer = match decompressor.writer(inner, codings.clone()) {
        Ok(writer) => writer,
        Err(error) => return Told { bytes: Vec::new(), end: Err(error) },
    };
    let mut cuts = cuts.map(|cuts| Cuts(cuts.0 ^ 0x3333));
    let mut pass = || {
        while !data.is_empty() {
            let most = cuts.as_mut().map_or(data.len(), |cuts| cuts.piece(data.len()));
            let n = again(|| writer.write(&data[..most]))?;
            assert!((1..=most).contains(&n), "{n} of {most} taken");
            data = &data[n..];
            if cuts.as_mut().is_some_and(|cuts| cuts.next().is_multiple_of(8)) {
                again(|| writer.flush())?;
            }
        }
        again(|| writer.try_finish())
    };
    let end = pass();
    if let Err(error) = &end {
        assert_eq!(again(|| writer.try_finish()), Err(error.clone()), "an error stays");
    }
    Told { bytes: writer.get_ref().inner.clone(), end }
}

/// Whether two ends are one, as far as that is promised: a body that decodes does so however it is cut.
fn same_end(codings: &Codings, one: &Result<(), Error>, other: &Result<(), Error>) -> bool {
    let (Err(one), Err(other)) = (one, other) else { return one.is_ok() == other.is_ok() };
    // Of several faults, which is met first depends on the cuts: codecs read ahead of what they give out, and two codings
    // go on side by side. Of one coding that a limit does not stop, the fault is the same one; where it is, is told roughly.
    let limit = |error: &Error| matches!(error, Error::LimitExceeded { .. });
    let several = codings.as_slice().len() > 1 || codings.as_slice() == [Coding::Brotli];
    several || limit(one) || limit(other) || discriminant(one) == discriminant(other)
}

/// Everything that decodes, and what is promised of it.
fn decode(decompressor: &Decompressor, codings: &Codings, data: &[u8], seed: u32) -> Told {
    let limits = decompressor.limits();
    let whole = read_all(decompressor, codings, data, None);
    let others = [
        ("a reader in pieces", read_all(decompressor, codings, data, Some(Cuts(seed | 1)))),
        ("a reader in other pieces", read_all(decompressor, codings, data, Some(Cuts(!seed | 2)))),
        ("a writer", write_all(decompressor, codings, data, None)),
        ("a writer in pieces", write_all(decompressor, codings, data, Some(Cuts(seed.rotate_left(9) | 1)))),
    ];
    // What may come out for what went in depends on how much of it had gone in by then.
    let by_ratio = |told: &Told| matches!(told.end, Err(Error::LimitExceeded { which: Limit::Ratio, .. }));
    let comparable = !by_ratio(&whole) && !others.iter().any(|(_, told)| by_ratio(told));
    for (what, told) in &others {
        let common = told.bytes.len().min(whole.bytes.len());
        assert!(told.bytes[..common] == whole.bytes[..common], "{what} gives other bytes");
        if comparable {
            assert!(
                same_end(codings, &told.end, &whole.end),
                "{what}: {:?}, a reader: {:?}",
                told.end,
                whole.end
            );
            // How much comes out before an error is not promised: codecs read ahead of what they give out.
            let same_length = told.bytes.len() == whole.bytes.len();
            assert!(same_length || told.end.is_err(), "{what} gives more or less");
        }
    }
    let at_once = decompressor.decompress(codings.clone(), data);
    match (&at_once, &whole.end) {
        (Ok(bytes), Ok(())) => assert!(*bytes == whole.bytes, "all at once gives other bytes"),
        (at_once, end) if comparable => {
            let at_once = at_once.as_ref().map(|_| ()).map_err(Clone::clone);
            assert!(same_end(codings, &at_once, end), "all at once: {at_once:?}, a reader: {end:?}");
        }
        _ => {}
    }
    for Told { bytes, end } in others.into_iter().map(|(_, told)| told).chain([whole.clone()]) {
        let length = bytes.len() as u64;
        assert!(length <= MOST_DECODED, "{limits:?} let {length} bytes out");
        if let Err(Error::LimitExceeded { which: Limit::DecodedBytes, limit, .. }) = end {
            // Of two codings the inner one may be the one that is held back.
            assert!(codings.as_slice().len() > 1 || length == limit, "{length} bytes before the limit");
        }
    }
    whole
}

fn limits(input: &mut Input<'_>) -> (Limits, Option<u64>, Option<u64>) {
    let (tight, choice) = (input.byte(), input.byte());
    let pick = |shift: u32, of: [u64; 4]| of[usize::from(choice >> shift) % 4];
    let encoded = (tight & 1 != 0).then(|| pick(0, [0, 10, 100, 5_000]));
    let decoded = (tight & 2 != 0).then(|| pick(2, [0, 1, 1_000, 70_000]));
    let mut limits = Limits::new()
        .decoded_bytes(decoded.unwrap_or(MOST_DECODED))
        .encoded_bytes(encoded)
        .ratio((tight & 4 != 0).then(|| pick(4, [1, 2, 50, 200])))
        .burst(pick(6, [0, 10, 1_000, 100_000]));
    if tight & 8 != 0 {
        limits = limits.members(pick(0, [1, 2, 3, 10]));
    }
    if tight & 16 != 0 {
        limits = limits.header_bytes(pick(2, [0, 1, 10, 300]));
    }
    if tight & 32 != 0 {
        limits = limits.skipped_bytes(pick(4, [0, 8, 20, 1_000]));
    }
    if tight & 64 != 0 {
        limits = limits.window(pick(6, [1 << 10, 1 << 16, 1 << 17, 1 << 20]));
    }
    (limits, encoded, decoded)
}

/// The body, encoded by a writer, by a reader and piecemeal with flushes, and decoded again.
fn round_trip(setting: Setting, body: &[u8], seed: u32) -> Vec<u8> {
    let compressor = Compressor::builder().policy(Fixed(setting)).build().expect("the settings are valid");
    let free = Decompressor::builder().limits(Limits::new().ratio(None)).build().expect("valid");
    let (coding, hints) = (setting.coding(), Hints::new());
    let codings = Codings::from(coding);

    let mut cuts = Cuts(seed | 1);
    let mut writer =
        compressor.writer(Pieces { inner: Vec::new(), cuts: Some(cuts) }, &hints).expect("memory");
    let mut plain = compressor.writer(Vec::new(), &hints).expect("memory");
    plain.write_all(body).expect("a vector takes everything");
    let plain = plain.finish().expect("a vector takes everything");
    let mut left = body;
    while !left.is_empty() {
        let most = cuts.piece(left.len());
        let n = again(|| writer.write(&left[..most])).expect("encoding does not fail");
        assert!((1..=most).contains(&n), "{n} of {most} taken");
        left = &left[n..];
        if cuts.next().is_multiple_of(16) {
            again(|| writer.flush()).expect("encoding does not fail");
            if cuts.next().is_multiple_of(4) {
                let so_far = read_all(&free, &codings, &writer.get_ref().inner, None);
                assert!(so_far.bytes == body[..body.len() - left.len()], "flushed and not decodable");
                let whole = coding == Coding::Identity;
                assert!(matches!(so_far.end, Err(Error::Truncated { .. })) != whole, "{:?}", so_far.end);
            }
        }
    }
    again(|| writer.try_finish()).expect("encoding does not fail");
    let flushed = writer.get_ref().inner.clone();

    let mut reader = compressor.reader(Pieces { inner: body, cuts: Some(cuts) }, &hints).expect("memory");
    let (mut read, mut buf) = (Vec::<u8>::new(), [0; 5_000]);
    loop {
        let most = cuts.piece(buf.len());
        match again(|| reader.read(&mut buf[..most])).expect("encoding does not fail") {
            0 => break,
            n => read.extend(&buf[..n]),
        }
    }
    assert!(read == plain, "reader and writer encode differently");
    let at_once = compressor.compress(&hints, body).expect("memory");
    for stream in [&plain, &flushed, at_once.bytes()] {
        let told = read_all(&free, &codings, stream, None);
        assert_eq!(told.end, Ok(()));
        assert!(told.bytes == body, "other bytes came back");
    }
    if cuts.next().is_multiple_of(2) { plain } else { flushed }
}

fn setting(coding: Coding, choice: u8) -> Setting {
    let level = i32::from(choice % 3);
    match coding {
        Coding::Brotli => Setting::brotli(level * 2),
        Coding::Gzip => Setting::gzip(1 + level * 3),
        Coding::Lz4 => Setting::lz4(),
        Coding::Zstd => Setting::zstd([-3, 1, 3][usize::from(choice % 3)]),
        _ => Setting::identity(),
    }
}

fn run(data: &[u8]) {
    let mut input = Input(data);
    let (shape, choice) = (input.byte(), input.byte());
    let coding = Coding::ALL[usize::from(shape) % Coding::ALL.len()];
    let seed = u32::from_le_bytes([input.byte(), input.byte(), input.byte(), shape]);
    let (limits, most_encoded, most_decoded) = limits(&mut input);
    let decompressor = Decompressor::builder().limits(limits).build().expect("none of them is zero");

    if choice & 1 == 0 {
        // The bytes are a stream as they are.
        let two = (choice & 2 != 0).then(|| Coding::ALL[usize::from(choice / 4) % Coding::ALL.len()]);
        let codings: Codings = [coding].into_iter().chain(two).collect();
        let told = decode(&decompressor, &codings, input.0, seed);
        let too_long = most_encoded.is_some_and(|most| input.0.len() as u64 > most);
        assert!(!(too_long && told.end.is_ok()), "the limit of encoded bytes was passed over");
        let too_much = most_decoded.is_some_and(|most| told.bytes.len() as u64 > most);
        assert!(!too_much, "the limit of decoded bytes was passed over");
        return;
    }

    // They are a body, repeated so that it may be longer than a block.
    let (times, harm) = (usize::from(input.byte()), input.byte());
    let (place, bit) = (usize::from(input.byte()) | usize::from(input.byte()) << 8, input.byte() % 8);
    // Squared, so that a short input can be a long body.
    let mut body = input.0.repeat(1 + times * times / 8 * usize::from(choice & 2 != 0));
    body.truncate(MOST_ENCODED);
    let mut stream = round_trip(setting(coding, choice / 4), &body, seed);
    let codings = Codings::from(coding);
    match harm % 4 {
        0 => {
            let told = decode(&decompressor, &codings, &stream, seed);
            assert!(told.end.is_err() || told.bytes == body, "other bytes came back");
            assert!(body.starts_with(&told.bytes), "other bytes came back");
        }
        1 if !stream.is_empty() => {
            stream.truncate(place % stream.len());
            let told = decode(&decompressor, &codings, &stream, seed);
            assert!(body.starts_with(&told.bytes), "other bytes came back");
            assert!(coding == Coding::Identity || told.end.is_err(), "a cut was not noticed");
        }
        2 if !stream.is_empty() => {
            let place = place % stream.len();
            stream[place] ^= 1 << bit;
            let told = decode(&decompressor, &codings, &stream, seed);
            let checked = matches!(coding, Coding::Gzip | Coding::Lz4 | Coding::Zstd);
            assert!(!checked || told.end.is_err() || told.bytes == body, "a flipped bit was not noticed");
        }
        _ => {
            // Something after the end, or the same once more.
            let more = if bit == 0 { stream.clone() } else { input.bytes(usize::from(bit)).to_vec() };
            stream.extend(more);
            decode(&decompressor, &codings, &stream, seed);
        }
    }
}

fuzz_target!(init: ready(), |data: &[u8]| run(data));
