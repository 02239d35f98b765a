//! A client of a sharded service: a breaker for each shard, so that what fails alone is cut off alone; hangs that are noticed
//! before any time-out; answers that say whether they are the real ones; events in the log and readings for Prometheus.
//!
//! `cargo run --release --example shards` (needs no server, ends within two seconds)

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use swiftwater_breaker::{
    Breaker, Breakers, CallError, OrFallback, Served, State, consecutive, failure_rate, stalled,
};
use swiftwater_core::{Outcome, Registry};
use tokio::{task::JoinSet, time};

const SHARDS: u32 = 8;
/// What a caller puts up with. The breakers know better, sooner.
const TIME_OUT: Duration = Duration::from_secs(1);

/// Stands for a service far away.
#[derive(Default)]
struct Service([AtomicU8; SHARDS as usize]);

const WELL: u8 = 0;
const REFUSES: u8 = 1;
const HANGS: u8 = 2;

impl Service {
    fn becomes(&self, shard: u32, mood: u8) {
        self.0[shard as usize].store(mood, Relaxed);
    }

    async fn stock(&self, shard: u32, product: u32) -> io::Result<u32> {
        match self.0[shard as usize].load(Relaxed) {
            WELL if product.is_multiple_of(100) => Err(io::ErrorKind::NotFound.into()),
            WELL => Ok(product % 10),
            REFUSES => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => std::future::pending().await,
        }
    }
}

#[derive(Clone)]
struct Client {
    service: Arc<Service>,
    breakers: Breakers<u32>,
}

impl Client {
    fn new(service: Arc<Service>) -> Result<Self, swiftwater_core::BuildError> {
        let secs = Duration::from_secs;
        let template = Breaker::builder()
            .trip_when(
                consecutive(5)
                    .or(failure_rate(0.5).over(secs(10)).min_calls(20))
                    .or(stalled(Duration::from_millis(200)).at_least(10)),
            )
            .open_for(Duration::from_millis(100)..=secs(30));
        let breakers = Breakers::builder(template)
            .max_keys(1_000)
            .on_event(|shard, event| {
                println!("shard {shard}: {} -> {} ({})", event.from, event.to, event.cause);
            })
            .build()?;
        Ok(Self { service, breakers })
    }

    /// Whatever happens to a shard, an answer: the stock, or that it is not known just now.
    async fn stock(&self, product: u32) -> Result<Served<Option<u32>>, io::Error> {
        let shard = product % SHARDS;
        // A product that is not there says nothing about the shard.
        let judge = |result: &io::Result<Option<u32>>| match result {
            Ok(_) => Outcome::Success,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Ignored,
            Err(_) => Outcome::Failure,
        };
        let ask = || async move {
            match time::timeout(TIME_OUT, self.service.stock(shard, product)).await {
                Ok(stock) => stock.map(Some),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        };
        let breaker = self.breakers.get(&shard);
        let answer: Result<_, CallError<io::Error>> = breaker.judged_by(judge).call(ask).await;
        answer.or_fallback(|_rejected| None)
    }

    /// Asks for 800 products at once: real answers, stand-ins, errors.
    async fn ask_for_many(&self) -> (usize, usize, usize) {
        let ask = |product| {
            let client = self.clone();
            async move { client.stock(product).await }
        };
        let answers = (0..800).map(ask).collect::<JoinSet<_>>().join_all().await;
        let degraded = answers.iter().flatten().filter(|served| served.is_degraded()).count();
        let errors = answers.iter().filter(|answer| answer.is_err()).count();
        (answers.len() - degraded - errors, degraded, errors)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let service = Arc::new(Service::default());
    let client = Client::new(service.clone())?;
    let registry = Registry::new();
    registry.add("breakers", "stock", &client.breakers)?;

    // All is well; the eight products that are not there are nobody's failure.
    assert_eq!(client.ask_for_many().await, (792, 0, 8));

    println!("-- shard 3 refuses");
    service.becomes(3, REFUSES);
    let (real, stand_ins, errors) = client.ask_for_many().await;
    println!("{real} answers, {stand_ins} stand-ins, {errors} errors");
    assert_eq!((real, stand_ins, errors), (692, 95, 13)); // five calls found it out; the other shards are unharmed
    assert_eq!(client.breakers.get(&3).state(), State::Open);

    println!("-- shard 5 hangs");
    service.becomes(5, HANGS);
    let started = Instant::now();
    let stuck = tokio::spawn({
        let client = client.clone();
        async move { client.ask_for_many().await }
    });
    while client.breakers.get(&5).state() != State::Open {
        time::sleep(Duration::from_millis(5)).await;
        // Somebody has to ask, since nothing runs by itself; nobody has to wait for the answer.
        let _ = time::timeout(Duration::from_millis(1), client.stock(5)).await;
    }
    println!("noticed before the time-out: {}", started.elapsed() < TIME_OUT);
    stuck.await?;

    println!("-- both are well again");
    service.becomes(3, WELL);
    service.becomes(5, WELL);
    for shard in [3, 5] {
        while client.breakers.get(&shard).state() != State::Closed {
            time::sleep(Duration::from_millis(20)).await;
            let _ = client.stock(shard).await; // sooner or later this is a probe
        }
    }
    assert_eq!(client.ask_for_many().await, (792, 0, 8));
    let page = registry.prometheus();
    let trips = page.lines().filter(|line| line.contains("_trips_total{") && !line.ends_with(" 0"));
    trips.for_each(|line| println!("{line}"));
    Ok(())
}
