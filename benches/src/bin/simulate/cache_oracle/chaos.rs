//! Readers and writers at once, in real threads, and nobody may see the past.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use fastrand::Rng;
use swiftwater_benches::pin;
use tokio::{
    runtime::Builder,
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

use crate::cache_oracle::source::{Floors, Promise, Question, Source, WIDEST};

/// A cache under test.
pub trait Subject: Send + Sync + 'static {
    /// What a reader gets; `None` if nothing, or if it leaves before.
    fn ask(&self, question: Question, rng: &mut Rng) -> impl Future<Output = Option<Answer>> + Send;
    /// Writes the row and then invalidates; what is promised once it has ended, if anything has been written.
    fn change(&self, row: usize, rng: &mut Rng) -> impl Future<Output = Option<Promise>> + Send;
    /// What else goes on, and may change nothing about the answers.
    fn disturb(&self, _: &mut Rng) -> impl Future<Output = ()> + Send {
        async {}
    }
}

pub struct Answer {
    pub versions: [u64; WIDEST],
    pub mark: Mark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing is promised of it.
    Exempt,
    Fresh,
    /// Marked as stale.
    Stale,
}

impl Answer {
    pub fn new(versions: &[u64], mark: Mark) -> Self {
        let mut answer = Self { versions: [0; WIDEST], mark };
        answer.versions[..versions.len()].copy_from_slice(versions);
        answer
    }
}

/// One run, from an empty cache.
#[derive(Clone, Copy, Debug)]
pub struct History {
    pub seed: u64,
    pub span: Duration,
    /// How many levels of questions are asked.
    pub levels: usize,
    pub writers: usize,
    /// After how many of 256 changes a writer rests.
    pub rests: u8,
    /// How long after the last change every promise holds.
    pub settling: Duration,
}

/// What was seen in one history, or in several.
#[derive(Debug, Default)]
pub struct Tally {
    /// Versions that were compared with a floor.
    pub checks: u64,
    pub answers: u64,
    /// Readers who got nothing: nothing was stored, the load failed, or they left.
    pub nothing: u64,
    pub loads: u64,
    pub changes: u64,
    /// Answers that were marked.
    pub stale: u64,
    pub violations: u64,
    /// One of them, in words.
    pub first: Option<String>,
    pub seconds: f64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.checks += other.checks;
        self.answers += other.answers;
        self.nothing += other.nothing;
        self.loads += other.loads;
        self.changes += other.changes;
        self.stale += other.stale;
        self.violations += other.violations;
        self.first = self.first.take().or(other.first);
        self.seconds += other.seconds;
    }

    fn check(&mut self, question: Question, rows: usize, floors: &Floors, answer: &Answer) {
        self.answers += 1;
        let floors = match answer.mark {
            Mark::Exempt => return,
            Mark::Fresh => &floors.fresh,
            Mark::Stale => &floors.any,
        };
        self.stale += u64::from(answer.mark == Mark::Stale);
        for (place, row) in question.rows(rows).enumerate() {
            let (seen, floor) = (answer.versions[place], floors[place]);
            self.checks += 1;
            if seen < floor {
                self.violations += 1;
                self.first.get_or_insert_with(|| {
                    format!(
                        "{question:?} gave version {seen} of row {row}, whose floor was {floor} ({:?})",
                        answer.mark
                    )
                });
            }
        }
    }
}

