//! Which features of our cache take part in a history, and with what figures: drawn from its seed.

use std::time::Duration;

use fastrand::Rng;
use swiftwater_cache::{Excess, Fill, MAX_EDGES};

use crate::cache_oracle::source::{LEVELS, Weather};

#[derive(Clone, Debug)]
pub struct Plan {
    pub rows: usize,
    pub writers: usize,
    /// After how many of 256 changes a writer rests for a millisecond, so that everything is stored for once.
    pub rests: u8,
    pub weather: Weather,
    /// The clock that lags, where time decides nothing that is promised.
    pub coarse_clock: bool,
    pub version_cells: usize,
    /// How writers invalidate.
    pub ways: Vec<Way>,
    /// Rows lie under tables, and tables under one base; the links of rows come and go.
    pub links: Option<Lower>,
    /// One writer at a time changes a row.
    pub serial: bool,
    /// Some writes are made within `Cache::writing`, and some of those fail, panic or are dropped.
    pub writing: bool,
    /// Dependencies that a loader declares besides those that matter: so many, of so many kinds.
    pub fillers: (usize, usize),
    /// Entries depend on things that are invalidated gently all the time, and that change no row.
    pub noise: bool,
    /// Callers leave.
    pub leaving: bool,
    /// Loaders are handed what there is, and keep it if the source says that it is still right.
    pub refresh: bool,
    /// Regions are switched off and on, capacities and numbers of loads turned, derived keys invalidated.
    pub operators: bool,
    /// Regions have a source of their own, which is asked in several ways, and in good time.
    pub fetches: bool,
    /// Rows are stored by way of their region.
    pub stores: Option<Stores>,
    /// Each row has a parameter, and is what that or the source says, whichever is later.
    pub parameters: bool,
    /// Some calls skip memory, or layers.
    pub skips: bool,
    /// When regions fill the layers that they have.
    pub layers: Option<Fill>,
    /// Regions keep what they have in moka.
    pub moka: bool,
    /// Some questions are answered by asking the same under another key, in any region.
    pub nested: bool,
    /// What is given to our cache does not keep to its laws, so that it has to be caught.
    pub lie: Option<Lie>,
    pub gentle: Gentle,
    /// How many levels of questions are asked.
    pub levels: usize,
    pub region: Lives,
}

/// The name that is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    Key,
    Name,
}

/// What a writer invalidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Base,
    Dep,
    Everything,
    /// Nothing: it inserts the new version.
    Insert,
    Key,
    KeyName,
    /// Nothing: it sets the row's parameter to the new version.
    Parameter,
    /// Nothing: it stores the new version by way of the region.
    Store,
    Table,
    Whole,
}

/// How the region of the rows writes.
#[derive(Clone, Copy, Debug)]
pub enum Stores {
    Around,
    Behind { max_pending: usize, max_batch: usize, delay: Duration },
    Through,
}

/// A law that is broken by what the cache was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The sink says that it has written what it has not.
    Early,
    /// The source answers for many keys what it has answered before.
    Kept,
}

/// How strictly the rows themselves are invalidated, all in turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gentle {
    pub soft: bool,
    pub window: Duration,
    /// Answers of the source may be that old, and nothing is stored for so long.
    pub hold: Duration,
}

impl Gentle {
    pub fn is_any(&self) -> bool {
        self.soft || !self.window.is_zero() || !self.hold.is_zero()
    }
}

/// The options of each region.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    pub memory: u64,
    pub ttl: Option<Duration>,
    pub jitter: f64,
    pub idle: Option<Duration>,
    pub negative: Option<Duration>,
    pub stale_for: Duration,
    pub fail_safe: Option<(Duration, Duration)>,
    pub refresh_after: Option<f64>,
    pub soft_timeout: Option<Duration>,
    pub load_timeout: Option<Duration>,
    pub max_loads: Option<(usize, Excess)>,
    pub refresh_every: Option<Duration>,
    /// The half-life of the count of uses.
    pub usage: Option<Duration>,
    /// How often entries are judged.
    pub review: Option<Duration>,
}

