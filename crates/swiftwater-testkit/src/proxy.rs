//! A TCP proxy whose network fails on demand.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc as blocking,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::net as sys;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::Error;

use pump::{Ending, pump};

mod pump;

/// Stands between a client and a server on the loopback interface, and passes bytes on faithfully until it is told to
/// fail in a certain way with [`set`](Self::set). Dropping it closes every connection and ends its thread.
///
/// What a client does not see of it: both halves of a connection are closed one by one as the other side does it, and a
/// reset on one side is one on the other. What it does see: `connect` succeeds as soon as the proxy's own kernel has
/// answered. When the server then refuses, the client is reset.
///
/// ```
/// use std::{io::Read, net::{TcpListener, TcpStream}};
/// use swiftwater_testkit::{Fault, Proxy};
///
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let proxy = Proxy::start(server.local_addr()?)?;
/// let mut client = TcpStream::connect(proxy.addr())?;
/// let (_connection, _) = server.accept()?;
///
/// proxy.set(Fault::Reset)?;
/// assert_eq!(client.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
/// proxy.clear()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    counts: Arc<Counts>,
    /// `None` only while it is dropped.
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

/// What goes wrong on a proxy's connections. Nothing that the client or the server has received already is taken back;
/// "under way" below is what one of them has sent and the other has not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// As when every packet is lost: in this direction, after so many more bytes of a connection nothing is delivered, and
    /// not its end either, while both sides see it standing. In the other direction all goes on.
    ///
    /// Established connections: `after` counts from now. New ones: `after` counts from their first byte; `connect` succeeds,
    /// and with `after: 0` towards the server the server does not hear of them. Bytes under way: held, and once
    /// the fault is over they are delivered in order, as TCP's repetitions would do it; the sender blocks when the buffers
    /// are full.
    BlackHole {
        /// Which way.
        direction: Direction,
        /// How many bytes of a connection get through first; 0 is at once. In each direction, if both are meant.
        after: u64,
    },
    /// After exactly so many more bytes of a connection in this direction, it ends on both sides in an orderly way: each
    /// reads what was delivered and then the end of the stream, as if the other had closed it. What a side writes to it
    /// later goes nowhere.
    ///
    /// Established connections: `after` counts from now, and with `after: 0` they have ended when `set` returns. New ones:
    /// counted from their first byte; with `after: 0` `connect` succeeds and the end follows at once, unknown to the server.
    /// Bytes under way: lost, save the first `after` in this direction and what has gone the other way in the meantime.
    Cut {
        /// Which way the bytes are counted. With both, whichever direction is first.
        direction: Direction,
        /// How many bytes of a connection get through first.
        after: u64,
    },
    /// A long way: all that a side sends, its end included, arrives so much later, in order. This is latency and does
    /// not limit throughput, as long as less than 16 MiB are under way on a connection in one direction. `connect`
    /// itself is not slower.
    ///
    /// Established connections and new ones: the same. Bytes under way: counted from when they came to the proxy; those that
    /// are due already, because the delay was longer or there was none, arrive at once.
    Delay(Duration),
    /// As when no process listens: `connect` fails with `ECONNREFUSED`. The port stays the proxy's own: a socket that does
    /// not listen keeps it occupied.
    ///
    /// Established connections: go on, with bytes under way and all. (A server that died is [`Reset`](Self::Reset) first,
    /// and then this.)
    Refuse,
    /// As when a server dies, or a firewall has forgotten: connections end with `RST` on both sides, `ECONNRESET`.
    ///
    /// Established connections: have ended when `set` returns. New ones: `connect` succeeds and the reset follows at once,
    /// unknown to the server. Bytes under way: lost.
    Reset,
    /// A narrow way: each connection is given so many bytes per second in each direction, in steps of a fiftieth of a
    /// second; in any span of time at most what is due then and 40 ms' worth more.
    ///
    /// Established connections and new ones: the same. Bytes under way: delivered in order at that rate; the sender blocks
    /// when the buffers are full.
    Throttle {
        /// The most bytes per second.
        per_second: NonZero<u64>,
    },
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direction {
    /// Either.
    Both,
    /// From the server to the client: answers.
    ToClient,
    /// From the client to the server: requests.
    ToServer,
}

