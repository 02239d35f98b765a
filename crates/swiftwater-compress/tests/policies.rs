//! Policies of one's own, and what the compressor makes of every policy.

mod common;

use std::{io::Write, sync::Arc};

use swiftwater_compress::{
    Accepted, Choice, Coding, Compressor, Fixed, Hints, Policy, Question, Reason, Rules, Setting, conformance,
};

use common::*;

#[test]
fn ours_keep_the_laws() {
    conformance::policy(&Rules::new());
    conformance::policy(&Rules::new().min_size(0).large(0));
    for setting in settings() {
        conformance::policy(&Fixed(setting));
    }
    conformance::policy(&(Arc::new(Box::new(Rules::new())) as Arc<dyn Policy>));
}

/// Brotli for whoever does not refuse it in so many words, at a level that it does not announce.
struct Lawless(Setting);

impl Policy for Lawless {
    fn choose(&self, _: &Question<'_>) -> Choice {
        Choice::new(self.0, Reason::Custom)
    }

    fn settings(&self, _: &mut dyn FnMut(Setting)) {}
}

#[test]
fn the_laws_are_checked() {
    let broken = std::panic::catch_unwind(|| conformance::policy(&Lawless(Setting::brotli(4))));
    let message = *broken.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("law 2"), "{message}");
    struct Deaf;
    impl Policy for Deaf {
        fn choose(&self, _: &Question<'_>) -> Choice {
            Choice::new(Setting::gzip(6), Reason::Custom)
        }
        fn settings(&self, each: &mut dyn FnMut(Setting)) {
            each(Setting::gzip(6));
        }
    }
    let broken = std::panic::catch_unwind(|| conformance::policy(&Deaf));
    let message = *broken.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("law 3"), "{message}");
}

#[test]
fn a_lawless_policy_harms_nobody() {
    let accepted = Accepted::parse(["gzip"]);
    let hints = Hints::new().accepted(&accepted);
    for setting in [Setting::brotli(4), Setting::gzip(99), Setting::zstd(0)] {
        let compressor = Compressor::builder().policy(Lawless(setting)).build().unwrap();
        let body = compressor.compress(&hints, b"body").unwrap();
        assert_eq!((body.coding(), body.choice().reason()), (Coding::Identity, Reason::NotAccepted));
    }
    let compressor = Compressor::builder().policy(Lawless(Setting::gzip(1))).build().unwrap();
    assert_eq!(compressor.choose(&hints).reason(), Reason::Custom);
}

#[test]
fn fixed_is_fixed_where_it_is_accepted() {
    let compressor = compressor(Setting::lz4());
    let coding = |client: &str| {
        let accepted = Accepted::parse([client]);
        let choice = compressor.choose(&Hints::new().accepted(&accepted).content_type("image/png").size(1));
        (choice.coding(), choice.reason())
    };
    assert_eq!(coding("lz4"), (Coding::Lz4, Reason::Fixed));
    assert_eq!(coding("*"), (Coding::Identity, Reason::NotAccepted), "only by name");
    assert_eq!(compressor.choose(&Hints::new()).coding(), Coding::Lz4, "nobody was asked");
}

#[test]
fn what_is_encoded_is_not_encoded_again() {
    for value in ["gzip", "br, gzip", "identity, x-whatever", "deflate"] {
        let choice = compressor(Setting::gzip(6)).choose(&Hints::new().content_encoding(value));
        assert_eq!((choice.coding(), choice.reason()), (Coding::Identity, Reason::AlreadyEncoded), "{value}");
    }
    for value in ["", "identity", " , Identity"] {
        let choice = compressor(Setting::gzip(6)).choose(&Hints::new().content_encoding(value));
        assert_eq!(choice.coding(), Coding::Gzip, "{value:?}");
    }
}

#[test]
fn switched_off_everything_is_identity() {
    let compressor = Compressor::builder().policy(Fixed(Setting::gzip(6))).enabled(false).build().unwrap();
    assert!(!compressor.is_enabled());
    let page = json(5000);
    let body = compressor.compress(&Hints::new(), &page).unwrap();
    assert_eq!((body.coding(), body.choice().reason()), (Coding::Identity, Reason::Disabled));
    assert_eq!(body.bytes(), page);
    let mut writer = compressor.writer(Vec::new(), &Hints::new()).unwrap();
    writer.write_all(b"before").unwrap();
    compressor.clone().set_enabled(true);
    writer.write_all(b" and after").unwrap();
    assert_eq!(writer.finish().unwrap(), b"before and after", "a body goes on as it began");
    assert_eq!(compressor.compress(&Hints::new(), b"").unwrap().coding(), Coding::Gzip);
}

#[test]
fn a_wrong_length_is_forgiven() {
    let body = json(140_000); // more than a block
    for setting in settings().into_iter().filter(|setting| setting.level() < 9) {
        for size in [0, 1, 1000, 140_000, 1 << 40, u64::MAX] {
            let mut writer = compressor(setting).writer(Vec::new(), &Hints::new().size(size)).unwrap();
            writer.write_all(&body).unwrap();
            let decoded = decompressor().decompress(setting.coding(), &writer.finish().unwrap());
            assert!(decoded.unwrap() == body, "{setting} with a length of {size}");
        }
    }
}
