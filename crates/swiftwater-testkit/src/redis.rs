//! A Redis server without persistence.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    Error,
    server::{Program, Server, free_port, private_dir},
};

/// How long one question at a starting server may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// A running `redis-server` on a loopback port. Nothing is written to disk: [`kill`](Self::kill) and
/// [`restart`](Self::restart) lose every key. Dropping it ends it.
#[derive(Debug)]
pub struct Redis(Server<RedisServer>);

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when there is no `redis-server`; else what went wrong, with the end of the server's log.
    pub fn start() -> Result<Self, Error> {
        let found = Command::new(RedisServer::NAME).arg("--version").output();
        if found.is_err() {
            return Err(Error::Missing {
                program: RedisServer::NAME,
                how: "apt-get install redis-server, or run scripts/test",
            });
        }
        Server::start(RedisServer, private_dir()?, free_port).map(Self)
    }

    /// Where it listens; the same for as long as this value lives.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// `redis://127.0.0.1:<port>/`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.addr())
    }

    /// Its directory, which goes away with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.0.dir()
    }

    /// Its process; `None` while it is killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.0.pid()
    }

    /// Kills it as a crash does: connections are cut, data is lost. Does nothing when it does not run.
    ///
    /// # Errors
    ///
    /// When the process cannot be signalled.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.0.kill()
    }

    /// Makes it a silent peer: connections stand and new ones are accepted by the kernel, but nobody answers.
    ///
    /// # Errors
    ///
    /// When the process cannot be signalled.
    pub fn freeze(&mut self) -> Result<(), Error> {
        self.0.freeze()
    }

    /// Lets a frozen server go on; it answers what was asked meanwhile.
    ///
    /// # Errors
    ///
    /// When the process cannot be signalled.
    pub fn thaw(&mut self) -> Result<(), Error> {
        self.0.thaw()
    }

    /// Ends it if it runs, and starts an empty one at the same address.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); also when somebody else took the port meanwhile.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.0.restart()
    }
}

#[derive(Debug)]
struct RedisServer;

impl Program for RedisServer {
    const NAME: &'static str = "redis-server";
    const END: Signal = Signal::TERM;

    fn command(&self, dir: &Path, port: u16) -> Command {
        let mut command = Command::new(Self::NAME);
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &port.to_string()])
            .arg("--dir")
            .arg(dir);
        command
    }

    fn answers(&self, _: &Path, addr: SocketAddr, id: u32) -> bool {
        // More than `PING`: the answer says which process it comes from.
        info(addr).is_some_and(|info| info.lines().any(|line| line == format!("process_id:{id}")))
    }
}

fn info(addr: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"INFO server\r\nQUIT\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs redis-server: run scripts/test"]
    fn a_port_that_another_server_has_is_left_to_it() {
        let other = Redis::start().unwrap();
        let mut taken = Some(other.addr().port());
        let next_port = || taken.take().map_or_else(free_port, Ok);
        let redis = Redis(Server::start(RedisServer, private_dir().unwrap(), next_port).unwrap());
        assert_ne!(redis.addr(), other.addr());
        assert!(RedisServer.answers(redis.dir(), redis.addr(), redis.pid().unwrap()));
        assert!(!RedisServer.answers(redis.dir(), other.addr(), redis.pid().unwrap()));
    }
}
