//! A shop's API as a small service, driven by 64 clients: what a pool, a cache, a breaker, batches and compression do for
//! it, phase by phase; what the usual crates do for it; and whether a reader is ever shown what a writer has already been
//! told is gone.
//!
//! `cargo run --release --example storefront`, `-- --help` for what else it can do. Exits with 1 if an answer of ours
//! was stale, with 2 if it could not run.

mod advice;
mod broken;
mod catalog;
mod client;
mod cpu;
mod crowd;
mod db;
mod documents;
mod error;
mod keys;
mod link;
mod list;
mod model;
mod oracle;
mod output;
mod page;
mod phase;
mod progress;
mod question;
mod report;
mod shop;
mod supplier;
mod trace;
mod usual;
mod world;

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
    crowd::{CLIENTS, CLIENTS_WRITING},
    db::Database,
    documents::Documents,
    keys::Keys,
    model::Model,
    output::Output,
    phase::{Course, Plan, Service, Stack, WARM_UP},
    progress::Progress,
    question::Load,
    report::Report,
    shop::{Shop, Stage},
    usual::Derived,
};

/// A shop's API under load: bare, then with a pool, a cache, a breaker, batches and compression, then on the usual crates;
/// and a freshness oracle watching it all.
#[derive(Parser)]
#[command(name = "storefront")]
struct Flags {
    /// Seconds that each of the thirteen phases is measured, after one second of warm-up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Takes the product keys from a trace: one decimal key a line, plain or gzip (the first 10 million are used)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Sends the files of a folder, in place of the category lists, in the phases about compression
    #[arg(long, value_name = "DIR")]
    documents: Option<PathBuf>,

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
    let folder = flags.documents.clone();
    let read = move || folder.as_deref().map_or_else(|| Ok(Documents::default()), Documents::read);
    let documents = task::spawn_blocking(read).await??;
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
        keys: Arc::new(keys),
        model: Arc::new(task::spawn_blocking(move || Model::train(products)).await?),
        documents: Arc::new(documents),
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
    let plans = plans(broken, course.documents.len() > 0);
    let progress = Progress::new((WARM_UP + course.measured) * plans.len() as u32);
    let mut results = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        progress.begin(format!("phase {} of {}: {}", number + 1, plans.len(), plan.name));
        results.push(course.run(plan, &progress).await?);
    }
    Ok(results)
}

/// The shop grows up. What is new is measured before and after, under a load of its own, and then on the usual crates.
fn plans(broken: bool, documents: bool) -> [Plan; 13] {
    use Stack::{Ours, Usual};
    let plan = |name, load, stack| Plan { name, load, stack, supplier_fails: false };
    let pages = |name, stack| plan(name, Load::Pages, stack);
    let failing = |name, stack| Plan { supplier_fails: true, ..pages(name, stack) };
    let advice = |name, stack| plan(name, Load::Recommendations, stack);
    let [list, list_compressed, list_usual] = if documents {
        ["documents", "documents, + compression", "documents, the usual stack"]
    } else {
        ["catalogue", "catalogue, + compression", "catalogue, the usual stack"]
    };
    let lists = |name, stack| plan(name, if documents { Load::Documents } else { Load::Catalogue }, stack);
    [
        pages("bare", Ours(Stage::Bare)),
        pages("+ pool", Ours(Stage::Pooled)),
        if broken {
            pages("+ cache, misused", Ours(Stage::Broken))
        } else {
            pages("+ cache", Ours(Stage::Cached))
        },
        failing("supplier failing", Ours(Stage::Supplied)),
        failing("supplier failing, + breaker and fallback", Ours(Stage::Guarded)),
        failing("supplier failing, the usual stack", Usual(Derived::Expires)),
        failing("supplier failing, the usual stack, searching", Usual(Derived::Searched)),
        advice("recommendations", Ours(Stage::Guarded)),
        advice("recommendations, + batch", Ours(Stage::Batched)),
        advice("recommendations, the usual stack", Usual(Derived::Expires)),
        lists(list, Ours(Stage::Batched)),
        lists(list_compressed, Ours(Stage::Compressed)),
        lists(list_usual, Usual(Derived::Expires)),
    ]
}

/// Returns only if the server fails.
async fn serve(course: &Course) -> Result<(), Box<dyn Error>> {
    let shop = Shop::open(Stage::Compressed, &course.world())?;
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
  curl -s '{url}/recommendations?seen=7,107'
  curl -s --compressed -v {url}/catalogue/8 | head -c 300   # its Content-Encoding, and what is inside
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
