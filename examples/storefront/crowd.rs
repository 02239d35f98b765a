//! The clients: 64 of them, each with one keep-alive connection, asking for something or changing rows, and watching what
//! they are told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Deserialize;
use swiftwater_compress::Decompressor;
use swiftwater_core::{BuildError, Clock, Counter, Histogram};
use tokio::{
    task::{JoinError, JoinSet},
    time::{self, MissedTickBehavior},
};

use crate::{
    catalog,
    client::Client,
    keys::Keys,
    oracle::Row,
    question::{Delivery, Knowledge, Load, Visitor},
};

pub const CLIENTS: usize = 64;

/// What each writer changes, and how often at most. A pace instead of as fast as it goes, so that fast phases bear about
/// the same writes; where a write takes longer than its pace there are fewer, and the table says how many. Behind one
/// category stand 100 products of 10,000, behind one price list an eighth of them all.
const WRITERS: [(Kind, Duration); 4] = [
    (Kind::Price, Duration::from_millis(2)),
    (Kind::Stock, Duration::from_millis(2)),
    (Kind::Category, Duration::from_millis(50)),
    (Kind::PriceList, Duration::from_millis(250)),
];
pub const CLIENTS_WRITING: usize = WRITERS.len();

/// All clients of one phase. They warm the service up, until [`begin`](Self::begin).
pub struct Crowd {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

struct Shared {
    address: SocketAddr,
    decompressor: Decompressor,
    keys: Arc<Keys>,
    known: Knowledge,
    clock: Clock,
    part: AtomicU8,
    tally: Tally,
}

/// What the clients saw while it counted.
#[derive(Default)]
pub struct Tally {
    /// Of every answer to a reader, failures included: a page that did not come took its time too. In nanoseconds.
    pub latency: Histogram,
    pub writes: Counter,
    /// Requests of either kind that failed.
    pub errors: Counter,
    /// Pages with the supplier's last known quote, marked as such; and with none.
    pub last_known: Counter,
    pub unknown: Counter,
    /// Bytes that the service sent, headers included. Like the three below it from the first request on.
    pub received: Arc<Counter>,
    /// Answers that were judged; those that are stale; and those that are not what was asked for.
    pub judged: Counter,
    pub stale: Counter,
    pub wrong: Counter,
    first_error: OnceLock<String>,
}

impl Crowd {
    pub fn start(
        address: SocketAddr,
        load: Load,
        keys: Arc<Keys>,
        known: Knowledge,
        seed: u64,
    ) -> Result<Self, BuildError> {
        keys.rewind();
        let shared = Arc::new(Shared {
            address,
            decompressor: Decompressor::builder().build()?,
            keys,
            known,
            clock: Clock::system(),
            part: AtomicU8::new(WARM_UP),
            tally: Tally::default(),
        });
        let mut clients = JoinSet::new();
        for (kind, pace) in WRITERS {
            let random = fastrand::Rng::with_seed(seed.wrapping_add(kind as u64));
            clients.spawn(write(shared.clone(), kind, pace, random));
        }
        for _ in WRITERS.len()..CLIENTS {
            clients.spawn(read(shared.clone(), load));
        }
        Ok(Self { shared, clients })
    }

    /// What is answered from now on counts.
    pub fn begin(&self) {
        self.shared.part.store(MEASURING, Relaxed);
    }

    /// What is answered from now on does not. Returns when every client has had its last answer.
    pub async fn end(&mut self) -> Result<(), JoinError> {
        self.shared.part.store(OVER, Relaxed);
        while let Some(gone) = self.clients.join_next().await {
            gone?;
        }
        Ok(())
    }

    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }
}

impl Tally {
    /// One of the errors or wrong answers, to tell what went wrong.
    pub fn first_error(&self) -> Option<&str> {
        self.first_error.get().map(String::as_str)
    }

    fn error(&self, what: impl FnOnce() -> String) {
        self.errors.add(1);
        self.first_error.get_or_init(what);
    }
}

