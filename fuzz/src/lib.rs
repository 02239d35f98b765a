//! What the targets share: reading decisions from the input, and panics that are meant.

use std::{cell::Cell, hint::black_box, panic};

thread_local! {
    static MEANT: Cell<bool> = const { Cell::new(false) };
}

/// To be called once, before the first input. From then on a panic inside of [`meaning_to_panic`] is an ordinary one, and
/// every other ends the process, which is how a finding is told.
///
/// # Panics
///
/// If this was built without overflow checks: then much of what there is to find goes unseen. Without debug assertions it
/// does not compile.
pub fn ready() {
    const { assert!(cfg!(debug_assertions), "to be built with debug assertions") };
    let fatal = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !MEANT.get() {
            fatal(info);
        }
    }));
    let overflows = || meaning_to_panic(|| black_box(u8::MAX) + black_box(1));
    panic::catch_unwind(overflows).expect_err("built without overflow checks");
}

/// Runs what may panic on purpose.
pub fn meaning_to_panic<R>(run: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            MEANT.set(self.0);
        }
    }
    let _restore = Restore(MEANT.replace(true));
    run()
}

/// The input, taken as decisions from its front; zeros when it has ended.
#[derive(Clone, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// The next bytes, at most so many.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