impl Plan {
    /// Regions made of regions, every change declared by name; nothing else.
    pub fn plain(rng: &mut Rng) -> Self {
        Self {
            rows: [4, 8, 16][rng.usize(..3)],
            writers: rng.usize(1..=3),
            rests: [0, 4, 64, 255][rng.usize(..4)],
            weather: Weather::default(),
            coarse_clock: rng.bool(),
            version_cells: 1 << 16,
            ways: vec![Way::Dep],
            links: None,
            serial: false,
            writing: false,
            fillers: (0, 1),
            noise: false,
            leaving: false,
            refresh: false,
            operators: false,
            fetches: false,
            stores: None,
            parameters: false,
            skips: false,
            layers: None,
            moka: false,
            nested: false,
            lie: None,
            gentle: Gentle::default(),
            levels: LEVELS,
            region: Lives {
                memory: 10_000,
                ttl: None,
                jitter: 0.0,
                idle: None,
                negative: None,
                stale_for: Duration::ZERO,
                fail_safe: None,
                refresh_after: None,
                soft_timeout: None,
                load_timeout: None,
                max_loads: None,
                refresh_every: None,
                usage: None,
                review: None,
            },
        }
    }

    pub fn with(mut self, features: &[Feature], rng: &mut Rng) -> Self {
        features.iter().for_each(|feature| feature(&mut self, rng));
        self
    }

    /// Any of the features that leave every promise strict.
    pub fn mixed(rng: &mut Rng) -> Self {
        let mut plan = Self::plain(rng);
        for feature in FEATURES {
            if rng.u8(..3) == 0 {
                feature(&mut plan, rng);
            }
        }
        plan
    }
}

impl Plan {
    /// The source may have less than the region of the rows.
    pub fn is_behind(&self) -> bool {
        matches!(self.stores, Some(Stores::Behind { .. }))
    }
}

/// Adds itself to a plan.
pub type Feature = fn(&mut Plan, &mut Rng);

pub fn ways(plan: &mut Plan, _: &mut Rng) {
    plan.ways.extend([Way::Dep, Way::Key, Way::KeyName, Way::KeyName, Way::Whole, Way::Everything]);
}

pub fn links(plan: &mut Plan, rng: &mut Rng) {
    plan.links = Some(if rng.bool() { Lower::Key } else { Lower::Name });
    plan.ways.extend([Way::Table, Way::Table, Way::Base]);
}

pub fn inserts(plan: &mut Plan, _: &mut Rng) {
    plan.serial = true;
    plan.ways.extend([Way::Insert; 4]);
}

pub fn writing(plan: &mut Plan, _: &mut Rng) {
    plan.writing = true;
}

pub fn many(plan: &mut Plan, rng: &mut Rng) {
    // Nearly too many, so that some questions have too many and others not; too many; of too many kinds.
    plan.fillers = [(MAX_EDGES - 8, 4), (2 * MAX_EDGES, 4), (2 * MAX_EDGES, 2 * MAX_EDGES)][rng.usize(..3)];
}

pub fn collisions(plan: &mut Plan, rng: &mut Rng) {
    plan.version_cells = 2 << rng.usize(..4);
}

pub fn spread(plan: &mut Plan, rng: &mut Rng) {
    plan.rows = 64 << rng.usize(..3);
}

pub fn lifetimes(plan: &mut Plan, rng: &mut Rng) {
    let lives = &mut plan.region;
    lives.ttl = Some(millis(rng, 1..=8));
    lives.jitter = rng.f64();
    lives.stale_for = millis(rng, 0..=20);
    lives.idle = rng.bool().then(|| millis(rng, 1..=8));
    lives.negative = rng.bool().then(|| millis(rng, 1..=3));
    lives.refresh_after = rng.bool().then(|| rng.f64());
}

pub fn failures(plan: &mut Plan, rng: &mut Rng) {
    plan.weather =
        Weather { failing: rng.u8(1..16), panicking: rng.u8(..4), slow: rng.u8(..4), ..plan.weather };
    let lives = &mut plan.region;
    lives.ttl = Some(millis(rng, 1..=5));
    lives.fail_safe = Some((millis(rng, 5..=500), millis(rng, 0..=5)));
    lives.soft_timeout = rng.bool().then(|| millis(rng, 1..=2));
    lives.load_timeout = rng.bool().then(|| millis(rng, 3..=6));
}

pub fn lanes(plan: &mut Plan, rng: &mut Rng) {
    let excess = if rng.bool() { Excess::Fail } else { Excess::Wait };
    plan.region.max_loads = Some((rng.usize(1..=4), excess));
}

