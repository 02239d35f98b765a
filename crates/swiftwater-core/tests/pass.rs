//! A pass settles exactly once, however it ends and whatever pointer it travels by.

use std::{
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use swiftwater_core::{Gate, OpenGate, Outcome, Pass, Reason, Rejected, Token};

/// Writes down what it is told; refuses from the third call on.
#[derive(Default)]
struct Diary {
    admitted: Mutex<u64>,
    settled: Mutex<Vec<Entry>>,
}

/// A token's bits and how its call ended.
type Entry = (u64, Option<Outcome>);

impl Diary {
    fn settled(&self) -> Vec<Entry> {
        self.settled.lock().unwrap().clone()
    }
}

impl Gate for Diary {
    fn admit(&self) -> Result<Token, Rejected> {
        let mut admitted = self.admitted.lock().unwrap();
        if *admitted == 2 {
            return Err(Rejected::new(Reason::Open, Duration::from_secs(1)));
        }
        *admitted += 1;
        Ok(Token::new(*admitted * 100))
    }

    fn settle(&self, token: Token, outcome: Option<Outcome>) {
        self.settled.lock().unwrap().push((token.bits(), outcome));
    }
}

#[test]
fn finish_settles_once_with_the_outcome_and_its_own_token() -> Result<(), Rejected> {
    let gate = Diary::default();
    let (first, second) = (Pass::enter(&gate)?, Pass::enter(&gate)?);
    second.finish(Outcome::Failure);
    first.finish(Outcome::Success);
    let settled = [(200, Some(Outcome::Failure)), (100, Some(Outcome::Success))];
    assert_eq!(gate.settled(), settled);
    Ok(())
}

#[test]
fn a_dropped_pass_settles_once_with_nothing() -> Result<(), Rejected> {
    let gate = Diary::default();
    drop(Pass::enter(&gate)?);
    assert_eq!(gate.settled(), [(100, None)]);
    Ok(())
}

#[test]
fn a_panicking_caller_settles_once_with_nothing() {
    let gate = Diary::default();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _pass = Pass::enter(&gate).unwrap();
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(result.is_err());
    assert_eq!(gate.settled(), [(100, None)]);
}

#[test]
fn a_cancelled_future_settles_once_with_nothing() {
    let gate = Arc::new(Diary::default());
    {
        let mut call = pin!(async {
            let pass = Pass::enter(gate.clone()).unwrap();
            pending::<()>().await;
            pass.finish(Outcome::Success);
        });
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Pending);
        assert_eq!(gate.settled(), [], "it is still under way");
    }
    assert_eq!(gate.settled(), [(100, None)]);
    assert_eq!(Arc::strong_count(&gate), 1, "the pass let go of its gate");
}

#[test]
fn a_refusal_settles_nothing() {
    let gate = Diary::default();
    let _both = (Pass::enter(&gate), Pass::enter(&gate));
    let no = Pass::enter(&gate).unwrap_err();
    assert_eq!(no.reason(), Reason::Open);
    assert_eq!(no.retry_after(), Duration::from_secs(1));
    assert_eq!(gate.settled(), []);
}

#[test]
fn every_kind_of_pointer_leads_to_the_gate() -> Result<(), Rejected> {
    let diary = Arc::new(Diary::default());
    let by_dyn: &dyn Gate = &*diary;
    Pass::enter(by_dyn)?.finish(Outcome::Local);
    let shared: Arc<dyn Gate> = diary.clone();
    // An `Arc` of a gate is a gate itself, so a reference to it will do too.
    Pass::enter(&shared)?.finish(Outcome::Ignored);
    assert!(Pass::enter(shared).is_err());
    assert!(Pass::enter(diary.clone()).is_err());
    assert!(Pass::enter(Box::new(diary.clone())).is_err());
    assert_eq!(diary.settled(), [(100, Some(Outcome::Local)), (200, Some(Outcome::Ignored))]);
    Ok(())
}

#[test]
fn a_pass_may_end_on_another_thread() -> Result<(), Rejected> {
    let gate: Arc<Diary> = Arc::default();
    let pass = Pass::enter(gate.clone())?;
    std::thread::spawn(move || pass.finish(Outcome::Success)).join().unwrap();
    assert_eq!(gate.settled(), [(100, Some(Outcome::Success))]);
    Ok(())
}

#[test]
fn the_open_gate_is_always_open() {
    for _ in 0..1_000 {
        Pass::enter(&OpenGate).unwrap().finish(Outcome::Failure);
    }
}

#[test]
fn a_refusal_rounds_its_time_up_to_milliseconds_and_down_to_49_days() {
    let after = |time| Rejected::new(Reason::Full, time).retry_after();
    assert_eq!(after(Duration::ZERO), Duration::ZERO);
    assert_eq!(after(Duration::from_nanos(1)), Duration::from_millis(1));
    assert_eq!(after(Duration::from_millis(7)), Duration::from_millis(7));
    assert_eq!(after(Duration::new(1, 999_999_999)), Duration::from_secs(2));
    assert_eq!(after(Duration::MAX), Duration::from_millis(u32::MAX.into()));
}

#[test]
fn a_refusal_says_why_and_until_when() {
    let no = Rejected::new(Reason::Open, Duration::from_millis(1_500));
    assert_eq!(no.to_string(), "rejected: the gate is open, retry after 1.5s");
    let no = Rejected::new(Reason::Full, Duration::ZERO);
    assert_eq!(no.to_string(), "rejected: every probe permit is out");
}
