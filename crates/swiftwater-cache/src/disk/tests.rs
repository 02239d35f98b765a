//! What takes breaking the system's calls to see.

use std::{
    collections::HashMap,
    fs::{self, File},
    future::Future,
    io,
    ops::Deref,
    os::unix::fs::FileExt,
    path::Path,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
    thread,
};

use bytes::Bytes;
use tempfile::{TempDir, tempdir};

use super::{Disk, files::Files, index::lock};
use crate::layer::{Layer, LayerKey};

/// Makes the calls of `files` fail.
pub(super) struct Faults {
    /// Bytes that can still be written.
    room: AtomicU64,
    /// The most that can be written at once.
    longest: AtomicU64,
    /// Nothing can be shortened or removed.
    stuck: AtomicBool,
    /// The writer's end.
    panic: AtomicBool,
    /// Whoever holds it holds the writer up.
    gate: Mutex<()>,
    /// The most that all files ever took, of those writes that were looked at.
    most: AtomicU64,
    look: AtomicBool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            room: AtomicU64::new(u64::MAX),
            longest: AtomicU64::new(u64::MAX),
            stuck: AtomicBool::new(false),
            panic: AtomicBool::new(false),
            gate: Mutex::new(()),
            most: AtomicU64::new(0),
            look: AtomicBool::new(false),
        }
    }
}

impl Faults {
    pub(super) fn pass_gate(&self) {
        drop(lock(&self.gate));
        assert!(!self.panic.load(SeqCst), "the writer ends as it was told to");
    }

    pub(super) fn create(&self) -> io::Result<()> {
        if self.room.load(SeqCst) == 0 { Err(full()) } else { Ok(()) }
    }

