//! Connection pools: ten connections, opened beforehand, that do nothing; no health checks, for anybody. fastpool is left
//! out because its authors moved it into asyncband.
//!
//! Where several tasks share a pool they run on two pinned workers, and each turn costs a unit of tokio's budget: a pool whose
//! `get` never waits would otherwise let one task run alone.

use std::{
    convert::Infallible,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use swiftwater_benches::versus::{Case, Effort, Figure, Planned, quantile, time_per_op};
use swiftwater_pool::{Check, Pool};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::runtime::{one_thread, two_workers};

pub fn cases() -> Vec<Planned> {
    vec![
        Planned::new("checkout_1t", checkout_1t),
        Planned::new("hold0_2t", || crowd("hold0_2t", 2, Hold::Nothing)),
        Planned::new("hold0_64", || crowd("hold0_64", 64, Hold::Nothing)),
        Planned::new("yield_64", || crowd("yield_64", 64, Hold::Yield)),
        Planned::new("yield_1000", || crowd("yield_1000", 1000, Hold::Yield)),
        Planned::new("dry_64", || crowd("dry_64", 64, Hold::Spin)),
    ]
}

fn checkout_1t() -> Case {
    fn measure<P: Pooled>(effort: Effort) -> [f64; 1] {
        let runtime = one_thread();
        let (pool, opened) = runtime.block_on(open::<P>());
        let ns = time_per_op(1, effort, |_, count| {
            runtime.block_on(async {
                for _ in 0..count {
                    let mut connection = pool.get().await;
                    connection.take();
                    connection.give_back();
                }
            });
        });
        assert_eq!(opened.load(Relaxed), SIZE as u64, "connections opened");
        [ns]
    }

    let mut case = Case::new([Figure::lower("checkout_1t", "ns per checkout and return")]);
    case.ours(measure::<Ours>);
    case.rival("bb8", measure::<Bb8>);
    case.rival("deadpool", measure::<Deadpool>);
    case.rival("mobc", measure::<Mobc>);
    case.rival("asyncband", measure::<Asyncband>);
    case.rival("async-channel of connections", measure::<Channel>);
    case.floor(FLOOR, measure::<Hand>);
    case
}

/// What a task does with a connection.
#[derive(Clone, Copy)]
enum Hold {
    Nothing,
    /// Five times: 10 us of work, then the other tasks. Ten connections are too few then.
    Spin,
    Yield,
}

fn crowd(name: &'static str, tasks: usize, hold: Hold) -> Case {
    fn add<P: Pooled>(tasks: usize, hold: Hold) -> impl FnMut(Effort) -> [f64; 3] {
        move |effort| turns::<P>(tasks, hold, effort)
    }

    let mut case = Case::new([
        Figure::higher(name, "thousand checkouts a second"),
        Figure::lower(format!("{name}_p99"), "us of waiting, 99th percentile"),
        Figure::lower(
            format!("{name}_fairness"),
            "checkouts of the luckiest task over those of the unluckiest",
        ),
    ]);
    case.ours(add::<Ours>(tasks, hold));
    case.rival("bb8", add::<Bb8>(tasks, hold));
    case.rival("deadpool", add::<Deadpool>(tasks, hold));
    case.rival("mobc", add::<Mobc>(tasks, hold));
    case.rival("asyncband", add::<Asyncband>(tasks, hold));
    case.rival("async-channel of connections", add::<Channel>(tasks, hold));
    case.floor(FLOOR, add::<Hand>(tasks, hold));
    case
}

const FLOOR: &str = "Semaphore, tried first, and Mutex<Vec>";

/// Throughput, the wait's 99th percentile, and how unequal the tasks were.
fn turns<P: Pooled>(tasks: usize, hold: Hold, effort: Effort) -> [f64; 3] {
    // Long enough for every task to have had many turns, at 40 thousand a second where the pool is dry.
    let time = match (hold, effort.quick) {
        (Hold::Spin, true) => 10 * effort.time,
        (Hold::Spin, false) => 4 * effort.time,
        _ => 2 * effort.time,
    };
    let runtime = two_workers();
    runtime.block_on(async {
        let (pool, opened) = open::<P>().await;
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let spawn = |_| {
            let (pool, stop) = (pool.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut count, mut waits) = (0_u64, Vec::new());
                while !stop.load(Relaxed) {
                    // Two readings of the clock cost as much as a checkout, so few are timed; of all where there are few.
                    let timed = matches!(hold, Hold::Spin) || count.is_multiple_of(13);
                    let before = timed.then(Instant::now);
                    let mut connection = pool.get().await;
                    waits.extend(before.map(|before| before.elapsed().as_nanos() as u64));
                    connection.take();
                    match hold {
                        Hold::Nothing => tokio::task::consume_budget().await,
                        Hold::Spin => {
                            for _ in 0..5 {
                                let until = Instant::now() + Duration::from_micros(10);
                                while Instant::now() < until {
                                    std::hint::spin_loop();
                                }
                                tokio::task::yield_now().await;
                            }
                        }
                        Hold::Yield => tokio::task::yield_now().await,
                    }
                    connection.give_back();
                    drop(connection);
                    count += 1;
                }
                (count, waits)
            })
        };
        let running: Vec<_> = (0..tasks).map(spawn).collect();
        tokio::time::sleep(time).await;
        stop.store(true, Relaxed);
        let (mut counts, mut waits) = (Vec::new(), Vec::new());
        for task in running {
            let (count, waited) = task.await.expect("every connection was its own");
            counts.push(count);
            waits.extend(waited);
        }
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(opened.load(Relaxed), SIZE as u64, "connections opened");
        let total: u64 = counts.iter().sum();
        assert!(total > 0, "nobody got a connection");
        let least = counts.iter().min().copied().unwrap_or(0).max(1);
        let most = counts.iter().max().copied().unwrap_or(0);
        let p99 = quantile(&mut waits, 0.99);
        [total as f64 / seconds / 1e3, p99 as f64 / 1e3, most as f64 / least as f64]
    })
}

