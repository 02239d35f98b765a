//! What a pool shows of itself.

mod common;

use common::*;
use swiftwater_core::{Observer, Registry};

#[tokio::test(start_paused = true)]
async fn the_numbers_add_up() {
    let backend = Backend::new().connects([Step::Ok, Step::Fail]);
    let pool = builder().max_size(2).acquire_timeout(millis(100)).build(backend.clone()).unwrap();
    let one = pool.get().await.unwrap();
    let two = pool.get().await.unwrap();
    assert!(pool.get().await.is_err());
    drop(queued(&pool));
    let get = queued(&pool);
    pass(millis(10)).await;
    drop(one);
    drop(get.await.unwrap());
    two.discard();
    drop(pool.get().await.unwrap());
    for (name, expected) in [
        ("gets", 4),
        ("timeouts", 1),
        ("cancelled", 1),
        ("connects", 2),
        ("connect_failures", 1),
        ("closed_discarded", 1),
        ("wait", 4), // the first two waited for their connects, and the one that timed out counts
        ("use", 4),
        ("connect", 2),
        ("idle", 1),
        ("in_use", 0),
        ("waiters", 0),
        ("max_size", 2),
    ] {
        assert_eq!(reading(&pool, name), expected, "{name}");
    }
    assert_eq!(reading(&pool, "connects") - closed(&pool), backend.sockets() as u64);
    pool.close().await;
    assert_eq!(reading(&pool, "connects"), closed(&pool));
}

#[tokio::test(start_paused = true)]
async fn a_registry_shows_it_and_does_not_keep_it() {
    let pool = builder().build(Backend::new()).unwrap();
    let registry = Registry::new();
    registry.add("pool", "orders", &pool).unwrap();
    drop(pool.get().await.unwrap());
    let page = registry.prometheus();
    assert!(page.contains("swiftwater_pool_gets_total{pool=\"orders\"} 1"), "{page}");
    assert!(page.contains("mode=\"on\""), "{page}");
    assert!(page.contains("swiftwater_pool_connect_seconds_count{pool=\"orders\"} 1"), "{page}");
    pool.set_enabled(false);
    assert!(registry.prometheus().contains("mode=\"off\""));
    let observer = Observer::from(&pool);
    drop(pool);
    assert!(observer.upgrade().is_none());
    assert_eq!(registry.prometheus(), "");
}

#[tokio::test(start_paused = true)]
async fn a_guard_knows_where_it_was_taken() {
    let pool = builder().build(Backend::new()).unwrap();
    let get = pool.get();
    let line = line!() - 1;
    let guard = get.await.unwrap();
    assert_eq!((guard.place().file(), guard.place().line()), (file!(), line));
    assert!(format!("{guard:?}").contains("observing.rs"));
    assert!(format!("{pool:?}").contains("in_use: 1"));
}
