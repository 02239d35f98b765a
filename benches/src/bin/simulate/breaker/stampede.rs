//! Recovery stampede: a fleet finds a server that has just come back, still cold.
//!
//! The idea: the thundering herd, as breakers make it. Breakers that opened together and wait for equally long probe
//! together, and those that close at once bring all their load to a server with cold caches and few connections.
//!
//! The model: 500 clients with a breaker each and two calls a second each, a time-out of 1 s; one attempt, or up to
//! three, about 50 ms apart. The server can do 1400 a second (14 workers of 10 ms, a queue of 2800). It is dead for two
//! minutes and a while, which differs from seed to seed by up to 30 s, so that the return meets every phase of those
//! that wait. It comes back with a tenth of its speed and gains the rest evenly within a minute; overload shows in
//! time-outs. Four minutes remain.
//!
//! Claim: with a ramp of half the time that this remote takes to warm up, or all of it, the load that ours admits in any
//! second after the return is at most 1.2 times what the server can do in that second.

use crate::{
    breaker::{
        events::{MILLISECOND, Nanos, SECOND},
        fleet::{self, Plan, Record, Weather},
        ours,
        policy::Entrant,
        rivals,
    },
    report::{Column, Report, Show},
    seeds::each_seed,
};

pub fn one_attempt(seeds: u64) -> Report {
    run(seeds, &PLAN)
}

pub fn three_attempts(seeds: u64) -> Report {
    run(seeds, &Plan { attempts: 3, pause: 50 * MILLISECOND, ..PLAN })
}

fn run(seeds: u64, plan: &Plan) -> Report {
    let about = format!(
        "500 clients, each with a breaker of its own (attempts a call: {}), and a server that was dead and is back with a \
         tenth of its capacity, gaining the rest within a minute. Peak: the most attempts admitted in a second of the two \
         minutes after the return, as a multiple of what the server can do in that second. Recovered: from when on no 5 s \
         lie below 95 %. Whoever sent exactly what the server can do would lose {:.1} s worth of calls. {seeds} seeds: \
         median (least to greatest).",
        plan.attempts,
        least_lost()
    );
    let mut report = Report { about, columns: COLUMNS.to_vec(), rows: Vec::new(), broken: Vec::new() };
    for entrant in rivals::ALL.into_iter().chain(ours::stampede()) {
        let found = each_seed(seeds, |seed| one(plan, &entrant, seed));
        check(&entrant, &found, &mut report.broken);
        report.row(entrant.name, entrant.ours, &found);
    }
    report
}

fn one(plan: &Plan, entrant: &Entrant, seed: u64) -> Vec<f64> {
    let back = DEATH + DEAD + fastrand::Rng::with_seed(!seed).u64(0..30) * SECOND;
    let record = fleet::run(plan, entrant, seed, DEATH, |now| match now {
        ..DEATH => Weather::Working(1.0),
        now if now < back => Weather::Dead,
        now => Weather::Working(warmth(now - back)),
    });
    let recovery = record.recovery(back, RECOVERED);
    let (peak, overloaded) = stampede(&record, back);
    vec![peak, overloaded, recovery, f64::from(recovery.is_infinite()), lost(&record, back)]
}

/// The share of full speed, so long after the return.
fn warmth(since: Nanos) -> f64 {
    COLD + (1.0 - COLD) * (since as f64 / WARM_AFTER as f64).min(1.0)
}

/// The greatest multiple of its capacity that the server got in a second, and for how many seconds it was above one.
fn stampede(record: &Record, back: Nanos) -> (f64, f64) {
    let capacity = |second: u64| CAPACITY * warmth(second * SECOND + SECOND / 2);
    let seconds = record.between(back, back + 2 * WARM_AFTER).iter().zip(0..);
    let loads = seconds.map(|(second, since)| f64::from(second.attempts) / capacity(since));
    loads.fold((0.0, 0.0), |(peak, over), load| (load.max(peak), over + f64::from(load > 1.0)))
}

/// Calls that were not answered in the four minutes, in seconds' worth of calls.
fn lost(record: &Record, back: Nanos) -> f64 {
    let seconds = record.between(back, back + AFTER);
    let lost: u32 = seconds.iter().map(|second| second.calls - second.answered).sum();
    f64::from(lost) / PLAN.calls
}

/// With perfect knowledge: what the server cannot do yet, in seconds' worth of calls.
fn least_lost() -> f64 {
    let steps = 0..AFTER / MILLISECOND;
    let lost = steps.map(|step| (1.0 - CAPACITY * warmth(step * MILLISECOND) / PLAN.calls).max(0.0));
    lost.sum::<f64>() / 1000.0
}

fn check(entrant: &Entrant, found: &[Vec<f64>], broken: &mut Vec<String>) {
    let peak = found.iter().map(|seed| seed[0]).fold(0.0, f64::max);
    let ramps = [ours::RAMP_30.name, ours::RAMP_60.name];
    if ramps.contains(&entrant.name) && peak > MOST {
        broken.push(format!("{} lets {peak:.2} times the capacity through in a seed", entrant.name));
    }
}

const COLUMNS: [Column; 5] = [
    Column::new("peak", "peak load / capacity", Show::Number),
    Column::new("overloaded_s", "overloaded for", Show::Seconds),
    Column::new("recovery_s", "recovered after", Show::Seconds),
    Column::new("never", "seeds never", Show::Percent).mean(),
    Column::new("lost_s", "worth of calls lost", Show::Seconds),
];

const PLAN: Plan = Plan {
    clients: 500,
    calls: 1000.0,
    attempts: 1,
    pause: 0,
    time_out: SECOND,
    patience: None,
    workers: 14,
    work: 10 * MILLISECOND,
    queue: 2800,
    past: 600 * SECOND,
    length: DEATH + DEAD + 30 * SECOND + AFTER + 5 * SECOND,
};
/// Attempts a second, warm.
const CAPACITY: f64 = 1400.0;
const DEATH: Nanos = 10 * SECOND;
const DEAD: Nanos = 120 * SECOND;
const AFTER: Nanos = 240 * SECOND;
const COLD: f64 = 0.1;
const WARM_AFTER: Nanos = 60 * SECOND;
const RECOVERED: f64 = 0.95;
/// Times the capacity.
const MOST: f64 = 1.2;
