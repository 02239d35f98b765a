//! What a pool counts, and how it is described.

use std::time::Duration;

use swiftwater_core::{Counter, Desc, Histogram, Unit, Visitor};

use crate::State;

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) gets: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) rejected: Counter,
    pub(crate) full: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) connects: Counter,
    pub(crate) connect_failures: Counter,
    pub(crate) closed: [Counter; Reason::ALL.len()],
    pub(crate) wait_time: Histogram,
    pub(crate) use_time: Histogram,
    pub(crate) connect_time: Histogram,
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Broken,
    CheckFailed,
    Discarded,
    Expired,
    Idle,
    Surplus,
}

impl Reason {
    const ALL: [(Self, &'static Desc); 6] = [
        (Self::Broken, &CLOSED_BROKEN),
        (Self::CheckFailed, &CLOSED_CHECK_FAILED),
        (Self::Discarded, &CLOSED_DISCARDED),
        (Self::Expired, &CLOSED_EXPIRED),
        (Self::Idle, &CLOSED_IDLE),
        (Self::Surplus, &CLOSED_SURPLUS),
    ];
}

impl Stats {
    pub(crate) fn closed(&self, reason: Reason) {
        self.closed[reason as usize].add(1);
    }

    pub(crate) fn waited(&self, duration: Duration) {
        self.wait_time.record_duration(duration);
    }

    pub(crate) fn show(&self, state: State, mode: &'static str, visitor: &mut dyn Visitor) {
        visitor.counter(&GETS, self.gets.read());
        visitor.counter(&TIMEOUTS, self.timeouts.read());
        visitor.counter(&REJECTED, self.rejected.read());
        visitor.counter(&FULL, self.full.read());
        visitor.counter(&CANCELLED, self.cancelled.read());
        visitor.counter(&CONNECTS, self.connects.read());
        visitor.counter(&CONNECT_FAILURES, self.connect_failures.read());
        for (reason, desc) in Reason::ALL {
            visitor.counter(desc, self.closed[reason as usize].read());
        }
        visitor.histogram(&WAIT, &self.wait_time);
        visitor.histogram(&USE, &self.use_time);
        visitor.histogram(&CONNECT, &self.connect_time);
        visitor.gauge(&CONNECTING, state.connecting.into());
        visitor.gauge(&IDLE, state.idle.into());
        visitor.gauge(&IN_USE, state.in_use.into());
        visitor.gauge(&WAITERS, state.waiters.into());
        visitor.gauge(&MAX_SIZE, state.max_size.into());
        visitor.state(&MODE, &mode);
    }
}

static GETS: Desc = Desc::new("gets", Unit::Count, "connections handed out");
static TIMEOUTS: Desc = Desc::new("timeouts", Unit::Count, "gets that got nothing within acquire_timeout");
static REJECTED: Desc = Desc::new("rejected", Unit::Count, "gets that failed because the gate said no");
static FULL: Desc =
    Desc::new("full", Unit::Count, "gets that were refused because as many as max_waiters allows waited");
static CANCELLED: Desc = Desc::new("cancelled", Unit::Count, "gets that were dropped while they waited");
static CONNECTS: Desc = Desc::new("connects", Unit::Count, "connections opened");
static CONNECT_FAILURES: Desc = Desc::new(
    "connect_failures",
    Unit::Count,
    "attempts to connect that failed, panicked, took too long or gave a broken connection",
);
static CLOSED_BROKEN: Desc =
    Desc::new("closed_broken", Unit::Count, "connections closed because is_broken said so");
static CLOSED_CHECK_FAILED: Desc = Desc::new(
    "closed_check_failed",
    Unit::Count,
    "connections closed because their check failed, panicked or took too long",
);
static CLOSED_DISCARDED: Desc = Desc::new(
    "closed_discarded",
    Unit::Count,
    "connections closed because their use was cancelled, panicked or ended in discard",
);
static CLOSED_EXPIRED: Desc =
    Desc::new("closed_expired", Unit::Count, "connections closed at the end of their lifetime");
static CLOSED_IDLE: Desc =
    Desc::new("closed_idle", Unit::Count, "connections closed because nobody used them");
static CLOSED_SURPLUS: Desc = Desc::new(
    "closed_surplus",
    Unit::Count,
    "connections closed because the pool was closed, switched off or made smaller",
);
static WAIT: Desc =
    Desc::new("wait", Unit::Seconds, "time waited by the gets that had to wait and were served or timed out");
static USE: Desc = Desc::new("use", Unit::Seconds, "time from checkout to return");
static CONNECT: Desc = Desc::new("connect", Unit::Seconds, "time that opening a connection took");
static CONNECTING: Desc = Desc::new("connecting", Unit::Count, "connections being opened");
static IDLE: Desc = Desc::new("idle", Unit::Count, "connections that nobody uses");
static IN_USE: Desc = Desc::new("in_use", Unit::Count, "connections that are handed out or being checked");
static WAITERS: Desc = Desc::new("waiters", Unit::Count, "gets that wait");
pub(crate) static MAX_SIZE: Desc = Desc::new("max_size", Unit::Count, "connections that the pool may have");
static MODE: Desc = Desc::new("mode", Unit::Count, "on, off (no reuse) or closed");
