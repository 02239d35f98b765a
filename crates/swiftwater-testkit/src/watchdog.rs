//! Cleans up after a server: when it is dropped, and when the test process could not drop it.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::Error;

/// Reads process ids, one a line, `none` for "nothing runs". When its standard input ends it kills the last of them with
/// its children, runs the lines of shell in `$2` and removes the directory `$1`.
const SCRIPT: &str = r#"
server=none
while read -r line; do server=$line; done
if [ "$server" != none ]; then
    # Once it stands still it has no new children.
    kill -STOP "$server"
    for stat in /proc/[0-9]*/stat; do
        read -r line <"$stat" || continue
        case ${line##*) } in
        ?" $server "*) child=${stat#/proc/}; kill -KILL "${child%/stat}" ;;
        esac
    done
    kill -KILL "$server"
fi
eval "$2"
rm -rf -- "$1"
"#;

#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// `sweep` is what has to be done before `dir`, there as `$1`, can go.
    pub(crate) fn over(dir: &Path, sweep: &str) -> Result<Self, Error> {
        Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("swiftwater-watchdog")
            .arg(dir)
            .arg(sweep)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Its own group: an interrupt from the terminal ends the test process, and then it is needed.
            .process_group(0)
            .spawn()
            .map(Self)
            .map_err(Error::io("start the watchdog"))
    }

    /// From now on it is `server` that must not be left behind.
    pub(crate) fn guard(&mut self, server: Option<u32>) -> Result<(), Error> {
        let line = server.map_or_else(|| "none\n".to_owned(), |id| format!("{id}\n"));
        let pipe = self.0.stdin.as_mut().expect("piped at the start, closed only in drop");
        pipe.write_all(line.as_bytes()).map_err(Error::io("tell the watchdog what to guard"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends within milliseconds once its input has. An error leaves nothing to be done.
        let _ = self.0.wait();
    }
}
