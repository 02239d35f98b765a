//! A future that is dropped, after whatever number of polls, loses nothing.

mod common;

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use common::*;
use swiftwater_pool::{Check, Pool};

/// Ways in which a `get` may come to its connection; each is cut off after every number of polls.
#[tokio::test(start_paused = true)]
async fn a_get_that_is_dropped_after_any_number_of_polls_loses_no_slot() {
    for scene in ["cold", "check", "check fails", "handed over", "connect fails", "off"] {
        let mut polls = 0;
        loop {
            let backend = Backend::new();
            let pool = builder().max_size(1).check(Check::Always).build(backend.clone()).unwrap();
            let mut held = None;
            match scene {
                "cold" => backend.always_connects(Step::Delay(millis(10))),
                "check" | "check fails" => {
                    drop(pool.get().await.unwrap());
                    backend.always_checks(Step::Delay(millis(10)));
                    if scene == "check fails" {
                        backend.kill();
                    }
                }
                "handed over" => held = Some(pool.get().await.unwrap()),
                "off" => pool.set_enabled(false),
                _ => backend.clone().connects([Step::Fail, Step::Fail]).always_checks(Step::Ok),
            }
            let mut get = pool.get();
            let mut ready = false;
            for poll in 0..polls {
                if let Poll::Ready(result) = peek(&mut get) {
                    drop(result.unwrap());
                    ready = true;
                    break;
                }
                if poll == 0 {
                    drop(held.take());
                }
                // One poll per millisecond, in which connects and checks go on.
                settle().await;
            }
            drop(get);
            drop(held);
            pass(millis(50)).await;
            let state = pool.state();
            assert_eq!((state.in_use, state.waiters, state.connecting), (0, 0, 0), "{scene}, {polls} polls");
            assert_eq!(backend.sockets() as u32, state.idle, "{scene}, {polls} polls");
            // The one slot is still there.
            backend.always_checks(Step::Ok);
            drop(pool.get().await.unwrap());
            if ready {
                assert!(polls > 0);
                break;
            }
            polls += 1;
            assert!(polls < 200, "{scene} never gets ready");
        }
    }
}

/// In every order in which two of three waiters may give up, the third is served by what comes.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_on_its_way_goes_to_the_next_caller() {
    for survivor in 0..3 {
        for served_first in [true, false] {
            let pool = builder().max_size(1).build(Backend::new()).unwrap();
            let mut held = Some(pool.get().await.unwrap());
            let mut gets: Vec<_> = (0..3).map(|_| Some(queued(&pool))).collect();
            if served_first {
                held = None; // delivered to the first, who may be one of those who leave
            }
            for (index, get) in gets.iter_mut().enumerate() {
                if index != survivor {
                    *get = None;
                }
            }
            drop(held);
            let last = gets[survivor].as_mut().unwrap();
            assert!(served(last).is_some(), "{survivor} {served_first}");
            assert_eq!(reading(&pool, "connects"), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_demand_of_those_who_left_is_not_connected_for() {
    let backend = Backend::new();
    backend.always_connects(Step::Wait);
    let pool = builder().max_size(10).build(backend.clone()).unwrap();
    let gets: Vec<_> = (0..8).map(|_| queued(&pool)).collect();
    settle().await;
    assert_eq!(backend.connecting(), 2, "max_connecting");
    drop(gets);
    backend.release(true);
    backend.release(true);
    settle().await;
    assert_eq!((backend.attempts(), pool.state().idle), (2, 2), "the other six never began");
}

#[tokio::test(start_paused = true)]
async fn with_discards_a_connection_whose_use_was_cut_off() {
    let backend = Backend::new();
    let pool = builder().max_size(1).build(backend.clone()).unwrap();
    let length = pool.with(async |link| link.id).await.unwrap();
    assert_eq!((length, pool.state().idle), (0, 1), "finished: kept");
    {
        let work = pool.with(async |_| std::future::pending::<()>().await);
        let mut work = pin!(work);
        let polled = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_pending())).await;
        assert!(polled);
        assert_eq!(pool.state().in_use, 1);
    }
    assert_eq!(backend.sockets(), 0, "cut off: closed");
    assert_eq!(pool.with(async |link| link.id).await.unwrap(), 1);
    assert_eq!(reading(&pool, "closed_discarded"), 1);
}

#[test]
fn the_futures_are_send_and_static() {
    fn send<T: Send + 'static>(value: T) -> T {
        value
    }
    fn sync<T: Sync>(value: T) -> T {
        value
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let pool: Pool<Backend> = runtime.block_on(async { Pool::builder().build(Backend::new()).unwrap() });
    drop(send(pool.get()));
    drop(send(pool.with(async |link| link.id)));
    let guard = send(runtime.block_on(pool.get()).unwrap());
    drop(send(Arc::new(sync(guard))));
    drop(send(pool.close()));
    drop(send(sync(pool)));
}