impl Proxy {
    /// Listens on a free port of the loopback interface and passes on to `upstream`, where nobody need listen yet.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system has no more ports, threads or files for it.
    pub fn start(upstream: SocketAddr) -> Result<Self, Error> {
        let place = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(Error::io("bind the proxy"))?;
        let addr = place.local_addr().map_err(Error::io("see where the proxy is bound"))?;
        let counts = Arc::<Counts>::default();
        let (commands, orders) = mpsc::unbounded_channel();
        let room = Room { addr, upstream, counts: counts.clone() };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().enable_time().build().map_err(Error::io("start the proxy"))?;
        let thread = thread::Builder::new()
            .name(format!("proxy:{}", addr.port()))
            .spawn(move || {
                runtime.block_on(room.serve(orders));
                drop(runtime); // and every connection with it
                drop(place);
            })
            .map_err(Error::io("start the proxy's thread"))?;
        let proxy = Self { addr, counts, commands: Some(commands), thread: Some(thread) };
        proxy.clear()?; // it does not listen before that
        Ok(proxy)
    }

    /// Where clients connect to; the same for as long as this value lives.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets the network fail from now on; the fault that was set before, if any, is over. It is in force when this returns,
    /// for connections whose `connect` has returned before and for those to come, as [`Fault`] says of each. Counting
    /// (`after`) begins anew even if the same fault is set again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system does not let the proxy listen again after [`Fault::Refuse`], or when the proxy's
    /// thread has panicked.
    pub fn set(&self, fault: Fault) -> Result<(), Error> {
        self.command(Some(fault))
    }

    /// Lets the network work again; connections that have ended stay so.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn clear(&self) -> Result<(), Error> {
        self.command(None)
    }

    /// How many connections of clients there were, those included that ended at once.
    ///
    /// Like the other numbers it may be a moment behind what a client or server has seen: wait with
    /// [`eventually`](crate::eventually).
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many of them have not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// How many bytes that go this way have come to the proxy, over all connections. Of a connection that the server must
    /// not hear of, nothing is read yet.
    #[must_use]
    pub fn received(&self, direction: Direction) -> u64 {
        self.counts.received.read(direction)
    }

    /// How many bytes the proxy has passed on this way, over all connections.
    #[must_use]
    pub fn delivered(&self, direction: Direction) -> u64 {
        self.counts.delivered.read(direction)
    }

    fn command(&self, fault: Option<Fault>) -> Result<(), Error> {
        let gone = || Error::io("reach the proxy's thread")(io::ErrorKind::BrokenPipe.into());
        let (done, in_force) = blocking::channel();
        let commands = self.commands.as_ref().expect("taken only in drop");
        commands.send(Command { fault, done }).map_err(|_| gone())?;
        in_force.recv().map_err(|_| gone())?.map_err(Error::io("listen"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // It said why it panicked, if it did; a destructor has nobody to tell.
            let _ = thread.join();
        }
    }
}

impl Direction {
    fn covers(self, other: Self) -> bool {
        self == Self::Both || self == other
    }
}

#[derive(Debug)]
struct Command {
    fault: Option<Fault>,
    done: blocking::Sender<io::Result<()>>,
}

// Relaxed everywhere: they are read one by one, and nothing is published through them.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    open: AtomicUsize,
    received: Bytes,
    delivered: Bytes,
}

#[derive(Debug, Default)]
struct Bytes {
    to_client: AtomicU64,
    to_server: AtomicU64,
}

impl Bytes {
    fn read(&self, direction: Direction) -> u64 {
        [(Direction::ToClient, &self.to_client), (Direction::ToServer, &self.to_server)]
            .into_iter()
            .filter(|&(its, _)| direction.covers(its))
            .map(|(_, bytes)| bytes.load(Ordering::Relaxed))
            .sum()
    }

