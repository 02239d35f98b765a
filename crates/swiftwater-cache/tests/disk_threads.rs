//! Many callers at once: nobody sees a key go back in time.

mod disk_common;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};

use disk_common::*;

#[test]
fn no_key_goes_back_in_time() {
    for segments in [6, 4000] {
        // On a device, where reads need no thread, and in memory, where they may.
        for directory in [tempfile::tempdir().unwrap(), quick_directory()] {
            let disk = open(directory.path(), segments);
            // What was answered: the version, and whether it was removed after that.
            let answered: Vec<_> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                let writers: Vec<_> = (0..2)
                    .map(|writer| {
                        let (disk, answered) = (&disk, &answered);
                        scope.spawn(move || {
                            for version in 1..=ROUNDS {
                                for number in (0..KEYS).filter(|number| number % 2 == writer) {
                                    put(disk, number, version);
                                    answered[number as usize].store(version * 2, SeqCst);
                                    if (version + number).is_multiple_of(3) {
                                        remove(disk, number);
                                        answered[number as usize].store(version * 2 + 1, SeqCst);
                                        assert_eq!(get(disk, number), None);
                                    }
                                }
                            }
                        })
                    })
                    .collect();
                scope.spawn(|| {
                    while !done.load(SeqCst) {
                        for number in 0..KEYS {
                            let before = answered[number as usize].load(SeqCst);
                            let Some(found) = get(&disk, number) else { continue };
                            let version = u64::from_le_bytes(found[8..16].try_into().unwrap());
                            assert_eq!(found, value(number, version));
                            assert!(version * 2 >= before, "key {number}: {version} after {before}");
                        }
                    }
                });
                let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
                done.store(true, SeqCst);
                outcomes.into_iter().for_each(|outcome| outcome.unwrap());
            });
            assert_eq!(reading(&disk, "damaged") + reading(&disk, "lost"), 0.0);
            close(&disk);
        }
    }
}

const KEYS: u64 = 16;
const ROUNDS: u64 = 300;
