//! The laws of [`Connect`] as callable tests, for those who implement it.
//!
//! Each panics if its law is broken. They need a reachable backend, and a tokio runtime with timers.
//!
//! ```
//! # use swiftwater_pool::{Connect, conformance};
//! # struct Dialer;
//! # impl Connect for Dialer {
//! #     type Connection = bool;
//! #     type Error = std::io::Error;
//! #     async fn connect(&self) -> std::io::Result<bool> { Ok(true) }
//! #     async fn check(&self, alive: &mut bool) -> std::io::Result<()> {
//! #         if *alive { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
//! #     }
//! #     fn is_broken(&self, _: &mut bool) -> bool { false }
//! # }
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! # runtime.block_on(async {
//! conformance::all(&Dialer).await;
//! conformance::dead_connections_are_noticed(&Dialer, async |alive| *alive = false).await;
//! # });
//! ```

#![expect(clippy::missing_panics_doc, reason = "to panic is what they are for")]

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::timeout;

use crate::Connect;

/// Every law that can be tested without breaking anything.
pub async fn all<C: Connect>(connector: &C) {
    new_connections_work(connector).await;
    connections_are_independent(connector).await;
    cancelled_connects_leave_nothing_behind(connector).await;
    cancelled_checks_cost_one_connection(connector).await;
    close_ends(connector).await;
}

/// Laws 1 to 3: a new connection is not broken and passes its check, more than once.
pub async fn new_connections_work<C: Connect>(connector: &C) {
    let mut connection = open(connector).await;
    for _ in 0..3 {
        assert!(!connector.is_broken(&mut connection), "law 3: a new connection is said to be broken");
        check(connector, &mut connection).await;
    }
    connector.close(connection).await;
}

/// Law 5: two connections are checked in turn, and closing one leaves the other alone.
pub async fn connections_are_independent<C: Connect>(connector: &C) {
    let (mut one, mut two) = (open(connector).await, open(connector).await);
    check(connector, &mut one).await;
    check(connector, &mut two).await;
    connector.close(one).await;
    assert!(!connector.is_broken(&mut two), "law 5: closing one connection broke another");
    check(connector, &mut two).await;
    connector.close(two).await;
}

/// Law 1: an attempt that is dropped after any of its first polls does not harm the next one.
pub async fn cancelled_connects_leave_nothing_behind<C: Connect>(connector: &C) {
    for polls in 0..POLLS {
        poll_and_drop(connector.connect(), polls).await;
    }
    let mut connection = open(connector).await;
    check(connector, &mut connection).await;
    connector.close(connection).await;
}

/// Law 2: a check that is dropped after any of its first polls harms no other connection.
pub async fn cancelled_checks_cost_one_connection<C: Connect>(connector: &C) {
    let mut other = open(connector).await;
    for polls in 0..POLLS {
        let mut connection = open(connector).await;
        poll_and_drop(connector.check(&mut connection), polls).await;
        drop(connection);
    }
    check(connector, &mut other).await;
    connector.close(other).await;
}

/// Law 4: `close` ends.
pub async fn close_ends<C: Connect>(connector: &C) {
    let connection = open(connector).await;
    let closed = timeout(LIMIT, connector.close(connection)).await;
    assert!(closed.is_ok(), "law 4: close did not end within {LIMIT:?}");
}

/// Law 2: after `kill` has cut the connection's peer off, `is_broken` or `check` says so.
pub async fn dead_connections_are_noticed<C: Connect>(
    connector: &C,
    kill: impl AsyncFnOnce(&mut C::Connection),
) {
    let mut connection = open(connector).await;
    check(connector, &mut connection).await;
    kill(&mut connection).await;
    let noticed = connector.is_broken(&mut connection)
        || !matches!(timeout(LIMIT, connector.check(&mut connection)).await, Ok(Ok(())));
    assert!(noticed, "law 2: neither is_broken nor check noticed that the peer is gone");
}

async fn open<C: Connect>(connector: &C) -> C::Connection {
    match timeout(LIMIT, connector.connect()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => panic!("law 1: connect failed: {error:?}"),
        Err(_) => panic!("law 1: connect did not end within {LIMIT:?}"),
    }
}

async fn check<C: Connect>(connector: &C, connection: &mut C::Connection) {
    match timeout(LIMIT, connector.check(connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("law 2: the check of a working connection failed: {error:?}"),
        Err(_) => panic!("law 2: check did not end within {LIMIT:?}"),
    }
}

/// Polls `future` up to `polls` times, as its wakers ask for it, and drops it.
async fn poll_and_drop<F: Future>(future: F, polls: usize) {
    let mut future = pin!(future);
    let mut left = polls;
    let polling = poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Pending if left > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    });
    // A future that waits long between two polls is dropped there.
    let _ = timeout(Duration::from_secs(1), polling).await;
}

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(10);
/// After how many polls a future is dropped, at most.
const POLLS: usize = 6;
