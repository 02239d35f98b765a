//! `Accept-Encoding` by RFC 9110, sections 12.4.2, 12.5.3 and 5.6.1.

use std::collections::HashMap;

use proptest::prelude::*;
use swiftwater_compress::{Accepted, Coding, Codings, Error};

fn accepted(value: &str) -> Vec<Coding> {
    let accepted = Accepted::parse([value]);
    Coding::ALL.into_iter().filter(|&coding| accepted.accepts(coding)).collect()
}

const REGISTERED: [Coding; 4] = [Coding::Brotli, Coding::Gzip, Coding::Identity, Coding::Zstd];

#[test]
fn the_examples_of_the_rfc() {
    use Coding::{Brotli, Gzip, Identity, Zstd};
    assert_eq!(accepted("compress, gzip"), [Gzip, Identity]);
    assert_eq!(accepted(""), [Identity]);
    assert_eq!(accepted("*"), REGISTERED);
    assert_eq!(accepted("compress;q=0.5, gzip;q=1.0"), [Gzip, Identity]);
    assert_eq!(accepted("gzip;q=1.0, identity; q=0.5, *;q=0"), [Gzip, Identity]);
    assert_eq!(accepted("gzip, deflate, br, zstd"), [Brotli, Gzip, Identity, Zstd]);
}

#[test]
fn no_field_asks_for_nothing_but_identity() {
    let none = Accepted::parse::<&str>([]);
    assert_eq!(none, Accepted::default());
    assert_eq!(none, Accepted::parse([""]));
    for coding in Coding::ALL {
        assert_eq!(none.accepts(coding), coding == Coding::Identity);
    }
}

#[test]
fn identity_is_refused_in_the_two_ways_there_are() {
    assert_eq!(accepted("identity;q=0"), []);
    assert_eq!(accepted("identity;q=0, gzip"), [Coding::Gzip]);
    assert_eq!(accepted("*;q=0"), []);
    assert_eq!(accepted("*;q=0, br"), [Coding::Brotli]);
    assert_eq!(accepted("*;q=0, identity"), [Coding::Identity]);
    assert_eq!(accepted("gzip;q=0"), [Coding::Identity]);
}

#[test]
fn the_star_means_what_is_not_named_and_never_lz4() {
    assert_eq!(accepted("gzip;q=0, *"), [Coding::Brotli, Coding::Identity, Coding::Zstd]);
    assert_eq!(accepted("lz4"), [Coding::Identity, Coding::Lz4]);
    assert_eq!(accepted("lz4, *;q=0"), [Coding::Lz4]);
    let weights = Accepted::parse(["gzip;q=0.7, *;q=0.3"]);
    let weight = |coding| weights.weight(coding);
    assert_eq!((weight(Coding::Gzip), weight(Coding::Zstd), weight(Coding::Identity)), (700, 300, 300));
    assert_eq!(weight(Coding::Lz4), 0);
}

#[test]
fn weights_have_up_to_three_decimals_and_nothing_else() {
    for (text, weight) in [
        ("0", 0),
        ("0.", 0),
        ("0.0", 0),
        ("0.000", 0),
        ("0.001", 1),
        ("0.5", 500),
        ("0.55", 550),
        ("0.999", 999),
        ("1", 1000),
        ("1.", 1000),
        ("1.0", 1000),
        ("1.000", 1000),
    ] {
        for value in [format!("gzip;q={text}"), format!("GZip ;\tQ={text} "), format!(" x-gzip; q={text}\t")]
        {
            assert_eq!(Accepted::parse([&value]).weight(Coding::Gzip), weight, "{value:?}");
        }
    }
    for text in
        ["", "2", "-1", "1.001", "1.1", "0.0001", ".5", "0,5", "00", "0.5x", "x", "+1", "0.-1", "1e0", "nan"]
    {
        let value = format!("gzip;q={text}");
        assert!(!Accepted::parse([&value]).accepts(Coding::Gzip), "{value:?} is no weight");
    }
    for value in
        ["gzip;", "gzip;;q=1", "gzip;level=1", "gzip;q=1;x=y", "gzip;q =1", "gzip;q= 1", "gzip q=1", "gz ip"]
    {
        assert!(!Accepted::parse([value]).accepts(Coding::Gzip), "{value:?} is no element");
    }
    assert_eq!(accepted("gzip;q=oops, *"), [Coding::Brotli, Coding::Identity, Coding::Zstd]);
    assert_eq!(accepted("identity;q=oops"), [], "no consent");
}

#[test]
fn fields_and_empty_elements_add_up() {
    let many = Accepted::parse(["gzip;q=0.5", "", " , ,br,, ", "zstd;q=0"]);
    assert_eq!(many, Accepted::parse(["gzip;q=0.5,br,zstd;q=0"]));
    assert_eq!(Accepted::parse(["gzip, gzip;q=0.2"]).weight(Coding::Gzip), 200, "the lower one counts");
    assert_eq!(Accepted::parse(["x-gzip;q=0", "gzip"]).weight(Coding::Gzip), 0);
    assert!(!Accepted::parse([b"\xff\xfe, gzip\0, br".as_slice()]).accepts(Coding::Gzip));
    assert!(Accepted::parse([b"\xff\xfe, gzip\0, br".as_slice()]).accepts(Coding::Brotli));
}

