//! Random steps in random order, with all that is counted counted anew after each: nothing drifts, and at every moment
//! somebody is there who will seal what is queued.

use proptest::prelude::*;

use super::*;

type Tested = State<u32, u32, ()>;

#[derive(Clone, Debug)]
enum Op {
    Abandon,
    Answer(usize),
    Arm,
    Begin(usize),
    Call {
        lane: u64,
        deadline: Option<u64>,
    },
    Close,
    Enable(bool),
    End(usize, Fate),
    Expire(u64),
    InFlight(usize),
    /// The caller is dropped.
    Leave(usize),
    LoseRunner(usize),
    LoseTimer,
    MaxItems(usize),
    Poll(usize),
    Seal(usize),
    /// Whether runners can be started where things happen from now on.
    Spawning(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let which = || any::<usize>();
    let fate = prop_oneof![4 => Just(Fate::Returned), 1 => Just(Fate::Panicked)];
    prop_oneof![
        1 => Just(Op::Abandon),
        10 => which().prop_map(Op::Answer),
        3 => Just(Op::Arm),
        15 => which().prop_map(Op::Begin),
        30 => (0u64..4, prop::option::weighted(0.3, 1u64..60)).prop_map(|(lane, deadline)| Op::Call { lane, deadline }),
        1 => Just(Op::Close),
        2 => any::<bool>().prop_map(Op::Enable),
        10 => (which(), fate).prop_map(|(which, fate)| Op::End(which, fate)),
        3 => (1u64..20).prop_map(Op::Expire),
        3 => (1usize..5).prop_map(Op::InFlight),
        6 => which().prop_map(Op::Leave),
        4 => which().prop_map(Op::LoseRunner),
        1 => Just(Op::LoseTimer),
        3 => (1usize..6).prop_map(Op::MaxItems),
        15 => which().prop_map(Op::Poll),
        15 => which().prop_map(Op::Seal),
        3 => any::<bool>().prop_map(Op::Spawning),
    ]
}

#[derive(Default)]
struct Runner {
    solo: Option<Id>,
    run: Option<u64>,
    sealed: bool,
    batch: Vec<Id>,
}

/// What `shared.rs` is to the state, one step at a time.
struct World {
    state: Tested,
    runners: Vec<Runner>,
    calls: Vec<Id>,
    next: u32,
    time: u64,
    start: Instant,
    spawning: bool,
    timer: bool,
    /// A runner was lost, and since then people have only left.
    short: bool,
    /// How many runners the last step has started.
    started: usize,
}

impl World {
    fn new(max_items: usize, in_flight: usize) -> Self {
        let options = Options { max_items, in_flight, max_queued: 20, enabled: true };
        Self {
            state: State::new(options),
            runners: Vec::new(),
            calls: Vec::new(),
            next: 0,
            time: 0,
            start: Instant::now(),
            spawning: true,
            timer: false,
            short: false,
            started: 0,
        }
    }

    fn decide<T>(&mut self, step: impl FnOnce(&mut Tested, &mut Effects<u32>) -> T) -> T {
        let mut fx = Effects::new();
        let answer = step(&mut self.state, &mut fx);
        self.state.settle(&mut fx);
        (self.started, self.short) = (fx.start, false);
        for _ in 0..fx.start {
            self.runners.push(Runner::default());
            if !self.spawning {
                self.lose(self.runners.len() - 1);
            }
        }
        if fx.timer == Rouse::Spawn {
            self.timer = self.spawning;
            if !self.spawning {
                self.lose_timer();
            }
        }
        answer
    }

    fn lose(&mut self, which: usize) {
        self.short = true;
        let runner = self.runners.remove(which);
        let mut fx = Effects::new();
        if let Some(run) = runner.run {
            self.state.set_fate(run, Fate::CutOff);
            for id in runner.batch {
                let _ = self.state.answer(id, None, false);
            }
            self.state.end(run, Tick::default(), &mut fx);
        }
        match runner.solo {
            None => self.state.lose_seat(runner.run.is_none(), &mut fx),
            Some(id) => self.state.lose_solo(id, &mut fx),
        }
        if self.state.wanted() > 0 {
            let nobody = self.state.seats == 0;
            for (_, entry) in self.state.entries.iter_mut() {
                let unwoken = matches!(entry.stage, Stage::Queued { .. }) && entry.waker.is_some();
                assert!(!unwoken || entry.homeless && !nobody, "somebody sleeps through it");
            }
        }
    }

