//! Every axis holds on its own, to the byte, and a bomb stops where the limit stands.

mod common;

use std::io::{ErrorKind, Read, Write};

use swiftwater_compress::{Coding, Codings, Decompressor, Error, Limit, Limits, Setting};

use common::*;

/// No limit but the format's own windows.
fn none() -> Limits {
    Limits::new()
        .decoded_bytes(None)
        .encoded_bytes(None)
        .header_bytes(None)
        .members(None)
        .ratio(None)
        .skipped_bytes(None)
}

fn exceeded(error: &std::io::Error) -> Option<Limit> {
    match Error::of(error)? {
        Error::LimitExceeded { which, .. } => Some(*which),
        _ => None,
    }
}

/// Read with these limits it gives so many bytes, then says that this one was exceeded; without limits it is fine.
fn stops(coding: Coding, stream: &[u8], limits: Limits, bytes: usize, limit: Limit) {
    for sizes in [&[1][..], &[13, 5000], &[1 << 20]] {
        let reader = with(limits).reader(Dribble::new(stream, sizes), coding).unwrap();
        let (got, result) = read_all(reader);
        let error = result.expect_err("a limit that does not hold");
        assert_eq!(exceeded(&error), Some(limit), "{coding}: {error}");
        assert_eq!(got.len(), bytes, "{coding}: {limit:?}");
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    }
    let mut writer = with(limits).writer(Vec::new(), coding).unwrap();
    let error = writer.write_all(stream).and_then(|()| writer.try_finish()).unwrap_err();
    assert_eq!(exceeded(&error), Some(limit));
    assert_eq!(writer.get_ref().len(), bytes, "{coding}: what came before is written");
    assert!(with(none()).decompress(coding, stream).is_ok());
}

#[test]
fn decoded_bytes_hold_to_the_byte() {
    for setting in quick() {
        for body in [json(100_000), noise(100_000, 1), vec![0; 100_000]] {
            let stream = compress(setting, &body);
            for limit in [0, 1, 65_535, 99_999] {
                let limits = none().decoded_bytes(limit as u64);
                stops(setting.coding(), &stream, limits, limit, Limit::DecodedBytes);
            }
            let exactly = with(none().decoded_bytes(100_000)).decompress(setting.coding(), &stream);
            assert!(exactly.unwrap() == body, "{setting}: as much as allowed is allowed");
        }
    }
}

#[test]
fn encoded_bytes_hold_to_the_byte() {
    for setting in quick() {
        let body = noise(10_000, 2);
        let stream = compress(setting, &body);
        let limits = |bytes: usize| none().encoded_bytes(bytes as u64);
        assert!(with(limits(stream.len())).decompress(setting.coding(), &stream).is_ok());
        for limit in [0, 1, 100, stream.len() - 1] {
            let error = with(limits(limit)).decompress(setting.coding(), &stream).unwrap_err();
            assert!(
                matches!(error, Error::LimitExceeded { which: Limit::EncodedBytes, .. }),
                "{setting}: {error}"
            );
        }
        // What the bytes up to the limit decode to comes first.
        let twice = [&stream[..], &stream].concat();
        if setting.coding() != Coding::Brotli {
            stops(setting.coding(), &twice, limits(stream.len()), body.len(), Limit::EncodedBytes);
        }
    }
}

#[test]
fn the_ratio_counts_what_was_read_and_the_burst_comes_on_top() {
    for setting in quick() {
        let zeros = compress(setting, &vec![0; 4 << 20]);
        let limits = none().ratio(10).burst(50_000);
        let reader = with(limits).reader(&zeros[..], setting.coding()).unwrap();
        let (got, result) = read_all(reader);
        assert_eq!(exceeded(&result.unwrap_err()), Some(Limit::Ratio), "{setting}");
        assert!(got.len() >= 50_000, "{setting}: the burst is free");
        assert!(got.len() <= 50_000 + 10 * zeros.len(), "{setting}: {} bytes", got.len());
        // What stays below is not troubled, however short the burst.
        let body = noise(200_000, 3);
        let limits = none().ratio(2).burst(0);
        let decoded = with(limits).decompress(setting.coding(), &compress(setting, &body));
        assert!(decoded.as_ref().is_ok_and(|decoded| *decoded == body), "{setting}: {:?}", decoded.err());
    }
}

