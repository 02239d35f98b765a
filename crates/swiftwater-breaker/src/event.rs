//! What has happened to a breaker: its changes of state, in order.

use std::{collections::VecDeque, fmt, time::Duration};

use swiftwater_core::Tick;

use crate::state::State;

/// One change of a breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Counts the events of a breaker from 1. A gap: the ones between were overwritten before anybody took them.
    pub number: u64,
    /// When, by the breaker's clock.
    pub at: Tick,
    /// What it was before: the `to` of the event before.
    pub from: State,
    /// What it is since then.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// How long it will refuse, if it has opened by itself; zero otherwise.
    pub open_for: Duration,
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// [`force_open`](crate::Breaker::force_open), [`force_closed`](crate::Breaker::force_closed),
    /// [`reset`](crate::Breaker::reset) or [`set_enabled`](crate::Breaker::set_enabled).
    ByHand,
    /// [`consecutive`](crate::consecutive) failures.
    Consecutive,
    /// A [`failure_count`](crate::failure_count) was reached.
    FailureCount,
    /// A [`failure_rate`](crate::failure_rate) was reached.
    FailureRate,
    /// The open time is over, and somebody asked.
    OpenTimeOver,
    /// Too many probes failed, or were slow.
    ProbeFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// The [`ramp`](crate::Builder::ramp) after a recovery is over.
    RampOver,
    /// A [`slow_rate`](crate::slow_rate) was reached.
    SlowRate,
    /// Calls have [`stalled`](crate::stalled).
    Stalled,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByHand => "by hand",
            Self::Consecutive => "failures in a row",
            Self::FailureCount => "number of failures",
            Self::FailureRate => "share of failures",
            Self::OpenTimeOver => "open time over",
            Self::ProbeFailed => "probes failed",
            Self::ProbesSucceeded => "probes succeeded",
            Self::RampOver => "ramp over",
            Self::SlowRate => "share of slow calls",
            Self::Stalled => "calls stalled",
        })
    }
}

/// The latest events, and how far they were delivered. Takes memory with the first one.
#[derive(Debug, Default)]
pub(crate) struct Log {
    latest: VecDeque<Event>,
    last: u64,
    delivered: u64,
    /// Somebody hands events on, one after the other, and will look again before it stops.
    delivering: bool,
}

impl Log {
    pub(crate) fn add(&mut self, event: Event) {
        if self.latest.len() == KEPT {
            self.latest.pop_front();
        }
        self.latest.reserve_exact(KEPT - self.latest.len());
        self.last += 1;
        self.latest.push_back(Event { number: self.last, ..event });
    }

    pub(crate) fn after(&self, number: u64) -> Vec<Event> {
        self.latest.iter().filter(|event| event.number > number).copied().collect()
    }

    /// Whether the caller is to hand events on now.
    pub(crate) fn begin_delivery(&mut self) -> bool {
        let begin = !self.delivering && self.delivered < self.last;
        self.delivering |= begin;
        begin
    }

    /// The next event to hand on; after `None` the delivery is over.
    pub(crate) fn next_delivery(&mut self) -> Option<Event> {
        let next = self.latest.iter().find(|event| event.number > self.delivered).copied();
        match next {
            Some(event) => self.delivered = event.number,
            None => self.delivering = false,
        }
        next
    }
}

const KEPT: usize = 16;
