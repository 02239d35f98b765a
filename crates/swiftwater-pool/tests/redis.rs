//! A real Redis behind the unchanged manager of `bb8-redis`, and behind a connector without a driver's safety net.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bb8_redis::{
    RedisConnectionManager,
    redis::{AsyncCommands as _, Client, aio::MultiplexedConnection, cmd},
};
use swiftwater_pool::{
    Cause, Check, Connect, GetError,
    bb8::{Builder, Pool, PooledConnection},
};
use swiftwater_testkit::{Redis, eventually};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

type Manager = RedisConnectionManager;

/// For what happens within milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(30);
/// The patience of callers where the backend is away: waited for in full.
const PATIENCE: Duration = Duration::from_secs(1);
/// What one check and one attempt to connect may take then.
const STEP: Duration = Duration::from_millis(200);

fn pool(redis: &Redis, set: impl FnOnce(Builder<Manager>) -> Builder<Manager>) -> Pool<Manager> {
    let manager = RedisConnectionManager::new(redis.url()).unwrap();
    set(Pool::builder().acquire_timeout(SOON)).build(manager).unwrap()
}

/// A connection of our own that sees the server's list of connections.
async fn watcher(redis: &Redis) -> MultiplexedConnection {
    let client = Client::open(redis.url()).unwrap();
    let mut watcher = client.get_multiplexed_async_connection().await.unwrap();
    watcher.set_response_timeout(SOON);
    watcher
}

/// The pool's connections as the server counts them.
async fn connections(watcher: &mut MultiplexedConnection) -> usize {
    let list: String = cmd("CLIENT").arg("LIST").query_async(watcher).await.unwrap();
    list.lines().count() - 1 // the watcher
}

/// A number out of the server's own statistics.
async fn info(watcher: &mut MultiplexedConnection, name: &str) -> u64 {
    let all: String = cmd("INFO").query_async(watcher).await.unwrap();
    let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().parse().unwrap()
}

/// The server's number for this connection.
async fn id(connection: &mut MultiplexedConnection) -> u64 {
    cmd("CLIENT").arg("ID").query_async(connection).await.unwrap()
}

/// Four connections at the same time.
async fn four(pool: &Pool<Manager>) -> Vec<PooledConnection<Manager>> {
    let mut busy = Vec::new();
    for _ in 0..4 {
        busy.push(pool.get().await.unwrap());
    }
    busy
}

async fn ids(busy: &mut [PooledConnection<Manager>]) -> BTreeSet<u64> {
    let mut ids = BTreeSet::new();
    for connection in busy {
        ids.insert(id(connection).await);
    }
    ids
}

/// Ten times `PATIENCE` is ten times the longest pause between two attempts to connect.
async fn served_within_ten_attempts(pool: &Pool<Manager>) {
    for _ in 0..10 {
        if let Ok(mut connection) = pool.get().await {
            id(&mut connection).await;
            return;
        }
    }
    panic!("not served in ten attempts: {pool:?}");
}

#[tokio::test]
#[ignore = "needs redis-server: run scripts/test"]
async fn a_returned_connection_is_used_again() {
    let redis = Redis::start().unwrap();
    let pool = pool(&redis, |b| b);
    let mut ids = BTreeSet::new();
    for n in 0..10 {
        let mut connection = pool.get().await.unwrap();
        let () = connection.set("key", n).await.unwrap();
        assert_eq!(connection.get::<_, i32>("key").await.unwrap(), n);
        ids.insert(id(&mut connection).await);
    }
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
#[ignore = "needs redis-server: run scripts/test"]
async fn a_killed_server_is_named_as_the_cause_and_served_again_when_it_is_back() {
    let mut redis = Redis::start().unwrap();
    let pool = pool(&redis, |b| b.check(Check::Always).acquire_timeout(PATIENCE));
    drop(pool.get().await.unwrap());

    redis.kill().unwrap();
    let error = pool.get().await.unwrap_err();
    let GetError::Timeout(timeout) = &error else { panic!("{error:?}") };
    assert_eq!(timeout.cause(), Cause::Unreachable, "{error}");
    assert!(timeout.last_failure().unwrap().text().contains("Connection refused"), "{error}");

    redis.restart().unwrap();
    served_within_ten_attempts(&pool).await;
}

#[tokio::test]
#[ignore = "needs redis-server: run scripts/test"]
async fn a_frozen_server_costs_a_caller_the_pools_time_out_which_says_so() {
    let mut redis = Redis::start().unwrap();
    let pool = pool(&redis, |b| {
        b.check(Check::Always).acquire_timeout(PATIENCE).check_timeout(STEP).connect_timeout(STEP)
    });
    drop(pool.get().await.unwrap());

    redis.freeze().unwrap();
    let error = pool.get().await.unwrap_err();
    let GetError::Timeout(timeout) = &error else { panic!("{error:?}") };
    assert!(timeout.waited() >= PATIENCE, "{error}");
    assert_eq!(timeout.cause(), Cause::Unreachable, "{error}");
    assert!(timeout.last_failure().unwrap().text().contains("longer than 200ms"), "{error}");

    redis.thaw().unwrap();
    served_within_ten_attempts(&pool).await;
}

#[tokio::test]
#[ignore = "needs redis-server: run scripts/test"]
async fn connections_that_the_server_ended_while_idle_are_not_handed_out() {
    let redis = Redis::start().unwrap();
    let mut watcher = watcher(&redis).await;
    let pool = pool(&redis, |b| b.max_size(4).check(Check::Always));
    let mut busy = four(&pool).await;
    let before = ids(&mut busy).await;
    drop(busy);

    // The manager's free question always says that all is well: only the check can tell.
    let mut end = cmd("CLIENT");
    let ended: u64 = end.arg("KILL").arg("TYPE").arg("normal").query_async(&mut watcher).await.unwrap();
    assert_eq!(ended, 4);

    let after = ids(&mut four(&pool).await).await;
    assert_eq!(after.len(), 4);
    assert!(after.is_disjoint(&before));
}

#[tokio::test]
#[ignore = "needs redis-server: run scripts/test"]
async fn a_command_cancelled_in_with_does_not_block_the_next_caller() {
    let redis = Redis::start().unwrap();
    let mut watcher = watcher(&redis).await;
    let pool = pool(&redis, |b| b.max_size(1));

    tokio::select! {
        popped = pool.with(async |connection| {
            connection.set_response_timeout(SOON);
            connection.blpop::<_, Vec<String>>("queue", 0.0).await
        }) => panic!("not cancelled: {popped:?}"),
        _ = eventually(SOON, "the server waits for the queue", async || {
            info(&mut watcher, "blocked_clients").await == 1
        }) => {}
    }
    eventually(SOON, "nobody waits for the queue any more", async || {
        info(&mut watcher, "blocked_clients").await == 0
    })
    .await;

    let length = pool.with(async |connection| connection.lpush::<_, _, u64>("queue", "mine").await);
    assert_eq!(length.await.unwrap().unwrap(), 1, "nobody took it away");
}

/// A connection that is just a stream of bytes: whoever leaves an answer in it passes it on.
struct Plain(SocketAddr);

impl Connect for Plain {
    type Connection = BufReader<TcpStream>;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        TcpStream::connect(self.0).await.map(BufReader::new)
    }

    async fn check(&self, connection: &mut BufReader<TcpStream>) -> io::Result<()> {
        match ask(connection, "PING").await?.as_str() {
            "+PONG\r\n" => Ok(()),
            other => Err(io::Error::other(other.to_owned())),
        }
    }

    fn is_broken(&self, _: &mut BufReader<TcpStream>) -> bool {
        false
    }
}