#[test]
fn content_encoding_is_read_in_order() {
    let parse = |value: &str| Codings::parse([value]);
    assert_eq!(parse("GZIP , ,Br").unwrap().as_slice(), [Coding::Gzip, Coding::Brotli]);
    assert_eq!(
        Codings::parse(["x-gzip", "zstd, lz4"]).unwrap().as_slice(),
        [Coding::Gzip, Coding::Zstd, Coding::Lz4]
    );
    assert_eq!(parse("identity, , Identity").unwrap(), Codings::default());
    assert_eq!(parse("").unwrap(), Codings::default());
    let error = parse("gzip, rot13").unwrap_err();
    assert!(matches!(&error, Error::UnsupportedCoding { token, .. } if &**token == "rot13"), "{error}");
    let long = "x".repeat(10_000);
    let error = parse(&long).unwrap_err();
    assert!(matches!(&error, Error::UnsupportedCoding { token, .. } if token.len() == 32));
    assert!(Codings::parse([b"\xff\xff"]).is_err());
}

#[test]
fn tokens_come_back() {
    for coding in Coding::ALL {
        assert_eq!(coding.token().parse::<Coding>().unwrap(), coding);
        assert_eq!(coding.to_string().to_uppercase().parse::<Coding>().unwrap(), coding);
    }
    assert_eq!("x-gzip".parse::<Coding>().unwrap(), Coding::Gzip);
    for wrong in ["", "gzip ", "*", "deflate", "brotli"] {
        assert!(wrong.parse::<Coding>().is_err(), "{wrong:?}");
    }
}

/// A second reading, as plain as can be: text in, weights by name out.
fn naively(fields: &[String]) -> HashMap<String, f64> {
    let mut weights = HashMap::new();
    for element in fields.join(",").split(',') {
        let parts: Vec<&str> = element.split(';').map(|part| part.trim_matches([' ', '\t'])).collect();
        let name = parts[0].to_lowercase().replace("x-gzip", "gzip");
        let weight: f64 = match parts[1..] {
            [] => 1.0,
            [parameter] => {
                let text = parameter.to_lowercase();
                let digits = text.strip_prefix("q=").unwrap_or("");
                let shaped = digits.len() <= 5
                    && (digits.starts_with("0.")
                        || digits.starts_with("1.")
                        || digits == "0"
                        || digits == "1")
                    && digits.chars().skip(2).all(|char| char.is_ascii_digit());
                digits.parse().ok().filter(|weight| shaped && *weight <= 1.0).unwrap_or(0.0)
            }
            _ => 0.0,
        };
        let slot = weights.entry(name).or_insert(weight);
        *slot = weight.min(*slot);
    }
    weights
}

fn naive_weight(weights: &HashMap<String, f64>, coding: Coding) -> u16 {
    let named = weights.get(coding.token());
    let star = weights.get("*");
    let weight = match coding {
        Coding::Identity => *named.or(star).unwrap_or(&0.001),
        Coding::Lz4 => *named.unwrap_or(&0.0),
        _ => *named.or(star).unwrap_or(&0.0),
    };
    (weight * 1000.0).round() as u16
}

fn element() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "gzip", "x-gzip", "GZIP", "br", "Br", "zstd", "lz4", "identity", "Identity", "*", "deflate", "",
        "gz", "q",
    ]);
    let space = prop::sample::select(vec!["", " ", "\t", "  "]);
    let weight = prop_oneof![
        Just(String::new()),
        "[01]".prop_map(|digits| format!("q={digits}")),
        "[01]\\.[0-9]{0,4}".prop_map(|digits| format!("Q={digits}")),
        "[ -~]{0,6}",
    ];
    (space.clone(), name, space.clone(), any::<bool>(), space, weight).prop_map(
        |(before, name, after, weighed, inside, weight)| {
            let weight = weight.replace([',', '"'], "");
            if weighed {
                format!("{before}{name}{after};{inside}{weight}")
            } else {
                format!("{before}{name}{after}")
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_second_reading_agrees(fields in prop::collection::vec(prop::collection::vec(element(), 0..5), 0..3)) {
        let fields: Vec<String> = fields.into_iter().map(|elements| elements.join(",")).collect();
        let accepted = Accepted::parse(&fields);
        let weights = naively(&fields);
        for coding in Coding::ALL {
            prop_assert_eq!(accepted.weight(coding), naive_weight(&weights, coding), "{} in {:?}", coding, &fields);
        }
    }

    #[test]
    fn garbage_never_panics_and_never_grants(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let accepted = Accepted::parse([&bytes]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        for coding in [Coding::Brotli, Coding::Gzip, Coding::Lz4, Coding::Zstd] {
            let said = text.contains(coding.token()) || (text.contains('*') && coding != Coding::Lz4);
            prop_assert!(said || !accepted.accepts(coding));
        }
    }
}
