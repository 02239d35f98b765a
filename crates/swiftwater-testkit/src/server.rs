//! A server process with its directory and port: what Redis and PostgreSQL have in common.

use std::{
    collections::hash_map::RandomState,
    fs::{self, File},
    hash::{BuildHasher as _, Hasher as _},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Error, watchdog::Watchdog};

/// How long a server may take until it answers; a cold disk under two busy cores has needed seconds.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long a server may take to end by itself before it is killed.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How long a signalled process may take to stand still or to be gone.
const OBEY_WITHIN: Duration = Duration::from_secs(10);
/// The rest between two looks at a process.
const REST: Duration = Duration::from_millis(5);
/// How many ports are tried when somebody else is faster.
const PORTS_TRIED: usize = 8;
/// Below the range from which Linux takes the ports of outgoing connections: a client that keeps knocking at a killed
/// server's port can be given that very port as its own, and the server could not come back.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// What differs between the servers.
pub(crate) trait Program {
    /// The program, for messages.
    const NAME: &'static str;
    /// The signal that ends it at once and cleanly, clients or not.
    const END: Signal;
    /// Lines of shell that free what outlives a killed process; its directory is `$1`.
    const SWEEP: &'static str = "";

    /// The command that serves `port` of the loopback interface out of `dir`, in the foreground.
    fn command(&self, dir: &Path, port: u16) -> Command;

    /// Whether the process `id` itself (not another server on its port) answers at `addr`.
    fn answers(&self, dir: &Path, addr: SocketAddr, id: u32) -> bool;
}

#[derive(Debug)]
pub(crate) struct Server<P: Program> {
    program: P,
    // Before `dir`: it removes the directory, and `dir` finds nothing to do.
    watchdog: Watchdog,
    dir: TempDir,
    port: u16,
    /// `None` after `kill`.
    child: Option<Child>,
    frozen: bool,
}

impl<P: Program> Server<P> {
    /// `dir` is the server's own. Ports are taken from `next_port` ([`free_port`]; a test has its own) until one is
    /// really free: between choosing and binding somebody may be faster.
    pub(crate) fn start(
        program: P,
        dir: TempDir,
        mut next_port: impl FnMut() -> Result<u16, Error>,
    ) -> Result<Self, Error> {
        let watchdog = Watchdog::over(dir.path(), P::SWEEP)?;
        let mut server = Self { program, watchdog, dir, port: 0, child: None, frozen: false };
        for tried in 1.. {
            server.port = next_port()?;
            match server.launch() {
                Err(Error::Exited { output, .. }) if tried < PORTS_TRIED && port_was_taken(&output) => {}
                result => return result.map(|()| server),
            }
        }
        unreachable!("the last port tried returns its result")
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Stops the process, and then the children that it had; returns when all of them stand still.
    pub(crate) fn freeze(&mut self) -> Result<(), Error> {
        let Some(id) = self.pid() else { return Ok(()) };
        self.frozen = true;
        // The parent first: once it stands still it has no new children.
        stop(id)?;
        children(id)?.into_iter().try_for_each(stop)
    }

    pub(crate) fn thaw(&mut self) -> Result<(), Error> {
        let Some(id) = self.pid() else { return Ok(()) };
        for child in children(id)? {
            signal(child, Signal::CONT)?;
        }
        signal(id, Signal::CONT)?;
        self.frozen = false;
        Ok(())
    }

    /// Kills the process and its children, as the death of a machine does.
    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        let Some(id) = self.pid() else { return Ok(()) };
        stop(id)?;
        let children = children(id)?;
        for &child in &children {
            signal(child, Signal::KILL)?;
        }
        signal(id, Signal::KILL)?;
        self.reap()?;
        // Whoever adopted the children buries them; for what they held it is enough that they are dead.
        wait_until("see the children end", || children.iter().all(|&child| is_dead(child)))
    }

    pub(crate) fn restart(&mut self) -> Result<(), Error> {
        self.end()?;
        self.launch()
    }

    /// Ends the process in an orderly way if it runs, by force if it will not.
    fn end(&mut self) -> Result<(), Error> {
        let Some(id) = self.pid() else { return Ok(()) };
        // A stopped process would not see the signal until it is killed after all.
        if self.frozen {
            self.thaw()?;
        }
        signal(id, P::END)?;
        let asked = Instant::now();
        while asked.elapsed() < END_WITHIN {
            if self.has_ended()? {
                return self.reap();
            }
            thread::sleep(REST);
        }
        self.kill()
    }

