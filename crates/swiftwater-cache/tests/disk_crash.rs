//! A process that is killed while it writes: what the next one finds.
//!
//! The child tells what it is about to do and what was answered. With one caller, what is found must be what some moment
//! had: not before the last removal that was answered, not after what was begun.

mod disk_common;

use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use disk_common::*;
use tempfile::tempdir_in;

#[test]
fn what_a_kill_leaves_is_what_some_moment_had() {
    let directory = quick_directory();
    for round in 0..ROUNDS {
        let path = directory.path().join("ample");
        if round.is_multiple_of(4) {
            // Else it goes on with what the last kill left.
            let _ = fs::remove_dir_all(&path);
        }
        let before = contents(&path, AMPLE);
        let (ops, answered) = killed(&path, AMPLE, round);
        let found = contents(&path, AMPLE);
        let mut twin = before;
        // How far it must have got: what was there and was removed stays so. A key that was not there takes no writing.
        let mut least = 0;
        let mut twins = vec![twin.clone()];
        for (number, op) in ops.iter().enumerate() {
            match *op {
                Op::Put(key, version) => drop(twin.insert(key, version)),
                Op::Remove(key) => {
                    let there = twin.remove(&key).is_some();
                    if there && number < answered {
                        least = number + 1;
                    }
                }
            }
            twins.push(twin.clone());
        }
        assert!(
            twins[least..].contains(&found),
            "round {round}: {} operations, {answered} answered, at least {least} must be there; found {found:?}",
            ops.len()
        );
    }
}

#[test]
fn what_was_removed_stays_so_where_segments_are_evicted() {
    let directory = quick_directory();
    for round in 0..ROUNDS {
        let path = directory.path().join("tight");
        let (ops, answered) = killed(&path, TIGHT, 1000 + round);
        let found = contents(&path, TIGHT);
        for (key, version) in found {
            let mut history = ops.iter().enumerate();
            let at = history.rposition(|(_, op)| matches!(op, Op::Put(k, v) if (*k, *v) == (key, version)));
            let Some(at) = at else {
                // From an earlier round: then no removal of it was answered in this one.
                let removed = ops[..answered].iter().any(|op| matches!(op, Op::Remove(k) if *k == key));
                assert!(!removed, "round {round}: key {key} was removed and is back");
                continue;
            };
            let later = ops[..answered].iter().skip(at + 1);
            let removed = later.clone().any(|op| matches!(op, Op::Remove(k) if *k == key));
            assert!(!removed, "round {round}: version {version} of key {key} was removed and is back");
        }
    }
}

/// Not a test: what the tests start and kill.
#[test]
#[ignore = "is started by the other tests"]
fn child() {
    let Ok(path) = env::var("SWIFTWATER_DISK_CHILD") else { return };
    let number = |name: &str| env::var(name).unwrap().parse::<u64>().unwrap();
    let (segments, seed) = (number("SWIFTWATER_DISK_SEGMENTS"), number("SWIFTWATER_DISK_SEED"));
    let mut disk = open(Path::new(&path), segments);
    let mut out = std::io::stdout().lock();
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for version in 1.. {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = random >> 8 & 31;
        let version = seed << 32 | version;
        // Straight to the pipe, which outlives the process.
        if random.is_multiple_of(8) {
            writeln!(out, "remove {key} 0").unwrap();
            remove(&disk, key);
        } else {
            writeln!(out, "put {key} {version}").unwrap();
            put(&disk, key, version);
        }
        writeln!(out, "answered").unwrap();
        // What is read is written again when it would be evicted.
        get(&disk, random >> 16 & 31);
        if random.is_multiple_of(97) {
            // Closing and opening are places to be killed in, too.
            close(&disk);
            disk = open(Path::new(&path), segments);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Put(u64, u64),
    Remove(u64),
}

/// Runs the child, kills it somewhere; what it began, and how many of these were answered.
fn killed(path: &Path, segments: u64, seed: u64) -> (Vec<Op>, usize) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--quiet"])
        .env("SWIFTWATER_DISK_CHILD", path)
        .env("SWIFTWATER_DISK_SEGMENTS", segments.to_string())
        .env("SWIFTWATER_DISK_SEED", seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (mut ops, mut answered) = (Vec::new(), 0);
    // Somewhere else each time; what is said after that is read until the pipe ends.
    let limit = 20 + seed.wrapping_mul(2_654_435_761) % 1500;
    let mut line = String::new();
    for number in 0_u64.. {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        if number == limit {
            child.kill().unwrap();
        }
        let mut words = line.split_whitespace();
        let mut next = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match line.split_whitespace().next() {
            Some("put") => {
                next();
                ops.push(Op::Put(next(), next()));
            }
            Some("remove") => {
                next();
                ops.push(Op::Remove(next()));
            }
            Some("answered") => answered += 1,
            _ => {}
        }
    }
    child.wait().unwrap();
    assert!(ops.len() >= 5 && answered + 1 >= ops.len(), "{} begun, {answered} answered", ops.len());
    (ops, answered)
}

/// Which version each key has, read from a copy, so that the directory stays as the kill left it.
fn contents(path: &Path, segments: u64) -> HashMap<u64, u64> {
    if !path.exists() {
        return HashMap::new();
    }
    let scratch = tempdir_in(path.parent().unwrap()).unwrap();
    let copied = scratch.path().join("copy");
    copy(path, &copied);
    let disk = open(&copied, segments);
    let found = (0..32).filter_map(|number| {
        let found = get(&disk, number)?;
        let version = u64::from_le_bytes(found[8..16].try_into().unwrap());
        assert_eq!(found, value(number, version), "a value that was never put");
        Some((number, version))
    });
    let found = found.collect();
    close(&disk);
    found
}

const ROUNDS: u64 = 40;
/// Nothing is evicted.
const AMPLE: u64 = 4000;
const TIGHT: u64 = 4;