/// A pool whose connections are all open, and the count of those that were ever opened.
async fn open<P: Pooled>() -> (P, Arc<AtomicU64>) {
    let manager = Manager::default();
    let opened = manager.opened.clone();
    let pool = P::build(manager).await;
    {
        let mut all = Vec::new();
        for _ in 0..SIZE {
            all.push(pool.get().await);
        }
    }
    // mobc returns connections in tasks of their own.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(opened.load(Relaxed), SIZE as u64, "connections opened");
    (pool, opened)
}

const SIZE: usize = 10;

/// Knows whether somebody has it: nobody else may.
#[derive(Debug, Default)]
struct Connection {
    taken: bool,
    uses: u64,
}

impl Connection {
    #[inline]
    fn take(&mut self) {
        assert!(!std::mem::replace(&mut self.taken, true), "two have the same connection");
        self.uses += 1;
    }

    #[inline]
    fn give_back(&mut self) {
        self.taken = false;
    }
}

#[derive(Clone, Default)]
struct Manager {
    opened: Arc<AtomicU64>,
}

impl Manager {
    fn open(&self) -> Connection {
        self.opened.fetch_add(1, Relaxed);
        Connection::default()
    }
}

trait Pooled: Clone + Send + Sync + 'static {
    type Guard<'a>: DerefMut<Target = Connection> + Send
    where
        Self: 'a;

    fn build(manager: Manager) -> impl Future<Output = Self> + Send;
    fn get(&self) -> impl Future<Output = Self::Guard<'_>> + Send;
}

#[derive(Clone)]
struct Ours(Pool<swiftwater_pool::Bb8<Manager>>);

impl Pooled for Ours {
    type Guard<'a> = swiftwater_pool::Guard<swiftwater_pool::Bb8<Manager>>;

    async fn build(manager: Manager) -> Self {
        Self(Pool::builder().max_size(SIZE as u32).check(Check::Never).build(manager).expect("valid options"))
    }

    #[inline]
    async fn get(&self) -> Self::Guard<'_> {
        self.0.get().await.expect("a connection")
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = Infallible;

    async fn connect(&self) -> Result<Connection, Infallible> {
        Ok(self.open())
    }

    async fn is_valid(&self, _: &mut Connection) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}

#[derive(Clone)]
struct Bb8(bb8::Pool<Manager>);

impl Pooled for Bb8 {
    type Guard<'a> = bb8::PooledConnection<'a, Manager>;

    async fn build(manager: Manager) -> Self {
        let builder = bb8::Pool::builder().max_size(SIZE as u32).test_on_check_out(false);
        Self(builder.build(manager).await.expect("it connects"))
    }

    #[inline]
    async fn get(&self) -> Self::Guard<'_> {
        self.0.get().await.expect("a connection")
    }
}

impl deadpool::managed::Manager for Manager {
    type Type = Connection;
    type Error = Infallible;

    async fn create(&self) -> Result<Connection, Infallible> {
        Ok(self.open())
    }

