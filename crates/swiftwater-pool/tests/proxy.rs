//! A pool over a real network that fails: refused, reset, lost, slow, cut.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{peek, reading};
use swiftwater_core::{Backoff, Outcome};
use swiftwater_pool::{Builder, Cause, Check, Connect, GetError, Pool};
use swiftwater_testkit::{Direction, Fault, Proxy, Redis, eventually};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

mod common;

/// For what happens within milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(30);
/// The patience of callers where nothing answers: waited for in full.
const PATIENCE: Duration = Duration::from_secs(1);
/// What one check and one attempt to connect may take then.
const STEP: Duration = Duration::from_millis(200);

/// Greets each connection with its number, and says every line again. Counts the lines.
async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, lines) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = lines.clone();
    serve(async move {
        for number in 0.. {
            let (connection, _) = listener.accept().await.unwrap();
            serve(parrot(connection, number, count.clone()));
        }
    });
    (addr, lines)
}

async fn parrot(connection: TcpStream, number: usize, lines: Arc<AtomicUsize>) {
    let mut connection = BufReader::new(connection);
    let mut line = format!("number {number}\n");
    // Until the connection has ended, in whatever way.
    while connection.write_all(line.as_bytes()).await.is_ok() {
        line.clear();
        let Ok(1..) = connection.read_line(&mut line).await else { return };
        lines.fetch_add(1, SeqCst);
    }
}

/// On the test's own runtime, which ends with the test.
fn serve(work: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::runtime::Handle::current().spawn(work));
}

/// Knows nothing of broken connections but what a failed question has told.
struct Parrot(SocketAddr);

struct Line {
    stream: BufReader<TcpStream>,
    number: String,
    failed: bool,
}

impl Connect for Parrot {
    type Connection = Line;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<Line> {
        let stream = BufReader::new(TcpStream::connect(self.0).await?);
        let mut line = Line { stream, number: String::new(), failed: false };
        line.number = line.hear().await?;
        Ok(line)
    }

    async fn check(&self, line: &mut Line) -> io::Result<()> {
        match line.ask("are you there?").await?.as_str() {
            "are you there?" => Ok(()),
            other => Err(io::Error::other(other.to_owned())),
        }
    }

    fn is_broken(&self, line: &mut Line) -> bool {
        line.failed
    }
}

impl Line {
    async fn ask(&mut self, question: &str) -> io::Result<String> {
        let result = async {
            self.stream.write_all(format!("{question}\n").as_bytes()).await?;
            self.hear().await
        };
        let result = result.await;
        self.failed |= result.is_err();
        result
    }

