//! A directory is opened, used, closed and opened again; and what is refused.

mod disk_common;

use std::{error::Error, fs, io, path::Path};

use bytes::Bytes;
use disk_common::*;
use swiftwater_cache::{Disk, DiskBuilder, DiskError, Layer, LayerKey, conformance};
use swiftwater_core::Observer;
use tempfile::tempdir;

#[tokio::test(flavor = "multi_thread")]
async fn the_laws_of_a_layer_hold() {
    let directory = tempdir().unwrap();
    let number = std::sync::atomic::AtomicUsize::new(0);
    conformance::all(async || {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = directory.path().join(number.to_string());
        Disk::builder(path).capacity(4 << 20).build().unwrap()
    })
    .await;
}

#[test]
fn everything_is_there_after_a_close() {
    let directory = tempdir().unwrap();
    for round in 0..5 {
        let disk = open(directory.path(), 100);
        for number in 0..200 {
            let expected = match (round, number % 10) {
                (0, _) | (_, 3) => None,
                _ => Some(value(number, round - 1)),
            };
            assert_eq!(get(&disk, number), expected, "round {round}, key {number}");
            put(&disk, number, round);
        }
        (0..200).filter(|number| number % 10 == 3).for_each(|number| remove(&disk, number));
        assert_eq!(reading(&disk, "entries"), 180.0);
        close(&disk);
    }
}

#[test]
fn a_close_writes_nothing_where_nothing_has_changed() {
    let directory = tempdir().unwrap();
    let disk = open(directory.path(), 100);
    (0..100).for_each(|number| put(&disk, number, 0));
    close(&disk);
    let before = files(directory.path());
    for _ in 0..3 {
        close(&open(directory.path(), 100));
        assert_eq!(files(directory.path()), before);
    }
}

#[test]
fn opening_often_does_not_make_many_files() {
    let directory = tempdir().unwrap();
    for round in 0..50 {
        let disk = open(directory.path(), 100);
        put(&disk, round, 0);
        close(&disk);
    }
    let segments = files(directory.path()).iter().filter(|(name, _)| name.ends_with(".segment")).count();
    assert!(segments <= 3, "{segments} segments");
    let disk = open(directory.path(), 100);
    (0..50).for_each(|number| assert_eq!(get(&disk, number), Some(value(number, 0))));
}

#[test]
fn what_waits_in_the_queue_is_seen_at_once() {
    let directory = tempdir().unwrap();
    let disk = open(directory.path(), 1000);
    for version in 0..2000 {
        put(&disk, 1, version);
        assert_eq!(get(&disk, 1), Some(value(1, version)));
    }
}

#[test]
fn dropping_the_last_handle_closes_in_the_background() {
    let directory = tempdir().unwrap();
    let builder = || Disk::builder(directory.path()).segment(SEGMENT).capacity(1 << 20);
    let disk = builder().build().unwrap();
    (0..300).for_each(|number| put(&disk, number, 7));
    drop(disk);
    let disk = loop {
        match builder().build() {
            Ok(disk) => break Opened(disk),
            Err(DiskError::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error:?}"),
        }
    };
    (0..300).for_each(|number| assert_eq!(get(&disk, number), Some(value(number, 7))));
}

#[test]
fn a_smaller_capacity_keeps_the_newest() {
    let directory = tempdir().unwrap();
    let disk = open(directory.path(), 100);
    (0..1000).for_each(|number| put(&disk, number, 0));
    close(&disk);
    let disk = open(directory.path(), 5);
    let sum: u64 = files(directory.path()).iter().map(|(_, len)| len).sum();
    assert!(sum <= 5 * SEGMENT + 1024, "{sum} bytes");
    assert_eq!(get(&disk, 999), Some(value(999, 0)));
    assert_eq!(get(&disk, 0), None);
    let there = (0..1000).filter(|number| get(&disk, *number).is_some()).count();
    assert_eq!(reading(&disk, "entries"), there as f64);
    close(&disk);
    // Not even one of the old segments fits.
    let disk = Opened(Disk::builder(directory.path()).segment(1 << 20).capacity(5 << 20).build().unwrap());
    (0..1000).for_each(|number| put(&disk, number, 1));
    close(&disk);
    let disk = open(directory.path(), 5);
    assert!((0..1000).all(|number| get(&disk, number).is_none()));
    put(&disk, 1, 2);
    assert_eq!(get(&disk, 1), Some(value(1, 2)));
}

