//! The asynchronous closure form, dropped at every point where it can be, and its way out by panic.

mod common;

use std::{
    future::{Future, poll_fn, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll, Waker},
};

use common::*;
use swiftwater_breaker::{CallError, State, consecutive};
use swiftwater_core::{Outcome, Reason};

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Pending `times` times, then `result`.
fn after<T: Clone>(times: u32, result: T) -> impl Future<Output = T> {
    let mut left = times;
    poll_fn(move |_| match left {
        0 => Poll::Ready(result.clone()),
        _ => {
            left -= 1;
            Poll::Pending
        }
    })
}

#[test]
fn nothing_happens_before_the_first_poll() {
    let (breaker, _hand) = breaker(|b| b);
    let mut called = false;
    drop(breaker.call(|| {
        called = true;
        ready(Ok::<_, ()>(()))
    }));
    assert!(!called);
    assert_eq!((count(&breaker, "admitted"), count(&breaker, "dropped")), (0, 0));
}

#[test]
fn dropped_after_any_number_of_polls_it_is_a_drop() {
    const POLLS: u32 = 5;
    for polls in 1..=POLLS {
        for result in [Ok(1), Err(2)] {
            // Half-open, so that a lost permit would show, and so would a result that counts.
            let (breaker, hand) = breaker(|b| b);
            trip_and_wait(&breaker, &hand);
            {
                let mut call = pin!(breaker.call(|| after(POLLS, result)));
                for _ in 0..polls {
                    assert!(poll(call.as_mut()).is_pending());
                }
                assert_eq!(free_permits(&breaker, 10), 0);
            }
            assert_eq!((breaker.state(), count(&breaker, "dropped")), (State::HalfOpen, 1));
            assert_eq!(free_permits(&breaker, 10), 1, "dropped after {polls} polls");
        }
    }
}

#[test]
fn run_to_its_end_it_counts_once() {
    for (result, state) in [(Ok(1), State::Closed), (Err(2), State::Open)] {
        let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
        {
            let mut call = pin!(breaker.call(|| after(3, result)));
            for _ in 0..3 {
                assert!(poll(call.as_mut()).is_pending());
            }
            assert_eq!(poll(call.as_mut()), Poll::Ready(result.map_err(CallError::Inner)));
        }
        assert_eq!((breaker.state(), count(&breaker, "dropped")), (state, 0));
        assert_eq!(count(&breaker, "success") + count(&breaker, "failure"), 1);
    }
}

#[test]
fn a_refused_call_is_not_made() {
    let (breaker, _hand) = breaker(|b| b);
    breaker.force_open();
    let mut called = false;
    {
        let mut call = pin!(breaker.call(|| {
            called = true;
            ready(Ok::<_, ()>(()))
        }));
        let Poll::Ready(Err(CallError::Rejected(rejected))) = poll(call.as_mut()) else {
            panic!("refused at once");
        };
        assert_eq!(rejected.reason(), Reason::Open);
    }
    let sync = breaker.call_sync(|| {
        called = true;
        Ok::<_, ()>(())
    });
    assert!(matches!(sync, Err(CallError::Rejected(_))));
    assert!(!called);
}

#[test]
fn a_panic_at_any_poll_is_a_failure() {
    for polls in 0..4 {
        let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
        let mut call = Box::pin(breaker.call(|| {
            let mut left = polls;
            poll_fn(move |_| -> Poll<Result<(), ()>> {
                assert!(left > 0, "on purpose");
                left -= 1;
                Poll::Pending
            })
        }));
        for _ in 0..polls {
            assert!(poll(call.as_mut()).is_pending());
        }
        assert!(catch_unwind(AssertUnwindSafe(|| poll(call.as_mut()))).is_err());
        // On record before the future is dropped.
        assert_eq!((breaker.state(), count(&breaker, "failure")), (State::Open, 1));
        drop(call);
        assert_eq!((count(&breaker, "dropped"), count(&breaker, "late")), (0, 0));
    }
}

#[test]
fn a_panic_that_makes_no_future_is_a_failure() {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
    let mut call = Box::pin(breaker.call(|| -> std::future::Ready<Result<(), ()>> { panic!("on purpose") }));
    assert!(catch_unwind(AssertUnwindSafe(|| poll(call.as_mut()))).is_err());
    drop(call);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_call_that_somebody_elses_panic_drops_is_a_drop() {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
    let scene = || {
        let mut call = pin!(breaker.call(|| after(9, Ok::<_, ()>(()))));
        assert!(poll(call.as_mut()).is_pending());
        panic!("on purpose, beside the call");
    };
    assert!(catch_unwind(AssertUnwindSafe(scene)).is_err());
    assert_eq!((breaker.state(), count(&breaker, "dropped")), (State::Closed, 1));
}

#[test]
fn the_async_classifier_is_asked() {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
    let judge = |_: &Result<(), ()>| Outcome::Ignored;
    let mut call = pin!(breaker.judged_by(judge).call(|| ready(Err(()))));
    assert_eq!(poll(call.as_mut()), Poll::Ready(Err(CallError::Inner(()))));
    assert_eq!((breaker.state(), count(&breaker, "ignored")), (State::Closed, 1));
}

#[test]
fn calls_can_be_spawned() {
    fn is_send<T: Send>(_: &T) {}
    let (breaker, _hand) = breaker(|b| b);
    let owned = breaker.clone();
    let task = async move { owned.call(|| ready(Ok::<_, std::io::Error>(1))).await };
    is_send(&task);
    assert!(poll(pin!(task)).is_ready());
}
