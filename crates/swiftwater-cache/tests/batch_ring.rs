//! Rings through loads of many keys.

mod common;

use std::time::Duration;

use common::{cache, region, spawn};
use swiftwater_cache::{ManyCx, Region};
use tokio::time::timeout;

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_another_key_of_its_own_batch_is_refused() {
    let cache = cache();
    let rows: Region<u64, u64> = region(&cache, "rows");
    let reading = rows.clone();
    let load = move |cx: ManyCx<u64>| {
        let rows = reading.clone();
        async move {
            let scope = cx.of(0).clone();
            let other = spawn(async move {
                let got = rows.within(&scope).get_or_load(&2, async |_| Ok(2)).await;
                got.map(|hit| *hit)
            });
            let two = other.await.expect("no panic")?;
            Ok(vec![(1, 1), (2, two)])
        }
    };
    let all = timeout(Duration::from_secs(60), rows.get_or_load_many(&[1, 2], load)).await;
    assert!(all.expect("it does not hang").is_err());
}