async fn ask(connection: &mut BufReader<TcpStream>, question: &str) -> io::Result<String> {
    connection.write_all(format!("{question}\r\n").as_bytes()).await?;
    let mut reply = String::new();
    connection.read_line(&mut reply).await?;
    Ok(reply)
}

#[tokio::test]
#[ignore = "needs redis-server: run scripts/test"]
async fn an_answer_to_a_cancelled_with_is_not_the_next_callers() {
    let mut redis = Redis::start().unwrap();
    let pool = swiftwater_pool::Pool::builder()
        .max_size(1)
        .acquire_timeout(SOON)
        .build(Plain(redis.addr()))
        .unwrap();
    assert_eq!(pool.with(async |c| ask(c, "INCR n").await).await.unwrap().unwrap(), ":1\r\n");

    redis.freeze().unwrap(); // so that the answer comes after the caller has gone
    let asked = Notify::new();
    tokio::select! {
        answer = pool.with(async |connection| {
            connection.write_all(b"INCR n\r\n").await?;
            asked.notify_one();
            let mut reply = String::new();
            connection.read_line(&mut reply).await
        }) => panic!("not cancelled: {answer:?}"),
        () = asked.notified() => {}
    }
    redis.thaw().unwrap();

    let answer = pool.with(async |c| ask(c, "PING").await).await.unwrap().unwrap();
    assert_eq!(answer, "+PONG\r\n");
}

#[tokio::test]
#[ignore = "needs redis-server: run scripts/test"]
async fn after_close_the_server_has_no_connection_of_the_pool() {
    let redis = Redis::start().unwrap();
    let mut watcher = watcher(&redis).await;
    let pool = pool(&redis, |b| b.max_size(4));
    let mut busy = four(&pool).await;
    let mut late = busy.pop().unwrap();
    drop(busy);
    assert_eq!(connections(&mut watcher).await, 4);

    let closing = pool.close();
    assert!(matches!(pool.get().await, Err(GetError::Closed)));
    id(&mut late).await; // what is in use may be used to its end
    drop(late);
    timeout(SOON, closing).await.expect("nothing is left to be closed");
    eventually(SOON, "the list is empty", async || connections(&mut watcher).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server: run scripts/test"]
async fn the_server_never_counts_more_connections_than_max_size() {
    let redis = Redis::start().unwrap();
    let mut watcher = watcher(&redis).await;
    let before = info(&mut watcher, "total_connections_received").await;
    let pool = pool(&redis, |b| b.max_size(3));

    let mut callers = JoinSet::new();
    for _ in 0..32 {
        let pool = pool.clone();
        callers.spawn(async move {
            for _ in 0..100 {
                let mut connection = pool.get().await.unwrap();
                let _: u64 = connection.incr("calls", 1).await.unwrap();
            }
        });
    }
    let done = AtomicBool::new(false);
    let calls = async {
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        done.store(true, Ordering::Relaxed); // Relaxed: both halves of the join run in one task
    };
    let count = async {
        let mut most = 0;
        while !done.load(Ordering::Relaxed) {
            most = most.max(connections(&mut watcher).await);
        }
        most
    };
    let ((), most) = tokio::join!(calls, count);
    assert_eq!(most, 3);
    assert_eq!(info(&mut watcher, "total_connections_received").await - before, 3, "opened once and kept");
    assert_eq!(watcher.get::<_, u64>("calls").await.unwrap(), 3200);
}
