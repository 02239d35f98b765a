//! Ours beside the rivals: `versus <area> [--quick] [--json FILE]`. Tables go to the standard output, in Markdown; progress to
//! standard error. See `benches/README.md`.

mod arguments;
#[cfg(feature = "batch")]
mod batch;
#[cfg(feature = "breaker")]
mod breaker;
#[cfg(feature = "cache")]
mod cache;
#[cfg(feature = "compress")]
mod compress;
#[cfg(feature = "pool")]
mod pool;
#[cfg(any(
    feature = "batch",
    feature = "breaker",
    feature = "cache",
    feature = "compress",
    feature = "pool"
))]
mod runtime;

use std::{
    fs::File,
    io::{BufWriter, Write},
    process::ExitCode,
};

use swiftwater_benches::{
    cache_line_hop, heap,
    versus::{Planned, json, run, table},
};

use crate::arguments::Arguments;

/// Counts only while a case asks for it.
#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

fn main() -> ExitCode {
    let prepared = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| prepare(&arguments));
    let outcome = match prepared {
        Ok(prepared) => measure(prepared),
        Err(unusable) => Err((ExitCode::from(2), unusable)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            eprintln!("{why}");
            code
        }
    }
}

struct Prepared {
    arguments: Arguments,
    cases: Vec<Planned>,
    json: Option<BufWriter<File>>,
}

/// Everything that can be found wrong before anything is measured.
fn prepare(arguments: &Arguments) -> Result<Prepared, String> {
    let mut cases = area(arguments)?;
    if let Some(wanted) = &arguments.case {
        cases.retain(|case| case.name.contains(wanted.as_str()));
        if cases.is_empty() {
            return Err(format!("no case of {} has `{wanted}` in its name", arguments.area));
        }
    }
    let create = |path| File::create(path).map_err(|error| format!("cannot write {path}: {error}"));
    let json = arguments.json.as_deref().map(create).transpose()?.map(BufWriter::new);
    Ok(Prepared { arguments: arguments.clone(), cases, json })
}

fn area(arguments: &Arguments) -> Result<Vec<Planned>, String> {
    match arguments.area.as_str() {
        #[cfg(feature = "batch")]
        "batch" => Ok(batch::cases()),
        #[cfg(feature = "breaker")]
        "breaker" => Ok(breaker::cases()),
        #[cfg(feature = "cache")]
        "cache" => cache::cases(arguments),
        #[cfg(feature = "compress")]
        "compress" => compress::cases(arguments),
        #[cfg(feature = "pool")]
        "pool" => Ok(pool::cases()),
        area if AREAS.contains(&area) => Err(format!("{area} was not compiled in: add `--features {area}`")),
        area => Err(format!("no area `{area}`: there are {}", AREAS.join(", "))),
    }
}

const AREAS: [&str; 5] = ["batch", "breaker", "cache", "compress", "pool"];

fn measure(prepared: Prepared) -> Result<(), (ExitCode, String)> {
    let Prepared { arguments, cases, json: mut file } = prepared;
    // Started from here it may run on any processor; started by a bench thread it would sit on that one's.
    let _ = swiftwater_core::Clock::coarse().now();
    for planned in cases {
        let measured = run(planned, arguments.effort, cache_line_hop, |what| eprintln!("{what}"))
            .map_err(|wrong| (ExitCode::FAILURE, wrong.to_string()))?;
        for figure in measured {
            println!("{}", table(&figure));
            if let Some(file) = &mut file {
                let unusable = |error| (ExitCode::from(2), format!("cannot write the JSON: {error}"));
                writeln!(file, "{}", json(&arguments.area, &figure)).map_err(unusable)?;
                // Line by line: what a later case spoils is not lost.
                file.flush().map_err(unusable)?;
            }
        }
    }
    Ok(())
}
