//! What a builder refuses, and how it says so.

use swiftwater_compress::{Coding, Compressor, Decompressor, Error, Fixed, Setting};

#[test]
fn a_level_that_does_not_exist_is_named_with_those_that_do() {
    for (setting, message) in [
        (Setting::gzip(0), "gzip = 0: must be a level from 1 to 9"),
        (Setting::gzip(10), "gzip = 10: must be a level from 1 to 9"),
        (Setting::brotli(-1), "br = -1: must be a level from 0 to 11"),
        (Setting::brotli(12), "br = 12: must be a level from 0 to 11"),
        (Setting::zstd(0), "zstd = 0: must be a level from -7 to 19, but not 0"),
        (Setting::zstd(20), "zstd = 20: must be a level from -7 to 19, but not 0"),
        (Setting::zstd(i32::MIN), "zstd = -2147483648: must be a level from -7 to 19, but not 0"),
    ] {
        let error = Compressor::builder().policy(Fixed(setting)).build().unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(setting.check().unwrap_err(), error);
    }
}

#[test]
fn settings_know_themselves() {
    assert_eq!(Setting::gzip(6).to_string(), "gzip 6");
    assert_eq!(Setting::zstd(-3).to_string(), "zstd -3");
    assert_eq!(Setting::lz4().to_string(), "lz4");
    assert_eq!((Setting::brotli(4).coding(), Setting::brotli(4).level()), (Coding::Brotli, 4));
}

#[test]
fn a_decompressor_decodes_what_it_was_told_to() {
    let only = Decompressor::builder().codings([Coding::Gzip]).build().unwrap();
    for coding in [Coding::Brotli, Coding::Lz4, Coding::Zstd] {
        let error = only.decompress(coding, b"").unwrap_err();
        assert!(
            matches!(&error, Error::UnsupportedCoding { token, .. } if **token == *coding.token()),
            "{error}"
        );
        assert!(only.reader(&b""[..], coding).is_err() && only.writer(Vec::new(), coding).is_err());
    }
    assert_eq!(only.decompress(Coding::Identity, b"body").unwrap(), b"body");
    assert!(matches!(only.decompress(Coding::Gzip, b"").unwrap_err(), Error::Truncated { .. }));
}

#[test]
fn handles_and_streams_can_be_sent_between_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Compressor>();
    shared::<Decompressor>();
    sent::<swiftwater_compress::CompressWriter<Vec<u8>>>();
    sent::<swiftwater_compress::CompressReader<&[u8]>>();
    sent::<swiftwater_compress::DecompressWriter<Vec<u8>>>();
    sent::<swiftwater_compress::DecompressReader<&[u8]>>();
    shared::<Error>();
}
