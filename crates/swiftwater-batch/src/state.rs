//! What happens when: decisions only. No clock, lock, runtime or foreign code in here; whoever holds the lock calls, and
//! afterwards performs the [`Effects`] without it.
//!
//! # Where a request is
//!
//! `Queued` in a lane, `Solo` (switched off: on its way to a batch of its own), `Running` (its batch is sealed, and a
//! [`Reply`](crate::Reply) owns the answer) or `Done` (there is an outcome that its [`Call`](crate::Call) has not picked
//! up). `live` counts those that are not done. An entry exists as long as its `Call`, so whatever else names it finds
//! nothing, or another stage, when it comes too late.
//!
//! # Lanes
//!
//! A lane exists while it has requests. `turns` is the order in which lanes are sealed: who has been sealed goes to the
//! end. `needed` counts the batches that the queued requests make up, lane by lane.
//!
//! # Seats
//!
//! A runner has a seat; `seats` never exceeds `in_flight`, save after that was lowered. The seat is `open` until the
//! batch of its present run is sealed. [`settle`](State::settle) runs after every change that may ask for more, and takes as
//! many new seats as batches are needed beyond the open ones: whoever holds the lock then starts runners for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    task::Waker,
    time::Duration,
};

use swiftwater_core::Tick;
use tokio::time::Instant;

use crate::{
    CallError, Reason,
    error::Ending,
    group::Key,
    pace::{Pace, is_late},
    slab::{Id, Slab},
};

/// What the builder was told.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) max_items: usize,
    pub(crate) in_flight: usize,
    pub(crate) max_queued: usize,
    pub(crate) enabled: bool,
}

pub(crate) struct State<R, O, E> {
    options: Options,
    entries: Slab<Entry<R, O, E>>,
    lanes: Slab<Lane>,
    /// By hash and age.
    by_hash: BTreeSet<(u64, Id)>,
    turns: BTreeMap<u64, Id>,
    next_turn: u64,
    /// Runs of the handler that have begun and not ended, oldest first.
    runs: BTreeMap<u64, Run>,
    next_run: u64,
    /// Those with a deadline that are not done.
    deadlines: BTreeSet<(Instant, Id)>,
    timer: Timer,
    pace: Pace,
    queued: usize,
    live: usize,
    needed: usize,
    seats: usize,
    open: usize,
    /// Runners of requests that run alone.
    soloists: usize,
    closed: bool,
    /// What a drain reports, counted from the start.
    pub(crate) tally: Tally,
}

/// Sums since the start, for drains, which report differences.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) completed: u64,
    pub(crate) refused: u64,
    pub(crate) abandoned: u64,
}

struct Entry<R, O, E> {
    stage: Stage<R, O, E>,
    since: Tick,
    deadline: Option<Instant>,
    waker: Option<Waker>,
    /// Where it was polled last no runner could be started.
    homeless: bool,
}

enum Stage<R, O, E> {
    Done(Ending<O, E>),
    Queued {
        request: R,
        lane: Id,
        before: Option<Id>,
        after: Option<Id>,
    },
    Running {
        run: u64,
        sealed: Tick,
    },
    /// `lost`: its runner is gone.
    Solo {
        request: R,
        lost: bool,
    },
}

struct Lane {
    key: Option<Key>,
    hash: u64,
    turn: u64,
    first: Option<Id>,
    last: Option<Id>,
    len: usize,
}

struct Run {
    began: Tick,
    sealed: bool,
    /// What the run may seal, if it is not whatever is next.
    solo: Option<Id>,
    fate: Fate,
    /// Enough for the learned batch time: a run that had work, and was not switched off.
    worked: bool,
}

/// How a run ends, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    CutOff,
    Panicked,
    Returned,
}

/// The task that watches deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    Absent,
    /// It will look anew no later than that.
    Armed(Instant),
    /// It has been started or rung, and is about to look.
    Roused,
}

