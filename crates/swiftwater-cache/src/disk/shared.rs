//! What callers, the writer and the readers share.
//!
//! Locks are taken in this order: a shard of the index, then the queue or the segments. The segment of a place is looked up
//! under the lock of its shard: eviction forgets the places of a segment before its slot is given to another one.

use std::{
    collections::VecDeque,
    mem,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot, watch};

use super::{
    error::DiskError,
    files::Segment,
    format::{self, EMPTY_RECORD, Place},
    index::{Index, Spot, lock},
    log::Log,
    queue::{Batch, Done, Item, Op, Queue},
    reader::Readers,
    stats::Stats,
};
use crate::layer::LayerKey;

pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) id: u64,
    pub(super) capacity: u64,
    pub(super) index: Index,
    pub(super) readers: Readers,
    pub(super) stats: Stats,
    /// Bytes of all files.
    pub(super) used: AtomicU64,
    /// Something could not be written, and what it was to replace is still on disk. Set before the index shows it.
    pub(super) voids: AtomicBool,
    /// The longest record.
    limit: usize,
    /// Bytes that the queue may take.
    queue_bytes: u32,
    /// What is left of them.
    room: Semaphore,
    queue: Mutex<Queue>,
    work: Condvar,
    segments: RwLock<VecDeque<Arc<Segment>>>,
    closed: AtomicBool,
    /// How it ended, once it has.
    ended: watch::Sender<Option<Result<(), DiskError>>>,
}

/// What is known of a key without waiting.
pub(super) enum Known {
    Nothing,
    Place(Arc<Segment>, Place),
    Value(Bytes),
}

impl Shared {
    pub(super) fn new(
        path: PathBuf,
        id: u64,
        capacity: u64,
        limit: usize,
        queue_bytes: u32,
        index: Index,
        segments: VecDeque<Arc<Segment>>,
    ) -> Self {
        Self {
            path,
            id,
            capacity,
            index,
            readers: Readers::default(),
            stats: Stats::default(),
            used: AtomicU64::new(0),
            voids: AtomicBool::new(false),
            limit,
            queue_bytes,
            room: Semaphore::new(queue_bytes as usize),
            queue: Mutex::default(),
            work: Condvar::new(),
            segments: RwLock::new(segments),
            closed: AtomicBool::new(false),
            ended: watch::Sender::new(None),
        }
    }

    pub(super) fn check_open(&self) -> Result<(), DiskError> {
        if self.closed.load(Acquire) { Err(DiskError::Closed) } else { Ok(()) }
    }

    pub(super) fn queued(&self) -> usize {
        (self.queue_bytes as usize).saturating_sub(self.room.available_permits())
    }

    pub(super) fn look_up(&self, hash: u64, key: &LayerKey) -> Known {
        let mut shard = self.index.shard(hash);
        let place = match shard.read(hash) {
            Some(Spot::Disk(place)) => place,
            Some(Spot::Queue(ticket)) => {
                let value = lock(&self.queue).value(ticket, key);
                return value.map_or(Known::Nothing, Known::Value);
            }
            None => return Known::Nothing,
        };
        let segments = self.read_segments();
        let oldest = segments.front().map_or(0, |segment| segment.number);
        match segments.get(place.after(oldest)) {
            Some(segment) => Known::Place(segment.clone(), place),
            // It is being evicted.
            None => Known::Nothing,
        }
    }

    pub(super) async fn put(&self, key: &LayerKey, value: Bytes) -> Result<(), DiskError> {
        self.check_open()?;
        let len = value.len();
        let Some(record) = format::record_len(key, len).filter(|record| *record <= self.limit) else {
            // What it was to replace must not stay.
            self.remove(key).await?;
            return Err(DiskError::TooLarge { len, limit: self.limit });
        };
        let weight = self.make_way(record).await?;
        let op = Op { hash: format::hash(self.id, key), item: Some(Item { key: key.clone(), value }) };
        self.enqueue(weight, op, None)?;
        self.stats.puts.add(1);
        self.stats.bytes_in.add(len as u64);
        Ok(())
    }

