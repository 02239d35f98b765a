//! Knobs: nothing but finite values inside the bounds and on a step ever reaches a component.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use swiftwater_core::{Desc, Knob, KnobError, Unit};

static SIZE: Desc = Desc::new("size", Unit::Count, "how big it is");

/// Remembers everything that was written.
type Target = Arc<Mutex<Vec<f64>>>;

fn knob(bounds: std::ops::RangeInclusive<f64>, step: f64) -> (Knob, Target) {
    let target = Target::default();
    let read = |t: &Mutex<Vec<f64>>| t.lock().unwrap().last().copied().unwrap_or(0.0);
    let write = |t: &Mutex<Vec<f64>>, value| t.lock().unwrap().push(value);
    (Knob::new(&SIZE, bounds, step, &target, read, write), target)
}

fn written(target: &Target) -> Vec<f64> {
    target.lock().unwrap().clone()
}

#[test]
fn set_writes_what_it_returns_and_get_reads_it() {
    let (knob, target) = knob(0.0..=10.0, 0.0);
    assert_eq!(knob.set(2.5), Ok(2.5));
    assert_eq!(knob.get(), Ok(2.5));
    assert_eq!(written(&target), [2.5]);
}

#[test]
fn a_refused_value_reaches_nobody() {
    let (knob, target) = knob(1.0..=10.0, 1.0);
    assert_eq!(knob.set(f64::NAN), Err(KnobError::NotANumber));
    for value in [0.999, 10.001, f64::INFINITY, f64::NEG_INFINITY, -1.0, f64::MAX] {
        let (min, max) = (1.0, 10.0);
        assert_eq!(knob.set(value), Err(KnobError::OutOfBounds { value, min, max }));
    }
    assert_eq!(written(&target), []);
}

#[test]
fn the_bounds_themselves_are_inside() {
    let (knob, _target) = knob(1.0..=10.0, 1.0);
    assert_eq!(knob.set(1.0), Ok(1.0));
    assert_eq!(knob.set(10.0), Ok(10.0));
}

#[test]
fn values_are_rounded_to_the_nearest_step_from_the_lower_bound() {
    let (knob, _target) = knob(1.0..=20.0, 5.0);
    for (value, set) in [(1.0, 1.0), (3.4, 1.0), (3.5, 6.0), (12.0, 11.0)] {
        assert_eq!(knob.set(value), Ok(set), "{value}");
    }
}

#[test]
fn rounding_never_leaves_the_bounds() {
    // The steps are 1, 6, 11 and 16: 21 would be outside.
    let (knob, _target) = knob(1.0..=20.0, 5.0);
    assert_eq!(knob.set(20.0), Ok(16.0));
}

#[test]
fn a_bound_that_floating_point_misses_by_a_hair_is_reached() {
    let (knob, _target) = knob(0.0..=0.3, 0.1);
    assert_eq!(knob.set(0.3), Ok(0.3));
}

#[test]
fn within_keeps_the_steps_of_the_component() {
    let (knob, _target) = knob(1.0..=64.0, 7.0); // 1, 8, 15, 22, ..
    let narrow = knob.within(2.0..=20.0).unwrap();
    assert_eq!(narrow.bounds(), 2.0..=20.0);
    assert_eq!(narrow.set(2.0), Ok(8.0));
    assert_eq!(narrow.set(20.0), Ok(15.0));
}

#[test]
fn within_only_narrows() {
    let (knob, _target) = knob(1.0..=64.0, 1.0);
    let same = knob.within(-5.0..=f64::INFINITY).unwrap();
    assert_eq!(same.bounds(), 1.0..=64.0);
    let narrow = knob.within(4.0..=8.0).unwrap();
    assert_eq!(narrow.within(1.0..=64.0).unwrap().bounds(), 4.0..=8.0);
    assert!(narrow.set(9.0).is_err());
    assert_eq!(knob.set(9.0), Ok(9.0), "the wide one is as it was");
}