    fn lose_timer(&mut self) {
        self.state.lose_timer(&mut Effects::new());
        for (_, entry) in self.state.entries.iter_mut() {
            let ended = matches!(entry.stage, Stage::Done(_));
            assert!(
                ended || entry.deadline.is_none() || entry.waker.is_none(),
                "nobody watches its deadline"
            );
        }
    }

    fn call(&mut self, lane: u64, deadline: Option<u64>) {
        let deadline = deadline.map(|after| self.start + Duration::from_millis(self.time + after));
        let number = self.next;
        self.next += 1;
        if !self.state.is_enabled() {
            if self.state.admit_any(None).is_ok() {
                let id = self.decide(|state, _| state.push_solo(number, Tick::default(), deadline));
                self.calls.push(id);
                self.runners.push(Runner { solo: Some(id), ..Runner::default() });
                if !self.spawning {
                    self.lose(self.runners.len() - 1);
                }
            }
            return;
        }
        let place = self.state.candidate(lane, None).map_or(Place::New, |(id, _)| Place::In(id));
        if self.state.admit(place, Tick::default(), None).is_ok() {
            let id =
                self.decide(|state, _| state.push(number, place, (lane, None), Tick::default(), deadline));
            self.calls.push(id);
        }
    }

    fn step(&mut self, op: Op) {
        let runners = self.runners.len().max(1);
        let calls = self.calls.len().max(1);
        match op {
            Op::Abandon => drop(self.decide(|state, fx| state.abandon(fx))),
            Op::Answer(which) => {
                if let Some(id) = self.runners.get_mut(which % runners).and_then(|runner| runner.batch.pop())
                {
                    let _ = self.decide(|state, _| state.answer(id, Some(Ok(1)), false));
                }
            }
            Op::Arm if self.timer => self.timer = self.decide(|state, _| state.arm()).is_some(),
            Op::Begin(which) => self.begin(which % runners),
            Op::Call { lane, deadline } => self.call(lane, deadline),
            Op::Close => drop(self.decide(|state, _| state.close())),
            Op::Enable(enabled) => self.decide(|state, _| state.options().enabled = enabled),
            Op::End(which, fate) => self.end(which % runners, fate),
            Op::Expire(after) => {
                self.time += after;
                let at = self.start + Duration::from_millis(self.time);
                self.decide(|state, fx| state.expire(at, Tick::default(), fx));
            }
            Op::InFlight(in_flight) => self.decide(|state, _| state.options().in_flight = in_flight),
            Op::Leave(which) if !self.calls.is_empty() => {
                let id = self.calls.remove(which % calls);
                self.state.leave(id, &mut Effects::new());
            }
            Op::LoseRunner(which) if !self.runners.is_empty() => self.lose(which % runners),
            Op::LoseTimer if self.timer => {
                self.timer = false;
                self.lose_timer();
            }
            Op::MaxItems(max_items) => self.decide(|state, _| state.set_max_items(max_items)),
            Op::Poll(which) if !self.calls.is_empty() => self.poll(which % calls),
            Op::Seal(which) => self.seal(which % runners),
            Op::Spawning(spawning) => self.spawning = spawning,
            Op::Arm | Op::Leave(_) | Op::LoseRunner(_) | Op::LoseTimer | Op::Poll(_) => {}
        }
        self.check();
    }

    fn poll(&mut self, which: usize) {
        let id = self.calls[which];
        let (look, stranded) = self.decide(|state, _| {
            let stranded = state.is_stranded(id);
            let look = state.look(id, Waker::noop());
            if matches!(look, Look::Unknown) {
                drop(state.set_waker(id, Waker::noop().clone()));
            }
            (look, stranded)
        });
        if self.started > 0 {
            self.state.has_tried(id);
        }
        if matches!(look, Look::Done(_)) {
            self.calls.remove(which);
        } else if stranded && self.state.is_stranded(id) {
            self.state.leave(id, &mut Effects::new());
            self.calls.remove(which);
        }
    }

    fn begin(&mut self, which: usize) {
        let Some(Runner { solo, run: None, .. }) = self.runners.get(which) else { return };
        let solo = *solo;
        match self.decide(|state, _| state.begin(solo, Tick::default())) {
            Some(run) => self.runners[which].run = Some(run),
            None => drop(self.runners.remove(which)),
        }
    }

