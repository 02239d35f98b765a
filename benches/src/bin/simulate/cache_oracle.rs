//! The freshness oracle: whoever asks a cache after an invalidation has returned never sees the past.
//!
//! In real time and real threads, not in virtual time: a seed decides what everybody does, the system in which order, so
//! a seed that was caught need not be caught again. Each history is a runtime of two to four threads with six readers, up to
//! three writers and one who disturbs, over a source of few rows, from an empty cache and for a few hundredths of a second.
//!
//! The check is linear and always on. A row of the source is a counter. A writer raises it, invalidates, and only when that
//! has returned raises the row's floor to the same version; or it has the cache store the version, around, through or behind,
//! and raises the floor when that is acknowledged. A reader notes the floors of everything that its question is made
//! of, asks, and compares every version of the answer with the floor noted before. In the end, when all is quiet,
//! everything is asked once more.
//!
//! Claims: of ours no answer is ever below a floor, whatever combination of features takes part, be it marked as stale or
//! not; where rows themselves are invalidated gently, what the documentation leaves of that holds. Every control, a small cache
//! with one broken rule, is caught, as is ours where what it was given breaks a law; their sound twins are not.

mod chaos;
mod controls;
mod ours;
mod plan;
mod regions;
mod rivals;
mod shelf;
mod source;

use std::{ops::Range, sync::Arc, time::Duration};

use fastrand::Rng;

use crate::{
    cache_oracle::{
        chaos::{History, Subject, Tally},
        controls::{Control, Rule},
        ours::Ours,
        plan::{Feature, Plan},
        rivals::{Foyer, Moka, Quick, Rival},
        source::{Source, Weather},
    },
    report::{Column, Report, Scenario, Show},
};

pub fn scenarios() -> Vec<Scenario> {
    let of = |name, run| Scenario { name, form: None, run };
    vec![of("strict", strict), of("gentle", gentle), of("controls", broken), of("rivals", rivals)]
}

/// What takes part beside regions that are made of regions.
const STRICT: [(&str, &[Feature]); 26] = [
    ("regions of regions", &[]),
    ("many rows", &[plan::spread, plan::ways]),
    ("every way to invalidate", &[plan::ways]),
    ("links that come and go", &[plan::links, plan::ways]),
    ("inserts", &[plan::inserts, plan::ways]),
    ("writing: cancelled, failed, panicked", &[plan::writing, plan::ways]),
    ("too many dependencies", &[plan::many, plan::ways]),
    ("too many dependencies, links", &[plan::many, plan::links]),
    ("few version cells", &[plan::collisions, plan::ways]),
    ("short lives", &[plan::lifetimes, plan::ways]),
    ("failures, panics, time-outs", &[plan::failures, plan::ways]),
    ("few loads at a time", &[plan::lanes, plan::failures]),
    ("kept if unchanged", &[plan::refresh, plan::ways]),
    ("callers leave", &[plan::leaving, plan::ways, plan::lanes]),
    ("evictions, knobs, switches", &[plan::evictions, plan::operators, plan::ways]),
    ("gentle, of what does not matter", &[plan::noise, plan::lifetimes, plan::ways]),
    ("a source: fetched, refreshed, warmed", &[plan::fetches, plan::ways]),
    ("written around", &[plan::around, plan::ways]),
    ("written through", &[plan::through, plan::failures, plan::leaving, plan::links]),
    ("written behind", &[plan::behind, plan::ways]),
    ("written behind, failures, evictions", &[plan::behind, plan::failures, plan::evictions, plan::fetches]),
    ("used and judged", &[plan::reviews, plan::fetches, plan::ways]),
    ("layers, skipped", &[plan::layers, plan::skips, plan::ways]),
    ("parameters", &[plan::parameters, plan::ways]),
    ("in moka", &[plan::moka, plan::evictions, plan::ways]),
    ("few loads, one within the other", &[plan::nested, plan::lanes, plan::fetches]),
];

