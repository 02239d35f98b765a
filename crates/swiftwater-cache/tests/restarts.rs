//! Random operations on a region with a layer, across restarts in order and crashes, against a twin that remembers when
//! everything happened.
//!
//! After a close in order the next cache serves what the layer has, less what was invalidated or has expired since it was
//! loaded; after a crash it serves nothing from before. The twin says of every lookup whether it has to load.

mod common;
mod shelf_common;

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use common::settle;
use proptest::prelude::*;
use shelf_common::Shelf;
use swiftwater_cache::{Cache, Dep, LoadCx, Region, dep};
use swiftwater_core::Clock;

const KEYS: u64 = 3;
const DEPS: u64 = 3;
/// So long that what a test takes does not count, which the wall clock adds to a restart.
const UNIT: Duration = Duration::from_secs(3600);
const TTL: u64 = 4;

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    Crash,
    Insert(u64),
    Invalidate(u64),
    InvalidateAll,
    InvalidateKey(u64),
    /// Its value depends on the dependencies `key` and `key + 1`.
    Load(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..=TTL).prop_map(Step::Advance),
        1 => Just(Step::Crash),
        2 => (0..KEYS).prop_map(Step::Insert),
        3 => (0..DEPS).prop_map(Step::Invalidate),
        1 => Just(Step::InvalidateAll),
        2 => (0..KEYS).prop_map(Step::InvalidateKey),
        8 => (0..KEYS).prop_map(Step::Load),
        3 => Just(Step::Restart),
    ]
}

fn deps_of(key: u64) -> [u64; 2] {
    [key % DEPS, (key + 1) % DEPS]
}

fn open(clock: &Clock, versions: &Path, shelf: &Arc<Shelf>) -> (Cache, Region<u64, u64>) {
    shelf.reopen();
    // Few cells, since all of them are written; no two of these names share one.
    let cache = Cache::builder().clock(clock.clone()).version_cells(1 << 12).persist(versions);
    let cache = cache.build().expect("valid");
    let rows = cache.region("rows").ttl(UNIT * TTL as u32).schema(1).layer(shelf.clone());
    let rows = rows.build().expect("valid");
    (cache, rows)
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().expect("a directory");
    let (versions, shelf) = (folder.path().join("versions"), Shelf::new());
    let (clock, hand) = Clock::manual();
    let (mut cache, mut rows) = open(&clock, &versions, &shelf);
    // What is to be served: the step that made it, and when that was.
    let (mut twin, mut time) = (HashMap::<u64, (u64, u64)>::new(), 0);
    for (number, step) in (0..).zip(steps) {
        let declare = |cx: &swiftwater_cache::Scope, key| {
            deps_of(key).into_iter().for_each(|dep| cx.depends_on(dep!("dep", dep)));
        };
        match step {
            Step::Advance(units) => {
                hand.advance(UNIT * units as u32);
                time += units;
            }
            Step::Crash => {
                (cache, rows) = open(&clock, &versions, &shelf);
                twin.clear();
            }
            Step::Insert(key) => {
                rows.insert_with(key, number, |entry| declare(entry, key));
                twin.insert(key, (number, time));
            }
            Step::Invalidate(dep) => {
                cache.invalidate(dep!("dep", dep));
                twin.retain(|key, _| !deps_of(*key).contains(&dep));
            }
            Step::InvalidateAll => {
                cache.invalidate(if number % 2 == 0 { rows.whole() } else { Dep::everything() });
                twin.clear();
            }
            Step::InvalidateKey(key) => {
                rows.invalidate(&key);
                twin.remove(&key);
            }
            Step::Load(key) => {
                let load = async move |cx: LoadCx<u64>| {
                    declare(&cx, key);
                    Ok(number)
                };
                let found = *rows.get_or_load(&key, load).await.expect("no loader fails");
                twin.retain(|_, (_, since)| time < *since + TTL);
                let (expected, _) = *twin.entry(key).or_insert((number, time));
                prop_assert_eq!(found, expected, "row {} at step {}", key, number);
            }
            Step::Restart => {
                cache.close().await.expect("nothing stands in its way");
                (cache, rows) = open(&clock, &versions, &shelf);
            }
        }
        settle().await; // what goes to the layer has arrived
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn across_restarts_every_lookup_is_as_the_twin_says(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(run(steps))?;
    }
}
