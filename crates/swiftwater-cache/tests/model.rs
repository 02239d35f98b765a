//! Random operations, one step at a time, against a twin that remembers when everything happened.
//!
//! Loads are held open across other operations, so every interleaving of load, invalidation, insert, expiry and switch
//! comes up. The twin keeps no versions: it knows the step at which each load began and at which each dependency last
//! moved, and says exactly what must be there.

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{Gates, region, settle};
use proptest::prelude::*;
use swiftwater_cache::{Cache, LoadCx, Region, dep};
use swiftwater_core::Clock;
use tokio::task::JoinSet;

const KEYS: u64 = 3;
const DEPS: usize = 3;
const TTL: u64 = 5;

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    /// Asks for a key; its loader depends on the dependencies `key` and `key + 1`.
    Ask(u64),
    /// Lets the oldest running loader finish.
    Finish,
    Insert(u64),
    Invalidate(usize),
    InvalidateKey(u64),
    Switch(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1..=TTL).prop_map(Step::Advance),
        6 => (0..KEYS).prop_map(Step::Ask),
        6 => Just(Step::Finish),
        1 => (0..KEYS).prop_map(Step::Insert),
        3 => (0..DEPS).prop_map(Step::Invalidate),
        1 => (0..KEYS).prop_map(Step::InvalidateKey),
        1 => any::<bool>().prop_map(Step::Switch),
    ]
}

fn deps_of(key: u64) -> [usize; 2] {
    [key as usize % DEPS, (key as usize + 1) % DEPS]
}

#[derive(Clone, Copy, Debug)]
struct Load {
    began: u64,
    time: u64,
    /// Taken out by an insert or an invalidation of its key.
    detached: bool,
    /// Begun while the region was off: nobody may join it and it is not stored.
    private: bool,
}

#[derive(Default)]
struct Twin {
    step: u64,
    time: u64,
    off: bool,
    /// Every invalidation: the step and the dependency.
    moves: Vec<(u64, usize)>,
    running: Vec<(u64, Load)>,
    stored: HashMap<u64, Load>,
    /// The loads of the rows that pages were made of.
    pages: HashMap<u64, Load>,
}

impl Twin {
    fn valid(&self, key: u64, load: &Load) -> bool {
        let moved = |(step, dep): &(u64, usize)| *step >= load.began && deps_of(key).contains(dep);
        self.time < load.time + TTL && !self.moves.iter().any(moved)
    }

    fn served<'a>(&self, from: &'a HashMap<u64, Load>, key: u64) -> Option<&'a Load> {
        from.get(&key).filter(|load| self.valid(key, load))
    }

    fn detach(&mut self, key: u64) {
        self.stored.remove(&key);
        self.pages.remove(&key);
        self.running.iter_mut().filter(|(other, _)| *other == key).for_each(|(_, load)| load.detached = true);
    }
}

/// What a caller was told.
struct Answer {
    key: u64,
    asked: u64,
    /// When the load began that gave the answer.
    began: u64,
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (clock, hand) = Clock::manual();
    let cache = Cache::builder().clock(clock).build().expect("valid");
    let rows: Region<u64, u64> = cache.region("rows").ttl(Duration::from_secs(TTL)).build().expect("valid");
    let pages: Region<u64, u64> = region(&cache, "pages");
    let (gates, mut answers, mut twin) = (Gates::<()>::new(), JoinSet::new(), Twin::default());
    // What a load returns: the step at which it began.
    let now = Arc::new(AtomicU64::new(0));
    for step in steps {
        twin.step += 1;
        now.store(twin.step, SeqCst);
        match step {
            Step::Advance(seconds) => {
                hand.advance(Duration::from_secs(seconds));
                twin.time += seconds;
            }
            Step::Ask(key) => {
                let (rows, gates, now, asked) = (rows.clone(), gates.clone(), now.clone(), twin.step);
                answers.spawn(async move {
                    let load = async move |cx: LoadCx<u64>| {
                        let began = now.load(SeqCst);
                        deps_of(*cx.key()).into_iter().for_each(|dep| cx.depends_on(dep!("dep", dep)));
                        gates.pass(*cx.key()).await;
                        Ok(began)
                    };
                    let began = *rows.get_or_load(&key, load).await.expect("no loader fails");
                    Answer { key, asked, began }
                });
            }
            Step::Finish if gates.waiting() > 0 => {
                gates.open(());
                let (key, load) = twin.running.remove(0);
                if !load.detached && !load.private && !twin.off && twin.valid(key, &load) {
                    twin.stored.insert(key, load);
                }
            }
            Step::Finish => {}
            Step::Insert(key) => {
                rows.insert_with(key, twin.step, |entry| {
                    deps_of(key).into_iter().for_each(|dep| entry.depends_on(dep!("dep", dep)));
                });
                twin.detach(key);
                if !twin.off {
                    let load = Load { began: twin.step, time: twin.time, detached: false, private: false };
                    twin.stored.insert(key, load);
                }
            }
            Step::Invalidate(dep) => {
                cache.invalidate(dep!("dep", dep));
                twin.moves.push((twin.step, dep));
            }
            Step::InvalidateKey(key) => {
                rows.invalidate(&key);
                twin.detach(key);
            }
            Step::Switch(on) => {
                rows.set_enabled(on);
                twin.off = !on;
            }
        }
        settle().await;
        // Loaders that have begun in this step, be it for a new caller or for one that refused an older load.
        for key in gates.keys().into_iter().skip(twin.running.len()) {
            let running =
                twin.running.iter().filter(|(other, load)| *other == key && !load.detached && !load.private);
            prop_assert!(twin.off || running.count() == 0, "a second load of {key} at once");
            let load = Load { began: twin.step, time: twin.time, detached: false, private: twin.off };
            twin.running.push((key, load));
        }
        prop_assert_eq!(gates.waiting(), twin.running.len());
        while let Some(answer) = answers.try_join_next() {
            let Answer { key, asked, began } = answer.expect("no panic");
            let missed =
                |(step, dep): &(u64, usize)| (began..=asked).contains(step) && deps_of(key).contains(dep);
            prop_assert!(!twin.moves.iter().any(missed), "asked for {key} at {asked}, told of {began}");
        }
        for key in 0..KEYS {
            let row = twin.served(&twin.stored, key).filter(|_| !twin.off).copied();
            let began = row.map(|load| load.began);
            prop_assert_eq!(rows.get(&key).map(|hit| *hit), began, "row {} after {:?}", key, step);
            let page = twin.served(&twin.pages, key).map(|load| load.began);
            prop_assert_eq!(pages.get(&key).map(|hit| *hit), page, "page {} after {:?}", key, step);
            if let Some(row) = row {
                let reading = rows.clone();
                let load = async move |cx: LoadCx<u64>| Ok(*reading.get(cx.key()).expect("just seen"));
                prop_assert_eq!(*pages.get_or_load(&key, load).await.expect("loaded"), row.began);
                twin.pages.insert(key, row);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_lookup_is_as_the_twin_says(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(steps))?;
    }
}