#[test]
fn a_value_that_does_not_fit_takes_its_key_with_it() {
    let directory = tempdir().unwrap();
    let disk = open(directory.path(), 10);
    put(&disk, 1, 0);
    let outcome = block_on(disk.put(&key(1), Bytes::from(vec![0; SEGMENT as usize]), None));
    let error = outcome.unwrap_err();
    let error = error.downcast_ref::<DiskError>();
    assert!(matches!(error, Some(DiskError::TooLarge { len: 4096, .. })), "{error:?}");
    assert_eq!(get(&disk, 1), None);
    // The longest that fits.
    let Some(DiskError::TooLarge { limit, .. }) = error else { unreachable!() };
    let longest = Bytes::from(vec![7; limit - 40 - "region".len() - 8]);
    done(disk.put(&key(1), longest.clone(), None));
    written(&disk);
    assert_eq!(get(&disk, 1), Some(longest));
}

#[test]
fn options_that_cannot_work_are_named() {
    let directory = tempdir().unwrap();
    let builder = || Disk::builder(directory.path().join("never"));
    let cases: [(DiskBuilder, &str, &str); 6] = [
        (builder().segment(100), "segment", "100"),
        (builder().capacity(1 << 40).segment(1 << 33), "segment", "8589934592"),
        (builder().capacity(1 << 40).segment(4096), "segment", "4096"),
        (builder().capacity(0), "capacity", "0"),
        (builder().capacity(16 << 10).segment(4 << 10), "capacity", "16384"),
        (builder().queue(1), "queue", "1"),
    ];
    for (builder, option, value) in cases {
        match builder.build() {
            Err(DiskError::Build(error)) => assert_eq!((error.option(), error.value()), (option, value)),
            other => panic!("{option} = {value}: {other:?}"),
        }
    }
    assert!(!directory.path().join("never").exists());
    drop(Opened(builder().capacity(20 << 10).build().unwrap()));
}

#[test]
fn one_handle_has_a_directory_at_a_time() {
    let directory = tempdir().unwrap();
    let first = open(directory.path(), 10);
    match Disk::builder(directory.path()).build() {
        Err(DiskError::Locked { path }) => assert_eq!(path, directory.path()),
        other => panic!("{other:?}"),
    }
    put(&first, 1, 1);
    close(&first);
    let second = open(directory.path(), 10);
    assert_eq!(get(&second, 1), Some(value(1, 1)));
    assert!(block_on(first.get(&key(1))).is_err());
}

#[test]
fn what_the_system_refuses_is_said_with_path_and_operation() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), &file.path().join("below"), Path::new("/proc/swiftwater")] {
        let error = Disk::builder(path).build().unwrap_err();
        let DiskError::Io { path: of, operation, .. } = &error else { panic!("{error:?}") };
        assert_eq!(of, path);
        assert_eq!(*operation, "create the directory");
        assert!(error.source().unwrap().is::<io::Error>());
        assert_eq!(error.to_string(), format!("cannot create the directory {}", path.display()));
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let directory = tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("notes.txt"), "mine").unwrap();
    fs::write(at("swiftwater-zz.segment"), "mine").unwrap();
    let disk = open(directory.path(), 10);
    put(&disk, 1, 1);
    close(&disk);
    // Named like one of ours, between ours and after them.
    for number in [0_u64, 9] {
        fs::write(at(&format!("swiftwater-{number:016x}.segment")), "not ours").unwrap();
        let disk = open(directory.path(), 10);
        assert!(matches!(get(&disk, 1), None | Some(_)));
        (0..500).for_each(|number| put(&disk, number, 2));
        close(&disk);
        let disk = open(directory.path(), 10);
        assert_eq!(get(&disk, 499), Some(value(499, 2)));
        close(&disk);
        let left = fs::read(at(&format!("swiftwater-{number:016x}.segment"))).unwrap();
        assert_eq!(left, b"not ours");
    }
    assert_eq!(fs::read(at("notes.txt")).unwrap(), b"mine");
    assert_eq!(fs::read(at("swiftwater-zz.segment")).unwrap(), b"mine");
    // It has to go somewhere.
    fs::write(at("swiftwater-000000000000000a.segment"), vec![b'x'; 8 * SEGMENT as usize]).unwrap();
    let small = Disk::builder(directory.path()).segment(SEGMENT).capacity(10 * SEGMENT + 1024);
    assert!(matches!(small.build(), Err(DiskError::Foreign { .. })));
    for name in ["swiftwater.clean", "swiftwater.control"] {
        let directory = tempdir().unwrap();
        fs::write(directory.path().join(name), "not ours").unwrap();
        match Disk::builder(directory.path()).build() {
            Err(DiskError::Foreign { path }) => assert_eq!(path, directory.path().join(name)),
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(directory.path().join(name)).unwrap(), b"not ours");
    }
}

