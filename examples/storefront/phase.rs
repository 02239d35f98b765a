//! One phase: a shop, served on loopback, under the load of all clients.

use std::{
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum::{Router, serve::ListenerExt};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

use crate::{
    cpu,
    crowd::Crowd,
    db::{Database, Manager},
    documents::Documents,
    keys::Keys,
    model::Model,
    oracle::Oracle,
    progress::Progress,
    question::{Knowledge, Load},
    report,
    shop::{Shop, Stage},
    supplier::Supplier,
    usual::{Derived, Usual},
    world::World,
};

/// Before anything counts: connections are made, caches filled, and the supplier, where there is one, is well.
pub const WARM_UP: Duration = Duration::from_secs(1);

/// What all phases have in common: they follow one another on one address, over one database.
pub struct Course {
    pub listener: TcpListener,
    pub database: Database,
    pub keys: Arc<Keys>,
    pub model: Arc<Model>,
    pub documents: Arc<Documents>,
    pub seed: u64,
    pub measured: Duration,
}

/// What is measured in one phase.
pub struct Plan {
    pub name: &'static str,
    pub load: Load,
    pub stack: Stack,
    /// Once the service is warm, nine of ten calls to the supplier hang.
    pub supplier_fails: bool,
}

/// Who built the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    Ours(Stage),
    Usual(Derived),
}

impl Course {
    pub async fn run(&self, plan: &Plan, progress: &Progress) -> Result<report::Phase, Box<dyn Error>> {
        let world = self.world();
        let routes = match plan.stack {
            Stack::Ours(stage) => Shop::open(stage, &world)?.routes(),
            Stack::Usual(derived) => Usual::open(derived, &world).await?.routes(),
        };
        let service = Service::start(&self.listener, routes)?;
        let known = Knowledge {
            documents: self.documents.clone(),
            model: self.model.clone(),
            products: self.keys.products(),
            oracle: Oracle::default(),
        };
        let mut crowd = Crowd::start(service.address, plan.load, self.keys.clone(), known, self.seed)?;

        progress.wait(WARM_UP).await;
        world.supplier.set_failing(plan.supplier_fails);
        let before = Reading::take(&crowd, &world.database);
        crowd.begin();
        progress.wait(self.measured).await;
        let after = Reading::take(&crowd, &world.database);
        crowd.end().await?;
        service.stop().await?;

        Ok(result(plan, &crowd, &before, &after))
    }

    /// With counters that start from nothing, and a supplier in good health.
    pub fn world(&self) -> World {
        World {
            database: self.database.manager(),
            supplier: Arc::new(Supplier::new(self.seed)),
            model: self.model.clone(),
            documents: self.documents.clone(),
        }
    }
}

/// The counters that run on through the whole phase, at one moment.
struct Reading {
    at: Instant,
    cpu: Duration,
    queries: u64,
    received: u64,
}

impl Reading {
    fn take(crowd: &Crowd, database: &Manager) -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu::used(),
            queries: database.queries(),
            received: crowd.tally().received.read(),
        }
    }
}

fn result(plan: &Plan, crowd: &Crowd, before: &Reading, after: &Reading) -> report::Phase {
    let tally = crowd.tally();
    let requests = tally.latency.count();
    let seconds = (after.at - before.at).as_secs_f64();
    let milliseconds = |quantile| tally.latency.quantile(quantile).map_or(0.0, |nanos| nanos as f64 / 1e6);
    let per_request = |total: f64| total / requests.max(1) as f64;
    report::Phase {
        name: plan.name.into(),
        load: plan.load,
        usual: matches!(plan.stack, Stack::Usual(_)),
        requests,
        requests_per_second: requests as f64 / seconds,
        p50_ms: milliseconds(0.5),
        p99_ms: milliseconds(0.99),
        queries_per_request: per_request((after.queries - before.queries) as f64),
        cpu_us_per_request: per_request((after.cpu - before.cpu).as_secs_f64() * 1e6),
        bytes_sent: after.received - before.received,
        writes_per_second: tally.writes.read() as f64 / seconds,
        errors: tally.errors.read(),
        first_error: tally.first_error().map(String::from),
        last_known_quotes: tally.last_known.read(),
        unknown_quotes: tally.unknown.read(),
        judged: tally.judged.read(),
        stale_answers: tally.stale.read(),
        wrong_answers: tally.wrong.read(),
    }
}

/// A shop that listens.
pub struct Service {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

impl Service {
    pub fn start(listener: &TcpListener, routes: Router) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let address = listener.local_addr()?;
        // An answer is one small write: nothing is gained by holding it back.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let (stop, stopped) = oneshot::channel();
        let serve = axum::serve(listener, routes).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let served = tokio::spawn(async { serve.await });
        Ok(Self { address, stop, served })
    }

    /// Returns only if the server fails.
    pub async fn served(self) -> Result<(), Box<dyn Error>> {
        Ok(self.served.await??)
    }

    /// Returns when the last connection is closed.
    pub async fn stop(self) -> Result<(), Box<dyn Error>> {
        // The receiver is only gone if the server has ended by itself, which the next line tells.
        let _ = self.stop.send(());
        Ok(self.served.await??)
    }
}
