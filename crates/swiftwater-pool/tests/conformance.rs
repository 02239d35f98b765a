//! The callable laws: a lawful connector passes, and each kind of unlawful one is caught.

mod common;

use common::*;
use swiftwater_pool::{Connect, conformance};
use tokio::runtime::Handle;

async fn caught(law: impl Future<Output = ()> + Send + 'static) {
    let broken = Handle::current().spawn(law).await;
    assert!(broken.is_err_and(|error| error.is_panic()), "it should have been caught");
}

#[tokio::test(start_paused = true)]
async fn a_lawful_connector_passes() {
    let backend = Backend::new();
    conformance::all(&backend).await;
    conformance::all(&std::sync::Arc::new(backend.clone())).await;
    conformance::dead_connections_are_noticed(&backend, async |link: &mut Link| link.broken = true).await;
    let killer = backend.clone();
    conformance::dead_connections_are_noticed(&backend, async move |_: &mut Link| killer.kill()).await;
    assert_eq!(backend.sockets(), 0);
}

#[tokio::test(start_paused = true)]
async fn unlawful_connectors_are_caught() {
    let backend = Backend::new();
    backend.always_checks(Step::Fail);
    caught(async move { conformance::new_connections_work(&backend).await }).await;
    let backend = Backend::new();
    backend.always_connects(Step::Hang);
    caught(async move { conformance::all(&backend).await }).await;
    let backend = Backend::new();
    backend.always_closes(Step::Hang);
    caught(async move { conformance::close_ends(&backend).await }).await;
    let backend = Backend::new();
    caught(async move { conformance::dead_connections_are_noticed(&backend, async |_: &mut Link| ()).await })
        .await;
    caught(async { conformance::cancelled_connects_leave_nothing_behind(&Leaky::default()).await }).await;
}

/// Takes a lock in `connect` and gives it back only at the end: whoever is cut off keeps it.
#[derive(Default)]
struct Leaky(std::sync::atomic::AtomicBool);

impl Connect for Leaky {
    type Connection = ();
    type Error = &'static str;

    async fn connect(&self) -> Result<(), &'static str> {
        if self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Err("somebody is connecting already");
        }
        tokio::task::yield_now().await;
        self.0.store(false, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }

    async fn check(&self, _: &mut ()) -> Result<(), &'static str> {
        Ok(())
    }

    fn is_broken(&self, _: &mut ()) -> bool {
        false
    }
}
