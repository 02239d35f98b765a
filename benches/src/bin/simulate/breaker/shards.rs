//! Partial failure: one shard of ten is dead.
//!
//! The idea: Brooker, "Will circuit breakers solve my problems?" (2022): a breaker for a whole service turns the failure of
//! a part of it into a failure of all of it.
//!
//! The model: 20 clients with 10 calls a second each, every call to one of ten shards, drawn evenly, up to three
//! attempts at once after one another. Nine shards answer within 10 ms (exponential), and of 5000 attempts one fails;
//! the tenth refuses after 1 ms, from the beginning to the end, ten minutes later. With retries a quarter of all
//! attempts fail, and they come in rows.
//!
//! Claim: with a breaker for each shard, at least 99.9 % of the calls to the other nine succeed, in every seed.

use crate::{
    breaker::{
        events::{Events, MILLISECOND, Nanos, SECOND, Time, exponential},
        ours,
        policy::{Entrant, Outcome, Policy, Seat, Ticket},
        rivals,
    },
    report::{Column, Report, Show},
    seeds::each_seed,
};

pub fn run(seeds: u64) -> Report {
    let about = format!(
        "Ten shards behind one name, one of them dead; clients with up to three attempts a call, and one breaker for \
         all shards or one for each. Dead shard: attempts it gets, of those it would get without a breaker. {seeds} \
         seeds: median (least to greatest)."
    );
    let mut report = Report { about, columns: COLUMNS.to_vec(), rows: Vec::new(), broken: Vec::new() };
    let service_wide = rivals::ALL.into_iter().chain(ours::service_wide());
    let keyed = [rivals::FIXED, ours::DEFAULT];
    let entrants = service_wide.map(|entrant| (entrant, Scope::Service));
    for (entrant, scope) in entrants.chain(keyed.map(|entrant| (entrant, Scope::Shard))) {
        let found = each_seed(seeds, |seed| Run::new(&entrant, scope, seed).play());
        let name = match scope {
            Scope::Service => entrant.name.to_owned(),
            Scope::Shard => format!("{}, one for each shard", entrant.name),
        };
        let least = found.iter().map(|seed| seed[0]).fold(1.0, f64::min);
        if entrant.name == ours::DEFAULT.name && scope == Scope::Shard && least < HEALTHY {
            report.broken.push(format!("{name} answers {least:.4} of the calls to healthy shards in a seed"));
        }
        report.row(name, entrant.ours, &found);
    }
    report
}

/// What one breaker stands for.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Service,
    Shard,
}

struct Run {
    events: Events<Event>,
    /// A client's one, or its ten.
    breakers: Vec<Vec<Box<dyn Policy>>>,
    calls: fastrand::Rng,
    answers: fastrand::Rng,
    healthy: Tally,
    to_the_dead: u32,
    /// Attempts that the dead shard would have got without a breaker.
    for_the_dead: u32,
}

#[derive(Default)]
struct Tally {
    calls: u32,
    answered: u32,
}

#[derive(Clone, Copy)]
struct Call {
    client: usize,
    shard: usize,
    attempts_left: u8,
}

enum Event {
    Calls,
    Ends(Call, Ticket, Outcome),
}

impl Run {
    fn new(entrant: &Entrant, scope: Scope, seed: u64) -> Self {
        let time = Time::new();
        let mut seeds = fastrand::Rng::with_seed(seed);
        let each = if scope == Scope::Shard { SHARDS } else { 1 };
        let mut breaker = || (entrant.make)(&Seat { clock: time.clock(), seed: seeds.u64(..) });
        let breakers = (0..CLIENTS).map(|_| (0..each).map(|_| breaker()).collect()).collect();
        // Not from `seeds`: those who have more breakers have drawn more.
        let mut streams = fastrand::Rng::with_seed(!seed);
        Self {
            events: Events::new(time),
            breakers,
            calls: streams.fork(),
            answers: streams.fork(),
            healthy: Tally::default(),
            to_the_dead: 0,
            for_the_dead: 0,
        }
    }

    fn play(mut self) -> Vec<f64> {
        self.events.plan(0, Event::Calls);
        while let Some(event) = self.events.next(LENGTH) {
            match event {
                Event::Calls => self.call(),
                Event::Ends(call, ticket, outcome) => self.end(call, ticket, outcome),
            }
        }
        let Tally { calls, answered } = self.healthy;
        vec![
            f64::from(answered) / f64::from(calls),
            f64::from(self.to_the_dead) / f64::from(self.for_the_dead),
        ]
    }

    fn call(&mut self) {
        let gap = exponential(&mut self.calls, SECOND as f64 / CALLS);
        self.events.plan(gap, Event::Calls);
        let (client, shard) = (self.calls.usize(..CLIENTS), self.calls.usize(..SHARDS));
        match shard {
            DEAD => self.for_the_dead += u32::from(ATTEMPTS),
            _ => self.healthy.calls += 1,
        }
        self.attempt(Call { client, shard, attempts_left: ATTEMPTS });
    }

    fn attempt(&mut self, mut call: Call) {
        call.attempts_left -= 1;
        let now = self.events.now();
        let Some(ticket) = self.breaker(call).admit(now) else { return };
        let (after, outcome) = match call.shard {
            DEAD => {
                self.to_the_dead += 1;
                (REFUSAL, Outcome::Failure)
            }
            _ if self.answers.f64() < ERRORS => (REFUSAL, Outcome::Failure),
            _ => (exponential(&mut self.answers, ANSWER as f64), Outcome::Success),
        };
        self.events.plan(after, Event::Ends(call, ticket, outcome));
    }

    fn end(&mut self, call: Call, ticket: Ticket, outcome: Outcome) {
        let now = self.events.now();
        self.breaker(call).settle(now, ticket, outcome);
        match outcome {
            Outcome::Success => self.healthy.answered += 1,
            _ if call.attempts_left > 0 => self.attempt(call),
            _ => {}
        }
    }

    fn breaker(&mut self, call: Call) -> &mut dyn Policy {
        let breakers = &mut self.breakers[call.client];
        let place = call.shard % breakers.len();
        &mut *breakers[place]
    }
}

const COLUMNS: [Column; 2] = [
    Column::new("healthy_shards", "calls to the nine answered", Show::Percent),
    Column::new("dead_shard", "dead shard", Show::Percent),
];

const CLIENTS: usize = 20;
const SHARDS: usize = 10;
const DEAD: usize = 9;
/// A second, of all clients.
const CALLS: f64 = 200.0;
const ATTEMPTS: u8 = 3;
const ANSWER: Nanos = 10 * MILLISECOND;
const REFUSAL: Nanos = MILLISECOND;
/// Of the healthy shards.
const ERRORS: f64 = 0.0002;
const LENGTH: Nanos = 600 * SECOND;
/// What must be answered of the calls to the nine.
const HEALTHY: f64 = 0.999;
