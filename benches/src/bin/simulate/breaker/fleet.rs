//! Clients, each with a breaker of its own, before one server: what the scenarios of overload, recovery and hanging share.
//!
//! - Calls come in a Poisson stream, whatever becomes of them (an open loop), each to a client drawn at random.
//! - A call is up to [`attempts`](Plan::attempts) attempts. Each asks the client's breaker first; a refusal ends the call.
//! - An attempt that is not answered within the time-out has failed, and the client goes on to the next; the server does not
//!   hear of it, and does the work all the same.
//! - The server is a few workers before a queue of limited length; what finds the queue full fails at once. Its work is
//!   exponential. The [`Weather`] says how well it is.
//! - Before the scenario begins every breaker has seen a [`past`](Plan::past) of calls that all succeeded, at the rate
//!   of its client.
//!
//! Calls and work are drawn from streams of their own, so every entrant of a seed meets the same.

use crate::breaker::{
    events::{Events, MILLISECOND, Nanos, SECOND, Time, exponential, seconds},
    policy::{Entrant, Outcome, Policy, Seat, Ticket},
    server::{Arrival, Server},
};

pub struct Plan {
    pub clients: usize,
    /// A second, of all clients together.
    pub calls: f64,
    pub attempts: u8,
    /// Between two attempts: drawn from half of it to one and a half.
    pub pause: Nanos,
    pub time_out: Nanos,
    /// The caller is gone after this, before the time is out, and with it the call: nobody hears how it would have ended.
    pub patience: Option<Nanos>,
    pub workers: usize,
    /// Work of an attempt at full speed, the mean.
    pub work: Nanos,
    pub queue: usize,
    pub past: Nanos,
    /// Of the scenario itself.
    pub length: Nanos,
}

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weather {
    /// Refuses at once; what it was doing is lost.
    Dead,
    /// Takes everything, answers nothing; what it was doing is lost.
    Hung,
    /// At this share of full speed.
    Working(f64),
}

/// What happened, second by second, from the beginning of the scenario.
pub struct Record {
    pub seconds: Vec<Second>,
    /// Times at which a breaker refused an attempt, each client's first since `watch`, in no order.
    pub first_refusals: Vec<Nanos>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// That began in it.
    pub calls: u32,
    /// Of those, how many were answered in the end.
    pub answered: u32,
    /// That breakers let through in it.
    pub attempts: u32,
    /// That breakers refused in it.
    pub refused: u32,
}

/// Runs a scenario. `weather` takes the time since its beginning; refusals are noted from `watch` on.
pub fn run(
    plan: &Plan,
    entrant: &Entrant,
    seed: u64,
    watch: Nanos,
    weather: impl Fn(Nanos) -> Weather,
) -> Record {
    let mut time = Time::new();
    let mut seeds = fastrand::Rng::with_seed(seed);
    let mut clients: Vec<Client> = (0..plan.clients)
        .map(|_| {
            let seat = Seat { clock: time.clock(), seed: seeds.u64(..) };
            Client { breaker: (entrant.make)(&seat), refused: None }
        })
        .collect();
    live_well(plan, &mut time, &mut clients);
    let run = Run {
        plan,
        weather,
        watch,
        began: time.now(),
        clients,
        server: Server::new(plan.workers, plan.queue),
        events: Events::new(time),
        attempts: Vec::new(),
        seconds: vec![Second::default(); (plan.length / SECOND) as usize],
        arrivals: seeds.fork(),
        work: seeds.fork(),
        pauses: seeds.fork(),
    };
    run.play()
}

fn live_well(plan: &Plan, time: &mut Time, clients: &mut [Client]) {
    let gap = (plan.clients as f64 / plan.calls * SECOND as f64) as Nanos;
    for _ in 0..plan.past / gap {
        time.move_to(time.now() + gap);
        for Client { breaker, .. } in &mut *clients {
            if let Some(ticket) = breaker.admit(time.now()) {
                breaker.settle(time.now(), ticket, Outcome::Success);
            }
        }
    }
}

