//! Loads, joins, cancellations, invalidations and inserts in tasks, under schedules that shuttle chooses: at random, and
//! with few changes of priority (PCT), which finds what needs one unlikely order.
//!
//! `RUSTFLAGS="--cfg swiftwater_shuttle" cargo test -p swiftwater-cache --lib --release models`
//!
//! The source is a row of counters. Who changes one declares it and then raises the row's floor; who asks notes the floor
//! first, and must be told no less, be it by a value or by an error. A load tells what it found when it *began*, so that one
//! which began before an invalidation never passes for one from after it. Whoever is left waiting is a deadlock, which
//! shuttle reports; so is a load that does not end.
//!
//! Shuttle's memory is sequentially consistent: what orderings are worth is for loom to say, in [`stamps`](crate::stamps).

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
};

use shuttle::{
    Config, Runner,
    future::{JoinHandle, block_on, spawn, yield_now},
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler},
};
use swiftwater_core::Clock;
use tokio::sync::Mutex;

use crate::{Cache, Dep, Excess, Hit, LoadError, Region, RegionBuilder, dep};

const ROWS: u64 = 2;
/// Of each scheduler.
const SCHEDULES: usize = 3_000;
/// How many changes of priority PCT makes.
const CHANGES: usize = 3;

fn check(model: fn()) {
    let mut config = Config::new();
    config.silence_warnings = true; // of orderings, see above
    config.stack_size = 1 << 17;
    Runner::new(RandomScheduler::new(SCHEDULES), config.clone()).run(model);
    Runner::new(PctScheduler::new(CHANGES, SCHEDULES), config).run(model);
}

/// What a load found: its row's version.
type Row = u64;
/// A load that fails says as of when.
type Failure = u64;

struct World {
    cache: Cache,
    rows: Region<u64, Row, Failure>,
    /// Each made of a row and the one after it.
    pairs: Region<u64, [Row; 2], Failure>,
    versions: [AtomicU64; ROWS as usize],
    floors: [AtomicU64; ROWS as usize],
    /// Held by who writes a row where that is also inserted: the later write must not be the earlier insert.
    writing: [Mutex<()>; ROWS as usize],
    /// Loads of rows: how many there were, are, and were at most at a time.
    loads: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
}

/// How a change is declared.
#[derive(Clone, Copy, Debug)]
enum By {
    Dependency,
    Everything,
    Key,
    Name,
    Region,
}

const WAYS: [By; 5] = [By::Dependency, By::Everything, By::Key, By::Name, By::Region];

impl World {
    fn new() -> Arc<Self> {
        Self::with(|rows| rows)
    }

