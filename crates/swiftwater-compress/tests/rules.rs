//! The table, line by line, and what becomes of it when the receiver is heard.

mod common;

use swiftwater_compress::{
    Accepted, Choice, Coding, Compressor, Hints, Policy, Question, Reason, Rules, Setting,
};

use common::*;

const LARGE: u64 = 64 << 10;

fn choose(hints: Hints<'_>) -> Choice {
    Rules::new().choose(&Question::new(hints))
}

fn for_client(client: &str, hints: Hints<'_>) -> (Setting, Reason) {
    let accepted = Accepted::parse([client]);
    let choice = choose(hints.accepted(&accepted));
    (choice.setting(), choice.reason())
}

const BROWSER: &str = "gzip, deflate, br, zstd";

#[test]
fn the_table() {
    let json = Hints::new().content_type("application/json; charset=utf-8");
    let binary = Hints::new().content_type("application/octet-stream");
    let html = Hints::new().content_type("text/html");
    let identity = Setting::identity();
    for (hints, client, expected) in [
        (html.size(1023), BROWSER, (identity, Reason::TooSmall)),
        (html.size(1024), BROWSER, (Setting::gzip(6), Reason::Default)),
        (html, BROWSER, (Setting::gzip(6), Reason::Default)),
        (html.size(1 << 30), BROWSER, (Setting::gzip(6), Reason::Default)),
        (json.size(LARGE - 1), BROWSER, (Setting::gzip(6), Reason::Default)),
        (json.size(LARGE), BROWSER, (Setting::brotli(4), Reason::LargeJson)),
        (json, BROWSER, (Setting::gzip(6), Reason::Default)),
        (binary.size(LARGE), "lz4, gzip", (Setting::lz4(), Reason::LargeBinary)),
        (binary.size(LARGE - 1), "lz4, gzip", (Setting::gzip(6), Reason::Default)),
        (binary.size(LARGE), BROWSER, (Setting::gzip(6), Reason::Negotiated)),
        (binary.size(LARGE), "*", (Setting::gzip(6), Reason::Negotiated)),
        (Hints::new().content_type("image/png").size(LARGE), BROWSER, (identity, Reason::CompressedType)),
        (
            Hints::new().content_type("IMAGE/SVG+XML").size(LARGE),
            BROWSER,
            (Setting::gzip(6), Reason::Default),
        ),
        (Hints::new().content_type("video/mp4"), BROWSER, (identity, Reason::CompressedType)),
        (Hints::new().content_type("font/woff2"), BROWSER, (identity, Reason::CompressedType)),
        (Hints::new().content_type("application/zip"), BROWSER, (identity, Reason::CompressedType)),
        (Hints::new().content_type("application/epub+zip"), BROWSER, (identity, Reason::CompressedType)),
        (
            Hints::new().content_type("application/problem+json").size(LARGE),
            BROWSER,
            (Setting::brotli(4), Reason::LargeJson),
        ),
        (
            Hints::new().content_type("application/json-seq").size(LARGE),
            BROWSER,
            (Setting::brotli(4), Reason::LargeJson),
        ),
        (
            Hints::new().content_type("application/openapi+yaml").size(LARGE),
            "lz4, gzip",
            (Setting::gzip(6), Reason::Default),
        ),
        (binary.head(b"PK\x03\x04rest"), BROWSER, (identity, Reason::CompressedData)),
        (html.head(b"\x1f\x8b\x08\0"), BROWSER, (identity, Reason::CompressedData)),
        (binary.head(b"\0\0\0\x20ftypisom"), BROWSER, (identity, Reason::CompressedData)),
        (binary.head(b"RIFF\x10\x20\0\0WEBPVP8 "), BROWSER, (identity, Reason::CompressedData)),
        (binary.head(b"RIFF\x10\x20\0\0WAVEfmt "), BROWSER, (Setting::gzip(6), Reason::Default)),
        (Hints::new().head(b"some\0zero").size(LARGE), "lz4", (Setting::lz4(), Reason::LargeBinary)),
        (Hints::new().head(b"some text").size(LARGE), "lz4, gzip", (Setting::gzip(6), Reason::Default)),
    ] {
        assert_eq!(for_client(client, hints), expected, "{hints:?} for {client}");
    }
}

