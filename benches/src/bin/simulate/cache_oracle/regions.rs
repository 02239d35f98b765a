//! The regions of our cache: what they are told, where they load from and where they write to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use swiftwater_cache::{AnyError, Cache, Facts, Hit, Judgement, LoadCx, ManyCx, Region, Sink, Tier, Writes};

use crate::cache_oracle::{
    ours::{Place, World},
    plan::{Lie, Plan, Stores},
    shelf::Shelf,
    source::{Broken, LEVELS, Source},
};

pub fn regions(
    cache: &Cache,
    plan: &Plan,
    source: &Arc<Source>,
    world: &Weak<World>,
) -> [Region<usize, Vec<u64>>; LEVELS] {
    let shelves = SHELVES.map(|name| Arc::new(Shelf::new(name, source)));
    [0, 1, 2, 3].map(|number| region(cache, number, plan, (source, &shelves, world)))
}

fn region(
    cache: &Cache,
    number: usize,
    plan: &Plan,
    (source, shelves, world): (&Arc<Source>, &[Arc<Shelf>], &Weak<World>),
) -> Region<usize, Vec<u64>> {
    let lives = plan.region;
    let mut builder = cache
        .region(NAMES[number])
        .memory(lives.memory)
        .ttl(lives.ttl)
        .jitter(lives.jitter)
        .idle(lives.idle)
        .stale_for(lives.stale_for)
        .refresh_after(lives.refresh_after)
        .load_timeout(lives.load_timeout)
        .usage(lives.usage);
    if plan.moka {
        builder = builder.memory_moka(lives.memory);
    }
    if let Some(ttl) = lives.negative {
        builder = builder.negative(ttl, |versions: &Vec<u64>| versions[0].is_multiple_of(3));
    }
    if let Some((max_stale, throttle)) = lives.fail_safe {
        builder = builder.fail_safe(max_stale, throttle).soft_timeout(lives.soft_timeout);
    }
    if let Some((loads, excess)) = lives.max_loads {
        builder = builder.max_loads(loads, excess);
    }
    if let Some(every) = lives.review {
        builder = builder.invalidation_policy(judge, every);
    }
    if plan.fetches {
        let (world, kept) = (world.clone(), Mutex::default());
        builder = builder.source(Rows { region: number, world, kept }).refresh_every(lives.refresh_every);
    }
    if let Some(fill) = plan.layers {
        builder = builder.schema(1);
        for shelf in shelves {
            builder = builder.layer(Tier::from(shelf.clone()).fill(fill));
        }
    }
    if let (Some(stores), 0) = (plan.stores, number) {
        let sink = Writer { source: source.clone(), is_early: plan.lie == Some(Lie::Early) };
        builder = match stores {
            Stores::Around => builder.writes(Writes::around(sink)),
            Stores::Through => builder.writes(Writes::through(sink)),
            Stores::Behind { max_pending, max_batch, delay } => {
                let behind = Writes::behind(sink).max_pending(max_pending).max_batch(max_batch);
                builder.writes(behind.delay(delay))
            }
        };
    }
    builder.build().expect("it is valid")
}

/// By the value, its age and its uses.
fn judge(facts: &Facts<'_, Vec<u64>>) -> Judgement {
    let is_old = facts.age() > Duration::from_millis(1);
    match facts.value()[0] % 8 {
        0 if is_old => Judgement::Drop,
        1..=3 if is_old => Judgement::Refresh,
        _ if facts.uses().is_some_and(|uses| uses < 0.5) => Judgement::Drop,
        _ => Judgement::Keep,
    }
}

/// Where a region loads from by itself.
struct Rows {
    region: usize,
    world: Weak<World>,
    /// For one that lies.
    kept: Mutex<HashMap<usize, Vec<u64>>>,
}

impl swiftwater_cache::Source<usize, Vec<u64>> for Rows {
    type Error = AnyError;

    async fn load(&self, cx: LoadCx<usize>) -> Result<Option<Vec<u64>>, AnyError> {
        let world = self.world.upgrade().ok_or(Broken)?;
        let place = Place { region: self.region, key: *cx.key() };
        let is_absent = world.is_absent(&mut world.source.dice());
        let versions = world.load(place, cx).await?;
        Ok((!is_absent).then_some(versions))
    }

    async fn load_many(&self, cx: ManyCx<usize>) -> Result<Vec<(usize, Vec<u64>)>, AnyError> {
        let world = self.world.upgrade().ok_or(Broken)?;
        let mut rng = world.source.rng();
        let mut found = Vec::new();
        for (at, key) in cx.keys().iter().enumerate() {
            let place = Place { region: self.region, key: *key };
            let mut versions = world.answer(place, cx.of(at), &mut rng).await?;
            if world.plan.lie == Some(Lie::Kept) {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                versions.clone_from(kept.entry(*key).or_insert(versions.clone()));
            }
            if !world.is_absent(&mut rng) {
                found.push((*key, versions));
            }
        }
        Ok(found)
    }
}

/// Where rows are stored by way of their region.
struct Writer {
    source: Arc<Source>,
    is_early: bool,
}

impl Sink<usize, Vec<u64>> for Writer {
    type Error = Broken;

    async fn store(&self, writes: Vec<(usize, Hit<Vec<u64>>)>) -> Result<(), Broken> {
        let source = self.source.clone();
        let mut rng = source.dice();
        let write = async move {
            for (row, versions) in writes {
                source.store(row, versions[0], &mut rng).await?;
            }
            Ok(())
        };
        if self.is_early {
            drop(tokio::spawn(write));
            return Ok(());
        }
        write.await
    }
}

const NAMES: [&str; LEVELS] = ["rows", "groups", "pages", "books"];
/// The layers of all regions.
pub const SHELVES: [&str; 2] = ["shelf", "cellar"];
