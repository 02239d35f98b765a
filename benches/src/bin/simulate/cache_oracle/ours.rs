//! Our cache: a region for each level, made of the one below.

use std::{
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use fastrand::Rng;
use swiftwater_cache::{AnyError, Cache, Change, Dep, Hit, LoadCx, Loaded, Region, Scope, dep};
use swiftwater_core::{Clock, Tunable};
use tokio::{sync::Mutex, task::yield_now};

use crate::cache_oracle::{
    chaos::{Abandon, Answer, Mark, Subject},
    plan::{Lower, Plan, Way},
    source::{Broken, LEVELS, Promise, Question, Source},
};

pub struct Ours(Arc<World>);

struct World {
    plan: Plan,
    source: Arc<Source>,
    cache: Cache,
    regions: [Region<usize, Vec<u64>>; LEVELS],
    fillers: Vec<Dep>,
    noise: Vec<Dep>,
    /// Whether each row is linked; held while somebody relies on it.
    linked: Vec<RwLock<bool>>,
    /// Where one writer at a time changes a row.
    turns: Vec<Mutex<()>>,
}

type Loading<T> = Pin<Box<dyn Future<Output = Result<T, AnyError>> + Send>>;

impl Ours {
    pub fn new(plan: &Plan, source: &Arc<Source>) -> Self {
        let clock = if plan.coarse_clock { Clock::coarse() } else { Clock::system() };
        let cache =
            Cache::builder().clock(clock).version_cells(plan.version_cells).build().expect("it is valid");
        let (fillers, kinds) = plan.fillers;
        let filler = |n: usize| dep!(&format!("filler {}", n % kinds), n);
        let world = World {
            plan: plan.clone(),
            source: source.clone(),
            regions: ["rows", "groups", "pages", "books"].map(|name| region(&cache, name, plan)),
            fillers: (0..fillers).map(filler).collect(),
            noise: (0..NOISES).map(|n| dep!("noise", n)).collect(),
            linked: (0..plan.rows).map(|_| RwLock::new(false)).collect(),
            turns: (0..plan.rows).map(|_| Mutex::default()).collect(),
            cache,
        };
        if plan.links.is_some() {
            (0..plan.rows).for_each(|row| world.relink(row));
            (0..plan.rows).map(table).for_each(|table| world.cache.link(table, base()).expect("no ring"));
        }
        Self(Arc::new(world))
    }
}

fn region(cache: &Cache, name: &'static str, plan: &Plan) -> Region<usize, Vec<u64>> {
    let lives = plan.region;
    let mut builder = cache
        .region(name)
        .memory(lives.memory)
        .ttl(lives.ttl)
        .jitter(lives.jitter)
        .idle(lives.idle)
        .stale_for(lives.stale_for)
        .refresh_after(lives.refresh_after)
        .load_timeout(lives.load_timeout);
    if let Some(ttl) = lives.negative {
        builder = builder.negative(ttl, |versions: &Vec<u64>| versions[0].is_multiple_of(3));
    }
    if let Some((max_stale, throttle)) = lives.fail_safe {
        builder = builder.fail_safe(max_stale, throttle).soft_timeout(lives.soft_timeout);
    }
    if let Some((loads, excess)) = lives.max_loads {
        builder = builder.max_loads(loads, excess);
    }
    builder.build().expect("it is valid")
}

impl Subject for Ours {
    async fn ask(&self, question: Question, rng: &mut Rng) -> Option<Answer> {
        let world = &self.0;
        let (region, key, dice) = (&world.regions[question.level], question.key, rng.u32(..));
        let holding = !world.plan.gentle.hold.is_zero() && !world.source.is_calm();
        // What is stored is what counts there, and nobody else can tell it from what was loaded.
        let often = if holding { 200 } else { 16 };
        if dice & 0xff < often {
            return region.get(&key).map(|hit| answer(&hit, false));
        }
        let refresh = world.plan.refresh && dice & 0x300 == 0;
        let asked = async {
            if refresh {
                region.get_or_refresh(&key, |cx, old| world.clone().refresh(question, cx, old)).await
            } else {
                region.get_or_load(&key, |cx| world.clone().load(question, cx)).await
            }
        };
        let hit = if world.plan.leaving && dice >> 24 < 32 {
            Abandon::after((dice >> 16) & 3, asked).await?
        } else {
            asked.await
        };
        hit.ok().map(|hit| answer(&hit, holding))
    }

    async fn change(&self, row: usize, rng: &mut Rng) -> Option<Promise> {
        let world = &self.0;
        let _turn = if world.plan.serial { Some(world.turns[row].lock().await) } else { None };
        let way = world.plan.ways[rng.usize(..world.plan.ways.len())];
        if way == Way::Table || way == Way::Base {
            return Some(world.change_above(way, row));
        }
        let Some(what) = world.target(way, row) else {
            let version = world.source.write(row);
            match way {
                Way::Insert => {
                    world.regions[0].insert_with(row, vec![version], |entry| world.declare(entry, row, false))
                }
                _ => _ = world.regions[0].invalidate(&row),
            }
            return Some(Promise::strict(version));
        };
        if world.plan.writing && rng.bool() {
            return world.write(row, what, rng).await;
        }
        let version = world.source.write(row);
        if !world.plan.gentle.is_any() {
            world.cache.invalidate(what);
            return Some(Promise::strict(version));
        }
        Some(world.relax(version, what, rng))
    }

    async fn disturb(&self, rng: &mut Rng) {
        let world = &self.0;
        let Plan { noise, operators, links, .. } = &world.plan;
        if *noise {
            let noise = Change::from(world.noise[rng.usize(..NOISES)]);
            let window = std::time::Duration::from_micros(rng.u64(1..20_000));
            world.cache.invalidate(match rng.u8(..8) {
                0..3 => noise.soft(),
                3..5 => noise.gradual(window),
                5..7 => noise.gradual(window).soft(),
                _ => noise.hold_off(window / 16),
            });
        }
        if *operators {
            let region = &world.regions[rng.usize(..LEVELS)];
            match rng.u8(..16) {
                0 => region.set_enabled(false),
                1..8 => world.regions.iter().for_each(|region| region.set_enabled(true)),
                8..12 => {
                    region.knobs(&mut |knob| _ = knob.set(rng.u32(1..=12).into()).expect("within its bounds"))
                }
                // Of the lowest level it would be what is promised elsewhere.
                _ => _ = world.regions[rng.usize(1..LEVELS)].invalidate(&rng.usize(..world.plan.rows)),
            }
        }
        if links.is_some() {
            world.relink(rng.usize(..world.plan.rows));
        }
    }
}

impl World {
    /// What the way invalidates; `None` if there is another call for that.
    fn target(&self, way: Way, row: usize) -> Option<Dep> {
        match way {
            Way::Dep => Some(dep!("row", row)),
            Way::Everything => Some(Dep::everything()),
            Way::Base | Way::Insert | Way::Key | Way::Table => None,
            Way::KeyName => Some(self.regions[0].dep(&row)),
            Way::Whole => Some(self.regions[0].whole()),
        }
    }

    /// Invalidates what the row lies under, if it does, and else the row.
    fn change_above(&self, way: Way, row: usize) -> Promise {
        let linked = self.linked[row].read().unwrap_or_else(PoisonError::into_inner);
        let version = self.source.write(row);
        self.cache.invalidate(match way {
            _ if !*linked => dep!("row", row),
            Way::Table => table(row),
            _ => base(),
        });
        Promise::strict(version)
    }

    /// The row is changed in the midst of a write that may not come to its end.
    async fn write(&self, row: usize, what: Dep, rng: &mut Rng) -> Option<Promise> {
        let version = Arc::new(AtomicU64::new(0));
        let (before, after, end) = (rng.u32(..3), rng.u32(..3), rng.u8(..4));
        let write = {
            let (source, version) = (self.source.clone(), version.clone());
            async move {
                for _ in 0..before {
                    yield_now().await;
                }
                version.store(source.write(row), Relaxed);
                for _ in 0..after {
                    yield_now().await;
                }
                match end {
                    0 => Err(Broken),
                    1 => resume_unwind(Box::new(Broken)), // without the hook, which would print
                    _ => Ok(()),
                }
            }
        };
        let writing = self.cache.writing([what], write);
        match end {
            // In a task, which ends after what it ran was dropped.
            1 => assert!(tokio::spawn(writing).await.is_err_and(|error| error.is_panic())),
            2 => _ = Abandon::after(rng.u32(..5), writing).await,
            _ => assert_eq!(writing.await.is_err(), end == 0),
        }
        let version = version.load(Relaxed);
        (version > 0).then(|| Promise::strict(version))
    }

    fn relax(&self, version: u64, what: Dep, rng: &mut Rng) -> Promise {
        let gentle = self.plan.gentle;
        let mut change = Change::from(what);
        if !gentle.hold.is_zero() {
            change = change.hold_off(gentle.hold);
        }
        // Some of them are strict, and must not be undone by the others.
        let soft = gentle.soft && rng.u8(..) < 160;
        if soft {
            change = change.soft();
        }
        let window = (!gentle.window.is_zero() && rng.u8(..) < 160).then_some(gentle.window);
        if let Some(window) = window {
            change = change.gradual(window);
        }
        self.cache.invalidate(change);
        Promise { version, soft, from: window.map(|window| Instant::now() + window) }
    }

    /// Takes the row's link away, or makes it.
    fn relink(&self, row: usize) {
        let Some(lower) = self.plan.links else { return };
        let mut linked = self.linked[row].write().unwrap_or_else(PoisonError::into_inner);
        let lower = match lower {
            Lower::Key => self.regions[0].dep(&row),
            Lower::Name => dep!("row", row),
        };
        if *linked {
            assert!(self.cache.unlink(lower, table(row)), "it was linked");
        } else {
            self.cache.link(lower, table(row)).expect("no ring");
        }
        *linked = !*linked;
    }

    /// Says that something is made of the row; `elsewhere`, if it is not the row's own entry.
    fn declare(&self, scope: &Scope, row: usize, elsewhere: bool) {
        scope.depends_on(dep!("row", row));
        if elsewhere && self.plan.ways.len() > 1 {
            scope.depends_on(self.regions[0].dep(&row));
            scope.depends_on(self.regions[0].whole());
        }
    }

    fn load(self: Arc<Self>, question: Question, cx: LoadCx<usize>) -> Loading<Vec<u64>> {
        Box::pin(async move {
            let mut rng = self.source.rng();
            self.declare_more(&cx, &mut rng);
            if question.level == 0 {
                return self.read(question, &cx, false, &mut rng).await;
            }
            let mut versions = Vec::new();
            for part in question.parts(self.plan.rows) {
                versions.extend(self.part(part, &cx, &mut rng).await?);
            }
            Ok(versions)
        })
    }

    /// In one way or another.
    async fn part(self: &Arc<Self>, part: Question, cx: &Scope, rng: &mut Rng) -> Result<Vec<u64>, AnyError> {
        let region = &self.regions[part.level];
        let load = move |world: Arc<Self>| move |cx| world.load(part, cx);
        match rng.u8(..16) {
            0 => self.read(part, cx, true, rng).await,
            1 => match region.get(&part.key) {
                Some(hit) => Ok(hit.to_vec()),
                None => self.read(part, cx, true, rng).await,
            },
            // Whatever failed: another way.
            2 => match region.get_or_load(&part.key, load(self.clone())).await {
                Ok(hit) => Ok(hit.to_vec()),
                Err(_) => self.read(part, cx, true, rng).await,
            },
            3 => {
                let (world, scope) = (self.clone(), cx.clone());
                let task = async move {
                    let region = world.regions[part.level].within(&scope);
                    region.get_or_load(&part.key, load(world.clone())).await.map(|hit| hit.to_vec())
                };
                Ok(tokio::spawn(task).await.map_err(|_| Broken)??)
            }
            4 if self.plan.refresh => {
                let refresh = |cx, old| self.clone().refresh(part, cx, old);
                Ok(region.get_or_refresh(&part.key, refresh).await?.to_vec())
            }
            _ => Ok(region.get_or_load(&part.key, load(self.clone())).await?.to_vec()),
        }
    }

    /// Keeps what there is, if the source says that nothing has changed.
    fn refresh(
        self: Arc<Self>,
        question: Question,
        cx: LoadCx<usize>,
        old: Option<Hit<Vec<u64>>>,
    ) -> Loading<Loaded<Vec<u64>>> {
        Box::pin(async move {
            let Some(old) = old else { return self.load(question, cx).await.map(Loaded::New) };
            let mut rng = self.source.rng();
            self.declare_more(&cx, &mut rng);
            let versions = self.read(question, &cx, question.level > 0, &mut rng).await?;
            Ok(if versions == *old { Loaded::Kept(old) } else { Loaded::New(versions) })
        })
    }

    /// From the source, all of it; `elsewhere`, if it is not for a row's own entry.
    async fn read(
        &self,
        question: Question,
        cx: &Scope,
        elsewhere: bool,
        rng: &mut Rng,
    ) -> Result<Vec<u64>, AnyError> {
        let mut versions = Vec::new();
        for row in question.rows(self.plan.rows) {
            let first = rng.bool();
            if first {
                self.declare(cx, row, elsewhere);
            }
            versions.push(self.source.read(row, rng).await?);
            if !first {
                self.declare(cx, row, elsewhere);
            }
        }
        Ok(versions)
    }

    fn declare_more(&self, scope: &Scope, rng: &mut Rng) {
        self.fillers.iter().for_each(|filler| scope.depends_on(*filler));
        if self.plan.noise {
            scope.depends_on(self.noise[rng.usize(..NOISES)]);
        }
    }
}

fn answer(hit: &Hit<Vec<u64>>, exempt: bool) -> Answer {
    Answer::new(
        hit,
        match () {
            () if exempt => Mark::Exempt,
            () if hit.is_stale() => Mark::Stale,
            () => Mark::Fresh,
        },
    )
}

fn table(row: usize) -> Dep {
    dep!("table", row / 2)
}

fn base() -> Dep {
    dep!("base")
}

const NOISES: usize = 4;
