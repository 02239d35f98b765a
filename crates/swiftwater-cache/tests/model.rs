//! Random operations, one step at a time, against a twin that remembers when everything happened.
//!
//! Loads are held open across other operations, so every interleaving of load, failure, invalidation of every kind, insert,
//! expiry and switch comes up; what has expired may be served while it is loaded anew, and in the place of a failure. The twin keeps no versions: it knows the step at which each load began and at which each dependency last
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
use swiftwater_cache::{Cache, Dep, LoadCx, Region, dep};
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
    /// Lets the oldest running loader finish, or fail.
    Finish(bool),
    /// Invalidates a dependency, and holds off storing for so many seconds.
    HoldOff(usize, u64),
    Insert(u64),
    Invalidate(usize),
    InvalidateAll(bool),
    InvalidateKey(u64),
    /// Through the key's name, which leaves its load where it is.
    InvalidateKeyByName(u64),
    Soften(usize),
    SoftenKey(u64),
    Switch(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1..=TTL).prop_map(Step::Advance),
        6 => (0..KEYS).prop_map(Step::Ask),
        6 => prop::bool::weighted(0.8).prop_map(Step::Finish),
        1 => (0..DEPS, 1..=TTL).prop_map(|(dep, seconds)| Step::HoldOff(dep, seconds)),
        1 => (0..KEYS).prop_map(Step::Insert),
        3 => (0..DEPS).prop_map(Step::Invalidate),
        1 => any::<bool>().prop_map(Step::InvalidateAll),
        1 => (0..KEYS).prop_map(Step::InvalidateKey),
        1 => (0..KEYS).prop_map(Step::InvalidateKeyByName),
        1 => (0..DEPS).prop_map(Step::Soften),
        1 => (0..KEYS).prop_map(Step::SoftenKey),
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

/// What is invalidated.
#[derive(Clone, Copy, Debug)]
enum What {
    All,
    Dep(usize),
    Key(u64),
}

impl What {
    fn concerns(self, key: u64) -> bool {
        match self {
            Self::All => true,
            Self::Dep(dep) => deps_of(key).contains(&dep),
            Self::Key(other) => key == other,
        }
    }
}

#[derive(Default)]
struct Twin {
    step: u64,
    time: u64,
    off: bool,
    /// Every invalidation: the step, and of what.
    moves: Vec<(u64, What)>,
    soft_moves: Vec<(u64, What)>,
    /// Until when nothing is stored that depends on it.
    holds: Vec<(u64, usize)>,
    running: Vec<(u64, Load)>,
    stored: HashMap<u64, Load>,
    /// The loads of the rows that pages were made of.
    pages: HashMap<u64, Load>,
}

impl Twin {
    fn valid(&self, key: u64, load: &Load) -> bool {
        let moved = |(step, what): &(u64, What)| *step >= load.began && what.concerns(key);
        self.time < load.time + TTL && !self.moves.iter().chain(&self.soft_moves).any(moved)
    }

    /// Whether it may not be served in any way.
    fn gone(&self, key: u64, load: &Load) -> bool {
        let moved = |(step, what): &(u64, What)| *step >= load.began && what.concerns(key);
        self.time >= load.time + TTL || self.moves.iter().any(moved)
    }

    /// Whether a load of the key that began then is not to be stored.
    fn held(&self, key: u64, time: u64) -> bool {
        self.holds.iter().any(|(until, dep)| time < *until && deps_of(key).contains(dep))
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
    /// When the load began that gave the answer; `None`: it failed.
    began: Option<u64>,
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (clock, hand) = Clock::manual();
    let cache = Cache::builder().clock(clock).build().expect("valid");
    let rows: Region<u64, u64> = cache
        .region("rows")
        .ttl(Duration::from_secs(TTL))
        .stale_for(Duration::from_secs(2))
        .fail_safe(Duration::from_secs(8), Duration::from_secs(1))
        .build()
        .expect("valid");
    let pages: Region<u64, u64> = region(&cache, "pages");
    let _first = rows.dep(&0); // so that the effect of the first one is behind us
    let (gates, mut answers, mut twin) = (Gates::<bool>::new(), JoinSet::new(), Twin::default());
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
                        if gates.pass(*cx.key()).await { Ok(began) } else { Err(std::fmt::Error.into()) }
                    };
                    let began = rows.get_or_load(&key, load).await.ok().map(|hit| *hit);
                    Answer { key, asked, began }
                });
            }
            Step::Finish(well) if gates.waiting() > 0 => {
                gates.open(well);
                let (key, load) = twin.running.remove(0);
                let kept = !load.detached && !load.private && !twin.off && !twin.held(key, load.time);
                if well && kept && twin.valid(key, &load) {
                    twin.stored.insert(key, load);
                }
            }
            Step::Finish(_) => {}
            Step::HoldOff(dep, seconds) => {
                cache.invalidate(dep!("dep", dep).hold_off(Duration::from_secs(seconds)));
                twin.moves.push((twin.step, What::Dep(dep)));
                twin.holds.push((twin.time + seconds, dep));
            }
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
                twin.moves.push((twin.step, What::Dep(dep)));
            }
            Step::InvalidateAll(rows_only) => {
                cache.invalidate(if rows_only { rows.whole() } else { Dep::everything() });
                twin.moves.push((twin.step, What::All));
            }
            Step::InvalidateKeyByName(key) => {
                cache.invalidate(rows.dep(&key));
                twin.moves.push((twin.step, What::Key(key)));
            }
            Step::Soften(dep) => {
                cache.invalidate(dep!("dep", dep).soft());
                twin.soft_moves.push((twin.step, What::Dep(dep)));
            }
            Step::SoftenKey(key) => {
                cache.invalidate(rows.dep(&key).soft());
                twin.soft_moves.push((twin.step, What::Key(key)));
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
            let Some(began) = began else { continue };
            let missed = |(step, what): &(u64, What)| (began..=asked).contains(step) && what.concerns(key);
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
                let page = pages.get_or_load(&key, load).await.expect("loaded");
                if page.is_stale() {
                    let old = twin.pages.get(&key).filter(|old| !twin.gone(key, old)).map(|old| old.began);
                    prop_assert_eq!(Some(*page), old, "what is served once more of page {}", key);
                    settle().await;
                } else {
                    prop_assert_eq!(*page, row.began);
                }
                // Of the row that it was made of it has all but the stamp.
                if twin.served(&twin.pages, key).is_some() || !twin.held(key, twin.time) {
                    twin.pages.insert(key, row);
                }
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