    fn launch(&mut self) -> Result<(), Error> {
        let log = self.log();
        let output = File::create(&log).map_err(Error::io("create the server's log"))?;
        let errors = output.try_clone().map_err(Error::io("share the server's log"))?;
        let mut child = self
            .program
            .command(self.dir.path(), self.port)
            // The port race is recognised by the words that strerror has in English.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Its own group: an interrupt from the terminal is for the test process, which then ends the server.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start the server"))?;
        if let Err(error) = self.watchdog.guard(Some(child.id())) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        let id = self.child.insert(child).id();
        let started = Instant::now();
        while !self.program.answers(self.dir.path(), self.addr(), id) {
            if self.has_ended()? {
                self.reap()?;
                return Err(Error::Exited { program: P::NAME, output: tail(&log) });
            }
            if started.elapsed() > START_WITHIN {
                self.kill()?;
                return Err(Error::Silent { program: P::NAME, waited: START_WITHIN, output: tail(&log) });
            }
            thread::sleep(REST);
        }
        Ok(())
    }

    /// Whether the process has ended; it is not reaped yet, so that its id stays its own.
    fn has_ended(&self) -> Result<bool, Error> {
        let Some(id) = self.pid() else { return Ok(true) };
        Ok(is_dead(id))
    }

    /// Collects the ended process. The watchdog is told first: a reaped id may become somebody else's.
    fn reap(&mut self) -> Result<(), Error> {
        self.frozen = false;
        if let Some(mut child) = self.child.take() {
            self.watchdog.guard(None)?;
            child.wait().map_err(Error::io("wait for the server"))?;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl<P: Program> Drop for Server<P> {
    fn drop(&mut self) {
        // A destructor has nobody to tell; what fails here is left to the watchdog, which is dropped next and kills.
        let _ = self.end();
    }
}

/// A new private directory for a server.
pub(crate) fn private_dir() -> Result<TempDir, Error> {
    tempfile::Builder::new()
        .prefix("swiftwater-")
        .tempdir()
        .map_err(Error::io("create a temporary directory"))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16, Error> {
    let mut refused = None;
    for _ in 0..100 {
        // Every `RandomState` has keys of its own: the processes of a test run do not try the same ports.
        let random = RandomState::new().build_hasher().finish();
        let port =
            PORTS.start + u16::try_from(random % PORTS.len() as u64).expect("smaller than a range of u16");
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => refused = Some(error),
        }
    }
    Err(Error::Io { what: "find a free port", source: refused.expect("a hundred ports were refused") })
}

fn port_was_taken(output: &str) -> bool {
    output.contains("Address already in use")
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log)
        .map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Sends a signal; a process that is gone already has had its last one.
fn signal(id: u32, signal: Signal) -> Result<(), Error> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id");
    match kill_process(pid, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => result.map_err(io::Error::from).map_err(Error::io("signal the server")),
    }
}

/// Stops a process and waits until it stands still, or is dead.
fn stop(id: u32) -> Result<(), Error> {
    signal(id, Signal::STOP)?;
    wait_until("see the process stand still", || {
        matches!(state_and_parent(id), Some(('T', _))) || is_dead(id)
    })
}

fn is_dead(id: u32) -> bool {
    matches!(state_and_parent(id), None | Some(('Z' | 'X', _)))
}

fn children(parent: u32) -> Result<Vec<u32>, Error> {
    let processes = fs::read_dir("/proc").map_err(Error::io("read /proc"))?;
    Ok(processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&id| state_and_parent(id).is_some_and(|(_, its)| its == parent))
        .collect())
}

/// From `/proc/<id>/stat`: `id (name) state parent ...`, where the name may hold anything, parentheses included.
fn state_and_parent(id: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn wait_until(what: &'static str, mut condition: impl FnMut() -> bool) -> Result<(), Error> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > OBEY_WITHIN {
            return Err(Error::io(what)(io::ErrorKind::TimedOut.into()));
        }
        thread::sleep(REST);
    }
    Ok(())
}
