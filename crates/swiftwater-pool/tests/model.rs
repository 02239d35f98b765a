//! Random operations against a naive twin: same counts, same callers served, refused and timed out, in the same order,
//! after every step.

mod common;

use std::{
    collections::{BTreeMap, VecDeque},
    task::Poll,
    time::Duration,
};

use common::*;
use proptest::{prelude::*, test_runner::TestCaseError};
use swiftwater_core::Backoff;
use swiftwater_pool::{Check, Get, GetError, Guard};

#[derive(Clone, Debug)]
enum Op {
    Close,
    /// One attempt to connect ends.
    Connected(bool),
    /// One of those who wait gives up.
    Drop(usize),
    Enable(bool),
    Get,
    Pass(u64),
    /// A connection comes back, to be closed.
    Discard(usize, bool),
    Return(usize),
    /// A connection comes back, and the caller who gets it leaves before he has looked.
    ReturnAndLeave(usize),
    SetMax(u32),
    TryGet,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Close),
        12 => prop::bool::weighted(0.8).prop_map(Op::Connected),
        4 => any::<usize>().prop_map(Op::Drop),
        2 => any::<bool>().prop_map(Op::Enable),
        20 => Just(Op::Get),
        4 => (1u64..60).prop_map(Op::Pass),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, broken)| Op::Discard(which, broken)),
        14 => any::<usize>().prop_map(Op::Return),
        3 => any::<usize>().prop_map(Op::ReturnAndLeave),
        3 => (1u32..6).prop_map(Op::SetMax),
        4 => Just(Op::TryGet),
    ]
}

/// How a get ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Closed,
    Failed,
    Full,
    Served,
    TimedOut,
}

#[derive(Clone, Debug)]
struct Setup {
    max: u32,
    min_idle: u32,
    max_connecting: u32,
    max_waiters: Option<u32>,
    idle_timeout: Option<u64>,
}

fn setup() -> impl Strategy<Value = Setup> {
    let reserve = prop_oneof![
        (0u32..3).prop_map(|min_idle| (min_idle, None)),
        (20u64..100).prop_map(|idle_timeout| (0, Some(idle_timeout))),
    ];
    (2u32..6, 1u32..4, prop::option::of(0u32..6), reserve).prop_map(
        |(max, max_connecting, max_waiters, (min_idle, idle_timeout))| Setup {
            max,
            min_idle,
            max_connecting,
            max_waiters,
            idle_timeout,
        },
    )
}

const PATIENCE: u64 = 70;

/// The twin: numbers and lists, nothing that happens at the same time.
struct Twin {
    setup: Setup,
    now: u64,
    /// When each idle connection was last used.
    idle: VecDeque<u64>,
    /// Who waits, until when.
    waiting: VecDeque<(usize, u64)>,
    lent: u32,
    connecting: u32,
    ended: bool,
    enabled: bool,
    fates: Vec<(usize, Fate)>,
}

impl Twin {
    fn open(&self) -> u32 {
        self.connecting + self.lent + self.idle.len() as u32
    }

    fn get(&mut self, who: usize) {
        if self.ended {
            self.fates.push((who, Fate::Closed));
        } else if self.waiting.is_empty() && self.idle.pop_back().is_some() {
            self.lent += 1;
            self.fates.push((who, Fate::Served));
        } else if self
            .setup
            .max_waiters
            .is_some_and(|most| self.waiting.len() as u32 >= most + self.setup.max.saturating_sub(self.lent))
        {
            self.fates.push((who, Fate::Full));
        } else {
            self.waiting.push_back((who, self.now + PATIENCE));
        }
    }

    /// A good connection is free. `reuse`: it has been used before.
    fn free(&mut self, reuse: bool) {
        if self.ended || self.open() >= self.setup.max || (reuse && !self.enabled) {
            return;
        }
        if let Some((who, _)) = self.waiting.pop_front() {
            self.lent += 1;
            self.fates.push((who, Fate::Served));
        } else if self.enabled {
            self.idle.push_back(self.now);
        }
    }

