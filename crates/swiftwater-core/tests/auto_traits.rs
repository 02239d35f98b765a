//! What may cross threads and unwinding: taken away by one careless field, and a breaking change when it is.

use std::{
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

use swiftwater_core::{
    Backoff, BuildError, Clock, Counter, Desc, Gate, Hand, Histogram, Knob, KnobError, NameTaken, Observe,
    Observer, OpenGate, Outcome, Pass, Reason, Registry, Rejected, Tick, Token, Unit,
};

fn crosses_threads<T: Send + Sync + Unpin>() {}
fn crosses_unwinding<T: UnwindSafe + RefUnwindSafe>() {}

#[test]
fn everything_is_send_and_sync() {
    crosses_threads::<Backoff>();
    crosses_threads::<BuildError>();
    crosses_threads::<Clock>();
    crosses_threads::<Counter>();
    crosses_threads::<Desc>();
    crosses_threads::<Hand>();
    crosses_threads::<Histogram>();
    crosses_threads::<Knob>();
    crosses_threads::<KnobError>();
    crosses_threads::<NameTaken>();
    crosses_threads::<Observer>();
    crosses_threads::<Outcome>();
    crosses_threads::<Pass<&OpenGate>>();
    crosses_threads::<Pass<&dyn Gate>>();
    crosses_threads::<Pass<Arc<dyn Gate>>>();
    crosses_threads::<Reason>();
    crosses_threads::<Registry>();
    crosses_threads::<Rejected>();
    crosses_threads::<Tick>();
    crosses_threads::<Token>();
    crosses_threads::<Unit>();
    crosses_threads::<Arc<dyn Observe>>();
}

#[test]
fn what_holds_only_numbers_crosses_unwinding() {
    crosses_unwinding::<Backoff>();
    crosses_unwinding::<Counter>();
    crosses_unwinding::<Histogram>();
    crosses_unwinding::<Hand>();
    crosses_unwinding::<Pass<&OpenGate>>();
}

#[test]
fn errors_are_errors() {
    fn is_error<T: std::error::Error + 'static>() {}
    is_error::<BuildError>();
    is_error::<KnobError>();
    is_error::<NameTaken>();
    is_error::<Rejected>();
}

#[test]
fn what_travels_by_value_is_small() {
    assert_eq!(size_of::<Rejected>(), 8);
    assert_eq!(size_of::<Token>(), 8);
    assert_eq!(size_of::<Tick>(), 8);
    assert_eq!(size_of::<Counter>(), 48);
    assert_eq!(size_of::<Histogram>(), 40);
}
