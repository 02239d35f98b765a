//! A hang: the server takes every call and answers none, until it is restarted.
//!
//! The idea: only calls that have ended tell anything (gobreaker issue 91, go-zero issue 5011), so a remote that hangs is
//! invisible until the first time-outs.
//!
//! The model: one client with 50 calls a second, a time-out of 10 s, one attempt, work of 50 ms, no limit of workers.
//! After 30 s the server hangs for a minute to a minute and a half, which differs from seed to seed; what is in flight
//! is lost. Then it is well, for two minutes. The client has ten good minutes behind it.
//!
//! In the second form callers leave after 3 s, as when a server drops the futures of clients that have disconnected:
//! then nothing ever fails, and nothing ever succeeds. In the third the server first crashes, and refuses for 10 s, so
//! that breakers are open already when it begins to hang, and their probes are what is dropped.
//!
//! Claim: with a condition on calls in flight ours opens in less than one time-out, and in less than the callers' patience.

use crate::{
    breaker::{
        events::{MILLISECOND, Nanos, SECOND, seconds},
        fleet::{self, Plan, Weather},
        ours,
        policy::Entrant,
        rivals,
    },
    report::{Column, Report, Show},
    seeds::each_seed,
};

pub fn time_outs(seeds: u64) -> Report {
    let about = "A server hangs for 60 to 90 s; the client's calls time out after 10 s.";
    run(seeds, &Hang { about, patience: None, crash: 0 })
}

pub fn abandoned(seeds: u64) -> Report {
    let about = "A server hangs for 60 to 90 s; callers leave after 3 s, before the time-out of 10 s, and their calls \
                 are dropped.";
    run(seeds, &Hang { about, patience: Some(PATIENCE), crash: 0 })
}

pub fn after_crash(seeds: u64) -> Report {
    let about = "A server refuses for 10 s, then hangs for 50 to 80 s; callers leave after 3 s: their calls are dropped.";
    run(seeds, &Hang { about, patience: Some(PATIENCE), crash: 10 * SECOND })
}

struct Hang {
    about: &'static str,
    patience: Option<Nanos>,
    /// How long the server refuses before it hangs.
    crash: Nanos,
}

fn run(seeds: u64, hang: &Hang) -> Report {
    let about = format!(
        "{} Sunk are the calls that were let through meanwhile, as a share of those made. Recovered: how long after it \
         until no 5 s lie below 95 %. {seeds} seeds: median (least to greatest).",
        hang.about
    );
    let mut report = Report { about, columns: COLUMNS.to_vec(), rows: Vec::new(), broken: Vec::new() };
    for entrant in rivals::ALL.into_iter().chain(ours::hang()) {
        let found = each_seed(seeds, |seed| one(hang, &entrant, seed));
        check(hang, &entrant, &found, &mut report.broken);
        report.row(entrant.name, entrant.ours, &found);
    }
    report
}

fn one(hang: &Hang, entrant: &Entrant, seed: u64) -> Vec<f64> {
    let end = HANG + LEAST + fastrand::Rng::with_seed(!seed).u64(..=MORE / SECOND) * SECOND;
    let plan = Plan { patience: hang.patience, ..PLAN };
    let record = fleet::run(&plan, entrant, seed, HANG, |now| match now {
        ..HANG => Weather::Working(1.0),
        now if now < HANG + hang.crash => Weather::Dead,
        now if now < end => Weather::Hung,
        _ => Weather::Working(1.0),
    });
    let opened = record.first_refusals.first().filter(|at| **at < end);
    let opened = opened.map_or(f64::INFINITY, |at| seconds(at - HANG));
    let sick = record.between(HANG, end);
    let of = |count: fn(&fleet::Second) -> u32| f64::from(sick.iter().map(count).sum::<u32>());
    let sunk = of(|second| second.attempts) / of(|second| second.calls);
    vec![opened, sunk, record.recovery(end, RECOVERED)]
}

fn check(hang: &Hang, entrant: &Entrant, found: &[Vec<f64>], broken: &mut Vec<String>) {
    let soon = hang.patience.unwrap_or(PLAN.time_out);
    let opened = found.iter().map(|seed| seed[0]).fold(0.0, f64::max);
    if entrant.name == ours::STALLED.name && opened >= seconds(soon) {
        broken.push(format!("{} takes {opened:.1} s to open in a seed", entrant.name));
    }
}

const COLUMNS: [Column; 3] = [
    Column::new("opened_s", "opened after", Show::Seconds),
    Column::new("sunk", "calls sunk", Show::Percent),
    Column::new("recovery_s", "recovered after", Show::Seconds),
];

const PLAN: Plan = Plan {
    clients: 1,
    calls: 50.0,
    attempts: 1,
    pause: 0,
    time_out: 10 * SECOND,
    patience: None,
    workers: 10_000,
    work: 50 * MILLISECOND,
    queue: 0,
    past: 600 * SECOND,
    length: HANG + LEAST + MORE + 120 * SECOND,
};
const PATIENCE: Nanos = 3 * SECOND;
const HANG: Nanos = 30 * SECOND;
const LEAST: Nanos = 60 * SECOND;
const MORE: Nanos = 30 * SECOND;
const RECOVERED: f64 = 0.95;