    fn connected(&mut self, works: bool) {
        self.connecting -= 1;
        if works {
            self.free(false);
        } else if let Some((who, _)) = self.waiting.pop_front() {
            self.fates.push((who, Fate::Failed));
        }
    }

    fn close(&mut self) {
        self.ended = true;
        self.connecting = 0;
        self.idle.clear();
        for (who, _) in self.waiting.drain(..) {
            self.fates.push((who, Fate::Closed));
        }
    }

    fn balance(&mut self) {
        if self.ended {
            return;
        }
        while self.open() > self.setup.max && self.idle.pop_front().is_some() {}
        let mut wanted = self.waiting.len() as u32;
        if self.enabled {
            let reserve = self.setup.min_idle.min(self.setup.max);
            wanted += reserve.saturating_sub(self.idle.len() as u32);
        }
        while self.connecting < wanted.min(self.setup.max_connecting) && self.open() < self.setup.max {
            self.connecting += 1;
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        while self.waiting.front().is_some_and(|(_, until)| *until <= self.now) {
            let (who, _) = self.waiting.pop_front().unwrap();
            self.fates.push((who, Fate::TimedOut));
        }
        if let Some(limit) = self.setup.idle_timeout {
            while self.idle.front().is_some_and(|used| used + limit <= self.now) {
                self.idle.pop_front();
            }
        }
        self.balance();
    }
}

fn fate(result: Result<Guard<Backend>, GetError<Refused>>, guards: &mut Vec<Guard<Backend>>) -> Fate {
    match result {
        Ok(guard) => {
            guards.push(guard);
            Fate::Served
        }
        Err(GetError::Closed) => Fate::Closed,
        Err(GetError::Connect(Refused)) => Fate::Failed,
        Err(GetError::Full { .. }) => Fate::Full,
        Err(GetError::Timeout(_)) => Fate::TimedOut,
        Err(other) => panic!("{other}"),
    }
}

async fn run(setup: Setup, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let backend = Backend::new();
    backend.always_connects(Step::Wait);
    let pool = builder()
        .max_size(setup.max)
        .min_idle(setup.min_idle)
        .max_connecting(setup.max_connecting)
        .max_waiters(setup.max_waiters)
        .idle_timeout(setup.idle_timeout.map(millis))
        .max_lifetime(None)
        .acquire_timeout(millis(PATIENCE))
        .connect_timeout(Duration::from_secs(3600))
        .check(Check::Never)
        .retry_connection(false)
        .backoff(Backoff::new(Duration::ZERO, Duration::ZERO))
        .build(backend.clone())
        .unwrap();
    let knob = max_size_knob(&pool);
    let start = tokio::time::Instant::now();
    let mut twin = Twin {
        setup,
        now: 0,
        idle: VecDeque::new(),
        waiting: VecDeque::new(),
        lent: 0,
        connecting: 0,
        ended: false,
        enabled: true,
        fates: Vec::new(),
    };
    twin.balance();
    settle().await;
    twin.pass(1);
    let mut gets: BTreeMap<usize, Get<Backend>> = BTreeMap::new();
    let mut guards: Vec<Guard<Backend>> = Vec::new();
    let mut fates = Vec::new();
    let mut served = 0;
    for (who, op) in ops.into_iter().enumerate() {
        prop_assert_eq!(start.elapsed(), millis(twin.now));
        match op {
            Op::Close => {
                drop(pool.close());
                twin.close();
            }
            Op::Connected(works) => {
                if twin.connecting > 0 {
                    backend.release(works);
                    settle().await;
                    twin.connected(works);
                    twin.balance();
                    twin.pass(1);
                }
            }
            Op::Drop(which) => {
                let waiting: Vec<_> = gets.keys().copied().collect();
                if !waiting.is_empty() {
                    let which = waiting[which % waiting.len()];
                    gets.remove(&which);
                    twin.waiting.retain(|(who, _)| *who != which);
                }
            }
            Op::Enable(enabled) => {
                pool.set_enabled(enabled);
                twin.enabled = enabled;
                if !enabled {
                    twin.idle.clear();
                }
            }
            Op::Get => {
                let mut get = pool.get();
                twin.get(who);
                match peek(&mut get) {
                    Poll::Pending => drop(gets.insert(who, get)),
                    Poll::Ready(result) => fates.push((who, fate(result, &mut guards))),
                }
            }
            Op::Pass(millis) => {
                pass(Duration::from_millis(millis)).await;
                twin.pass(millis + 1);
            }
            Op::Discard(which, broken) => {
                if !guards.is_empty() {
                    let mut guard = guards.swap_remove(which % guards.len());
                    if broken {
                        guard.broken = true;
                        drop(guard);
                    } else {
                        guard.discard();
                    }
                    twin.lent -= 1;
                }
            }
            Op::Return(which) => {
                if !guards.is_empty() {
                    drop(guards.swap_remove(which % guards.len()));
                    twin.lent -= 1;
                    twin.free(true);
                }
            }
            Op::ReturnAndLeave(which) => {
                if !guards.is_empty() {
                    drop(guards.swap_remove(which % guards.len()));
                    twin.lent -= 1;
                    let before = twin.fates.len();
                    twin.free(true);
                    if let Some((who, Fate::Served)) = twin.fates.get(before).copied() {
                        twin.fates.pop();
                        gets.remove(&who);
                        twin.lent -= 1;
                        twin.free(true);
                    }
                }
            }
            Op::SetMax(max) => {
                knob.set(max.into()).unwrap();
                twin.setup.max = max;
            }
            Op::TryGet => {
                let got = pool.try_get();
                let expected = twin.waiting.is_empty() && twin.idle.pop_back().is_some();
                prop_assert_eq!(got.is_some(), expected);
                if let Some(guard) = got {
                    guards.push(guard);
                    twin.lent += 1;
                    served += 1;
                }
            }
        }
        twin.balance();
        settle().await;
        twin.pass(1);
        // At rest everybody is told, so nobody leaves later with something undelivered.
        gets.retain(|who, get| match peek(get) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                fates.push((*who, fate(result, &mut guards)));
                false
            }
        });
        let state = pool.state();
        prop_assert_eq!(
            (state.connecting, state.idle, state.in_use, state.waiters, state.max_size),
            (twin.connecting, twin.idle.len() as u32, twin.lent, twin.waiting.len() as u32, twin.setup.max)
        );
        prop_assert!(state.idle == 0 || state.waiters == 0, "I4: {:?}", state);
        prop_assert!(state.in_use + state.idle + state.connecting == backend.sockets() as u32, "I2");
        prop_assert!(backend.sockets() <= 5, "I1: never more than the largest max");
        prop_assert_eq!(
            reading(&pool, "connects") - closed(&pool),
            u64::from(state.idle + state.in_use),
            "I13"
        );
        // Who is told in one step is a set, what step that is follows from the order of the queue.
        fates.sort_by_key(|(who, _)| *who);
        twin.fates.sort_by_key(|(who, _)| *who);
        prop_assert_eq!(&fates, &twin.fates);
        served += fates.iter().filter(|(_, fate)| *fate == Fate::Served).count() as u64;
        fates.clear();
        twin.fates.clear();
    }
    prop_assert_eq!(reading(&pool, "gets"), served);
    drop(gets);
    drop(guards);
    pool.close().await;
    prop_assert_eq!(backend.sockets(), 0, "I11");
    prop_assert_eq!(reading(&pool, "connects"), closed(&pool));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pool_does_what_its_naive_twin_does(setup in setup(), ops in prop::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(setup, ops))?;
    }
}
