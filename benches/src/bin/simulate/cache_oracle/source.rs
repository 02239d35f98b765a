//! What is cached: rows that are counters, and questions that are made of many of them.
//!
//! A row's *truth* is a version that writers raise. Its *floors* are the oldest versions that a reader may still be given;
//! writers raise those only after they have invalidated, and readers note them before they ask.

use std::{
    collections::VecDeque,
    error::Error,
    fmt,
    panic::resume_unwind,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{task::yield_now, time::sleep};

pub const LEVELS: usize = 4;
/// The most versions that an answer has.
pub const WIDEST: usize = 16;
/// The rows of a question, counted from its key. A question is made of two of the level below, from the third level on:
/// they overlap, so that a row is reached in several ways.
const ROWS: [&[usize]; LEVELS] =
    [&[0], &[0, 1, 2, 3], &[0, 1, 2, 3, 2, 3, 4, 5], &[0, 1, 2, 3, 2, 3, 4, 5, 1, 2, 3, 4, 3, 4, 5, 6]];
/// The questions of the level below that a question is made of, counted from its key, and so many versions each has.
const PARTS: [&[usize]; LEVELS] = [&[], &[0, 1, 2, 3], &[0, 2], &[0, 1]];

/// What a reader asks, and a cache has as a key: of the lowest level, one row; of higher ones, many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    pub level: usize,
    pub key: usize,
}

impl Question {
    /// Of so many levels and rows; often a large one.
    pub fn draw(rng: &mut Rng, levels: usize, rows: usize) -> Self {
        Self { level: [0, 1, 2, 2, 3, 3, 3, 3][rng.usize(..8)] % levels, key: rng.usize(..rows) }
    }

    pub fn all(levels: usize, rows: usize) -> impl Iterator<Item = Self> {
        (0..levels).flat_map(move |level| (0..rows).map(move |key| Self { level, key }))
    }

    /// The rows that it is made of, of so many, in the order of the answer.
    pub fn rows(self, rows: usize) -> impl Iterator<Item = usize> {
        ROWS[self.level].iter().map(move |row| (self.key + row) % rows)
    }

    /// What it is made of on the level below, in the order of the answer.
    pub fn parts(self, rows: usize) -> impl Iterator<Item = Self> {
        let part = move |part: &usize| Self { level: self.level - 1, key: (self.key + part) % rows };
        PARTS[self.level].iter().map(part)
    }
}

pub struct Source {
    rows: Box<[Row]>,
    weather: Weather,
    /// No more bad weather: the end of a history.
    calm: AtomicBool,
    /// Loaders that were called.
    loads: AtomicU64,
    seeds: AtomicU64,
}

/// How loads fare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Out of 256 reads of a row so many fail, panic, and take milliseconds.
    pub failing: u8,
    pub panicking: u8,
    pub slow: u8,
    /// How far behind the truth an answer may be.
    pub lag: Duration,
}

/// On lines of its own, so that rows do not order each other's accesses more than they must.
#[repr(align(128))]
#[derive(Default)]
struct Row {
    /// The latest version that there is, written or on its way.
    drawn: AtomicU64,
    truth: AtomicU64,
    floor: AtomicU64,
    /// For answers that are not marked as stale: at least `floor`.
    fresh_floor: AtomicU64,
    late: Mutex<Late>,
}

/// What takes time to become true.
#[derive(Default)]
struct Late {
    /// Versions by when they were written, where answers lag.
    written: VecDeque<(Instant, u64)>,
    /// Floors by when they hold.
    promises: Vec<(Instant, Promise)>,
}

/// What a cache has promised by ending an invalidation: nobody who asks from now on gets an older version.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    pub version: u64,
    /// Unless it is marked as stale.
    pub soft: bool,
    /// Not from now on but from then on.
    pub from: Option<Instant>,
}

impl Promise {
    pub fn strict(version: u64) -> Self {
        Self { version, soft: false, from: None }
    }
}

/// The floors of what a question is made of.
pub struct Floors {
    pub any: [u64; WIDEST],
    pub fresh: [u64; WIDEST],
}

