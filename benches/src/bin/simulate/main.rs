//! Histories drawn from seeds, ours beside the rivals: `simulate <area> [--quick] [--seeds N] [--json FILE]`. Breakers are
//! in virtual time: same seeds, same tables. Caches are in real threads: a seed decides what is done, not in which order.
//! Tables go to the standard output, in Markdown; progress to standard error. A claim that does not hold ends the run with
//! exit code 1, after everything has been printed.

#![cfg_attr(
    not(feature = "breaker"),
    allow(dead_code, reason = "some of what the areas share is for breakers alone")
)]

mod arguments;
#[cfg(feature = "breaker")]
mod breaker;
#[cfg(feature = "cache")]
mod cache_oracle;
mod report;
#[cfg(feature = "breaker")]
mod seeds;

use std::{
    fs::File,
    io::{BufWriter, Write},
    process::ExitCode,
};

use crate::{
    arguments::Arguments,
    report::{Report, Scenario},
};

fn main() -> ExitCode {
    let prepared = Arguments::parse(std::env::args().skip(1)).and_then(prepare);
    let outcome = match prepared {
        Ok(prepared) => simulate(prepared),
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
    scenarios: Vec<Scenario>,
    json: Option<BufWriter<File>>,
}

/// Everything that can be found wrong before anything is simulated.
fn prepare(arguments: Arguments) -> Result<Prepared, String> {
    let mut scenarios = area(&arguments.area)?;
    if let Some(wanted) = &arguments.scenario {
        scenarios.retain(|scenario| scenario.title().contains(wanted.as_str()));
        if scenarios.is_empty() {
            return Err(format!("no scenario of {} has `{wanted}` in its name", arguments.area));
        }
    }
    let create = |path| File::create(path).map_err(|error| format!("cannot write {path}: {error}"));
    let json = arguments.json.as_deref().map(create).transpose()?.map(BufWriter::new);
    Ok(Prepared { arguments, scenarios, json })
}

fn area(area: &str) -> Result<Vec<Scenario>, String> {
    match area {
        #[cfg(feature = "breaker")]
        "breaker" => Ok(breaker::scenarios()),
        #[cfg(feature = "cache")]
        "cache-oracle" => Ok(cache_oracle::scenarios()),
        area => Err(match AREAS.iter().find(|(name, _)| *name == area) {
            Some((_, feature)) => format!("{area} was not compiled in: add `--features {feature}`"),
            None => format!("no area `{area}`: there are {}", AREAS.map(|(name, _)| name).join(", ")),
        }),
    }
}

/// Each with its feature.
const AREAS: [(&str, &str); 2] = [("breaker", "breaker"), ("cache-oracle", "cache")];

fn simulate(prepared: Prepared) -> Result<(), (ExitCode, String)> {
    let Prepared { arguments, scenarios, json: mut file } = prepared;
    let mut broken = Vec::new();
    for scenario in scenarios {
        let title = scenario.title();
        eprintln!("{title}: {} seeds", arguments.seeds);
        let report: Report = (scenario.run)(arguments.seeds);
        println!("{}", report::table(&scenario, &report));
        if let Some(file) = &mut file {
            let unusable = |error| (ExitCode::from(2), format!("cannot write the JSON: {error}"));
            for line in report::json(&arguments.area, &scenario, &report) {
                writeln!(file, "{line}").map_err(unusable)?;
            }
            // Scenario by scenario: what a later one spoils is not lost.
            file.flush().map_err(unusable)?;
        }
        broken.extend(report.broken.into_iter().map(|claim| format!("{title}: {claim}")));
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err((ExitCode::FAILURE, format!("does not hold: {}", broken.join("; ")))),
    }
}
