//! Random operations against a twin that knows what was acknowledged last: writing behind never shows a reader what is older,
//! and in the end the source has exactly that.

mod common;
mod sink_common;

use std::{collections::HashMap, time::Duration};

use common::{Gates, cache, settle};
use proptest::prelude::*;
use sink_common::{Ends, Source};
use swiftwater_cache::{LoadError, Region, StoreError, Writes};
use tokio::{runtime::Builder, task::JoinSet, time::advance};

const KEYS: u64 = 4;
const MAX_PENDING: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    /// Milliseconds.
    Advance(u64),
    Ask(u64),
    AskAll,
    /// Lets the oldest running loader finish.
    Finish,
    Flush,
    Invalidate(u64),
    /// Pushes others out of memory.
    Press(u64),
    /// Lets the call of the sink end.
    Sink(Ends),
    Store(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..300_u64).prop_map(Step::Advance),
        4 => (0..KEYS).prop_map(Step::Ask),
        1 => Just(Step::AskAll),
        4 => Just(Step::Finish),
        1 => Just(Step::Flush),
        1 => (0..KEYS).prop_map(Step::Invalidate),
        1 => (0..KEYS).prop_map(Step::Press),
        4 => prop_oneof![3 => Just(Ends::Applied), 1 => prop::sample::select(Ends::ALL.to_vec())]
            .prop_map(Step::Sink),
        5 => (0..KEYS).prop_map(Step::Store),
    ]
}

struct World {
    source: Source,
    sinks: Gates<Ends>,
    loads: Gates<()>,
    rows: Region<u64, u32>,
    /// What was acknowledged last.
    twin: HashMap<u64, u32>,
    asked: JoinSet<()>,
    value: u32,
}

impl World {
    fn new() -> Self {
        let sinks = Gates::new();
        let source = Source::gated(&sinks);
        let writes = Writes::behind(source.clone()).max_batch(2).max_pending(MAX_PENDING);
        let rows = cache().region("rows").memory(2).writes(writes).build().unwrap();
        Self {
            source,
            sinks,
            loads: Gates::new(),
            rows,
            twin: HashMap::new(),
            asked: JoinSet::new(),
            value: 0,
        }
    }

    fn acknowledged(&self, key: u64) -> u32 {
        self.twin.get(&key).copied().unwrap_or(0)
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Advance(millis) => advance(Duration::from_millis(millis)).await,
            Step::Ask(key) => {
                let (rows, source, loads) = (self.rows.clone(), self.source.clone(), self.loads.clone());
                let least = self.acknowledged(key);
                self.asked.spawn(async move {
                    let load = async move |_| {
                        let row = source.row(key);
                        loads.pass(key).await;
                        Ok(row)
                    };
                    match rows.get_or_load(&key, load).await {
                        Ok(row) => assert!(*row >= least, "{} of {key}, after {least}", *row),
                        Err(LoadError::Unwritten) => {}
                        Err(error) => panic!("{error}"),
                    }
                });
            }
            Step::AskAll => {
                let (rows, source, loads) = (self.rows.clone(), self.source.clone(), self.loads.clone());
                let least: Vec<u32> = (0..KEYS).map(|key| self.acknowledged(key)).collect();
                self.asked.spawn(async move {
                    let load = move |cx: swiftwater_cache::ManyCx<u64>| {
                        let found: Vec<_> = cx.keys().iter().map(|key| (*key, source.row(*key))).collect();
                        let loads = loads.clone();
                        async move {
                            loads.pass(found[0].0).await;
                            Ok(found)
                        }
                    };
                    let keys: Vec<u64> = (0..KEYS).collect();
                    match rows.get_or_load_many(&keys, load).await {
                        Ok(found) => {
                            for (row, least) in found.iter().zip(least) {
                                let row = **row.as_ref().unwrap();
                                assert!(row >= least, "{row}, after {least}");
                            }
                        }
                        Err(LoadError::Unwritten) => {}
                        Err(error) => panic!("{error}"),
                    }
                });
            }
            Step::Finish if self.loads.waiting() > 0 => self.loads.open(()),
            Step::Flush => {
                let rows = self.rows.clone();
                self.asked.spawn(async move { drop(rows.flush().await) });
            }
            Step::Invalidate(key) => {
                self.rows.invalidate(&key);
            }
            Step::Press(key) => {
                self.rows.insert(100 + key, 0);
                self.rows.insert(200 + key, 0);
            }
            Step::Sink(ends) if self.sinks.waiting() > 0 => {
                assert_eq!(self.sinks.waiting(), 1, "one call at a time");
                self.sinks.open(ends);
            }
            Step::Finish | Step::Sink(_) => {}
            Step::Store(key) => {
                self.value += 1;
                match self.rows.store(key, self.value).await {
                    Ok(()) => {
                        self.twin.insert(key, self.value);
                    }
                    Err(StoreError::Full(value)) => assert_eq!(value, self.value),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        settle().await;
        for key in 0..KEYS {
            if let Some(row) = self.rows.get(&key) {
                assert!(*row >= self.acknowledged(key), "{} of {key} in memory", *row);
            }
        }
        while let Some(ended) = self.asked.try_join_next() {
            ended.unwrap();
        }
    }

    /// Everything ends well from here on.
    async fn end(mut self) {
        let rows = self.rows.clone();
        let flush = common::spawn(async move { rows.flush().await });
        for _ in 0..100 {
            while self.sinks.waiting() > 0 {
                self.sinks.open(Ends::Applied);
                settle().await;
            }
            while self.loads.waiting() > 0 {
                self.loads.open(());
                settle().await;
            }
            settle().await;
        }
        flush.await.unwrap().unwrap();
        while let Some(ended) = self.asked.join_next().await {
            ended.unwrap();
        }
        assert_eq!(self.source.rows(), self.twin);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_reads_what_is_older_than_acknowledged_and_all_of_it_arrives(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
            }
            world.end().await;
        });
    }
}
