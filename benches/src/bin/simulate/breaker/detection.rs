//! Detection: how often a breaker opens at error rates that it should bear, and how soon at those it should not.
//!
//! The idea: a breaker is a test of a hypothesis while it watches. The least time to find a change out, for a given rate of
//! false alarms, is that of the sequential probability ratio test (Wald), begun anew whenever it favours health (Page's
//! cumulative sum; its optimality is Moustakides's and Lorden's).
//!
//! The model: one breaker, calls in a Poisson stream of ten a second that end at once and fail independently. False trips:
//! 2.4 hours a seed at one rate; a breaker that has opened is replaced by a new one. Time to trip: ten minutes with
//! 0.1 % of errors, then the rate rises; after ten more minutes we no longer wait.
//!
//! The oracle knows the rate that is borne ([`BORNE`]) and the one to come, and is tuned to have as many false trips at
//! the first as the entrant beside which it stands (or one in all the time simulated, if that has none): what is
//! between their times to trip is what could be gained.

use crate::{
    breaker::{
        events::{Nanos, SECOND, Time, exponential, seconds},
        ours,
        policy::{Entrant, Outcome, Policy, Seat, Ticket},
        rivals,
    },
    report::{Column, Report, Show},
    seeds::each_seed,
};

pub fn run(seeds: u64) -> Report {
    let about = format!(
        "One breaker, ten calls a second, independent errors. False trips a day at error rates that should be borne; \
         time to trip after ten good minutes, at rates that should not. The oracles are sequential tests that know the \
         rate to come and have as many false trips at 30 % as the entrant that they are named after. {seeds} seeds: \
         mean of the false trips, median (least to greatest) of the times; never: not within ten minutes."
    );
    let mut report = Report { about, columns: COLUMNS.to_vec(), rows: Vec::new(), broken: Vec::new() };
    for entrant in rivals::ALL.into_iter().skip(1).chain(ours::detection()) {
        let found = each_seed(seeds, |seed| one(&|seat| (entrant.make)(seat), seed));
        report.row(entrant.name, entrant.ours, &found);
        if [ours::RATE.name, ours::RECOMMENDED.name].contains(&entrant.name) {
            oracle(&entrant, seeds, &found, &mut report);
        }
    }
    report
}

type Make<'a> = &'a (dyn Fn(&Seat) -> Box<dyn Policy> + Sync);

fn one(make: Make<'_>, seed: u64) -> Vec<f64> {
    let false_trips = FALSE.map(|errors| false_trips(make, seed, errors));
    let times = TRUE.map(|errors| time_to_trip(make, seed, errors));
    false_trips.into_iter().chain(times).collect()
}

fn oracle(entrant: &Entrant, seeds: u64, found: &[Vec<f64>], report: &mut Report) {
    let tuned_to = found.iter().map(|seed| seed[AT_BORNE]).sum::<f64>() / seeds as f64;
    let days = seeds as f64 * seconds(WATCHED) / seconds(DAY);
    let tests = TRUE.map(|errors| Test::as_rare_as(tuned_to.max(1.0 / days), errors, seeds));
    let make = |test: Test| move |_: &Seat| Box::new(test) as Box<dyn Policy>;
    let found = each_seed(seeds, |seed| {
        let make_first = make(tests[0]);
        let false_trips = FALSE.map(|errors| false_trips(&make_first, seed, errors));
        let times = (0..TRUE.len()).map(|place| time_to_trip(&make(tests[place]), seed, TRUE[place]));
        false_trips.into_iter().chain(times).collect::<Vec<_>>()
    });
    report.row(format!("oracle as rare as {}", entrant.name), false, &found);
}

/// A breaker and its calls.
struct Watch {
    time: Time,
    breaker: Box<dyn Policy>,
}

impl Watch {
    fn new(make: Make<'_>, seed: u64) -> Self {
        let time = Time::new();
        let breaker = make(&Seat { clock: time.clock(), seed });
        Self { time, breaker }
    }

    /// Calls until `end`, or until one is refused: when that was.
    fn until_refused(&mut self, end: Nanos, errors: f64, random: &mut fastrand::Rng) -> Option<Nanos> {
        loop {
            let now = self.time.now() + exponential(random, SECOND as f64 / CALLS);
            if now >= end {
                self.time.move_to(end);
                return None;
            }
            self.time.move_to(now);
            let Some(ticket) = self.breaker.admit(now) else { return Some(now) };
            let outcome = if random.f64() < errors { Outcome::Failure } else { Outcome::Success };
            self.breaker.settle(now, ticket, outcome);
        }
    }
}

/// A day.
fn false_trips(make: Make<'_>, seed: u64, errors: f64) -> f64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut left, mut trips) = (WATCHED, 0);
    while let Some(opened) = Watch::new(make, random.u64(..)).until_refused(left, errors, &mut random) {
        left -= opened;
        trips += 1;
    }
    f64::from(trips) * seconds(DAY) / seconds(WATCHED)
}

