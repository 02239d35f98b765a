//! What a load reads past memory it depends on, as on what it finds there.

mod common;

use common::{cache, region};
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
