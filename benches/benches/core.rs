//! The seams that stand on hot paths, beside what one would write without them.
//!
//! Times are those of one operation in one thread, or of 100,000 operations that two threads share. Every run checks its
//! answers.
#![expect(unsafe_code, reason = "counting what is on the heap takes an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use swiftwater_benches::{cache_line_hop, pin, together};
use swiftwater_core::{
    Clock, Counter, Distribution, Gate, Histogram, Outcome, Pass, Reason, Rejected, Token,
};

fn main() {
    pin(0);
    // Before criterion, which allocates.
    memory();
    println!("a cache line hops between the processors in {:?}", cache_line_hop());
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    clock(&mut criterion);
    counter(&mut criterion);
    histogram(&mut criterion);
    gate(&mut criterion);
    println!("a cache line hops between the processors in {:?}", cache_line_hop());
    criterion.final_summary();
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// `operation` in a thread of its own, or [`TOGETHER`] times in two at once; `check` gets how often it ran since the last
/// check.
fn bench(
    group: &mut Group<'_>,
    threads: u64,
    name: &str,
    operation: impl Fn(u64) + Sync,
    check: impl Fn(u64),
) {
    let all = |first: u64, count: u64| (0..count).for_each(|n| operation(first + n));
    if threads == 1 {
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("1 thread/{name}"), |bencher| {
            bencher.iter_custom(|count| {
                let start = Instant::now();
                all(0, count);
                let time = start.elapsed();
                check(count);
                time
            });
        });
    } else {
        group.throughput(Throughput::Elements(TOGETHER));
        group.bench_function(format!("{threads} threads/{name}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let time = together(threads, rounds * TOGETHER, |thread, each| all(thread << 32, each));
                check(rounds * TOGETHER);
                time
            });
        });
    }
}

/// Many, so that it does not matter which thread is the first by a hair.
const TOGETHER: u64 = 100_000;

fn clock(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("clock");
    let (manual, hand) = Clock::manual();
    hand.advance(Duration::from_secs(1));
    let origin = Instant::now();
    let custom = Clock::custom(move || origin.elapsed());
    let still = Clock::custom(|| Duration::from_secs(1));

    for threads in [1, 2] {
        // Sums of differences, so that every read is used and none may go back.
        let last = AtomicU64::new(0);
        let forward = |now: u64| {
            let before = last.swap(now, Relaxed);
            assert!(before <= now, "went back from {before} to {now}");
        };
        let mut reads = |name, clock: &Clock| {
            last.store(0, Relaxed);
            let read = |_| {
                black_box(clock.now());
            };
            bench(&mut group, threads, name, read, |_| forward(clock.now().as_nanos()));
        };
        reads("Clock::system", &Clock::system());
        reads("Clock::coarse", &Clock::coarse());
        reads("Clock::manual", &manual);
        reads("Clock::custom, of a constant", &still);
        reads("Clock::custom, of Instant::elapsed", &custom);
        let instant = |_| {
            black_box(Instant::now());
        };
        bench(&mut group, threads, "Instant::now", instant, |_| {
            assert!(Instant::now() > origin);
        });
    }
    let coarse = Clock::coarse();
    let clone = |_| {
        black_box(coarse.clone());
    };
    bench(&mut group, 1, "Clock::coarse, clone and drop", clone, |_| {});
    group.finish();
}

fn counter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("counter");
    for threads in [1, 2] {
        counter_in(&mut group, threads);
    }
    let (single, striped) = (Counter::new(), Counter::new());
    contend(|| striped.add(1), || striped.read());
    let before = striped.read();
    bench(&mut group, 1, "read", |_| assert_eq!(black_box(&single).read(), 0), |_| {});
    bench(&mut group, 1, "read, striped", |_| assert_eq!(black_box(&striped).read(), before), |_| {});
    group.finish();
}

fn counter_in(group: &mut Group<'_>, threads: u64) {
    let expected = Cell::new(0);
    let check = |read: &dyn Fn() -> u64, added: u64| {
        expected.set(expected.get() + added);
        assert_eq!(read(), expected.get());
    };
    let reset = |to| expected.set(to);

    reset(0);
    let counter = Counter::new();
    bench(group, threads, "Counter", |_| counter.add(1), |n| check(&|| counter.read(), n));
    if threads == 1 {
        let striped = Counter::new();
        contend(|| striped.add(1), || striped.read());
        reset(striped.read());
        bench(group, threads, "Counter, striped", |_| striped.add(1), |n| check(&|| striped.read(), n));
    }
    reset(0);
    let atomic = AtomicU64::new(0);
    let add = |_| {
        atomic.fetch_add(1, Relaxed);
    };
    bench(group, threads, "AtomicU64", add, |n| check(&|| atomic.load(Relaxed), n));
    reset(0);
    let mutex = Mutex::new(0u64);
    bench(
        group,
        threads,
        "Mutex<u64>",
        |_| *mutex.lock().unwrap() += 1,
        |n| check(&|| *mutex.lock().unwrap(), n),
    );
}