    pub(super) async fn remove(&self, key: &LayerKey) -> Result<(), DiskError> {
        self.check_open()?;
        let hash = format::hash(self.id, key);
        if self.has_nothing(hash) {
            self.stats.removes.add(1);
            return Ok(());
        }
        let weight = self.make_way(EMPTY_RECORD).await?;
        let (done, written) = oneshot::channel();
        self.enqueue(weight, Op { hash, item: None }, Some(done))?;
        self.stats.removes.add(1);
        written.await.unwrap_or(Err(DiskError::Closed))
    }

    pub(super) async fn close(&self) -> Result<(), DiskError> {
        self.begin_close();
        let mut ended = self.ended.subscribe();
        let outcome = ended.wait_for(Option::is_some).await;
        match outcome.as_deref() {
            Ok(Some(Err(error))) => Err(error.again()),
            _ => Ok(()),
        }
    }

    /// From here on everything is refused; the writer does what is in the queue, and ends.
    pub(super) fn begin_close(&self) {
        self.closed.store(true, Release);
        self.room.close();
        lock(&self.queue).closing = true;
        self.work.notify_one();
    }

    /// The life of the writer's thread.
    pub(super) fn run(log: Log) {
        let shared = log.shared.clone();
        let mut end = End { shared: &shared, outcome: Some(Err(DiskError::Closed)) };
        // Declared after `end`: whatever happens, the directory is free before anybody hears of it.
        let mut log = log;
        while let Some((batch, removals)) = shared.take_work() {
            #[cfg(test)]
            log.files.faults.pass_gate();
            log.write(batch.ops(), removals);
            lock(&shared.queue).written();
            let weight = batch.weight;
            drop(batch);
            shared.room.add_permits(weight);
        }
        let outcome = log.close();
        drop(log);
        end.outcome = Some(outcome);
    }

    pub(super) fn segments(&self) -> RwLockWriteGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_segments(&self) -> RwLockReadGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether neither memory nor disk knows of the hash, so that there is nothing to remove.
    fn has_nothing(&self, hash: u64) -> bool {
        let shard = self.index.shard(hash);
        // Relaxed: whoever lost it has set this before it took the same lock.
        shard.get(hash).is_none() && !self.voids.load(Relaxed)
    }

    /// Waits until the queue takes a record of this length; what it takes there.
    async fn make_way(&self, record: usize) -> Result<u32, DiskError> {
        // A record that is longer than the queue goes alone.
        let weight = u32::try_from(record + OP).unwrap_or(u32::MAX).min(self.queue_bytes);
        match self.room.acquire_many(weight).await {
            Ok(room) => room.forget(),
            Err(_) => return Err(DiskError::Closed),
        }
        Ok(weight)
    }

    fn enqueue(&self, weight: u32, op: Op, done: Option<Done>) -> Result<(), DiskError> {
        let hash = op.hash;
        // The queue's order and the index's must be the same.
        let mut shard = self.index.shard(hash);
        let mut queue = lock(&self.queue);
        if queue.closing {
            return Err(DiskError::Closed);
        }
        let ticket = queue.push(op, done, weight);
        let idle = mem::take(&mut queue.idle);
        drop(queue);
        shard.cover(hash, ticket);
        drop(shard);
        if idle {
            self.work.notify_one();
        }
        Ok(())
    }

    /// What there is to do, and who waits for it. `None` once there will be nothing more.
    fn take_work(&self) -> Option<(Arc<Batch>, Vec<Done>)> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(work) = queue.take() {
                queue.idle = false;
                return Some(work);
            }
            if queue.closing {
                return None;
            }
            queue.idle = true;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Says how the writer ended, also when it panics.
struct End<'a> {
    shared: &'a Shared,
    outcome: Option<Result<(), DiskError>>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.shared.begin_close();
        // Whoever waits for one of them learns by that.
        let rest = lock(&self.shared.queue).give_up();
        drop(rest);
        self.shared.readers.end();
        self.shared.segments().clear();
        self.shared.index.clear();
        self.shared.ended.send_replace(self.outcome.take());
    }
}

/// About what an operation takes in memory besides its record: whoever puts a thousand empty values takes memory, too.
const OP: usize = 128;
