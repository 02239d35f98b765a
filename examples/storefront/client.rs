//! One client's side of a keep-alive connection, as a browser would have it: accepts compressed answers, and reconnects
//! when the connection is lost.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Request, header, response},
};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use swiftwater_compress::{Codings, Decompressor};
use swiftwater_core::Counter;
use tokio::{net::TcpStream, task, time};
use tokio_util::io::InspectReader;

use crate::link::Link;

/// Why a request failed.
pub type Failure = Box<dyn Error + Send + Sync>;

pub struct Client {
    address: SocketAddr,
    bytes_per_second: Option<f64>,
    received: Arc<Counter>,
    decompressor: Decompressor,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// `received` counts the bytes that the service sends, headers included.
    pub fn new(
        address: SocketAddr,
        bytes_per_second: Option<f64>,
        received: Arc<Counter>,
        decompressor: Decompressor,
    ) -> Self {
        Self { address, bytes_per_second, received, decompressor, connection: None }
    }

    pub async fn get(&mut self, path: &str) -> Result<Bytes, Failure> {
        let request = Request::get(path)
            .header(header::ACCEPT_ENCODING, "gzip, deflate, br, zstd")
            .body(Full::default())?;
        self.call(request).await
    }

    pub async fn put(&mut self, path: &str, json: String) -> Result<Bytes, Failure> {
        let request =
            Request::put(path).header(header::CONTENT_TYPE, "application/json").body(Full::from(json))?;
        self.call(request).await
    }

    /// The decoded body of the answer, if its status says success.
    async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        let answer = time::timeout(PATIENCE, self.exchange(request)).await;
        let (head, body) = match answer.unwrap_or_else(|late| Err(late.into())) {
            Ok(answer) => answer,
            Err(error) => {
                self.connection = None;
                time::sleep(RECONNECT).await;
                return Err(error);
            }
        };
        let body = self.decoded(&head.headers, body).await?;
        if !head.status.is_success() {
            return Err(format!("{}: {}", head.status, String::from_utf8_lossy(&body)).into());
        }
        Ok(body)
    }

    async fn exchange(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(response::Parts, Bytes), Failure> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(self.address, self.bytes_per_second, self.received.clone()).await?),
        };
        connection.ready().await?;
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        let (head, body) = connection.send_request(request).await?.into_parts();
        Ok((head, body.collect().await?.to_bytes()))
    }

    async fn decoded(&self, headers: &HeaderMap, body: Bytes) -> Result<Bytes, Failure> {
        let codings = Codings::parse(headers.get_all(header::CONTENT_ENCODING))?;
        if codings.as_slice().is_empty() {
            return Ok(body);
        }
        let decompressor = self.decompressor.clone();
        // Off the runtime: it serves as well, and a client's work must not hold that up.
        let decoded = task::spawn_blocking(move || decompressor.decompress(codings, &body)).await??;
        Ok(decoded.into())
    }
}

async fn connect(
    address: SocketAddr,
    bytes_per_second: Option<f64>,
    received: Arc<Counter>,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let link = Link::new(stream, bytes_per_second);
    let counted = InspectReader::new(link, move |bytes: &[u8]| received.add(bytes.len() as u64));
    let (requests, connection) = http1::handshake(TokioIo::new(counted)).await?;
    // Ends when `requests` is dropped; what goes wrong in it is told to whoever waits for an answer.
    tokio::spawn(connection);
    Ok(requests)
}

/// An answer that takes longer is an error: nothing may hold up the end of a phase.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(20);
