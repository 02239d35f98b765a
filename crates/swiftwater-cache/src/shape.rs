//! What a type looks like to its encoding, as a number: so that bytes of another shape are not taken for a value.

use std::any::type_name;

use serde::de::DeserializeOwned;
use serde_reflection::{Tracer, TracerConfig};
use xxhash_rust::xxh3::Xxh3;

/// Of a key and a value. Traced by deserializing the types from made-up input, so it sees what serde sees: names and types
/// of fields and variants, in order. Of a type that refuses such input only the name counts.
pub(crate) fn of<K: DeserializeOwned, V: DeserializeOwned>() -> u64 {
    let mut hash = Xxh3::new();
    for shape in [shape::<K>(), shape::<V>()] {
        hash.update(&(shape.len() as u64).to_le_bytes());
        hash.update(shape.as_bytes());
    }
    hash.digest()
}

/// Of a region, its version, and the shape of its types.
pub(crate) fn schema(region: &str, version: u32, shape: u64) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&version.to_le_bytes());
    hash.update(&shape.to_le_bytes());
    hash.update(region.as_bytes());
    hash.digest()
}

fn shape<T: DeserializeOwned>() -> String {
    let traced = std::panic::catch_unwind(|| {
        let mut tracer = Tracer::new(TracerConfig::default().is_human_readable(false));
        let (format, _) = tracer.trace_simple_type::<T>().ok()?;
        let registry = tracer.registry().ok()?;
        Some(format!("{format:?} {registry:?}"))
    });
    // A user's `Deserialize` that panics counts as one that refuses.
    traced.ok().flatten().unwrap_or_else(|| type_name::<T>().to_owned())
}

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn a_changed_shape_is_another_number() {
        mod old {
            #[derive(serde::Deserialize)]
            pub(super) struct Price {
                #[expect(dead_code, reason = "only its shape matters")]
                cents: u32,
            }
        }
        mod new {
            #[derive(serde::Deserialize)]
            pub(super) struct Price {
                #[expect(dead_code, reason = "only its shape matters")]
                cents: u64,
            }
        }
        #[derive(Deserialize)]
        enum Answer {
            No,
            Yes(#[expect(dead_code, reason = "only its shape matters")] Vec<String>),
        }
        let shapes =
            [of::<u64, old::Price>(), of::<u64, new::Price>(), of::<u32, old::Price>(), of::<u64, Answer>()];
        for (place, shape) in shapes.iter().enumerate() {
            assert!(!shapes[..place].contains(shape));
        }
        assert_eq!(of::<u64, Answer>(), shapes[3], "the same shape is the same number");
        assert_ne!(schema("a", 1, 2), schema("a", 2, 2));
        assert_ne!(schema("a", 1, 2), schema("b", 1, 2));
    }
}
