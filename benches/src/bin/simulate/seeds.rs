//! The same scenario under many seeds, on all processors.

use std::{
    num::NonZero,
    panic::resume_unwind,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

/// What `run` makes of each of the first `seeds` seeds, in their order: which thread took which seed leaves no trace.
pub fn each_seed<T: Send>(seeds: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            // Relaxed: the number only says who takes what.
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds {
                return done;
            }
            done.push((seed, run(seed)));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut done: Vec<(u64, T)> = thread::scope(|scope| {
        let working: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let end = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        working.into_iter().flat_map(end).collect()
    });
    done.sort_by_key(|(seed, _)| *seed);
    done.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_run_once_and_stands_in_its_place() {
        assert_eq!(each_seed(100, |seed| seed * 2), (0..100).map(|seed| seed * 2).collect::<Vec<_>>());
    }
}