#[test]
fn who_accepts_something_else_gets_something_else() {
    let json = Hints::new().content_type("application/json").size(LARGE);
    let text = Hints::new().content_type("text/plain").size(LARGE);
    let (identity, not) = (Setting::identity(), Reason::NotAccepted);
    for (hints, client, expected) in [
        (json, "gzip", (Setting::gzip(6), Reason::Negotiated)),
        (json, "zstd", (Setting::zstd(3), Reason::Negotiated)),
        (json, "gzip, zstd", (Setting::gzip(6), Reason::Negotiated)),
        (json, "br;q=0.5, gzip", (Setting::gzip(6), Reason::Negotiated)),
        (json, "br;q=0.5, gzip;q=0.5, zstd;q=0.5", (Setting::brotli(4), Reason::LargeJson)),
        (text, "br", (Setting::brotli(4), Reason::Negotiated)),
        (text, "lz4", (identity, not)),
        (text, "", (identity, not)),
        (text, "deflate", (identity, not)),
        (text, "gzip;q=0, br;q=0, zstd;q=0", (identity, not)),
        (text, "*;q=0", (identity, not)), // the last resort, rather than a 406
        (text, "gzip;q=0.5, identity", (identity, Reason::Negotiated)),
        (text, "gzip;q=0.5, identity;q=0.5", (Setting::gzip(6), Reason::Default)),
        (text.size(10), "gzip, identity;q=0", (Setting::gzip(6), Reason::IdentityRefused)),
        (text.size(10), "identity;q=0", (identity, Reason::TooSmall)),
        (Hints::new().content_type("image/png"), "br, *;q=0", (Setting::brotli(4), Reason::IdentityRefused)),
    ] {
        assert_eq!(for_client(client, hints), expected, "{hints:?} for {client}");
    }
}

#[test]
fn who_was_not_asked_gets_what_http_knows() {
    let choice = choose(Hints::new().content_type("application/octet-stream").size(LARGE));
    assert_eq!((choice.setting(), choice.reason()), (Setting::gzip(6), Reason::Negotiated));
    assert_eq!(choose(Hints::new()).setting(), Setting::gzip(6));
    assert_eq!(choose(Hints::new().size(10)).reason(), Reason::TooSmall);
}

#[test]
fn the_thresholds_can_be_moved() {
    let rules = Rules::new().min_size(10).large(20);
    let choice = |size| {
        let hints = Hints::new().content_type("application/json").size(size);
        rules.choose(&Question::new(hints)).reason()
    };
    assert_eq!(
        [choice(9), choice(10), choice(19), choice(20)],
        [Reason::TooSmall, Reason::Default, Reason::Default, Reason::LargeJson]
    );
}

#[test]
fn one_shot_looks_at_the_body_itself() {
    let compressor = Compressor::builder().build().unwrap();
    let accepted = Accepted::parse([BROWSER]);
    let hints = Hints::new().accepted(&accepted).content_type("application/json");
    let reason = |hints: Hints<'_>, body: &[u8]| compressor.compress(&hints, body).unwrap().choice().reason();
    assert_eq!(reason(hints, &json(1023)), Reason::TooSmall);
    assert_eq!(reason(hints.size(1), &json(100_000)), Reason::LargeJson, "a wrong hint is overruled");
    let archive = compress(Setting::gzip(6), &noise(5000, 1));
    let body = compressor.compress(&hints, &archive).unwrap();
    assert_eq!(body.choice().reason(), Reason::CompressedData);
    assert_eq!(body.bytes(), archive);
    assert_eq!(body.coding(), Coding::Identity);
}