impl Source {
    pub fn new(rows: usize, weather: Weather, seed: u64) -> Self {
        Self {
            rows: (0..rows).map(|_| Row::default()).collect(),
            weather,
            calm: AtomicBool::new(false),
            loads: AtomicU64::new(0),
            seeds: AtomicU64::new(seed << 32),
        }
    }

    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// A new version of the row is true. What comes of it afterwards is for the cache to say.
    pub fn write(&self, row: usize) -> u64 {
        // Relaxed, and so is reading it: that a load sees what was written before an invalidation is what the cache
        // has to bring about, and nothing here may do it in its place.
        let version = self.draw(row);
        self.rows[row].truth.fetch_max(version, Relaxed);
        if !self.weather.lag.is_zero() {
            self.rows[row].late().written.push_back((Instant::now(), version));
        }
        version
    }

    /// A new version, which nobody has written yet.
    pub fn draw(&self, row: usize) -> u64 {
        self.rows[row].drawn.fetch_add(1, Relaxed) + 1
    }

    /// Writes a version that was [drawn](Self::draw), unless a later one is there: then that was the later write. After some
    /// waiting, and if the weather is fair; if it is not, it may have been written all the same.
    pub async fn store(&self, row: usize, version: u64, rng: &mut Rng) -> Result<(), Broken> {
        let chance = rng.u32(..);
        for _ in 0..chance & 3 {
            yield_now().await;
        }
        if chance & 4 == 0 {
            self.suffer(chance, rng).await?;
        }
        let unless_later = |truth| (truth <= version).then_some(version);
        let stored = self.rows[row].truth.fetch_update(Relaxed, Relaxed, unless_later);
        // The answer is on its way.
        for _ in 0..(chance >> 3) & 3 {
            yield_now().await;
        }
        if chance & 4 != 0 {
            self.suffer(chance, rng).await?;
        }
        stored.map(drop).map_err(|_| Broken)
    }

    /// What has been written, whatever the weather.
    pub fn version(&self, row: usize) -> u64 {
        self.rows[row].truth.load(Relaxed)
    }

    /// The row's version, after some waiting or none, if the weather is fair.
    pub async fn read(&self, row: usize, rng: &mut Rng) -> Result<u64, Broken> {
        let chance = rng.u32(..);
        if chance & 1 == 0 {
            yield_now().await;
        }
        let version = if self.weather.lag.is_zero() {
            self.rows[row].truth.load(Relaxed)
        } else {
            self.lagging(row, rng)
        };
        // The answer is on its way.
        for _ in 0..(chance >> 1) & 3 {
            yield_now().await;
        }
        self.suffer(chance, rng).await?;
        Ok(version)
    }

    /// Bad weather, by chance.
    async fn suffer(&self, chance: u32, rng: &mut Rng) -> Result<(), Broken> {
        let Weather { failing, panicking, slow, .. } = self.weather;
        let calm = self.calm.load(Relaxed);
        if !calm && chance >> 24 < slow.into() {
            sleep(Duration::from_micros(rng.u64(..4_000))).await;
        }
        if !calm && (chance >> 8) & 0xff < failing.into() {
            return Err(Broken);
        }
        if !calm && (chance >> 16) & 0xff < panicking.into() {
            resume_unwind(Box::new(Broken)); // it bypasses the hook, which would print
        }
        Ok(())
    }

    fn lagging(&self, row: usize, rng: &mut Rng) -> u64 {
        let (now, lag) = (Instant::now(), self.weather.lag);
        let mut late = self.rows[row].late();
        let back = lag.mul_f64(rng.f64());
        let known = |at: Instant| at + back <= now;
        let version = late.written.iter().filter(|(at, _)| known(*at)).map(|(_, version)| *version).max();
        // Everybody knows the second one, so the first will never be asked for.
        while late.written.get(1).is_some_and(|(at, _)| *at + lag < now) {
            let oldest = late.written.pop_front();
            if let (Some((_, version)), Some(next)) = (oldest, late.written.front_mut()) {
                next.1 = next.1.max(version);
            }
        }
        version.unwrap_or(0)
    }

