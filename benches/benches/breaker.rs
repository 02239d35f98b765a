//! What a breaker costs a call, in one thread and in two. Every run checks its answers.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use swiftwater_benches::{pin, together};
use swiftwater_breaker::{Breaker, CallError, consecutive, failure_rate};
use swiftwater_core::{Outcome, Pass};

fn main() {
    pin(0);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("breaker");
    let closed = Breaker::builder().trip_when(consecutive(5)).build().expect("valid options");
    let rated = Breaker::builder().trip_when(failure_rate(0.9)).build().expect("valid options");
    for threads in [1, 2] {
        let call = |breaker: &Breaker| {
            let answer = breaker.call_sync(|| Ok::<_, u64>(black_box(7)));
            assert_eq!(answer, Ok(7));
        };
        bench(&mut group, threads, "call_sync, consecutive", || call(&closed));
        bench(&mut group, threads, "call_sync, rate", || call(&rated));
    }
    bench(&mut group, 1, "try_acquire, finish", || {
        closed.try_acquire().expect("closed").finish(Outcome::Success);
    });
    bench(&mut group, 1, "try_acquire, drop", || drop(closed.try_acquire().expect("closed")));
    let gate = closed.gate();
    bench(&mut group, 1, "through Arc<dyn Gate>", || {
        Pass::enter(black_box(&*gate)).expect("closed").finish(Outcome::Success);
    });
    // Every second fails, which trips neither.
    let turn = AtomicU64::new(0);
    bench(&mut group, 1, "call_sync, rate, every second fails", || {
        let n = turn.fetch_add(1, Relaxed);
        let answer = rated.call_sync(|| if n.is_multiple_of(2) { Ok(n) } else { Err(n) });
        assert_eq!(answer.is_ok(), n.is_multiple_of(2));
    });
    closed.force_open();
    bench(&mut group, 1, "call_sync, open", || {
        let answer = closed.call_sync(|| Ok::<_, u64>(7));
        assert!(matches!(answer, Err(CallError::Rejected(_))));
    });
    group.finish();
    criterion.final_summary();
}

/// Time of an operation as each of the threads sees it.
fn bench(group: &mut BenchmarkGroup<'_, WallTime>, threads: u64, name: &str, operation: impl Fn() + Sync) {
    let name = format!("{threads} thread(s)/{name}");
    if threads == 1 {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let start = Instant::now();
                (0..count).for_each(|_| operation());
                start.elapsed()
            });
        });
    } else {
        /// Many, so that it does not matter which thread is the first by a hair.
        const EACH: u64 = 10_000;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let time =
                    together(threads, threads * count * EACH, |_, each| (0..each).for_each(|_| operation()));
                time / EACH as u32
            });
        });
    }
}