fn strict(seeds: u64) -> Report {
    let mut report = report(
        "Every invalidation of a row is strict, so every version in every answer must be at least the row's floor, whether \
         the answer is marked as stale or not. A store that the cache has acknowledged counts as one.",
        seeds,
    );
    let mut all = Tally::default();
    for (name, features) in STRICT {
        all.add(ours(&mut report, name, seeds, |rng| Plan::plain(rng).with(features, rng)));
    }
    // More of these, since no two are alike.
    all.add(ours(&mut report, "any of these", 4 * seeds, Plan::mixed));
    row(&mut report, "all of these", true, &all);
    if seeds >= FULL && all.checks < MANY {
        report.broken.push(format!("{} checks are fewer than {MANY}", all.checks));
    }
    report
}

const GENTLE: [(&str, &[Feature]); 9] = [
    ("soft", &[plan::soft, plan::ways]),
    ("soft, failures", &[plan::soft, plan::failures, plan::flat]),
    ("soft, failures, regions of regions", &[plan::soft, plan::failures]),
    ("gradual", &[plan::gradual, plan::flat]),
    ("gradual, regions of regions", &[plan::gradual]),
    ("soft and gradual, short lives", &[plan::soft, plan::gradual, plan::lifetimes, plan::ways, plan::flat]),
    ("soft and gradual, failures", &[plan::soft, plan::gradual, plan::failures, plan::noise, plan::flat]),
    ("held off", &[plan::held, plan::flat]),
    ("held off, regions of regions", &[plan::held]),
];

fn gentle(seeds: u64) -> Report {
    let mut report = report(
        "Rows are invalidated strictly, softly, gradually, or with a hold-off and a source that answers from the past for as \
         long. After a soft one only answers that are marked as stale may be below the floor; after a gradual one all of them \
         until its window has ended, and none from then on; with a hold-off what `get` finds stored must be at least the floor, \
         and what a loading call gives is exempt.",
        seeds,
    );
    for (name, features) in GENTLE {
        ours(&mut report, name, seeds, |rng| Plan::plain(rng).with(features, rng));
    }
    report
}

/// The histories of one row of ours, until one is wrong.
fn ours(report: &mut Report, name: &'static str, seeds: u64, plan: impl Fn(&mut Rng) -> Plan) -> Tally {
    eprintln!("  {name}");
    let mut all = Tally::default();
    for seed in 0..seeds {
        let plan = plan(&mut Rng::with_seed(seed));
        let late = plan.gentle.is_any();
        let history = History {
            seed,
            span: SPAN,
            levels: plan.levels,
            writers: plan.writers,
            rests: plan.rests,
            // What has begun to load before the end of the windows has ended, too.
            settling: if late {
                plan.gentle.window + plan.gentle.hold * 2 + SPAN / 4
            } else {
                Duration::ZERO
            },
        };
        let source = Arc::new(Source::new(plan.rows, plan.weather, seed));
        let tally = chaos::run(history, source, |source| Ours::new(&plan, source));
        if let Some(first) = &tally.first {
            report.broken.push(format!("{name}, seed {seed}: {first}, with {plan:?}"));
        }
        all.add(tally);
        if all.violations > 0 {
            break;
        }
    }
    row(report, name, true, &all);
    all
}

fn broken(seeds: u64) -> Report {
    let mut report = report(
        "Small caches with the same stamps as ours, each with one rule broken, under the same readers and writers, and ours with \
         a source or a sink that breaks its laws: every one must be caught. Each waits at the place where its race is, so that \
         it is found soon.",
        seeds,
    );
    for (rule, name) in Rule::ALL {
        let control = |source: &Arc<Source>, _: &Plan| Control::new(rule, source);
        caught(&mut report, (name, !rule.is_sound()), seeds, &[], control);
    }
    for (name, features) in LIES {
        caught(&mut report, (name, true), seeds, features, |source, plan| Ours::new(plan, source));
    }
    report
}

/// What is given to ours and breaks a law.
const LIES: [(&str, &[Feature]); 3] = [
    ("ours, a source that keeps values", &[plan::fetches, plan::kept]),
    ("ours, a sink that is early", &[plan::around, plan::early]),
    ("ours, a sink that is early, behind", &[plan::behind, plan::early]),
];

