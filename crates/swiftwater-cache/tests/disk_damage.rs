//! Every byte of a directory flipped, every file cut at every length, every file gone: the newest or nothing.

mod disk_common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use disk_common::*;
use swiftwater_cache::{Disk, DiskError, Layer};
use tempfile::TempDir;

/// What the newest of each key is in the sample; `None`: removed.
fn newest(number: u64) -> Option<u64> {
    match number {
        14..17 => None,
        0..KEYS => Some(if number.is_multiple_of(2) { 2 } else { 1 }),
        _ => None,
    }
}

/// A log of several segments in which many keys have a past: replaced, removed, removed and put again.
fn sample(close_it: bool) -> TempDir {
    let directory = quick_directory();
    let live = directory.path().join("live");
    let disk = open(&live, 20);
    for version in [0, 1] {
        (0..KEYS).for_each(|number| put(&disk, number, version));
        (14..17).for_each(|number| remove(&disk, number));
    }
    (0..5).for_each(|number| remove(&disk, number * 2));
    (0..14).filter(|number| newest(*number) == Some(2)).for_each(|number| put(&disk, number, 2));
    (17..KEYS).filter(|number| newest(*number) == Some(2)).for_each(|number| put(&disk, number, 2));
    written(&disk);
    if close_it {
        close(&disk);
    }
    copy(&live, &directory.path().join("sample"));
    let segments = files(&live).iter().filter(|(name, _)| name.ends_with(".segment")).count();
    assert!(segments >= 3, "the sample has {segments} segments");
    directory
}

/// Opens what is left and looks at every key; how many were there.
fn check(path: &Path, what: &str, go_on: bool) -> usize {
    let builder = Disk::builder(path).segment(SEGMENT).capacity(20 * SEGMENT + 1024);
    let disk = match builder.build() {
        Ok(disk) => disk,
        Err(DiskError::Foreign { .. }) => return 0,
        Err(error) => panic!("{what}: {error:?}"),
    };
    let mut there = 0;
    // At once: it is quicker where each read takes a thread.
    let names: Vec<_> = (0..KEYS).map(key).collect();
    for (number, found) in (0..KEYS).zip(done(disk.get_many(&names))) {
        let right = found.is_none() || found == newest(number).map(|version| value(number, version));
        assert!(right, "{what}: key {number} has {found:?}");
        there += usize::from(found.is_some());
    }
    if !go_on {
        close(&disk);
        return there;
    }
    // What it recovers from now on is right, too.
    put(&disk, 1, 9);
    remove(&disk, 3);
    close(&disk);
    let disk = open(path, 20);
    assert_eq!(get(&disk, 1), Some(value(1, 9)), "{what}");
    for number in [3, 14, 16] {
        assert_eq!(get(&disk, number), None, "{what}");
    }
    // Its name is free again when this is done.
    close(&disk);
    there
}

fn every_file(directory: &TempDir, mut damage: impl FnMut(&Path, &Path, &str)) {
    let (sample, scratch) = (directory.path().join("sample"), directory.path().join("scratch"));
    for (name, _) in files(&sample) {
        damage(&sample, &scratch, &name);
    }
}

fn restore(sample: &Path, scratch: &Path, name: &str) -> PathBuf {
    copy(sample, scratch);
    scratch.join(name)
}

#[test]
fn the_samples_are_whole() {
    let everything = (0..KEYS).filter(|number| newest(*number).is_some()).count();
    for closed in [true, false] {
        let directory = sample(closed);
        let path = directory.path().join("sample");
        assert_eq!(path.join("swiftwater.clean").exists(), closed);
        assert_eq!(check(&path, "untouched", true), everything);
    }
}

fn flip_every_byte(closed: bool) {
    let directory = sample(closed);
    let mut kept = 0;
    every_file(&directory, |sample, scratch, name| {
        let bytes = fs::read(sample.join(name)).unwrap();
        for at in 0..bytes.len() {
            let path = restore(sample, scratch, name);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(path, flipped).unwrap();
            kept += check(scratch, &format!("byte {at} of {name} flipped"), at.is_multiple_of(16));
        }
    });
    assert!(kept > 0);
}

#[test]
fn a_flipped_byte_after_a_close_shows_nothing_old() {
    flip_every_byte(true);
}

#[test]
fn a_flipped_byte_after_a_kill_shows_nothing_old() {
    flip_every_byte(false);
}

#[test]
fn a_file_that_is_cut_short_shows_nothing_old() {
    for closed in [true, false] {
        let directory = sample(closed);
        every_file(&directory, |sample, scratch, name| {
            let len = fs::metadata(sample.join(name)).unwrap().len();
            for len in 0..len {
                let path = restore(sample, scratch, name);
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
                check(scratch, &format!("{name} cut to {len}, closed: {closed}"), len.is_multiple_of(16));
            }
        });
    }
}

#[test]
fn a_file_that_is_missing_shows_nothing_old() {
    for closed in [true, false] {
        let directory = sample(closed);
        every_file(&directory, |sample, scratch, name| {
            fs::remove_file(restore(sample, scratch, name)).unwrap();
            check(scratch, &format!("{name} missing, closed: {closed}"), true);
        });
    }
}

