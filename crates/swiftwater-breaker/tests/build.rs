//! Nonsense is refused by `build`, by the option's name; everything else works.

use std::{error::Error, io, time::Duration};

use swiftwater_breaker::{
    Breaker, Builder, CallError, OrFallback, Served, State, Trip, consecutive, failure_count, failure_rate,
    slow_rate, stalled, throttle,
};
use swiftwater_core::{Outcome, Reason, Rejected};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MS: Duration = Duration::from_millis(1);

fn refused(option: &str, builder: Builder) -> String {
    let error = builder.build().expect_err(option);
    assert_eq!(error.option(), option);
    error.to_string()
}

#[test]
fn every_option_that_cannot_work_is_named_with_its_value() {
    let b = Breaker::builder;
    let trip = |trip: Trip| refused("trip_when", b().trip_when(trip));
    assert!(trip(consecutive(0)).contains("consecutive(0)"));
    assert!(trip(consecutive(0).or(consecutive(5))).contains("consecutive(0)"));
    assert!(trip(consecutive(1_000_001)).contains("1000001"));
    for share in [0.0, 0.0009, -0.5, 1.000001, f64::NAN, f64::INFINITY] {
        assert!(trip(consecutive(5).or(failure_rate(share))).contains(&format!("failure_rate({share})")));
    }
    for window in [Duration::ZERO, MS * 99, DAY + MS, Duration::MAX] {
        assert!(trip(failure_rate(0.5).over(window).into()).contains("over("));
    }
    assert!(trip(failure_rate(0.5).min_calls(0).into()).contains("min_calls(0)"));
    for share in [0.0, 1.1, f64::NAN] {
        assert!(trip(slow_rate(share, MS).into()).contains(&format!("slow_rate({share})")));
    }
    for time in [Duration::ZERO, MS / 2, DAY + MS] {
        assert!(trip(slow_rate(0.5, time).into()).contains(&format!("slow_rate(_, {time:?})")));
        assert!(trip(stalled(time).into()).contains(&format!("stalled({time:?})")));
        assert!(trip(failure_count(5).over(time).into()).contains(&format!("over({time:?})")));
        refused("ramp", b().ramp(time));
        assert!(refused("throttle", b().throttle(throttle(2.0).over(time))).contains("over("));
    }
    for calls in [0, 1_000_001] {
        assert!(trip(failure_rate(0.5).over_calls(calls).into()).contains(&format!("over_calls({calls})")));
        assert!(trip(failure_count(calls).into()).contains(&format!("failure_count({calls})")));
        assert!(trip(stalled(DAY).at_least(calls).into()).contains(&format!("at_least({calls})")));
    }
    assert!(trip(failure_rate(0.5).over_calls(10).min_calls(11).into()).contains("min_calls(11)"));
    for k in [0.0, 0.99, 100.1, f64::NAN] {
        assert!(refused("throttle", b().throttle(throttle(k))).contains(&format!("throttle({k})")));
    }
    assert!(refused("throttle", b().throttle(throttle(2.0).min_calls(0))).contains("min_calls(0)"));
    for range in [Duration::ZERO..=MS, MS * 2..=MS, MS..=DAY + MS, MS..=Duration::MAX] {
        assert!(refused("open_for", b().open_for(range)).contains("..="));
    }
    for probes in [0, 1001, u32::MAX] {
        assert!(refused("probes", b().probes(probes)).contains(&probes.to_string()));
    }
    assert!(refused("successes", b().successes(0)).contains('0'));
    for lease in [Duration::ZERO, DAY + MS, Duration::MAX] {
        refused("probe_lease", b().probe_lease(lease));
    }
}

#[test]
fn the_ends_of_every_range_work() {
    for builder in [
        Breaker::builder(),
        Breaker::builder()
            .trip_when(consecutive(1).or(failure_rate(0.001).over(MS * 100).min_calls(1)))
            .open_for(MS..=MS)
            .probes(1)
            .successes(1)
            .probe_lease(MS)
            .ramp(MS)
            .throttle(throttle(1.0).over(MS * 100).min_calls(1)),
        Breaker::builder().trip_when(
            slow_rate(0.001, MS)
                .over_calls(1)
                .or(failure_count(1).over(MS * 100))
                .or(stalled(MS * 100).at_least(1)),
        ),
        Breaker::builder()
            .trip_when(consecutive(1_000_000).or(failure_rate(1.0).over(DAY).min_calls(u64::MAX)))
            .open_for(DAY..=DAY)
            .probes(1000)
            .successes(u32::MAX)
            .probe_lease(DAY)
            .probe_failures(u32::MAX)
            .ramp(DAY)
            .throttle(throttle(100.0).over(DAY).min_calls(u64::MAX)),
        Breaker::builder().trip_when(
            slow_rate(1.0, DAY)
                .over_calls(1_000_000)
                .or(failure_count(1_000_000).over(DAY))
                .or(stalled(DAY).at_least(1_000_000)),
        ),
    ] {
        let breaker = builder.build().expect("within every range");
        breaker.try_acquire().expect("closed").finish(Outcome::Failure);
    }
}

#[test]
fn the_defaults_are_those_that_are_documented() -> Result<(), Box<dyn Error>> {
    let breaker = Breaker::builder().build()?;
    assert!(breaker.is_enabled());
    for _ in 0..5 {
        assert_eq!(breaker.state(), State::Closed);
        breaker.try_acquire()?.finish(Outcome::Failure);
    }
    let rejected = breaker.try_acquire().unwrap_err();
    assert!(rejected.retry_after() <= Duration::from_secs(1));
    Ok(())
}

#[test]
fn errors_speak_of_their_own_level_and_hand_on_the_cause() {
    let inner = CallError::Inner(io::Error::other("disk"));
    assert_eq!(inner.to_string(), "the call failed");
    assert_eq!(inner.source().expect("a cause").to_string(), "disk");
    let rejected: CallError<io::Error> = Rejected::new(Reason::Open, MS).into();
    assert_eq!(rejected.to_string(), "the breaker refused the call");
    let cause = rejected.source().expect("a cause");
    assert!(cause.downcast_ref::<Rejected>().is_some_and(|r| r.reason() == Reason::Open));
}

#[test]
fn a_fallback_stands_in_for_a_refusal_only() {
    let rejected = Rejected::new(Reason::Full, MS);
    let refused: Result<u8, CallError<u8>> = Err(rejected.into());
    assert_eq!(refused.or_fallback(|_| 7), Ok(Served::Degraded { value: 7, rejected }));
    let failed: Result<u8, _> = Err(CallError::Inner(3));
    assert_eq!(failed.or_fallback(|_| unreachable!("the call was made")), Err(3));
    let made: Result<u8, CallError<u8>> = Ok(5);
    assert_eq!(made.or_fallback(|_| unreachable!("the call was made")), Ok(Served::Fresh(5)));
    assert!(Served::Degraded { value: 7, rejected }.is_degraded() && !Served::Fresh(5).is_degraded());
    assert_eq!((Served::Degraded { value: 7, rejected }.into_inner(), Served::Fresh(5).into_inner()), (7, 5));
}
