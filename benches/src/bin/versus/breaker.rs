//! Circuit breakers. Every call does nothing, so what is measured is the breaker and a loop.
//!
//! All are set up as near as they come to a window of 100 calls that trips at 90 % of failures, or, where they count
//! failures in a row, at five; and to stay open for a minute. They do not do equal work: circuitbreaker-rs never forgets,
//! failsafe's rate cannot trip before its window is full, recloser and tower-resilience count calls where ours counts time.

use std::{
    hint::black_box,
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use swiftwater_benches::{
    heap,
    versus::{Case, Effort, Figure, Planned, time_per_op},
};
use swiftwater_breaker::{Breaker, Breakers, CallError, Trip, consecutive, failure_rate, slow_rate};
use swiftwater_core::{Clock, Gate, Outcome, Pass, Rejected, Token};
use tower::{Layer as _, Service as _, ServiceExt as _};
use tower_resilience_circuitbreaker::{
    CircuitBreakerConfigBuilder, CircuitBreakerError, CircuitBreakerLayer, DefaultClassifier,
};

use crate::runtime::one_thread;

pub fn cases() -> Vec<Planned> {
    vec![
        Planned::new("closed_consecutive_1t", || closed_consecutive("closed_consecutive_1t", 1)),
        Planned::new("closed_consecutive_2t", || closed_consecutive("closed_consecutive_2t", 2)),
        Planned::new("closed_rate_1t", || closed_rate("closed_rate_1t", 1)),
        Planned::new("closed_rate_2t", || closed_rate("closed_rate_2t", 2)),
        Planned::new("open_reject_1t", open_reject),
        Planned::new("async_closed_1t", async_closed),
        Planned::new("failing_1t", || failing("failing_1t", 1)),
        Planned::new("failing_2t", || failing("failing_2t", 2)),
        Planned::new("counted_1t", counted),
        Planned::new("slow_call_1t", slow_call),
        Planned::new("gate_dyn_1t", gate_dyn),
        Planned::new("memory", memory),
    ]
}

fn closed_consecutive(name: &str, threads: u64) -> Case {
    let mut case = Case::new([Figure::lower(name, "ns per call, of one thread")]);
    let kind = Kind::Closed { threads };
    case.ours(move |effort| [kind.measure(effort, ours(consecutive(5)))]);
    case.rival("recloser", move |effort| [kind.measure(effort, recloser())]);
    case.rival("failsafe consecutive", move |effort| [kind.measure(effort, failsafe_consecutive())]);
    case.rival("breaker async, polled once", move |effort| [kind.measure(effort, breaker_polled())]);
    case.rival("circuitbreaker-rs", move |effort| [kind.measure(effort, circuitbreaker_rs())]);
    case.floor("relaxed load, write only on failure", move |effort| {
        let failed = AtomicBool::new(false);
        let call = |n, fail| {
            if failed.load(Relaxed) {
                return Answer::Rejected;
            }
            if fail {
                failed.store(true, Relaxed);
            }
            Answer::of(result(n, fail))
        };
        [kind.measure(effort, call)]
    });
    case
}

fn closed_rate(name: &str, threads: u64) -> Case {
    let mut case = Case::new([Figure::lower(name, "ns per call, of one thread")]);
    let kind = Kind::Closed { threads };
    case.ours(move |effort| [kind.measure(effort, ours(rate()))]);
    case.rival("recloser", move |effort| [kind.measure(effort, recloser())]);
    case.rival("failsafe rate", move |effort| [kind.measure(effort, failsafe_rate())]);
    case.rival("circuitbreaker-rs", move |effort| [kind.measure(effort, circuitbreaker_rs())]);
    case.floor("two relaxed fetch_add", move |effort| {
        let (calls, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        let call = |n, fail: bool| {
            calls.fetch_add(1, Relaxed);
            failures.fetch_add(fail.into(), Relaxed);
            Answer::of(result(n, fail))
        };
        [kind.measure(effort, call)]
    });
    case
}

fn open_reject() -> Case {
    let mut case = Case::new([Figure::lower("open_reject_1t", "ns per call")]);
    let kind = Kind::Reject;
    case.ours(move |effort| [kind.measure(effort, ours(consecutive(5)))]);
    case.rival("recloser", move |effort| [kind.measure(effort, recloser())]);
    case.rival("failsafe consecutive", move |effort| [kind.measure(effort, failsafe_consecutive())]);
    // failsafe's rate refuses by the same code, and would take a second to open.
    case.rival("breaker async, polled once", move |effort| [kind.measure(effort, breaker_polled())]);
    case.rival("circuitbreaker-rs", move |effort| [kind.measure(effort, circuitbreaker_rs())]);
    case.rival("tower-resilience-circuitbreaker", move |effort| {
        [kind.measure_async(effort, tower_resilience(tower_resilience_builder()))]
    });
    case.floor("a relaxed load", move |effort| {
        let open = AtomicBool::new(true);
        let call = |n, fail| match open.load(Relaxed) {
            true => Answer::Rejected,
            false => Answer::of(result(n, fail)),
        };
        [kind.measure(effort, call)]
    });
    case
}

fn async_closed() -> Case {
    let mut case = Case::new([Figure::lower("async_closed_1t", "ns per call")]);
    let kind = Kind::Closed { threads: 1 };
    case.ours(move |effort| {
        let breaker = build(consecutive(5));
        [kind.measure_async(effort, async |n, fail| {
            Answer::of_ours(breaker.call(async || result(n, fail)).await)
        })]
    });
    case.rival("recloser", move |effort| {
        let breaker = recloser::AsyncRecloser::from(build_recloser());
        let call = async |n, fail| match breaker.call(async { result(n, fail) }).await {
            Ok(value) => Answer::Value(value),
            Err(recloser::Error::Inner(_)) => Answer::Failed,
            Err(recloser::Error::Rejected) => Answer::Rejected,
        };
        [kind.measure_async(effort, call)]
    });
    case.rival("failsafe consecutive", move |effort| {
        let breaker = failsafe::Config::new()
            .failure_policy(failsafe::failure_policy::consecutive_failures(
                5,
                failsafe::backoff::constant(OPEN),
            ))
            .build();
        let call = async |n, fail| {
            let future = Box::pin(async move { result(n, fail) });
            Answer::of_failsafe(failsafe::futures::CircuitBreaker::call(&breaker, future).await)
        };
        [kind.measure_async(effort, call)]
    });
    case.rival("breaker", move |effort| {
        let breaker = build_breaker();
        let call = async |n, fail| Answer::of_breaker(breaker.call(async || result(n, fail)).await);
        [kind.measure_async(effort, call)]
    });
    case.rival("circuitbreaker-rs", move |effort| {
        let breaker = build_circuitbreaker_rs();
        let call =
            async |n, fail| Answer::of_circuitbreaker_rs(breaker.call_async(async || result(n, fail)).await);
        [kind.measure_async(effort, call)]
    });
    case.rival("tower-resilience-circuitbreaker", move |effort| {
        [kind.measure_async(effort, tower_resilience(tower_resilience_builder()))]
    });
    case.floor("no breaker", move |effort| {
        [kind.measure_async(effort, async |n, fail| Answer::of(async { result(n, fail) }.await))]
    });
    case
}

/// Every second call fails, which trips nobody.
fn failing(name: &str, threads: u64) -> Case {
    let unit = "ns per call, of one thread, of which every second fails";
    let mut case = Case::new([Figure::lower(name, unit)]);
    let kind = Kind::Failing { threads };
    case.ours(move |effort| [kind.measure(effort, ours(rate()))]);
    case.rival("recloser", move |effort| [kind.measure(effort, recloser())]);
    case.rival("failsafe consecutive", move |effort| [kind.measure(effort, failsafe_consecutive())]);
    case.rival("failsafe rate", move |effort| [kind.measure(effort, failsafe_rate())]);
    case.rival("breaker async, polled once", move |effort| [kind.measure(effort, breaker_polled())]);
    case.rival("circuitbreaker-rs", move |effort| [kind.measure(effort, circuitbreaker_rs())]);
    case.floor("two relaxed fetch_add", move |effort| {
        let (calls, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        let call = |n, fail: bool| {
            calls.fetch_add(1, Relaxed);
            failures.fetch_add(fail.into(), Relaxed);
            Answer::of(result(n, fail))
        };
        [kind.measure(effort, call)]
    });
    case
}

/// The last hundred calls, in order: what recloser, breaker and tower-resilience keep.
fn counted() -> Case {
    let mut case = Case::new([Figure::lower("counted_1t", "ns per call")]);
    let kind = Kind::Closed { threads: 1 };
    case.ours(move |effort| {
        [kind.measure(effort, ours(failure_rate(0.9).over_calls(100).min_calls(100).into()))]
    });
    case.rival("recloser", move |effort| [kind.measure(effort, recloser())]);
    case.rival("breaker async, polled once", move |effort| [kind.measure(effort, breaker_polled())]);
    case.floor("two relaxed fetch_add", move |effort| {
        let (calls, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        let call = |n, fail: bool| {
            calls.fetch_add(1, Relaxed);
            failures.fetch_add(fail.into(), Relaxed);
            Answer::of(result(n, fail))
        };
        [kind.measure(effort, call)]
    });
    case
}

/// A share of slow calls, which takes two readings of a clock: the system's, which errs by nothing, and our coarse one, which
/// errs by a millisecond. tower-resilience reads the system's.
fn slow_call() -> Case {
    fn slow(clock: Clock) -> impl Calls {
        let trip = slow_rate(0.9, Duration::from_secs(1)).over(Duration::from_secs(1)).min_calls(100);
        let builder = Breaker::builder().trip_when(trip).open_for(OPEN..=OPEN).clock(clock);
        Ours(builder.build().expect("valid options"))
    }

    let mut case = Case::new([Figure::lower("slow_call_1t", "ns per call")]);
    let kind = Kind::Closed { threads: 1 };
    case.ours(move |effort| [kind.measure(effort, slow(Clock::system()))]);
    case.rival("swiftwater, coarse clock", move |effort| [kind.measure(effort, slow(Clock::coarse()))]);
    case.rival("tower-resilience-circuitbreaker", move |effort| {
        let layer = tower_resilience_builder()
            .slow_call_duration_threshold(Duration::from_secs(1))
            .slow_call_rate_threshold(0.9);
        [kind.measure_async(effort, tower_resilience(layer))]
    });
    case.floor("two readings of the system's clock", move |effort| {
        let clock = Clock::system();
        let call = |n, fail| {
            let start = clock.now();
            let result = result(n, fail);
            assert!(black_box(clock.now()) >= start);
            Answer::of(result)
        };
        [kind.measure(effort, call)]
    });
    case
}

/// Through `Arc<dyn Gate>`, as pools and cache layers do: by reference, and with a pass that keeps the gate alive. No rival has
/// such a seam: theirs is their closure form.
fn gate_dyn() -> Case {
    fn through<P: Deref<Target = dyn Gate>>(gate: P, n: u64, fail: bool) -> Answer {
        let Ok(pass) = Pass::enter(gate) else { return Answer::Rejected };
        let result = result(n, fail);
        pass.finish(if result.is_ok() { Outcome::Success } else { Outcome::Failure });
        Answer::of(result)
    }

    struct Open;
    impl Gate for Open {
        fn admit(&self) -> Result<Token, Rejected> {
            Ok(Token::new(0))
        }
        fn settle(&self, _: Token, _: Option<Outcome>) {}
    }

    fn both(effort: Effort, gate: Arc<dyn Gate>) -> [f64; 2] {
        let kind = Kind::Closed { threads: 1 };
        [
            kind.measure(effort, |n, fail| through(&**black_box(&gate), n, fail)),
            kind.measure(effort, |n, fail| through(black_box(&gate).clone(), n, fail)),
        ]
    }

    let mut case = Case::new([
        Figure::lower("gate_dyn_1t", "ns per call"),
        Figure::lower("gate_dyn_owned_1t", "ns per call, with a count of the `Arc`"),
    ]);
    let kind = Kind::Closed { threads: 1 };
    case.ours(|effort| both(effort, build(consecutive(5)).gate()));
    case.rival("recloser", move |effort| [kind.measure(effort, recloser()); 2]);
    case.rival("failsafe consecutive", move |effort| [kind.measure(effort, failsafe_consecutive()); 2]);
    case.floor("a gate that does nothing", |effort| both(effort, Arc::new(Open)));
    case
}

/// Of a breaker that has made one call: ours as a key of a registry, which shares what is configured, and by itself; nobody else has a registry.
fn memory() -> Case {
    fn bytes<B>(used: impl FnMut() -> B) -> [f64; 2] {
        [each(used); 2]
    }

    fn each<B>(mut used: impl FnMut() -> B) -> f64 {
        const MANY: usize = 1000;
        // What the process sets up once is not the breaker's.
        drop(used());
        let (kept, heap) = heap::of(|| {
            let mut kept = Vec::with_capacity(MANY);
            kept.extend((0..MANY).map(|_| used()));
            kept
        });
        assert_eq!(kept.len(), MANY);
        heap.bytes as f64 / MANY as f64
    }

    let mut case = Case::new([
        Figure::lower("memory", "bytes per idle key, its breaker and place in the registry"),
        Figure::lower("memory_alone", "bytes per breaker, itself and on the heap"),
    ]);
    case.ours(|_| {
        let trip = || consecutive(5).or(rate());
        let use_it = |breaker: &Breaker| assert_eq!(breaker.call_sync(|| result(7, false)), Ok(7));
        let alone = each(|| {
            let breaker = build(trip());
            use_it(&breaker);
            breaker
        });
        let template = Breaker::builder().trip_when(trip());
        let keys: Breakers<u64> = Breakers::builder(template).build().expect("valid options");
        let mut next = 0..;
        let key = each(|| use_it(&keys.get(&next.next().expect("endless"))));
        [key, alone]
    });
    case.rival("recloser", |_| {
        bytes(|| {
            let breaker = build_recloser();
            assert!(breaker.call(|| result(7, false)).is_ok());
            breaker
        })
    });
    case.rival("failsafe rate", |_| {
        bytes(|| {
            let breaker = build_failsafe_rate();
            assert!(failsafe::CircuitBreaker::call(&breaker, || result(7, false)).is_ok());
            breaker
        })
    });
    case.rival("breaker", |_| {
        bytes(|| {
            let breaker = build_breaker();
            assert!(poll_once(breaker.call(async || result(7, false))).is_ok());
            breaker
        })
    });
    case.rival("circuitbreaker-rs", |_| {
        bytes(|| {
            let breaker = build_circuitbreaker_rs();
            assert!(breaker.call(|| result(7, false)).is_ok());
            breaker
        })
    });
    case
}

/// A method, not a closure, so that it can be inlined into the loop by order: whether a call is one more jump would
/// otherwise be the compiler's whim, and as much as what is measured.
trait Calls: Sync {
    fn call(&self, n: u64, fail: bool) -> Answer;
}

impl<F: Fn(u64, bool) -> Answer + Sync> Calls for F {
    #[inline(always)]
    fn call(&self, n: u64, fail: bool) -> Answer {
        self(n, fail)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Closed { threads: u64 },
    Failing { threads: u64 },
    Reject,
}

impl Kind {
    fn measure(self, effort: Effort, calls: impl Calls) -> f64 {
        match self {
            Self::Closed { threads } => time_per_op(threads, effort, |_, count| succeed(&calls, count)),
            Self::Failing { threads } => time_per_op(threads, effort, |_, count| {
                let failed =
                    (0..count).filter(|n| calls.call(black_box(*n), n.is_multiple_of(2)) == Answer::Failed);
                assert_eq!(failed.count() as u64, count.div_ceil(2));
            }),
            Self::Reject => {
                // By what it saw, not by hand.
                assert!((0..10_000).any(|n| calls.call(n, true) == Answer::Rejected), "it never opened");
                time_per_op(1, effort, |_, count| {
                    let rejected =
                        (0..count).filter(|n| calls.call(black_box(*n), false) == Answer::Rejected);
                    assert_eq!(rejected.count() as u64, count);
                })
            }
        }
    }

    fn measure_async(self, effort: Effort, call: impl AsyncFnMut(u64, bool) -> Answer + Send) -> f64 {
        let runtime = one_thread();
        let call = Mutex::new(call);
        if matches!(self, Self::Reject) {
            let mut call = call.lock().expect("nobody panicked");
            runtime.block_on(async {
                for n in 0..10_000 {
                    if call(n, true).await == Answer::Rejected {
                        return;
                    }
                }
                panic!("it never opened");
            });
        }
        time_per_op(1, effort, |_, count| {
            let mut call = call.lock().expect("nobody panicked");
            runtime.block_on(async {
                match self {
                    Self::Reject => {
                        for n in 0..count {
                            assert_eq!(call(black_box(n), false).await, Answer::Rejected);
                        }
                    }
                    Self::Closed { .. } | Self::Failing { .. } => {
                        let mut sum = 0;
                        for n in 0..count {
                            sum += call(black_box(n), false).await.value();
                        }
                        assert_eq!(sum, sum_below(count));
                    }
                }
            });
        })
    }
}

fn succeed(calls: &impl Calls, count: u64) {
    let sum: u64 = (0..count).map(|n| calls.call(black_box(n), false).value()).sum();
    assert_eq!(sum, sum_below(count));
}

fn sum_below(count: u64) -> u64 {
    count * count.saturating_sub(1) / 2
}

/// The call itself. Its error is one that every breaker takes.
#[inline(always)]
fn result(n: u64, fail: bool) -> Result<u64, std::fmt::Error> {
    if fail { Err(std::fmt::Error) } else { Ok(n) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Failed,
    Rejected,
    Value(u64),
}

impl Answer {
    #[inline(always)]
    fn of<E>(result: Result<u64, E>) -> Self {
        result.map_or(Self::Failed, Self::Value)
    }

    #[inline(always)]
    fn of_ours<E>(result: Result<u64, CallError<E>>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(CallError::Rejected(_)) => Self::Rejected,
            Err(_) => Self::Failed,
        }
    }

    #[inline(always)]
    fn of_failsafe<E>(result: Result<u64, failsafe::Error<E>>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(failsafe::Error::Rejected) => Self::Rejected,
            Err(failsafe::Error::Inner(_)) => Self::Failed,
        }
    }

    #[inline(always)]
    fn of_breaker<E>(result: Result<u64, breaker::CircuitBreakerError<E>>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(breaker::CircuitBreakerError::Failure(_)) => Self::Failed,
            Err(_) => Self::Rejected,
        }
    }

    #[inline(always)]
    fn of_circuitbreaker_rs<E>(result: Result<u64, circuitbreaker_rs::BreakerError<E>>) -> Self
    where
        E: std::error::Error + 'static,
    {
        match result {
            Ok(value) => Self::Value(value),
            Err(circuitbreaker_rs::BreakerError::Operation(_)) => Self::Failed,
            Err(_) => Self::Rejected,
        }
    }

    #[inline(always)]
    fn value(self) -> u64 {
        match self {
            Self::Value(value) => value,
            other => panic!("{other:?} instead of a value"),
        }
    }
}

const OPEN: Duration = Duration::from_secs(60);

fn build(trip: impl Into<Trip>) -> Breaker {
    Breaker::builder().trip_when(trip).open_for(OPEN..=OPEN).build().expect("valid options")
}

/// The nearest to a window of 100 calls: calls come by the million here.
fn rate() -> Trip {
    failure_rate(0.9).over(Duration::from_secs(1)).min_calls(100).into()
}

fn ours(trip: Trip) -> impl Calls {
    Ours(build(trip))
}

struct Ours(Breaker);

impl Calls for Ours {
    #[inline(always)]
    fn call(&self, n: u64, fail: bool) -> Answer {
        Answer::of_ours(self.0.call_sync(|| result(n, fail)))
    }
}

fn build_recloser() -> recloser::Recloser {
    recloser::Recloser::custom().error_rate(0.9).closed_len(100).open_wait(OPEN).build()
}

fn recloser() -> impl Calls {
    build_recloser()
}

impl Calls for recloser::Recloser {
    #[inline(always)]
    fn call(&self, n: u64, fail: bool) -> Answer {
        match self.call(|| result(n, fail)) {
            Ok(value) => Answer::Value(value),
            Err(recloser::Error::Inner(_)) => Answer::Failed,
            Err(recloser::Error::Rejected) => Answer::Rejected,
        }
    }
}

fn failsafe_consecutive() -> impl Calls {
    let policy = failsafe::failure_policy::consecutive_failures(5, failsafe::backoff::constant(OPEN));
    Failsafe(failsafe::Config::new().failure_policy(policy).build())
}

struct Failsafe<B>(B);

impl<B: failsafe::CircuitBreaker + Sync> Calls for Failsafe<B> {
    #[inline(always)]
    fn call(&self, n: u64, fail: bool) -> Answer {
        Answer::of_failsafe(self.0.call(|| result(n, fail)))
    }
}

type FailsafeRate = failsafe::StateMachine<
    failsafe::failure_policy::SuccessRateOverTimeWindow<failsafe::backoff::Constant>,
    (),
>;

fn build_failsafe_rate() -> FailsafeRate {
    let backoff = failsafe::backoff::constant(OPEN);
    let window = Duration::from_secs(1);
    let policy = failsafe::failure_policy::success_rate_over_time_window(0.1, 100, window, backoff);
    failsafe::Config::new().failure_policy(policy).build()
}

fn failsafe_rate() -> impl Calls {
    Failsafe(build_failsafe_rate())
}

type CircuitbreakerRs = circuitbreaker_rs::CircuitBreaker<circuitbreaker_rs::DefaultPolicy, std::fmt::Error>;

fn build_circuitbreaker_rs() -> CircuitbreakerRs {
    circuitbreaker_rs::CircuitBreaker::<circuitbreaker_rs::DefaultPolicy, std::fmt::Error>::builder()
        .failure_threshold(0.9)
        .min_throughput(100)
        .consecutive_failures(u64::MAX)
        .cooldown(OPEN)
        .build()
}

fn circuitbreaker_rs() -> impl Calls {
    build_circuitbreaker_rs()
}

impl Calls for CircuitbreakerRs {
    #[inline(always)]
    fn call(&self, n: u64, fail: bool) -> Answer {
        Answer::of_circuitbreaker_rs(self.call(|| result(n, fail)))
    }
}

fn build_breaker() -> breaker::CircuitBreaker {
    let config = breaker::CircuitBreakerConfig::builder()
        .failure_rate_threshold(0.9)
        .sliding_window_size(100)
        .minimum_calls(100)
        .consecutive_failures(5)
        .wait_duration(OPEN)
        .build();
    breaker::CircuitBreaker::new(config)
}

/// It has no sync form; a call that never waits needs no runtime.
fn breaker_polled() -> impl Calls {
    build_breaker()
}

impl Calls for breaker::CircuitBreaker {
    #[inline(always)]
    fn call(&self, n: u64, fail: bool) -> Answer {
        Answer::of_breaker(poll_once(self.call(async || result(n, fail))))
    }
}

fn tower_resilience_builder() -> CircuitBreakerConfigBuilder<DefaultClassifier> {
    CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.9)
        .sliding_window_size(100)
        .minimum_number_of_calls(100)
        .wait_duration_in_open(OPEN)
}

fn tower_resilience(
    builder: CircuitBreakerConfigBuilder<DefaultClassifier>,
) -> impl AsyncFnMut(u64, bool) -> Answer + Send {
    let layer = builder.build().expect("valid options");
    let mut service =
        layer.layer(tower::service_fn(|(n, fail): (u64, bool)| std::future::ready(result(n, fail))));
    async move |n, fail| {
        let ready = service.ready().await.expect("always ready");
        match ready.call((n, fail)).await {
            Ok(value) => Answer::Value(value),
            Err(CircuitBreakerError::Inner(_)) => Answer::Failed,
            Err(_) => Answer::Rejected,
        }
    }
}

#[inline(always)]
fn poll_once<F: Future>(future: F) -> F::Output {
    let future = std::pin::pin!(future);
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}
