//! The laws of the traits of this crate as functions that a test calls: each panics with the law that does not hold.
//!
//! They look from outside, so they can refute an implementation, not prove it.
//!
//! ```
//! use swiftwater_core::{OpenGate, conformance};
//!
//! conformance::gate(|| OpenGate);
//! ```

use std::{
    fmt::Display,
    mem,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    thread,
};

use crate::{Desc, Distribution, Gate, Knob, KnobError, Observe, Outcome, Pass, Tunable, Visitor};

/// Checks a [`Gate`] by its laws 2 to 4.
///
/// `make` makes a fresh gate each time, one that admits, that limits neither the rate of calls nor, below 2, their number
/// at a time, and whose clock is not so quick that a refusal ends while the check looks at it (a manual one is best).
///
/// # Panics
///
/// When a law does not hold.
pub fn gate<G: Gate>(make: impl Fn() -> G) {
    a_dropped_pass_frees_its_place(&make());
    no_blame_without_a_failure(&make());
    a_panicking_caller_frees_its_place(&make());
    late_tokens_change_nothing(&make());
    threads_do_not_trip_over_one_another(Arc::new(make()));
}

fn a_dropped_pass_frees_its_place(gate: &dyn Gate) {
    for call in 0..MANY {
        let pass = Pass::enter(gate);
        assert!(pass.is_ok(), "law 2: refused after {call} dropped passes: {pass:?}");
    }
    let together: Vec<_> = (0..64).map_while(|_| Pass::enter(gate).ok()).collect();
    assert!(together.len() >= 2, "a fresh gate lets two calls in at a time");
    drop(together);
    let pass = Pass::enter(gate);
    assert!(pass.is_ok(), "law 2: refused after passes were dropped together: {pass:?}");
}

fn no_blame_without_a_failure(gate: &dyn Gate) {
    for outcome in [Outcome::Success, Outcome::Local, Outcome::Ignored] {
        for call in 0..MANY {
            match Pass::enter(gate) {
                Ok(pass) => pass.finish(outcome),
                Err(no) => panic!("laws 2 and 3: {no} after {call} calls that ended as {outcome:?}"),
            }
        }
    }
}

fn a_panicking_caller_frees_its_place(gate: &dyn Gate) {
    for call in 0..100 {
        let unwound: Result<(), _> = catch_unwind(AssertUnwindSafe(|| {
            let pass = Pass::enter(gate);
            assert!(pass.is_ok(), "law 2: refused after {call} callers panicked");
            // Quiet, unlike `panic!`: no hook is called.
            resume_unwind(Box::new(OnPurpose));
        }));
        if let Err(cause) = unwound
            && !cause.is::<OnPurpose>()
        {
            resume_unwind(cause);
        }
    }
}

fn late_tokens_change_nothing(gate: &dyn Gate) {
    let late: Vec<_> = (0..2).map_while(|_| gate.admit().ok()).collect();
    let refuses = (0..MANY).any(|_| match Pass::enter(gate) {
        Ok(pass) => {
            pass.finish(Outcome::Failure);
            false
        }
        Err(_) => true,
    });
    for (token, outcome) in late.into_iter().zip([Some(Outcome::Success), None]) {
        gate.settle(token, outcome);
        let admitted = Pass::enter(gate).is_ok();
        assert!(
            !refuses || !admitted,
            "law 4: a call of old, settled with {outcome:?}, made a gate admit that had been refusing"
        );
    }
}

fn threads_do_not_trip_over_one_another<G: Gate>(gate: Arc<G>) {
    let calls = |number: usize| {
        let gate: Arc<dyn Gate> = gate.clone();
        move || {
            for call in 0..MANY {
                if let Ok(pass) = Pass::enter(gate.clone()) {
                    match (call + number) % 3 {
                        0 => drop(pass),
                        1 => pass.finish(Outcome::Local),
                        _ => pass.finish(Outcome::Success),
                    }
                }
            }
        }
    };
    let threads: Vec<_> = (0..4).map(|number| thread::spawn(calls(number))).collect();
    for thread in threads {
        thread.join().unwrap_or_else(|cause| resume_unwind(cause));
    }
    assert!(Pass::enter(gate).is_ok(), "law 2: refused after four threads are done");
}

