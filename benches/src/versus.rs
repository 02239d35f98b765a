//! Side-by-side runs: ours, the rivals and the floor take turns in one process, and every turn checks its answers.
//!
//! A [`Case`] is what is measured and who takes part:
//!
//! ```
//! use swiftwater_benches::versus::{Case, Effort, Figure, time_per_op};
//!
//! let mut case = Case::new([Figure::lower("count_1t", "ns")]);
//! case.ours(|effort: Effort| {
//!     let ns = time_per_op(1, effort, |_, count| assert_eq!((0..count).count() as u64, count));
//!     [ns]
//! });
//! case.floor("nothing", |effort: Effort| [time_per_op(1, effort, |_, _| {})]);
//! ```
//!
//! A contestant is a closure that sets up, measures once and returns one number for each figure; what it can share
//! between rounds it keeps. It checks its answers with `assert!`: a panic is a wrong answer, ends the run and names the
//! contestant. [`run`] gives everybody a turn to warm up, which does not count, then [`Effort::rounds`] turns in an order
//! that rotates, and probes before each round how far apart the processors are.

mod report;
mod spread;

use std::{
    any::Any,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

pub use report::{json, table};
pub use spread::{Spread, quantile};

use crate::together;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Turns that count, of each contestant.
    pub rounds: u32,
    /// About how long a turn is timed.
    pub time: Duration,
    /// For cases that have to choose a size: a run that only shows that everything works.
    pub quick: bool,
}

impl Effort {
    pub const FULL: Self = Self { rounds: 7, time: Duration::from_millis(120), quick: false };
    pub const QUICK: Self = Self { rounds: 5, time: Duration::from_millis(12), quick: true };
}

/// One number of a case.
#[derive(Clone, Debug)]
pub struct Figure {
    pub case: String,
    pub unit: &'static str,
    pub better: Better,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
}

impl Figure {
    /// A cost.
    pub fn lower(case: impl Into<String>, unit: &'static str) -> Self {
        Self { case: case.into(), unit, better: Better::Lower }
    }

    /// A yield.
    pub fn higher(case: impl Into<String>, unit: &'static str) -> Self {
        Self { case: case.into(), unit, better: Better::Higher }
    }
}

/// What is measured in one turn, and who takes part.
pub struct Case {
    figures: Vec<Figure>,
    contestants: Vec<Contestant>,
}

struct Contestant {
    role: Role,
    name: String,
    measure: Box<dyn FnMut(Effort) -> Vec<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Floor,
    Ours,
    Rival,
}

impl Case {
    /// One turn yields all `figures`; a contestant that has nothing to say to one of them returns [`NOTHING`] there.
    pub fn new(figures: impl IntoIterator<Item = Figure>) -> Self {
        Self { figures: figures.into_iter().collect(), contestants: Vec::new() }
    }

    pub fn ours<R: Into<Vec<f64>>>(&mut self, measure: impl FnMut(Effort) -> R + 'static) {
        self.add(Role::Ours, "swiftwater", measure);
    }

    /// `name`: the crate, and which form of it.
    pub fn rival<R: Into<Vec<f64>>>(&mut self, name: &str, measure: impl FnMut(Effort) -> R + 'static) {
        self.add(Role::Rival, name, measure);
    }

    /// What cannot be undercut, or what one would write by hand without any crate for it. At most one a case.
    pub fn floor<R: Into<Vec<f64>>>(&mut self, name: &str, measure: impl FnMut(Effort) -> R + 'static) {
        self.add(Role::Floor, name, measure);
    }

    fn add<R: Into<Vec<f64>>>(
        &mut self,
        role: Role,
        name: &str,
        mut measure: impl FnMut(Effort) -> R + 'static,
    ) {
        assert!(role == Role::Rival || self.contestants.iter().all(|other| other.role != role), "one only");
        let measure = Box::new(move |effort| measure(effort).into());
        self.contestants.push(Contestant { role, name: name.to_owned(), measure });
    }
}

