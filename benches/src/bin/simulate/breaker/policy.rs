//! What an entrant is.

use swiftwater_core::Clock;

use crate::breaker::events::Nanos;

/// A breaker that is told what time it is. `now` never decreases, and every ticket is settled exactly once.
pub trait Policy {
    /// May a call be made?
    fn admit(&mut self, now: Nanos) -> Option<Ticket>;

    fn settle(&mut self, now: Nanos, ticket: Ticket, outcome: Outcome);
}

/// What the policy wants back when the call ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The caller went away: nobody knows how the call would have ended.
    Dropped,
    /// The remote failed, or had not answered when the time-out came.
    Failure,
    Success,
}

/// A policy in one configuration.
#[derive(Clone, Copy)]
pub struct Entrant {
    pub name: &'static str,
    pub ours: bool,
    pub make: fn(&Seat) -> Box<dyn Policy>,
}

/// Where a policy lives.
pub struct Seat {
    /// Of the simulation.
    pub clock: Clock,
    /// Differs from client to client.
    pub seed: u64,
}

impl Entrant {
    pub const fn rival(name: &'static str, make: fn(&Seat) -> Box<dyn Policy>) -> Self {
        Self { name, ours: false, make }
    }
}

/// The control: no breaker.
pub struct Open;

pub const NONE: Entrant = Entrant::rival("none", |_| Box::new(Open));

impl Policy for Open {
    fn admit(&mut self, _: Nanos) -> Option<Ticket> {
        Some(Ticket::default())
    }

    fn settle(&mut self, _: Nanos, _: Ticket, _: Outcome) {}
}