    async fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        line.strip_suffix('\n').map(str::to_owned).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn pool(proxy: &Proxy, set: impl FnOnce(Builder<Parrot>) -> Builder<Parrot>) -> Pool<Parrot> {
    let builder = Pool::builder().acquire_timeout(SOON).connect_timeout(SOON).check_timeout(SOON);
    set(builder).build(Parrot(proxy.addr())).unwrap()
}

fn impatient(builder: Builder<Parrot>) -> Builder<Parrot> {
    builder.acquire_timeout(PATIENCE).connect_timeout(STEP).check_timeout(STEP)
}

/// The number of a connection that works, after some that may not: ten times `PATIENCE` is ten times the longest pause
/// between two attempts to connect.
async fn served(pool: &Pool<Parrot>) -> String {
    for _ in 0..10 {
        if let Ok(mut line) = pool.get().await {
            assert_eq!(line.ask("hello").await.unwrap(), "hello");
            return line.number.clone();
        }
    }
    panic!("not served in ten attempts: {pool:?}");
}

#[tokio::test]
async fn in_a_black_hole_the_check_gives_up_the_error_says_so_and_the_pool_recovers() {
    let proxy = Proxy::start(server().await.0).unwrap();
    let pool = pool(&proxy, |b| impatient(b).check(Check::Always));
    let before = served(&pool).await;

    proxy.set(Fault::BlackHole { direction: Direction::Both, after: 0 }).unwrap();
    let error = pool.get().await.unwrap_err();
    let GetError::Timeout(timeout) = &error else { panic!("{error:?}") };
    assert_eq!((timeout.cause(), error.outcome()), (Cause::Unreachable, Outcome::Failure), "{error}");
    assert!(timeout.last_failure().unwrap().text().contains("longer than 200ms"), "{error}");
    assert_eq!(reading(&pool, "closed_check_failed"), 1);

    proxy.clear().unwrap();
    assert_ne!(served(&pool).await, before, "it may have an answer left in it that nobody waits for");
}

#[tokio::test]
async fn an_answer_lost_in_a_black_hole_is_not_the_next_callers() {
    let (addr, lines) = server().await;
    let proxy = Proxy::start(addr).unwrap();
    let pool = pool(&proxy, |b| b.max_size(1).check(Check::Never));
    assert_eq!(served(&pool).await, "number 0");
    let before = lines.load(SeqCst);

    proxy.set(Fault::BlackHole { direction: Direction::ToClient, after: 3 }).unwrap();
    tokio::select! {
        answer = pool.with(async |line| line.ask("whose is it?").await) => panic!("not lost: {answer:?}"),
        _ = eventually(SOON, "the server has heard it", async || lines.load(SeqCst) > before) => {}
    }
    proxy.clear().unwrap();
    assert_eq!(served(&pool).await, "number 1");
    assert_eq!(reading(&pool, "closed_discarded"), 1);
}

#[tokio::test]
async fn a_connection_that_was_reset_in_use_is_not_handed_out_again() {
    let proxy = Proxy::start(server().await.0).unwrap();
    let pool = pool(&proxy, |b| b.check(Check::Never));
    let mut line = pool.get().await.unwrap();
    assert_eq!(line.ask("before").await.unwrap(), "before");

    proxy.set(Fault::Reset).unwrap();
    proxy.clear().unwrap();
    assert_eq!(line.ask("after").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(line);
    assert_eq!(served(&pool).await, "number 1");
    assert_eq!(reading(&pool, "closed_broken"), 1);
}

#[tokio::test]
async fn connections_that_were_reset_while_idle_are_found_by_their_checks() {
    let proxy = Proxy::start(server().await.0).unwrap();
    let pool = pool(&proxy, |b| b.max_size(3).check(Check::Always));
    drop((pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap()));
    assert_eq!(pool.state().idle, 3);

    proxy.set(Fault::Reset).unwrap();
    proxy.clear().unwrap();
    let number = served(&pool).await;
    assert!(!["number 0", "number 1", "number 2"].contains(&number.as_str()), "{number}");
    eventually(SOON, "all three are gone", async || reading(&pool, "closed_check_failed") == 3).await;
}

#[tokio::test]
async fn while_connects_are_refused_a_caller_waits_through_pauses_and_is_served_when_they_are_not() {
    let proxy = Proxy::start(server().await.0).unwrap();
    let pool = pool(&proxy, |b| b.backoff(Backoff::new(STEP / 20, STEP)));
    proxy.set(Fault::Refuse).unwrap();
    let mut get = pool.get();
    assert!(peek(&mut get).is_pending());
    eventually(SOON, "it was tried again", async || reading(&pool, "connect_failures") >= 3).await;
    assert!(peek(&mut get).is_pending());
    assert_eq!(proxy.accepted(), 0);

    proxy.clear().unwrap();
    assert_eq!(get.await.unwrap().number, "number 0");
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_refused_connect_is_named_as_the_cause() {
    let proxy = Proxy::start(server().await.0).unwrap();
    proxy.set(Fault::Refuse).unwrap();
    let error = pool(&proxy, impatient).get().await.unwrap_err();
    let GetError::Timeout(timeout) = &error else { panic!("{error:?}") };
    assert_eq!(timeout.cause(), Cause::Unreachable, "{error}");
    assert!(timeout.last_failure().unwrap().text().contains("ConnectionRefused"), "{error}");
}

#[tokio::test]
async fn a_slow_connect_is_waited_for_as_long_as_its_time_out_allows_and_no_longer() {
    let proxy = Proxy::start(server().await.0).unwrap();
    proxy.set(Fault::Delay(2 * STEP)).unwrap();
    let error = pool(&proxy, |b| impatient(b).retry_connection(false)).get().await.unwrap_err();
    assert!(matches!(error, GetError::ConnectTimeout { limit: STEP, .. }), "{error:?}");

    let mut line = pool(&proxy, |b| b.retry_connection(false)).get().await.unwrap();
    assert_eq!(line.ask("slowly").await.unwrap(), "slowly");
}

#[tokio::test]
async fn a_connection_whose_answer_was_cut_is_not_handed_out_again() {
    let proxy = Proxy::start(server().await.0).unwrap();
    let pool = pool(&proxy, |b| b.check(Check::Never));
    assert_eq!(served(&pool).await, "number 0");

    proxy.set(Fault::Cut { direction: Direction::ToClient, after: 7 }).unwrap();
    let error = pool.with(async |line| line.ask("a long question").await).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    proxy.clear().unwrap();
    assert_eq!(served(&pool).await, "number 1");
    assert_eq!(reading(&pool, "closed_broken"), 1);
}

#[tokio::test]
async fn a_greeting_that_is_cut_is_a_failed_attempt() {
    let proxy = Proxy::start(server().await.0).unwrap();
    proxy.set(Fault::Cut { direction: Direction::ToClient, after: 3 }).unwrap();
    let pool = pool(&proxy, |b| b.retry_connection(false));
    let Err(GetError::Connect(error)) = pool.get().await else { panic!("it was greeted") };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    proxy.clear().unwrap();
    assert_eq!(served(&pool).await, "number 1");
}

#[tokio::test]
#[ignore = "needs redis-server: run scripts/test"]
async fn redis_behind_a_black_hole_is_unreachable_and_then_served_by_a_new_connection() {
    use bb8_redis::{RedisConnectionManager, redis::cmd};

    let redis = Redis::start().unwrap();
    let proxy = Proxy::start(redis.addr()).unwrap();
    let manager = RedisConnectionManager::new(format!("redis://{}/", proxy.addr())).unwrap();
    let pool = Pool::builder()
        .acquire_timeout(PATIENCE)
        .connect_timeout(STEP)
        .check_timeout(STEP)
        .check(Check::Always)
        .build(manager)
        .unwrap();
    let id: u64 = cmd("CLIENT").arg("ID").query_async(&mut *pool.get().await.unwrap()).await.unwrap();

    proxy.set(Fault::BlackHole { direction: Direction::ToClient, after: 2 }).unwrap();
    let error = pool.get().await.unwrap_err();
    let GetError::Timeout(cause) = &error else { panic!("{error:?}") };
    assert_eq!(cause.cause(), Cause::Unreachable, "{error}");

    proxy.clear().unwrap();
    let again = timeout(SOON, async {
        loop {
            if let Ok(mut connection) = pool.get().await {
                break cmd("CLIENT").arg("ID").query_async::<u64>(&mut *connection).await.unwrap();
            }
        }
    });
    assert!(again.await.unwrap() > id);
}
