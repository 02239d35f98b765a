//! What a load reads past memory it depends on, as on what it finds there.

mod common;

use std::time::Duration;

use common::{Gates, cache, manual, region, settle, spawn};
use swiftwater_cache::{LoadCx, Region, Skip};

#[tokio::test]
async fn a_load_depends_on_what_it_has_read_past_memory() {
    type Change = fn(&Region<u64, u32>);
    let changes: [(&str, Change); 2] =
        [("insert", |rows| rows.insert(1, 2)), ("invalidate", |rows| _ = rows.invalidate(&1))];
    for (name, change) in changes {
        // A new cache for each, in which no load has read any other key.
        let cache = cache();
        let (rows, sums): (Region<u64, u32>, Region<u64, u32>) =
            (region(&cache, "rows"), region(&cache, "sums"));
        let reading = rows.clone();
        let load = async move |_: LoadCx<u64>| {
            let past_memory = reading.skipping(Skip::new().memory());
            Ok(*past_memory.get_or_load(&1, async |_| Ok(1)).await?)
        };
        assert_eq!(*sums.get_or_load(&1, load).await.unwrap(), 1);
        change(&rows);
        assert!(sums.get(&1).is_none(), "{name}");
    }
}

/// Whoever else is loading, whom it does not join.
#[tokio::test]
async fn a_load_past_layers_that_fails_is_made_good_by_what_there_was() {
    let (cache, hand) = manual();
    let second = Duration::from_secs(1);
    let rows: Region<u64, u32> =
        cache.region("rows").ttl(second).fail_safe(10 * second, second).build().unwrap();
    rows.insert(1, 1);
    hand.advance(second);
    let gates = Gates::new();
    for others in [false, true] {
        if others {
            let (rows, source) = (rows.clone(), gates.clone());
            spawn(async move { rows.get_or_load(&1, async move |_| Ok(source.pass(1).await)).await });
            settle().await;
            assert_eq!(gates.waiting(), 1);
        }
        let past_layers = rows.skipping(Skip::new().layers());
        let old = past_layers.get_or_load(&1, async |_| Err(std::fmt::Error.into())).await.unwrap();
        assert!(old.is_stale() && old == 1, "others: {others}");
        hand.advance(second); // a load may be tried again
    }
    gates.open(2);
}
