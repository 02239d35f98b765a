//! A shop's API as a small service, driven by 64 clients: what a pool, a cache and a breaker do for it, phase by phase,
//! and whether a reader is ever shown what a writer has already been told is gone.
//!
//! `cargo run --release --example storefront`, `-- --help` for what else it can do. Exits with 1 if an answer was stale,
//! with 2 if it could not run.

mod broken;
mod catalog;
mod db;
mod keys;
mod load;
mod oracle;
mod output;
mod phase;
mod progress;
mod report;
mod shop;
mod supplier;
mod trace;

use std::{
    error::Error,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use tokio::{
    runtime::Runtime,
    signal::{self, unix::SignalKind},
    task,
};

use crate::{
    db::Database,
    keys::Keys,
    load::{CLIENTS, CLIENTS_WRITING},
    oracle::Oracle,
    output::Output,
    phase::{Course, Service, WARM_UP},
    progress::Progress,
    report::Report,
    shop::{Shop, Stage},
    supplier::Supplier,
};

/// A shop's API under load: bare, then with a pool, a cache and a breaker, and a freshness oracle watching it all.
#[derive(Parser)]
#[command(name = "storefront")]
struct Flags {
    /// Seconds that each of the five phases is measured, after one second of warm-up
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Takes the product keys from a trace: one decimal key a line, plain or gzip (the first 10 million are used)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Starts the random numbers: which products are asked for, what is written, when the supplier hangs
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Stores pages without checking whether they went stale while they were loaded, which the oracle must notice
    #[arg(long)]
    break_invalidation: bool,

    /// Writes the phases as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draws the phases as an SVG
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// Leaves the service up after the phases, and prints calls to try
    #[arg(long)]
    serve: bool,

    /// Listens on this port of 127.0.0.1 instead of a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
}

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(wrong) if wrong.use_stderr() => {
            // Its first line says what is wrong, the rest is advice.
            let text = wrong.to_string();
            let line = text.lines().next().unwrap_or_default();
            return refused(line.trim_start_matches("error: "));
        }
        Err(help) => {
            // Whoever has closed the other end has read enough.
            let _ = write!(io::stdout(), "{help}");
            return ExitCode::SUCCESS;
        }
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return refused(&error.to_string()),
    };
    let outcome = runtime.block_on(run(&flags));
    // Not waiting for calls that hang.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| refused(&error.to_string()))
}

