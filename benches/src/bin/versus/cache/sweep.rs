//! What a sweep through the memory costs, of what stays and of what goes.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use swiftwater_benches::{
    pin,
    versus::{Case, Effort, Figure},
};
use swiftwater_cache::dep;

use crate::{
    cache::{
        ENTRIES,
        stores::{Dash, Ours, QuickEntry, Store},
    },
    runtime::one_thread,
};

/// Ours asks of every entry whether something that it depends on has changed; the others compare its value with a number.
/// Ours pauses between batches, so what is timed is the processor.
pub fn sweep() -> Case {
    let mut case = Case::new([
        Figure::lower("sweep_kept", "ns of the processor per entry that stays"),
        Figure::lower("sweep_freed", "ns of the processor per entry that goes"),
    ]);
    case.ours(|effort| {
        let (store, entries) = filled::<Ours<u64>>(effort);
        let sweep = || {
            let swept = one_thread().block_on(store.cache.sweep(u32::MAX));
            assert_eq!(swept.visited, entries);
            swept.freed
        };
        let (kept, none) = timed(entries, sweep);
        store.cache.invalidate(dep!("tariff"));
        let (freed, all) = timed(entries, sweep);
        assert_eq!((none, all), (0, entries));
        [kept, freed]
    });
    case.rival("quick_cache retain", |effort| {
        let (store, entries) = filled::<QuickEntry<u64>>(effort);
        both(entries, |below| {
            store.0.retain(|_, value| **value < below);
            store.0.len()
        })
    });
    case.rival("dashmap retain, not a cache", |effort| {
        let (store, entries) = filled::<Dash<u64>>(effort);
        both(entries, |below| {
            store.0.retain(|_, value| *value < below);
            store.0.len()
        })
    });
    case.floor("Vec of Arc retain", |effort| {
        let entries = entries(effort);
        let mut store: Vec<Arc<u64>> = (0..entries).map(Arc::new).collect();
        both(entries, |below| {
            store.retain(|value| **value < below);
            store.len()
        })
    });
    case
}

fn entries(effort: Effort) -> u64 {
    if effort.quick { ENTRIES as u64 / 10 } else { ENTRIES as u64 }
}

fn filled<S: Store<u64>>(effort: Effort) -> (S, u64) {
    let entries = entries(effort);
    let store = S::build(2 * entries as usize);
    (0..entries).for_each(|n| store.insert(n, n));
    (store, entries)
}

/// Keeps all, then none.
fn both(entries: u64, mut retain: impl FnMut(u64) -> usize + Send) -> [f64; 2] {
    let (kept, all) = timed(entries, || retain(u64::MAX));
    let (freed, none) = timed(entries, || retain(0));
    assert_eq!((all as u64, none), (entries, 0));
    [kept, freed]
}

/// Nanoseconds per entry, on a thread of its own like everything that is timed.
fn timed<R: Send>(entries: u64, work: impl FnOnce() -> R + Send) -> (f64, R) {
    let timed = || {
        pin(0);
        let start = processor_time();
        let result = work();
        ((processor_time() - start).as_nanos() as f64 / entries as f64, result)
    };
    std::thread::scope(|scope| scope.spawn(timed).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// What this thread has taken.
fn processor_time() -> Duration {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};

        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    #[cfg(not(target_os = "linux"))]
    {
        // With the pauses: an upper bound.
        use std::{sync::LazyLock, time::Instant};

        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}
