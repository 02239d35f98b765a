//! Random operations against a map.

mod disk_common;

use std::collections::HashMap;

use disk_common::*;
use proptest::prelude::*;
use swiftwater_cache::Layer;

#[derive(Clone, Debug)]
enum Op {
    Close,
    Flush,
    Get(u64),
    GetMany(Vec<u64>),
    /// What a kill at this moment leaves is what goes on.
    Kill,
    Put(u64, u64),
    Remove(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || 0_u64..24;
    let op = prop_oneof![
        1 => Just(Op::Close),
        1 => Just(Op::Flush),
        20 => key().prop_map(Op::Get),
        2 => proptest::collection::vec(key(), 0..8).prop_map(Op::GetMany),
        1 => Just(Op::Kill),
        30 => (key(), 0_u64..1000).prop_map(|(key, version)| Op::Put(key, version)),
        10 => key().prop_map(Op::Remove),
    ];
    proptest::collection::vec(op, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_room_for_all_it_is_a_map(ops in ops()) {
        Model::new(1000).run(ops)?;
    }

    #[test]
    fn with_little_room_it_is_a_part_of_a_map(ops in ops()) {
        Model::new(4).run(ops)?;
    }
}

struct Model {
    /// Goes before its directory.
    disk: Opened,
    directory: tempfile::TempDir,
    kills: u64,
    segments: u64,
    twin: HashMap<u64, u64>,
}

impl Model {
    fn new(segments: u64) -> Self {
        let directory = quick_directory();
        let disk = open(&directory.path().join("0"), segments);
        Self { directory, kills: 0, segments, disk, twin: HashMap::new() }
    }

    fn run(mut self, ops: Vec<Op>) -> Result<(), TestCaseError> {
        for op in ops {
            self.step(op)?;
        }
        self.step(Op::Close)?;
        (0..24).try_for_each(|key| self.step(Op::Get(key)))
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Close => {
                close(&self.disk);
                self.disk = open(&self.path(), self.segments);
            }
            Op::Flush => written(&self.disk),
            Op::Get(key) => {
                let found = get(&self.disk, key);
                self.judge(key, found)?;
            }
            Op::GetMany(keys) => {
                let names: Vec<_> = keys.iter().copied().map(key).collect();
                let found = done(self.disk.get_many(&names));
                prop_assert_eq!(found.len(), keys.len());
                for (key, found) in keys.into_iter().zip(found) {
                    self.judge(key, found)?;
                }
            }
            Op::Kill => {
                written(&self.disk);
                let from = self.path();
                self.kills += 1;
                copy(&from, &self.path());
                self.disk = open(&self.path(), self.segments);
            }
            Op::Put(key, version) => {
                put(&self.disk, key, version);
                self.twin.insert(key, version);
            }
            Op::Remove(key) => {
                remove(&self.disk, key);
                self.twin.remove(&key);
            }
        }
        // A directory is not listed in one moment: only while nothing is written the sum is that of one.
        written(&self.disk);
        let sum: u64 = files(&self.path()).iter().map(|(_, len)| len).sum();
        prop_assert!(sum <= self.segments * SEGMENT + 1024);
        if self.segments == 1000 {
            prop_assert_eq!(reading(&self.disk, "entries"), self.twin.len() as f64);
        }
        Ok(())
    }

    fn judge(&self, key: u64, found: Option<bytes::Bytes>) -> Result<(), TestCaseError> {
        if found.is_some() || self.segments == 1000 {
            prop_assert_eq!(found, self.twin.get(&key).map(|version| value(key, *version)));
        }
        Ok(())
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join(self.kills.to_string())
    }
}
