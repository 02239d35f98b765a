//! Any sequence of operations on a cache, one at a time, with loads held open across others, against what is promised:
//!
//! - **Freshness**: what a get yields was made, directly or through other entries, of nothing that had been declared
//!   changed before the get began. The twin counts the changes of every dependency and key; a value carries the counts
//!   that its loads saw when they read.
//! - **Lifetimes**: what `get` yields has not come to its end, nor has anything that it was made of.
//! - **Nothing is stored** that a loader made of a refused cycle, or in a region that is off.
//! - **Nobody waits for ever**: every caller is woken and answered once the loads have ended, also when their runtime does.
//! - **Nothing leaks**, and a destructor that reads the cache never meets a lock.

#![no_main]

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use swiftwater_cache::{Cache, LoadCx, LoadError, Region, Scope, dep};
use swiftwater_core::{Clock, Hand, Knob, Tunable as _};
use swiftwater_fuzz::{Input, meaning_to_panic, ready};
use tokio::{
    runtime::Runtime,
    sync::oneshot,
    task::{unconstrained, yield_now},
};

const DEPS: usize = 3;
const KEYS: usize = 3;
const NAMES: [&str; 2] = ["rows", "pages"];
/// More steps add time and no situations.
const STEPS: usize = 64;
const DEEPEST: usize = 3;

type Map = Region<u8, Value, Failure>;
type Answer = Result<Made, LoadError<Failure>>;
type Asking = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What can be declared changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Thing {
    Dep(usize),
    Key(usize, u8),
}

/// What a load has read: how often each thing had changed by then.
type Seen = HashMap<Thing, u64>;

#[derive(Debug, Default)]
struct Made {
    seen: Seen,
    /// The second at which it may not be served any more.
    end: Option<u64>,
    /// Of a cycle that was refused.
    of_a_cycle: bool,
}

#[derive(Debug)]
struct Value {
    made: Made,
    weight: u64,
    _alive: Alive,
}

/// The error of loaders.
#[derive(Debug)]
struct Failure {
    made: Made,
    _alive: Alive,
}

static ALIVE: AtomicI64 = AtomicI64::new(0);

#[derive(Debug)]
struct Alive;

impl Alive {
    fn new() -> Self {
        ALIVE.fetch_add(1, SeqCst);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, SeqCst);
    }
}

