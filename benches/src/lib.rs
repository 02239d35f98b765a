//! What the benchmarks share: threads that start together, pinned to a processor each; a heap that counts; and the
//! side-by-side runs of [`versus`].

pub mod heap;
pub mod versus;

use std::{
    panic::resume_unwind,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// Runs `work(thread, operations)` on as many pinned threads at once, `total` operations between them (rounded up to the
/// same number each), and measures from the first start to the last end: a time per operation of all threads together.
pub fn together(threads: u64, total: u64, work: impl Fn(u64, u64) + Sync) -> Duration {
    let each = total.div_ceil(threads);
    // Blocking first, so that nobody spins on the processor that another one still needs to get to its own; then
    // spinning, because to be woken takes longer than what is measured.
    let barrier = Barrier::new(threads as usize);
    let missing = AtomicU64::new(threads);
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let run = |thread: u64| {
            let (barrier, missing, work) = (&barrier, &missing, &work);
            scope.spawn(move || {
                pin(thread as usize);
                barrier.wait();
                missing.fetch_sub(1, SeqCst);
                while missing.load(SeqCst) > 0 {
                    std::hint::spin_loop();
                }
                let start = Instant::now();
                work(thread, each);
                (start, Instant::now())
            })
        };
        let running: Vec<_> = (0..threads).map(run).collect();
        let end = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        running.into_iter().map(end).collect()
    });
    let start = spans.iter().map(|span| span.0).min();
    let end = spans.iter().map(|span| span.1).max();
    end.zip(start).map_or(Duration::ZERO, |(end, start)| end - start)
}

/// Pins the calling thread to one of the processors that the process may use; counts on from the first again after the last.
pub fn pin(number: usize) {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

        // Of the main thread, before anything is pinned: what `pin` leaves is one processor only.
        static ALLOWED: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
        let allowed = ALLOWED.get_or_init(|| {
            let set = sched_getaffinity(None).unwrap_or_default();
            (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
        });
        if !allowed.is_empty() {
            let mut one = CpuSet::new();
            one.set(allowed[number % allowed.len()]);
            // Unpinned figures are noisier, not wrong.
            let _ = sched_setaffinity(None, &one);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = number;
}

/// How long one cache line takes from one processor to the next: the best of several rounds. On virtual machines this
/// differs from run to run, and every contended figure with it.
pub fn cache_line_hop() -> Duration {
    const HOPS: u64 = 10_000;
    let round = |_| {
        let ball = AtomicU64::new(0);
        together(2, 2 * HOPS, |thread, hops| {
            for hop in 0..hops {
                while ball.load(SeqCst) != 2 * hop + thread {
                    std::hint::spin_loop();
                }
                ball.store(2 * hop + thread + 1, SeqCst);
            }
        })
    };
    let best = (0..5).map(round).min().unwrap_or_default();
    best / (2 * HOPS as u32)
}