    /// From now on, or from when the promise says, readers insist on it.
    pub fn promise(&self, row: usize, promise: Promise) {
        let row = &self.rows[row];
        match promise.from {
            Some(from) => row.late().promises.push((from, promise)),
            None => row.raise(promise),
        }
    }

    /// Before something is asked. `late`: some promises hold only from a later time on.
    pub fn floors(&self, question: Question, late: bool) -> Floors {
        let mut floors = Floors { any: [0; WIDEST], fresh: [0; WIDEST] };
        let now = late.then(Instant::now);
        for (place, row) in question.rows(self.rows.len()).enumerate() {
            let row = &self.rows[row];
            if let Some(now) = now {
                row.ripen(now);
            }
            // Acquire: whoever knows of the floor knows of the invalidation, as somebody who was told that it has ended.
            floors.any[place] = row.floor.load(Acquire);
            floors.fresh[place] = row.fresh_floor.load(Acquire);
        }
        floors
    }

    /// For a loader, which starts.
    pub fn rng(&self) -> Rng {
        self.count_load();
        self.dice()
    }

    /// For whoever is called by the cache and loads nothing.
    pub fn dice(&self) -> Rng {
        Rng::with_seed(self.seeds.fetch_add(1, Relaxed))
    }

    pub fn count_load(&self) {
        self.loads.fetch_add(1, Relaxed);
    }

    pub fn loads(&self) -> u64 {
        self.loads.load(Relaxed)
    }

    pub fn calm_down(&self) {
        self.calm.store(true, Relaxed);
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Relaxed)
    }
}

impl Row {
    fn raise(&self, promise: Promise) {
        // Release: see `Source::floors`.
        if !promise.soft {
            self.floor.fetch_max(promise.version, Release);
        }
        self.fresh_floor.fetch_max(promise.version, Release);
    }

    fn ripen(&self, now: Instant) {
        self.late().promises.retain(|(from, promise)| {
            let waits = now < *from;
            if !waits {
                self.raise(*promise);
            }
            waits
        });
    }

    fn late(&self) -> std::sync::MutexGuard<'_, Late> {
        // Nothing in here panics half-way.
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the source, or a loader, fails with, and panics with.
#[derive(Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the source is broken")
    }
}

impl Error for Broken {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_the_parts_are_those_of_the_question() {
        for rows in [4, 8, 100] {
            for question in Question::all(LEVELS, rows).filter(|question| question.level > 0) {
                let parts: Vec<_> = question.parts(rows).flat_map(|part| part.rows(rows)).collect();
                assert_eq!(parts, question.rows(rows).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_store_does_not_undo_a_later_write() {
        let source = Source::new(4, Weather::default(), 0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut rng = Rng::with_seed(0);
            let early = source.draw(1);
            assert!(source.store(1, early, &mut rng).await.is_ok());
            assert!(source.store(1, early, &mut rng).await.is_ok(), "once more is as if it were once");
            let late = source.write(1);
            assert!(source.store(1, early, &mut rng).await.is_err());
            assert_eq!(source.version(1), late);
            assert_eq!(source.read(1, &mut rng).await.ok(), Some(late));
        });
    }

    #[test]
    fn a_promise_holds_from_its_time_on() {
        let source = Source::new(4, Weather::default(), 0);
        let now = Instant::now();
        let question = Question { level: 0, key: 1 };
        let later = Promise { from: Some(now + Duration::from_secs(600)), ..Promise::strict(2) };
        source.promise(1, Promise { soft: true, ..Promise::strict(1) });
        source.promise(1, later);
        let floors = source.floors(question, true);
        assert_eq!((floors.any[0], floors.fresh[0]), (0, 1));
        source.promise(1, Promise { from: Some(now), ..later });
        let floors = source.floors(question, true);
        assert_eq!((floors.any[0], floors.fresh[0]), (2, 2));
    }
}