/// Which lane a request belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    In(Id),
    New,
}

/// What is to be done once the lock is released. Nothing in here may be dropped under the lock.
pub(crate) struct Effects<R> {
    pub(crate) wake: Vec<Waker>,
    pub(crate) requests: Vec<R>,
    pub(crate) keys: Vec<Key>,
    pub(crate) expired: u64,
    /// How many runners to start; their seats are taken.
    pub(crate) start: usize,
    pub(crate) timer: Rouse,
    pub(crate) drained: bool,
}

/// What is to be done about the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rouse {
    Leave,
    Ring,
    Spawn,
}

impl<R> Effects<R> {
    pub(crate) const fn new() -> Self {
        Self {
            wake: Vec::new(),
            requests: Vec::new(),
            keys: Vec::new(),
            expired: 0,
            start: 0,
            timer: Rouse::Leave,
            drained: false,
        }
    }
}

/// For observers.
pub(crate) struct Numbers {
    pub(crate) queued: usize,
    pub(crate) running: usize,
    pub(crate) lanes: usize,
    pub(crate) max_items: usize,
    pub(crate) in_flight: usize,
    pub(crate) max_queued: usize,
    pub(crate) mode: &'static str,
}

/// A sealed request: for the handler, and for the statistics.
pub(crate) struct Sealed<R> {
    pub(crate) id: Id,
    pub(crate) request: R,
    pub(crate) queued: Duration,
}

/// What a [`Call`](crate::Call) leaves behind.
pub(crate) struct Left<R, O, E> {
    pub(crate) request: Option<R>,
    pub(crate) waker: Option<Waker>,
    /// `None` if the call had not ended.
    pub(crate) outcome: Option<Ending<O, E>>,
}

/// What a [`Call`](crate::Call) finds.
pub(crate) enum Look<O, E> {
    Done(Ending<O, E>),
    /// The waker that is stored would wake the asker.
    Known,
    /// There is another waker, or none.
    Unknown,
}