#[test]
fn within_refuses_what_leaves_nothing() {
    let (knob, _target) = knob(1.0..=64.0, 7.0);
    assert_eq!(knob.within(f64::NAN..=3.0).unwrap_err(), KnobError::NotANumber);
    assert_eq!(knob.within(3.0..=f64::NAN).unwrap_err(), KnobError::NotANumber);
    assert!(matches!(knob.within(65.0..=70.0), Err(KnobError::OutOfBounds { .. })));
    let (low, high) = (10.0, 5.0); // the wrong way round
    assert!(matches!(knob.within(low..=high), Err(KnobError::OutOfBounds { .. })));
    assert!(matches!(knob.within(2.0..=3.0), Err(KnobError::OutOfBounds { .. })), "no step in there");
}

#[test]
fn a_dropped_component_is_gone_and_a_knob_does_not_keep_it() {
    let (knob, target) = knob(1.0..=10.0, 1.0);
    let narrow = knob.within(2.0..=3.0).unwrap();
    drop(target);
    assert_eq!(knob.get(), Err(KnobError::Gone));
    assert_eq!(knob.set(5.0), Err(KnobError::Gone));
    assert_eq!(narrow.set(2.0), Err(KnobError::Gone));
    assert!(format!("{knob:?}").contains("value: None"));
}

#[test]
fn nonsense_from_the_component_is_repaired() {
    let (low, high) = (10.0, 1.0); // the wrong way round
    assert_eq!(knob(low..=high, 1.0).0.bounds(), 1.0..=10.0);
    assert_eq!(knob(0.0..=1.0, -3.0).0.step(), 0.0);
    assert_eq!(knob(0.0..=1.0, f64::NAN).0.step(), 0.0);

    let (endless_step, target) = knob(0.0..=1.0, f64::INFINITY);
    assert_eq!(endless_step.set(0.25), Ok(0.25));
    assert_eq!(written(&target), [0.25]);

    let (boundless, target) = knob(f64::NEG_INFINITY..=f64::INFINITY, 2.0);
    assert_eq!(boundless.bounds(), f64::MIN..=f64::MAX);
    assert_eq!(boundless.set(5.0), Ok(5.0));
    assert!(boundless.set(f64::INFINITY).is_err());
    assert_eq!(written(&target), [5.0]);

    let (unknown, _target) = knob(f64::NAN..=7.0, 1.0);
    assert_eq!(unknown.bounds(), f64::MIN..=7.0);
    assert_eq!(unknown.set(6.5), Ok(6.5));
}

#[test]
fn errors_say_what_was_wrong() {
    let (knob, _target) = knob(1.0..=10.0, 1.0);
    assert_eq!(knob.set(11.0).unwrap_err().to_string(), "11 is outside 1 to 10");
    assert_eq!(KnobError::Gone.to_string(), "the component is gone");
    assert_eq!(KnobError::NotANumber.to_string(), "not a number");
}

proptest! {
    /// Whatever is asked, only finite values inside both bounds and on a step of the component are written.
    #[test]
    fn whatever_is_asked_the_component_sees_only_what_it_promised(
        min in -1e6..1e6f64,
        width in 0.0..1e6f64,
        step in prop_oneof![Just(0.0), 1e-3..1e5f64],
        (from, to) in (-2e6..2e6f64, -2e6..2e6f64),
        values in prop::collection::vec(prop_oneof![any::<f64>(), -2e6..2e6f64], 1..20),
    ) {
        let (knob, target) = knob(min..=min + width, step);
        let Ok(narrow) = knob.within(from.min(to)..=from.max(to)) else { return Ok(()) };
        for value in values {
            let set = narrow.set(value);
            prop_assert_eq!(set.is_ok(), narrow.bounds().contains(&value));
        }
        for value in written(&target) {
            prop_assert!(value.is_finite());
            prop_assert!(value >= min && value <= min + width);
            prop_assert!(narrow.bounds().contains(&value), "{} in {:?}", value, narrow.bounds());
            if step > 0.0 {
                let steps = (value - min) / step;
                prop_assert!((steps - steps.round()).abs() < 1e-6, "{} steps", steps);
            }
        }
    }
}