#[test]
fn the_defaults_stop_a_bomb_of_any_coding() {
    for setting in [Setting::brotli(5), Setting::gzip(9), Setting::lz4(), Setting::zstd(3)] {
        let bomb = compress(setting, &vec![0; 8 << 20]);
        let mut reader = decompressor().reader(&bomb[..], setting.coding()).unwrap();
        let (mut piece, mut bytes) = (vec![0; 64 << 10], 0u64);
        let error = loop {
            match reader.read(&mut piece) {
                Ok(0) => panic!("{setting}: all {bytes} bytes of it came out"),
                Ok(n) => bytes += n as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(exceeded(&error), Some(Limit::Ratio), "{setting}: {error}");
        assert!(bytes <= (1 << 20) + 200 * bomb.len() as u64, "{setting} gave {bytes} bytes");
    }
}

#[test]
fn a_bomb_in_a_bomb_stops_at_the_first() {
    let inner = compress(Setting::gzip(9), &vec![0; 8 << 20]);
    let outer = compress(Setting::gzip(9), &inner);
    let codings: Codings = [Coding::Gzip, Coding::Gzip].into_iter().collect();
    let error = decompressor().decompress(codings, &outer).unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { which: Limit::Ratio, .. }), "{error}");
}

#[test]
fn members_are_counted_whatever_is_in_them() {
    for setting in [Setting::gzip(6), Setting::lz4(), Setting::zstd(1)] {
        let empty = compress(setting, b"");
        let one = compress(setting, b"x");
        let many = [empty.repeat(5), one.repeat(5)].concat();
        let limits = |members| none().members(members);
        assert_eq!(with(limits(10)).decompress(setting.coding(), &many).unwrap(), b"xxxxx");
        stops(setting.coding(), &many, limits(9), 4, Limit::Members);
        let error = decompressor().decompress(setting.coding(), &empty.repeat(1025)).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { which: Limit::Members, .. }), "{error}");
    }
}

/// A frame that says nothing but costs input.
fn skippable(number: u8, bytes: usize) -> Vec<u8> {
    let mut frame = vec![0x50 + number, 0x2a, 0x4d, 0x18];
    frame.extend((bytes as u32).to_le_bytes());
    frame.resize(8 + bytes, 0xaa);
    frame
}

#[test]
fn skippable_frames_are_skipped_and_bounded() {
    for setting in [Setting::lz4(), Setting::zstd(1)] {
        let body = compress(setting, b"body");
        let stream = [skippable(0, 0), skippable(15, 1000), body.clone(), skippable(7, 500)].concat();
        assert_eq!(decode(setting.coding(), &stream).0, b"body");
        let limits = |bytes| none().skipped_bytes(bytes);
        assert!(with(limits(1524)).decompress(setting.coding(), &stream).is_ok());
        stops(setting.coding(), &stream, limits(1523), 4, Limit::SkippedBytes);
        // Judged by the header: the bytes need not come.
        let announced = &skippable(3, 2 << 20)[..8];
        let error = decompressor().decompress(setting.coding(), announced).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { which: Limit::SkippedBytes, .. }), "{error}");
        let many = [skippable(0, 0).repeat(1024), body].concat();
        let error = decompressor().decompress(setting.coding(), &many).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { which: Limit::Members, .. }), "{error}");
    }
}

#[test]
fn a_zstd_window_is_judged_by_the_frame_header() {
    // Magic number, a descriptor without content size, and a window of 2^(10 + exponent), which needs no byte of data.
    let header = |exponent: u8, mantissa: u8| [0x28, 0xb5, 0x2f, 0xfd, 0x00, exponent << 3 | mantissa];
    let judge = |limits: Limits, header: &[u8]| with(limits).decompress(Coding::Zstd, header).unwrap_err();
    let over = |error: Error| matches!(error, Error::LimitExceeded { which: Limit::Window, .. });
    assert!(!over(judge(none(), &header(13, 0))), "8 MiB is what RFC 9659 demands");
    assert!(over(judge(none(), &header(13, 1))));
    assert!(over(judge(none(), &header(31, 7))));
    assert!(!over(judge(none().window(128 << 20), &header(17, 0))), "raised by hand");
    assert!(over(judge(none().window(128 << 20), &header(17, 1))));
    assert!(over(judge(none().window(1 << 20), &header(10, 1))));
    // A single segment: its window is its content's size.
    let single = [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &(8u32 << 20 | 1).to_le_bytes()].concat();
    assert!(over(judge(none(), &single)));
}

