//! The capacity holds at every moment, and what had to make room is gone.

mod disk_common;

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use disk_common::*;
use swiftwater_cache::{Disk, Layer};

#[test]
fn no_operation_leaves_more_than_the_capacity() {
    let directory = quick_directory();
    for round in 0..3 {
        let disk = open(directory.path(), 6);
        for number in 0..400 {
            put(&disk, number, round);
            if number.is_multiple_of(3) {
                remove(&disk, number);
            }
            check(directory.path(), 6);
        }
        close(&disk);
        check(directory.path(), 6);
        assert!(reading(&disk, "segments_evicted") > 5.0);
    }
}

#[test]
fn nobody_ever_sees_more_than_the_capacity() {
    let directory = quick_directory();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                check(directory.path(), 5);
            }
        });
        for round in 0..10 {
            let disk = open(directory.path(), 5);
            (0..1000).for_each(|number| put(&disk, number, round));
            close(&disk);
        }
        done.store(true, Relaxed);
    });
}

#[test]
fn the_oldest_go_first_and_leave_the_index() {
    let directory = quick_directory();
    let disk = open(directory.path(), 6);
    (0..3000).for_each(|number| put(&disk, number, 0));
    written(&disk);
    let there: Vec<_> = (0..3000).filter(|number| get(&disk, *number).is_some()).collect();
    assert!(there.len() > 100, "{} entries in six segments", there.len());
    assert!(there.iter().eq(&(there[0]..3000).collect::<Vec<_>>()), "the newest ones, without a hole");
    assert_eq!(reading(&disk, "entries"), there.len() as f64);
    close(&disk);
    let disk = open(directory.path(), 6);
    let still: Vec<_> = (0..3000).filter(|number| get(&disk, *number).is_some()).collect();
    assert_eq!(still, there, "nothing was evicted by closing and opening");
    assert_eq!(reading(&disk, "entries"), there.len() as f64);
}

#[test]
fn what_was_replaced_leaves_with_its_segment_and_not_its_key() {
    let directory = quick_directory();
    let disk = open(directory.path(), 6);
    for round in 0..200 {
        put(&disk, 1, round);
        (0..10).for_each(|number| put(&disk, 100 + number, round));
        assert_eq!(get(&disk, 1), Some(value(1, round)));
    }
    written(&disk);
    assert_eq!(reading(&disk, "entries"), 11.0);
}

#[test]
fn a_reader_of_an_evicted_segment_reads_on() {
    let directory = quick_directory();
    let disk = open(directory.path(), 6);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    for number in 0..1000 {
                        let found = get(&disk, number);
                        let right =
                            found.is_none() || (0..5).any(|round| found == Some(value(number, round)));
                        assert!(right, "key {number} has {found:?}");
                    }
                }
            });
        }
        for round in 0..5 {
            (0..1000).for_each(|number| put(&disk, number, round));
        }
        done.store(true, Relaxed);
    });
    assert_eq!(reading(&disk, "damaged"), 0.0);
    assert_eq!(reading(&disk, "lost"), 0.0);
}

#[test]
fn values_of_every_length_up_to_the_longest_fit() {
    let directory = quick_directory();
    let disk =
        Opened(Disk::builder(directory.path()).segment(SEGMENT).capacity(5 * SEGMENT).build().unwrap());
    for len in (0..3800).step_by(7) {
        let value = bytes::Bytes::from(vec![len as u8; len]);
        done(disk.put(&key(1), value.clone(), None));
        written(&disk);
        assert_eq!(get(&disk, 1), Some(value));
        check(directory.path(), 5);
    }
    assert_eq!(reading(&disk, "lost"), 0.0);
}

fn check(path: &std::path::Path, segments: u64) {
    let files = files(path);
    let sum: u64 = files.iter().map(|(_, len)| len).sum();
    assert!(sum <= segments * SEGMENT + 1024, "{sum} bytes: {files:?}");
}
