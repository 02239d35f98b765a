//! Law 10: an idle batcher owns no task and no timer, and keys seen once leave nothing behind.

mod common;

use std::sync::{Arc, Weak};

use common::*;
use swiftwater_batch::Batcher;
use tokio::runtime::Handle;

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn there_is_a_task_only_while_there_is_work_and_a_timer_only_while_there_is_a_deadline() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    settle().await;
    assert_eq!(tasks(), 0, "built");
    let call = lookups.call(1);
    settle().await;
    assert_eq!(tasks(), 1, "a runner");
    let with_deadline = lookups.with_deadline(millis(60_000)).call(2);
    settle().await;
    assert_eq!(tasks(), 2, "and a timer");
    hold.answer().await;
    hold.answer().await;
    assert_eq!(tasks(), 0, "answered, though nobody has looked");
    drop((call, with_deadline));
    let dropped = lookups.with_deadline(millis(60_000)).call(3);
    settle().await;
    assert_eq!(tasks(), 2);
    drop(dropped);
    settle().await;
    assert_eq!(tasks(), 1, "the handler still runs; nobody has a deadline");
    hold.answer().await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_timer_is_enough_for_everybody() {
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    let calls: Vec<_> = (1..=100).map(|id| lookups.with_deadline(millis(id.into())).call(id)).collect();
    settle().await;
    assert_eq!(tasks(), 2, "a runner and a timer");
    pass(millis(100)).await;
    assert_eq!(tasks(), 1);
    assert!(calls.into_iter().all(|call| ready(call).is_err()));
}

#[tokio::test]
async fn keys_seen_once_leave_nothing_behind() {
    let keys: Arc<()> = Arc::new(());
    let key = Arc::downgrade(&keys);
    let hold = Hold::new();
    struct Key(u32, #[expect(dead_code, reason = "it is counted")] Arc<()>);
    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }
    let group = move |id: &u32| Key(*id, Weak::upgrade(&key).unwrap());
    let lookups = Batcher::builder(hold.clone()).max_queued(5000).group_by(group).build().unwrap();
    for round in 0..3 {
        let calls: Vec<_> = (0..1000).map(|id| lookups.call(round * 1000 + id)).collect();
        assert_eq!(reading(&lookups, "lanes"), 1000);
        // Some are handled, the others leave.
        settle().await;
        hold.answer().await;
        drop(calls);
        hold.answer().await;
        assert_eq!((reading(&lookups, "lanes"), reading(&lookups, "queued")), (0, 0));
        assert_eq!(Arc::strong_count(&keys), 1, "no key is kept");
    }
}

#[tokio::test]
async fn dropping_the_last_handle_takes_nothing_back_and_leaves_nothing() {
    let hold = Hold::new();
    let watched = Arc::new(());
    let weak = Arc::downgrade(&watched);
    let inner = hold.clone();
    struct Watched(Hold, #[expect(dead_code, reason = "its end is watched")] Arc<()>);
    impl swiftwater_batch::Handler for Watched {
        type Request = u32;
        type Output = u32;
        type Error = &'static str;
        async fn run(&self, batch: swiftwater_batch::Batch<Self>) {
            self.0.run(batch).await;
        }
    }
    let lookups = Batcher::builder(Watched(inner, watched)).max_items(1).build().unwrap();
    let calls = [lookups.call(1), lookups.call(2)];
    drop(lookups);
    settle().await;
    hold.answer().await;
    hold.answer().await;
    assert_eq!(calls.map(ready), [Ok(10), Ok(20)]);
    settle().await;
    assert!(weak.upgrade().is_none(), "the handler is gone, too");
    assert_eq!(tasks(), 0);
}
