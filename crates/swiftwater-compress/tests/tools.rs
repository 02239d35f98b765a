//! The command-line tools, where the tests are told to use them: ignored by name, run with `--include-ignored`.

mod common;

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use swiftwater_compress::{Coding, Setting};

use common::*;

/// What the tool writes when it is given this.
fn pipe(tool: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool} does not start, is it installed? {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        // It may not read to the end, and says so by its exit code.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?} says {said}");
    output.stdout
}

/// Ours through the tool's `-d`, the tool's through ours.
fn both_ways(tool: &str, settings: &[Setting], options: &[&[&str]]) {
    let bodies = [vec![], b"x".to_vec(), json(100_000), noise(200_000, 1), vec![0; 1 << 20], mixed(3 << 20)];
    for body in &bodies {
        for &setting in settings {
            let unpacked = pipe(tool, &["-d", "-c"], &compress(setting, body));
            assert!(unpacked == *body, "{tool} reads another body from {setting}");
            let twice = compress(setting, body).repeat(2);
            if setting.coding() != Coding::Brotli {
                assert!(pipe(tool, &["-d", "-c"], &twice) == body.repeat(2), "{tool} and two members");
            }
        }
        for options in options {
            let packed = pipe(tool, &[&["-c"], *options].concat(), body);
            let (got, result) = decode(settings[0].coding(), &packed);
            assert!(result.is_ok() && got == *body, "{tool} {options:?}: {result:?}");
        }
    }
}

#[test]
#[ignore = "needs the command gzip (apt-get install gzip)"]
fn gzip_and_we_read_one_another() {
    let settings: Vec<_> = (1..=9).map(Setting::gzip).collect();
    both_ways("gzip", &settings, &[&["-1"], &["-6"], &["-9"]]);
}

#[test]
#[ignore = "needs the command zstd (apt-get install zstd)"]
fn zstd_and_we_read_one_another() {
    let settings = [-7, 1, 3, 9, 19].map(Setting::zstd);
    both_ways("zstd", &settings, &[&["-1"], &["-3", "--no-check"], &["-19"], &["--fast=5"]]);
}

#[test]
#[ignore = "needs the command lz4 (apt-get install lz4)"]
fn lz4_and_we_read_one_another() {
    let options: &[&[&str]] =
        &[&["-1"], &["-9"], &["-B4"], &["-B7", "-BD"], &["-BX"], &["--no-frame-crc"], &["-BD", "-B5", "-BX"]];
    both_ways("lz4", &[Setting::lz4()], options);
}

#[test]
#[ignore = "needs the command brotli (apt-get install brotli)"]
fn brotli_and_we_read_one_another() {
    let settings = [0, 1, 2, 4, 5, 9].map(Setting::brotli);
    both_ways(
        "brotli",
        &settings,
        &[&["-q", "0"], &["-q", "5"], &["-q", "5", "-w", "24"], &["-q", "9", "-w", "10"]],
    );
}