    fn with(
        options: impl FnOnce(RegionBuilder<u64, Row, Failure>) -> RegionBuilder<u64, Row, Failure>,
    ) -> Arc<Self> {
        let cache = Cache::builder().clock(Clock::manual().0).version_cells(16).build().expect("valid");
        Arc::new(Self {
            rows: options(cache.region("rows").error()).build().expect("valid"),
            pairs: cache.region("pairs").error().build().expect("valid"),
            cache,
            versions: Default::default(),
            floors: Default::default(),
            writing: Default::default(),
            loads: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    fn version(&self, row: u64) -> Row {
        self.versions[row as usize].load(SeqCst)
    }

    fn floor(&self, row: u64) -> Row {
        self.floors[row as usize].load(SeqCst)
    }

    /// What there is, or what a load finds that waits so many times, and may fail after that.
    async fn load(
        self: &Arc<Self>,
        row: u64,
        waits: u32,
        fails: bool,
    ) -> Result<Hit<Row>, LoadError<Failure>> {
        let load = |cx: crate::LoadCx<u64>| {
            let (running, found) = (Running::new(self.clone()), self.version(row));
            async move {
                let _running = running;
                cx.depends_on(dep!("row", row));
                for _ in 0..waits {
                    yield_now().await;
                }
                if fails { Err(found) } else { Ok(found) }
            }
        };
        self.rows.get_or_load(&row, load).await
    }

    /// Asks, and looks at the answer.
    async fn ask(self: &Arc<Self>, row: u64, waits: u32, fails: bool) {
        let floor = self.floor(row);
        match self.load(row, waits, fails).await {
            Ok(found) => assert!(*found >= floor, "told of {} after {floor} was declared", *found),
            Err(LoadError::Loader(found)) => {
                assert!(*found >= floor, "told of a failure at {found} after {floor} was declared");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The same of what memory has.
    fn look(&self, row: u64) {
        let floor = self.floor(row);
        if let Some(found) = self.rows.get(&row) {
            assert!(*found >= floor, "{} is there after {floor} was declared", *found);
        }
    }

    /// Asks for what is made of two rows.
    async fn ask_pair(self: &Arc<Self>, row: u64, waits: u32) {
        let rows = [row, (row + 1) % ROWS];
        let floors = rows.map(|row| self.floor(row));
        let world = self.clone();
        let load = async move |_| {
            let mut pair = [0; 2];
            for (found, row) in pair.iter_mut().zip(rows) {
                *found = *world.load(row, waits, false).await.expect("no loader fails, and there is no ring");
            }
            Ok(pair)
        };
        let pair = self.pairs.get_or_load(&row, load).await.expect("no loader fails");
        let is_fresh = pair.iter().zip(floors).all(|(found, floor)| *found >= floor);
        assert!(is_fresh, "told of {:?} after {floors:?} were declared", *pair);
    }

    /// Changes a row, and declares it.
    async fn change(&self, row: u64, by: By) {
        let version = self.versions[row as usize].fetch_add(1, SeqCst) + 1;
        yield_now().await;
        match by {
            By::Dependency => self.cache.invalidate(dep!("row", row)),
            By::Everything => self.cache.invalidate(Dep::everything()),
            By::Key => self.rows.invalidate(&row),
            By::Name => self.cache.invalidate(self.rows.dep(&row)),
            By::Region => self.cache.invalidate(self.rows.whole()),
        };
        self.floors[row as usize].fetch_max(version, SeqCst);
    }

    /// Changes a row, and puts in what it is now.
    fn put(&self, row: u64) {
        let version = self.versions[row as usize].fetch_add(1, SeqCst) + 1;
        self.rows.insert_with(row, version, |entry| entry.depends_on(dep!("row", row)));
        self.floors[row as usize].fetch_max(version, SeqCst);
    }

    /// In the end so many loads may run, and no more.
    async fn assert_room(&self, limit: usize) {
        let lane = self.rows.0.lane.as_ref().expect("there is one");
        let mut places = Vec::new();
        while places.len() < limit {
            match lane.try_enter() {
                Some(place) => places.push(place),
                None => yield_now().await, // it is on its way
            }
        }
        assert!(lane.try_enter().is_none());
    }

    /// From now on rows may be invalidated by name.
    fn named(self: Arc<Self>) -> Arc<Self> {
        let _first = self.rows.dep(&0); // here, since its effect waits for nobody but the system
        self
    }

    /// Once nobody does anything any more: nothing is left on its way, and what there is is right.
    async fn settle(self: &Arc<Self>) {
        while self.running.load(SeqCst) > 0 {
            yield_now().await; // of callers that have left
        }
        for row in 0..ROWS {
            self.ask(row, 0, false).await; // which may join one that is about to fail, and that nobody else waits for
            self.ask(row, 0, false).await;
            assert!(!self.rows.explain(&row).is_loading);
            assert_eq!(self.rows.get(&row).map(|found| *found), Some(self.version(row)));
            self.ask_pair(row, 0).await;
        }
    }
}

/// One load of a row, from its call to the end of its future.
struct Running(Arc<World>);

impl Running {
    fn new(world: Arc<World>) -> Self {
        world.loads.fetch_add(1, SeqCst);
        let running = world.running.fetch_add(1, SeqCst) + 1;
        world.most.fetch_max(running, SeqCst);
        Self(world)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

/// Polls it so many times and drops it.
async fn abandon(future: impl Future, mut polls: u32) {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if polls == 0 || future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        polls -= 1;
        if polls == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A task of the model, with the world for itself.
fn task<F: Future<Output = ()> + Send + 'static>(
    world: &Arc<World>,
    run: impl FnOnce(Arc<World>) -> F,
) -> JoinHandle<()> {
    spawn(run(world.clone()))
}

async fn all(tasks: impl IntoIterator<Item = JoinHandle<()>>) {
    for task in tasks {
        task.await.expect("nobody aborts it");
    }
}

fn up_to(most: u32) -> u32 {
    thread_rng().gen_range(0..=most)
}

fn any_way() -> By {
    WAYS[up_to(4) as usize]
}

#[test]
fn a_stampede_is_one_load() {
    check(|| {
        block_on(async {
            let world = World::new();
            let waits = up_to(3);
            let callers: Vec<_> = (0..5)
                .map(|_| task(&world, move |world| async move { world.ask(0, waits, false).await }))
                .collect();
            all(callers).await;
            assert_eq!(world.loads.load(SeqCst), 1);
            world.settle().await;
        });
    });
}

/// Also if some of its callers go away, the one among them that began the load.
#[test]
fn a_stampede_whose_callers_go_away_is_one_load() {
    check(|| {
        block_on(async {
            let world = World::new();
            let waits = up_to(3);
            let callers: Vec<_> = (0..5)
                .map(|caller| {
                    task(&world, move |world| async move {
                        if caller < 3 {
                            abandon(world.ask(0, waits, false), up_to(3)).await;
                        } else {
                            world.ask(0, waits, false).await;
                        }
                    })
                })
                .collect();
            all(callers).await;
            assert_eq!(world.loads.load(SeqCst), 1);
            world.settle().await;
        });
    });
}

/// However often something is invalidated meanwhile. Leading a load and joining one are counted by the region.
#[test]
fn nobody_waits_for_more_than_two_loads() {
    check(|| {
        block_on(async {
            const CALLERS: u64 = 5;
            let world = World::new().named();
            let callers = (0..CALLERS).map(|_| {
                task(&world, |world| async move {
                    let waits = up_to(4);
                    world.ask(0, waits, false).await;
                })
            });
            let writer = task(&world, |world| async move {
                for _ in 0..4 {
                    world.change(0, any_way()).await;
                    yield_now().await;
                }
            });
            all(callers.chain([writer]).collect::<Vec<_>>()).await;
            let stats = &world.rows.0.stats;
            let waited = stats.loads.read() + stats.joins.read();
            // The first to load waits for one.
            assert!(waited < 2 * CALLERS, "{waited} waits of {CALLERS} callers");
            world.settle().await;
        });
    });
}

#[test]
fn no_caller_is_told_of_the_past() {
    check(|| {
        block_on(async {
            let world = World::new().named();
            let mut tasks = Vec::new();
            for _ in 0..3 {
                tasks.push(task(&world, |world| async move {
                    for _ in 0..2 {
                        let (row, waits, fails) = (u64::from(up_to(1)), up_to(2), up_to(3) == 0);
                        match up_to(4) {
                            0 => world.look(row),
                            1 => abandon(world.ask(row, waits, fails), up_to(3)).await,
                            _ => world.ask(row, waits, fails).await,
                        }
                    }
                }));
            }
            for _ in 0..2 {
                tasks.push(task(&world, |world| async move {
                    for _ in 0..2 {
                        world.change(u64::from(up_to(1)), any_way()).await;
                    }
                }));
            }
            all(tasks).await;
            world.settle().await;
        });
    });
}

#[test]
fn a_load_is_not_stored_over_a_later_insert() {
    check(|| {
        block_on(async {
            let world = World::new();
            let mut tasks = Vec::new();
            for _ in 0..2 {
                tasks.push(task(&world, |world| async move {
                    for _ in 0..2 {
                        world.ask(0, up_to(2), false).await;
                        world.look(0);
                    }
                }));
            }
            for _ in 0..2 {
                tasks.push(task(&world, |world| async move {
                    yield_now().await;
                    let _writing = world.writing[0].lock().await;
                    match up_to(2) {
                        0 => world.change(0, By::Key).await,
                        _ => world.put(0),
                    }
                }));
            }
            all(tasks).await;
            world.settle().await;
        });
    });
}

#[test]
fn what_is_made_of_rows_is_never_the_past() {
    check(|| {
        block_on(async {
            let world = World::new().named();
            let mut tasks = Vec::new();
            for row in [0, 0, 1] {
                tasks.push(task(&world, move |world| async move {
                    if up_to(3) == 0 {
                        abandon(world.ask_pair(row, 1), up_to(3)).await;
                    }
                    world.ask_pair(row, up_to(1)).await;
                }));
            }
            tasks.push(task(&world, |world| async move {
                for _ in 0..2 {
                    world.change(u64::from(up_to(1)), any_way()).await;
                }
            }));
            all(tasks).await;
            world.settle().await;
        });
    });
}

#[test]
fn no_more_loads_run_than_are_allowed_and_every_place_comes_back() {
    check(|| {
        block_on(async {
            let world = World::with(|rows| rows.max_loads(1, Excess::Wait)).named();
            let mut tasks = Vec::new();
            for _ in 0..3 {
                tasks.push(task(&world, |world| async move {
                    for _ in 0..2 {
                        let (row, waits) = (u64::from(up_to(1)), up_to(2));
                        match up_to(2) {
                            0 => abandon(world.ask(row, waits, false), up_to(3)).await,
                            _ => world.ask(row, waits, false).await,
                        }
                    }
                }));
            }
            tasks.push(task(&world, |world| async move { world.change(0, any_way()).await }));
            all(tasks).await;
            assert_eq!(world.most.load(SeqCst), 1);
            world.settle().await;
            world.assert_room(1).await;
        });
    });
}

/// While loads run and wait the limit goes up and down.
#[test]
fn a_limit_that_moves_is_kept_in_the_end() {
    check(|| {
        block_on(async {
            let world = World::with(|rows| rows.max_loads(1, Excess::Wait)).named();
            let mut tasks = Vec::new();
            for row in [0, 1, 0] {
                tasks.push(task(&world, move |world| async move {
                    world.ask(row, up_to(2), false).await;
                    world.change(row, By::Dependency).await;
                    world.ask(row, up_to(2), false).await;
                }));
            }
            tasks.push(task(&world, |world| async move {
                let lane = world.rows.0.lane.as_ref().expect("there is one");
                for limit in [2, 1, 2, 1] {
                    lane.set_limit(limit);
                    yield_now().await;
                }
            }));
            all(tasks).await;
            assert!(world.most.load(SeqCst) <= 2);
            world.settle().await;
            world.assert_room(1).await;
        });
    });
}

#[test]
fn what_is_too_much_fails_for_all_who_wait_for_it() {
    check(|| {
        block_on(async {
            let world = World::with(|rows| rows.max_loads(1, Excess::Fail));
            let callers = (0..4).map(|caller| {
                task(&world, move |world| async move {
                    match world.load(caller % ROWS, up_to(2), false).await {
                        Ok(_) | Err(LoadError::Busy) => {}
                        Err(error) => panic!("{error}"),
                    }
                })
            });
            all(callers.collect::<Vec<_>>()).await;
            assert_eq!(world.most.load(SeqCst), 1);
            world.settle().await;
        });
    });
}
