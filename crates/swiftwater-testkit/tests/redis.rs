//! A Redis server does what its handle says.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    panic,
    time::Duration,
};

use swiftwater_testkit::Redis;

mod common;

/// Long enough for any answer on the loopback; waited for in full only where none may come.
const PATIENCE: Duration = Duration::from_millis(500);

fn ask(connection: &mut TcpStream, question: &str) -> std::io::Result<String> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(format!("{question}\r\n").as_bytes())?;
    let mut reply = [0; 64];
    let length = connection.read(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
}

#[test]
#[ignore = "needs redis-server: run scripts/test"]
fn a_started_server_answers() {
    let redis = Redis::start().unwrap();
    let mut connection = TcpStream::connect(redis.addr()).unwrap();
    assert_eq!(ask(&mut connection, "PING").unwrap(), "+PONG\r\n");
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}/", redis.addr().port()));
}

#[test]
#[ignore = "needs redis-server: run scripts/test"]
fn two_servers_are_two() {
    let (one, other) = (Redis::start().unwrap(), Redis::start().unwrap());
    assert_ne!(one.addr(), other.addr());
    assert_ne!(one.dir(), other.dir());
}

#[test]
#[ignore = "needs redis-server: run scripts/test"]
fn a_killed_server_cuts_its_connections_and_comes_back_empty_at_its_address() {
    let mut redis = Redis::start().unwrap();
    let addr = redis.addr();
    let mut connection = TcpStream::connect(addr).unwrap();
    assert_eq!(ask(&mut connection, "SET key value").unwrap(), "+OK\r\n");

    redis.kill().unwrap();
    assert_eq!(redis.pid(), None);
    assert!(!matches!(ask(&mut connection, "PING"), Ok(reply) if !reply.is_empty()));
    TcpStream::connect(addr).unwrap_err();
    redis.kill().unwrap(); // nothing left to kill: no error

    redis.restart().unwrap();
    assert_eq!(redis.addr(), addr);
    let mut connection = TcpStream::connect(addr).unwrap();
    assert_eq!(ask(&mut connection, "GET key").unwrap(), "$-1\r\n");
}

#[test]
#[ignore = "needs redis-server: run scripts/test"]
fn a_running_server_is_replaced_by_restart() {
    let mut redis = Redis::start().unwrap();
    let before = redis.pid().unwrap();
    redis.restart().unwrap();
    assert_ne!(redis.pid().unwrap(), before);
    assert!(!common::runs(before));
}

#[test]
#[ignore = "needs redis-server: run scripts/test"]
fn a_frozen_server_is_silent_until_it_is_thawed() {
    let mut redis = Redis::start().unwrap();
    let mut connection = TcpStream::connect(redis.addr()).unwrap();
    redis.freeze().unwrap();
    ask(&mut connection, "PING").unwrap_err();
    let mut newcomer = TcpStream::connect(redis.addr()).unwrap();
    ask(&mut newcomer, "PING").unwrap_err();

    redis.thaw().unwrap();
    let mut reply = [0; 7];
    connection.set_read_timeout(None).unwrap();
    connection.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
#[ignore = "needs redis-server: run scripts/test"]
fn dropping_leaves_neither_process_nor_directory() {
    for frozen in [false, true] {
        let mut redis = Redis::start().unwrap();
        let (pid, dir) = (redis.pid().unwrap(), redis.dir().to_owned());
        assert!(common::runs(pid) && dir.is_dir());
        if frozen {
            redis.freeze().unwrap();
        }
        drop(redis);
        assert!(!common::runs(pid), "frozen: {frozen}");
        assert!(!dir.exists(), "frozen: {frozen}");
    }
}

#[test]
#[ignore = "needs redis-server: run scripts/test"]
fn a_panicking_test_leaves_neither_process_nor_directory() {
    let mut seen = None;
    panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let redis = Redis::start().unwrap();
        seen = Some((redis.pid().unwrap(), redis.dir().to_owned()));
        panic!("on purpose");
    }))
    .unwrap_err();
    let (pid, dir) = seen.unwrap();
    assert!(!common::runs(pid));
    assert!(!dir.exists());
}