/// Checks an [`Observe`] by its laws 2 and 3, names by what [`Desc`] says, and histograms by the laws of
/// [`Distribution`]. Nothing else may happen to the component meanwhile.
///
/// # Panics
///
/// When a law does not hold.
pub fn observe(component: &dyn Observe) {
    let pass = || {
        let mut readings = Readings::default();
        component.observe(&mut readings);
        readings.0
    };
    let (first, second) = (pass(), pass());
    let order = |readings: &[Reading]| -> Vec<_> { readings.iter().map(|r| r.path.clone()).collect() };
    assert_eq!(order(&first), order(&second), "law 2: the order of readings");
    for (one, two) in first.iter().zip(&second) {
        assert!(one.count <= two.count, "law 2: {} went back", one.path);
    }
    let mut paths = order(&first);
    paths.sort();
    for pair in paths.windows(2) {
        assert_ne!(pair[0], pair[1], "law 3: shown twice");
    }
}

/// Every reading under its path; parts stand for themselves too, as `pool=orders/`.
#[derive(Default)]
struct Readings(Vec<Reading>, String);

struct Reading {
    path: String,
    count: u64,
}

impl Readings {
    fn reading(&mut self, desc: &Desc, count: u64) {
        name(desc.name);
        assert!(!desc.help.is_empty(), "{} has no help", desc.name);
        for suffix in ["_total", "_sum", "_count", "_bucket", "_seconds", "_bytes", "_ratio"] {
            let whole = desc.name.ends_with(suffix);
            assert!(!whole, "{:?}: a renderer adds {suffix}", desc.name);
        }
        let path = format!("{}{}", self.1, desc.name);
        self.0.push(Reading { path, count });
    }
}

impl Visitor for Readings {
    fn counter(&mut self, desc: &'static Desc, value: u64) {
        self.reading(desc, value);
    }

    fn gauge(&mut self, desc: &'static Desc, _: f64) {
        self.reading(desc, 0);
    }

    fn histogram(&mut self, desc: &'static Desc, value: &dyn Distribution) {
        let mut total = 0;
        let mut last = None;
        value.buckets(&mut |range: RangeInclusive<u64>, count| {
            assert!(!range.is_empty(), "{}: an empty range", desc.name);
            assert!(last < Some(*range.start()), "{}: buckets overlap or descend", desc.name);
            last = Some(*range.end());
            total += count;
        });
        let _ = value.sum();
        self.reading(desc, total);
    }

    fn state(&mut self, desc: &'static Desc, value: &dyn Display) {
        assert!(!value.to_string().is_empty(), "{}: a state without a name", desc.name);
        self.reading(desc, 0);
    }

    fn part(&mut self, kind: &'static str, part: &dyn Display, inner: &dyn Observe) {
        name(kind);
        let path = format!("{}{kind}={part}/", self.1);
        self.0.push(Reading { path: path.clone(), count: 0 });
        let outer = mem::replace(&mut self.1, path);
        inner.observe(self);
        self.1 = outer;
    }
}

fn name(name: &str) {
    let mut letters = name.chars();
    let begins = letters.next().is_some_and(|c| c.is_ascii_lowercase());
    let goes_on = letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    assert!(begins && goes_on, "{name:?} is not lower-case words joined by _");
}

/// Checks a [`Tunable`] by its laws 1 and 3, turning each knob to its bounds and back. Nothing else may happen to the
/// component meanwhile.
///
/// # Panics
///
/// When a law does not hold.
pub fn tunable(component: &dyn Tunable) {
    let knobs = || {
        let mut knobs = Vec::new();
        component.knobs(&mut |knob| knobs.push(knob));
        knobs
    };
    let names = |knobs: &[Knob]| -> Vec<_> { knobs.iter().map(Knob::name).collect() };
    let (first, second) = (knobs(), knobs());
    assert_eq!(names(&first), names(&second), "law 1: the order of knobs");
    let mut sorted = names(&first);
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        assert_ne!(pair[0], pair[1], "law 3: two knobs of one name");
    }
    for knob in &first {
        turn(knob);
    }
}

fn turn(knob: &Knob) {
    name(knob.name());
    let (bounds, name) = (knob.bounds(), knob.name());
    let before = knob.get();
    let Ok(start) = before else {
        panic!("{name}: gone while its component is there");
    };
    assert!(bounds.contains(&start), "{name}: {start} is outside its own bounds");
    assert_eq!(knob.set(f64::NAN), Err(KnobError::NotANumber), "{name}");
    assert!(knob.set(f64::INFINITY).is_err(), "{name}: took infinity");
    assert_eq!(knob.get(), before, "{name}: a refused value changed it");
    for value in [*bounds.start(), *bounds.end(), start] {
        let set = knob.set(value);
        assert!(set.is_ok(), "{name}: refused {value}: {set:?}");
        assert_eq!(knob.get(), set, "law 3: {name} does not read what was set");
    }
    assert_eq!(knob.get(), before, "{name}: {start} is not on a step");
}

/// Thrown by a caller that panics on purpose.
struct OnPurpose;

const MANY: usize = 1000;
