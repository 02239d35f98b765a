//! Callers that go away, loaders that panic, runtimes that end.

mod common;

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use common::{Gates, cache, region, settle};
use swiftwater_cache::{LoadError, Region};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_leader_that_goes_away_at_any_poll_leaves_the_load_to_the_others() {
    for polls in 1..4 {
        let cache = cache();
        let (rows, gates): (Region<u64, u32>, _) = (region(&cache, "rows"), Gates::new());
        let load = |gates: &Gates<u32>| {
            let gates = gates.clone();
            async move |_: swiftwater_cache::LoadCx<u64>| Ok(gates.pass(1).await)
        };
        {
            let mut leader = pin!(rows.get_or_load(&1, load(&gates)));
            for _ in 0..polls {
                assert!(leader.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                settle().await;
            }
        } // gone
        assert_eq!(gates.waiting(), 1);
        let mut tasks = JoinSet::new();
        let (joining, second) = (rows.clone(), load(&gates));
        tasks.spawn(async move { joining.get_or_load(&1, second).await.map(|hit| *hit) });
        settle().await;
        assert_eq!(gates.waiting(), 1, "the load that the leader began is still the only one");
        gates.open(3);
        assert!(matches!(tasks.join_all().await[..], [Ok(3)]));
    }
}

#[tokio::test]
async fn a_load_without_any_caller_left_is_stored() {
    let cache = cache();
    let (rows, gates): (Region<u64, u32>, _) = (region(&cache, "rows"), Gates::new());
    {
        let gates = gates.clone();
        let mut leader = pin!(rows.get_or_load(&1, async move |_| Ok(gates.pass(1).await)));
        assert!(leader.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    settle().await;
    gates.open(3);
    settle().await;
    assert_eq!(rows.get(&1).map(|hit| *hit), Some(3));
}

#[tokio::test]
async fn a_joiner_that_goes_away_at_any_poll_disturbs_nobody() {
    for polls in 0..3 {
        let cache = cache();
        let (rows, gates): (Region<u64, u32>, _) = (region(&cache, "rows"), Gates::new());
        let load = |gates: &Gates<u32>| {
            let gates = gates.clone();
            async move |_: swiftwater_cache::LoadCx<u64>| Ok(gates.pass(1).await)
        };
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let (rows, load) = (rows.clone(), load(&gates));
            tasks.spawn(async move { rows.get_or_load(&1, load).await.map(|hit| *hit) });
        }
        settle().await;
        {
            let mut joiner = pin!(rows.get_or_load(&1, load(&gates)));
            for _ in 0..polls {
                assert!(joiner.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
        }
        gates.open(4);
        assert!(matches!(tasks.join_all().await[..], [Ok(4), Ok(4)]));
        assert_eq!(gates.waiting(), 0);
    }
}

#[tokio::test]
async fn a_panic_is_an_error_to_all_who_wait_and_the_next_caller_loads_anew() {
    for panics_late in [false, true] {
        let cache = cache();
        let (rows, gates): (Region<u64, u32>, _) = (region(&cache, "rows"), Gates::<()>::new());
        let mut tasks = JoinSet::new();
        for _ in 0..3 {
            let (rows, gates) = (rows.clone(), gates.clone());
            tasks.spawn(async move {
                let load = async move |_: swiftwater_cache::LoadCx<u64>| {
                    if panics_late {
                        gates.pass(1).await;
                    }
                    panic!("the loader's own")
                };
                rows.get_or_load(&1, load).await.map(|hit| *hit)
            });
        }
        settle().await;
        if panics_late {
            gates.open(());
        }
        let answers = tasks.join_all().await;
        assert!(
            answers.iter().all(|answer| matches!(answer, Err(LoadError::Panicked))) && answers.len() == 3
        );
        assert_eq!(*rows.get_or_load(&1, async |_| Ok(9)).await.expect("loads anew"), 9);
    }
}

#[tokio::test]
async fn a_loader_that_panics_before_it_makes_a_future_is_an_error_too() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    let failed = rows.get_or_load(&1, |_| -> std::future::Ready<_> { panic!("the loader's own") }).await;
    assert!(matches!(failed, Err(LoadError::Panicked)));
    assert_eq!(*rows.get_or_load(&1, async |_| Ok(9)).await.expect("loads anew"), 9);
}

#[tokio::test]
async fn a_weigher_that_panics_fails_the_load_and_nothing_else() {
    let cache = cache();
    let rows: Region<u64, u32> = cache
        .region("rows")
        .weigher(|_, value| if *value == 0 { panic!("the weigher's own") } else { 1 })
        .build()
        .expect("valid");
    let failed = rows.get_or_load(&1, async |_| Ok(0)).await;
    assert!(matches!(failed, Err(LoadError::Panicked)));
    assert_eq!(*rows.get_or_load(&1, async |_| Ok(9)).await.expect("loads anew"), 9);
}

#[test]
fn a_runtime_that_ends_hands_its_load_to_a_waiting_caller_elsewhere() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (first, second) = (runtime(), runtime());
    let cache = cache();
    let (rows, gates): (Region<u64, u32>, _) = (region(&cache, "rows"), Gates::<u32>::new());
    let leading = {
        let (rows, gates) = (rows.clone(), gates.clone());
        first.spawn(async move {
            rows.get_or_load(&1, async move |_| Ok(gates.pass(1).await)).await.map(|hit| *hit)
        })
    };
    first.block_on(settle());
    assert_eq!(gates.waiting(), 1);
    let joining = {
        let rows = rows.clone();
        second.spawn(async move { rows.get_or_load(&1, async |_| Ok(2)).await.map(|hit| *hit) })
    };
    second.block_on(settle());
    drop(first);
    drop(leading);
    let answer = second.block_on(joining).expect("no panic");
    assert!(matches!(answer, Ok(2)), "{answer:?}");
}

#[tokio::test]
async fn a_ring_of_loaders_is_an_error_and_not_a_hang() {
    let cache = cache();
    let rows: Region<u64, u32> = region(&cache, "rows");
    let (again, inner) = (rows.clone(), Arc::new(()));
    let answer = rows
        .get_or_load(&1, async move |_| {
            let _inner = inner;
            let third = again.clone();
            let two = again
                .get_or_load(&2, async move |_| Ok(*third.get_or_load(&1, async |_| Ok(1)).await?))
                .await?;
            Ok(*two)
        })
        .await;
    // The error passes through two loaders; its root is the ring.
    let error = answer.expect_err("a ring");
    let mut chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    assert!(
        chain.any(|error| error.to_string() == "the loader waits for the entry that it is loading"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_ring_across_two_callers_is_an_error_and_not_a_hang() {
    let cache = cache();
    let (rows, gates): (Region<u64, u32>, _) = (region(&cache, "rows"), Gates::<()>::new());
    let mut tasks = JoinSet::new();
    for key in [1_u64, 2] {
        let (rows, gates) = (rows.clone(), gates.clone());
        tasks.spawn(async move {
            let other = rows.clone();
            let load = async move |cx: swiftwater_cache::LoadCx<u64>| {
                gates.pass(*cx.key()).await; // until both are being loaded
                Ok(*other.get_or_load(&(3 - cx.key()), async |_| Ok(0)).await?)
            };
            rows.get_or_load(&key, load).await.map(|hit| *hit)
        });
    }
    settle().await;
    gates.open(());
    gates.open(());
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(LoadError::Loader(_)))), "{answers:?}");
    assert_eq!(*rows.get_or_load(&1, async |_| Ok(1)).await.expect("nothing is left behind"), 1);
}

#[tokio::test]
async fn a_value_whose_destructor_uses_the_region_is_no_deadlock() {
    struct Nosy(Region<u64, Self>, u64);
    impl Drop for Nosy {
        fn drop(&mut self) {
            // Every lock that evicting, replacing or invalidating takes.
            assert!(self.0.get(&(self.1 + 1000)).is_none());
            self.0.invalidate(&self.1);
        }
    }
    let cache = cache();
    let nosy: Region<u64, Nosy> = cache.region("nosy").memory(4).build().expect("valid");
    for key in 0..20 {
        nosy.insert(key % 7, Nosy(nosy.clone(), key % 7));
        let made = nosy.clone();
        let loaded = nosy.get_or_load(&(key + 100), async move |cx| Ok(Nosy(made, *cx.key()))).await;
        drop(loaded);
    }
    for key in 0..200 {
        nosy.invalidate(&key);
        assert!(nosy.get(&key).is_none());
    }
}
