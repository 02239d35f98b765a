//! Runtimes other than the pool's own, none at all, and one that has ended.

mod common;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use common::*;
use swiftwater_core::{Gate, Outcome, Reason, Rejected, Token};
use swiftwater_pool::{GetError, Pool};
use tokio::runtime::Runtime;

/// Runs a future on this thread, with no runtime at all.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
}

fn pool_on(runtime: &Runtime, backend: &Backend, max_size: u32) -> Pool<Backend> {
    let _entered = runtime.enter();
    Pool::builder().max_size(max_size).build(backend.clone()).unwrap()
}

#[test]
fn a_get_works_where_there_is_no_runtime() {
    let (runtime, backend) = (runtime(), Backend::new());
    let pool = pool_on(&runtime, &backend, 1);
    let guard = block_on(pool.get()).unwrap();
    let waiting = {
        let pool = pool.clone();
        thread::spawn(move || block_on(pool.get()).unwrap().id)
    };
    while pool.state().waiters == 0 {
        thread::yield_now();
    }
    drop(guard);
    assert_eq!(waiting.join().unwrap(), 0);
    block_on(pool.with(async |link| link.id)).unwrap();
    block_on(pool.close());
    assert_eq!(backend.sockets(), 0);
}

#[test]
fn a_get_works_on_another_runtime() {
    let (home, other, backend) = (runtime(), runtime(), Backend::new());
    backend.always_connects(Step::Delay(millis(1))); // a timer of the pool's runtime
    let pool = pool_on(&home, &backend, 1);
    assert_eq!(other.block_on(pool.get()).unwrap().id, 0);
}

#[test]
fn patience_ends_where_there_is_no_runtime() {
    let (runtime, backend) = (runtime(), Backend::new());
    let pool = {
        let _entered = runtime.enter();
        Pool::builder().max_size(1).acquire_timeout(millis(20)).build(backend).unwrap()
    };
    let _held = block_on(pool.get()).unwrap();
    assert!(matches!(block_on(pool.get()), Err(GetError::Timeout(_))));
}

#[test]
fn the_end_of_the_runtime_fails_who_waits_for_a_connect() {
    let (runtime, backend) = (runtime(), Backend::new());
    backend.always_connects(Step::Hang);
    let pool = pool_on(&runtime, &backend, 1);
    let mut get = queued(&pool);
    while backend.connecting() == 0 {
        thread::yield_now();
    }
    drop(runtime);
    assert!(matches!(failed(&mut get), Some(GetError::RuntimeEnded)));
    assert!(matches!(block_on(pool.get()), Err(GetError::RuntimeEnded)));
    assert_eq!((backend.sockets(), pool.state().connecting), (0, 0));
}

#[test]
fn the_end_of_the_runtime_fails_who_waits_for_a_return() {
    let (runtime, backend) = (runtime(), Backend::new());
    let pool = pool_on(&runtime, &backend, 1);
    let held = block_on(pool.get()).unwrap();
    let mut get = queued(&pool);
    drop(runtime);
    assert!(matches!(failed(&mut get), Some(GetError::RuntimeEnded)));
    drop(held); // neither panics nor comes back
    assert_eq!((backend.sockets(), pool.state().idle), (0, 0));
    block_on(pool.close());
}

#[test]
fn a_get_after_the_end_of_the_runtime_fails_at_once() {
    let (runtime, backend) = (runtime(), Backend::new());
    let pool = pool_on(&runtime, &backend, 1);
    drop(runtime); // with no task of the pool that could notice
    let error = block_on(pool.get()).unwrap_err();
    assert!(matches!(error, GetError::RuntimeEnded), "{error}");
    assert_eq!(error.outcome(), Outcome::Local);
}

#[test]
fn the_reserve_is_not_opened_again_and_again_on_a_runtime_that_has_ended() {
    let (runtime, backend) = (runtime(), Backend::new());
    backend.always_connects(Step::Hang);
    let pool = {
        let _entered = runtime.enter();
        Pool::builder().min_idle(2).build(backend.clone()).unwrap()
    };
    while backend.connecting() < 2 {
        thread::yield_now();
    }
    drop(runtime);
    assert_eq!((backend.attempts(), pool.state().connecting), (2, 0));
    assert!(matches!(block_on(pool.get()), Err(GetError::RuntimeEnded)));
}