    fn seal(&mut self, which: usize) {
        let Some(Runner { run: Some(run), sealed: false, .. }) = self.runners.get(which) else { return };
        let run = *run;
        let batch = self.decide(|state, fx| state.seal(run, Tick::default(), fx));
        assert!(batch.len() <= self.state.options.max_items);
        self.runners[which].sealed = true;
        self.runners[which].batch = batch.iter().map(|item| item.id).collect();
    }

    fn end(&mut self, which: usize, fate: Fate) {
        let Some(Runner { run: Some(run), solo, batch, .. }) = self.runners.get_mut(which) else { return };
        let (run, solo, batch) = (*run, *solo, std::mem::take(batch));
        self.state.set_fate(run, fate);
        for id in batch {
            let _ = self.decide(|state, _| state.answer(id, None, false));
        }
        // Out of the list first, as new ones are put at its end.
        let mut runner = self.runners.remove(which);
        let stay = self.decide(|state, fx| {
            state.end(run, Tick::default(), fx);
            if solo.is_some() { state.solo_ended() } else { state.stay() }
        });
        if stay {
            (runner.run, runner.sealed) = (None, false);
            self.runners.push(runner);
        }
    }

    fn check(&mut self) {
        let Self { state, runners, .. } = self;
        let (mut queued, mut live, mut deadlines) = (0, 0, BTreeSet::new());
        for (id, entry) in state.entries.iter_mut() {
            queued += usize::from(matches!(entry.stage, Stage::Queued { .. }));
            if !matches!(entry.stage, Stage::Done(_)) {
                live += 1;
                deadlines.extend(entry.deadline.map(|at| (at, id)));
            }
        }
        assert_eq!((state.queued, state.live), (queued, live));
        assert_eq!(state.deadlines, deadlines);

        let (mut needed, mut linked) = (0, 0);
        for (turn, id) in state.turns.clone() {
            let lane = state.lanes.get(id).expect("a lane has a turn as long as it exists");
            let (len, mut next, last, hash) = (lane.len, lane.first, lane.last, lane.hash);
            assert!(lane.turn == turn && len > 0 && state.by_hash.contains(&(hash, id)));
            needed += len.div_ceil(state.options.max_items);
            let mut previous = None;
            while let Some(at) = next {
                let Some(Stage::Queued { lane, before, after, .. }) = state.stage(at) else {
                    panic!("{at:?}")
                };
                assert_eq!((*lane, *before), (id, previous));
                (previous, next) = (Some(at), *after);
                linked += 1;
            }
            assert_eq!(previous, last);
        }
        assert_eq!((state.needed, state.queued), (needed, linked));
        assert_eq!((state.lanes.len(), state.by_hash.len()), (state.turns.len(), state.turns.len()));

        let seated = || runners.iter().filter(|runner| runner.solo.is_none());
        let open = seated().filter(|runner| !runner.sealed).count();
        let begun = runners.iter().filter(|runner| runner.run.is_some()).count();
        assert_eq!((state.seats, state.open), (seated().count(), open));
        assert_eq!((state.runs.len(), state.soloists), (begun, runners.len() - seated().count()));
        // Whoever has changed something has started what was missing, where that was possible.
        assert!(state.wanted() == 0 || self.short, "nobody will seal what is queued");
        assert_eq!(self.timer, state.timer != Timer::Absent);
    }

    /// Everybody looks, and every runner does its work.
    fn finish(mut self) {
        self.spawning = true;
        while !self.calls.is_empty() {
            let calls = self.calls.len();
            for which in (0..calls).rev() {
                self.step(Op::Poll(which));
            }
            for op in [Op::Begin, Op::Seal, |which| Op::End(which, Fate::Returned)] {
                for which in (0..self.runners.len()).rev() {
                    self.step(op(which));
                }
            }
        }
        for _ in 0..2 {
            for op in [Op::Begin, Op::Seal, |which| Op::End(which, Fate::Returned)] {
                for which in (0..self.runners.len()).rev() {
                    self.step(op(which));
                }
            }
        }
        if self.timer {
            self.step(Op::Arm);
        }
        let State { seats, open, soloists, queued, live, .. } = self.state;
        assert_eq!((seats, open, soloists, queued, live), (0, 0, 0, 0, 0));
        assert!(self.runners.is_empty() && !self.timer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_drifts_and_nobody_is_left_waiting(
        ops in prop::collection::vec(op(), 1..150),
        max_items in 1usize..5,
        in_flight in 1usize..4,
    ) {
        let mut world = World::new(max_items, in_flight);
        for op in ops {
            world.step(op);
        }
        world.finish();
    }
}
