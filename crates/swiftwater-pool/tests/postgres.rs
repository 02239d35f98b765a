//! A real PostgreSQL behind the unchanged manager of `bb8-postgres`.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bb8_postgres::{
    PostgresConnectionManager,
    tokio_postgres::{Client, NoTls},
};
use swiftwater_pool::{
    Cause, Check, GetError,
    bb8::{Builder, Pool, PooledConnection},
};
use swiftwater_testkit::{Postgres, eventually};
use tokio::{runtime::Handle, task::JoinSet, time::timeout};

type Manager = PostgresConnectionManager<NoTls>;

/// For what happens within milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(30);
/// The patience of callers where the backend is away: waited for in full.
const PATIENCE: Duration = Duration::from_secs(1);
/// What one check and one attempt to connect may take then.
const STEP: Duration = Duration::from_millis(200);
/// Tells the pool's sessions from the one that watches them.
const NAME: &str = "pooled";

fn manager(postgres: &Postgres) -> Manager {
    let url = format!("{}?application_name={NAME}", postgres.url());
    PostgresConnectionManager::new_from_stringlike(url, NoTls).unwrap()
}

fn pool(postgres: &Postgres, set: impl FnOnce(Builder<Manager>) -> Builder<Manager>) -> Pool<Manager> {
    set(Pool::builder().acquire_timeout(SOON)).build(manager(postgres)).unwrap()
}

/// A session of our own that sees the server's list of sessions.
async fn watcher(postgres: &Postgres) -> Client {
    let (client, connection) = bb8_postgres::tokio_postgres::connect(&postgres.url(), NoTls).await.unwrap();
    Handle::current().spawn(connection);
    client
}

/// The pool's sessions as the server counts them.
async fn sessions(watcher: &Client) -> i64 {
    let count = "select count(*) from pg_stat_activity where application_name = $1";
    watcher.query_one(count, &[&NAME]).await.unwrap().get(0)
}

/// The server's process for this session.
async fn backend(session: &Client) -> i32 {
    session.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// Four sessions at the same time.
async fn four(pool: &Pool<Manager>) -> Vec<PooledConnection<Manager>> {
    let mut busy = Vec::new();
    for _ in 0..4 {
        busy.push(pool.get().await.unwrap());
    }
    busy
}

async fn backends(busy: &[PooledConnection<Manager>]) -> BTreeSet<i32> {
    let mut backends = BTreeSet::new();
    for session in busy {
        backends.insert(backend(session).await);
    }
    backends
}

/// Ten times `PATIENCE` is ten times the longest pause between two attempts to connect.
async fn served_within_ten_attempts(pool: &Pool<Manager>) {
    for _ in 0..10 {
        if let Ok(session) = pool.get().await {
            backend(&session).await;
            return;
        }
    }
    panic!("not served in ten attempts: {pool:?}");
}

#[tokio::test]
#[ignore = "needs postgresql: run scripts/test"]
async fn a_returned_session_is_used_again() {
    let postgres = Postgres::start().unwrap();
    let pool = pool(&postgres, |b| b);
    let mut backends = BTreeSet::new();
    for n in 0..10_i32 {
        let session = pool.get().await.unwrap();
        let row = session.query_one("select $1::int * 6", &[&n]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), n * 6);
        backends.insert(backend(&session).await);
    }
    assert_eq!(backends.len(), 1);
}

#[tokio::test]
#[ignore = "needs postgresql: run scripts/test"]
async fn a_killed_server_is_named_as_the_cause_and_served_again_when_it_is_back() {
    let mut postgres = Postgres::start().unwrap();
    let pool = pool(&postgres, |b| b.check(Check::Always).acquire_timeout(PATIENCE));
    drop(pool.get().await.unwrap());

    postgres.kill().unwrap();
    let error = pool.get().await.unwrap_err();
    let GetError::Timeout(timeout) = &error else { panic!("{error:?}") };
    assert_eq!(timeout.cause(), Cause::Unreachable, "{error}");
    assert!(timeout.last_failure().unwrap().text().contains("ConnectionRefused"), "{error}");

    postgres.restart().unwrap();
    served_within_ten_attempts(&pool).await;
}

#[tokio::test]
#[ignore = "needs postgresql: run scripts/test"]
async fn a_frozen_server_costs_a_caller_the_pools_time_out_which_says_so() {
    let mut postgres = Postgres::start().unwrap();
    let pool = pool(&postgres, |b| {
        b.check(Check::Always).acquire_timeout(PATIENCE).check_timeout(STEP).connect_timeout(STEP)
    });
    drop(pool.get().await.unwrap());

    postgres.freeze().unwrap();
    let error = pool.get().await.unwrap_err();
    let GetError::Timeout(timeout) = &error else { panic!("{error:?}") };
    assert!(timeout.waited() >= PATIENCE, "{error}");
    assert_eq!(timeout.cause(), Cause::Unreachable, "{error}");
    assert!(timeout.last_failure().unwrap().text().contains("longer than 200ms"), "{error}");

    postgres.thaw().unwrap();
    served_within_ten_attempts(&pool).await;
}

