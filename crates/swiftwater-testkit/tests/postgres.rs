//! A PostgreSQL server does what its handle says.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use swiftwater_testkit::Postgres;

mod common;

/// Long enough for any answer on the loopback; waited for in full only where none may come.
const PATIENCE: Duration = Duration::from_millis(500);

fn query(postgres: &Postgres, sql: &str) -> String {
    let output =
        Command::new("psql").args([&postgres.url(), "-X", "-A", "-t", "-q", "-c", sql]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
#[ignore = "needs postgresql: run scripts/test"]
fn a_started_server_answers() {
    let postgres = Postgres::start().unwrap();
    assert_eq!(query(&postgres, "select current_user || ' ' || 6 * 7"), "postgres 42");
}

#[test]
#[ignore = "needs postgresql: run scripts/test"]
fn a_killed_server_refuses_and_comes_back_with_its_data_at_its_address() {
    let mut postgres = Postgres::start().unwrap();
    let addr = postgres.addr();
    query(&postgres, "create table kept (n int); insert into kept values (7)");

    postgres.kill().unwrap();
    assert_eq!(postgres.pid(), None);
    TcpStream::connect(addr).unwrap_err();

    postgres.restart().unwrap();
    assert_eq!(postgres.addr(), addr);
    assert_eq!(query(&postgres, "select n from kept"), "7");
}

#[test]
#[ignore = "needs postgresql: run scripts/test"]
fn a_frozen_server_is_silent_in_open_sessions_too() {
    let mut postgres = Postgres::start().unwrap();
    let mut session = Command::new("psql")
        .args([&postgres.url(), "-X", "-A", "-t", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = session.stdin.take().unwrap();
    let answers = BufReader::new(session.stdout.take().unwrap());
    let (heard, hear) = mpsc::channel();
    let listener = thread::spawn(move || answers.lines().try_for_each(|line| heard.send(line.unwrap())));

    ask.write_all(b"select 1;\n").unwrap();
    assert_eq!(hear.recv().unwrap(), "1");
    postgres.freeze().unwrap();
    ask.write_all(b"select 2;\n").unwrap();
    hear.recv_timeout(PATIENCE).unwrap_err();
    postgres.thaw().unwrap();
    assert_eq!(hear.recv().unwrap(), "2");

    drop(ask);
    assert!(session.wait().unwrap().success());
    listener.join().unwrap().unwrap();
}

#[test]
#[ignore = "needs postgresql: run scripts/test"]
fn dropping_leaves_neither_processes_nor_directory_nor_shared_memory() {
    for fate in ["running", "frozen", "killed"] {
        let mut postgres = Postgres::start().unwrap();
        let (pid, dir) = (postgres.pid().unwrap(), postgres.dir().to_owned());
        let segment = segment(&dir.join("data/postmaster.pid"));
        assert!(segments().contains(&segment), "{segment}");
        let children = children(pid);
        assert!(!children.is_empty());
        match fate {
            "frozen" => postgres.freeze().unwrap(),
            "killed" => postgres.kill().unwrap(),
            _ => {}
        }
        drop(postgres);
        assert!(!common::runs(pid), "{fate}");
        assert_eq!(children.into_iter().find(|&child| common::runs(child)), None, "{fate}");
        assert!(!dir.exists(), "{fate}");
        assert!(!segments().contains(&segment), "{fate}");
    }
}

/// The id of the System V segment that locks the data directory.
fn segment(pid_file: &std::path::Path) -> String {
    let text = fs::read_to_string(pid_file).unwrap();
    let line = text.lines().nth(6).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

fn segments() -> Vec<String> {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let ids = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
    ids.map(str::to_owned).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let output = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    output.split_whitespace().map(|id| id.parse().unwrap()).collect()
}
