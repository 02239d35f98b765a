//! What several tests of the disk layer need.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::{
    fmt, fs,
    future::Future,
    ops::Deref,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use bytes::Bytes;
use swiftwater_cache::{Disk, Layer, LayerError, LayerKey};
use swiftwater_core::{Desc, Observe, Visitor};
use tempfile::TempDir;

pub(crate) const SEGMENT: u64 = 4 << 10;

/// Small segments, so that little is needed to fill several of them.
pub(crate) fn open(path: &Path, segments: u64) -> Opened {
    let builder = Disk::builder(path).segment(SEGMENT).capacity(segments * SEGMENT + 1024);
    Opened(builder.build().unwrap_or_else(|error| panic!("cannot open {}: {error:?}", path.display())))
}

/// Is closed when it goes: what is dropped goes on writing for a while, into a directory that goes, too.
pub(crate) struct Opened(pub(crate) Disk);

impl Deref for Opened {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _ = block_on(self.0.close());
    }
}

pub(crate) fn key(number: u64) -> LayerKey {
    LayerKey::new("region", Bytes::from(number.to_le_bytes().to_vec()))
}

/// Tells key and version, and is as long as they say.
pub(crate) fn value(key: u64, version: u64) -> Bytes {
    let len = 16 + (key * 31 + version * 17) % 90;
    key.to_le_bytes().into_iter().chain(version.to_le_bytes()).cycle().take(len as usize).collect()
}

pub(crate) fn get(disk: &Disk, number: u64) -> Option<Bytes> {
    done(disk.get(&key(number)))
}

pub(crate) fn put(disk: &Disk, number: u64, version: u64) {
    done(disk.put(&key(number), value(number, version), None));
}

pub(crate) fn remove(disk: &Disk, number: u64) {
    done(disk.remove(&key(number)));
}

pub(crate) fn close(disk: &Disk) {
    done(disk.close());
}

/// Waits until everything that was put is in the files.
pub(crate) fn written(disk: &Disk) {
    let key = LayerKey::new("another region", Bytes::from_static(b"flush"));
    done(disk.put(&key, Bytes::new(), None));
    done(disk.remove(&key));
}

pub(crate) fn done<T>(call: impl Future<Output = Result<T, LayerError>>) -> T {
    block_on(call).unwrap_or_else(|error| panic!("{error:?}"))
}

/// In memory where the system has such a place: a thousand opens wait for the device a thousand times.
pub(crate) fn quick_directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Without any runtime: the layer needs none.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// As it is at this moment: what a kill would leave behind.
pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

pub(crate) fn files(path: &Path) -> Vec<(String, u64)> {
    let mut files: Vec<_> = (fs::read_dir(path).unwrap())
        .filter_map(|entry| {
            let entry = entry.unwrap();
            // One that has just been evicted is not there.
            let len = entry.metadata().ok()?.len();
            Some((entry.file_name().into_string().unwrap(), len))
        })
        .collect();
    files.sort();
    files
}

pub(crate) fn reading(observed: &Disk, name: &str) -> f64 {
    struct Find<'a>(&'a str, Option<f64>);
    impl Visitor for Find<'_> {
        fn counter(&mut self, desc: &'static Desc, value: u64) {
            self.gauge(desc, value as f64);
        }
        fn gauge(&mut self, desc: &'static Desc, value: f64) {
            if desc.name == self.0 {
                self.1 = Some(value);
            }
        }
        fn part(&mut self, _: &'static str, _: &dyn fmt::Display, _: &dyn Observe) {}
    }
    let mut find = Find(name, None);
    observed.observe(&mut find);
    find.1.unwrap_or_else(|| panic!("no reading {name}"))
}
