//! Calls that are dropped while they wait, and whose last words are another load: nobody may take it for one of theirs.

mod common;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Waker},
    time::Duration,
};

use common::{Gates, cache, region, settle, spawn};
use swiftwater_cache::{Cache, Excess, LoadCx, Region};

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Does something when it is dropped.
struct Last(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|last| last());
    }
}

fn poll_once(call: &mut Call) {
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// The load of a key begins a call and gives it away, `meanwhile` something happens, and then the call is dropped, with what it
/// was given. That begins a load which reads the key: what it gets.
async fn abandon(
    cache: &Cache,
    call: impl FnOnce(Last) -> Call + Send + 'static,
    meanwhile: impl FnOnce(),
) -> Option<Result<u32, String>> {
    let (outer, other): (Region<u64, u32>, Region<u64, u32>) =
        (region(cache, "outer"), region(cache, "other"));
    let got = Arc::new(Mutex::new(None));
    let last = {
        let (outer, got) = (outer.clone(), got.clone());
        Last(Some(Box::new(move || {
            let load = async move |_: LoadCx<u64>| {
                let read = outer.get_or_load(&1, async |_| Ok(77)).await;
                *got.lock().unwrap() = Some(read.map(|hit| *hit).map_err(|error| format!("{error:?}")));
                Ok(0)
            };
            poll_once(&mut (Box::pin(async move { drop(other.get_or_load(&9, load).await) }) as Call));
        })))
    };
    let (give, given) = mpsc::channel();
    let gates = Gates::new();
    let source = gates.clone();
    spawn(async move {
        let load = async move |_: LoadCx<u64>| {
            let mut call = call(last);
            poll_once(&mut call);
            give.send(call).unwrap();
            Ok(source.pass(1).await)
        };
        drop(outer.get_or_load(&1, load).await);
    });
    settle().await;
    meanwhile();
    settle().await;
    drop(given.try_recv().expect("the call waits"));
    settle().await;
    gates.open(3);
    settle().await;
    got.lock().unwrap().take()
}

/// A call whose load waits, and gives a value that is not stored.
fn loads(rows: Region<u64, Last>, gates: Gates<()>, value: Last) -> Call {
    let load = async move |cx: LoadCx<u64>| {
        gates.pass(5).await;
        cx.ttl(Duration::ZERO);
        Ok(value)
    };
    Box::pin(async move { drop(rows.get_or_load(&5, load).await) })
}

#[tokio::test]
async fn one_whose_load_has_ended_closes_no_ring() {
    let cache = cache();
    let rows: Region<u64, Last> = region(&cache, "rows");
    let gates = Gates::new();
    let source = gates.clone();
    let call = move |last| loads(rows, source, last);
    assert_eq!(abandon(&cache, call, || gates.open(())).await, Some(Ok(3)));
}

#[tokio::test]
async fn one_that_has_joined_a_load_that_has_ended_closes_no_ring() {
    let cache = cache();
    let rows: Region<u64, Last> = region(&cache, "rows");
    let gates = Gates::new();
    let source = gates.clone();
    let call = move |last| -> Call {
        poll_once(&mut loads(rows.clone(), source, last));
        Box::pin(async move { drop(rows.get_or_load(&5, async |_| Ok(Last(None))).await) })
    };
    assert_eq!(abandon(&cache, call, || gates.open(())).await, Some(Ok(3)));
}

#[tokio::test]
async fn one_that_waits_for_its_turn_closes_no_ring() {
    let cache = cache();
    let rows: Region<u64, u32> = cache.region("rows").max_loads(1, Excess::Wait).build().unwrap();
    let gates = Gates::new();
    let (busy, source) = (rows.clone(), gates.clone());
    spawn(async move { drop(busy.get_or_load(&4, async move |_| Ok(source.pass(4).await)).await) });
    settle().await;
    let call = move |last| -> Call {
        let load = async move |_: LoadCx<u64>| {
            drop(last);
            Ok(1)
        };
        Box::pin(async move { drop(rows.get_or_load(&5, load).await) })
    };
    assert_eq!(abandon(&cache, call, || {}).await, Some(Ok(3)));
    gates.open(0);
}