#[tokio::test]
#[ignore = "needs postgresql: run scripts/test"]
async fn sessions_that_the_server_ended_while_idle_are_not_handed_out() {
    let postgres = Postgres::start().unwrap();
    let watcher = watcher(&postgres).await;
    let pool = pool(&postgres, |b| b.max_size(4).check(Check::Always));
    let busy = four(&pool).await;
    let before = backends(&busy).await;
    drop(busy);

    let end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1";
    assert_eq!(watcher.query(end, &[&NAME]).await.unwrap().len(), 4);
    eventually(SOON, "the server has ended the sessions", async || sessions(&watcher).await == 0).await;

    let after = backends(&four(&pool).await).await;
    assert_eq!(after.len(), 4);
    assert!(after.is_disjoint(&before));
}

#[tokio::test]
#[ignore = "needs postgresql: run scripts/test"]
async fn a_session_that_broke_in_use_is_not_lent_again() {
    let postgres = Postgres::start().unwrap();
    let watcher = watcher(&postgres).await;
    // Never checked: only the manager's free question can tell.
    let pool = pool(&postgres, |b| b.max_size(1).check(Check::Never));
    let session = pool.get().await.unwrap();
    let before = backend(&session).await;
    watcher.execute("select pg_terminate_backend($1)", &[&before]).await.unwrap();
    eventually(SOON, "the driver has noticed", async || session.is_closed()).await;
    drop(session);

    let session = pool.get().await.unwrap();
    assert_ne!(backend(&session).await, before);
}

#[tokio::test]
#[ignore = "needs postgresql: run scripts/test"]
async fn a_query_cancelled_in_with_is_not_the_next_callers() {
    let postgres = Postgres::start().unwrap();
    let watcher = watcher(&postgres).await;
    let pool = pool(&postgres, |b| b.max_size(1));
    let before = pool.with(async |session| backend(session).await).await.unwrap();

    let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    tokio::select! {
        // Long enough to outlast this test, which nothing waits for.
        result = pool.with(async |session| session.execute("select pg_sleep(600)", &[]).await) => {
            panic!("not cancelled: {:?}", result.map(|_| ()));
        }
        _ = eventually(SOON, "the server sleeps", async || {
            watcher.query_one(asleep, &[]).await.unwrap().get::<_, i64>(0) == 1
        }) => {}
    }

    let next = timeout(SOON, pool.with(async |session| backend(session).await)).await;
    assert_ne!(next.expect("it waits for nobody's sleep").unwrap(), before);
}

#[tokio::test]
#[ignore = "needs postgresql: run scripts/test"]
async fn after_close_the_server_has_no_session_of_the_pool() {
    let postgres = Postgres::start().unwrap();
    let watcher = watcher(&postgres).await;
    let pool = pool(&postgres, |b| b.max_size(4));
    let mut busy = four(&pool).await;
    let late = busy.pop().unwrap();
    drop(busy);
    assert_eq!(sessions(&watcher).await, 4);

    let closing = pool.close();
    assert!(matches!(pool.get().await, Err(GetError::Closed)));
    backend(&late).await; // what is in use may be used to its end
    drop(late);
    timeout(SOON, closing).await.expect("nothing is left to be closed");
    eventually(SOON, "the list is empty", async || sessions(&watcher).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgresql: run scripts/test"]
async fn the_server_never_counts_more_sessions_than_max_size() {
    let postgres = Postgres::start().unwrap();
    let watcher = watcher(&postgres).await;
    let pool = pool(&postgres, |b| b.max_size(3));

    let mut callers = JoinSet::new();
    for _ in 0..32 {
        let pool = pool.clone();
        callers.spawn(async move {
            let mut backends = BTreeSet::new();
            for _ in 0..20 {
                backends.insert(backend(&pool.get().await.unwrap()).await);
            }
            backends
        });
    }
    let done = AtomicBool::new(false);
    let calls = async {
        let mut backends = BTreeSet::new();
        while let Some(caller) = callers.join_next().await {
            backends.append(&mut caller.unwrap());
        }
        done.store(true, Ordering::Relaxed); // Relaxed: both halves of the join run in one task
        backends
    };
    let count = async {
        let mut most = 0;
        while !done.load(Ordering::Relaxed) {
            most = most.max(sessions(&watcher).await);
        }
        most
    };
    let (backends, most) = tokio::join!(calls, count);
    assert_eq!(most, 3);
    assert_eq!(backends.len(), 3, "opened once and kept");
}
