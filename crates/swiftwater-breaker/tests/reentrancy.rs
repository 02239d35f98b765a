//! No code of others runs under the breaker's lock: whatever the breaker calls or drops may call the breaker.
//!
//! Where that does not hold, these tests hang.

mod common;

use std::{
    fmt,
    future::{Future, poll_fn, ready},
    pin::pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::*;
use swiftwater_breaker::{Breaker, State};
use swiftwater_core::{Clock, Desc, Observe, Outcome, Tunable, Visitor};

/// Takes every lock there is to take.
fn use_it(breaker: &Breaker) {
    breaker.set_enabled(breaker.is_enabled());
    if let Ok(permit) = breaker.try_acquire() {
        permit.finish(Outcome::Ignored);
    }
}

#[test]
fn closures_futures_and_classifiers_may_use_the_breaker() {
    let (breaker, _hand) = breaker(|b| b);
    let judge = |_: &Result<(), ()>| {
        use_it(&breaker);
        Outcome::Success
    };
    let sync = || {
        use_it(&breaker);
        Ok(())
    };
    assert_eq!(breaker.judged_by(judge).call_sync(sync), Ok(()));
    let call = breaker.judged_by(judge).call(|| {
        use_it(&breaker);
        poll_fn(|_| Poll::Ready(sync()))
    });
    assert_eq!(pin!(call).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())));
    assert_eq!((count(&breaker, "success"), count(&breaker, "ignored")), (2, 5));
}

#[test]
fn a_destructor_may_use_the_breaker() {
    struct Uses(Breaker);
    impl Drop for Uses {
        fn drop(&mut self) {
            use_it(&self.0);
        }
    }
    let (breaker, _hand) = breaker(|b| b);
    let own = Uses(breaker.clone());
    let call = breaker.call(move || {
        let own = own;
        poll_fn(move |_| -> Poll<Result<(), ()>> {
            let _ = &own;
            Poll::Pending
        })
    });
    {
        assert!(pin!(call).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let own = Uses(breaker.clone());
    assert!(
        pin!(breaker.call(|| ready(Ok::<_, ()>(own))))
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    );
    assert_eq!((count(&breaker, "dropped"), count(&breaker, "ignored")), (1, 2));
}

#[test]
fn a_clock_may_use_the_breaker() {
    let cell: Arc<OnceLock<Breaker>> = Arc::default();
    let inside = cell.clone();
    let clock = Clock::custom(move || {
        // Not `use_it`, which reads the clock.
        assert!(inside.get().is_none_or(Breaker::is_enabled));
        Duration::from_secs(1)
    });
    let breaker = Breaker::builder().clock(clock).build().expect("defaults");
    assert!(cell.set(breaker.clone()).is_ok());
    trip(&breaker);
    assert_eq!(breaker.state(), State::Open);
    assert!(reading(&breaker, "open_left") > 0.0);
}

#[test]
fn a_visitor_and_a_taker_of_knobs_may_use_the_breaker() {
    struct Uses<'a>(&'a Breaker, u64);
    impl Visitor for Uses<'_> {
        fn counter(&mut self, _: &'static Desc, _: u64) {
            use_it(self.0);
            self.1 += 1;
        }
        fn part(&mut self, _: &'static str, _: &dyn fmt::Display, _: &dyn Observe) {}
    }
    let (breaker, _hand) = breaker(|b| b);
    let mut visitor = Uses(&breaker, 0);
    breaker.observe(&mut visitor);
    let seen = visitor.1;
    assert_eq!(count(&breaker, "ignored"), seen);
    breaker.knobs(&mut |knob| {
        use_it(&breaker);
        assert!(knob.get().is_ok());
    });
}
