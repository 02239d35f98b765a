//! The conformance functions accept what keeps the laws and refuse what breaks one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use swiftwater_core::{
    Counter, Desc, Gate, Histogram, Knob, Observe, OpenGate, Outcome, Reason, Rejected, Token, Tunable, Unit,
    Visitor, conformance,
};

/// What a check says of something that breaks a law.
fn refused(check: impl FnOnce()) -> String {
    let cause = catch_unwind(AssertUnwindSafe(check)).expect_err("the check let it pass");
    match cause.downcast::<String>() {
        Ok(text) => *text,
        Err(cause) => (*cause.downcast::<&str>().expect("a panic with text")).to_owned(),
    }
}

/// Opens for good after five failures in a row, and breaks the one law that it is told to.
#[derive(Default)]
struct Five {
    failures: AtomicU32,
    open: AtomicBool,
    out: AtomicU32,
    breaks: Law,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Law {
    BlamesLocal,
    KeepsTheDropped,
    #[default]
    None,
    TakesLateSuccess,
    TakesNothingForFailure,
}

impl Gate for Five {
    fn admit(&self) -> Result<Token, Rejected> {
        if self.open.load(SeqCst) || self.out.load(SeqCst) >= 100 {
            return Err(Rejected::new(Reason::Open, Duration::from_secs(1)));
        }
        self.out.fetch_add(1, SeqCst);
        Ok(Token::new(0))
    }

    fn settle(&self, _: Token, outcome: Option<Outcome>) {
        if outcome.is_some() || self.breaks != Law::KeepsTheDropped {
            self.out.fetch_sub(1, SeqCst);
        }
        let failed = match outcome {
            Some(Outcome::Failure) => true,
            Some(Outcome::Local) => self.breaks == Law::BlamesLocal,
            None => self.breaks == Law::TakesNothingForFailure,
            _ => false,
        };
        if failed && self.failures.fetch_add(1, SeqCst) >= 4 {
            self.open.store(true, SeqCst);
        }
        if outcome == Some(Outcome::Success) {
            self.failures.store(0, SeqCst);
            if self.breaks == Law::TakesLateSuccess {
                self.open.store(false, SeqCst);
            }
        }
    }
}

#[test]
fn gates_that_keep_the_laws_pass() {
    conformance::gate(|| OpenGate);
    conformance::gate(Five::default);
    conformance::gate(|| Arc::new(Five::default()));
}

#[test]
fn gates_that_break_a_law_are_caught() {
    let checked = |breaks| {
        refused(|| {
            conformance::gate(|| Five { breaks, ..Five::default() });
        })
    };
    assert!(checked(Law::BlamesLocal).starts_with("laws 2 and 3"));
    assert!(checked(Law::KeepsTheDropped).starts_with("law 2"));
    assert!(checked(Law::TakesLateSuccess).starts_with("law 4"));
    assert!(checked(Law::TakesNothingForFailure).starts_with("law 2"));
}

static HITS: Desc = Desc::new("hits", Unit::Count, "answers found");
static WAIT: Desc = Desc::new("wait", Unit::Seconds, "time in the queue");
static TOTAL: Desc = Desc::new("hits_total", Unit::Count, "answers found");

#[test]
fn a_component_that_keeps_the_laws_passes() {
    let (hits, wait) = (Counter::new(), Histogram::new());
    hits.add(3);
    (0..100).for_each(|value| wait.record(value));
    let region = |visitor: &mut dyn Visitor| visitor.counter(&HITS, 1);
    conformance::observe(&|visitor: &mut dyn Visitor| {
        visitor.counter(&HITS, hits.read());
        visitor.histogram(&WAIT, &wait);
        visitor.part("region", &"prices", &region);
        visitor.part("region", &"stock", &region);
    });
}

#[test]
fn components_that_break_a_law_are_caught() {
    let falling = AtomicU64::new(10);
    let said = refused(|| {
        conformance::observe(&|visitor: &mut dyn Visitor| {
            visitor.counter(&HITS, falling.fetch_sub(1, SeqCst))
        });
    });
    assert!(said.starts_with("law 2"), "{said}");

    let said = refused(|| {
        conformance::observe(&|visitor: &mut dyn Visitor| {
            visitor.counter(&HITS, 1);
            visitor.gauge(&HITS, 1.0);
        });
    });
    assert!(said.contains("law 3"), "{said}");

    let region = |_: &mut dyn Visitor| {};
    let said = refused(|| {
        conformance::observe(&|visitor: &mut dyn Visitor| {
            visitor.part("region", &"prices", &region);
            visitor.part("region", &"prices", &region);
        });
    });
    assert!(said.contains("law 3"), "{said}");

    let said = refused(|| conformance::observe(&|visitor: &mut dyn Visitor| visitor.counter(&TOTAL, 1)));
    assert!(said.contains("a renderer adds _total"), "{said}");

    let turn = AtomicU64::new(0);
    let said = refused(|| {
        conformance::observe(&|visitor: &mut dyn Visitor| {
            if turn.fetch_add(1, SeqCst) == 0 {
                visitor.counter(&HITS, 1);
            }
        });
    });
    assert!(said.contains("law 2"), "{said}");
}

struct Dial {
    value: Arc<AtomicU32>,
    write: fn(&AtomicU32, f64),
    times: usize,
}

impl Tunable for Dial {
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        for _ in 0..self.times {
            let read = |value: &AtomicU32| value.load(SeqCst).into();
            each(Knob::new(&HITS, 1.0..=64.0, 1.0, &self.value, read, self.write));
        }
    }
}

#[test]
fn knobs_are_turned_and_put_back() {
    let value = Arc::new(AtomicU32::new(4));
    conformance::tunable(&Dial {
        value: value.clone(),
        write: |value, to| value.store(to as u32, SeqCst),
        times: 1,
    });
    assert_eq!(value.load(SeqCst), 4);
}

#[test]
fn knobs_that_break_a_law_are_caught() {
    let value = Arc::new(AtomicU32::new(4));
    let said = refused(|| {
        conformance::tunable(&Dial { value: value.clone(), write: |_, _| {}, times: 1 });
    });
    assert!(said.contains("law 3: hits does not read what was set"), "{said}");
    let said = refused(|| {
        conformance::tunable(&Dial { value, write: |value, to| value.store(to as u32, SeqCst), times: 2 });
    });
    assert!(said.contains("law 3: two knobs"), "{said}");
}

#[test]
fn an_observer_is_checked_through_its_arc_too() {
    struct Empty;
    impl Observe for Empty {
        fn observe(&self, _: &mut dyn Visitor) {}
    }
    let empty: Arc<dyn Observe> = Arc::new(Empty);
    conformance::observe(&*empty);
}