/// The histories of one control, and more of them until it is caught, if it is to be: some races are rare, and a short
/// run has few seeds.
fn caught<S: Subject>(
    report: &mut Report,
    (name, is_broken): (&str, bool),
    seeds: u64,
    features: &[Feature],
    make: impl Fn(&Arc<Source>, &Plan) -> S,
) {
    eprintln!("  {name}");
    let mut tally = other(0..seeds, features, &make);
    let mut more = seeds..PATIENCE;
    while is_broken && tally.violations == 0 && !more.is_empty() {
        let next = more.start..more.start + 1;
        tally.add(other(next.clone(), features, &make));
        more.start = next.end;
    }
    if (tally.violations > 0) != is_broken {
        report.broken.push(format!("{name}: {} violations", tally.violations));
    }
    row(report, name, false, &tally);
}

fn rivals(seeds: u64) -> Report {
    let mut report = report(
        "The loading calls of other caches, each with the index from a row to the questions that are made of it which one \
         writes by hand: invalidating a row removes them all, the lowest level first. Nothing is asserted.",
        seeds,
    );
    eprintln!("  rivals");
    let tally = other(0..seeds, &[], |source, _| Rival::<Moka>::new(source));
    row(&mut report, "moka::future get_with, invalidate", false, &tally);
    let tally = other(0..seeds, &[], |source, _| Rival::<Quick>::new(source));
    row(&mut report, "quick_cache get_or_insert_async, remove", false, &tally);
    let tally = other(0..seeds, &[], |source, _| Rival::<Foyer>::new(source));
    row(&mut report, "foyer-memory get_or_fetch, remove", false, &tally);
    report
}

/// Histories of somebody else, all of them.
fn other<S: Subject>(
    seeds: Range<u64>,
    features: &[Feature],
    make: impl Fn(&Arc<Source>, &Plan) -> S,
) -> Tally {
    let mut all = Tally::default();
    for seed in seeds {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::plain(&mut rng).with(features, &mut rng);
        let Plan { rows, writers, rests, levels, .. } = plan;
        let history = History { seed, span: SPAN, levels, writers, rests, settling: Duration::ZERO };
        let source = Arc::new(Source::new(rows, Weather::default(), seed));
        all.add(chaos::run(history, source, |source| make(source, &plan)));
    }
    all
}

fn report(about: &str, seeds: u64) -> Report {
    let about = format!(
        "{about} Seeds 0 to {}, {} ms each. Checks: versions compared with a floor; loads: loaders called.",
        seeds - 1,
        SPAN.as_millis(),
    );
    Report { about, columns: COLUMNS.to_vec(), rows: Vec::new(), broken: Vec::new() }
}

fn row(report: &mut Report, name: &str, ours: bool, tally: &Tally) {
    let counts = [
        tally.checks,
        tally.answers,
        tally.nothing,
        tally.loads,
        tally.changes,
        tally.stale,
        tally.violations,
    ];
    let figures = counts.iter().map(|count| *count as f64).chain([tally.seconds]).collect();
    report.row(name, ours, &[figures]);
}

const COLUMNS: [Column; 8] = [
    Column::new("checks", "checks", Show::Count),
    Column::new("answers", "answers", Show::Count),
    Column::new("nothing", "no answer", Show::Count),
    Column::new("loads", "loads", Show::Count),
    Column::new("invalidations", "invalidations", Show::Count),
    Column::new("stale", "marked stale", Show::Count),
    Column::new("violations", "violations", Show::Count),
    Column::new("seconds", "took", Show::Seconds),
];

/// Of one history. Short, since every seed is another combination.
const SPAN: Duration = Duration::from_millis(45);
/// A control is given so many seeds to be caught in.
const PATIENCE: u64 = 300;
/// From so many seeds on so many checks are claimed.
const FULL: u64 = 100;
const MANY: u64 = 100_000_000;
