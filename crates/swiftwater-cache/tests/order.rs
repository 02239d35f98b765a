//! In which order an invalidation by key and an insert do their parts: a reader is let in at every point where the
//! operation hashes its key, which is before and after each of them.

mod common;

use std::{
    cell::{Cell, RefCell},
    hash::{Hash, Hasher},
    pin::pin,
    task::{Context, Poll, Waker},
};

use common::cache;
use swiftwater_cache::{LoadCx, Region};

/// A key whose hashing runs the test's code.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key(u64);

type Hook = Box<dyn FnMut()>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    static HASHES_UNTIL: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let due = HASHES_UNTIL.take();
        if due == Some(0) {
            let mut hook = HOOK.take().expect("set together");
            hook(); // hashes too, but nothing is due any more
        } else {
            HASHES_UNTIL.set(due.map(|due| due - 1));
        }
        self.0.hash(state);
    }
}

/// Runs `operation` again and again, on a fresh cache each time, with a derived load at its first, second, .. hash.
/// Returns how many such points there were.
fn at_every_hash(operation: impl Fn(&Region<Key, u32>)) -> usize {
    for point in 0.. {
        let cache = cache();
        let base: Region<Key, u32> = cache.region("base").build().expect("valid");
        let derived: Region<u64, u32> = cache.region("derived").build().expect("valid");
        base.insert(Key(1), 1);
        let derive = {
            let (base, derived) = (base.clone(), derived.clone());
            move || {
                let reading = base.clone();
                let load = async move |_: LoadCx<u64>| Ok(reading.get(&Key(1)).map_or(0, |hit| *hit));
                let load = pin!(derived.get_or_load(&1, load)).poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(load, Poll::Ready(Ok(_))));
            }
        };
        derive();
        HOOK.set(Some(Box::new(derive)));
        HASHES_UNTIL.set(Some(point));
        operation(&base);
        let reached = HASHES_UNTIL.take().is_none();
        assert_ne!(derived.get(&1).map(|hit| *hit), Some(1), "the past, read at point {point}");
        if !reached {
            return point;
        }
    }
    unreachable!("an operation hashes its key a few times")
}

#[test]
fn a_load_in_the_midst_of_an_invalidation_by_key_is_not_served_after_it() {
    let invalidate = |base: &Region<Key, u32>| {
        base.invalidate(&Key(1));
    };
    assert!(at_every_hash(invalidate) >= 2);
}

#[test]
fn a_load_in_the_midst_of_an_insert_is_not_served_after_it() {
    assert!(at_every_hash(|base| base.insert(Key(1), 2)) >= 2);
}
