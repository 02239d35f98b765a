//! A PostgreSQL server with a cluster of its own.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Signal, geteuid};

use crate::{
    Error,
    server::{Program, Server, free_port, private_dir},
};

/// How long one question at a starting server may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// A running `postgres` on a loopback port, with the superuser `postgres` (no password) and the database `postgres`.
/// What was committed outlives [`kill`](Self::kill) and [`restart`](Self::restart). Dropping it ends it.
///
/// The cluster is made for speed: nothing is synced to disk. Starting one takes about a second, most of it `initdb`.
#[derive(Debug)]
pub struct Postgres(Server<PostgresServer>);

impl Postgres {
    /// Creates a cluster, starts a server and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when PostgreSQL is not installed; else what went wrong, with the end of the log.
    pub fn start() -> Result<Self, Error> {
        Self::start_on(free_port)
    }

    fn start_on(next_port: impl FnMut() -> Result<u16, Error>) -> Result<Self, Error> {
        let server = PostgresServer {
            programs: programs().ok_or(Error::Missing {
                program: PostgresServer::NAME,
                how: "apt-get install postgresql, or run scripts/test",
            })?,
            user: server_user()?,
        };
        let dir = private_dir()?;
        if let Some((user, group)) = server.user {
            chown(dir.path(), Some(user), Some(group))
                .map_err(Error::io("hand over the server's directory"))?;
        }
        server.init(dir.path())?;
        Server::start(server, dir, next_port).map(Self)
    }

    /// Where it listens; the same for as long as this value lives.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// `postgresql://postgres@127.0.0.1:<port>/postgres`
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgresql://postgres@{}/postgres", self.addr())
    }

    /// Its directory, which goes away with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.0.dir()
    }

    /// The process that accepts connections; `None` while it is killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.0.pid()
    }

    /// Kills it with all of its processes, as the death of a machine does: connections are cut. Does nothing when it
    /// does not run.
    ///
    /// # Errors
    ///
    /// When a process cannot be signalled.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.0.kill()
    }

    /// Makes it a silent peer: connections stand and new ones are accepted by the kernel, but nobody answers.
    ///
    /// # Errors
    ///
    /// When a process cannot be signalled.
    pub fn freeze(&mut self) -> Result<(), Error> {
        self.0.freeze()
    }

    /// Lets a frozen server go on; it answers what was asked meanwhile.
    ///
    /// # Errors
    ///
    /// When a process cannot be signalled.
    pub fn thaw(&mut self) -> Result<(), Error> {
        self.0.thaw()
    }

    /// Ends it if it runs (clients are disconnected), and starts it again with the same data and address.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); also when somebody else took the port meanwhile.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.0.restart()
    }
}

#[derive(Debug)]
struct PostgresServer {
    /// Where `initdb` and `postgres` are.
    programs: PathBuf,
    /// User and group to become; `None` to stay who we are.
    user: Option<(u32, u32)>,
}

impl PostgresServer {
    fn init(&self, dir: &Path) -> Result<(), Error> {
        let output = self
            .program("initdb", dir)
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--no-locale", "--encoding=UTF8"])
            .arg("--pgdata")
            .arg(data(dir))
            .stdin(Stdio::null())
            .output()
            .map_err(Error::io("run initdb"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Exited { program: "initdb", output: String::from_utf8_lossy(&output.stderr).into_owned() })
    }

    fn program(&self, name: &str, dir: &Path) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // The test's own directory may be closed to another user.
        command.current_dir(dir);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Program for PostgresServer {
    const NAME: &'static str = "postgres";
    // "Fast": clients are disconnected. The usual SIGTERM is "smart" here and waits for them to leave.
    const END: Signal = Signal::INT;
    // A killed server leaves a small System V segment behind, which locks its data. Key and id are the seventh line of
    // the file that a clean end removes.
    const SWEEP: &'static str = r#"
        file=$1/data/postmaster.pid
        if [ -e "$file" ]; then ipcrm -m "$(sed -n '7s/.* //p' "$file")"; fi
    "#;

    fn command(&self, dir: &Path, port: u16) -> Command {
        let mut command = self.program(Self::NAME, dir);
        command.arg("-D").arg(data(dir)).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            // Nothing has to survive the machine, only the process: a start and an end are quick without syncs.
            "fsync=off",
            "full_page_writes=off",
            // Shared memory that goes away with the directory.
            "dynamic_shared_memory_type=mmap",
        ] {
            command.args(["-c", setting]);
        }
        command
    }

    fn answers(&self, dir: &Path, addr: SocketAddr, id: u32) -> bool {
        is_ready(dir, id) && greets(addr)
    }
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Whether the process `id` itself has opened its port and ended its recovery. A running server tells a fact a line:
/// process id, directory, start, port, socket directory, address, shared memory, state.
fn is_ready(dir: &Path, id: u32) -> bool {
    fs::read_to_string(data(dir).join("postmaster.pid")).is_ok_and(|text| {
        let mut lines = text.lines().map(str::trim);
        lines.next() == Some(&id.to_string()) && lines.nth(6) == Some("ready")
    })
}

/// Whether it answers on the wire. "May we speak TLS?" is the one question that needs no user: one byte comes back.
fn greets(addr: SocketAddr) -> bool {
    const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let greet = || {
        let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&TLS_REQUEST)?;
        stream.read_exact(&mut [0])
    };
    greet().is_ok()
}

/// The newest of Debian's `/usr/lib/postgresql/<version>/bin`, else where `PATH` has both programs.
fn programs() -> Option<PathBuf> {
    let complete = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .filter_map(|version| {
            let number: u32 = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        })
        .filter(|(_, dir)| complete(dir))
        .max()
        .map(|(_, dir)| dir)
        .or_else(|| std::env::split_paths(&std::env::var_os("PATH")?).find(complete))
}

/// PostgreSQL refuses to run as root, so root becomes somebody harmless.
fn server_user() -> Result<Option<(u32, u32)>, Error> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name))
                .then(|| fields.nth(1)?.parse().ok().zip(fields.next()?.parse().ok()))?
        })
    };
    find("postgres").or_else(|| find("nobody")).map(Some).ok_or(Error::Missing {
        program: "an unprivileged user",
        how: "PostgreSQL refuses to run as root, and there is neither `postgres` nor `nobody`",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs postgresql: run scripts/test"]
    fn a_port_that_another_server_has_is_left_to_it() {
        let other = Postgres::start().unwrap();
        let mut taken = Some(other.addr().port());
        let postgres = Postgres::start_on(|| taken.take().map_or_else(free_port, Ok)).unwrap();
        assert_ne!(postgres.addr(), other.addr());
        assert!(!is_ready(postgres.dir(), other.pid().unwrap()));
    }
}