pub fn refresh(plan: &mut Plan, rng: &mut Rng) {
    plan.refresh = true;
    plan.region.ttl.get_or_insert_with(|| millis(rng, 1..=8));
}

pub fn leaving(plan: &mut Plan, _: &mut Rng) {
    plan.leaving = true;
}

pub fn evictions(plan: &mut Plan, rng: &mut Rng) {
    plan.region.memory = rng.u64(1..=8);
}

pub fn operators(plan: &mut Plan, _: &mut Rng) {
    plan.operators = true;
}

pub fn noise(plan: &mut Plan, _: &mut Rng) {
    plan.noise = true;
}

pub fn fetches(plan: &mut Plan, rng: &mut Rng) {
    plan.fetches = true;
    plan.region.refresh_every = rng.bool().then(|| millis(rng, 1..=10));
}

pub fn around(plan: &mut Plan, rng: &mut Rng) {
    plan.stores = Some(Stores::Around);
    plan.serial |= rng.bool();
    plan.ways.extend([Way::Store; 6]);
}

pub fn through(plan: &mut Plan, rng: &mut Rng) {
    around(plan, rng);
    plan.stores = Some(Stores::Through);
}

pub fn behind(plan: &mut Plan, rng: &mut Rng) {
    let (max_pending, max_batch) = (1 << rng.usize(..8), rng.usize(1..=8));
    plan.stores =
        Some(Stores::Behind { max_pending, max_batch, delay: Duration::from_millis(rng.u64(..=3)) });
    // Of two that overlap the cache decides which is the later.
    plan.serial = true;
    plan.ways.extend([Way::Store; 6]);
}

pub fn stores(plan: &mut Plan, rng: &mut Rng) {
    [around, through, behind][rng.usize(..3)](plan, rng);
}

pub fn reviews(plan: &mut Plan, rng: &mut Rng) {
    plan.region.usage = rng.bool().then(|| millis(rng, 1..=32));
    plan.region.review = Some(Duration::from_micros(rng.u64(1..=2_000)));
}

pub fn skips(plan: &mut Plan, _: &mut Rng) {
    plan.skips = true;
}

pub fn layers(plan: &mut Plan, rng: &mut Rng) {
    plan.layers = Some(if rng.bool() { Fill::OnEviction } else { Fill::OnLoad });
    if rng.bool() {
        plan.region.memory = rng.u64(1..=8);
    }
}

pub fn parameters(plan: &mut Plan, _: &mut Rng) {
    plan.parameters = true;
    // Of two that overlap the parameter keeps the one that is set later.
    plan.serial = true;
    plan.ways.extend([Way::Parameter; 4]);
}

pub fn moka(plan: &mut Plan, _: &mut Rng) {
    plan.moka = true;
}

pub fn nested(plan: &mut Plan, _: &mut Rng) {
    plan.nested = true;
}

/// A source that answers for many keys what it has answered before.
pub fn kept(plan: &mut Plan, _: &mut Rng) {
    plan.lie = Some(Lie::Kept);
}

/// A sink that says that it has written what it has not.
pub fn early(plan: &mut Plan, _: &mut Rng) {
    plan.lie = Some(Lie::Early);
}

pub fn soft(plan: &mut Plan, _: &mut Rng) {
    plan.gentle.soft = true;
    plan.coarse_clock = false;
}

pub fn gradual(plan: &mut Plan, rng: &mut Rng) {
    plan.gentle.window = millis(rng, 1..=20);
    plan.coarse_clock = false;
}

pub fn held(plan: &mut Plan, rng: &mut Rng) {
    let lag = millis(rng, 1..=8);
    plan.gentle.hold = lag;
    plan.weather.lag = lag;
    plan.coarse_clock = false;
    // Something has to be stored between the windows.
    plan.rows = 64;
    plan.writers = 1;
    plan.rests = 255;
}

pub fn flat(plan: &mut Plan, _: &mut Rng) {
    plan.levels = 1;
}

/// Those that leave every promise as strict as it is.
const FEATURES: [Feature; 23] = [
    ways, links, inserts, writing, many, collisions, spread, lifetimes, failures, lanes, refresh, leaving,
    evictions, operators, noise, fetches, stores, reviews, skips, layers, parameters, moka, nested,
];

fn millis(rng: &mut Rng, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.u64(range).max(1))
}
