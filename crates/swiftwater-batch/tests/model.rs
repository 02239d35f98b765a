//! Random operations against a naive twin: the same batches are sealed in the same order, and the same calls end in the
//! same way, after every step. The handler's runs are held, and released by the test.

mod common;

use std::{
    collections::{BTreeMap, VecDeque},
    task::Poll,
};

use common::*;
use proptest::{prelude::*, test_runner::TestCaseError};
use swiftwater_batch::{Batcher, CallError, Reason};
use swiftwater_core::Clock;

#[derive(Clone, Debug)]
enum Op {
    Call {
        lane: u32,
        deadline: Option<u64>,
    },
    Close,
    /// Somebody leaves, wherever his request is.
    Drop(usize),
    Enable(bool),
    InFlight(usize),
    MaxItems(usize),
    MaxQueued(usize),
    Pass(u64),
    Release(usize, Step),
}

fn op() -> impl Strategy<Value = Op> {
    let step = prop_oneof![
        6 => Just(Step::Answer),
        1 => Just(Step::Fail),
        1 => Just(Step::Lose),
        1 => Just(Step::Panic),
    ];
    prop_oneof![
        30 => (0u32..4, prop::option::weighted(0.3, 1u64..60)).prop_map(|(lane, deadline)| Op::Call { lane, deadline }),
        1 => Just(Op::Close),
        6 => any::<usize>().prop_map(Op::Drop),
        2 => any::<bool>().prop_map(Op::Enable),
        2 => (1usize..4).prop_map(Op::InFlight),
        2 => (1usize..5).prop_map(Op::MaxItems),
        2 => (1usize..12).prop_map(Op::MaxQueued),
        5 => (1u64..30).prop_map(Op::Pass),
        12 => (any::<usize>(), step).prop_map(|(which, step)| Op::Release(which, step)),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Closed,
    ExpiredQueued,
    ExpiredRunning,
    Failed,
    Full,
    Lost,
    Panicked,
}

impl Fate {
    fn of(id: u32, outcome: Outcome) -> Result<Self, TestCaseError> {
        Ok(match outcome {
            Ok(answer) => {
                prop_assert_eq!(answer, id * 10, "somebody else's answer");
                Self::Answered
            }
            Err(CallError::Expired { running: None, .. }) => Self::ExpiredQueued,
            Err(CallError::Expired { running: Some(_), .. }) => Self::ExpiredRunning,
            Err(CallError::Handler(_)) => Self::Failed,
            Err(CallError::HandlerPanicked) => Self::Panicked,
            Err(CallError::NoReply) => Self::Lost,
            Err(CallError::Refused(Reason::Closed)) => Self::Closed,
            Err(CallError::Refused(Reason::Full { .. })) => Self::Full,
            Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
        })
    }
}

/// The twin: lists and numbers, nothing that happens at the same time.
struct Twin {
    max_items: usize,
    in_flight: usize,
    max_queued: usize,
    now: u64,
    closed: bool,
    enabled: bool,
    /// Lanes with requests, whose turn it is first.
    lanes: VecDeque<(u32, VecDeque<u32>)>,
    /// Runs: whether it is one of those that are limited, and its requests.
    runs: Vec<(bool, Vec<u32>)>,
    sealed: Vec<Vec<u32>>,
    /// Those that have not ended and were not dropped.
    live: BTreeMap<u32, Option<u64>>,
    fates: BTreeMap<u32, Fate>,
}

impl Twin {
    fn queued(&self) -> usize {
        self.lanes.iter().map(|(_, lane)| lane.len()).sum()
    }

    fn call(&mut self, id: u32, lane: u32, deadline: Option<u64>) {
        if self.closed {
            self.fates.insert(id, Fate::Closed);
            return;
        }
        if !self.enabled {
            self.live.insert(id, deadline.map(|deadline| self.now + deadline));
            self.runs.push((false, vec![id]));
            self.sealed.push(vec![id]);
            return;
        }
        if self.queued() >= self.max_queued {
            self.fates.insert(id, Fate::Full);
            return;
        }
        self.live.insert(id, deadline.map(|deadline| self.now + deadline));
        match self.lanes.iter_mut().find(|(key, _)| *key == lane) {
            Some((_, queue)) => queue.push_back(id),
            None => self.lanes.push_back((lane, VecDeque::from([id]))),
        }
    }

    fn leave_queue(&mut self, id: u32) -> bool {
        let before = self.queued();
        for (_, lane) in &mut self.lanes {
            lane.retain(|other| *other != id);
        }
        self.lanes.retain(|(_, lane)| !lane.is_empty());
        self.queued() < before
    }

    fn expire(&mut self) {
        let now = self.now;
        let late = |(id, deadline): (&u32, &Option<u64>)| deadline.is_some_and(|at| at <= now).then_some(*id);
        for id in self.live.iter().filter_map(late).collect::<Vec<_>>() {
            let fate = if self.leave_queue(id) { Fate::ExpiredQueued } else { Fate::ExpiredRunning };
            self.live.remove(&id);
            self.fates.insert(id, fate);
        }
    }

    fn release(&mut self, which: usize, step: Step) {
        let (_, batch) = self.runs.remove(which);
        let fate = match step {
            Step::Answer => Fate::Answered,
            Step::Fail => Fate::Failed,
            Step::Lose => Fate::Lost,
            Step::Panic => Fate::Panicked,
        };
        for id in batch {
            if self.live.remove(&id).is_some() {
                self.fates.insert(id, fate);
            }
        }
    }

    fn start(&mut self) {
        while self.runs.iter().filter(|(limited, _)| *limited).count() < self.in_flight
            && let Some((key, mut lane)) = self.lanes.pop_front()
        {
            let rest = lane.split_off(lane.len().min(self.max_items));
            if !rest.is_empty() {
                self.lanes.push_back((key, rest));
            }
            let batch: Vec<_> = lane.into();
            self.runs.push((true, batch.clone()));
            self.sealed.push(batch);
        }
    }
}

async fn compare(
    ops: Vec<Op>,
    (max_items, in_flight, max_queued): (usize, usize, usize),
) -> Result<(), TestCaseError> {
    let hold = Hold::new();
    // It stands still: batches take no time, so nothing is late.
    let (clock, _hand) = Clock::manual();
    let builder = Batcher::builder(hold.clone()).max_items(max_items).in_flight(in_flight);
    let lookups = builder.max_queued(max_queued).group_by(|id| id % 4).clock(clock).build().unwrap();
    let mut twin = Twin {
        max_items,
        in_flight,
        max_queued,
        now: 0,
        closed: false,
        enabled: true,
        lanes: VecDeque::new(),
        runs: Vec::new(),
        sealed: Vec::new(),
        live: BTreeMap::new(),
        fates: BTreeMap::new(),
    };
    let mut calls: BTreeMap<u32, Lookup> = BTreeMap::new();
    let mut fates = BTreeMap::new();
    for (number, op) in (0..).zip(ops) {
        match op.clone() {
            Op::Call { lane, deadline } => {
                let id = number * 4 + lane;
                let handle = lookups.with_deadline(deadline.map(millis));
                match handle.try_call(id) {
                    Ok(call) => drop(calls.insert(id, call)),
                    Err(refused) => {
                        prop_assert_eq!(refused.request, id);
                        fates.insert(id, Fate::of(id, Err(CallError::Refused(refused.reason)))?);
                    }
                }
                twin.call(id, lane, deadline);
            }
            Op::Close => {
                drop(lookups.drain(millis(0)));
                twin.closed = true;
            }
            Op::Drop(which) if !calls.is_empty() => {
                let id = *calls.keys().nth(which % calls.len()).unwrap();
                calls.remove(&id);
                twin.live.remove(&id);
                twin.fates.remove(&id); // nobody will ever know
                twin.leave_queue(id);
            }
            Op::Enable(enabled) => {
                lookups.set_enabled(enabled);
                twin.enabled = enabled;
            }
            Op::InFlight(in_flight) => {
                knob(&lookups, "in_flight").set(in_flight as f64).unwrap();
                twin.in_flight = in_flight;
            }
            Op::MaxItems(max_items) => {
                knob(&lookups, "max_items").set(max_items as f64).unwrap();
                twin.max_items = max_items;
            }
            Op::MaxQueued(max_queued) => {
                knob(&lookups, "max_queued").set(max_queued as f64).unwrap();
                twin.max_queued = max_queued;
            }
            Op::Pass(ms) => {
                tokio::time::advance(millis(ms)).await;
                twin.now += ms;
                twin.expire();
            }
            Op::Release(which, step) if !twin.runs.is_empty() => {
                let which = which % twin.runs.len();
                hold.release(which, step);
                twin.release(which, step);
            }
            Op::Drop(_) | Op::Release(..) => {}
        }
        settle().await;
        twin.start();
        // Everybody but every third looks at once; those look in the end.
        let due: Vec<_> = calls.keys().copied().filter(|id| id / 4 % 3 != 0).collect();
        for id in due {
            if let Poll::Ready(outcome) = poll(calls.get_mut(&id).unwrap()) {
                calls.remove(&id);
                fates.insert(id, Fate::of(id, outcome)?);
            }
        }
        let looked = |(id, _): &(&u32, &Fate)| !calls.contains_key(id);
        let expected: BTreeMap<_, _> =
            twin.fates.iter().filter(looked).map(|(id, fate)| (*id, *fate)).collect();
        prop_assert_eq!(&fates, &expected, "after {:?}", op);
        prop_assert_eq!(hold.sealed(), twin.sealed.clone(), "after {:?}", op);
        prop_assert_eq!(reading(&lookups, "queued"), twin.queued() as u64, "after {:?}", op);
        prop_assert_eq!(reading(&lookups, "running"), twin.runs.len() as u64, "after {:?}", op);
        prop_assert_eq!(reading(&lookups, "lanes"), twin.lanes.len() as u64, "after {:?}", op);
    }
    // To the end: everybody has an outcome, and nothing is left.
    while !hold.held().is_empty() {
        hold.answer().await;
    }
    for (id, call) in calls {
        let fate = Fate::of(id, ready(call))?;
        if let Some(expected) = twin.fates.get(&id) {
            prop_assert_eq!(fate, *expected, "call {}", id);
        }
    }
    settle().await;
    for gauge in ["queued", "running", "lanes"] {
        prop_assert_eq!(reading(&lookups, gauge), 0, "{}", gauge);
    }
    prop_assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_as_its_naive_twin(
        ops in prop::collection::vec(op(), 1..80),
        setup in (1usize..5, 1usize..4, 1usize..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        // What the handler panics on purpose is not worth a page of output.
        std::panic::set_hook(Box::new(|_| ()));
        let outcome = runtime.block_on(compare(ops, setup));
        let _ = std::panic::take_hook();
        outcome?;
    }
}
