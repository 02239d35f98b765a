//! The laws of [`Policy`] as a function that a test calls: it panics with the law that does not hold.
//!
//! It looks from outside, so it can refute a policy, not prove it.
//!
//! ```
//! use swiftwater_compress::{Rules, conformance};
//!
//! conformance::policy(&Rules::new());
//! ```

use crate::{Accepted, Coding, Hints, Policy, Question};

/// Checks a [`Policy`] by its laws 2 to 4, with every combination of a few clients, types, lengths and first bytes.
///
/// # Panics
///
/// When a law does not hold.
pub fn policy(policy: &impl Policy) {
    let settings = || {
        let mut all = Vec::new();
        policy.settings(&mut |setting| all.push(setting));
        all
    };
    let first = settings();
    assert_eq!(first, settings(), "law 4: the same settings come on every call");
    for client in CLIENTS {
        let accepted = client.map(|value| Accepted::parse([value]));
        for content_type in TYPES {
            for size in SIZES {
                for head in HEADS {
                    let mut hints = Hints::new().content_type(content_type).head(head);
                    if let Some(accepted) = &accepted {
                        hints = hints.accepted(accepted);
                    }
                    if let Some(size) = size {
                        hints = hints.size(size);
                    }
                    let question = Question::new(hints);
                    let choice = policy.choose(&question);
                    if choice.coding() == Coding::Identity {
                        continue;
                    }
                    let setting = choice.setting();
                    assert!(first.contains(&setting), "law 2: {setting} is none of its settings");
                    let accepts = question.accepts(choice.coding());
                    assert!(accepts, "law 3: {setting} for a client of {client:?}, which refuses it");
                }
            }
        }
    }
}

const CLIENTS: [Option<&str>; 12] = [
    None,
    Some(""),
    Some("*"),
    Some("*;q=0"),
    Some("gzip, deflate, br, zstd"),
    Some("gzip;q=0, *"),
    Some("br"),
    Some("zstd;q=0.5, gzip;q=0.1"),
    Some("lz4"),
    Some("lz4;q=0, gzip"),
    Some("identity, gzip;q=0.5"),
    Some("identity;q=0"),
];
const TYPES: [&str; 6] =
    ["", "application/json", "application/octet-stream", "image/png", "text/html; charset=utf-8", "nonsense"];
const SIZES: [Option<u64>; 5] = [None, Some(0), Some(1000), Some(100_000), Some(u64::MAX)];
const HEADS: [&[u8]; 3] = [b"", b"\x1f\x8b\x08\0", b"{\"id\":1}"];
