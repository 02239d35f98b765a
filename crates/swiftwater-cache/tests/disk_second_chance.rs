//! Room is made by what nobody reads, as far as it goes.

mod disk_common;

use disk_common::*;

#[test]
fn what_is_read_survives_a_churn_that_drops_what_is_not() {
    let directory = quick_directory();
    let disk = open(directory.path(), 8);
    (0..80).for_each(|number| put(&disk, number, 0));
    for number in 1000..4000 {
        put(&disk, number, 0);
        if number.is_multiple_of(50) {
            written(&disk);
            hot().for_each(|hot| assert_eq!(get(&disk, hot), Some(value(hot, 0)), "after {number}"));
        }
    }
    (0..80).filter(|number| number % 4 > 0).for_each(|cold| assert_eq!(get(&disk, cold), None));
    assert!(reading(&disk, "rewritten") > 100.0);
    assert_eq!(reading(&disk, "lost") + reading(&disk, "damaged"), 0.0);
    close(&disk);
    let disk = open(directory.path(), 8);
    hot().for_each(|hot| assert_eq!(get(&disk, hot), Some(value(hot, 0)), "after a close"));
}

#[test]
fn what_is_not_read_again_has_no_third_chance() {
    let directory = quick_directory();
    let disk = open(directory.path(), 8);
    (0..80).for_each(|number| put(&disk, number, 0));
    written(&disk);
    hot().for_each(|number| assert!(get(&disk, number).is_some()));
    (1000..4000).for_each(|number| put(&disk, number, 0));
    written(&disk);
    assert_eq!(reading(&disk, "rewritten"), 20.0);
    (0..80).for_each(|number| assert_eq!(get(&disk, number), None));
}

#[test]
fn what_is_read_while_it_waits_in_the_queue_has_a_second_chance() {
    let directory = quick_directory();
    let disk = open(directory.path(), 8);
    for number in 0..80 {
        put(&disk, number, 0);
        if number.is_multiple_of(4) {
            // At once: as a rule the writer is not that quick.
            assert!(get(&disk, number).is_some());
        }
    }
    (1000..1300).for_each(|number| put(&disk, number, 0));
    written(&disk);
    hot().for_each(|number| assert_eq!(get(&disk, number), Some(value(number, 0))));
}

#[test]
fn where_everything_is_read_what_is_new_finds_room() {
    let directory = quick_directory();
    let disk = open(directory.path(), 5);
    for number in 0..1500 {
        put(&disk, number, 0);
        if number.is_multiple_of(5) {
            (number.saturating_sub(150)..number).for_each(|older| drop(get(&disk, older)));
        }
        assert_eq!(get(&disk, number), Some(value(number, 0)));
        written(&disk);
        let sum: u64 = files(directory.path()).iter().map(|(_, len)| len).sum();
        assert!(sum <= 5 * SEGMENT + 1024, "{sum} bytes");
    }
    let rewritten = reading(&disk, "rewritten");
    assert!(rewritten > 200.0, "only {rewritten}");
    assert!(rewritten < 3200.0, "{rewritten} for 4500 records: at most as many as are new");
    assert_eq!(reading(&disk, "lost"), 0.0);
}

#[test]
fn a_value_of_more_than_half_a_segment_has_one_chance() {
    let directory = quick_directory();
    let disk = open(directory.path(), 5);
    let large = bytes::Bytes::from(vec![7; SEGMENT as usize * 3 / 4]);
    done(swiftwater_cache::Layer::put(&*disk, &key(1), large.clone(), None));
    written(&disk);
    assert_eq!(get(&disk, 1), Some(large));
    (1000..1300).for_each(|number| put(&disk, number, 0));
    written(&disk);
    assert_eq!(get(&disk, 1), None);
    assert_eq!(reading(&disk, "rewritten"), 0.0);
}

#[test]
fn what_is_damaged_has_none() {
    let directory = quick_directory();
    let disk = open(directory.path(), 6);
    (0..80).for_each(|number| put(&disk, number, 0));
    written(&disk);
    hot().for_each(|number| assert!(get(&disk, number).is_some()));
    let name =
        files(directory.path()).into_iter().map(|(name, _)| name).find(|name| name.ends_with(".segment"));
    let path = directory.path().join(name.unwrap());
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(16).position(|window| window == &value(8, 0)[..16]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[!bytes[at + 15]], at as u64 + 15).unwrap();
    (1000..1150).for_each(|number| put(&disk, number, 0));
    written(&disk);
    assert_eq!(reading(&disk, "rewritten"), 19.0);
    hot().for_each(|number| assert_eq!(get(&disk, number), (number != 8).then(|| value(number, 0))));
    assert_eq!(reading(&disk, "damaged"), 0.0);
}

/// A quarter of the first eighty: no segment has more of them than may be written again.
fn hot() -> impl Iterator<Item = u64> {
    (0..80).step_by(4)
}
