//! A test process that dies without a destructor leaves nothing behind either: each test here starts itself once more
//! as the process that dies.

#![expect(clippy::print_stdout, reason = "it is how the process that dies tells what it started")]

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    time::Duration,
};

use swiftwater_testkit::{Error, Postgres, Redis, eventually};

mod common;

/// Set in the process that dies.
const ROLE: &str = "SWIFTWATER_TESTKIT_ROLE";
const SOON: Duration = Duration::from_secs(30);

/// This test again, in a process of its own.
fn again(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(ROLE, "dies")
        .stdout(Stdio::piped());
    command
}

fn tell(pid: Option<u32>, dir: &std::path::Path) {
    println!("\nserver {} {}", pid.unwrap(), dir.display());
}

/// What the dying process told.
fn told(child: &mut Child) -> (u32, PathBuf) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let mut servers = lines.filter_map(|line| {
        let line = line.unwrap();
        let (pid, dir) = line.strip_prefix("server ")?.split_once(' ')?;
        Some((pid.parse().unwrap(), PathBuf::from(dir)))
    });
    servers.next().expect("the process started a server")
}

async fn nothing_is_left(pid: u32, dir: PathBuf) {
    eventually(SOON, "the server is gone", async || !common::runs(pid)).await;
    eventually(SOON, "its directory is gone", async || !dir.exists()).await;
}

#[tokio::test]
#[ignore = "needs redis-server: run scripts/test"]
async fn an_aborted_process_takes_its_server_along() {
    if env::var_os(ROLE).is_some() {
        let redis = Redis::start().unwrap();
        tell(redis.pid(), redis.dir());
        process::abort();
    }
    let mut child = again("an_aborted_process_takes_its_server_along").spawn().unwrap();
    let (pid, dir) = told(&mut child);
    assert!(!child.wait().unwrap().success());
    nothing_is_left(pid, dir).await;
}

#[tokio::test]
#[ignore = "needs postgresql: run scripts/test"]
async fn a_killed_process_takes_its_frozen_server_along() {
    if env::var_os(ROLE).is_some() {
        let mut postgres = Postgres::start().unwrap();
        postgres.freeze().unwrap();
        tell(postgres.pid(), postgres.dir());
        std::thread::park(); // until the end
    }
    let mut child = again("a_killed_process_takes_its_frozen_server_along").spawn().unwrap();
    let (pid, dir) = told(&mut child);
    assert!(common::runs(pid) && dir.is_dir());
    child.kill().unwrap();
    child.wait().unwrap();
    nothing_is_left(pid, dir).await;
}

#[test]
fn a_missing_server_is_named_with_the_way_to_get_it() {
    if env::var_os(ROLE).is_some() {
        let error = Redis::start().unwrap_err();
        assert!(matches!(error, Error::Missing { program: "redis-server", .. }), "{error}");
        println!("\n{error}");
        return;
    }
    let output = again("a_missing_server_is_named_with_the_way_to_get_it")
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("redis-server is not installed: apt-get install redis-server, or run scripts/test"),
        "{said}"
    );
}
