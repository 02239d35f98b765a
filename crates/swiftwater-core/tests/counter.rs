//! Counters count.

use std::{sync::Barrier, thread};

use swiftwater_core::Counter;

#[test]
fn it_adds_and_reads() {
    let counter = Counter::new();
    assert_eq!(counter.read(), 0);
    counter.add(3);
    counter.add(0);
    counter.add(4);
    assert_eq!(counter.read(), 7);
    assert_eq!(format!("{counter:?}"), "Counter(7)");
}

#[test]
fn it_wraps_at_the_end() {
    let counter = Counter::default();
    counter.add(u64::MAX);
    counter.add(3);
    assert_eq!(counter.read(), 2);
}

#[test]
fn threads_that_add_at_once_lose_nothing_and_reads_never_decrease() {
    let counter = Counter::new();
    let (threads, each) = (8, 100_000);
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                start.wait();
                (0..each).for_each(|_| counter.add(1));
            });
        }
        start.wait();
        let mut last = 0;
        for _ in 0..10_000 {
            let now = counter.read();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    });
    assert_eq!(counter.read(), threads as u64 * each);
}

#[test]
fn a_thread_knows_its_own_additions_at_once() {
    let counter = Counter::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for added in 1..=10_000 {
                    counter.add(1);
                    assert!(counter.read() >= added);
                }
            });
        }
    });
}
