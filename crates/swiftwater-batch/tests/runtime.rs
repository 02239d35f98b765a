//! Where handlers run, and what becomes of calls when that runtime ends: an answer or an error, never a hang; and the
//! batcher goes on with the next runtime.

#![allow(clippy::async_yields_async, reason = "calls outlive the runtime they were made on")]

mod common;

use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
};

use common::*;
use swiftwater_batch::{Batcher, CallError, Reason};
use tokio::runtime::{Builder, Runtime};

fn current() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Drives a future on this thread, without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

fn echo() -> Batcher<u32, u32, Arc<Infallible>> {
    Batcher::builder(|ids: Vec<u32>| async { Ok::<_, Infallible>(ids) }).build().unwrap()
}

#[test]
fn a_batcher_outlives_runtime_after_runtime() {
    let batcher = echo();
    for id in 0..3 {
        assert_eq!(current().block_on(async { batcher.call(id).await }), Ok(id));
    }
}

#[test]
fn without_any_runtime_the_request_comes_back() {
    let batcher = echo();
    let refused = batcher.try_call(1).unwrap_err();
    assert_eq!((refused.request, refused.reason), (1, Reason::NoRuntime));
    assert_eq!(block_on(batcher.call(1)), Err(CallError::Refused(Reason::NoRuntime)));
    assert_eq!((reading(&batcher, "calls"), reading(&batcher, "refused_no_runtime")), (0, 2));
    assert_eq!(current().block_on(async { batcher.call(2).await }), Ok(2));
}

#[test]
fn callers_without_a_runtime_use_the_one_it_was_built_on() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let batcher = runtime.block_on(async { echo() });
    assert_eq!(block_on(batcher.call(1)), Ok(1));
    drop(runtime);
    let refused = batcher.try_call(2).unwrap_err();
    assert_eq!((refused.request, refused.reason), (2, Reason::NoRuntime), "it has ended");
    batcher.set_enabled(false);
    let refused = batcher.try_call(3).unwrap_err();
    assert_eq!((refused.request, refused.reason), (3, Reason::NoRuntime), "switched off, too");
    assert_eq!(current().block_on(async { batcher.call(4).await }), Ok(4));
    for gauge in ["queued", "running"] {
        assert_eq!(reading(&batcher, gauge), 0);
    }
}

#[test]
fn the_running_batch_ends_with_its_runtime_and_the_queue_moves_to_the_next_one() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(1).build().unwrap();
    let first = current();
    let running = first.block_on(async {
        let running = lookups.call(1);
        settle().await;
        running
    });
    current().block_on(async {
        let mut queued = [lookups.call(2), lookups.call(3)];
        let unpolled = lookups.call(4);
        let woken = Arc::new(Wakes::default());
        let waker = Waker::from(woken.clone());
        for call in &mut queued {
            assert!(pin!(call).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        settle().await;
        assert_eq!(hold.held(), [[1]]);
        first.shutdown_background(); // as `drop`, which must not block here
        assert_eq!(ready(running), Err(CallError::RuntimeEnded));
        assert_eq!(woken.count(), 2, "somebody has to look for another runtime");
        let [mut two, three] = queued;
        pending(&mut two);
        settle().await;
        hold.release(0, Step::Answer); // that one was cut off
        for _ in 0..3 {
            hold.answer().await;
        }
        assert_eq!([two, three, unpolled].map(ready), [Ok(20), Ok(30), Ok(40)]);
    });
}

#[test]
fn a_call_on_the_next_runtime_takes_the_others_along() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    let orphan = current().block_on(async { lookups.call(1) }); // its runner never ran
    current().block_on(async {
        let next = lookups.call(2);
        settle().await;
        assert_eq!(hold.held(), [[1, 2]]);
        hold.answer().await;
        assert_eq!([orphan, next].map(ready), [Ok(10), Ok(20)]);
    });
}

#[test]
fn an_orphan_that_is_polled_without_a_runtime_ends() {
    let lookups = Batcher::builder(Hold::new()).build().unwrap();
    let orphans = current().block_on(async { [lookups.call(1), lookups.call(2)] });
    for orphan in orphans {
        assert_eq!(block_on(orphan), Err(CallError::RuntimeEnded));
    }
    assert_eq!((reading(&lookups, "queued"), reading(&lookups, "abandoned")), (0, 2));
    lookups.set_enabled(false);
    let orphan = current().block_on(async { lookups.call(3) });
    assert_eq!(block_on(orphan), Err(CallError::RuntimeEnded));
}

#[test]
fn an_unsealed_batch_that_is_cut_off_costs_nobody_anything() {
    struct NeverReady;
    impl swiftwater_batch::Handler for NeverReady {
        type Request = u32;
        type Output = u32;
        type Error = Infallible;
        async fn run(&self, batch: swiftwater_batch::Batch<Self>) {
            if tokio::runtime::Handle::current().metrics().num_workers() == 1 {
                std::future::pending::<()>().await;
            }
            batch.seal().into_iter().for_each(|item| item.reply.send(Ok(item.request)));
        }
    }
    let batcher = Batcher::builder(NeverReady).build().unwrap();
    let call = current().block_on(async {
        let call = batcher.call(1);
        settle().await;
        call
    });
    let next = Builder::new_multi_thread().worker_threads(2).build().unwrap();
    assert_eq!(next.block_on(call), Ok(1));
}