fn histogram(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("histogram");
    for threads in [1, 2] {
        histogram_in(&mut group, threads);
    }
    let single = Histogram::new();
    (0..1024).for_each(|n| single.record(latency(n)));
    let p99 = |histogram: &Histogram, count| {
        assert_eq!(histogram.count(), count);
        assert!(black_box(histogram).quantile(0.99) > Some(1_000_000));
    };
    bench(&mut group, 1, "count and quantile", |_| p99(&single, 1024), |_| {});
    let striped = Histogram::new();
    let next = AtomicU64::new(0);
    contend(|| striped.record(latency(next.fetch_add(1, Relaxed))), || striped.count());
    let count = striped.count();
    bench(&mut group, 1, "count and quantile, striped", |_| p99(&striped, count), |_| {});
    group.finish();
}

fn histogram_in(group: &mut Group<'_>, threads: u64) {
    let expected = Cell::new(0);
    let check = |count: u64, added: u64| {
        expected.set(expected.get() + added);
        assert_eq!(count, expected.get());
    };
    let reset = |to| expected.set(to);

    reset(0);
    let ours = Histogram::new();
    bench(group, threads, "Histogram", |n| ours.record(latency(n)), |n| check(ours.count(), n));
    assert_eq!(ours.sum() > 0, ours.count() > 0); // a filter may have passed it over
    if threads == 1 {
        let striped = Histogram::new();
        contend(|| striped.record(7), || striped.count());
        reset(striped.count());
        bench(
            group,
            threads,
            "Histogram, striped",
            |n| striped.record(latency(n)),
            |n| check(striped.count(), n),
        );
    }
    // The same resolution: 16 steps to the power of two.
    reset(0);
    let hdr = Mutex::new(hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1 << 40, 1).unwrap());
    let record = |n| hdr.lock().unwrap().record(latency(n)).unwrap();
    bench(group, threads, "Mutex<hdrhistogram>", record, |n| check(hdr.lock().unwrap().len(), n));
    reset(0);
    let lean = histogram::AtomicHistogram::new(4, 64).unwrap();
    let counted = |histogram: &histogram::AtomicHistogram| histogram.load().as_slice().iter().sum();
    let record = |n| lean.increment(latency(n)).unwrap();
    bench(group, threads, "histogram::AtomicHistogram, without a sum", record, |n| check(counted(&lean), n));
}

/// The n-th of some latencies in nanoseconds: most around 100 us, some up to 10 ms; always the same.
#[inline]
fn latency(n: u64) -> u64 {
    // A third of the bits as a power of two, the rest below it: spread over many buckets, with little arithmetic.
    let bits = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (65_536 << (bits >> 61)) + (bits & 0xFFFF)
}

/// Counts in two plain stores, so that the calls can be checked without an atomic operation that would cost more than
/// what is measured. Right for one thread only.
#[derive(Default)]
struct Count {
    admitted: AtomicU64,
    settled: AtomicU64,
}

impl Gate for Count {
    #[inline]
    fn admit(&self) -> Result<Token, Rejected> {
        let count = self.admitted.load(Relaxed) + 1;
        self.admitted.store(count, Relaxed);
        Ok(Token::new(count))
    }

    #[inline]
    fn settle(&self, token: Token, _: Option<Outcome>) {
        self.settled.store(token.bits(), Relaxed);
    }
}

/// Refuses everybody.
struct Shut;

impl Gate for Shut {
    fn admit(&self) -> Result<Token, Rejected> {
        Err(Rejected::new(Reason::Open, Duration::from_millis(5)))
    }

    fn settle(&self, _: Token, _: Option<Outcome>) {}
}

/// Counts with [`Counter`]s: for two threads.
#[derive(Default)]
struct Shared {
    settled: Counter,
}

impl Gate for Shared {
    fn admit(&self) -> Result<Token, Rejected> {
        Ok(Token::new(1))
    }

    fn settle(&self, token: Token, _: Option<Outcome>) {
        self.settled.add(token.bits());
    }
}

