//! Reads: on the caller's thread what the system has in memory, on threads of our own what it has to fetch.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    error::DiskError,
    files::{Segment, read_at},
    format::{self, Found, Place},
    index::lock,
    shared::{Known, Shared},
};
use crate::layer::LayerKey;

#[derive(Default)]
pub(super) struct Readers {
    queue: Mutex<Queue>,
    work: Condvar,
    /// The system, or the file system, has no reads that do not wait.
    pub(super) always_wait: AtomicBool,
}

#[derive(Default)]
struct Queue {
    reads: VecDeque<Read>,
    /// How many threads there are, and how many of them wait for work.
    threads: usize,
    idle: usize,
    ended: bool,
}

struct Read {
    segment: Arc<Segment>,
    place: Place,
    key: LayerKey,
    answer: oneshot::Sender<Answer>,
}

pub(super) type Answer = Result<Option<Bytes>, DiskError>;

/// An answer, or the wait for one.
pub(super) enum Reading {
    Ready(Answer),
    Wait(oneshot::Receiver<Answer>),
}

impl Reading {
    pub(super) async fn answer(self) -> Answer {
        match self {
            Self::Ready(answer) => answer,
            Self::Wait(answer) => answer.await.unwrap_or(Err(DiskError::Closed)),
        }
    }
}

impl Shared {
    pub(super) fn read(self: &Arc<Self>, key: &LayerKey) -> Reading {
        if let Err(error) = self.check_open() {
            return Reading::Ready(Err(error));
        }
        let (segment, place) = match self.look_up(format::hash(self.id, key), key) {
            Known::Nothing => return Reading::Ready(Ok(self.judge(None))),
            Known::Place(segment, place) => (segment, place),
            Known::Value(value) => return Reading::Ready(Ok(self.judge(Some(value)))),
        };
        if place.len() <= AT_ONCE && !self.readers.always_wait.load(Relaxed) {
            match read_without_waiting(&segment, place) {
                Ok(Some(record)) => return Reading::Ready(Ok(self.judge(self.value(record, key)))),
                Ok(None) => {}
                // Relaxed: it is a hint.
                Err(Unsupported) => self.readers.always_wait.store(true, Relaxed),
            }
        }
        let (answer, wait) = oneshot::channel();
        match self.hand_over(Read { segment, place, key: key.clone(), answer }) {
            Ok(()) => Reading::Wait(wait),
            Err(error) => Reading::Ready(Err(error)),
        }
    }

    /// To a thread that is idle, or to one more, or to whichever is free first.
    fn hand_over(self: &Arc<Self>, read: Read) -> Result<(), DiskError> {
        let mut queue = lock(&self.readers.queue);
        if queue.ended {
            return Err(DiskError::Closed);
        }
        if queue.reads.len() >= queue.idle && queue.threads < READERS {
            let shared = self.clone();
            let started = thread::Builder::new().name("swiftwater-read".into()).spawn(move || shared.serve());
            match started {
                Ok(_) => queue.threads += 1,
                Err(error) if queue.threads == 0 => {
                    return Err(DiskError::io("start a thread for", &self.path)(error));
                }
                // The others will do.
                Err(_) => {}
            }
        }
        queue.reads.push_back(read);
        drop(queue);
        self.readers.work.notify_one();
        Ok(())
    }

    /// The life of a reader's thread.
    fn serve(&self) {
        while let Some(read) = self.readers.next() {
            let Read { segment, place, key, answer } = read;
            if answer.is_closed() {
                continue;
            }
            let mut record = vec![0; place.len()];
            let found = read_at(&segment.file, &mut record, place.offset());
            let outcome = found.map_err(DiskError::io("read", &segment.path)).map(|len| {
                record.truncate(len);
                self.judge(self.value(record, &key))
            });
            // Lets go of the file first: whoever hears of it may count on that.
            drop(segment);
            let _ = answer.send(outcome);
        }
    }

    fn value(&self, record: Vec<u8>, key: &LayerKey) -> Option<Bytes> {
        match format::read_value(record, self.id, key) {
            // It stays in the index: were it gone from there, a removal would think it was gone from the disk, too.
            Found::Damaged => {
                self.stats.damaged.add(1);
                None
            }
            Found::Other => None,
            Found::Value(value) => Some(value),
        }
    }

    fn judge(&self, value: Option<Bytes>) -> Option<Bytes> {
        match &value {
            Some(value) => {
                self.stats.hits.add(1);
                self.stats.bytes_out.add(value.len() as u64);
            }
            None => self.stats.misses.add(1),
        }
        value
    }
}

impl Readers {
    /// Serves what is waiting, and then no more.
    pub(super) fn end(&self) {
        lock(&self.queue).ended = true;
        self.work.notify_all();
    }

    fn next(&self) -> Option<Read> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(read) = queue.reads.pop_front() {
                return Some(read);
            }
            if queue.ended {
                return None;
            }
            queue.idle += 1;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

struct Unsupported;

/// The record, if the system has all of it in memory. An error of the disk is for the thread that can wait to find.
#[cfg(target_os = "linux")]
fn read_without_waiting(segment: &Segment, place: Place) -> Result<Option<Vec<u8>>, Unsupported> {
    use std::io::IoSliceMut;

    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    let mut record = vec![0; place.len()];
    let mut parts = [IoSliceMut::new(&mut record)];
    match preadv2(&segment.file, &mut parts, place.offset(), ReadWriteFlags::NOWAIT) {
        Ok(len) => Ok((len == place.len()).then_some(record)),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Err(Unsupported),
        Err(_) => Ok(None),
    }
}

#[cfg(not(target_os = "linux"))]
fn read_without_waiting(_: &Segment, _: Place) -> Result<Option<Vec<u8>>, Unsupported> {
    Err(Unsupported)
}

/// Reads that wait for the device at the same time. Threads start when they are needed, and stay.
const READERS: usize = 4;
/// What is longer is not copied and checked on the caller's thread: at a few gigabytes a second, that takes up to about
/// 100 us.
const AT_ONCE: usize = 256 << 10;