    /// As a full device does it: what fits is written.
    pub(super) fn write(&self, file: &File, path: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
        let len = bytes.len() as u64;
        if self.look.load(SeqCst) {
            let (before, after) = (file.metadata()?.len(), at + len);
            let others = lengths(path.parent().unwrap()).iter().sum::<u64>() - before;
            self.most.fetch_max(others + before.max(after), SeqCst);
        }
        let longest = self.longest.load(SeqCst);
        if len > longest {
            file.write_all_at(&bytes[..longest as usize], at)?;
            return Err(full());
        }
        let take = |room: u64| if room == u64::MAX { None } else { Some(room.saturating_sub(len)) };
        match self.room.fetch_update(SeqCst, SeqCst, take) {
            Ok(room) if room < len => {
                file.write_all_at(&bytes[..room as usize], at)?;
                Err(full())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn change(&self) -> io::Result<()> {
        if self.stuck.load(SeqCst) { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

#[test]
fn a_full_device_loses_what_is_new_and_shows_nothing_old() {
    let test = Test::new();
    let disk = test.open();
    (0..10).for_each(|number| test.put(&disk, number, 0));
    test.written(&disk);
    test.faults.room.store(0, SeqCst);
    test.put(&disk, 1, 1);
    assert!(run(disk.remove(&key(2))).is_err(), "its tombstone could not be written");
    assert_eq!(get(&disk, 1), None, "lost");
    assert_eq!(get(&disk, 2), None, "forgotten, if not on disk");
    assert!(run(disk.remove(&key(1))).is_err(), "its past is still on disk");
    for number in [0, 3, 9] {
        assert_eq!(get(&disk, number), Some(value(number, 0)), "it goes on serving what it has");
    }
    assert_eq!(disk.shared().stats.lost.read(), 1);
    test.faults.room.store(u64::MAX, SeqCst);
    test.put(&disk, 3, 5);
    run(disk.remove(&key(4))).unwrap();
    // As a kill would leave it, and as a close does.
    let copied = test.copy();
    run(disk.close()).unwrap();
    for path in [&copied, &test.path()] {
        let disk = open(path, Arc::default());
        for number in [1, 2, 4] {
            assert_eq!(get(&disk, number), None);
        }
        assert_eq!(get(&disk, 3), Some(value(3, 5)));
        assert_eq!(get(&disk, 9), Some(value(9, 0)));
        run(disk.close()).unwrap();
    }
}

#[test]
fn whatever_fails_wherever_shows_nothing_old() {
    let rewritten = fail_wherever(60, CAPACITY);
    assert_eq!(rewritten, 0, "there is room for all");
}

#[test]
fn whatever_fails_where_segments_are_evicted_shows_nothing_old() {
    let rewritten = fail_wherever(150, TIGHT);
    assert!(rewritten > 200, "only {rewritten} had a second chance");
}

/// The device is full after every number of bytes, with and without a system that lets us clean up. How many values had a
/// second chance.
fn fail_wherever(keys: u64, capacity: u64) -> u64 {
    let mut rewritten = 0;
    for (room, stuck) in (0..3000).step_by(41).flat_map(|room| [(room, false), (room, true)]) {
        let test = Test::new();
        let disk = open_with(&test.path(), test.faults.clone(), capacity);
        (0..keys).for_each(|number| test.put(&disk, number, 0));
        test.written(&disk);
        read(&disk, keys);
        let mut twin = Twin::default();
        test.faults.room.store(room, SeqCst);
        test.faults.stuck.store(stuck, SeqCst);
        for number in 0..keys {
            test.put(&disk, number, 1);
            twin.put(number, 1);
            if number % 4 == 0 && run(disk.remove(&key(number))).is_ok() {
                twin.remove(number);
            }
        }
        let check = |disk: &Disk, what: &str| {
            for (number, found) in (0..keys).zip(read(disk, keys)) {
                let right = found.is_none() || found == twin.get(number);
                assert!(right, "{what}, room for {room}, stuck: {stuck}: key {number} has {found:?}");
            }
        };
        check(&disk, "while it is full");
        let copied = open_with(&test.copy(), Arc::default(), capacity);
        for (number, found) in (0..keys).zip(read(&copied, keys)) {
            let right = found.is_none() || twin.get(number).is_some();
            assert!(
                right,
                "after a kill, room for {room}, stuck: {stuck}: key {number} was removed and has {found:?}"
            );
        }
        run(copied.close()).unwrap();
        test.faults.room.store(u64::MAX, SeqCst);
        test.faults.stuck.store(false, SeqCst);
        // An answered removal: everything before it is on disk.
        test.written(&disk);
        check(&disk, "when there is room");
        let copied = open_with(&test.copy(), Arc::default(), capacity);
        check(&copied, "after a kill");
        run(copied.close()).unwrap();
        run(disk.close()).unwrap();
        let sum: u64 = test.files_on_disk().iter().sum();
        assert_eq!(sum, disk.shared().used.load(Relaxed) + 64, "nothing is left of what was cut short");
        rewritten += disk.shared().stats.rewritten.read();
        let disk = open_with(&test.path(), test.faults.clone(), capacity);
        check(&disk, "after a close");
        test.put(&disk, 1, 2);
        assert_eq!(get(&disk, 1), Some(value(1, 2)));
        run(disk.close()).unwrap();
    }
    rewritten
}

#[test]
fn a_second_chance_that_fails_costs_nothing_else() {
    let test = Test::new();
    let disk = open_with(&test.path(), test.faults.clone(), TIGHT);
    (0..100).for_each(|number| test.put(&disk, number, 0));
    test.written(&disk);
    read(&disk, 100);
    // Less than half a segment, and more than anything else.
    test.faults.longest.store(1500, SeqCst);
    for round in 0..20 {
        let new = 1000 + round * 5..1005 + round * 5;
        // In one batch, so that some are in the buffer when it fails.
        let gate = lock(&test.faults.gate);
        new.clone().for_each(|number| test.put(&disk, number, 0));
        drop(gate);
        test.written(&disk);
        new.for_each(|number| assert_eq!(get(&disk, number), Some(value(number, 0))));
    }
    assert_eq!(get(&disk, 0), None, "it was evicted though it was read");
    assert_eq!(disk.shared().stats.lost.read(), 0);
    test.faults.longest.store(u64::MAX, SeqCst);
    (0..100).for_each(|number| run(disk.remove(&key(number))).unwrap());
    let copied = open_with(&test.copy(), Arc::default(), TIGHT);
    assert!(read(&copied, 100).iter().all(Option::is_none), "what is left of it came back");
    run(copied.close()).unwrap();
}

#[test]
fn what_was_cut_short_is_cut_off() {
    let test = Test::new();
    let disk = test.open();
    test.put(&disk, 1, 0);
    test.written(&disk);
    test.faults.room.store(2000, SeqCst);
    run(disk.put(&key(2), Bytes::from(vec![1; 3000]), None)).unwrap();
    // It is written before this fails, or with it.
    assert!(run(disk.remove(&key(1))).is_err() || disk.shared().stats.lost.read() == 1);
    test.faults.room.store(u64::MAX, SeqCst);
    test.put(&disk, 3, 0);
    test.written(&disk);
    let copied = open(&test.copy(), Arc::default());
    assert_eq!([1, 2, 3].map(|number| get(&copied, number)), [None, None, Some(value(3, 0))]);
    run(disk.close()).unwrap();
    let sum: u64 = test.files_on_disk().iter().sum();
    assert_eq!(sum, disk.shared().used.load(Relaxed) + 64);
}

#[test]
fn a_close_that_cannot_write_what_is_gone_leaves_nothing() {
    let test = Test::new();
    let disk = test.open();
    (0..10).for_each(|number| test.put(&disk, number, 0));
    test.written(&disk);
    test.faults.room.store(0, SeqCst);
    test.put(&disk, 1, 1);
    assert!(run(disk.close()).is_err());
    assert!(run(disk.close()).is_err(), "it is told to everybody");
    test.faults.room.store(u64::MAX, SeqCst);
    let disk = test.open();
    (0..10).for_each(|number| assert_eq!(get(&disk, number), None));
}

#[test]
fn too_much_that_cannot_be_written_costs_everything_older() {
    let test = Test::new();
    let disk = test.open();
    (0..100).for_each(|number| test.put(&disk, number, 0));
    test.written(&disk);
    test.faults.room.store(0, SeqCst);
    (0..50).for_each(|number| test.put(&disk, number, 1));
    assert!(run(disk.remove(&key(50))).is_err());
    assert_eq!(get(&disk, 99), None);
    assert_eq!(disk.shared().index.entries(), 0);
    test.faults.room.store(u64::MAX, SeqCst);
    test.put(&disk, 3, 2);
    test.written(&disk);
    for path in [&test.copy(), &test.path()] {
        if *path == test.path() {
            run(disk.close()).unwrap();
        }
        let disk = open(path, Arc::default());
        for number in 0..100 {
            assert_eq!(get(&disk, number), (number == 3).then(|| value(3, 2)));
        }
        run(disk.close()).unwrap();
    }
}

#[test]
fn no_write_exceeds_the_capacity() {
    let test = Test::new();
    let capacity = 5 * 4096;
    test.faults.look.store(true, SeqCst);
    for round in 0..3 {
        let disk =
            Disk::builder(test.path()).segment(4096).capacity(capacity).build_on(test.files()).unwrap();
        for number in 0..500 {
            let len = number * (613 + round) % 3900;
            run(disk.put(&key(number), Bytes::from(vec![1; len as usize]), None)).unwrap();
            if number % 10 < 7 {
                test.written(&disk);
            }
            if round > 0 {
                read(&disk, number);
            }
        }
        run(disk.close()).unwrap();
        let most = test.faults.most.load(SeqCst);
        assert!(most <= capacity, "{most} bytes");
        // Room is left for second chances, and used if there are some.
        let tried = if round > 0 { capacity - 512 } else { capacity - 4096 / 2 - 512 };
        assert!(most > tried, "only {most} bytes in round {round}, so nothing was tried");
    }
}

#[test]
fn what_cannot_be_removed_keeps_the_capacity() {
    let test = Test::new();
    let disk = test.open();
    (0..3000).for_each(|number| test.put(&disk, number, 0));
    test.written(&disk);
    test.faults.stuck.store(true, SeqCst);
    (0..3000).for_each(|number| test.put(&disk, number, 1));
    let _ = run(disk.remove(&key(1)));
    let sum: u64 = test.files_on_disk().iter().sum();
    assert!(sum <= CAPACITY, "{sum} bytes");
    assert!(disk.shared().stats.lost.read() > 0);
    test.faults.stuck.store(false, SeqCst);
    (0..3000).for_each(|number| test.put(&disk, number, 2));
    test.written(&disk);
    assert_eq!(get(&disk, 2999), Some(value(2999, 2)));
    for number in 0..3000 {
        let found = get(&disk, number);
        assert!(found.is_none() || found == Some(value(number, 2)));
    }
}

/// All in one batch, so that the writer knows of nothing but the queue when it evicts.
#[test]
fn what_changes_while_its_segment_is_evicted_does_not_come_back() {
    let test = Test::new();
    let disk = open_with(&test.path(), test.faults.clone(), TIGHT);
    (0..60).for_each(|number| test.put(&disk, number, 0));
    test.written(&disk);
    read(&disk, 60);
    let gate = lock(&test.faults.gate);
    // The writer takes the first one, and waits with it.
    test.put(&disk, 1000, 0);
    let mut cx = Context::from_waker(Waker::noop());
    let removed: Vec<_> = (0..60).filter(|number| number % 3 == 0).map(key).collect();
    let mut removals: Vec<_> = removed.iter().map(|key| Box::pin(disk.remove(key))).collect();
    for removal in &mut removals {
        assert!(removal.as_mut().poll(&mut cx).is_pending());
    }
    (0..60).filter(|number| number % 3 == 1).for_each(|number| test.put(&disk, number, 1));
    // Evicts all that there was.
    (2000..2120).for_each(|number| test.put(&disk, number, 0));
    drop(gate);
    removals.into_iter().for_each(|removal| run(removal).unwrap());
    test.written(&disk);
    let kept = |disk: &Disk| {
        for (number, found) in (0..60).zip(read(disk, 60)) {
            match number % 3 {
                0 => assert_eq!(found, None, "key {number} was removed"),
                1 => {
                    assert!(found.is_none() || found == Some(value(number, 1)), "key {number} has {found:?}")
                }
                _ => assert_eq!(found, Some(value(number, 0)), "key {number}"),
            }
        }
    };
    kept(&disk);
    let copied = open_with(&test.copy(), Arc::default(), TIGHT);
    kept(&copied);
    run(copied.close()).unwrap();
    run(disk.close()).unwrap();
    kept(&open_with(&test.path(), Arc::default(), TIGHT));
}

#[test]
fn a_full_queue_makes_callers_wait_and_serves_what_is_in_it() {
    let test = Test::new();
    let builder = Disk::builder(test.path()).segment(4 << 10).capacity(CAPACITY).queue(4 << 10);
    let disk = Opened(builder.build_on(test.files()).unwrap());
    run(disk.put(&key(1), value(1, 0), None)).unwrap();
    test.written(&disk);
    let gate = lock(&test.faults.gate);
    let mut cx = Context::from_waker(Waker::noop());
    let mut taken = 0;
    let waiting = loop {
        let (key, value) = (key(taken), value(taken, 1));
        let mut put = Box::pin({
            let disk = disk.clone();
            async move { disk.put(&key, value, None).await }
        });
        match put.as_mut().poll(&mut cx) {
            Poll::Ready(outcome) => outcome.unwrap(),
            Poll::Pending => break put,
        }
        taken += 1;
        assert!(taken < 100, "4 KiB take no more");
    };
    assert!(taken > 5);
    (0..taken).for_each(|number| assert_eq!(get(&disk, number), Some(value(number, 1))));
    let (name, more) = (key(0), key(taken + 1));
    let mut removal = pin!(disk.remove(&name));
    assert!(removal.as_mut().poll(&mut cx).is_pending());
    // It has not been taken in, and may be dropped.
    let mut dropped = Box::pin(disk.put(&more, value(9, 9), None));
    assert!(dropped.as_mut().poll(&mut cx).is_pending());
    drop(dropped);
    drop(gate);
    run(waiting).unwrap();
    run(removal).unwrap();
    assert_eq!(get(&disk, 0), None);
    (1..=taken).for_each(|number| assert_eq!(get(&disk, number), Some(value(number, 1))));
    assert_eq!(get(&disk, taken + 1), None);
    run(disk.close()).unwrap();
    assert_eq!(disk.shared().queued(), 0);
}

#[test]
fn a_close_lets_those_go_who_wait_for_the_queue() {
    let test = Test::new();
    let disk = Opened(Disk::builder(test.path()).queue(4 << 10).build_on(test.files()).unwrap());
    let gate = lock(&test.faults.gate);
    let mut cx = Context::from_waker(Waker::noop());
    let large = Bytes::from(vec![1; 100_000]);
    run(disk.put(&key(1), large.clone(), None)).unwrap();
    let name = key(2);
    let mut waits = pin!(disk.put(&name, large.clone(), None));
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    let mut close = pin!(disk.close());
    assert!(close.as_mut().poll(&mut cx).is_pending());
    assert!(run(waits).is_err());
    drop(gate);
    run(close).unwrap();
    let disk = Opened(Disk::builder(test.path()).build().unwrap());
    assert!(get(&disk, 1) == Some(large), "it was in the queue");
    assert_eq!(get(&disk, 2), None);
}

#[test]
fn threads_of_our_own_read_what_the_system_does_not_have() {
    let test = Test::new();
    let disk = test.open();
    (0..100).for_each(|number| test.put(&disk, number, 0));
    test.written(&disk);
    disk.shared().readers.always_wait.store(true, Relaxed);
    let keys: Vec<_> = (0..100).map(key).collect();
    let values: Vec<_> = (0..100).map(|number| Some(value(number, 0))).collect();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                (0..100).for_each(|number| assert_eq!(get(&disk, number), Some(value(number, 0))));
                assert_eq!(run(disk.get_many(&keys)).unwrap(), values);
            });
        }
    });
    // Dropped while it waits.
    let mut cx = Context::from_waker(Waker::noop());
    for key in &keys {
        let _ = pin!(disk.get(key)).poll(&mut cx);
    }
    assert_eq!(get(&disk, 1), Some(value(1, 0)));
    assert!(disk.shared().readers.always_wait.load(Relaxed));
    run(disk.close()).unwrap();
}

#[test]
fn a_large_value_is_not_copied_on_the_caller_s_thread() {
    let test = Test::new();
    let disk = Opened(Disk::builder(test.path()).capacity(64 << 20).build().unwrap());
    let (name, large) = (key(1), Bytes::from(vec![7; 300 << 10]));
    run(disk.put(&name, large.clone(), None)).unwrap();
    test.written(&disk);
    let mut get = pin!(disk.get(&name));
    assert!(get.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(run(get).unwrap() == Some(large));
}

#[test]
fn keys_that_share_a_hash_displace_one_another() {
    let test = Test::new();
    let [a, b] = [&b"a"[..], b"b"].map(|name| LayerKey::new(COLLIDING, Bytes::from_static(name)));
    let disk = test.open();
    for round in 0..3 {
        run(disk.put(&a, value(1, round), None)).unwrap();
        assert_eq!(run(disk.get(&b)).unwrap(), None);
        test.written(&disk);
        assert_eq!(run(disk.get(&b)).unwrap(), None);
        run(disk.put(&b, value(2, round), None)).unwrap();
        assert_eq!(run(disk.get(&a)).unwrap(), None);
        test.written(&disk);
        assert_eq!(run(disk.get(&a)).unwrap(), None);
        assert_eq!(run(disk.get(&b)).unwrap(), Some(value(2, round)));
    }
    run(disk.remove(&a)).unwrap();
    assert_eq!(run(disk.get(&a)).unwrap(), None);
}

#[test]
fn a_writer_that_panics_is_an_error_for_everybody() {
    let test = Test::new();
    let disk = test.open();
    test.put(&disk, 1, 0);
    test.written(&disk);
    test.faults.panic.store(true, SeqCst);
    assert!(run(disk.remove(&key(1))).is_err());
    assert!(run(disk.close()).is_err());
    assert!(run(disk.put(&key(1), value(1, 1), None)).is_err());
    assert!(run(disk.get(&key(1))).is_err());
    assert!(run(test.open().get(&key(2))).is_ok(), "the directory is free");
}

/// A directory, and how its system fails.
struct Test {
    directory: TempDir,
    faults: Arc<Faults>,
}

impl Test {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempdir()).unwrap();
        Self { directory, faults: Arc::default() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("live")
    }

    fn files(&self) -> Files {
        Files { faults: self.faults.clone() }
    }

    fn open(&self) -> Opened {
        open(&self.path(), self.faults.clone())
    }

    /// Their lengths.
    fn files_on_disk(&self) -> Vec<u64> {
        lengths(&self.path())
    }

    /// What a kill would leave.
    fn copy(&self) -> std::path::PathBuf {
        let to = self.directory.path().join("copy");
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(self.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        to
    }

    fn put(&self, disk: &Disk, number: u64, version: u64) {
        run(disk.put(&key(number), value(number, version), None)).unwrap();
    }

    fn written(&self, disk: &Disk) {
        self.put(disk, u64::MAX, 0);
        run(disk.remove(&key(u64::MAX))).unwrap();
    }
}

#[derive(Default)]
struct Twin(HashMap<u64, u64>);

impl Twin {
    fn put(&mut self, number: u64, version: u64) {
        self.0.insert(number, version);
    }

    fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }

    fn get(&self, number: u64) -> Option<Bytes> {
        self.0.get(&number).map(|version| value(number, *version))
    }
}

fn lengths(path: &Path) -> Vec<u64> {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
}

fn open(path: &Path, faults: Arc<Faults>) -> Opened {
    open_with(path, faults, CAPACITY)
}

fn open_with(path: &Path, faults: Arc<Faults>, capacity: u64) -> Opened {
    let builder = Disk::builder(path).segment(4 << 10).capacity(capacity);
    Opened(builder.build_on(Files { faults }).unwrap())
}

/// Is closed when it goes: what is dropped goes on writing for a while, into a directory that goes, too.
struct Opened(Disk);

impl Deref for Opened {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _ = run(self.0.close());
    }
}

fn key(number: u64) -> LayerKey {
    LayerKey::new("region", Bytes::from(number.to_le_bytes().to_vec()))
}

fn value(number: u64, version: u64) -> Bytes {
    let len = 16 + (number % 97 * 31 + version * 17) % 90;
    number.to_le_bytes().into_iter().chain(version.to_le_bytes()).cycle().take(len as usize).collect()
}

fn get(disk: &Disk, number: u64) -> Option<Bytes> {
    run(disk.get(&key(number))).unwrap()
}

/// What the first so many keys have.
fn read(disk: &Disk, keys: u64) -> Vec<Option<Bytes>> {
    run(disk.get_many(&(0..keys).map(key).collect::<Vec<_>>())).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

const CAPACITY: u64 = 80 << 10;
/// Five segments.
const TIGHT: u64 = 20 << 10;
/// All keys of this region have one hash.
pub(super) const COLLIDING: &str = "colliding";
