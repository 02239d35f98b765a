//! One direction of one connection.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use rustix::net as sys;
use tokio::{net::TcpStream, sync::watch, time::sleep_until};

use super::{Counts, Direction, Fault, Setting};

/// How a connection ends before both sides have closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The end of the stream, in order after the bytes delivered.
    Closed,
    /// `RST`.
    Reset,
}

impl Ending {
    /// Ends a connection, on all the sides that it has. What fails is a side that has gone already.
    pub(super) fn bring(self, sides: impl IntoIterator<Item = TcpStream>) {
        for side in sides {
            match self {
                Self::Closed => {
                    let _ = sys::shutdown(&side, sys::Shutdown::Write);
                    drop(tokio::spawn(ignore(side)));
                }
                Self::Reset => {
                    let _ = sys::sockopt::set_socket_linger(&side, Some(Duration::ZERO));
                }
            }
        }
    }
}

/// Throws away what a side still sends, until it closes. Whatever the kernel finds unread in a closed socket it answers
/// with a reset, and forgets what was to be delivered before the end.
async fn ignore(side: TcpStream) {
    let mut scrap = vec![0; CHUNK];
    while side.readable().await.is_ok() {
        match side.try_read(&mut scrap) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => tokio::task::yield_now().await,
        }
    }
}

/// Passes on what comes `from` one side `to` the other, as the fault in force allows. `Ok` when the stream has ended and
/// its end has been passed on.
pub(super) async fn pump(
    direction: Direction,
    from: &TcpStream,
    to: &TcpStream,
    mut settings: watch::Receiver<Setting>,
    counts: &Counts,
) -> Result<(), Ending> {
    let mut held = Held::default();
    let mut setting = *settings.borrow_and_update();
    let mut passed = 0; // under this setting
    let mut paced = Instant::now(); // `Fault::Throttle` lets nothing pass before
    loop {
        let current = *settings.borrow_and_update();
        if current.number != setting.number {
            (setting, passed, paced) = (current, 0, Instant::now());
        }
        let allowed = match verdict(setting, direction, passed, held.oldest(), paced) {
            Verdict::End(ending) => return Err(ending),
            Verdict::Hold => Err(None),
            Verdict::HoldUntil(then) => Err(Some(then)),
            Verdict::Pass(bytes) => Ok(bytes),
        };
        if allowed.is_ok()
            && let Some(end) = held.end()
        {
            // A side that has gone has no use for it.
            let _ = end.map(|()| sys::shutdown(to, sys::Shutdown::Write));
            return end;
        }
        // Until here there was no await since the setting was read, and there is none between a `writable` and its write.
        tokio::select! {
            changed = settings.changed() => changed.map_err(|_| Ending::Closed)?,
            _ = from.readable(), if held.room(setting) => {
                counts.received.add(direction, held.read(from));
            }
            _ = to.writable(), if allowed.is_ok() && !held.is_empty() => {
                if settings.has_changed().is_ok_and(|changed| !changed) {
                    let bytes = held.write(to, allowed.unwrap_or(0)).map_err(|_| Ending::Reset)?;
                    counts.delivered.add(direction, bytes);
                    passed += bytes as u64;
                    if let Some(Fault::Throttle { per_second }) = setting.fault {
                        let late = Instant::now().checked_sub(CATCH_UP).map_or(paced, |then| then.max(paced));
                        paced = late + Duration::from_secs_f64(bytes as f64 / per_second.get() as f64);
                    }
                }
            }
            () = sleep_until(allowed.err().flatten().unwrap_or(paced).into()),
                if matches!(allowed, Err(Some(_))) && !held.is_empty() => {}
        }
        // A side that never pauses must not keep everybody else from running.
        tokio::task::yield_now().await;
    }
}

enum Verdict {
    End(Ending),
    Hold,
    HoldUntil(Instant),
    /// At most so many bytes; an end may pass too.
    Pass(u64),
}

