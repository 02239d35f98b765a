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
use swiftwater_cache::{
    AnyError, Cache, Change, Dep, Hit, LoadCx, Loaded, Parameter, Region, Scope, Skip, dep,
};
use swiftwater_core::{Clock, Tunable};
use tokio::{sync::Mutex, task::yield_now};

use crate::cache_oracle::{
    chaos::{Abandon, Answer, Mark, Subject},
    plan::{Lower, Plan, Way},
    regions::{SHELVES, regions},
    source::{Broken, LEVELS, Promise, Question, Source},
};

pub struct Ours(Arc<World>);

pub struct World {
    pub plan: Plan,
    pub source: Arc<Source>,
    cache: Cache,
    regions: [Region<usize, Vec<u64>>; LEVELS],
    fillers: Vec<Dep>,
    noise: Vec<Dep>,
    /// Whether each row is linked; held while somebody relies on it.
    linked: Vec<RwLock<bool>>,
    /// One for each row, or none.
    parameters: Vec<Parameter<u64>>,
    /// Where one writer at a time changes a row.
    turns: Vec<Mutex<()>>,
}

/// A key of a region. Beyond the rows it stands for a question of any level, under another name.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub region: usize,
    pub key: usize,
}

impl From<Question> for Place {
    fn from(question: Question) -> Self {
        Self { region: question.level, key: question.key }
    }
}

type Loading<T> = Pin<Box<dyn Future<Output = Result<T, AnyError>> + Send>>;

