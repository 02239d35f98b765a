//! Metastable overload: a trigger goes, the overload stays.
//!
//! The idea: Bronson and others, "Metastable Failures in Distributed Systems" (HotOS 2021); Huang and others, "Metastable
//! Failures in the Wild" (OSDI 2022). A server that is well loaded serves late for a moment; its clients give up and retry,
//! the retries are load, and from then on all its work is for callers who have gone.
//!
//! The model: 10 workers of 10 ms (1000 attempts a second), a queue of 4000, 50 clients with 750 calls a second, a time-out of 1 s
//! and up to three attempts, about 50 ms apart. After 30 s the server has a fifth of its speed for 10 s: that is the trigger.
//! Two minutes remain to recover. Every client has ten good minutes behind it.
//!
//! Claims: without a breaker the goodput stays below 30 % of what it was (or the scenario could not fail), and with our
//! recommended configuration it is back at 95 % within [`SOON`], both in every seed.

use crate::{
    breaker::{
        events::{MILLISECOND, Nanos, SECOND, seconds},
        fleet::{self, Plan, Record, Weather},
        ours,
        policy::{Entrant, NONE},
        rivals,
    },
    report::{Column, Report, Show},
    seeds::each_seed,
};

pub fn run(seeds: u64) -> Report {
    let about = format!(
        "A server at 75 % of its capacity has a fifth of it for {} s; its clients time out after 1 s and make up to three \
         attempts. Goodput is the share of calls that are answered in the end; recovered is from when on no 5 s lie below \
         95 % of the level before. {seeds} seeds: median (least to greatest).",
        seconds(TRIGGER_END - TRIGGER)
    );
    let mut report = Report { about, columns: COLUMNS.to_vec(), rows: Vec::new(), broken: Vec::new() };
    for entrant in rivals::ALL.into_iter().chain(ours::metastable()) {
        let found = each_seed(seeds, |seed| one(&entrant, seed));
        check(&entrant, &found, &mut report.broken);
        report.row(entrant.name, entrant.ours, &found);
    }
    report
}

fn one(entrant: &Entrant, seed: u64) -> Vec<f64> {
    let record = fleet::run(&PLAN, entrant, seed, TRIGGER, |now| match now {
        TRIGGER..TRIGGER_END => Weather::Working(0.2),
        _ => Weather::Working(1.0),
    });
    let before = record.goodput(SETTLED, TRIGGER);
    let recovery = record.recovery(TRIGGER_END, RECOVERED * before);
    let during = record.goodput(TRIGGER, TRIGGER_END) / before;
    let after = record.goodput(TRIGGER_END, PLAN.length - 5 * SECOND) / before;
    vec![recovery, f64::from(recovery.is_infinite()), during, after, wasted(&record)]
}

/// Attempts a call in the minute from the trigger on: 1 is what a healthy service gets.
fn wasted(record: &Record) -> f64 {
    let minute = record.between(TRIGGER, TRIGGER + 60 * SECOND);
    let of = |count: fn(&fleet::Second) -> u32| f64::from(minute.iter().map(count).sum::<u32>());
    of(|second| second.attempts) / of(|second| second.calls)
}

fn check(entrant: &Entrant, found: &[Vec<f64>], broken: &mut Vec<String>) {
    let worst = |place: usize| found.iter().map(|seed| seed[place]).fold(0.0, f64::max);
    if entrant.name == NONE.name && worst(AFTER) >= COLLAPSED {
        broken.push(format!("without a breaker the goodput is {:.3} of what it was in a seed", worst(AFTER)));
    }
    if entrant.name == ours::RECOMMENDED.name && worst(RECOVERY) > SOON {
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
    length: 160 * SECOND,
};
const SETTLED: Nanos = 5 * SECOND;
const TRIGGER: Nanos = 30 * SECOND;
const TRIGGER_END: Nanos = 40 * SECOND;
/// Of the goodput before.
const RECOVERED: f64 = 0.95;
const COLLAPSED: f64 = 0.3;
/// In seconds: as long as the longest time that ours stays open, which is what the last client may have drawn.
const SOON: f64 = 30.0;
