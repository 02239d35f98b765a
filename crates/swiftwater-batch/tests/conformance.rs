//! The laws of handlers, held against our own forms of them, and against handlers that break them.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use swiftwater_batch::{Batch, Handler, IntoHandler, conformance};
use tokio::{runtime::Handle, sync::Semaphore, task::yield_now};

/// The three forms of closures.
#[tokio::test]
async fn closures_keep_the_laws() {
    let each = |ids: Vec<u32>| async move {
        yield_now().await;
        ids.into_iter().map(|id| if id > 1 { Ok(id) } else { Err("small") }).collect::<Vec<_>>()
    };
    conformance::all(&Arc::new(each.into_handler()), || 1).await;
    let all = |ids: Vec<u32>| async move {
        yield_now().await;
        Ok::<_, Infallible>(ids)
    };
    conformance::all(&Arc::new(all.into_handler()), || 1).await;
    let map = |ids: Vec<u32>| async move {
        yield_now().await;
        ids.into_iter().map(|id| (id, id)).collect::<HashMap<_, _>>()
    };
    let map = Arc::new(map.into_handler());
    conformance::all(&map, || 1).await;
    conformance::all(&Arc::new(Box::new(map)), || 1).await;
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    DropsTheLast,
    /// A permit is lost when its future is dropped.
    Leaks,
    None,
    PanicsWhenEmpty,
    ReturnsUnsealed,
    WaitsWhenEmpty,
}

struct Faulty(Fault, Semaphore, AtomicUsize);

impl Faulty {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self(fault, Semaphore::new(1), AtomicUsize::new(0)))
    }
}

impl Handler for Faulty {
    type Request = u32;
    type Output = u32;
    type Error = Infallible;

    async fn run(&self, batch: Batch<Self>) {
        if self.0 == Fault::ReturnsUnsealed {
            return;
        }
        let permit = self.1.acquire().await.unwrap();
        permit.forget();
        if self.0 != Fault::Leaks {
            self.1.add_permits(1);
        }
        let mut items = batch.seal();
        yield_now().await;
        match self.0 {
            Fault::DropsTheLast if items.len() > 1 => drop(items.pop()),
            Fault::PanicsWhenEmpty => assert!(!items.is_empty()),
            Fault::WaitsWhenEmpty if items.is_empty() => std::future::pending().await,
            Fault::Leaks => self.1.add_permits(1),
            _ => {}
        }
        self.2.fetch_add(items.len(), SeqCst);
        items.into_iter().for_each(|item| item.reply.send(Ok(item.request)));
    }
}

#[tokio::test(start_paused = true)]
async fn who_keeps_them_passes() {
    let handler = Faulty::new(Fault::None);
    conformance::all(&handler, || 1).await;
    assert!(handler.2.load(SeqCst) >= 2 * (1 + 2 + 7), "it was really asked");
}

#[tokio::test(start_paused = true)]
async fn who_breaks_one_is_caught() {
    for (fault, law) in [
        (Fault::DropsTheLast, "laws 1 and 2: request 1 of 2 was not answered"),
        (Fault::Leaks, "law 1: a request was not answered within 10s"),
        (Fault::PanicsWhenEmpty, "law 3: the run with an empty batch panicked"),
        (Fault::ReturnsUnsealed, "laws 1 and 2: request 0 of 1 was not answered"),
        (Fault::WaitsWhenEmpty, "law 3: the run with an empty batch did not end within 10s"),
    ] {
        let checked =
            Handle::current().spawn(async move { conformance::all(&Faulty::new(fault), || 1).await });
        let panic = checked.await.unwrap_err().into_panic();
        let message = match panic.downcast_ref::<String>() {
            Some(formatted) => formatted,
            None => *panic.downcast_ref::<&str>().unwrap(),
        };
        assert_eq!(message, law);
    }
}
