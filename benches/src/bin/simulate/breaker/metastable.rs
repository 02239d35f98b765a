//! Metastable overload: a trigger goes, the overload stays.
//!
//! The idea: Bronson and others, "Metastable Failures in Distributed Systems" (HotOS 2021); Huang and others, "Metastable
//! Failures in the Wild" (OSDI 2022). A server that is well loaded serves late for a moment; its clients give up and retry,
//! the retries are load, and from then on all its work is for callers who have gone.
//!
//! The model: 10 workers of 10 ms (1000 attempts a second), a queue of 4000, 50 clients with 750 calls a second, a
//! time-out of 1 s and up to three attempts, about 50 ms apart. After 30 s the server has a fifth of its speed for 10
//! s: that is the trigger. In a second form it lasts a minute to a minute and a half, which differs from seed to seed:
//! breakers whose wait grows have waited long by then, and those whose wait is constant are met in every phase of it.
//! Two minutes remain to recover. Every client has ten good minutes behind it.
//!
//! Claims: without a breaker the goodput stays below 30 % of what it was (or the scenario could not fail), and with our
//! recommended configuration it is back at 95 % within 10 s after the short trigger and 30 s (the longest time that
//! ours stays open, which is what the last clients may have drawn) after the long one, both in every seed.

use crate::{
    breaker::{
        events::{MILLISECOND, Nanos, SECOND},
        fleet::{self, Plan, Record, Weather},
        ours,
        policy::{Entrant, NONE},
        rivals,
    },
    report::{Column, Report, Show},
    seeds::each_seed,
};

pub fn short(seeds: u64) -> Report {
    run(seeds, &Trigger { lasts: "10 s", of: |_| 10 * SECOND, recovered: 10.0 })
}

pub fn long(seeds: u64) -> Report {
    let of = |seed: u64| fastrand::Rng::with_seed(!seed).u64(60..=90) * SECOND;
    run(seeds, &Trigger { lasts: "60 to 90 s", of, recovered: 30.0 })
}

struct Trigger {
    lasts: &'static str,
    /// How long it lasts in a seed.
    of: fn(u64) -> Nanos,
    /// In seconds: what we claim.
    recovered: f64,
}

fn run(seeds: u64, trigger: &Trigger) -> Report {
    let about = format!(
        "A server at 75 % of its capacity has a fifth of it for {}; its clients time out after 1 s and make up to three \
         attempts. Goodput is the share of calls that are answered in the end; recovered is from when on no 5 s lie below \
         95 % of the level before. {seeds} seeds: median (least to greatest).",
        trigger.lasts
    );
    let mut report = Report { about, columns: COLUMNS.to_vec(), rows: Vec::new(), broken: Vec::new() };
    for entrant in rivals::ALL.into_iter().chain(ours::metastable()) {
        let found = each_seed(seeds, |seed| one(&entrant, seed, (trigger.of)(seed)));
        check(trigger, &entrant, &found, &mut report.broken);
        report.row(entrant.name, entrant.ours, &found);
    }
    report
}

fn one(entrant: &Entrant, seed: u64, trigger: Nanos) -> Vec<f64> {
    let end = TRIGGER + trigger;
    let plan = Plan { length: end + AFTERWARDS, ..PLAN };
    let record = fleet::run(&plan, entrant, seed, TRIGGER, |now| match (TRIGGER..end).contains(&now) {
        true => Weather::Working(0.2),
        false => Weather::Working(1.0),
    });
    let before = record.goodput(SETTLED, TRIGGER);
    let recovery = record.recovery(end, RECOVERED * before);
    let during = record.goodput(TRIGGER, end) / before;
    let after = record.goodput(end, plan.length - SETTLED) / before;
    vec![recovery, f64::from(recovery.is_infinite()), during, after, wasted(&record)]
}

/// Attempts a call in the minute from the trigger on: 1 is what a healthy service gets.
fn wasted(record: &Record) -> f64 {
    let minute = record.between(TRIGGER, TRIGGER + 60 * SECOND);
    let of = |count: fn(&fleet::Second) -> u32| f64::from(minute.iter().map(count).sum::<u32>());
    of(|second| second.attempts) / of(|second| second.calls)
}

fn check(trigger: &Trigger, entrant: &Entrant, found: &[Vec<f64>], broken: &mut Vec<String>) {
    let worst = |place: usize| found.iter().map(|seed| seed[place]).fold(0.0, f64::max);
    if entrant.name == NONE.name && worst(AFTER) >= COLLAPSED {
        broken.push(format!("without a breaker the goodput is {:.3} of what it was in a seed", worst(AFTER)));
    }
    if entrant.name == ours::RECOMMENDED.name && worst(RECOVERY) > trigger.recovered {
        broken.push(format!("{} takes {:.0} s to recover in a seed", entrant.name, worst(RECOVERY)));
    }
}

const COLUMNS: [Column; 5] = [
    Column::new("recovery_s", "recovered after", Show::Seconds),
    Column::new("never", "seeds never", Show::Percent).mean(),
    Column::new("goodput_during", "goodput, trigger", Show::Percent),
    Column::new("goodput_after", "goodput, after", Show::Percent),
    Column::new("attempts_per_call", "attempts a call, first minute", Show::Number),
];
/// Places in [`COLUMNS`].
const RECOVERY: usize = 0;
const AFTER: usize = 3;

const PLAN: Plan = Plan {
    clients: 50,
    calls: 750.0,
    attempts: 3,
    pause: 50 * MILLISECOND,
    time_out: SECOND,
    patience: None,
    workers: 10,
    work: 10 * MILLISECOND,
    queue: 4000,
    past: 600 * SECOND,
    length: 0, // depends on the trigger
};
/// After the beginning, and before the end.
const SETTLED: Nanos = 5 * SECOND;
const TRIGGER: Nanos = 30 * SECOND;
const AFTERWARDS: Nanos = 120 * SECOND;
/// Of the goodput before.
const RECOVERED: f64 = 0.95;
const COLLAPSED: f64 = 0.3;