impl Shared {
    fn client(&self, bytes_per_second: Option<f64>) -> Client {
        Client::new(self.address, bytes_per_second, self.tally.received.clone(), self.decompressor.clone())
    }

    // Relaxed, here and where it is written: a request more or less at the edges of a phase is all that hangs on it.
    fn is(&self, part: u8) -> bool {
        self.part.load(Relaxed) == part
    }
}

/// A reader: asks for something, and for the next when it is there.
async fn read(shared: Arc<Shared>, load: Load) {
    let Shared { tally, clock, known, .. } = &*shared;
    let mut client = shared.client(load.bytes_per_second());
    let mut visitor = Visitor::new(load);
    while !shared.is(OVER) {
        let question = visitor.next(&shared.keys, &known.documents);
        let path = question.path();
        // Before the request is sent: see the oracle.
        let asked = known.oracle.now();
        let sent = clock.now();
        let answer = client.get(&path).await;
        let latency = clock.now() - sent;

        let counts = shared.is(MEASURING);
        if counts {
            tally.latency.record_duration(latency);
        }
        match answer.and_then(|answer| question.judge(&answer, asked, known)) {
            Ok(judged) => {
                tally.judged.add(1);
                tally.stale.add(judged.stale.into());
                if judged.wrong {
                    tally.wrong.add(1);
                    tally.first_error.get_or_init(|| format!("GET {path}: not what was asked for"));
                }
                if counts {
                    match judged.delivery {
                        Some(Delivery::LastKnown) => tally.last_known.add(1),
                        Some(Delivery::Unknown) => tally.unknown.add(1),
                        Some(Delivery::Fresh) | None => {}
                    }
                }
            }
            Err(error) if counts => tally.error(|| format!("GET {path}: {error}")),
            Err(_) => {}
        }
    }
}

/// A writer: changes a row, and raises its floor when the change has been answered.
async fn write(shared: Arc<Shared>, kind: Kind, pace: Duration, mut random: fastrand::Rng) {
    let tally = &shared.tally;
    let mut client = shared.client(None);
    let mut ticks = time::interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.is(OVER) {
        ticks.tick().await;
        let (row, path, body) = kind.change(&shared.keys, &mut random);
        let answer = client.put(&path, body).await;
        let answer = answer.and_then(|answer| Ok(serde_json::from_slice::<Written>(&answer)?));

        if let Ok(written) = &answer {
            shared.known.oracle.answered(row, written.version);
        }
        if shared.is(MEASURING) {
            match answer {
                Ok(_) => tally.writes.add(1),
                Err(error) => tally.error(|| format!("PUT {path}: {error}")),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Category,
    Price,
    PriceList,
    Stock,
}

impl Kind {
    fn change(self, keys: &Keys, random: &mut fastrand::Rng) -> (Row, String, String) {
        match self {
            Self::Category => {
                let (id, number) = (catalog::category_of(keys.latest()), random.u32(..));
                let body = format!(r#"{{"name":"Category {id}, season {number}"}}"#);
                (Row::Category(id), format!("/categories/{id}"), body)
            }
            Self::Price => {
                let (id, cents) = (keys.latest(), random.u32(100..10_000));
                (Row::Product(id), format!("/products/{id}/price"), format!(r#"{{"cents":{cents}}}"#))
            }
            Self::PriceList => {
                let (id, percent) = (catalog::price_list_of(keys.latest()), random.u32(..50));
                let body = format!(r#"{{"percent_off":{percent}}}"#);
                (Row::PriceList(id), format!("/price-lists/{id}"), body)
            }
            Self::Stock => {
                let (id, units) = (keys.latest(), random.u32(..500));
                (Row::Stock(id), format!("/products/{id}/stock"), format!(r#"{{"units":{units}}}"#))
            }
        }
    }
}

#[derive(Deserialize)]
struct Written {
    version: u64,
}

/// The parts of a phase.
const WARM_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;