/// No number: left out of the tables.
pub const NOTHING: f64 = f64::NAN;

/// A case that is set up when its turn comes, so that only one stands at a time.
pub struct Planned {
    pub name: String,
    pub make: Box<dyn FnOnce() -> Case>,
}

impl Planned {
    pub fn new(name: impl Into<String>, make: impl FnOnce() -> Case + 'static) -> Self {
        Self { name: name.into(), make: Box::new(make) }
    }
}

/// One figure of a case, of all contestants.
#[derive(Debug)]
pub struct Measured {
    figure: Figure,
    /// How long a cache line took between processors, before each round.
    hops: Vec<Duration>,
    /// In the order of the table: ours, rivals, floor.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    role: Role,
    name: String,
    spread: Spread,
}

/// A contestant gave a wrong answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    case: String,
    contestant: String,
    said: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, contestant, said } = self;
        write!(f, "wrong answer of {contestant} in {case}: {said}")
    }
}

impl Error for Wrong {}

/// Lets the contestants of one case take turns. `probe` tells how far apart the processors are, `progress` hears what
/// goes on.
///
/// # Errors
///
/// [`Wrong`] as soon as a contestant panics.
pub fn run(
    planned: Planned,
    effort: Effort,
    probe: impl Fn() -> Duration,
    mut progress: impl FnMut(fmt::Arguments<'_>),
) -> Result<Vec<Measured>, Wrong> {
    let Planned { name, make } = planned;
    progress(format_args!("{name}: setting up"));
    let Case { figures, mut contestants } = make();
    let mut hops = Vec::new();
    let mut taken = vec![Vec::new(); contestants.len()];
    for round in 0..=effort.rounds {
        let (warming_up, count) = (round == 0, contestants.len());
        if !warming_up {
            hops.push(probe());
        }
        for turn in 0..count {
            let place = (turn + round as usize) % count;
            let contestant = &mut contestants[place];
            match warming_up {
                true => progress(format_args!("{name}: warming up, {}", contestant.name)),
                false => {
                    progress(format_args!("{name}: round {round} of {}, {}", effort.rounds, contestant.name))
                }
            }
            let numbers =
                catch_unwind(AssertUnwindSafe(|| (contestant.measure)(effort))).map_err(|panic| Wrong {
                    case: name.clone(),
                    contestant: contestant.name.clone(),
                    said: said(&*panic),
                })?;
            assert_eq!(numbers.len(), figures.len(), "{} has one number for each figure", contestant.name);
            if !warming_up {
                taken[place].push(numbers);
            }
        }
    }
    let measured = |(place, figure): (usize, Figure)| {
        let entry = |(contestant, rounds): (&Contestant, &Vec<Vec<f64>>)| {
            let numbers = rounds.iter().map(|numbers| numbers[place]);
            let spread = Spread::of(numbers.filter(|number| !number.is_nan()))?;
            Some(Entry { role: contestant.role, name: contestant.name.clone(), spread })
        };
        let mut entries: Vec<_> = contestants.iter().zip(&taken).filter_map(entry).collect();
        entries.sort_by_key(|entry| match entry.role {
            Role::Ours => 0,
            Role::Rival => 1,
            Role::Floor => 2,
        });
        Measured { figure, hops: hops.clone(), entries }
    };
    Ok(figures.into_iter().enumerate().map(measured).collect())
}

/// What a panic has to say.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

/// Nanoseconds an operation, as each of `threads` pinned threads sees it: wall time over the operations of one of them.
///
/// `work(thread, count)` does `count` operations and checks them. It is called with growing counts, with the same total
/// for everybody in the end; only the last call counts.
pub fn time_per_op(threads: u64, effort: Effort, work: impl Fn(u64, u64) + Sync) -> f64 {
    let mut each = 1;
    loop {
        let mut time = together(threads, each * threads, &work);
        if time >= effort.time / 2 {
            // Once more: a few operations may have taken so long because the thread was off its processor.
            time = together(threads, each * threads, &work);
            if time >= effort.time / 2 {
                return time.as_nanos() as f64 / each as f64;
            }
        }
        // No more than 16 times at once, since the first calls say little.
        let more = effort.time.as_nanos() / time.as_nanos().max(1);
        each *= (more as u64).clamp(2, 16);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    const FEW: Effort = Effort { rounds: 3, time: Duration::from_nanos(1), quick: true };

    fn run_quietly(make: impl FnOnce() -> Case + 'static) -> Result<Vec<Measured>, Wrong> {
        run(Planned::new("a_case", make), FEW, || Duration::from_nanos(64), |_| {})
    }

    #[test]
    fn a_wrong_answer_ends_the_run_and_names_the_contestant() {
        let wrong = run_quietly(|| {
            let mut case = Case::new([Figure::lower("a_case", "ns")]);
            case.ours(|_| [1.0]);
            case.rival("liar", |_| {
                assert_eq!(1 + 1, 3, "sum");
                [1.0]
            });
            case
        });
        let wrong = wrong.unwrap_err().to_string();
        assert!(wrong.starts_with("wrong answer of liar in a_case: assertion"), "{wrong}");
        assert!(wrong.contains("sum"), "{wrong}");
    }

    #[test]
    fn a_wrong_answer_in_a_bench_thread_is_one_too() {
        let wrong = run_quietly(|| {
            let mut case = Case::new([Figure::lower("a_case", "ns")]);
            case.rival("liar", |effort| {
                [time_per_op(2, effort, |thread, _| assert_eq!(thread, 0, "thread"))]
            });
            case
        });
        assert!(wrong.unwrap_err().to_string().contains("thread"));
    }

    #[test]
    fn everybody_warms_up_and_the_order_rotates() {
        let turns = Rc::new(RefCell::new(Vec::new()));
        let seen = turns.clone();
        run_quietly(move || {
            let mut case = Case::new([Figure::lower("a_case", "ns")]);
            for name in ["a", "b", "c"] {
                let turns = turns.clone();
                case.rival(name, move |_| {
                    turns.borrow_mut().push(name);
                    [1.0]
                });
            }
            case
        })
        .unwrap();
        assert_eq!(*seen.borrow(), ["a", "b", "c", "b", "c", "a", "c", "a", "b", "a", "b", "c"]);
    }

    #[test]
    fn the_turn_that_warms_up_does_not_count() {
        let mut next = 1000.0;
        let measured = run_quietly(move || {
            let mut case = Case::new([Figure::lower("one", "ns"), Figure::higher("two", "M/s")]);
            case.ours(move |_| {
                next = if next > 3.0 { 1.0 } else { next + 1.0 };
                [if next == 1.0 { next } else { next * 10.0 }, NOTHING]
            });
            case
        });
        // The numbers of the turns are 1 (warming up), 20, 30, 40.
        let measured = measured.unwrap();
        assert_eq!(measured[0].entries[0].spread, Spread { min: 20.0, median: 30.0, max: 40.0 });
        assert_eq!(measured[0].hops.len(), 3);
        assert!(measured[1].entries.is_empty());
    }

    #[test]
    fn a_time_per_operation_is_that_of_one_thread() {
        let effort = Effort { rounds: 1, time: Duration::from_millis(4), quick: true };
        let count = std::sync::atomic::AtomicU64::new(0);
        let ns = time_per_op(2, effort, |_, each| {
            count.store(each, std::sync::atomic::Ordering::Relaxed);
            let start = std::time::Instant::now();
            while start.elapsed() < Duration::from_millis(2) {
                std::hint::spin_loop();
            }
        });
        // The last call took at least 2 ms, whatever the count: no more can be said without a clock of one's own.
        let least = 2e6 / count.load(std::sync::atomic::Ordering::Relaxed) as f64;
        assert!(ns >= least, "{ns} ns, at least {least} ns");
    }
}