thread_local! {
    /// For the destructors of values.
    static READ_ON_DROP: RefCell<Vec<Map>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Value {
    fn drop(&mut self) {
        READ_ON_DROP.with(|regions| {
            let Ok(regions) = regions.try_borrow() else { return };
            regions.iter().for_each(|region| drop(region.get(&0)));
        });
    }
}

impl Made {
    fn read(&mut self, other: &Self) {
        for (thing, count) in &other.seen {
            let seen = self.seen.entry(*thing).or_insert(*count);
            *seen = *count.min(seen);
        }
        self.ends_by(other.end);
        self.of_a_cycle |= other.of_a_cycle;
    }

    fn ends_by(&mut self, end: Option<u64>) {
        self.end = [self.end, end].into_iter().flatten().min();
    }
}

/// The twin, and what the loaders need.
struct World {
    cache: Cache,
    regions: [Map; 2],
    ttl: Option<u64>,
    hand: Hand,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    seconds: u64,
    /// How often each thing has changed. Raised before the cache is told.
    changes: Seen,
    /// How often each thing has changed and the cache has been told.
    told: Seen,
    /// Loaders that wait.
    gates: Vec<oneshot::Sender<()>>,
}

impl World {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    fn count(&self, thing: Thing) -> u64 {
        self.inner().changes.get(&thing).copied().unwrap_or(0)
    }

    /// Changes a thing, and then tells the cache.
    fn change(&self, thing: Thing, tell: impl FnOnce()) {
        let count = {
            let mut inner = self.inner();
            let count = inner.changes.entry(thing).or_insert(0);
            *count += 1;
            *count
        };
        tell();
        let mut inner = self.inner();
        let told = inner.told.entry(thing).or_insert(0);
        *told = count.max(*told);
    }

    /// What a get that begins now may not fall behind.
    fn floor(&self) -> Seen {
        self.inner().told.clone()
    }

    fn has_ended(&self, made: &Made) -> bool {
        made.end.is_some_and(|end| end <= self.inner().seconds)
    }

    /// A get, and what is promised of it.
    fn get(&self, region: usize, key: u8, scope: Option<&Scope>) -> Option<Made> {
        let (floor, map) = (self.floor(), &self.regions[region]);
        let hit = match scope {
            Some(scope) => map.within(scope).get(&key),
            None => map.get(&key),
        }?;
        let made = &hit.made;
        assert!(map.is_enabled(), "a hit in a region that is off");
        assert_fresh(&floor, made);
        assert!(!self.has_ended(made), "served after its end: {made:?}");
        assert!(!made.of_a_cycle, "a value made of a cycle was stored");
        let mut read = Made::default();
        read.read(made);
        Some(read)
    }

    fn insert(&self, region: usize, key: u8, plan: &mut Input<'_>) {
        let (choice, weight) = (plan.byte(), u64::from(plan.byte() % 8));
        let deps = (0..DEPS).filter(|place| choice & (1 << place) != 0);
        let own_ttl = (choice & 0x80 != 0).then_some(u64::from(choice >> 4 & 3));
        self.change(Thing::Key(region, key), || {
            let things = deps.clone().map(Thing::Dep).chain([Thing::Key(region, key)]);
            let seen = things.map(|thing| (thing, self.count(thing))).collect();
            let end = own_ttl.or(self.ttl).map(|ttl| self.inner().seconds + ttl);
            let made = Made { seen, end, of_a_cycle: false };
            self.regions[region].insert_with(key, Value { made, weight, _alive: Alive::new() }, |scope| {
                deps.for_each(|place| scope.depends_on(dep!("dep", place)));
                if let Some(ttl) = own_ttl {
                    scope.ttl(Duration::from_secs(ttl));
                }
            });
        });
    }
}

/// Everything that a value was made of had been read at or after the change that the cache had been told of before.
fn assert_fresh(floor: &Seen, made: &Made) {
    for (thing, seen) in &made.seen {
        let told = floor.get(thing).copied().unwrap_or(0);
        assert!(*seen >= told, "{thing:?} was read at change {seen}, and the get began after {told}");
    }
}

/// A lookup with a loader that does what the plan says.
fn ask(
    world: Arc<World>,
    region: usize,
    key: u8,
    plan: Vec<u8>,
    scope: Option<Scope>,
    depth: usize,
) -> Asking {
    Box::pin(async move {
        let (map, floor) = (world.regions[region].clone(), world.floor());
        let load = move |cx: LoadCx<u8>| load(world, region, cx, plan, depth);
        let result = match &scope {
            Some(scope) => map.within(scope).get_or_load(&key, load).await,
            None => map.get_or_load(&key, load).await,
        };
        let mut read = Made::default();
        match &result {
            Ok(hit) => read.read(&hit.made),
            Err(LoadError::Loader(failure)) => read.read(&failure.made),
            Err(LoadError::Cycle) => read.of_a_cycle = true,
            Err(_) => {}
        }
        assert_fresh(&floor, &read);
        result.map(|_| read)
    })
}

/// A loader.
async fn load(
    world: Arc<World>,
    region: usize,
    cx: LoadCx<u8>,
    plan: Vec<u8>,
    depth: usize,
) -> Result<Value, Failure> {
    let key = *cx.key();
    let began = world.inner().seconds;
    let mut made = Made::default();
    made.seen.insert(Thing::Key(region, key), world.count(Thing::Key(region, key)));
    let (mut ttl, mut weight) = (world.ttl, 1);
    let mut plan = Input(&plan);
    let mut steps = 0;
    while !plan.is_empty() && steps < 6 {
        steps += 1;
        let step = plan.byte();
        let (other, place) = (step / 16 % KEYS as u8, usize::from(step / 16) % DEPS);
        match step % 16 {
            0 | 1 => {
                made.seen.entry(Thing::Dep(place)).or_insert(world.count(Thing::Dep(place)));
                cx.depends_on(dep!("dep", place));
            }
            2 => {
                // Declared after it was read.
                made.seen.entry(Thing::Dep(place)).or_insert(world.count(Thing::Dep(place)));
                pass(&world).await;
                cx.depends_on(dep!("dep", place));
            }
            3 | 4 => pass(&world).await,
            5 => {
                ttl = Some(u64::from(step / 16 % 4));
                cx.ttl(Duration::from_secs(u64::from(step / 16 % 4)));
            }
            6 => weight = u64::from(step / 16),
            7 | 8 => {
                let named = step.is_multiple_of(2).then_some(&*cx);
                let absent = world.count(Thing::Key(1 - region, other));
                match world.get(1 - region, other, named) {
                    Some(read) => made.read(&read),
                    None => {
                        made.seen.entry(Thing::Key(1 - region, other)).or_insert(absent);
                    }
                }
            }
            9..=11 if depth < DEEPEST => {
                let target = if step % 16 == 11 { region } else { 1 - region };
                let length = usize::from(step / 64);
                let inner = plan.bytes(length).to_vec();
                let named = (step % 16 == 10).then(|| (*cx).clone());
                match ask(world.clone(), target, other, inner, named, depth + 1).await {
                    Ok(read) => made.read(&read),
                    Err(LoadError::Loader(failure)) => made.read(&failure.made),
                    Err(LoadError::Cycle) => made.of_a_cycle = true,
                    Err(_) => {}
                }
            }
            12 => world.change(Thing::Dep(place), || {
                world.cache.invalidate(dep!("dep", place));
            }),
            13 => {
                let map = &world.regions[1 - region];
                world.change(Thing::Key(1 - region, other), || {
                    map.invalidate(&other);
                });
            }
            // A failure has no lifetime of its own: it is not stored.
            14 => return Err(Failure { made, _alive: Alive::new() }),
            15 => meaning_to_panic(|| panic!("a loader, as planned")),
            _ => {}
        }
    }
    made.ends_by(ttl.map(|ttl| began + ttl));
    Ok(Value { made, weight, _alive: Alive::new() })
}

/// Waits until it is let go.
async fn pass(world: &World) {
    let (open, opened) = oneshot::channel();
    world.inner().gates.push(open);
    if opened.await.is_err() {
        std::future::pending().await // nobody will ever let it go
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// Somebody who has asked.
struct Caller {
    answer: Asking,
    woken: Arc<Woken>,
}

impl Caller {
    /// Polls it if it was woken.
    fn look(&mut self) -> Option<Answer> {
        if !self.woken.0.swap(false, SeqCst) {
            return None;
        }
        let waker = Waker::from(self.woken.clone());
        match self.answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }
}

fn settle(runtime: &Runtime, callers: &mut Vec<Caller>) {
    runtime.block_on(unconstrained(async {
        for _ in 0..4 {
            callers.retain_mut(|caller| {
                let Some(answer) = caller.look() else { return true };
                if let Err(error @ (LoadError::Aborted | LoadError::Cycle | LoadError::NoRuntime)) = answer {
                    panic!("{error:?} outside of a loader, on a runtime that lives");
                }
                false
            });
            yield_now().await;
        }
    }));
}

fn build(cache: &Cache, ttl: Option<u64>, memory: u64, name: usize) -> Map {
    let builder = cache.region(NAMES[name]).error().memory(memory).ttl(ttl.map(Duration::from_secs));
    builder.weigher(|_, value: &Value| value.weight).build().expect("nobody has a region of that name")
}

fn run(data: &[u8]) {
    let mut input = Input(data);
    let shape = input.byte();
    let ttl = (shape & 1 != 0).then_some(3);
    let memory = if shape & 2 != 0 { 4 } else { 64 };
    let (clock, hand) = Clock::manual();
    let cells = if shape & 4 != 0 { 2 } else { 1 << 10 };
    let cache = Cache::builder().clock(clock).version_cells(cells).build().expect("valid");
    let regions = [build(&cache, ttl, memory, 0), build(&cache, ttl, memory, 1)];
    if shape & 8 != 0 {
        READ_ON_DROP.set(regions.to_vec());
    }
    let mut world = Arc::new(World { cache, regions, ttl, hand, inner: Mutex::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut callers: Vec<Caller> = Vec::new();

    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let step = input.byte();
        let (region, key) = (usize::from(step / 16) % 2, step / 32 % KEYS as u8);
        match step % 16 {
            0..=3 => {
                let length = input.below(8);
                let plan = input.bytes(length).to_vec();
                let answer = ask(world.clone(), region, key, plan, None, 0);
                callers.push(Caller { answer, woken: Arc::new(Woken(AtomicBool::new(true))) });
            }
            4 | 5 => {
                let mut inner = world.inner();
                if !inner.gates.is_empty() {
                    let place = usize::from(step / 16) % inner.gates.len();
                    // The loader is gone if its region was off and its caller has given up.
                    let _ = inner.gates.remove(place).send(());
                }
            }
            6 | 7 => {
                let place = usize::from(key) % DEPS;
                world.change(Thing::Dep(place), || {
                    world.cache.invalidate(dep!("dep", place));
                });
            }
            8 => {
                let map = &world.regions[region];
                world.change(Thing::Key(region, key), || {
                    map.invalidate(&key);
                });
            }
            9 => world.insert(region, key, &mut input),
            10 => {
                let seconds = u64::from(step / 32);
                world.inner().seconds += seconds;
                world.hand.advance(Duration::from_secs(seconds));
            }
            11 => world.regions[region].set_enabled(key != 0),
            12 => drop(world.get(region, key, None)),
            13 => {
                if !callers.is_empty() {
                    drop(callers.remove(usize::from(step / 16) % callers.len()));
                }
            }
            14 => world.regions[region].knobs(&mut |knob: Knob| {
                knob.set(f64::from(step / 32 * 8 + 1)).expect("the region lives");
            }),
            _ => rebuild(&mut world, &callers, region, memory),
        }
        settle(&runtime, &mut callers);
    }

    if shape & 16 != 0 {
        // The runtime ends before the loads do. Those of a region that is off run in their callers, and go on.
        drop(runtime);
        for _ in 0..=STEPS {
            open_all(&world);
            callers.retain_mut(|caller| caller.look().is_none());
        }
        assert!(callers.is_empty(), "{} wait for loads that are gone", callers.len());
    } else {
        while !world.inner().gates.is_empty() {
            open_all(&world);
            (0..8).for_each(|_| settle(&runtime, &mut callers));
        }
        assert!(callers.is_empty(), "{} wait, and no loader does", callers.len());
        for map in &world.regions {
            map.set_enabled(true);
            map.knobs(&mut |knob: Knob| assert_eq!(knob.set(64.0).ok(), Some(64.0)));
            map.insert(9, Value { made: Made::default(), weight: 1, _alive: Alive::new() });
            assert!(map.get(&9).is_some(), "nothing is stored any more");
        }
    }
    READ_ON_DROP.take();
    drop(world);
    assert_eq!(ALIVE.load(SeqCst), 0, "values that nobody has are alive");
}

/// Lets every loader go that waits.
fn open_all(world: &World) {
    let gates = std::mem::take(&mut world.inner().gates);
    for gate in gates {
        let _ = gate.send(()); // its loader may be gone
    }
}

/// A region is dropped with all that it holds, and another takes its name.
fn rebuild(world: &mut Arc<World>, callers: &[Caller], region: usize, memory: u64) {
    if !callers.is_empty() || READ_ON_DROP.with_borrow(|regions| !regions.is_empty()) {
        return;
    }
    // Loads that are on their way know the world.
    let Some(world) = Arc::get_mut(world) else { return };
    let (cache, ttl) = (world.cache.clone(), world.ttl);
    // A stand-in of another name, so that the last handle goes before the new region comes.
    let stand_in = cache.region("stand-in").error().build().expect("nobody has that name");
    drop(std::mem::replace(&mut world.regions[region], stand_in));
    world.regions[region] = build(&cache, ttl, memory, region);
}

fuzz_target!(init: ready(), |data: &[u8]| run(data));
