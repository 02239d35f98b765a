//! In which order an invalidation by key, an insert and a refresh do their parts: somebody else is let in at every point where
//! the operation hashes or clones its key, which is before and after each of them.

mod common;

use std::{
    cell::{Cell, RefCell},
    hash::{Hash, Hasher},
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    thread::LocalKey,
    time::Duration,
};

use common::{cache, manual, settle};
use swiftwater_cache::{Hit, LoadCx, Region, Sink, Writes};

/// A key whose hashing runs the test's code.
#[derive(Debug, PartialEq, Eq)]
struct Key(u64);

type Hook = Box<dyn FnMut()>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    static CLONES_UNTIL: Cell<Option<usize>> = const { Cell::new(None) };
    static HASHES_UNTIL: Cell<Option<usize>> = const { Cell::new(None) };
}

fn count(until: &'static LocalKey<Cell<Option<usize>>>) {
    let due = until.take();
    if due == Some(0) {
        let mut hook = HOOK.take().expect("set together");
        hook(); // hashes and clones too, but nothing is due any more
    } else {
        until.set(due.map(|due| due - 1));
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        count(&CLONES_UNTIL);
        Self(self.0)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        count(&HASHES_UNTIL);
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

struct Row(Arc<AtomicU32>);

impl Sink<Key, u32> for Row {
    type Error = io::Error;

    async fn store(&self, writes: Vec<(Key, Hit<u32>)>) -> Result<(), io::Error> {
        writes.iter().for_each(|(_, value)| self.0.store(**value, SeqCst));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_midst_of_which_a_write_goes_behind_stores_no_past() {
    const MINUTE: Duration = Duration::from_secs(60);
    for point in 0.. {
        let ((cache, hand), row) = (manual(), Arc::new(AtomicU32::new(1)));
        let rows = cache.region("rows").ttl(MINUTE).refresh_after(0.5);
        let rows: Region<Key, u32> = rows.writes(Writes::behind(Row(row.clone()))).build().unwrap();
        let load = || {
            let row = row.clone();
            async move |_: LoadCx<Key>| Ok(row.load(SeqCst))
        };
        assert_eq!(rows.get_or_load(&Key(1), load()).await.unwrap(), 1);
        hand.advance(MINUTE / 2);
        // Stored, and gone from memory before it has arrived.
        let writer = rows.clone();
        HOOK.set(Some(Box::new(move || {
            let store = pin!(writer.store(Key(1), 2)).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(store, Poll::Ready(Ok(()))));
            writer.invalidate(&Key(1));
        })));
        CLONES_UNTIL.set(Some(point));
        let loaded = rows.get_or_load(&Key(1), load()).await.unwrap();
        assert_eq!(loaded, 1, "it had asked before");
        if CLONES_UNTIL.take().is_some() {
            HOOK.take();
            assert!(point >= 3, "the key is cloned a few times");
            return;
        }
        settle().await;
        assert!(rows.get(&Key(1)).is_none(), "the past, at point {point}");
        rows.flush().await.unwrap();
        assert_eq!(row.load(SeqCst), 2);
    }
}
