//! Values in this process that entries are made of.

mod common;

use common::{Gates, cache, region, settle, spawn};
use swiftwater_cache::{LoadCx, Region, Scope, dep};

#[tokio::test]
async fn what_is_made_of_a_parameter_goes_stale_when_it_changes_and_only_then() {
    let cache = cache();
    let prices: Region<u64, u32> = region(&cache, "prices");
    let totals: Region<u64, u32> = region(&cache, "totals");
    let vat = cache.parameter("vat", 19);
    let load = async || {
        let (prices, vat) = (prices.clone(), vat.clone());
        let total = totals.get_or_load(&1, async move |_| {
            let price = prices.get_or_load(&1, async move |_| Ok(100 + vat.get())).await?;
            Ok(*price)
        });
        *total.await.unwrap()
    };
    assert_eq!(load().await, 119);
    assert!(!vat.set(19), "no other value");
    assert!(prices.get(&1).is_some());
    assert!(vat.set(7));
    assert!(prices.get(&1).is_none() && totals.get(&1).is_none());
    assert_eq!((load().await, vat.get()), (107, 7));
    assert_eq!(vat.dep(), dep!("vat"));
    cache.invalidate(vat.dep());
    assert!(totals.get(&1).is_none());
}

#[tokio::test]
async fn a_load_that_read_the_old_value_is_not_stored() {
    let cache = cache();
    let prices: Region<u64, u32> = region(&cache, "prices");
    let (vat, gates) = (cache.parameter("vat", 19), Gates::<()>::new());
    let ask = || {
        let (prices, vat, gates) = (prices.clone(), vat.clone(), gates.clone());
        spawn(async move {
            let load = async move |cx: LoadCx<u64>| {
                // Read by another task, on behalf of this load.
                let scope = Scope::clone(&cx);
                let rate = spawn(async move { vat.get_within(&scope) }).await?;
                gates.pass(1).await;
                Ok(100 + rate)
            };
            *prices.get_or_load(&1, load).await.unwrap()
        })
    };
    let old = ask();
    settle().await;
    vat.set(7);
    gates.open(());
    assert_eq!(old.await.unwrap(), 119);
    assert!(prices.get(&1).is_none());
    let new = ask();
    settle().await;
    gates.open(());
    assert_eq!(new.await.unwrap(), 107);
    assert_eq!(prices.get(&1).as_deref(), Some(&107));
}
