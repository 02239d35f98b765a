//! What a refused call would have used up comes back.

mod common;

use std::{
    error::Error,
    future::{Future, pending, ready},
    io,
    pin::pin,
    task::{Context, Poll, Waker},
};

use common::*;
use swiftwater_breaker::{CallError, RequestError, State, consecutive};
use swiftwater_core::{Outcome, Reason};

/// Neither `Clone` nor `Copy`.
#[derive(Debug, PartialEq)]
struct Request(String);

fn request() -> Request {
    Request("spool me".into())
}

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_refusal_gives_the_request_back() {
    let (breaker, _hand) = breaker(|b| b);
    trip(&breaker);
    let call = breaker.call_request(request(), |_| -> std::future::Ready<Result<(), ()>> {
        unreachable!("it was refused")
    });
    let Poll::Ready(Err(RequestError::Rejected { request: back, rejected })) = poll(call) else {
        panic!("it was not refused")
    };
    assert_eq!((back, rejected.reason()), (request(), Reason::Open));
}

#[test]
fn a_call_that_is_made_takes_it() {
    let (breaker, _hand) = breaker(|b| b);
    let call = breaker.call_request(request(), |request| ready(Ok::<_, ()>(request.0.len())));
    assert_eq!(poll(call), Poll::Ready(Ok(8)));
    assert_eq!(count(&breaker, "success"), 1);
    let call = breaker.call_request(request(), |_| ready(Err::<(), _>(7)));
    assert_eq!(poll(call), Poll::Ready(Err(RequestError::Inner(7))));
    assert_eq!(count(&breaker, "failure"), 1);
}

#[test]
fn a_judge_is_asked_about_requests_too() {
    let (breaker, _hand) = breaker(|b| b.trip_when(consecutive(1)));
    let judge = |_: &Result<(), u8>| Outcome::Ignored;
    let call = breaker.judged_by(judge).call_request(request(), |_| ready(Err::<(), _>(7)));
    assert_eq!(poll(call), Poll::Ready(Err(RequestError::Inner(7))));
    assert_eq!((breaker.state(), count(&breaker, "ignored")), (State::Closed, 1));
}

#[test]
fn a_call_that_is_cancelled_gives_its_permit_back() {
    let (breaker, hand) = breaker(|b| b);
    trip_and_wait(&breaker, &hand);
    assert!(poll(breaker.call_request(request(), |_| pending::<Result<(), ()>>())).is_pending());
    assert_eq!((free_permits(&breaker, 5), count(&breaker, "dropped")), (1, 2));
}

#[test]
fn errors_speak_of_their_own_level_and_convert_to_the_plain_kind() {
    let (breaker, _hand) = breaker(|b| b);
    breaker.force_open();
    let call = breaker.call_request(request(), |_| ready(Ok::<(), io::Error>(())));
    let Poll::Ready(Err(error)) = poll(call) else { panic!("it was not refused") };
    assert_eq!(error.to_string(), "the breaker refused the call");
    assert!(error.source().expect("a cause").to_string().contains("the gate is open"));
    assert!(matches!(CallError::from(error), CallError::Rejected(_)));
    let inner: RequestError<_, Request> = RequestError::Inner(io::Error::other("disk"));
    assert_eq!(
        (inner.to_string(), inner.source().expect("a cause").to_string()),
        ("the call failed".into(), "disk".into())
    );
}

#[test]
fn its_future_can_be_spawned() {
    fn is_send<T: Send>(_: &T) {}
    let (breaker, _hand) = breaker(|b| b);
    is_send(&breaker.call_request(request(), |_| ready(Ok::<(), ()>(()))));
}