/// Runs readers, writers and who disturbs for the span, and then asks everything once more, when all is quiet.
pub fn run<S: Subject>(history: History, source: Arc<Source>, make: impl FnOnce(&Arc<Source>) -> S) -> Tally {
    let start = Instant::now();
    let mut rng = Rng::with_seed(history.seed);
    // More than there may be processors: then threads are stopped anywhere. Pinned, since the kernel keeps them all on one
    // at times.
    let next = AtomicUsize::new(0);
    let pinned = move || pin(next.fetch_add(1, Relaxed));
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(rng.usize(2..=4)).enable_time().on_thread_start(pinned);
    let runtime = builder.build().expect("a runtime");
    let subject = {
        let _within = runtime.enter(); // for tasks of its own
        Arc::new(make(&source))
    };
    let mut tally = runtime.block_on(async {
        let until = Instant::now() + history.span;
        let late = !history.settling.is_zero();
        let mut tasks = JoinSet::new();
        for _ in 0..READERS {
            tasks.spawn(read(subject.clone(), source.clone(), rng.fork(), history.levels, late, until));
        }
        for _ in 0..history.writers {
            tasks.spawn(write(subject.clone(), source.clone(), rng.fork(), history.rests, until));
        }
        tasks.spawn(disturb(subject.clone(), rng.fork(), until));
        let mut tally = Tally::default();
        let settled = timeout(PATIENCE, async {
            while let Some(one) = tasks.join_next().await {
                tally.add(one.expect("no task panics"));
            }
            source.calm_down();
            sleep(history.settling).await;
            settle(&*subject, &source, &mut rng, history.levels, late, &mut tally).await;
        });
        if settled.await.is_err() {
            tally.violations += 1;
            tally.first = Some(format!("somebody still waits after {PATIENCE:?}"));
        }
        tally
    });
    runtime.shutdown_timeout(PATIENCE);
    tally.loads = source.loads();
    tally.seconds = start.elapsed().as_secs_f64();
    tally
}

async fn read<S: Subject>(
    subject: Arc<S>,
    source: Arc<Source>,
    mut rng: Rng,
    levels: usize,
    late: bool,
    until: Instant,
) -> Tally {
    let mut tally = Tally::default();
    loop {
        for _ in 0..rng.u32(1..=BURST) {
            let question = Question::draw(&mut rng, levels, source.rows());
            ask(&*subject, &source, question, &mut rng, late, &mut tally).await;
        }
        if Instant::now() >= until {
            return tally;
        }
        yield_now().await;
    }
}

/// Whether there was an answer.
async fn ask(
    subject: &impl Subject,
    source: &Source,
    question: Question,
    rng: &mut Rng,
    late: bool,
    tally: &mut Tally,
) -> bool {
    let floors = source.floors(question, late);
    let answer = subject.ask(question, rng).await;
    match &answer {
        Some(answer) => tally.check(question, source.rows(), &floors, answer),
        None => tally.nothing += 1,
    }
    answer.is_some()
}

async fn write<S: Subject>(
    subject: Arc<S>,
    source: Arc<Source>,
    mut rng: Rng,
    rests: u8,
    until: Instant,
) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < until {
        let row = rng.usize(..source.rows());
        if let Some(promise) = subject.change(row, &mut rng).await {
            source.promise(row, promise);
            tally.changes += 1;
        }
        for _ in 0..rng.u32(1..=4) {
            yield_now().await;
        }
        if rng.u8(..) < rests {
            sleep(Duration::from_millis(1)).await;
        }
    }
    tally
}

async fn disturb<S: Subject>(subject: Arc<S>, mut rng: Rng, until: Instant) -> Tally {
    while Instant::now() < until {
        subject.disturb(&mut rng).await;
        for _ in 0..rng.u32(1..=8) {
            yield_now().await;
        }
        if rng.u8(..) < 32 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    Tally::default()
}

/// Whatever was left behind is still there.
async fn settle(
    subject: &impl Subject,
    source: &Source,
    rng: &mut Rng,
    levels: usize,
    late: bool,
    tally: &mut Tally,
) {
    for question in Question::all(levels, source.rows()) {
        for _ in 0..TRIES {
            if ask(subject, source, question, rng, late, tally).await {
                break;
            }
        }
    }
}

/// Polls a future so often and then drops it.
pub struct Abandon<F> {
    future: Option<Pin<Box<F>>>,
    polls: u32,
}

impl<F: Future> Abandon<F> {
    pub fn after(polls: u32, future: F) -> Self {
        Self { future: Some(Box::pin(future)), polls }
    }
}

impl<F: Future> Future for Abandon<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            self.future = None; // before anybody learns of it
        }
        self.polls = self.polls.saturating_sub(1);
        match &mut self.future {
            Some(future) => future.as_mut().poll(cx).map(Some),
            None => Poll::Ready(None),
        }
    }
}

const READERS: usize = 6;
/// How many questions a reader asks, at most, before others have their turn.
const BURST: u32 = 64;
/// How often the last round asks for what it does not get.
const TRIES: u32 = 8;
/// Far longer than anything takes that ends at all.
const PATIENCE: Duration = Duration::from_secs(60);