fn verdict(
    setting: Setting,
    direction: Direction,
    passed: u64,
    oldest: Option<Instant>,
    paced: Instant,
) -> Verdict {
    if let Some(ending) = setting.ends(direction, passed) {
        return Verdict::End(ending);
    }
    let hold_until = |then: Instant, bytes| match then > Instant::now() {
        true => Verdict::HoldUntil(then),
        false => Verdict::Pass(bytes),
    };
    match setting.fault {
        Some(Fault::BlackHole { direction: lost, after }) if lost.covers(direction) => {
            match after.saturating_sub(passed) {
                0 => Verdict::Hold,
                bytes => Verdict::Pass(bytes),
            }
        }
        Some(Fault::Cut { direction: cut, after }) if cut.covers(direction) => Verdict::Pass(after - passed),
        Some(Fault::Delay(delay)) => match oldest.map(|arrived| arrived.checked_add(delay)) {
            Some(Some(due)) => hold_until(due, u64::MAX),
            Some(None) => Verdict::Hold, // for ever
            None => Verdict::Pass(0),
        },
        Some(Fault::Throttle { per_second }) => {
            hold_until(paced, (per_second.get() / STEPS_PER_SECOND).max(1))
        }
        _ => Verdict::Pass(u64::MAX),
    }
}

/// What has come and has not been passed on, with the time when it came.
#[derive(Default)]
struct Held {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// The stream has ended, in order or not; the chunks come first.
    end: Option<(Instant, Result<(), Ending>)>,
}

impl Held {
    fn oldest(&self) -> Option<Instant> {
        let end = self.end.map(|(arrived, _)| arrived);
        self.chunks.front().map(|&(arrived, _)| arrived).or(end)
    }

    fn is_empty(&self) -> bool {
        self.oldest().is_none()
    }

    /// How the stream has ended, if nothing comes before that.
    fn end(&self) -> Option<Result<(), Ending>> {
        self.end.filter(|_| self.chunks.is_empty()).map(|(_, end)| end)
    }

    fn room(&self, setting: Setting) -> bool {
        let most = if matches!(setting.fault, Some(Fault::Delay(_))) { MOST_DELAYED } else { MOST_HELD };
        self.end.is_none() && self.bytes < most
    }

    /// Reads once, and returns how much.
    fn read(&mut self, from: &TcpStream) -> usize {
        let mut chunk = vec![0; CHUNK];
        match from.try_read(&mut chunk) {
            Ok(0) => self.end = Some((Instant::now(), Ok(()))),
            Ok(bytes) => {
                chunk.truncate(bytes);
                self.bytes += bytes;
                self.chunks.push_back((Instant::now(), chunk));
                return bytes;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.end = Some((Instant::now(), Err(Ending::Reset))),
        }
        0
    }

    /// Writes once, no more than allowed, and returns how much.
    fn write(&mut self, to: &TcpStream, allowed: u64) -> io::Result<usize> {
        let Some((_, chunk)) = self.chunks.front_mut() else { return Ok(0) };
        let most = chunk.len().min(usize::try_from(allowed).unwrap_or(usize::MAX));
        let written = match to.try_write(&chunk[..most]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            result => result?,
        };
        self.bytes -= written;
        if written == chunk.len() {
            self.chunks.pop_front();
        } else {
            chunk.drain(..written);
        }
        Ok(written)
    }
}

/// The most that is read at once.
const CHUNK: usize = 16 * 1024;
/// The most that is held in one direction, give or take a chunk; beyond it the sender feels it.
const MOST_HELD: usize = 64 * 1024;
/// The same under `Fault::Delay`: throughput is this, divided by the delay.
const MOST_DELAYED: usize = 16 * 1024 * 1024;
const STEPS_PER_SECOND: u64 = 50;
/// How much of the time that a late timer lost is made up for.
const CATCH_UP: Duration = Duration::from_millis(20);
