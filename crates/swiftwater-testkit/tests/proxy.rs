//! A proxy fails in the way that it is told, to the byte, and in no other.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    num::NonZero,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use swiftwater_testkit::{Direction, Fault, Proxy, eventually};

/// For what happens within milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(30);
/// Waited for in full, where nothing may come.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a server has seen of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    bytes: Vec<u8>,
    end: Result<(), ErrorKind>,
}

/// Sends everything back; what it has seen of each connection comes out here when the connection has ended.
fn echo() -> (SocketAddr, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let tell = tell.clone();
            thread::spawn(move || {
                let mut connection = connection.unwrap();
                let mut bytes = Vec::new();
                let end = echo_one(&mut connection, &mut bytes).map_err(|error| error.kind());
                let _ = tell.send(Seen { bytes, end }); // the test may be over
            });
        }
    });
    (addr, told)
}

fn echo_one(connection: &mut TcpStream, seen: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        let length = connection.read(&mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&chunk[..length]);
        connection.write_all(&chunk[..length])?;
    }
}

fn connect(proxy: &Proxy) -> TcpStream {
    let client = TcpStream::connect(proxy.addr()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

/// One question and its answer.
fn ask(client: &mut TcpStream, question: &[u8]) {
    client.write_all(question).unwrap();
    let mut answer = vec![0; question.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, question);
}

/// Everything that is there before the end of the stream.
fn rest(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).map(|_| rest)
}

/// Bytes that are in order or not.
fn numbers(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn without_a_fault_every_byte_passes_and_each_half_is_closed_by_itself() {
    let (server, seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut client = connect(&proxy);
    let all = numbers(500_000); // more than all buffers hold
    let mut writer = client.try_clone().unwrap();
    let sent = all.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(rest(&mut client).unwrap(), all);
    writing.join().unwrap();
    assert_eq!(seen.recv().unwrap(), Seen { bytes: all, end: Ok(()) });
}

#[tokio::test]
async fn what_passes_is_counted_each_way() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
    let mut client = connect(&proxy);
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"question").unwrap();
    server.write_all(b"answers").unwrap();
    for (direction, bytes) in [(Direction::ToServer, 8), (Direction::ToClient, 7), (Direction::Both, 15)] {
        eventually(SOON, "all is counted", async || proxy.delivered(direction) == bytes).await;
        assert_eq!(proxy.received(direction), bytes);
    }
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    drop((client, server));
    eventually(SOON, "the connection has ended", async || proxy.open() == 0).await;
}

#[test]
fn a_reset_of_one_side_is_a_reset_for_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
    let mut client = connect(&proxy);
    let (server, _) = listener.accept().unwrap();
    client.write_all(b"never read").unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(server.peek(&mut [0]).unwrap(), 1);
    drop(server); // with something unread: the kernel resets
    assert_eq!(rest(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn where_no_server_listens_the_client_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
    drop(listener);
    assert_eq!(rest(&mut connect(&proxy)).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn refuse_refuses_the_new_and_leaves_the_old() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut old = connect(&proxy);
    ask(&mut old, b"before");

    proxy.set(Fault::Refuse).unwrap();
    let error = TcpStream::connect(proxy.addr()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    ask(&mut old, b"meanwhile");

    proxy.clear().unwrap();
    ask(&mut connect(&proxy), b"after");
    ask(&mut old, b"still");
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn while_it_refuses_nobody_else_gets_its_port() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    proxy.set(Fault::Refuse).unwrap(); // without a connection, which would keep the port too
    TcpListener::bind(proxy.addr()).unwrap_err();
    // A client that knocks often enough could be given the very port that it knocks at.
    for _ in 0..1000 {
        TcpStream::connect(proxy.addr()).unwrap_err();
    }
    proxy.clear().unwrap();
    ask(&mut connect(&proxy), b"hello");
}

#[test]
fn a_connection_made_before_it_refuses_is_an_old_one() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    for _ in 0..50 {
        let mut clients = [connect(&proxy), connect(&proxy), connect(&proxy)];
        proxy.set(Fault::Refuse).unwrap();
        clients.iter_mut().for_each(|client| ask(client, b"?"));
        proxy.clear().unwrap();
    }
}

#[test]
fn reset_resets_the_old_and_the_new_on_both_sides() {
    let (server, seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut old = connect(&proxy);
    ask(&mut old, b"before");

    proxy.set(Fault::Reset).unwrap();
    assert_eq!(proxy.open(), 0);
    assert_eq!(rest(&mut old).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let expected = Seen { bytes: b"before".to_vec(), end: Err(ErrorKind::ConnectionReset) };
    assert_eq!(seen.recv_timeout(SOON).unwrap(), expected);
    let new = TcpStream::connect(proxy.addr()).and_then(|mut client| rest(&mut client));
    assert_eq!(new.unwrap_err().kind(), ErrorKind::ConnectionReset);

    proxy.clear().unwrap();
    let mut after = connect(&proxy);
    ask(&mut after, b"after");
    drop(after);
    let expected = Seen { bytes: b"after".to_vec(), end: Ok(()) };
    assert_eq!(seen.recv_timeout(SOON).unwrap(), expected, "of the reset one the server has not heard");
}

#[test]
fn a_connection_made_before_a_reset_that_is_over_does_not_survive_it() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    for _ in 0..50 {
        let mut client = connect(&proxy);
        proxy.set(Fault::Reset).unwrap();
        proxy.clear().unwrap();
        assert_eq!(rest(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn in_a_black_hole_nothing_is_delivered_and_nothing_closed_and_all_of_it_later() {
    let (server, seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut old = connect(&proxy);
    ask(&mut old, b"before");

    proxy.set(Fault::BlackHole { direction: Direction::Both, after: 0 }).unwrap();
    let delivered = proxy.delivered(Direction::Both);
    let mut new = connect(&proxy);
    new.write_all(b"new").unwrap();
    old.write_all(b"lost?").unwrap();
    old.shutdown(Shutdown::Write).unwrap();
    eventually(SOON, "it has come to the proxy", async || proxy.received(Direction::ToServer) >= 11).await;
    for client in [&mut old, &mut new] {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.set_read_timeout(Some(SOON)).unwrap();
    }
    assert_eq!(proxy.delivered(Direction::Both), delivered);
    assert!(seen.try_recv().is_err(), "the server does not see the end either");

    proxy.clear().unwrap();
    assert_eq!(rest(&mut old).unwrap(), b"lost?");
    assert_eq!(seen.recv_timeout(SOON).unwrap(), Seen { bytes: b"beforelost?".to_vec(), end: Ok(()) });
    let mut answer = [0; 3];
    new.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"new");
}

#[test]
fn a_server_does_not_hear_of_a_new_connection_in_a_black_hole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
    proxy.set(Fault::BlackHole { direction: Direction::ToServer, after: 0 }).unwrap();
    let mut client = connect(&proxy);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_black_hole_can_open_in_the_middle_of_an_answer_and_swallow_it_one_way() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut old = connect(&proxy);
    ask(&mut old, b"counts from the setting");

    proxy.set(Fault::BlackHole { direction: Direction::ToClient, after: 5 }).unwrap();
    for mut client in [old, connect(&proxy)] {
        let (received, delivered) =
            (proxy.received(Direction::ToClient), proxy.delivered(Direction::ToServer));
        client.write_all(b"0123456789").unwrap();
        let mut half = [0; 5];
        client.read_exact(&mut half).unwrap();
        assert_eq!(&half, b"01234");
        eventually(SOON, "the server has answered", async || {
            proxy.received(Direction::ToClient) == received + 10
        })
        .await;
        assert_eq!(proxy.delivered(Direction::ToServer), delivered + 10);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(client.read(&mut half).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_black_hole_holds_back_its_sender_when_the_buffers_are_full() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut client = connect(&proxy);
    ask(&mut client, b"before");
    proxy.set(Fault::BlackHole { direction: Direction::ToServer, after: 0 }).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let error = client.write_all(&vec![0; 64 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let held = proxy.received(Direction::ToServer);
    assert!(held < 100_000, "{held} bytes, and more might come");
}

#[test]
fn a_delay_is_one_of_each_byte_and_of_the_end_and_not_of_the_next_byte() {
    let (server, seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let delay = Duration::from_millis(100);
    proxy.set(Fault::Delay(delay)).unwrap();
    let mut client = connect(&proxy);
    // At least: a busy machine only makes it longer.
    let sent = Instant::now();
    ask(&mut client, b"there and back");
    assert!(sent.elapsed() >= 2 * delay);
    let closed = Instant::now();
    drop(client);
    assert_eq!(seen.recv_timeout(SOON).unwrap(), Seen { bytes: b"there and back".to_vec(), end: Ok(()) });
    assert!(closed.elapsed() >= delay);
}

#[tokio::test]
async fn under_a_delay_much_is_under_way_at_once_and_comes_in_order() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut client = connect(&proxy);
    proxy.set(Fault::Delay(Duration::from_secs(3600))).unwrap();
    let all = numbers(1_000_000);
    let mut writer = client.try_clone().unwrap();
    let sent = all.clone();
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    eventually(SOON, "all of it is under way", async || {
        proxy.received(Direction::ToServer) == all.len() as u64
    })
    .await;
    writing.join().unwrap();
    assert_eq!(proxy.delivered(Direction::Both), 0);

    proxy.set(Fault::Delay(Duration::from_millis(1))).unwrap(); // what is under way is due by now
    let mut answer = vec![0; all.len()];
    client.read_exact(&mut answer).unwrap();
    assert!(answer == all, "not in order");
}

#[test]
fn a_throttle_takes_at_least_the_time_that_the_bytes_need_and_keeps_their_order() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut client = connect(&proxy);
    proxy.set(Fault::Throttle { per_second: NonZero::new(100_000).unwrap() }).unwrap();
    let all = numbers(10_000); // 40,000 bytes: 400 ms
    let start = Instant::now();
    ask(&mut client, &all);
    assert!(start.elapsed() >= Duration::from_millis(400 - 40), "{:?}", start.elapsed());

    proxy.set(Fault::Throttle { per_second: NonZero::new(1).unwrap() }).unwrap();
    client.write_all(&all).unwrap();
    proxy.clear().unwrap(); // it would take 11 hours
    let mut answer = vec![0; all.len()];
    client.read_exact(&mut answer).unwrap();
    assert!(answer == all, "not in order");
}

#[test]
fn a_cut_towards_the_client_ends_its_answer_after_exactly_so_many_bytes() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    for after in [0, 1, 7, 4095, 4096, 100_000] {
        let mut old = connect(&proxy);
        ask(&mut old, b"counts from the setting");
        proxy.set(Fault::Cut { direction: Direction::ToClient, after }).unwrap();
        for mut client in [old, connect(&proxy)] {
            let all = numbers(50_000);
            let mut writer = client.try_clone().unwrap();
            let sent = all.clone();
            let writing = thread::spawn(move || {
                let _ = writer.write_all(&sent); // it may fail: the connection is cut meanwhile
            });
            assert_eq!(rest(&mut client).unwrap(), all[..after as usize], "in order, and a clean end");
            writing.join().unwrap();
        }
        proxy.clear().unwrap();
    }
}

#[test]
fn a_cut_towards_the_server_ends_the_request_after_exactly_so_many_bytes() {
    let (server, seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    for after in [1, 7, 4096] {
        proxy.set(Fault::Cut { direction: Direction::ToServer, after }).unwrap();
        let mut client = connect(&proxy);
        let all = numbers(10_000);
        let _ = client.write_all(&all);
        let answer = rest(&mut client).unwrap();
        assert!(all.starts_with(&answer));
        let Seen { bytes, end } = seen.recv_timeout(SOON).unwrap();
        assert_eq!(bytes, all[..after as usize]);
        assert_eq!(end, Ok(()));
    }
}

#[tokio::test]
async fn what_was_delivered_before_a_cut_stays_so_whatever_the_client_sends_before_it_reads() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
    proxy.set(Fault::Cut { direction: Direction::ToClient, after: 1_000_000 }).unwrap();
    let mut client = connect(&proxy);
    let (mut server, _) = listener.accept().unwrap();
    let all = numbers(300_000);
    let sent = all.clone();
    let writing = thread::spawn(move || server.write_all(&sent).unwrap());
    eventually(SOON, "it is cut", async || proxy.open() == 0).await;
    for _ in 0..100 {
        client.write_all(b"are you there?").unwrap();
    }
    assert_eq!(rest(&mut client).unwrap(), all[..1_000_000]);
    writing.join().unwrap();
}

#[test]
fn a_cut_both_ways_is_counted_each_way() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
    proxy.set(Fault::Cut { direction: Direction::Both, after: 10 }).unwrap();
    let mut client = connect(&proxy);
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"123456").unwrap();
    server.read_exact(&mut [0; 6]).unwrap();
    server.write_all(b"123456").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    server.write_all(b"789012").unwrap();
    assert_eq!(rest(&mut client).unwrap(), b"7890");
    assert_eq!(rest(&mut server).unwrap(), b"");
}

#[test]
fn a_cut_at_once_ends_old_and_new_connections_in_good_order() {
    let (server, seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut old = connect(&proxy);
    ask(&mut old, b"before");
    proxy.set(Fault::Cut { direction: Direction::ToServer, after: 0 }).unwrap();
    assert_eq!(proxy.open(), 0);
    assert_eq!(rest(&mut old).unwrap(), b"");
    assert_eq!(seen.recv_timeout(SOON).unwrap(), Seen { bytes: b"before".to_vec(), end: Ok(()) });
    assert_eq!(rest(&mut connect(&proxy)).unwrap(), b"");
}

#[tokio::test]
async fn faults_change_under_many_connections_at_once() {
    let (server, _seen) = echo();
    let proxy = Proxy::start(server).unwrap();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..40_u32)
            .map(|_| {
                scope.spawn(|| {
                    let (all, mut client) = (numbers(20_000), connect(&proxy));
                    all.chunks(999).for_each(|chunk| ask(&mut client, chunk));
                })
            })
            .collect();
        let mut faults = [
            Fault::BlackHole { direction: Direction::ToClient, after: 5000 },
            Fault::BlackHole { direction: Direction::Both, after: 0 },
            Fault::Delay(Duration::from_millis(2)),
            Fault::Throttle { per_second: NonZero::new(1_000_000).unwrap() },
        ]
        .into_iter()
        .cycle();
        while !clients.iter().all(thread::ScopedJoinHandle::is_finished) {
            proxy.set(faults.next().unwrap()).unwrap();
            proxy.clear().unwrap();
        }
    });
    assert_eq!(proxy.accepted(), 40);
    let all = 2 * 40 * 80_000;
    eventually(SOON, "all is counted", async || proxy.delivered(Direction::Both) == all).await;
}

#[tokio::test]
async fn dropping_it_closes_every_connection_and_ends_its_thread_and_frees_its_port() {
    let (server, seen) = echo();
    let idle = Proxy::start(server).unwrap();
    let busy = Proxy::start(server).unwrap();
    let names = [&idle, &busy].map(|proxy| format!("proxy:{}", proxy.addr().port()));
    assert!(names.iter().all(|name| threads().contains(name)), "{names:?}");
    busy.set(Fault::BlackHole { direction: Direction::ToServer, after: 3 }).unwrap();
    let mut clients = [connect(&busy), connect(&busy)];
    clients[0].write_all(b"123456").unwrap();
    clients[0].read_exact(&mut [0; 3]).unwrap();

    let addrs = [idle.addr(), busy.addr()];
    drop((idle, busy));
    for addr in addrs {
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    for client in &mut clients {
        assert!(!matches!(client.read(&mut [0]), Ok(1)), "closed");
    }
    let mut seen: Vec<_> = (0..2).map(|_| seen.recv_timeout(SOON).unwrap().bytes).collect();
    seen.sort();
    assert_eq!(seen, [b"".to_vec(), b"123".to_vec()]);
    // The kernel lists a joined thread for a moment longer.
    eventually(SOON, "no thread is left", async || !names.iter().any(|name| threads().contains(name))).await;
}

/// The names of this process's threads.
fn threads() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the two looks.
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}