struct Client {
    breaker: Box<dyn Policy>,
    /// When first, since there is somebody watching.
    refused: Option<Nanos>,
}

#[derive(Clone, Copy)]
struct Call {
    client: usize,
    /// In which it began.
    second: usize,
    attempts_left: u8,
}

struct Attempt {
    call: Call,
    ticket: Ticket,
    waited_for: bool,
}

#[derive(Clone, Copy)]
enum Event {
    /// A new call, and the next one planned.
    Calls,
    /// The caller of the attempt goes away.
    Leaves(usize),
    Retries(Call),
    /// A worker has finished the attempt's work.
    Served(usize),
    /// The attempt has failed: its time is out, or it was refused.
    Fails(usize),
}

struct Run<'a, W> {
    plan: &'a Plan,
    weather: W,
    watch: Nanos,
    began: Nanos,
    clients: Vec<Client>,
    server: Server<usize>,
    events: Events<Event>,
    attempts: Vec<Attempt>,
    seconds: Vec<Second>,
    arrivals: fastrand::Rng,
    work: fastrand::Rng,
    pauses: fastrand::Rng,
}

impl<W: Fn(Nanos) -> Weather> Run<'_, W> {
    fn play(mut self) -> Record {
        self.events.plan(0, Event::Calls);
        let end = self.began + self.plan.length;
        while let Some(event) = self.events.next(end) {
            match event {
                Event::Calls => self.call(),
                Event::Fails(attempt) => self.fail(attempt),
                Event::Leaves(attempt) => self.settle(attempt, Outcome::Dropped).map_or((), drop),
                Event::Retries(call) => self.attempt(call),
                Event::Served(attempt) => self.served(attempt),
            }
        }
        let first_refusals = self.clients.iter().filter_map(|client| client.refused).collect();
        Record { seconds: self.seconds, first_refusals }
    }

    /// Since the scenario began.
    fn now(&self) -> Nanos {
        self.events.now() - self.began
    }

    fn second(&mut self) -> &mut Second {
        let now = self.now();
        &mut self.seconds[(now / SECOND) as usize]
    }

    fn call(&mut self) {
        let gap = exponential(&mut self.arrivals, SECOND as f64 / self.plan.calls);
        self.events.plan(gap, Event::Calls);
        let client = self.arrivals.usize(..self.clients.len());
        let second = (self.now() / SECOND) as usize;
        self.second().calls += 1;
        self.attempt(Call { client, second, attempts_left: self.plan.attempts });
    }

    fn attempt(&mut self, mut call: Call) {
        call.attempts_left -= 1;
        let now = self.now();
        let client = &mut self.clients[call.client];
        let Some(ticket) = client.breaker.admit(self.events.now()) else {
            if now >= self.watch {
                client.refused.get_or_insert(now);
            }
            self.second().refused += 1;
            return;
        };
        self.second().attempts += 1;
        let attempt = self.attempts.len();
        self.attempts.push(Attempt { call, ticket, waited_for: true });
        match self.plan.patience {
            Some(patience) => self.events.plan_as_ever(patience, Event::Leaves(attempt)),
            None => self.events.plan_as_ever(self.plan.time_out, Event::Fails(attempt)),
        }
        match (self.weather)(now) {
            Weather::Dead => self.events.plan(ROUND_TRIP, Event::Fails(attempt)),
            Weather::Hung => {}
            Weather::Working(speed) => match self.server.arrive(attempt) {
                Arrival::Refused => self.events.plan(ROUND_TRIP, Event::Fails(attempt)),
                Arrival::Starts => self.start(attempt, speed),
                Arrival::Waits => {}
            },
        }
    }

    fn start(&mut self, attempt: usize, speed: f64) {
        let work = exponential(&mut self.work, self.plan.work as f64 / speed);
        self.events.plan(work, Event::Served(attempt));
    }

    fn served(&mut self, attempt: usize) {
        let Weather::Working(speed) = (self.weather)(self.now()) else {
            self.server.forget_queue();
            self.server.finish();
            return;
        };
        if let Some(call) = self.settle(attempt, Outcome::Success) {
            self.seconds[call.second].answered += 1;
        }
        if let Some(next) = self.server.finish() {
            self.start(next, speed);
        }
    }

    fn fail(&mut self, attempt: usize) {
        if let Some(call) = self.settle(attempt, Outcome::Failure)
            && call.attempts_left > 0
        {
            let pause = self.plan.pause / 2 + self.pauses.u64(0..=self.plan.pause);
            self.events.plan(pause, Event::Retries(call));
        }
    }

    /// The attempt has ended for its client; `None` if it had before.
    fn settle(&mut self, attempt: usize, outcome: Outcome) -> Option<Call> {
        let Attempt { call, ticket, waited_for } = &mut self.attempts[attempt];
        if !std::mem::take(waited_for) {
            return None;
        }
        self.clients[call.client].breaker.settle(self.events.now(), *ticket, outcome);
        Some(*call)
    }
}

