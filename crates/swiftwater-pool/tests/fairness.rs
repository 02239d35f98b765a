//! First come, first served.

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use common::*;
use swiftwater_pool::Connect;

#[tokio::test(start_paused = true)]
async fn callers_are_served_in_the_order_of_their_first_polls() {
    let pool = builder().max_size(1).build(Backend::new()).unwrap();
    let mut held = pool.get().await.unwrap();
    let (mut late, mut early) = (pool.get(), queued(&pool)); // called first, polled second
    assert!(served(&mut late).is_none());
    let mut others: Vec<_> = (0..50).map(|_| queued(&pool)).collect();
    drop(held);
    assert!(served(&mut late).is_none());
    held = served(&mut early).expect("first");
    drop(held);
    held = served(&mut late).expect("second");
    for turn in 0..others.len() {
        drop(held);
        for after in &mut others[turn + 1..] {
            assert!(served(after).is_none(), "overtaken");
        }
        held = served(&mut others[turn]).expect("its turn");
    }
}

#[tokio::test(start_paused = true)]
async fn a_return_wakes_one_caller_once() {
    let pool = builder().max_size(2).build(Backend::new()).unwrap();
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let woken: Vec<_> = (0..3).map(|_| Arc::new(Woken::default())).collect();
    let mut gets: Vec<_> = (0..3).map(|_| pool.get()).collect();
    for (get, woken) in gets.iter_mut().zip(&woken) {
        assert!(poll(get, woken).is_pending());
    }
    drop(one);
    assert_eq!(woken.iter().map(|w| w.times()).collect::<Vec<_>>(), [1, 0, 0]);
    drop(two);
    assert_eq!(woken.iter().map(|w| w.times()).collect::<Vec<_>>(), [1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_waker_of_the_last_poll_is_the_one_that_is_woken() {
    let pool = builder().max_size(1).build(Backend::new()).unwrap();
    let held = pool.get().await.unwrap();
    let (old, new) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let mut get = pool.get();
    assert!(poll(&mut get, &old).is_pending());
    assert!(poll(&mut get, &new).is_pending());
    drop(held);
    assert_eq!((old.times(), new.times()), (0, 1));
}

/// The one that was delivered turns out to be broken when it is picked up: its caller keeps its place.
#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_on_its_way_costs_nobody_his_turn() {
    let backend = Backend::new();
    let pool = builder().max_size(2).build(backend.clone()).unwrap();
    let (one, mut two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let (mut first, mut second) = (queued(&pool), queued(&pool));
    drop(one); // for the first, and broken when it looks at it
    backend.is_broken_panics(true);
    assert!(served(&mut first).is_none());
    backend.is_broken_panics(false);
    two.broken = false;
    drop(two);
    assert!(served(&mut second).is_none(), "the first is still the one who has waited longest");
    assert!(served(&mut first).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_most_recently_used_connection_is_lent_first() {
    let pool = builder().max_size(3).build(Backend::new()).unwrap();
    let (one, two, three) = (pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(two);
    drop(three);
    drop(one);
    assert_eq!(pool.get().await.unwrap().id, 0);
}

#[tokio::test(start_paused = true)]
async fn try_get_takes_only_what_is_idle() {
    let backend = Backend::new();
    let pool = builder().max_size(1).build(backend.clone()).unwrap();
    assert!(pool.try_get().is_none());
    assert_eq!(backend.attempts(), 0);
    drop(pool.get().await.unwrap());
    pass(millis(5_000)).await;
    let mut idle = pool.try_get().expect("idle, though not checked");
    assert_eq!(backend.checked(), 0);
    assert!(pool.try_get().is_none());
    idle.broken = true;
    drop(idle);
    assert!(pool.try_get().is_none());
    assert_eq!(pool.state().in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn try_get_does_not_overtake_somebody_whose_connection_is_being_checked() {
    let backend = Backend::new();
    let pool = builder().max_size(2).build(backend.clone()).unwrap();
    drop((pool.get().await.unwrap(), pool.get().await.unwrap()));
    pass(millis(2_000)).await;
    backend.always_checks(Step::Hang);
    let mut first = queued(&pool);
    settle().await;
    assert_eq!((pool.state().idle, pool.state().waiters), (1, 1));
    assert!(pool.try_get().is_none());
    assert_eq!((&mut first).await.unwrap().id, 2, "a new one, since the old ones do not answer");
}

type Act = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Says which connections are broken, and does something while one is closed.
#[derive(Clone, Default)]
struct Hook {
    opened: Arc<AtomicUsize>,
    broken: Arc<Mutex<Vec<usize>>>,
    at_close: Act,
}

impl Connect for Hook {
    type Connection = usize;
    type Error = Refused;

    async fn connect(&self) -> Result<usize, Refused> {
        Ok(self.opened.fetch_add(1, SeqCst))
    }

    async fn check(&self, _: &mut usize) -> Result<(), Refused> {
        Ok(())
    }

    fn is_broken(&self, id: &mut usize) -> bool {
        self.broken.lock().unwrap().contains(id)
    }

    async fn close(&self, _: usize) {
        let act = self.at_close.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_connection_that_broke_on_its_way_is_closed_nobody_overtakes() {
    let hook = Hook::default();
    let pool = builder_of::<Hook>().max_size(2).build(hook.clone()).unwrap();
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let id = *one;
    let mut first = pool.get();
    assert!(served(&mut first).is_none());
    drop(one); // for the first, and broken when it looks at it
    hook.broken.lock().unwrap().push(id);
    let overtaken = Arc::new(AtomicBool::new(false));
    let (inside, seen) = (pool.clone(), overtaken.clone());
    *hook.at_close.lock().unwrap() = Some(Box::new(move || {
        drop(two); // stands for another thread
        seen.store(served(&mut inside.get()).is_some(), SeqCst);
    }));
    let second = served(&mut first).expect("what came back meanwhile");
    assert!(!overtaken.load(SeqCst) && *second != id);
    assert!(hook.at_close.lock().unwrap().is_none(), "it was closed");
}
