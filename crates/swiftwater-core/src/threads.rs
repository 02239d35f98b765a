//! A number for every thread, unique among the threads that live: what lets a thread own memory that only it writes to.
//!
//! Numbers are drawn on a thread's first call, lowest first, and given back when it ends. Both happen under one lock, so a
//! thread that gets a used number sees all that its former holder has written.

#[cfg(all(test, swiftwater_loom))]
pub(crate) use model::{be_thread, this_thread, this_thread as known_thread};
#[cfg(not(all(test, swiftwater_loom)))]
pub(crate) use real::{known_thread, this_thread};

/// Of a thread that has no number: one that is ending, after it has given its own back.
pub(crate) const NOBODY: u32 = u32::MAX;

#[cfg(not(all(test, swiftwater_loom)))]
mod real {
    use std::{
        cell::Cell,
        cmp::Reverse,
        collections::BinaryHeap,
        sync::{Mutex, MutexGuard, PoisonError},
    };

    use super::NOBODY;

    /// The number of the calling thread, [`NOBODY`], or nobody's as well: that of a thread that has never asked properly.
    #[inline(always)]
    pub(crate) fn known_thread() -> u32 {
        NUMBER.get()
    }

    /// The number of the calling thread, or [`NOBODY`].
    #[inline]
    pub(crate) fn this_thread() -> u32 {
        match NUMBER.get() {
            UNASKED => draw(),
            number => number,
        }
    }

    thread_local! {
        /// Apart from its keeper: reading what has no destructor costs one load.
        static NUMBER: Cell<u32> = const { Cell::new(UNASKED) };
        static KEEPER: Keeper = Keeper::draw();
    }

    #[cold]
    fn draw() -> u32 {
        // An error: the thread is ending, and its keeper has never been, or is no longer.
        let number = KEEPER.try_with(|keeper| keeper.0).unwrap_or(NOBODY);
        NUMBER.set(number);
        number
    }

    /// Gives the number back when the thread ends.
    struct Keeper(u32);

    impl Keeper {
        fn draw() -> Self {
            let mut numbers = numbers();
            let number = numbers.free.pop().map(|Reverse(number)| number);
            Self(number.unwrap_or_else(|| {
                numbers.drawn += 1;
                numbers.drawn - 1
            }))
        }
    }

    impl Drop for Keeper {
        fn drop(&mut self) {
            // First, so that destructors which run later do not write where a new thread does already.
            NUMBER.set(NOBODY);
            numbers().free.push(Reverse(self.0));
        }
    }

    struct Numbers {
        drawn: u32,
        free: BinaryHeap<Reverse<u32>>,
    }

    fn numbers() -> MutexGuard<'static, Numbers> {
        static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { drawn: 0, free: BinaryHeap::new() });
        // Nothing in here panics.
        NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const UNASKED: u32 = NOBODY - 1;

    #[cfg(test)]
    mod tests {
        use std::{collections::HashSet, sync::Barrier, thread};

        use super::*;

        #[test]
        fn threads_that_live_together_have_different_numbers() {
            let together = Barrier::new(20);
            let number = || {
                let number = this_thread();
                together.wait();
                assert_eq!(this_thread(), number);
                number
            };
            let numbers: HashSet<u32> = thread::scope(|scope| {
                let threads: Vec<_> = (0..20).map(|_| scope.spawn(number)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(numbers.len(), 20);
        }

        #[test]
        fn numbers_come_back() {
            // Other tests draw numbers meanwhile, but not ten thousand of them.
            for _ in 0..10_000 {
                assert!(thread::spawn(this_thread).join().unwrap() < 5_000);
            }
        }

        #[test]
        fn a_thread_that_is_ending_has_none() {
            struct Late;
            impl Drop for Late {
                fn drop(&mut self) {
                    assert_eq!(this_thread(), NOBODY);
                }
            }
            thread_local!(static LATE: Late = const { Late });
            let thread = thread::spawn(|| {
                LATE.with(|_| {}); // destroyed last, as it came first
                assert_ne!(this_thread(), NOBODY);
            });
            thread.join().unwrap();
        }
    }
}

/// A model's threads share one thread of the system: they say who they are.
#[cfg(all(test, swiftwater_loom))]
mod model {
    use std::cell::Cell;

    loom::thread_local! {
        static NUMBER: Cell<u32> = Cell::new(0);
    }

    pub(crate) fn this_thread() -> u32 {
        NUMBER.with(Cell::get)
    }

    pub(crate) fn be_thread(number: u32) {
        NUMBER.with(|own| own.set(number));
    }
}