impl Record {
    /// The share of the calls in these seconds that were answered.
    pub fn goodput(&self, from: Nanos, to: Nanos) -> f64 {
        let seconds = self.between(from, to);
        let calls: u32 = seconds.iter().map(|second| second.calls).sum();
        let answered: u32 = seconds.iter().map(|second| second.answered).sum();
        f64::from(answered) / f64::from(calls.max(1))
    }

    /// How long after `from` no 5 s are any more in which less than `share` of the calls were answered; infinite if
    /// such are to the end.
    pub fn recovery(&self, from: Nanos, share: f64) -> f64 {
        let first = from / SECOND;
        // The last calls may still be under way.
        let last = self.seconds.len() as u64 - STEADY - MARGIN;
        let bad = |start: &u64| self.goodput(start * SECOND, (start + STEADY) * SECOND) < share;
        match (first..=last).rev().find(bad) {
            None => 0.0,
            Some(bad) if bad == last => f64::INFINITY,
            Some(bad) => seconds((bad + 1 - first) * SECOND),
        }
    }

    pub fn between(&self, from: Nanos, to: Nanos) -> &[Second] {
        &self.seconds[(from / SECOND) as usize..(to / SECOND) as usize]
    }
}

/// Of a refusal by the server.
const ROUND_TRIP: Nanos = MILLISECOND;
/// In seconds: so long a dip no longer counts as chance.
const STEADY: u64 = 5;
/// In seconds: longer than any call takes, with all its attempts.
const MARGIN: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::policy::NONE;

    const PLAN: Plan = Plan {
        clients: 10,
        calls: 500.0,
        attempts: 1,
        pause: 0,
        time_out: SECOND,
        patience: None,
        workers: 10,
        work: 10 * MILLISECOND,
        queue: 1000,
        past: SECOND,
        length: 60 * SECOND,
    };

    #[test]
    fn half_the_load_is_all_answered() {
        let record = run(&PLAN, &NONE, 1, 0, |_| Weather::Working(1.0));
        let goodput = record.goodput(0, 50 * SECOND);
        assert_eq!((goodput, record.recovery(0, 0.99)), (1.0, 0.0));
        let calls: u32 = record.between(0, 60 * SECOND).iter().map(|second| second.calls).sum();
        assert!((29_000..31_000).contains(&calls), "{calls}");
    }

    #[test]
    fn a_dead_server_answers_nothing_and_recovers_at_once() {
        let dead = 20 * SECOND..30 * SECOND;
        let weather = |now| if dead.contains(&now) { Weather::Dead } else { Weather::Working(1.0) };
        let record = run(&PLAN, &NONE, 1, 0, weather);
        assert!(record.goodput(20 * SECOND, 30 * SECOND) < 0.01);
        assert_eq!(record.recovery(30 * SECOND, 0.99), 0.0);
    }

    #[test]
    fn the_same_seed_is_the_same_history() {
        let history = |seed| {
            let record = run(&PLAN, &NONE, seed, 0, |_| Weather::Working(0.5));
            record.seconds.iter().map(|second| (second.calls, second.answered)).collect::<Vec<_>>()
        };
        assert_eq!(history(3), history(3));
        assert_ne!(history(3), history(4));
    }
}