    fn add(&self, direction: Direction, bytes: usize) {
        let counter = if direction == Direction::ToClient { &self.to_client } else { &self.to_server };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The fault in force, and which command set it.
#[derive(Clone, Copy, Debug, Default)]
struct Setting {
    fault: Option<Fault>,
    number: u64,
}

impl Setting {
    /// How connections end that have passed so many bytes under this setting, if they do.
    fn ends(self, direction: Direction, passed: u64) -> Option<Ending> {
        match self.fault {
            Some(Fault::Reset) => Some(Ending::Reset),
            Some(Fault::Cut { direction: cut, after }) if cut.covers(direction) && passed >= after => {
                Some(Ending::Closed)
            }
            _ => None,
        }
    }

    /// How all connections end, those without a byte included, if they do.
    fn ends_all(self) -> Option<Ending> {
        [Direction::ToClient, Direction::ToServer].into_iter().find_map(|direction| self.ends(direction, 0))
    }

    /// Whether nothing at all gets to the server.
    fn hides_all(self) -> bool {
        matches!(self.fault, Some(Fault::BlackHole { direction, after: 0 }) if direction.covers(Direction::ToServer))
    }
}

/// What the proxy's thread knows. Everything happens in that one thread, connections included: between two awaits of one
/// task no other runs, and so a fault is in force for all of them as soon as its setting is published.
struct Room {
    addr: SocketAddr,
    upstream: SocketAddr,
    counts: Arc<Counts>,
}

impl Room {
    async fn serve(self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let publish = watch::Sender::new(Setting::default());
        let mut listener = None;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some(Command { fault, done }) = command else { break };
                    // Whoever has connected before the command is an old one, though nobody may have looked at it yet.
                    while let Some(client) = listener.as_ref().and_then(waiting) {
                        connections.spawn(self.connection(client, publish.subscribe()));
                    }
                    let result = self.listen_or_not(fault, &mut listener);
                    let setting = Setting { fault, number: publish.borrow().number + 1 };
                    publish.send_replace(setting);
                    while setting.ends_all().is_some()
                        && let Some(ended) = connections.join_next().await
                    {
                        ended.expect("connections do not panic");
                    }
                    // Nobody waits for it any more: then it was the last one.
                    let _ = done.send(result);
                }
                // Where the system has no file left, the next connection or command will try again.
                Ok((client, _)) = accept(listener.as_ref()) => {
                    connections.spawn(self.connection(client, publish.subscribe()));
                }
                Some(ended) = connections.join_next() => ended.expect("connections do not panic"),
            }
        }
    }

    fn listen_or_not(&self, fault: Option<Fault>, listener: &mut Option<TcpListener>) -> io::Result<()> {
        if fault == Some(Fault::Refuse) {
            *listener = None;
        } else if listener.is_none() {
            *listener = Some(bound(self.addr)?.listen(BACKLOG)?);
        }
        Ok(())
    }

    /// The whole life of one connection.
    fn connection(
        &self,
        client: TcpStream,
        settings: watch::Receiver<Setting>,
    ) -> impl Future<Output = ()> + use<> {
        let (upstream, open) = (self.upstream, Open::new(self.counts.clone()));
        async move {
            let server = tokio::select! {
                biased; // of a connection that ends the server must not hear
                ending = ended(settings.clone()) => return ending.bring([client]),
                server = dial(upstream, settings.clone()) => server,
            };
            let Ok(server) = server else { return Ending::Reset.bring([client]) };
            let ended = tokio::try_join!(
                pump(Direction::ToServer, &client, &server, settings.clone(), &open.0),
                pump(Direction::ToClient, &server, &client, settings, &open.0),
            );
            if let Err(ending) = ended {
                ending.bring([client, server]);
            }
        }
    }
}

/// Counts one connection for as long as it lives.
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: Arc<Counts>) -> Self {
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that occupies an address. Several of them may share one: of those, connections go to the one that listens,
/// and the others keep the port when it does not.
fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// A connection that the kernel has made already. Asked of the kernel itself: the runtime may not have heard of it yet.
fn waiting(listener: &TcpListener) -> Option<TcpStream> {
    let client = std::net::TcpStream::from(sys::accept(listener).ok()?);
    client.set_nonblocking(true).ok()?;
    TcpStream::from_std(client).ok()
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Waits for a fault that ends every connection.
async fn ended(mut settings: watch::Receiver<Setting>) -> Ending {
    let ending = settings.wait_for(|setting| setting.ends_all().is_some()).await;
    ending.ok().and_then(|setting| setting.ends_all()).unwrap_or(Ending::Closed) // the proxy itself ends
}

async fn dial(upstream: SocketAddr, mut settings: watch::Receiver<Setting>) -> io::Result<TcpStream> {
    let heard_of = settings.wait_for(|setting| !setting.hides_all()).await;
    drop(heard_of.map_err(io::Error::other)?); // the lock
    TcpStream::connect(upstream).await
}

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;
