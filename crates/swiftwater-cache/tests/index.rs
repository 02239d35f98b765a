//! The exact index: it says what is in memory, after everything that can happen to entries.

mod common;

use std::{collections::HashSet, thread};

use common::{cache, readings};
use swiftwater_cache::{Cache, Region, dep};
use swiftwater_core::Tunable;

const SHELVES: u64 = 7;

fn indexed(cache: &Cache, memory: u64) -> Region<u64, u64> {
    cache.region("goods").memory(memory).index(true).build().unwrap()
}

fn put(goods: &Region<u64, u64>, key: u64, shelf: u64) {
    goods.insert_with(key, shelf, |entry| {
        entry.depends_on(dep!("shelf", shelf));
        entry.depends_on(dep!("good", key));
    });
}

/// What the index says of every shelf is what there is.
fn check(goods: &Region<u64, u64>, keys: u64) {
    readings(goods); // settles the store: moka evicts late
    let there: Vec<(u64, u64)> = (0..keys).filter_map(|key| Some((key, *goods.get(&key)?))).collect();
    for shelf in 0..SHELVES {
        let expected: HashSet<u64> =
            there.iter().filter(|(_, of)| *of == shelf).map(|(key, _)| *key).collect();
        let listed = goods.dependents(dep!("shelf", shelf)).unwrap();
        assert_eq!(listed.len(), expected.len(), "no key twice");
        assert_eq!(listed.into_iter().collect::<HashSet<_>>(), expected, "shelf {shelf}");
    }
    for key in 0..keys {
        let listed = goods.dependents(dep!("good", key)).unwrap();
        let expected: Vec<u64> =
            there.iter().filter(|(other, _)| *other == key).map(|(key, _)| *key).collect();
        assert_eq!(listed, expected);
    }
}

#[test]
fn it_follows_whatever_happens_to_entries() {
    let cache = cache();
    let goods = indexed(&cache, 50);
    for round in 0..2000_u64 {
        put(&goods, round % 97, (round * round) % SHELVES); // replaced and evicted again and again
        if round % 13 == 0 {
            goods.invalidate(&(round % 31));
        }
    }
    check(&goods, 100);
    goods.knobs(&mut |knob| {
        if knob.name() == "capacity" {
            knob.set(10.0).unwrap();
        }
    });
    check(&goods, 100);
    cache.invalidate(goods.whole());
    assert!((0..100).all(|key| goods.get(&key).is_none()), "and looked up, so let go");
    check(&goods, 100);
}

#[test]
fn it_follows_many_threads() {
    let cache = cache();
    let goods = indexed(&cache, 64);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let goods = &goods;
            scope.spawn(move || {
                for round in 0..5000_u64 {
                    put(goods, (round * 7 + thread) % 150, (round + thread) % SHELVES);
                    match round % 50 {
                        0 => drop(goods.purge(dep!("shelf", round % SHELVES))),
                        25 => drop(goods.get(&(round % 150))),
                        30 => goods.set_enabled(round % 100 == 30),
                        _ => {}
                    }
                }
            });
        }
    });
    goods.set_enabled(true);
    // What is stale and has not been looked up is still listed: look everything up first.
    for key in 0..150 {
        drop(goods.get(&key));
    }
    check(&goods, 150);
}

#[tokio::test]
async fn a_purge_lets_go_of_the_dependents_and_of_nothing_else() {
    let cache = cache();
    let goods = indexed(&cache, 1000);
    (0..100).for_each(|key| put(&goods, key, key % 4));
    let many = (0..100).collect::<Vec<u64>>();
    goods.insert_with(500, 0, |entry| many.iter().for_each(|n| entry.depends_on(dep!("shelf", n))));
    assert_eq!(goods.dependents(dep!("shelf", 1)).unwrap().len(), 26, "and one that keeps the kind");
    assert_eq!(goods.purge(dep!("shelf", 1)), Some(26));
    assert_eq!(readings(&goods)["entries"], 75.0);
    assert_eq!(goods.purge(dep!("shelf", 1)), Some(0));
    let plain: Region<u64, u64> = cache.region("plain").build().unwrap();
    put(&plain, 1, 1);
    assert_eq!((plain.dependents(dep!("shelf", 1)), plain.purge(dep!("shelf", 1))), (None, None));
    assert!(plain.get(&1).is_none(), "invalidated all the same");
}