impl<R, O, E> State<R, O, E> {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            entries: Slab::new(),
            lanes: Slab::new(),
            by_hash: BTreeSet::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
            runs: BTreeMap::new(),
            next_run: 0,
            deadlines: BTreeSet::new(),
            timer: Timer::Absent,
            pace: Pace::new(),
            queued: 0,
            live: 0,
            needed: 0,
            seats: 0,
            open: 0,
            soloists: 0,
            closed: false,
            tally: Tally::default(),
        }
    }

    pub(crate) fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.options.enabled
    }

    pub(crate) fn set_max_items(&mut self, max_items: usize) {
        self.options.max_items = max_items;
        self.needed = self
            .turns
            .values()
            .filter_map(|id| self.lanes.get(*id))
            .map(|lane| lane.len.div_ceil(max_items))
            .sum();
    }

    pub(crate) fn numbers(&self) -> Numbers {
        let Options { max_items, in_flight, max_queued, enabled } = self.options;
        Numbers {
            queued: self.queued,
            running: self.runs.len(),
            lanes: self.lanes.len(),
            max_items,
            in_flight,
            max_queued,
            mode: match (self.closed, enabled) {
                (true, _) => "closed",
                (false, true) => "on",
                (false, false) => "off",
            },
        }
    }

    /// What every change ends with, but those that only take something away.
    pub(crate) fn settle(&mut self, fx: &mut Effects<R>) {
        let wanted = self.wanted();
        self.seats += wanted;
        self.open += wanted;
        fx.start += wanted;
        if self.timer == Timer::Absent && self.has_deadlines() {
            self.timer = Timer::Roused;
            fx.timer = Rouse::Spawn;
        }
        self.wind_up(fx);
    }

    /// The part of [`settle`](Self::settle) that starts nothing.
    fn wind_up(&mut self, fx: &mut Effects<R>) {
        if let Timer::Armed(armed) = self.timer
            && self.deadlines.first().is_none_or(|(first, _)| *first < armed)
        {
            self.timer = Timer::Roused;
            fx.timer = Rouse::Ring;
        }
        fx.drained |= self.is_drained();
    }

    /// How many runners are missing.
    fn wanted(&self) -> usize {
        let missing = self.needed.saturating_sub(self.open);
        missing.min(self.options.in_flight.saturating_sub(self.seats))
    }

    // ---- calls

    /// The first lane of this hash that is younger than `after`.
    pub(crate) fn candidate(&self, hash: u64, after: Option<Id>) -> Option<(Id, Option<Key>)> {
        let after = (hash, after.unwrap_or(Id::LEAST));
        let mut range = self.by_hash.range((Bound::Excluded(after), Bound::Unbounded));
        let (found, id) = range.next()?;
        let lane = self.lanes.get(*id).filter(|_| *found == hash)?;
        Some((*id, lane.key.clone()))
    }

    pub(crate) fn has_lane(&self, id: Id) -> bool {
        self.lanes.get(id).is_some()
    }

    /// Whether a request may come in now. `limit`: how long it can wait for its answer.
    pub(crate) fn admit(&mut self, place: Place, now: Tick, limit: Option<Duration>) -> Result<(), Reason> {
        self.admit_any(limit)?;
        if self.queued >= self.options.max_queued {
            return Err(Reason::Full { queued: self.queued });
        }
        let Some(limit) = limit else { return Ok(()) };
        let late = |before| self.expected(before, now).filter(|expected| is_late(*expected, limit));
        // Most would be in time even behind all others, and nobody has to go through the lanes for them.
        if late(self.needed).is_none() {
            return Ok(());
        }
        late(self.before(place)).map_or(Ok(()), |expected| Err(Reason::Late { expected }))
    }

    /// The part of [`admit`](Self::admit) that holds without a queue, too.
    pub(crate) fn admit_any(&mut self, limit: Option<Duration>) -> Result<(), Reason> {
        if self.closed {
            self.tally.refused += 1;
            return Err(Reason::Closed);
        }
        if limit.is_some_and(|limit| limit.is_zero()) {
            return Err(Reason::Late { expected: Duration::ZERO });
        }
        Ok(())
    }

    /// How many batches would be sealed before that of a request that came now.
    fn before(&self, place: Place) -> usize {
        let max_items = self.options.max_items;
        let own = match place {
            Place::In(id) => Some(id),
            Place::New => None,
        };
        let own_before = own.and_then(|id| self.lanes.get(id)).map_or(0, |lane| lane.len / max_items);
        let mut before = own_before;
        let mut turns = own_before + 1; // of each lane that comes earlier in the round
        for id in self.turns.values() {
            if Some(*id) == own {
                turns = own_before;
            } else if let Some(lane) = self.lanes.get(*id) {
                before += lane.len.div_ceil(max_items).min(turns);
            }
        }
        before
    }

    /// After how long a request with so many batches before it is answered, if anything stands before it.
    fn expected(&self, before: usize, now: Tick) -> Option<Duration> {
        let mut running = self.runs.values().filter(|run| run.sealed && run.solo.is_none());
        let since = running.next().map(|oldest| now - oldest.began);
        let count = running.count() + usize::from(since.is_some());
        self.pace.answer(before, count, self.options.in_flight, since.unwrap_or_default())
    }

    /// Into the lane, or into a new one of this key.
    pub(crate) fn push(
        &mut self,
        request: R,
        place: Place,
        (hash, key): (u64, Option<Key>),
        since: Tick,
        deadline: Option<Instant>,
    ) -> Id {
        let lane = match place {
            Place::In(id) => id,
            Place::New => self.open_lane(key, hash),
        };
        let before = self.lanes.get(lane).and_then(|lane| lane.last);
        let stage = Stage::Queued { request, lane, before, after: None };
        let id = self.insert(stage, since, deadline);
        if let Some(Stage::Queued { after, .. }) = before.and_then(|last| self.stage(last)) {
            *after = Some(id);
        }
        let lane = self.lanes.get_mut(lane).expect("opened above, or found under the same lock");
        lane.first.get_or_insert(id);
        lane.last = Some(id);
        self.needed += usize::from(lane.len.is_multiple_of(self.options.max_items));
        lane.len += 1;
        self.queued += 1;
        id
    }

    /// For a runner of its own, which the caller starts.
    pub(crate) fn push_solo(&mut self, request: R, since: Tick, deadline: Option<Instant>) -> Id {
        self.soloists += 1;
        self.insert(Stage::Solo { request, lost: false }, since, deadline)
    }

    fn insert(&mut self, stage: Stage<R, O, E>, since: Tick, deadline: Option<Instant>) -> Id {
        let id = self.entries.insert(Entry { stage, since, deadline, waker: None, homeless: false });
        if let Some(at) = deadline {
            self.deadlines.insert((at, id));
        }
        self.live += 1;
        id
    }

    /// Whether nobody is there who would ever end this call.
    pub(crate) fn is_stranded(&self, id: Id) -> bool {
        let Some(entry) = self.entries.get(id) else { return false };
        let nobody = match entry.stage {
            Stage::Done(_) => return false,
            Stage::Queued { .. } => self.seats == 0,
            Stage::Running { .. } => false,
            Stage::Solo { lost, .. } => lost,
        };
        nobody || (entry.deadline.is_some() && self.timer == Timer::Absent)
    }

    /// Takes the outcome, or tells whether `waker` is known.
    pub(crate) fn look(&mut self, id: Id, waker: &Waker) -> Look<O, E> {
        // Taken back as soon as it was made: it was at work already, and nobody would have watched its deadline.
        let Some(entry) = self.entries.get(id) else { return Look::Done(Err(CallError::RuntimeEnded)) };
        if matches!(entry.stage, Stage::Done(_)) {
            match self.entries.remove(id).map(|entry| entry.stage) {
                Some(Stage::Done(outcome)) => return Look::Done(outcome),
                _ => unreachable!("looked at above"),
            }
        }
        // Compares addresses; runs nothing foreign.
        match &entry.waker {
            Some(known) if known.will_wake(waker) => Look::Known,
            _ => Look::Unknown,
        }
    }

    /// Returns what is to be dropped without the lock.
    pub(crate) fn set_waker(&mut self, id: Id, waker: Waker) -> Option<Waker> {
        match self.entries.get_mut(id) {
            Some(entry) => entry.waker.replace(waker),
            None => Some(waker),
        }
    }

    /// Its caller has tried to start runners.
    pub(crate) fn has_tried(&mut self, id: Id) {
        let in_vain = self.wanted() > 0;
        if let Some(entry) = self.entries.get_mut(id) {
            entry.homeless = in_vain;
        }
    }

    pub(crate) fn has_deadline(&self, id: Id) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.deadline.is_some())
    }

    pub(crate) fn has_deadlines(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// The call is gone. What it leaves is to be dropped without the lock. Starts nothing: no more is needed than before,
    /// and where a runtime ends, all that its tasks have called leaves at once.
    pub(crate) fn leave(&mut self, id: Id, fx: &mut Effects<R>) -> Option<Left<R, O, E>> {
        let request = self.take_request(id, fx);
        let Entry { stage, waker, deadline, .. } = self.entries.remove(id)?;
        let outcome = match stage {
            Stage::Done(outcome) => Some(outcome),
            Stage::Queued { .. } | Stage::Running { .. } | Stage::Solo { .. } => {
                self.ended(id, deadline);
                None
            }
        };
        self.wind_up(fx);
        Some(Left { request, waker, outcome })
    }

    // ---- runs

    /// A runner begins a run. `None` if there is nothing left for it: its seat is given back.
    pub(crate) fn begin(&mut self, solo: Option<Id>, now: Tick) -> Option<u64> {
        match solo {
            // Fewer may have been asked for since it was started.
            None if self.needed < self.open || self.seats > self.options.in_flight => {
                self.open -= 1;
                self.seats -= 1;
                return None;
            }
            Some(id) if !matches!(self.stage(id), Some(Stage::Solo { .. })) => {
                self.soloists -= 1;
                return None;
            }
            _ => {}
        }
        let run = self.next_run;
        self.next_run += 1;
        self.runs.insert(run, Run { began: now, sealed: false, solo, fate: Fate::Returned, worked: false });
        Some(run)
    }

    /// What has gathered becomes the batch of this run.
    pub(crate) fn seal(&mut self, run: u64, now: Tick, fx: &mut Effects<R>) -> Vec<Sealed<R>> {
        let Some(Run { sealed: sealed @ false, solo, .. }) = self.runs.get_mut(&run) else {
            return Vec::new();
        };
        *sealed = true;
        let solo = *solo;
        if solo.is_none() {
            self.open -= 1;
        }
        let batch = self.take(solo, run, now, fx);
        if let (Some(run), false) = (self.runs.get_mut(&run), batch.is_empty()) {
            run.worked = solo.is_none();
        }
        batch
    }

    fn take(&mut self, solo: Option<Id>, run: u64, now: Tick, fx: &mut Effects<R>) -> Vec<Sealed<R>> {
        if let Some(id) = solo {
            return self.take_one(id, run, now, fx).into_iter().collect();
        }
        let Some((_, &lane)) = self.turns.first_key_value() else { return Vec::new() };
        let len = self.lanes.get(lane).map_or(0, |lane| lane.len);
        let mut batch = Vec::with_capacity(len.min(self.options.max_items));
        while batch.len() < self.options.max_items
            && let Some(first) = self.lanes.get(lane).and_then(|lane| lane.first)
            && let Some(item) = self.take_one(first, run, now, fx)
        {
            batch.push(item);
        }
        if let Some(rest) = self.lanes.get_mut(lane) {
            self.turns.remove(&rest.turn);
            rest.turn = self.next_turn;
            self.turns.insert(rest.turn, lane);
            self.next_turn += 1;
        }
        batch
    }

    fn take_one(&mut self, id: Id, run: u64, now: Tick, fx: &mut Effects<R>) -> Option<Sealed<R>> {
        let request = self.take_request(id, fx)?;
        let entry = self.entries.get_mut(id)?;
        entry.stage = Stage::Running { run, sealed: now };
        Some(Sealed { id, request, queued: now - entry.since })
    }

    /// A reply, or its loss (`None`). Returns the waker; the outcome if nobody wants it any more.
    pub(crate) fn answer(
        &mut self,
        id: Id,
        outcome: Option<Ending<O, E>>,
        unwinding: bool,
    ) -> Result<Option<Waker>, Option<Ending<O, E>>> {
        let Some(Entry { stage: Stage::Running { run, .. }, .. }) = self.entries.get(id) else {
            return Err(outcome);
        };
        let outcome = outcome.unwrap_or_else(|| {
            Err(match self.runs.get(run).map(|run| run.fate) {
                Some(Fate::CutOff) => CallError::RuntimeEnded,
                Some(Fate::Panicked) => CallError::HandlerPanicked,
                _ if unwinding => CallError::HandlerPanicked,
                Some(Fate::Returned) | None => CallError::NoReply,
            })
        });
        self.tally.completed += 1;
        Ok(self.finish(id, outcome))
    }

    /// How the run is about to end, for the replies that are lost with it.
    pub(crate) fn set_fate(&mut self, run: u64, fate: Fate) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.fate = fate;
        }
    }

    /// The run has ended. If it never sealed its batch, the requests of that batch end here, or it would be run over and
    /// over; a run that was cut off leaves them to the next one. Returns how many ended here, and how long the run took
    /// if it returned.
    pub(crate) fn end(&mut self, run: u64, now: Tick, fx: &mut Effects<R>) -> (u64, Option<Duration>) {
        let Some(Run { began, sealed, solo, fate, worked }) = self.runs.remove(&run) else {
            return (0, None);
        };
        if worked && fate == Fate::Returned {
            self.pace.learn(now - began);
        }
        let took = (fate == Fate::Returned).then_some(now - began);
        if sealed {
            return (0, took);
        }
        if solo.is_none() {
            self.open -= 1;
        }
        if fate == Fate::CutOff {
            return (0, None);
        }
        let batch = self.take(solo, run, now, fx);
        let unanswered = batch.len() as u64;
        for Sealed { id, request, .. } in batch {
            fx.requests.push(request);
            let error = if fate == Fate::Panicked { CallError::HandlerPanicked } else { CallError::NoReply };
            fx.wake.extend(self.finish(id, Err(error)));
        }
        self.tally.completed += unanswered;
        (unanswered, took)
    }

    /// After a run: whether the runner is to go on. If not, its seat is given back.
    pub(crate) fn stay(&mut self) -> bool {
        if self.seats <= self.options.in_flight && self.needed > self.open {
            self.open += 1;
            return true;
        }
        self.seats -= 1;
        false
    }

    /// As [`stay`](Self::stay), for a request that ran alone.
    pub(crate) fn solo_ended(&mut self) -> bool {
        self.soloists -= 1;
        false
    }

    /// A runner was dropped by its runtime, or could not be started. Wakes those who have nobody now: they look for
    /// another runtime. Who has looked in vain is left to the runners that there still are, or two of them would wake each
    /// other without end.
    pub(crate) fn lose_seat(&mut self, open: bool, fx: &mut Effects<R>) {
        self.seats -= 1;
        self.open -= usize::from(open);
        if self.wanted() > 0 {
            for (_, entry) in self.entries.iter_mut() {
                if matches!(entry.stage, Stage::Queued { .. }) && !(entry.homeless && self.seats > 0) {
                    fx.wake.extend(entry.waker.take());
                }
            }
        }
        fx.drained |= self.is_drained();
    }

    /// As [`lose_seat`](Self::lose_seat), for a request that was to run alone.
    pub(crate) fn lose_solo(&mut self, id: Id, fx: &mut Effects<R>) {
        self.soloists -= 1;
        if let Some(Entry { stage: Stage::Solo { lost, .. }, waker, .. }) = self.entries.get_mut(id) {
            *lost = true;
            fx.wake.extend(waker.take());
        }
        fx.drained |= self.is_drained();
    }

    // ---- time

    /// Ends every call whose deadline has passed.
    pub(crate) fn expire(&mut self, at: Instant, now: Tick, fx: &mut Effects<R>) {
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= at
        {
            let Some(entry) = self.entries.get(id) else {
                self.deadlines.pop_first();
                continue;
            };
            let (queued, running) = match entry.stage {
                Stage::Running { sealed, .. } => (sealed - entry.since, Some(now - sealed)),
                _ => (now - entry.since, None),
            };
            let request = self.take_request(id, fx);
            fx.requests.extend(request);
            fx.wake.extend(self.finish(id, Err(CallError::Expired { queued, running })));
            fx.expired += 1;
            self.tally.completed += 1;
        }
    }

    /// The timer looks: until when it may sleep; `None` if it is not needed, and ends.
    pub(crate) fn arm(&mut self) -> Option<Instant> {
        let first = self.deadlines.first().map(|(at, _)| *at);
        self.timer = first.map_or(Timer::Absent, Timer::Armed);
        first
    }

    /// The timer was dropped by its runtime, or could not be started. Wakes those who relied on it.
    pub(crate) fn lose_timer(&mut self, fx: &mut Effects<R>) {
        self.timer = Timer::Absent;
        for (_, id) in &self.deadlines {
            fx.wake.extend(self.entries.get_mut(*id).and_then(|entry| entry.waker.take()));
        }
    }

    // ---- the end

    pub(crate) fn close(&mut self) -> Tally {
        self.closed = true;
        self.tally
    }

    /// Nothing will happen any more.
    pub(crate) fn is_drained(&self) -> bool {
        self.closed && self.live == 0 && self.seats == 0 && self.soloists == 0
    }

    /// Ends every call that has not ended.
    pub(crate) fn abandon(&mut self, fx: &mut Effects<R>) -> u64 {
        let live =
            |(id, entry): (Id, &mut Entry<R, O, E>)| (!matches!(entry.stage, Stage::Done(_))).then_some(id);
        let ids: Vec<_> = self.entries.iter_mut().filter_map(live).collect();
        for id in &ids {
            let request = self.take_request(*id, fx);
            fx.requests.extend(request);
            fx.wake.extend(self.finish(*id, Err(CallError::Closed)));
        }
        self.tally.abandoned += ids.len() as u64;
        ids.len() as u64
    }

    // ---- private

    fn stage(&mut self, id: Id) -> Option<&mut Stage<R, O, E>> {
        self.entries.get_mut(id).map(|entry| &mut entry.stage)
    }

    fn open_lane(&mut self, key: Option<Key>, hash: u64) -> Id {
        let turn = self.next_turn;
        self.next_turn += 1;
        let id = self.lanes.insert(Lane { key, hash, turn, first: None, last: None, len: 0 });
        self.by_hash.insert((hash, id));
        self.turns.insert(turn, id);
        id
    }

    /// The request out of the queue, and the entry, for a moment, in a stage that says nothing: the caller sets another,
    /// or removes it.
    fn take_request(&mut self, id: Id, fx: &mut Effects<R>) -> Option<R> {
        let stage = self.stage(id)?;
        if !matches!(stage, Stage::Queued { .. } | Stage::Solo { .. }) {
            return None;
        }
        let none = Stage::Running { run: u64::MAX, sealed: Tick::default() };
        match std::mem::replace(stage, none) {
            Stage::Queued { request, lane, before, after } => {
                self.unlink(lane, before, after, fx);
                Some(request)
            }
            Stage::Solo { request, .. } => Some(request),
            Stage::Done(_) | Stage::Running { .. } => unreachable!("looked at above"),
        }
    }

    fn unlink(&mut self, lane: Id, before: Option<Id>, after: Option<Id>, fx: &mut Effects<R>) {
        if let Some(Stage::Queued { after: link, .. }) = before.and_then(|id| self.stage(id)) {
            *link = after;
        }
        if let Some(Stage::Queued { before: link, .. }) = after.and_then(|id| self.stage(id)) {
            *link = before;
        }
        self.queued -= 1;
        let Some(place) = self.lanes.get_mut(lane) else { return };
        if before.is_none() {
            place.first = after;
        }
        if after.is_none() {
            place.last = before;
        }
        place.len -= 1;
        self.needed -= usize::from(place.len.is_multiple_of(self.options.max_items));
        if place.len == 0
            && let Some(Lane { key, hash, turn, .. }) = self.lanes.remove(lane)
        {
            self.turns.remove(&turn);
            self.by_hash.remove(&(hash, lane));
            fx.keys.extend(key);
        }
    }

    fn finish(&mut self, id: Id, outcome: Ending<O, E>) -> Option<Waker> {
        let entry = self.entries.get_mut(id)?;
        entry.stage = Stage::Done(outcome);
        let (waker, deadline) = (entry.waker.take(), entry.deadline);
        self.ended(id, deadline);
        waker
    }

    fn ended(&mut self, id: Id, deadline: Option<Instant>) {
        self.live -= 1;
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, id));
        }
    }
}

#[cfg(test)]
mod tests;
