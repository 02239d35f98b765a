//! flate2 on other backends, in processes of their own: a program can have one of them.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    rc::Rc,
};

use swiftwater_benches::{pin, versus::Effort};

/// A worker, started and waiting.
pub struct Worker {
    pub name: &'static str,
    process: Rc<RefCell<Process>>,
}

struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Those that can be built here. Says so on the standard error if one cannot.
    pub fn all() -> Vec<Self> {
        let backends = [("miniz_oxide", "flate2 on miniz_oxide"), ("zlib-ng", "flate2 on zlib-ng")];
        let start = |(backend, name)| match start(backend) {
            Ok(process) => Some(Self { name, process: Rc::new(RefCell::new(process)) }),
            Err(why) => {
                eprintln!("{name} does not take part: {why}");
                None
            }
        };
        backends.into_iter().filter_map(start).collect()
    }

    /// A contestant: nanoseconds a run, and the output.
    pub fn measure(
        &self,
        what: &'static str,
        level: i32,
    ) -> impl Fn(Effort, &[u8]) -> (f64, Vec<u8>) + use<> {
        let process = self.process.clone();
        move |effort, data| {
            let Process { input, output, .. } = &mut *process.borrow_mut();
            let input = input.as_mut().expect("open until it is dropped");
            let time = effort.time.as_nanos();
            writeln!(input, "{what} {level} {time} {}", data.len()).expect("the worker listens");
            input.write_all(data).and_then(|()| input.flush()).expect("the worker listens");
            let mut line = String::new();
            output.read_line(&mut line).expect("the worker answers");
            let (each, length) = line.trim().split_once(' ').expect("two numbers");
            let mut made = vec![0; length.parse().expect("a length")];
            output.read_exact(&mut made).expect("as many bytes");
            (each.parse().expect("a number"), made)
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its input ends, and so does the worker.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn start(backend: &str) -> Result<Process, String> {
    let program = build(backend)?;
    // From a pinned thread: processes inherit that.
    let spawned = std::thread::spawn(move || {
        pin(0);
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    });
    let mut child = spawned
        .join()
        .expect("nothing panics there")
        .map_err(|error| format!("it does not start: {error}"))?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let output = BufReader::new(output.expect("it was asked for"));
    Ok(Process { child, input, output })
}

/// Builds the worker if need be, beside this program, and says where it is.
fn build(backend: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let target = own.with_file_name("flate2-workers").join(backend);
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/flate2-workers/Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    eprintln!("building flate2 on {backend}");
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--locked", "--manifest-path", manifest])
        .args(["--features", backend, "--target-dir"])
        .arg(&target)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cargo does not run: {error}"))?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        let missing = if said.contains("cmake") { " (it needs cmake)" } else { "" };
        let first =
            said.lines().find(|line| line.starts_with("error")).unwrap_or("cargo says nothing").to_owned();
        return Err(format!("it does not build{missing}: {first}"));
    }
    Ok(target.join("release").join(format!("flate2-worker{}", std::env::consts::EXE_SUFFIX)))
}
