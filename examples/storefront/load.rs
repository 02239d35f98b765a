//! The clients: 64 of them, each with one keep-alive connection, asking for pages or changing rows, and watching what
//! they are told.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{Request, StatusCode, header},
};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use swiftwater_core::{Clock, Counter, Histogram};
use tokio::{
    net::TcpStream,
    task::{JoinError, JoinSet},
    time::{self, MissedTickBehavior},
};
use tokio_util::io::InspectReader;

use crate::{
    catalog,
    keys::Keys,
    oracle::{Oracle, Row, Versions},
};

pub const CLIENTS: usize = 64;

/// What each writer changes, and how often at most. A pace instead of as fast as it goes, so that fast phases bear about
/// the same writes; where a write takes longer than its pace there are fewer, and the table says how many. Behind one
/// category stand 100 products of 10,000, behind one price list an
/// eighth of them all.
const WRITERS: [(Kind, Duration); 4] = [
    (Kind::Price, Duration::from_millis(2)),
    (Kind::Stock, Duration::from_millis(2)),
    (Kind::Category, Duration::from_millis(50)),
    (Kind::PriceList, Duration::from_millis(250)),
];
pub const CLIENTS_WRITING: usize = WRITERS.len();

/// An answer that takes longer is an error: nothing may hold up the end of a phase.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(20);

/// All clients of one phase. They warm the service up, until [`begin`](Self::begin).
pub struct Crowd {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

struct Shared {
    address: SocketAddr,
    keys: Arc<Keys>,
    oracle: Arc<Oracle>,
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
    /// Bytes that the service sent, headers included. Like the two below it from the first request on.
    pub received: Arc<Counter>,
    /// Pages that the oracle judged, and those that it found stale.
    pub judged: Counter,
    pub stale: Counter,
    first_error: OnceLock<String>,
}

impl Crowd {
    pub fn start(address: SocketAddr, keys: Arc<Keys>, oracle: Arc<Oracle>, seed: u64) -> Self {
        keys.rewind();
        let shared = Arc::new(Shared {
            address,
            keys,
            oracle,
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
            clients.spawn(read(shared.clone()));
        }
        Self { shared, clients }
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
    /// One of the errors, to tell what went wrong.
    pub fn first_error(&self) -> Option<&str> {
        self.first_error.get().map(String::as_str)
    }

    fn error(&self, what: impl FnOnce() -> String) {
        self.errors.add(1);
        self.first_error.get_or_init(what);
    }
}

impl Shared {
    // Relaxed, here and where it is written: a request more or less at the edges of a phase is all that hangs on it.
    fn is(&self, part: u8) -> bool {
        self.part.load(Relaxed) == part
    }
}

/// A reader: asks for a page, and the next when it is there.
async fn read(shared: Arc<Shared>) {
    let Shared { tally, clock, .. } = &*shared;
    let mut client = Client::new(&shared);
    while !shared.is(OVER) {
        let product = shared.keys.next();
        // Before the request is sent: see the oracle.
        let floors = shared.oracle.floors(product);
        let sent = clock.now();
        let answer = client.page(product).await;
        let latency = clock.now() - sent;

        let counts = shared.is(MEASURING);
        if counts {
            tally.latency.record_duration(latency);
        }
        match answer {
            Ok(page) => {
                tally.judged.add(1);
                tally.stale.add(page.versions.is_stale(&floors).into());
                if counts {
                    match page.delivery {
                        Some(Delivery::LastKnown) => tally.last_known.add(1),
                        Some(Delivery::Unknown) => tally.unknown.add(1),
                        Some(Delivery::Fresh) | None => {}
                    }
                }
            }
            Err(error) if counts => tally.error(|| format!("GET /products/{product}: {error}")),
            Err(_) => {}
        }
    }
}

/// A writer: changes a row, and raises its floor when the change has been answered.
async fn write(shared: Arc<Shared>, kind: Kind, pace: Duration, mut random: fastrand::Rng) {
    let tally = &shared.tally;
    let mut client = Client::new(&shared);
    let mut ticks = time::interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.is(OVER) {
        ticks.tick().await;
        let (row, path, body) = kind.change(&shared.keys, &mut random);
        let answer = client.change(&path, body).await;

        if let Ok(written) = &answer {
            shared.oracle.answered(row, written.version);
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

/// The part of a page that matters here.
#[derive(Deserialize)]
struct Page {
    id: u64,
    versions: Versions,
    delivery: Option<Delivery>,
}

#[derive(Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Delivery {
    Fresh,
    LastKnown,
    Unknown,
}

#[derive(Deserialize)]
struct Written {
    version: u64,
}

/// One connection to the service, made again when it is lost.
struct Client {
    address: SocketAddr,
    received: Arc<Counter>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    fn new(shared: &Shared) -> Self {
        Self { address: shared.address, received: shared.tally.received.clone(), connection: None }
    }

    async fn page(&mut self, product: u64) -> Result<Page, Box<dyn Error + Send + Sync>> {
        let request = Request::get(format!("/products/{product}")).body(Full::default())?;
        let page: Page = serde_json::from_slice(&self.call(request).await?)?;
        if page.id != product {
            return Err(format!("the page of product {} came", page.id).into());
        }
        Ok(page)
    }

    async fn change(&mut self, path: &str, body: String) -> Result<Written, Box<dyn Error + Send + Sync>> {
        let request =
            Request::put(path).header(header::CONTENT_TYPE, "application/json").body(Full::from(body))?;
        Ok(serde_json::from_slice(&self.call(request).await?)?)
    }

    /// The body of the answer, if its status says success.
    async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
        let answer =
            time::timeout(PATIENCE, self.try_call(request)).await.unwrap_or_else(|late| Err(late.into()));
        let Ok((status, body)) = answer else {
            self.connection = None;
            time::sleep(RECONNECT).await;
            return answer.map(|(_, body)| body);
        };
        if !status.is_success() {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(body)
    }

    async fn try_call(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(self.address, self.received.clone()).await?),
        };
        connection.ready().await?;
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
        let (head, body) = connection.send_request(request).await?.into_parts();
        Ok((head.status, body.collect().await?.to_bytes()))
    }
}

async fn connect(
    address: SocketAddr,
    received: Arc<Counter>,
) -> Result<SendRequest<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let counted = InspectReader::new(stream, move |bytes: &[u8]| received.add(bytes.len() as u64));
    let (requests, connection) = http1::handshake(TokioIo::new(counted)).await?;
    // Ends when `requests` is dropped; what goes wrong in it is told to whoever waits for an answer.
    tokio::spawn(connection);
    Ok(requests)
}

/// The parts of a phase.
const WARM_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;