#[test]
fn a_file_of_an_earlier_moment_shows_nothing_old() {
    let directory = quick_directory();
    let [live, old, now, scratch] = ["live", "old", "now", "scratch"].map(|name| directory.path().join(name));
    let disk = open(&live, 20);
    (0..30).for_each(|number| put(&disk, number, 0));
    close(&disk);
    copy(&live, &old);
    let disk = open(&live, 20);
    (0..30).for_each(|number| put(&disk, number, 1));
    (0..5).for_each(|number| remove(&disk, number));
    close(&disk);
    copy(&live, &now);
    // Each old file among the new ones.
    for (name, _) in files(&old) {
        copy(&now, &scratch);
        fs::copy(old.join(&name), scratch.join(&name)).unwrap();
        let disk = open(&scratch, 20);
        for number in 0..30 {
            let found = get(&disk, number);
            let right = found.is_none() || (number >= 5 && found == Some(value(number, 1)));
            assert!(right, "{name}: key {number} has {found:?}");
        }
        close(&disk);
    }
}

#[test]
fn damage_in_one_value_costs_that_value_only() {
    let directory = sample(true);
    let path = directory.path().join("sample");
    let (name, bytes) = (files(&path).into_iter())
        .filter(|(name, _)| name.ends_with(".segment"))
        .map(|(name, _)| (name.clone(), fs::read(path.join(name)).unwrap()))
        .find(|(_, bytes)| find(bytes, &value(KEYS - 1, 1)).is_some())
        .unwrap();
    let mut flipped = bytes;
    let at = find(&flipped, &value(KEYS - 1, 1)).unwrap();
    flipped[at] ^= 1;
    fs::write(path.join(name), flipped).unwrap();
    let disk = open(&path, 20);
    assert_eq!(get(&disk, KEYS - 1), None);
    assert_eq!(reading(&disk, "damaged"), 1.0);
    for number in (0..KEYS - 1).filter(|number| newest(*number).is_some()) {
        assert!(get(&disk, number).is_some(), "key {number}");
    }
    // It can be removed, and put again.
    remove(&disk, KEYS - 1);
    assert_eq!(get(&disk, KEYS - 1), None);
    put(&disk, KEYS - 1, 5);
    close(&disk);
    assert_eq!(get(&open(&path, 20), KEYS - 1), Some(value(KEYS - 1, 5)));
}

#[test]
fn a_kill_while_it_starts_leaves_a_directory_that_opens() {
    let directory = quick_directory();
    for (number, control) in ["", "swc", "swcacheC"].iter().enumerate() {
        let path = directory.path().join(number.to_string());
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("swiftwater.control"), control).unwrap();
        fs::write(path.join("swiftwater-0000000000000001.segment"), "").unwrap();
        put(&open(&path, 10), 1, 1);
    }
}

#[test]
fn another_boot_starts_empty_unless_it_was_closed() {
    for closed in [true, false] {
        let directory = sample(closed);
        let path = directory.path().join("sample");
        // As if written by another boot: other bits in both slots, with the checksum to match.
        let control = path.join("swiftwater.control");
        let mut bytes = fs::read(&control).unwrap();
        for slot in bytes.chunks_mut(64) {
            slot[24] ^= 1;
            let seed = u64::from_le_bytes(slot[16..24].try_into().unwrap());
            let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&slot[..56], seed);
            slot[56..].copy_from_slice(&sum.to_le_bytes());
        }
        fs::write(&control, bytes).unwrap();
        let there = check(&path, "another boot", true);
        assert_eq!(there > 0, closed);
    }
}

#[test]
fn a_clean_file_works_once() {
    let directory = sample(true);
    let path = directory.path().join("sample");
    let disk = open(&path, 20);
    assert!(!path.join("swiftwater.clean").exists());
    put(&disk, 1, 9);
    written(&disk);
    // What a kill leaves, with the clean file of before: the end is not where it says.
    let scratch = directory.path().join("scratch");
    copy(&path, &scratch);
    let clean = directory.path().join("live").join("swiftwater.clean");
    fs::copy(clean, scratch.join("swiftwater.clean")).unwrap();
    let disk = open(&scratch, 20);
    assert!((0..KEYS).all(|number| get(&disk, number).is_none()));
}

/// Much at once may hide what was newest, but not make up what never was.
#[test]
fn a_directory_full_of_rubbish_is_no_reason_to_panic() {
    let directory = sample(true);
    let (sample, scratch) = (directory.path().join("sample"), directory.path().join("scratch"));
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..300 {
        copy(&sample, &scratch);
        for (name, len) in files(&sample) {
            let mut bytes = fs::read(sample.join(&name)).unwrap();
            for _ in 0..random(4) {
                let (from, to) = (random(len as usize), random(len as usize));
                match random(3) {
                    0 => bytes[to..].iter_mut().take(40).for_each(|byte| *byte = random(256) as u8),
                    1 => bytes.copy_within(
                        from..(from + 70).min(len as usize),
                        to.min(len as usize - 70.min(len as usize)),
                    ),
                    _ => bytes.extend_from_slice(&bytes.clone()[from..]),
                }
                bytes.truncate(len as usize);
            }
            fs::write(scratch.join(name), bytes).unwrap();
        }
        match Disk::builder(&scratch).segment(SEGMENT).capacity(20 * SEGMENT + 1024).build() {
            Ok(disk) => {
                for number in 0..KEYS {
                    let found = get(&disk, number);
                    let once_put = (0..3).any(|version| found == Some(value(number, version)));
                    assert!(found.is_none() || once_put, "round {round}: key {number} has {found:?}");
                }
                close(&disk);
            }
            Err(DiskError::Foreign { .. }) => {}
            Err(error) => panic!("round {round}: {error:?}"),
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The last one is odd, so that its newest version is 1.
const KEYS: u64 = 28;