fn time_to_trip(make: Make<'_>, seed: u64, errors: f64) -> f64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut watch = Watch::new(make, random.u64(..));
    if watch.until_refused(PAST, ERRORS_BEFORE, &mut random).is_some() {
        return 0.0;
    }
    let opened = watch.until_refused(PAST + PATIENCE, errors, &mut random);
    opened.map_or(f64::INFINITY, |opened| seconds(opened - PAST))
}

/// Page's cumulative sum: evidence for `errors` over [`BORNE`], never below zero.
#[derive(Clone, Copy)]
struct Test {
    failure: f64,
    success: f64,
    enough: f64,
    evidence: f64,
}

impl Test {
    fn new(errors: f64, enough: f64) -> Self {
        // A rate of one would make a single success proof of health.
        let errors = errors.min(0.99);
        let (failure, success) = ((errors / BORNE).ln(), ((1.0 - errors) / (1.0 - BORNE)).ln());
        Self { failure, success, enough, evidence: 0.0 }
    }

    /// The most sensitive one with at most so many false trips a day, by bisection.
    fn as_rare_as(false_trips: f64, errors: f64, seeds: u64) -> Self {
        let (mut low, mut high) = (0.0, MOST_EVIDENCE);
        for _ in 0..BISECTIONS {
            let middle = f64::midpoint(low, high);
            let trips: u64 = each_seed(seeds, |seed| Self::new(errors, middle).trips(seed)).into_iter().sum();
            let days = (seeds * TUNING_CALLS) as f64 / CALLS / seconds(DAY);
            *(if trips as f64 / days > false_trips { &mut low } else { &mut high }) = middle;
        }
        Self::new(errors, high)
    }

    fn trips(mut self, seed: u64) -> u64 {
        // Not the stream with which it will be measured.
        let mut random = fastrand::Rng::with_seed(!seed);
        let mut trips = 0;
        for _ in 0..TUNING_CALLS {
            self.take(random.f64() < BORNE);
            if self.evidence >= self.enough {
                trips += 1;
                self.evidence = 0.0;
            }
        }
        trips
    }

    fn take(&mut self, failed: bool) {
        let step = if failed { self.failure } else { self.success };
        self.evidence = (self.evidence + step).max(0.0);
    }
}

/// Once it has refused it is of no further use.
impl Policy for Test {
    fn admit(&mut self, _: Nanos) -> Option<Ticket> {
        (self.evidence < self.enough).then(Ticket::default)
    }

    fn settle(&mut self, _: Nanos, _: Ticket, outcome: Outcome) {
        self.take(outcome == Outcome::Failure);
    }
}

const COLUMNS: [Column; 6] = [
    Column::new("false_trips_a_day_at_1", "false trips a day, 1 %", Show::Number).mean(),
    Column::new("false_trips_a_day_at_10", "10 %", Show::Number).mean(),
    Column::new("false_trips_a_day_at_30", "30 %", Show::Number).mean(),
    Column::new("trips_after_s_at_60", "time to trip, 60 %", Show::Seconds),
    Column::new("trips_after_s_at_80", "80 %", Show::Seconds),
    Column::new("trips_after_s_at_100", "100 %", Show::Seconds),
];
/// Rates that should be borne, in the order of [`COLUMNS`].
const FALSE: [f64; 3] = [0.01, 0.1, BORNE];
const AT_BORNE: usize = 2;
/// And those that should not.
const TRUE: [f64; 3] = [0.6, 0.8, 1.0];
const BORNE: f64 = 0.3;
const ERRORS_BEFORE: f64 = 0.001;
/// A second.
const CALLS: f64 = 10.0;
const DAY: Nanos = 86_400 * SECOND;
/// A tenth of a day for each seed: ten days in all at 100 seeds.
const WATCHED: Nanos = DAY / 10;
const PAST: Nanos = 600 * SECOND;
const PATIENCE: Nanos = 600 * SECOND;
/// For each seed: twice what is measured.
const TUNING_CALLS: u64 = 200_000;
const BISECTIONS: u32 = 16;
/// Beyond it a trip is a matter of centuries.
const MOST_EVIDENCE: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_needs_the_evidence_that_it_was_given() {
        // A failure at 60 % weighs ln 2: four of them make 2.77.
        let mut test = Test::new(0.6, 2.7);
        for failures in 0..4 {
            assert!(test.admit(0).is_some(), "after {failures}");
            test.settle(0, Ticket::default(), Outcome::Failure);
        }
        assert!(test.admit(0).is_none());
    }

    #[test]
    fn the_oracle_is_as_rare_as_it_was_told() {
        let test = Test::as_rare_as(1000.0, 0.6, 4);
        let trips = false_trips(&|_: &Seat| Box::new(test), 9, BORNE);
        assert!((700.0..1300.0).contains(&trips), "{trips}");
    }

    #[test]
    fn five_failures_in_a_row_are_found_within_a_second() {
        let make = |seat: &Seat| (ours::DEFAULT.make)(seat);
        let time = time_to_trip(&make, 1, 1.0);
        assert!(time < 2.0, "{time}");
        assert_eq!(false_trips(&make, 1, 0.01), 0.0);
    }
}