async fn run(flags: &Flags) -> Result<ExitCode, Box<dyn Error>> {
    // Whoever loses is dropped, and the database's folder with it.
    let (course, report) = tokio::select! {
        biased; // so that signals are listened to before the work begins
        signal = told_to_end() => return Ok(ExitCode::from(signal)),
        measured = measure(flags) => measured?,
    };
    if flags.serve {
        tokio::select! {
            _ = told_to_end() => {}
            ended = serve(&course) => ended?,
        }
    }
    Ok(match report.verdict() {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Waits for Ctrl-C, or for what a supervisor or a closed terminal sends, and returns the exit code that tells of it.
async fn told_to_end() -> u8 {
    let listen = |kind| signal::unix::signal(kind);
    let (Ok(mut terminate), Ok(mut hang_up)) =
        (listen(SignalKind::terminate()), listen(SignalKind::hangup()))
    else {
        return match signal::ctrl_c().await {
            Ok(()) => INTERRUPTED,
            Err(_) => std::future::pending().await,
        };
    };
    tokio::select! {
        Ok(()) = signal::ctrl_c() => INTERRUPTED,
        Some(()) = terminate.recv() => TERMINATED,
        Some(()) = hang_up.recv() => HUNG_UP,
    }
}

async fn measure(flags: &Flags) -> Result<(Course, Report), Box<dyn Error>> {
    // Everything that may be wrong with the flags shows before anything is measured.
    // Files are read and made where blocking holds up nobody, signals least of all.
    let trace = flags.trace.clone();
    let seed = flags.seed;
    let (keys, source) = task::spawn_blocking(move || keys(trace.as_deref(), seed)).await??;
    let listener = listen(flags.port)?;
    let json = flags.json.as_deref().map(Output::open).transpose()?;
    let plot = flags.plot.as_deref().map(Output::open).transpose()?;
    if let (Some(json), Some(plot)) = (&json, &plot)
        && json.is(plot)
    {
        return Err("--json and --plot name one file".into());
    }

    let products = keys.products();
    let course = Course {
        listener,
        database: task::spawn_blocking(move || Database::create(products)).await??,
        oracle: Arc::new(Oracle::new(keys.products())),
        keys: Arc::new(keys),
        seed: flags.seed,
        measured: Duration::from_secs(flags.seconds),
    };
    let report = Report {
        keys: source,
        seed: flags.seed,
        products: course.keys.products(),
        clients: CLIENTS,
        clients_writing: CLIENTS_WRITING,
        seconds_per_phase: flags.seconds,
        phases: phases(&course, flags.break_invalidation).await?,
    };

    if let Some(json) = json {
        json.write(&serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(plot) = plot {
        plot.write(&report.svg())?;
    }
    writeln!(io::stdout(), "{}\n{}", report.table(), report.notes())?;
    Ok((course, report))
}

/// The product keys, and where they come from in words.
fn keys(trace: Option<&Path>, seed: u64) -> Result<(Keys, String), String> {
    let Some(path) = trace else {
        let words = format!("Zipf {SKEW} over {} products", report::grouped(PRODUCTS.into()));
        return Ok((Keys::zipf(PRODUCTS, SKEW, seed), words));
    };
    let keys = Keys::trace(&trace::read(path)?).map_err(|e| format!("{}: {e}", path.display()))?;
    let words = format!("{} over {} products", path.display(), report::grouped(keys.products()));
    Ok((keys, words))
}

fn listen(port: u16) -> Result<TcpListener, String> {
    let refused = |e| format!("cannot listen on 127.0.0.1:{port}: {e}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(listener)
}

async fn phases(course: &Course, broken: bool) -> Result<Vec<report::Phase>, Box<dyn Error>> {
    let phases = [
        ("bare", Stage::Bare),
        ("+ pool", Stage::Pooled),
        if broken { ("+ cache, misused", Stage::Broken) } else { ("+ cache", Stage::Cached) },
        ("supplier failing", Stage::Supplied),
        ("supplier failing, + breaker and fallback", Stage::Guarded),
    ];
    let progress = Progress::new((WARM_UP + course.measured) * phases.len() as u32);
    let mut results = Vec::new();
    for (number, (name, stage)) in phases.into_iter().enumerate() {
        progress.begin(format!("phase {} of {}: {name}", number + 1, phases.len()));
        results.push(course.run(name, stage, &progress).await?);
    }
    Ok(results)
}

/// Returns only if the server fails.
async fn serve(course: &Course) -> Result<(), Box<dyn Error>> {
    let shop = Shop::open(Stage::Guarded, course.database.manager(), Arc::new(Supplier::new(course.seed)))?;
    let service = Service::start(&course.listener, shop.routes())?;
    let url = format!("http://{}", service.address);
    writeln!(
        io::stdout(),
        "
The shop is open at {url}, until Ctrl-C. Try:

  curl -s {url}/products/7                  # twice: the second one comes from the cache
  curl -s -X PUT {url}/products/7/price -H 'content-type: application/json' -d '{{\"cents\": 4200}}'
  curl -s {url}/products/7                  # the new price, at once
  curl -s -X PUT {url}/categories/8 -H 'content-type: application/json' -d '{{\"name\": \"Lamps\"}}'
  curl -s {url}/products/7                  # in category 8: the new name, at once
  curl -s -X PUT {url}/supplier -H 'content-type: application/json' -d '{{\"failing\": true}}'
  curl -s {url}/products/7                  # a few times: the breaker opens, the last known quote stands in
  curl -s {url}/metrics"
    )?;
    service.served().await
}

fn refused(why: &str) -> ExitCode {
    // In one line, whatever is in a file's name; and if nobody listens, the exit code has to do.
    let _ = writeln!(io::stderr(), "storefront: {}", why.replace('\n', " "));
    ExitCode::from(COULD_NOT_RUN)
}

/// What the shop holds when no trace says otherwise, and how uneven the demand is: at 0.9 the most popular 1 % of the
/// products get a good 40 % of the requests.
const PRODUCTS: u32 = 10_000;
const SKEW: f64 = 0.9;

const COULD_NOT_RUN: u8 = 2;
/// As shells report a program that a signal has ended.
const HUNG_UP: u8 = 129;
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;
