//! The disk layer beside what it is made of: reads at an offset, appending writes, a scan of what is there. In the directory
//! for temporary files (`TMPDIR`): where that is in memory, the layer reads on another path than on a disk.
//!
//! Nobody else takes part: foyer's disk tier is another crate than its memory tier, and not set up here.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use swiftwater_benches::versus::{Case, Effort, Figure, NOTHING, Planned, time_per_op};
use swiftwater_cache::{Cache, Disk, Layer, LayerKey, Region, Tier, dep};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

use crate::{cache::Hasher, runtime::one_thread};

pub fn cases(effort: Effort) -> Vec<Planned> {
    let sizes = [("200", 200), ("4k", 4 << 10), ("64k", 64 << 10)];
    let hits = sizes.map(|(name, size)| {
        let name = format!("disk_hit_{name}");
        Planned::new(name.clone(), move || hit(name, size))
    });
    let writes =
        sizes.map(|(name, size)| Planned::new(format!("disk_write_{name}"), move || write(name, size)));
    hits.into_iter().chain(writes).chain([Planned::new("disk_open", move || open(effort))]).collect()
}

/// All of it is in the system's memory, and one entry in ours.
fn hit(name: String, size: usize) -> Case {
    let keys = (32 << 20) / size.max(2_000) as u64;
    // Far from the one before; every key comes again.
    let key = move |place: u64| place * 7919 % keys;
    let check = move |text: &str, key: u64| {
        assert!(text.len() == size && text[..20].trim_end().parse() == Ok(key), "not the text of {key}");
    };

    let mut case = Case::new([Figure::lower(name, "ns per hit, page-cached and decoded")]);
    let mut filled = None;
    case.ours(move |effort| {
        let runtime = one_thread();
        let (_, region) = filled.get_or_insert_with(|| {
            let directory = temporary();
            runtime.block_on(async {
                let (cache, region) = layered(directory.path());
                for key in 0..keys {
                    let load = region.get_or_load(&key, async move |cx| {
                        cx.depends_on(dep!("product", key));
                        cx.depends_on(dep!("tariff"));
                        Ok(text(key, size))
                    });
                    check(&load.await.expect("it loads"), key);
                    // It goes to the disk in a task, of which there may be so many at a time.
                    tokio::task::yield_now().await;
                }
                // What is closed has arrived.
                cache.close().await.expect("it closes");
            });
            let (_, region) = layered(directory.path());
            (directory, region)
        });
        let ns = time_per_op(1, effort, |_, count| {
            runtime.block_on(async {
                for key in (0..count).map(key) {
                    let hit = region.get_or_load(&key, async |_| Err(std::fmt::Error.into()));
                    check(&hit.await.expect("nothing is loaded"), key);
                }
            });
        });
        [ns]
    });
    let mut filled = None;
    case.rival("its layer alone, and a decode", move |effort| {
        let runtime = one_thread();
        let (_, disk, layer_keys) = filled.get_or_insert_with(|| {
            let (directory, layer_keys): (_, Vec<_>) = (temporary(), (0..keys).map(layer_key).collect());
            let disk = Disk::builder(directory.path()).build().expect("an empty directory");
            runtime.block_on(async {
                for (key, layer_key) in (0..keys).zip(&layer_keys) {
                    disk.put(layer_key, encoded(key, size).into(), None).await.expect("it is open");
                }
                all_written(&disk).await;
            });
            (directory, disk, layer_keys)
        });
        let ns = time_per_op(1, effort, |_, count| {
            runtime.block_on(async {
                for key in (0..count).map(key) {
                    let bytes = disk.get(&layer_keys[key as usize]).await.expect("it is open");
                    let text: String = postcard::from_bytes(&bytes.expect("it is there")).expect("a string");
                    check(&text, key);
                }
            });
        });
        [ns]
    });
    let mut filled = None;
    case.floor("pread, xxh3 and a decode", move |effort| {
        let (_, file, len) = filled.get_or_insert_with(|| {
            let directory = temporary();
            let path = directory.path().join("values");
            let mut file = File::create(&path).expect("an empty directory");
            let mut len = 0;
            for key in 0..keys {
                let mut bytes = encoded(key, size);
                bytes.extend(xxh3_64(&bytes).to_le_bytes());
                file.write_all(&bytes).expect("there is room");
                len = bytes.len();
            }
            (directory, File::open(path).expect("it is there"), len)
        });
        let ns = time_per_op(1, effort, |_, count| {
            for key in (0..count).map(key) {
                let mut bytes = vec![0; *len];
                file.read_exact_at(&mut bytes, key * *len as u64).expect("it is there");
                let (bytes, checksum) = bytes.split_last_chunk().expect("it has one");
                assert_eq!(xxh3_64(bytes), u64::from_le_bytes(*checksum));
                let text: String = postcard::from_bytes(bytes).expect("a string");
                check(&text, key);
            }
        });
        [ns]
    });
    case
}

