//! A load in the background that begins while the key is stored behind.

mod common;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::{manual, settle};
use swiftwater_cache::{Hit, LoadCx, Region, Sink, Writes};

thread_local! {
    /// Which clone of a key from now on does what is to be done; none, if zero.
    static CLONES: Cell<u32> = const { Cell::new(0) };
    static TO_DO: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Something is done while it is cloned: what another thread might do just then.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key(u64);

impl Clone for Key {
    fn clone(&self) -> Self {
        let left = CLONES.get();
        CLONES.set(left.saturating_sub(1));
        if left == 1
            && let Some(to_do) = TO_DO.take()
        {
            to_do();
        }
        Self(self.0)
    }
}

#[derive(Clone, Default)]
struct Row(Arc<AtomicU32>);

impl Sink<Key, u32> for Row {
    type Error = Infallible;

    async fn store(&self, writes: Vec<(Key, Hit<u32>)>) -> Result<(), Infallible> {
        writes.iter().for_each(|(_, value)| self.0.store(**value, SeqCst));
        Ok(())
    }
}

async fn read(rows: &Region<Key, u32, Infallible>, row: &Row) -> u32 {
    let row = row.clone();
    *rows.get_or_load(&Key(1), async move |_: LoadCx<Key>| Ok(row.0.load(SeqCst))).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_load_in_the_background_does_not_bring_back_what_a_pending_write_has_replaced() {
    let mut times = 0;
    for clone in 1..8 {
        let ((cache, hand), row) = (manual(), Row::default());
        let writes = Writes::behind(row.clone()).delay(Duration::from_secs(3600));
        let rows: Region<Key, u32, Infallible> = cache
            .region("rows")
            .error()
            .ttl(Duration::from_secs(10))
            .stale_for(Duration::from_secs(60))
            .writes(writes)
            .build()
            .unwrap();
        assert_eq!(read(&rows, &row).await, 0);
        hand.advance(Duration::from_secs(11));
        let storing = rows.clone();
        TO_DO.set(Some(Box::new(move || {
            let store = pin!(storing.store(Key(1), 1));
            let stored = store.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(stored, Poll::Ready(Ok(()))));
            storing.invalidate(&Key(1)); // as if it had been evicted
        })));
        CLONES.set(clone);
        assert_eq!(read(&rows, &row).await, 0, "it expired, and may be served while it is loaded anew");
        CLONES.set(0);
        if TO_DO.take().is_some() {
            continue; // there are not so many clones
        }
        times += 1;
        settle().await;
        assert_ne!(rows.get(&Key(1)).as_deref(), Some(&0), "clone {clone}");
        assert_eq!(read(&rows, &row).await, 1, "clone {clone}");
    }
    assert!(times > 1, "there are some clones");
}