#[test]
fn deadlines_move_to_the_next_runtime_too() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).build().unwrap();
    // The runner is on one runtime, the timer on another, which ends.
    let (first, second) = (current(), current());
    let _running = first.block_on(async {
        let running = lookups.call(1);
        settle().await;
        running
    });
    let mut call = second.block_on(async {
        let call = lookups.with_deadline(millis(10)).call(2);
        settle().await;
        call
    });
    drop(second);
    current().block_on(async {
        pending(&mut call);
        pass(millis(1000)).await;
        assert!(matches!(ready(call), Err(CallError::Expired { .. })));
    });
}

#[test]
fn a_deadline_needs_timers() {
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let batcher = echo();
        let refused = batcher.with_deadline(millis(10)).try_call(1).unwrap_err();
        assert_eq!((refused.request, refused.reason), (1, Reason::NoRuntime));
        assert_eq!(batcher.call(2).await, Ok(2), "without one, it works");
        assert_eq!(reading(&batcher, "queued"), 0);
    });
}

/// Those who have no runtime left wait for the runner that there still is, and do not wake themselves or each other.
#[test]
fn who_finds_no_runtime_waits_for_the_runner_of_another_one() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(1).in_flight(3).build().unwrap();
    let alive = current();
    let running = alive.block_on(async {
        let call = lookups.call(1);
        settle().await;
        call
    });
    let ended = current();
    let mut orphans = ended.block_on(async { [lookups.call(2), lookups.call(3)] });
    drop(ended);
    let woken = Arc::new(Wakes::default());
    let waker = Waker::from(woken.clone());
    let polls = 20;
    for _ in 0..polls {
        for orphan in &mut orphans {
            assert!(pin!(orphan).poll(&mut Context::from_waker(&waker)).is_pending());
        }
    }
    assert!(woken.count() <= 4, "{} wakes in {polls} polls of two", woken.count());
    alive.block_on(async {
        for _ in 0..3 {
            hold.answer().await;
        }
    });
    let [two, three] = orphans;
    assert_eq!([running, two, three].map(ready), [Ok(10), Ok(20), Ok(30)]);
}

/// As above, and then that runner goes, too.
#[test]
fn who_found_no_runtime_is_told_when_the_last_runner_is_gone() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(1).in_flight(2).build().unwrap();
    let last = current();
    let running = last.block_on(async {
        let call = lookups.call(1);
        settle().await;
        call
    });
    let mut orphan = current().block_on(async { lookups.call(2) });
    pending(&mut orphan);
    let woken = Arc::new(Wakes::default());
    let waker = Waker::from(woken.clone());
    assert!(pin!(&mut orphan).poll(&mut Context::from_waker(&waker)).is_pending());
    let before = woken.count();
    drop(last);
    assert!(woken.count() > before);
    assert_eq!(ready(running), Err(CallError::RuntimeEnded));
    assert_eq!(ready(orphan), Err(CallError::RuntimeEnded));
}

/// Where a runtime ends, all that its tasks have called leaves at once: if each tried to start a runner, and woke the others
/// as it fails, that would take the square of their number.
#[test]
fn leaving_starts_nothing() {
    let hold = Hold::new();
    let lookups = Batcher::builder(hold.clone()).max_items(1).in_flight(2).build().unwrap();
    let alive = current();
    let running = alive.block_on(async {
        let call = lookups.call(1);
        settle().await;
        call
    });
    let [leaves, stays] = current().block_on(async { [lookups.call(2), lookups.call(3)] });
    let entered = alive.enter();
    assert_eq!(alive.metrics().num_alive_tasks(), 1);
    drop(leaves);
    assert_eq!(alive.metrics().num_alive_tasks(), 1);
    drop(entered);
    alive.block_on(async {
        for _ in 0..2 {
            hold.answer().await;
        }
    });
    assert_eq!([running, stays].map(ready), [Ok(10), Ok(30)]);
}

/// The batch may be sealed before it turns out that nobody can watch the deadline: too late to hand the request back.
#[test]
fn a_deadline_that_nobody_watches_is_an_error_and_no_hang() {
    let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let _entered = runtime.enter();
    let lookups = Batcher::builder(Hold::new()).max_items(1).in_flight(1000).build().unwrap();
    let hasty = lookups.with_deadline(millis(60_000));
    for call in (0..300).filter_map(|id| hasty.try_call(id).ok()) {
        assert_eq!(block_on(call), Err(CallError::RuntimeEnded));
    }
    assert_eq!(reading(&lookups, "calls"), reading(&lookups, "abandoned"));
}

/// Threads call from outside while the runtimes that run the handler come and go.
#[test]
fn callers_elsewhere_never_hang_while_runtimes_end() {
    let batcher = Batcher::builder(|ids: Vec<u32>| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(ids)
    })
    .max_items(3)
    .build()
    .unwrap();
    thread::scope(|scope| {
        for caller in 0..3 {
            let batcher = batcher.clone();
            scope.spawn(move || {
                for round in 0..60 {
                    let runtime =
                        Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
                    let entered = runtime.enter();
                    // Some have a deadline, far away.
                    let limit = (round % 2 == 0).then_some(millis(60_000));
                    let calls: Vec<_> = (0..5)
                        .map(|id| (id, batcher.with_deadline(limit).call(caller * 1000 + id)))
                        .collect();
                    drop(entered);
                    let before = round % 3 == 0;
                    let mut runtime = Some(runtime);
                    if before {
                        drop(runtime.take());
                    }
                    for (id, call) in calls {
                        match block_on(call) {
                            Ok(answer) => assert_eq!(answer, caller * 1000 + id),
                            Err(CallError::RuntimeEnded | CallError::Refused(Reason::NoRuntime)) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                }
            });
        }
    });
    for gauge in ["queued", "running", "lanes"] {
        assert_eq!(reading(&batcher, gauge), 0, "{gauge}");
    }
}