/// Until the system has all of it, and until the device has.
fn write(name: &str, size: usize) -> Case {
    fn total(effort: Effort) -> usize {
        if effort.quick { 16 << 20 } else { 256 << 20 }
    }
    fn plainly(effort: Effort, piece: usize) -> [f64; 2] {
        let (directory, value, pieces) = (temporary(), vec![b'v'; piece], total(effort) / piece);
        let mut file = File::create(directory.path().join("values")).expect("an empty directory");
        let start = Instant::now();
        for _ in 0..pieces {
            file.write_all(&value).expect("there is room");
        }
        let written = start.elapsed();
        file.sync_all().expect("there is room");
        let rates = [written, start.elapsed()].map(|time| megabytes_a_second(pieces * piece, time));
        assert_eq!(file.metadata().map(|file| file.len()).ok(), Some((pieces * piece) as u64));
        rates
    }

    let mut case = Case::new([
        Figure::higher(format!("disk_write_{name}"), "MB a second until the system has all"),
        Figure::higher(format!("disk_write_synced_{name}"), "MB a second until the device has all"),
    ]);
    case.ours(move |effort| {
        let (directory, value) = (temporary(), Bytes::from(vec![b'v'; size]));
        let disk = Disk::builder(directory.path()).build().expect("an empty directory");
        let keys: Vec<_> = (0..(total(effort) / size) as u64).map(layer_key).collect();
        one_thread().block_on(async {
            let start = Instant::now();
            for key in &keys {
                disk.put(key, value.clone(), None).await.expect("it is open");
            }
            all_written(&disk).await;
            let written = start.elapsed();
            for key in keys.iter().step_by(97) {
                assert!(disk.get(key).await.expect("it is open").is_some_and(|found| found == value));
            }
            let close = Instant::now();
            disk.close().await.expect("it closes");
            [written, written + close.elapsed()].map(|time| megabytes_a_second(keys.len() * size, time))
        })
    });
    case.rival("write, a value at a time", move |effort| plainly(effort, size));
    case.floor("write, a MiB at a time", |effort| plainly(effort, 1 << 20));
    case
}