#[test]
fn lz4_and_brotli_windows_are_judged_by_their_headers() {
    let frame = |size| {
        let info = lz4_flex::frame::FrameInfo::new().block_size(size);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(b"body").unwrap();
        encoder.finish().unwrap()
    };
    use lz4_flex::frame::BlockSize;
    let limits = none().window(1 << 20);
    assert!(with(limits).decompress(Coding::Lz4, &frame(BlockSize::Max1MB)).is_ok());
    stops(Coding::Lz4, &frame(BlockSize::Max4MB), limits, 0, Limit::Window);

    let brotli = |window| {
        let mut stream = Vec::new();
        let mut writer = brotli::CompressorWriter::new(&mut stream, 4096, 2, window);
        writer.write_all(b"body").unwrap();
        drop(writer);
        stream
    };
    for window in 10..=24 {
        assert_eq!(decode(Coding::Brotli, &brotli(window)).0, b"body", "2^{window}");
        let limits = none().window(1 << window);
        assert!(with(limits).decompress(Coding::Brotli, &brotli(window)).is_ok(), "2^{window}");
        if window > 10 {
            stops(Coding::Brotli, &brotli(window), none().window((1 << window) - 1), 0, Limit::Window);
        }
    }
    // Large-window brotli: a first byte of 0x11, which RFC 7932 does not have.
    let error = with(none()).decompress(Coding::Brotli, &[0x11, 0x1e, 0x03]).unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { which: Limit::Window, .. }), "{error}");
}

#[test]
fn gzip_header_fields_are_bounded() {
    let whole = compress(Setting::gzip(6), b"body");
    // A name of `name` bytes and its zero, after an extra field of `extra`.
    let member = |extra: usize, name: usize| {
        let mut stream = whole[..10].to_vec();
        stream[3] = 4 | 8;
        stream.extend((extra as u16).to_le_bytes());
        stream.resize(stream.len() + extra, 1);
        stream.resize(stream.len() + name, b'n');
        stream.push(0);
        stream.extend(&whole[10..]);
        stream
    };
    assert_eq!(decode(Coding::Gzip, &member(1000, 1000)).0, b"body");
    let limits = none().header_bytes(2001);
    assert!(with(limits).decompress(Coding::Gzip, &member(1000, 1000)).is_ok());
    stops(Coding::Gzip, &member(1000, 1001), limits, 0, Limit::HeaderBytes);
    stops(Coding::Gzip, &member(2002, 0), limits, 0, Limit::HeaderBytes);
    let endless = [&whole[..3], &[8], &whole[4..10], &[b'n'; 100_000]].concat();
    let error = decompressor().decompress(Coding::Gzip, &endless).unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { which: Limit::HeaderBytes, .. }), "{error}");
}

#[test]
fn codings_are_counted_before_anything_is_decoded() {
    let three: Codings = [Coding::Gzip; 3].into_iter().collect();
    let error = decompressor().decompress(three.clone(), b"").unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { which: Limit::Codings, limit: 2, .. }), "{error}");
    let body = (0..3).fold(b"body".to_vec(), |body, _| compress(Setting::gzip(6), &body));
    assert_eq!(with(Limits::new().codings(3)).decompress(three, &body).unwrap(), b"body");
}

#[test]
fn identity_is_held_to_the_limits_too() {
    stops(Coding::Identity, &[1; 100], none().decoded_bytes(99), 99, Limit::DecodedBytes);
    stops(Coding::Identity, &[1; 100], none().encoded_bytes(99), 99, Limit::EncodedBytes);
    assert_eq!(with(none()).decompress(Coding::Identity, &[1; 100]).unwrap(), [1; 100]);
}

#[test]
fn limits_that_let_nothing_through_are_refused() {
    let build = |limits| Decompressor::builder().limits(limits).build().map(|_| ());
    let refused = |limits, option| build(limits).unwrap_err().option() == option;
    assert!(refused(Limits::new().codings(0), "codings"));
    assert!(refused(Limits::new().members(0), "members"));
    assert!(refused(Limits::new().ratio(0), "ratio"));
    assert!(refused(Limits::new().window(1023), "window"));
    assert_eq!(build(Limits::new().window(1024)), Ok(()));
    assert_eq!(build(none()), Ok(()));
}