#[test]
fn idle_connections_end_with_the_runtime() {
    let (runtime, backend) = (runtime(), Backend::new());
    let pool = pool_on(&runtime, &backend, 2);
    drop(block_on(pool.get()).unwrap());
    let held = block_on(pool.get()).unwrap();
    drop(block_on(async { pool.get().await }).unwrap());
    assert_eq!(pool.state().idle, 1);
    drop(runtime);
    assert_eq!(backend.sockets(), 1, "those in use are left to their users");
    held.discard();
    assert_eq!(backend.sockets(), 0);
    drop(pool);
}

#[test]
fn goodbyes_that_need_the_ended_runtime_are_cut_short() {
    let (runtime, backend) = (runtime(), Backend::new());
    let pool = pool_on(&runtime, &backend, 1);
    let guard = block_on(pool.get()).unwrap();
    drop(runtime);
    backend.always_closes(Step::Delay(millis(1_000)));
    drop(guard);
    assert_eq!(backend.sockets(), 0);
    block_on(pool.close());
}

#[test]
fn a_guard_moves_into_a_blocking_thread_and_back() {
    let (runtime, backend) = (runtime(), Backend::new());
    let pool = pool_on(&runtime, &backend, 1);
    runtime.block_on(async {
        let mut guard = pool.get().await.unwrap();
        let id = tokio::task::spawn_blocking(move || {
            guard.broken = false;
            guard.id
        });
        assert_eq!(id.await.unwrap(), 0);
        assert_eq!(pool.get().await.unwrap().id, 0, "given back by the other thread");
    });
}

/// A guard that is kept in a thread-local is dropped when much of the thread is gone already.
#[test]
fn a_guard_may_be_dropped_while_its_thread_ends() {
    thread_local! {
        static KEPT: std::cell::RefCell<Option<swiftwater_pool::Guard<Backend>>> = const { std::cell::RefCell::new(None) };
    }
    for discard in [false, true] {
        let (runtime, backend) = (runtime(), Backend::new());
        let pool = pool_on(&runtime, &backend, 1);
        let inside = pool.clone();
        thread::spawn(move || {
            KEPT.with(|_| ()); // registered before tokio's own, so dropped after them
            let mut guard = block_on(inside.get()).unwrap();
            guard.broken = discard;
            KEPT.with(|kept| *kept.borrow_mut() = Some(guard));
        })
        .join()
        .unwrap();
        let next = runtime.block_on(pool.get()).unwrap().id;
        assert_eq!(next, usize::from(discard));
    }
}

/// As above, and what follows from it is that the gate refuses another attempt.
#[test]
fn a_refusal_may_follow_from_a_guard_that_is_dropped_while_its_thread_ends() {
    struct Once(AtomicBool);
    impl Gate for Once {
        fn admit(&self) -> Result<Token, Rejected> {
            if self.0.swap(true, SeqCst) {
                Err(Rejected::new(Reason::Open, millis(0)))
            } else {
                Ok(Token::new(0))
            }
        }
        fn settle(&self, _: Token, _: Option<Outcome>) {}
    }
    thread_local! {
        static KEPT: std::cell::RefCell<Option<swiftwater_pool::Guard<Backend>>> = const { std::cell::RefCell::new(None) };
    }
    let (runtime, backend) = (runtime(), Backend::new());
    let pool = {
        let _entered = runtime.enter();
        let gate = Arc::new(Once(AtomicBool::new(false)));
        Pool::builder().max_size(1).gate(gate).build(backend.clone()).unwrap()
    };
    let (inside, (kept, is_kept), (end, may_end)) = (pool.clone(), mpsc::channel(), mpsc::channel::<()>());
    let thread = thread::spawn(move || {
        KEPT.with(|_| ()); // registered before tokio's own, so dropped after them
        let mut guard = block_on(inside.get()).unwrap();
        guard.broken = true;
        KEPT.with(|kept| *kept.borrow_mut() = Some(guard));
        kept.send(()).unwrap();
        may_end.recv().unwrap();
    });
    is_kept.recv().unwrap();
    let mut waiting = queued(&pool);
    end.send(()).unwrap();
    thread.join().unwrap();
    assert!(matches!(failed(&mut waiting), Some(GetError::Rejected(_))));
    assert_eq!((pool.state().connecting, pool.state().in_use, backend.sockets()), (0, 0, 0));
}
