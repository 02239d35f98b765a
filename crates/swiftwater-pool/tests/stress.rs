//! Many tasks on several threads, leaving in every way there is. Numbers must be right at the end, and the backend must
//! never have seen too many connections on the way.

mod common;

use std::{future::poll_fn, task::Poll, time::Duration};

use common::*;
use swiftwater_core::Backoff;
use swiftwater_pool::{Check, Pool};

const TASKS: u64 = 48;
const TURNS: usize = 400;
const MAX: u32 = 6;

/// Polls up to `polls` times, then gives up.
async fn impatient<F: Future + Unpin>(mut future: F, polls: u32) -> Option<F::Output> {
    for _ in 0..polls {
        let polled = poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut future).poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn one(pool: Pool<Backend>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..TURNS {
        match random.u32(0..20) {
            0..6 => drop(pool.get().await.unwrap()),
            6..8 => {
                let guard = pool.get().await.unwrap();
                tokio::task::yield_now().await;
                drop(guard);
            }
            8..12 => drop(impatient(pool.get(), random.u32(0..4)).await),
            12 => {
                let work = pool.with(async |_| tokio::task::yield_now().await);
                drop(impatient(Box::pin(work), random.u32(1..5)).await);
            }
            13 => pool.with(async |link| link.broken = true).await.unwrap(),
            14 => pool.get().await.unwrap().discard(),
            15 => {
                let guard = pool.get().await.unwrap();
                tokio::task::spawn_blocking(move || drop(guard)).await.unwrap();
            }
            16 => drop(pool.try_get()),
            17 => max_size_knob(&pool).set(f64::from(random.u32(2..=MAX))).map(drop).unwrap(),
            18 if random.bool() => pool.set_enabled(random.u32(0..4) > 0),
            _ => {
                let two = (impatient(pool.get(), 2).await, impatient(pool.get(), 2).await);
                drop(two);
            }
        }
    }
}

fn stress(check: Check) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    runtime.block_on(async {
        let backend = Backend::new();
        let failures = (0..200).map(|n| if n % 3 == 0 { Step::Fail } else { Step::Ok });
        let backend = backend.connects(failures);
        backend.checks((0..500).map(|n| if n % 50 == 49 { Step::Fail } else { Step::Ok }));
        let pool = Pool::builder()
            .max_size(MAX)
            .max_connecting(3)
            .check(check)
            .idle_timeout(Duration::from_millis(5))
            .max_lifetime(Duration::from_millis(20))
            .acquire_timeout(Duration::from_secs(50))
            .backoff(Backoff::new(Duration::from_micros(100), Duration::from_millis(1)))
            .build(backend.clone())
            .unwrap();
        let tasks: Vec<_> =
            (0..TASKS).map(|seed| tokio::runtime::Handle::current().spawn(one(pool.clone(), seed))).collect();
        let all = async {
            for task in tasks {
                task.await.expect("no get failed");
            }
        };
        // Far more than it takes: a slot that is lost or a wake-up that is missed shows as a failure, not as a hang.
        tokio::time::timeout(Duration::from_secs(100), all).await.expect("nobody waits for ever");
        assert!(backend.most_sockets() <= MAX as usize, "I1: {} connections", backend.most_sockets());
        assert!(backend.most_connecting() <= 3);
        let state = pool.state();
        assert_eq!((state.in_use, state.waiters), (0, 0), "I2: {state:?}");
        pool.close().await;
        assert_eq!(backend.sockets(), 0, "I11");
        assert_eq!(reading(&pool, "connects"), closed(&pool), "I13");
        assert_eq!(reading(&pool, "gets"), reading(&pool, "use"), "every guard came back");
        assert!(reading(&pool, "cancelled") > 0 && reading(&pool, "wait") > 0, "it was no stress");
    });
}

#[test]
fn nothing_is_lost_and_nothing_exceeded() {
    stress(Check::Never);
}

#[test]
fn nothing_is_lost_and_nothing_exceeded_with_checks() {
    stress(Check::Always);
}