/// A directory of many small values: as it was closed, with the system's memory of it and without; and as a kill leaves
/// it, which is what a copy of its files is while it is in use.
fn open(effort: Effort) -> Case {
    let (entries, unit) = match effort.quick {
        true => (100_000, "ms until 100,000 entries of 200 bytes are there"),
        false => (1_000_000, "ms until 1,000,000 entries of 200 bytes are there"),
    };

    let mut case = Case::new([
        Figure::lower("disk_open_warm", unit),
        Figure::lower("disk_open_cold", unit),
        Figure::lower("disk_open_killed", unit),
    ]);
    let mut filled = None;
    case.ours(move |_| {
        let (closed, killed) = filled.get_or_insert_with(|| {
            let (closed, killed) = (temporary(), temporary());
            let disk = Disk::builder(closed.path()).build().expect("an empty directory");
            one_thread().block_on(async {
                for n in 0..entries {
                    disk.put(&layer_key(n), text(n, 200).into(), None).await.expect("it is open");
                }
                all_written(&disk).await;
                copy(closed.path(), killed.path());
                disk.close().await.expect("it closes");
            });
            (closed, killed)
        });
        let opened = |directory: &Path| {
            let start = Instant::now();
            let disk = Disk::builder(directory).build().expect("it opens");
            let time = start.elapsed();
            one_thread().block_on(async {
                for n in (0..entries).step_by(entries as usize / 10) {
                    let found = disk.get(&layer_key(n)).await.expect("it is open");
                    assert!(found.is_some_and(|found| found == text(n, 200)), "{n} is not there");
                }
                disk.close().await.expect("it closes");
            });
            milliseconds(time)
        };
        let warm = opened(closed.path());
        let cold = if let_go(closed.path()) { opened(closed.path()) } else { NOTHING };
        let copied = temporary();
        copy(killed.path(), copied.path());
        [warm, cold, opened(copied.path())]
    });
    let mut filled = None;
    case.floor("read of 16 bytes per entry into a HashMap", move |_| {
        let directory = filled.get_or_insert_with(|| {
            let directory = temporary();
            let lines = (0..entries).flat_map(|n| [xxh3_64(&n.to_le_bytes()), n]);
            let bytes: Vec<u8> = lines.flat_map(u64::to_le_bytes).collect();
            let mut file = File::create(directory.path().join("lines")).expect("an empty directory");
            file.write_all(&bytes).and_then(|()| file.sync_all()).expect("there is room");
            directory
        });
        let opened = || {
            let start = Instant::now();
            let bytes = fs::read(directory.path().join("lines")).expect("it is there");
            let (lines, _) = bytes.as_chunks::<16>();
            let number = |half: &[u8]| half.try_into().map_or(0, u64::from_le_bytes);
            let lines = lines.iter().map(|line| (number(&line[..8]), number(&line[8..])));
            let index: HashMap<u64, u64, Hasher> = lines.collect();
            let time = start.elapsed();
            assert_eq!(index.len() as u64, entries);
            milliseconds(time)
        };
        let warm = opened();
        [warm, if let_go(directory.path()) { opened() } else { NOTHING }, NOTHING]
    });
    case
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a directory for temporary files")
}

/// A region that has nothing in memory, above a disk that remembers what was invalidated.
fn layered(directory: &Path) -> (Cache, Region<u64, String>) {
    let cache = Cache::builder().persist(directory.join("versions")).build().expect("a directory of ours");
    let disk = Disk::builder(directory.join("entries")).build().expect("a directory of ours");
    // A load is a wrong answer here, also where the machine is slow.
    let tier = Tier::new(disk).timeout(Duration::from_secs(10));
    let region = cache.region("products").memory(1).schema(1).layer(tier).build().expect("valid options");
    (cache, region)
}

fn text(n: u64, size: usize) -> String {
    let mut text = format!("{n:<20}");
    text.extend(std::iter::repeat_n(' ', size - text.len()));
    text
}

fn encoded(n: u64, size: usize) -> Vec<u8> {
    postcard::to_allocvec(&text(n, size)).expect("a string")
}

fn layer_key(n: u64) -> LayerKey {
    LayerKey::new("products", Bytes::copy_from_slice(&n.to_le_bytes()))
}

/// Until all that was put before has been handed to the system: a removal says so.
async fn all_written(disk: &Disk) {
    let last = layer_key(u64::MAX);
    disk.put(&last, Bytes::new(), None).await.expect("it is open");
    disk.remove(&last).await.expect("it is open");
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory of ours") {
        let entry = entry.expect("a directory of ours");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("there is room");
    }
}

/// Asks the system to forget what it has in memory of these files, and says whether it did.
fn let_go(directory: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::io::IoSliceMut;

        use rustix::{
            fs::{Advice, fadvise},
            io::{Errno, ReadWriteFlags, preadv2},
        };

        fs::read_dir(directory).expect("a directory of ours").all(|entry| {
            let file = File::open(entry.expect("a directory of ours").path()).expect("a file of ours");
            // What has not been written cannot be forgotten.
            file.sync_all().expect("there is room");
            let (last, mut byte) = (file.metadata().map_or(0, |file| file.len()).saturating_sub(1), [0]);
            fadvise(&file, 0, None, Advice::DontNeed).is_ok()
                && preadv2(&file, &mut [IoSliceMut::new(&mut byte)], last, ReadWriteFlags::NOWAIT)
                    == Err(Errno::AGAIN)
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        false
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn megabytes_a_second(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}