impl Ours {
    pub fn new(plan: &Plan, source: &Arc<Source>) -> Self {
        let clock = if plan.coarse_clock { Clock::coarse() } else { Clock::system() };
        let cache =
            Cache::builder().clock(clock).version_cells(plan.version_cells).build().expect("it is valid");
        let (fillers, kinds) = plan.fillers;
        let filler = |n: usize| dep!(&format!("filler {}", n % kinds), n);
        let parameters = if plan.parameters { plan.rows } else { 0 };
        let parameter = |row| cache.parameter(&format!("parameter {row}"), 0);
        let world = Arc::new_cyclic(|world| World {
            plan: plan.clone(),
            source: source.clone(),
            regions: regions(&cache, plan, source, world),
            parameters: (0..parameters).map(parameter).collect(),
            fillers: (0..fillers).map(filler).collect(),
            noise: (0..NOISES).map(|n| dep!("noise", n)).collect(),
            linked: (0..plan.rows).map(|_| RwLock::new(false)).collect(),
            turns: (0..plan.rows).map(|_| Mutex::default()).collect(),
            cache: cache.clone(),
        });
        if plan.links.is_some() {
            (0..plan.rows).for_each(|row| world.relink(row));
            (0..plan.rows).map(table).for_each(|table| world.cache.link(table, base()).expect("no ring"));
        }
        Self(world)
    }
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
        if dice & 0xf00 == 0 && question.level == 0 && world.plan.is_behind() {
            return world.flushed(key).await;
        }
        let asked = world.call(question.into(), rng);
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
        match way {
            Way::Store => return world.store(row, rng).await,
            Way::Parameter => return Some(world.set(row, rng).await),
            _ if world.plan.is_behind() => {
                let promise = world.store(row, rng).await;
                match world.target(way, row) {
                    Some(what) => _ = world.cache.invalidate(what),
                    None => _ = world.regions[0].invalidate(&row),
                }
                return promise;
            }
            Way::Base | Way::Table => return Some(world.change_above(way, row)),
            _ => {}
        }
        let Some(what) = world.target(way, row) else {
            let version = world.source.write(row);
            match way {
                Way::Insert => {
                    world.regions[0].insert_with(row, vec![version], |entry| world.declare_made(entry, row))
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
        match rng.u8(..16) {
            0..4 if world.plan.fetches => world.warm(rng).await,
            4..6 if world.plan.is_behind() => drop(world.regions[0].flush().await),
            6 if world.plan.region.review.is_some() => {
                _ = world.regions[rng.usize(..LEVELS)].usage(8);
                world.cache.sweep(SWEPT).await;
            }
            _ => {}
        }
    }
}

impl World {
    /// What the way invalidates; `None` if there is another call for that.
    fn target(&self, way: Way, row: usize) -> Option<Dep> {
        match way {
            Way::Dep => Some(dep!("row", row)),
            Way::Everything => Some(Dep::everything()),
            Way::Base | Way::Insert | Way::Key | Way::Parameter | Way::Store | Way::Table => None,
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

    /// By way of the region. What is promised also holds if it fails or is dropped, as far as that can be told.
    async fn store(&self, row: usize, rng: &mut Rng) -> Option<Promise> {
        let version = self.source.draw(row);
        let store = self.regions[0].store_with(row, vec![version], |entry| self.declare_made(entry, row));
        let stored = if self.plan.leaving && rng.u8(..4) == 0 {
            Abandon::after(rng.u32(..5), store).await
        } else {
            Some(store.await)
        };
        let is_stored = stored.is_some_and(|stored| stored.is_ok());
        // One at a time: nobody else can have written that, and the key has been invalidated since.
        let has_arrived = self.plan.serial && self.source.version(row) >= version;
        (is_stored || has_arrived).then(|| Promise::strict(version))
    }

    /// Sets the row's parameter, perhaps twice at a time, and whoever is through first promises.
    async fn set(&self, row: usize, rng: &mut Rng) -> Promise {
        let (version, parameter) = (self.source.draw(row), self.parameters[row].clone());
        let promise = Promise::strict(version);
        let other = {
            let parameter = parameter.clone();
            rng.bool().then(|| tokio::spawn(async move { parameter.set(version) }))
        };
        yield_now().await;
        let first = parameter.set(version);
        self.source.promise(row, promise);
        // Not to set it once more after the next writer has.
        let second = match other {
            Some(other) => other.await.expect("it does not panic"),
            None => false,
        };
        assert!(first != second, "it was another value once");
        promise
    }

    /// What the source has, once everything that is pending has been sent there.
    async fn flushed(&self, row: usize) -> Option<Answer> {
        self.regions[0].flush().await.ok()?;
        let version = self.source.version(row);
        let set = self.parameters.get(row).map_or(0, Parameter::get);
        Some(Answer::new(&[version.max(set)], Mark::Fresh))
    }

    async fn warm(&self, rng: &mut Rng) {
        let region = &self.regions[rng.usize(..LEVELS)];
        let (first, count) = (rng.usize(..self.plan.rows), rng.usize(1..=16));
        let keys = (first..self.plan.rows).take(count);
        let mut warm = region.warm(keys).batch(rng.usize(1..=8)).concurrency(rng.usize(1..=2));
        if rng.u8(..4) == 0 {
            warm = warm.from_layers();
        }
        warm.await.expect("there are a source and a runtime");
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

    /// The same for a value that a writer has made.
    fn declare_made(&self, entry: &Scope, row: usize) {
        self.declare(entry, row, false);
        self.parameters.get(row).into_iter().for_each(|parameter| entry.depends_on(parameter.dep()));
    }

    pub fn load(self: Arc<Self>, place: Place, cx: LoadCx<usize>) -> Loading<Vec<u64>> {
        Box::pin(async move {
            let mut rng = self.source.rng();
            self.answer(place, &cx, &mut rng).await
        })
    }

    /// Whether the source has nothing of what it is asked for.
    pub fn is_absent(&self, rng: &mut Rng) -> bool {
        rng.u8(..) < self.plan.weather.failing && !self.source.is_calm()
    }

    /// What a place stands for, and whether that is the question of its own.
    fn question(&self, place: Place) -> (Question, bool) {
        let Place { region, key } = place;
        match key / self.plan.rows {
            0 => (Question { level: region, key }, true),
            other => (Question { level: other - 1, key: key % self.plan.rows }, false),
        }
    }

    /// What a loader gives.
    pub async fn answer(
        self: &Arc<Self>,
        place: Place,
        cx: &Scope,
        rng: &mut Rng,
    ) -> Result<Vec<u64>, AnyError> {
        self.declare_more(cx, rng);
        let (question, own) = self.question(place);
        let Question { level, key } = question;
        // What is pending behind a row's other names have from the row itself.
        if own && self.plan.nested && rng.u8(..4) == 0 && (level > 0 || !self.plan.is_behind()) {
            let other = Place { region: rng.usize(..LEVELS), key: key + (level + 1) * self.plan.rows };
            return Ok(self.call(other, rng).await?.to_vec());
        }
        if level == 0 {
            return self.read(question, cx, !own, rng).await;
        }
        let mut versions = Vec::new();
        for part in question.parts(self.plan.rows) {
            versions.extend(self.part(part, cx, rng).await?);
        }
        Ok(versions)
    }

    /// In one way or another.
    async fn part(self: &Arc<Self>, part: Question, cx: &Scope, rng: &mut Rng) -> Result<Vec<u64>, AnyError> {
        match rng.u8(..16) {
            0 => self.read(part, cx, true, rng).await,
            1 => match self.regions[part.level].get(&part.key) {
                Some(hit) => Ok(hit.to_vec()),
                None => self.read(part, cx, true, rng).await,
            },
            // Whatever failed: another way.
            2 => match self.call(part.into(), rng).await {
                Ok(hit) => Ok(hit.to_vec()),
                Err(_) => self.read(part, cx, true, rng).await,
            },
            3 => {
                let (world, scope) = (self.clone(), cx.clone());
                let fetches = self.plan.fetches && rng.bool();
                let task = async move {
                    let region = world.regions[part.level].within(&scope);
                    let got = if fetches {
                        region.fetch(&part.key).await?.ok_or(Broken)?
                    } else {
                        region.get_or_load(&part.key, |cx| world.clone().load(part.into(), cx)).await?
                    };
                    Ok::<_, AnyError>(got.to_vec())
                };
                tokio::spawn(task).await.map_err(|_| Broken)?
            }
            _ => Ok(self.call(part.into(), rng).await?.to_vec()),
        }
    }

    /// A loading call of one kind or another.
    async fn call(self: &Arc<Self>, place: Place, rng: &mut Rng) -> Result<Hit<Vec<u64>>, AnyError> {
        let (region, key) = (&self.regions[place.region], place.key);
        let load = |cx| self.clone().load(place, cx);
        let Plan { fetches, refresh, skips, .. } = self.plan;
        Ok(match rng.u8(..8) {
            0 | 1 if refresh => {
                region.get_or_refresh(&key, |cx, old| self.clone().refresh(place, cx, old)).await?
            }
            2 if skips && fetches => region.skipping(skip(rng)).fetch(&key).await?.ok_or(Broken)?,
            2 | 3 if skips => region.skipping(skip(rng)).get_or_load(&key, load).await?,
            4 if fetches => self.fetch_many(place, rng).await?,
            5 | 6 if fetches => region.fetch(&key).await?.ok_or(Broken)?,
            _ => region.get_or_load(&key, load).await?,
        })
    }

    /// With others, of which the same may be one.
    async fn fetch_many(&self, place: Place, rng: &mut Rng) -> Result<Hit<Vec<u64>>, AnyError> {
        let mut keys = vec![place.key];
        if place.key < self.plan.rows {
            keys.extend((0..rng.usize(..4)).map(|_| rng.usize(..self.plan.rows)));
        }
        let at = rng.usize(..keys.len());
        keys.swap(0, at);
        let found = self.regions[place.region].fetch_many(&keys).await?;
        Ok(found.into_iter().nth(at).flatten().ok_or(Broken)?)
    }

    /// Keeps what there is, if the source says that nothing has changed.
    fn refresh(
        self: Arc<Self>,
        place: Place,
        cx: LoadCx<usize>,
        old: Option<Hit<Vec<u64>>>,
    ) -> Loading<Loaded<Vec<u64>>> {
        Box::pin(async move {
            let Some(old) = old else { return self.load(place, cx).await.map(Loaded::New) };
            let mut rng = self.source.rng();
            self.declare_more(&cx, &mut rng);
            let (question, own) = self.question(place);
            let versions = self.read(question, &cx, !own || question.level > 0, &mut rng).await?;
            Ok(if versions == *old { Loaded::Kept(old) } else { Loaded::New(versions) })
        })
    }

    /// From the source, all of it; `elsewhere`, if it is not for a row's own entry.
    async fn read(
        self: &Arc<Self>,
        question: Question,
        cx: &Scope,
        elsewhere: bool,
        rng: &mut Rng,
    ) -> Result<Vec<u64>, AnyError> {
        let mut versions = Vec::new();
        for row in question.rows(self.plan.rows) {
            // What is pending behind only the region knows of.
            if elsewhere && self.plan.is_behind() {
                let hit = self.call(Place { region: 0, key: row }, rng).await?;
                versions.extend_from_slice(&hit);
                continue;
            }
            let first = rng.bool();
            if first {
                self.declare(cx, row, elsewhere);
            }
            versions.push(self.version(row, cx, rng).await?);
            if !first {
                self.declare(cx, row, elsewhere);
            }
        }
        Ok(versions)
    }

    /// What the source says or the row's parameter, whichever is later.
    async fn version(&self, row: usize, cx: &Scope, rng: &mut Rng) -> Result<u64, AnyError> {
        let Some(parameter) = self.parameters.get(row) else { return Ok(self.source.read(row, rng).await?) };
        let early = rng.bool().then(|| parameter.get());
        let version = self.source.read(row, rng).await?;
        if let Some(set) = early {
            return Ok(version.max(set));
        }
        let (parameter, scope) = (parameter.clone(), cx.clone());
        let set = tokio::spawn(async move { parameter.get_within(&scope) }).await.map_err(|_| Broken)?;
        Ok(version.max(set))
    }

    fn declare_more(&self, scope: &Scope, rng: &mut Rng) {
        self.fillers.iter().for_each(|filler| scope.depends_on(*filler));
        if self.plan.noise {
            scope.depends_on(self.noise[rng.usize(..NOISES)]);
        }
    }
}

fn skip(rng: &mut Rng) -> Skip {
    let skip = if rng.bool() { Skip::new().memory() } else { Skip::new() };
    match rng.u8(..4) {
        0 => skip.layers(),
        1 => skip.layer(SHELVES[0]),
        _ => skip,
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
/// Entries a second, so that a sweep ends before the history does.
const SWEPT: u32 = 1 << 20;