#[test]
fn another_version_of_the_format_starts_empty() {
    let directory = tempdir().unwrap();
    let disk = open(directory.path(), 10);
    (0..100).for_each(|number| put(&disk, number, 1));
    close(&disk);
    let control = directory.path().join("swiftwater.control");
    let mut bytes = fs::read(&control).unwrap();
    for slot in bytes.chunks_mut(64) {
        slot[8] += 1;
    }
    fs::write(&control, bytes).unwrap();
    let disk = open(directory.path(), 10);
    assert!((0..100).all(|number| get(&disk, number).is_none()));
    let names: Vec<_> = files(directory.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["swiftwater.control"]);
}

#[test]
fn regions_do_not_share_keys() {
    let directory = tempdir().unwrap();
    let disk = open(directory.path(), 10);
    let [a, b] = ["a", "b"].map(|region| LayerKey::new(region, Bytes::from_static(b"1")));
    done(disk.put(&a, Bytes::from_static(b"of a"), None));
    assert_eq!(done(disk.get(&b)), None);
    done(disk.put(&b, Bytes::from_static(b"of b"), None));
    done(disk.remove(&a));
    assert_eq!(done(disk.get_many(&[a, b])), [None, Some(Bytes::from_static(b"of b"))]);
}

#[test]
fn readings_say_what_happened() {
    let directory = tempdir().unwrap();
    let disk = open(directory.path(), 10);
    swiftwater_core::conformance::observe(&*disk);
    (0..10).for_each(|number| put(&disk, number, 0));
    remove(&disk, 0);
    remove(&disk, 100);
    let found = get(&disk, 1).unwrap();
    assert!(get(&disk, 0).is_none());
    let (all, out) = ((0..10).map(|number| value(number, 0).len()).sum::<usize>() as f64, found.len() as f64);
    assert_eq!((reading(&disk, "bytes_in"), reading(&disk, "bytes_out")), (all, out));
    for (name, expected) in [("hits", 1.0), ("misses", 1.0), ("puts", 10.0), ("removes", 2.0), ("lost", 0.0)]
    {
        assert_eq!(reading(&disk, name), expected, "{name}");
    }
    assert_eq!(reading(&disk, "entries"), 9.0);
    assert_eq!(reading(&disk, "capacity"), (10 * SEGMENT + 1024) as f64);
    let observer = Observer::from(&*disk);
    assert!(observer.upgrade().is_some());
    assert!(format!("{:?}", *disk).starts_with("Disk { path: "));
    close(&disk);
    // Sealed, and with the file that says so.
    let sum: u64 = files(directory.path()).iter().map(|(_, len)| len).sum();
    assert_eq!(reading(&disk, "used") + 64.0, sum as f64);
    drop(disk);
    assert!(observer.upgrade().is_none());
}

#[test]
fn what_the_system_has_let_go_of_is_fetched() {
    let directory = tempdir().unwrap();
    let disk = open(directory.path(), 100);
    (0..500).for_each(|number| put(&disk, number, 3));
    // What is on the device can be let go of.
    close(&disk);
    let disk = open(directory.path(), 100);
    for (name, _) in files(directory.path()) {
        let file = fs::File::open(directory.path().join(name)).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    let keys: Vec<_> = (0..500).rev().map(key).collect();
    let values: Vec<_> = (0..500).rev().map(|number| Some(value(number, 3))).collect();
    assert_eq!(done(disk.get_many(&keys)), values);
    (0..500).for_each(|number| assert_eq!(get(&disk, number), Some(value(number, 3))));
}

#[test]
fn a_path_that_is_relative_or_deep_is_made() {
    let directory = tempfile::tempdir_in(".").unwrap();
    let relative = Path::new(directory.path().file_name().unwrap());
    for path in [&relative.join("a"), &relative.join("b/c/d")] {
        let disk = open(path, 10);
        put(&disk, 1, 1);
        close(&disk);
        assert_eq!(get(&open(path, 10), 1), Some(value(1, 1)));
    }
}

#[test]
fn handles_go_everywhere() {
    fn everywhere<T: Send + Sync + Clone + 'static>() {}
    everywhere::<Disk>();
}
