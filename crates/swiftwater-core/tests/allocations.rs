//! What allocates, counted: watching never does, writing only to set itself up.
#![expect(unsafe_code, reason = "an allocator can be replaced by no other means")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Display,
    hint::black_box,
    sync::Arc,
    time::Duration,
};

use swiftwater_core::{
    Backoff, Clock, Counter, Desc, Distribution, Gate, Histogram, Observe, OpenGate, Outcome, Pass, Unit,
    Visitor,
};

thread_local! {
    static ALLOCATED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Counts per thread, so that the test harness and other tests do not.
struct Counting;

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (times, bytes) = ALLOCATED.get();
        ALLOCATED.set((times + 1, bytes + layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System`, since `alloc` gave it out.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often and how many bytes `run` allocates.
fn allocated<T>(run: impl FnOnce() -> T) -> (usize, usize) {
    let (times, bytes) = ALLOCATED.get();
    black_box(run());
    let (times_after, bytes_after) = ALLOCATED.get();
    (times_after - times, bytes_after - bytes)
}

static HITS: Desc = Desc::new("hits", Unit::Count, "answers found");
static WAIT: Desc = Desc::new("wait", Unit::Seconds, "time in the queue");
static STATE: Desc = Desc::new("state", Unit::Count, "what it does now");

#[derive(Default)]
struct Shop {
    hits: Counter,
    wait: Histogram,
    regions: Vec<Self>,
}

impl Observe for Shop {
    fn observe(&self, visitor: &mut dyn Visitor) {
        visitor.counter(&HITS, self.hits.read());
        visitor.histogram(&WAIT, &self.wait);
        visitor.state(&STATE, &"open");
        for (number, region) in self.regions.iter().enumerate() {
            visitor.part("region", &number, region);
        }
    }
}

/// Sums everything it is shown.
#[derive(Default)]
struct Sum(u64);

impl Visitor for Sum {
    fn counter(&mut self, _: &'static Desc, value: u64) {
        self.0 += value;
    }

    fn histogram(&mut self, _: &'static Desc, value: &dyn Distribution) {
        value.buckets(&mut |_, count| self.0 += count);
        self.0 += value.sum();
    }

    fn part(&mut self, _: &'static str, _: &dyn Display, inner: &dyn Observe) {
        inner.observe(self);
    }
}

/// Makes the counter and the histogram set up their stripes.
fn contend(shop: &Shop) {
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for value in 0..50_000 {
                    shop.hits.add(1);
                    shop.wait.record(value);
                }
            });
        }
    });
}

#[test]
fn the_counting_works() {
    assert_eq!(allocated(|| Box::new(7u64)), (1, 8));
}

#[test]
fn observing_allocates_nothing() {
    let shop = Shop { regions: vec![Shop::default(), Shop::default()], ..Shop::default() };
    contend(&shop);
    shop.regions[1].hits.add(5);
    let mut sum = Sum::default();
    assert_eq!(allocated(|| shop.observe(&mut sum)).0, 0);
    let recorded = 200_000 + 4 * (0..50_000).sum::<u64>();
    assert_eq!(sum.0, 200_000 + recorded + 5);
}

#[test]
fn reading_a_histogram_allocates_nothing() {
    let shop = Shop::default();
    contend(&shop);
    assert_eq!(allocated(|| (shop.wait.count(), shop.wait.quantile(0.99))).0, 0);
}

#[test]
fn an_idle_counter_and_an_idle_histogram_hold_nothing() {
    assert_eq!(allocated(Counter::new).0, 0);
    assert_eq!(allocated(Histogram::new).0, 0);
}

#[test]
fn an_uncontended_counter_never_allocates_and_a_histogram_once() {
    let (counter, histogram) = (Counter::new(), Histogram::new());
    assert_eq!(allocated(|| (0..1_000).for_each(|_| counter.add(1))).0, 0);
    assert_eq!(allocated(|| histogram.record(7)), (1, 7_936));
    assert_eq!(allocated(|| (0..1_000).for_each(|n| histogram.record(n))).0, 0);
}

#[test]
fn a_pass_allocates_nothing() {
    let gate: Arc<dyn Gate> = Arc::new(OpenGate);
    let calls = || {
        Pass::enter(&OpenGate).unwrap().finish(Outcome::Success);
        Pass::enter(&*gate).unwrap().finish(Outcome::Failure);
        drop(Pass::enter(gate.clone()));
    };
    assert_eq!(allocated(calls).0, 0);
}

#[test]
fn clocks_and_backoff_allocate_nothing() {
    let (manual, hand) = Clock::manual();
    let (system, coarse) = (Clock::system(), Clock::coarse());
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(1));
    let _ = coarse.now(); // starts the ticker
    let use_all = || {
        hand.advance(Duration::from_secs(1));
        (manual.now(), manual.clone(), system.now(), coarse.clone(), backoff.next_delay())
    };
    assert_eq!(allocated(use_all).0, 0);
}