    async fn recycle(
        &self,
        _: &mut Connection,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

#[derive(Clone)]
struct Deadpool(deadpool::managed::Pool<Manager>);

impl Pooled for Deadpool {
    type Guard<'a> = deadpool::managed::Object<Manager>;

    async fn build(manager: Manager) -> Self {
        Self(deadpool::managed::Pool::builder(manager).max_size(SIZE).build().expect("valid options"))
    }

    #[inline]
    async fn get(&self) -> Self::Guard<'_> {
        self.0.get().await.expect("a connection")
    }
}

#[mobc::async_trait]
impl mobc::Manager for Manager {
    type Connection = Connection;
    type Error = Infallible;

    async fn connect(&self) -> Result<Connection, Infallible> {
        Ok(self.open())
    }

    async fn check(&self, connection: Connection) -> Result<Connection, Infallible> {
        Ok(connection)
    }
}

#[derive(Clone)]
struct Mobc(mobc::Pool<Manager>);

impl Pooled for Mobc {
    type Guard<'a> = mobc::Connection<Manager>;

    async fn build(manager: Manager) -> Self {
        // It keeps two idle connections unless told otherwise, and would open them again and again.
        let size = SIZE as u64;
        Self(mobc::Pool::builder().max_open(size).max_idle(size).test_on_check_out(false).build(manager))
    }

    #[inline]
    async fn get(&self) -> Self::Guard<'_> {
        self.0.get().await.expect("a connection")
    }
}

impl asyncband::pool::ManageObject for Manager {
    type Object = Connection;
    type Error = Infallible;

    async fn create(&self) -> Result<Connection, Infallible> {
        Ok(self.open())
    }

    async fn is_recyclable(
        &self,
        _: &mut Connection,
        _: &asyncband::pool::ObjectStatus,
    ) -> Result<(), Infallible> {
        Ok(())
    }
}

#[derive(Clone)]
struct Asyncband(Arc<asyncband::pool::bounded::Pool<Manager>>);

impl Pooled for Asyncband {
    type Guard<'a> = asyncband::pool::bounded::Object<Manager>;

    async fn build(manager: Manager) -> Self {
        let config = asyncband::pool::bounded::PoolConfig::new(SIZE);
        Self(asyncband::pool::bounded::Pool::new(config, manager))
    }

    #[inline]
    async fn get(&self) -> Self::Guard<'_> {
        self.0.get().await.expect("a connection")
    }
}

/// A channel as a pool: receive, and send back. Whoever comes first takes it, so it may starve those who wait.
#[derive(Clone)]
struct Channel(async_channel::Sender<Connection>, async_channel::Receiver<Connection>);

struct Received<'a>(&'a async_channel::Sender<Connection>, Option<Connection>);

impl Pooled for Channel {
    type Guard<'a> = Received<'a>;

    async fn build(manager: Manager) -> Self {
        let (sender, receiver) = async_channel::bounded(SIZE);
        for _ in 0..SIZE {
            sender.try_send(manager.open()).expect("there is room");
        }
        Self(sender, receiver)
    }

    #[inline]
    async fn get(&self) -> Received<'_> {
        Received(&self.0, Some(self.1.recv().await.expect("open")))
    }
}

impl Drop for Received<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.try_send(self.1.take().expect("only dropped once")).expect("there is room");
    }
}

/// The floor: what one writes when one needs no pool. The semaphore is tried first, since a wait on it may leave the permit
/// with a task that does not run.
#[derive(Clone)]
struct Hand(Arc<(Semaphore, Mutex<Vec<Connection>>)>);

struct Held<'a> {
    home: &'a Mutex<Vec<Connection>>,
    connection: Option<Connection>,
    /// Released last: then the connection is back.
    _permit: SemaphorePermit<'a>,
}

impl Pooled for Hand {
    type Guard<'a> = Held<'a>;

    async fn build(manager: Manager) -> Self {
        let connections = (0..SIZE).map(|_| manager.open()).collect();
        Self(Arc::new((Semaphore::new(SIZE), Mutex::new(connections))))
    }

    #[inline]
    async fn get(&self) -> Held<'_> {
        let (permits, home) = &*self.0;
        let permit = match permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => permits.acquire().await.expect("never closed"),
        };
        let connection = home.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Held { home, connection, _permit: permit }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).extend(self.connection.take());
    }
}

/// Both hold their connection until they are dropped.
macro_rules! holds_a_connection {
    ($($guard:ident.$field:tt)*) => {$(
        impl Deref for $guard<'_> {
            type Target = Connection;

            #[inline]
            fn deref(&self) -> &Connection {
                self.$field.as_ref().expect("until it is dropped")
            }
        }

        impl DerefMut for $guard<'_> {
            #[inline]
            fn deref_mut(&mut self) -> &mut Connection {
                self.$field.as_mut().expect("until it is dropped")
            }
        }
    )*};
}

holds_a_connection!(Held.connection Received.1);