fn gate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gate");
    let gate = Arc::new(Count::default());
    let expected = Cell::new(0);
    let check = |n| {
        expected.set(expected.get() + n);
        assert_eq!(gate.admitted.load(Relaxed), expected.get());
        assert_eq!(gate.settled.load(Relaxed), expected.get());
    };
    let direct = |_| {
        if let Ok(token) = gate.admit() {
            gate.settle(token, Some(Outcome::Success));
        }
    };
    bench(&mut group, 1, "no pass: admit, settle", direct, check);
    let generic = |_| {
        if let Ok(pass) = Pass::enter(black_box(&*gate)) {
            pass.finish(Outcome::Success);
        }
    };
    bench(&mut group, 1, "Pass<&G>: enter, finish", generic, check);
    let dropped = |_| drop(Pass::enter(black_box(&*gate)));
    bench(&mut group, 1, "Pass<&G>: enter, drop", dropped, check);
    let by_dyn: &dyn Gate = &*gate;
    let dynamic = |_| {
        if let Ok(pass) = Pass::enter(black_box(by_dyn)) {
            pass.finish(Outcome::Success);
        }
    };
    bench(&mut group, 1, "Pass<&dyn Gate>: enter, finish", dynamic, check);
    let shared: Arc<dyn Gate> = gate.clone();
    let owning = |_| {
        if let Ok(pass) = Pass::enter(black_box(&shared).clone()) {
            pass.finish(Outcome::Success);
        }
    };
    bench(&mut group, 1, "Pass<Arc<dyn Gate>>: clone, enter, finish", owning, check);
    let shut: &dyn Gate = &Shut;
    let refused = |_| assert!(Pass::enter(black_box(shut)).is_err());
    bench(&mut group, 1, "Pass<&dyn Gate>: refused", refused, |_| {});

    let gate = Arc::new(Shared::default());
    expected.set(0);
    let check = |n| {
        expected.set(expected.get() + n);
        assert_eq!(gate.settled.read(), expected.get());
    };
    let by_dyn: &dyn Gate = &*gate;
    let dynamic = |_| {
        if let Ok(pass) = Pass::enter(black_box(by_dyn)) {
            pass.finish(Outcome::Success);
        }
    };
    bench(&mut group, 2, "Pass<&dyn Gate> over a Counter", dynamic, check);
    let shared: Arc<dyn Gate> = gate.clone();
    let owning = |_| {
        if let Ok(pass) = Pass::enter(black_box(&shared).clone()) {
            pass.finish(Outcome::Success);
        }
    };
    bench(&mut group, 2, "Pass<Arc<dyn Gate>> over a Counter, cloning the Arc", owning, check);
    group.finish();
}

/// Has two threads at it until it must have gone to stripes: a heap that grew says so.
fn contend(operation: impl Fn() + Sync, read: impl Fn() -> u64) {
    for round in 0.. {
        let before = HEAP.load(Relaxed);
        together(2, 200_000, |_, each| (0..each).for_each(|_| operation()));
        // Threads come and go meanwhile: only what stays counts, and their own memory does not.
        let grown = HEAP.load(Relaxed) - before;
        if grown >= 256 || round == 50 {
            break;
        }
    }
    black_box(read());
}

/// What one of them takes, in bytes: itself, and on the heap.
fn memory() {
    let heap = |what: &str, size: usize, before: i64| {
        println!("memory: {what}: {size} bytes, {} on the heap", HEAP.load(Relaxed) - before);
    };
    // Sets up what the process allocates once, the buffer of the output included.
    println!("memory:");
    contend(|| {}, || 0);
    let before = HEAP.load(Relaxed);
    let counter = Counter::new();
    heap("idle Counter", size_of_val(&counter), before);
    counter.add(1);
    heap("Counter, one thread", size_of_val(&counter), before);
    contend(|| counter.add(1), || counter.read());
    heap("Counter, two threads", size_of_val(&counter), before);
    let before = HEAP.load(Relaxed);
    let histogram = Histogram::new();
    heap("idle Histogram", size_of_val(&histogram), before);
    histogram.record(1);
    heap("Histogram, one thread", size_of_val(&histogram), before);
    contend(|| histogram.record(1), || histogram.count());
    heap("Histogram, two threads", size_of_val(&histogram), before);
    let before = HEAP.load(Relaxed);
    let hdr = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1 << 40, 1).unwrap();
    heap("hdrhistogram, 1 ns to 18 min", size_of_val(&hdr), before);
}

static HEAP: AtomicI64 = AtomicI64::new(0);

struct Counting;

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.fetch_add(layout.size() as i64, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HEAP.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: `pointer` came from `System`, since `alloc` gave it out.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
