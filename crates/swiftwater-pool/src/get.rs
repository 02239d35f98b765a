//! Waiting for a connection.

use std::{
    fmt,
    future::Future,
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use swiftwater_core::Tick;
use tokio::time::Instant;

use crate::{
    Connect, GetError, Guard,
    engine::{Conn, Take, Waiter},
    shared::{Lease, Owner, Shared},
    stats::Reason,
};

/// The future of [`Pool::get`](crate::Pool::get): named, so that it can be stored, and `'static`.
///
/// It joins the queue when it is first polled. The first poll takes a ready connection without an allocation and without a
/// timer. It may be polled on any runtime, or none; but the runtime that the pool was built on has to be driven, since
/// that one opens, checks, and watches the deadline. Once served, it holds its connection until it is polled or dropped.
///
/// # Cancel safety
///
/// Dropping it at any moment loses nothing: its place is given up, and a connection that was already on its way goes to
/// the next caller.
///
/// # Panics
///
/// When polled again after it was ready.
#[must_use = "futures do nothing unless polled"]
pub struct Get<C: Connect> {
    /// `None` once it was ready.
    shared: Option<Owner<C>>,
    place: &'static Location<'static>,
    queued: Option<Queued>,
}

#[derive(Clone, Copy)]
struct Queued {
    ticket: u64,
    since: Tick,
    deadline: Instant,
}

impl<C: Connect> Get<C> {
    pub(crate) fn new(shared: Owner<C>, place: &'static Location<'static>) -> Self {
        Self { shared: Some(shared), place, queued: None }
    }
}

impl<C: Connect> Unpin for Get<C> {}

impl<C: Connect> Future for Get<C> {
    type Output = Result<Guard<C>, GetError<C::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = this.shared.as_ref().expect("`Get` polled after it was ready");
        let result = loop {
            let arrived = match this.queued {
                None => match start(shared, cx) {
                    Started::Arrived(result) => result,
                    Started::Queued(queued) => {
                        this.queued = Some(queued);
                        continue;
                    }
                },
                Some(queued) => match wait(shared, queued.ticket, cx) {
                    Some(result) => result,
                    None => return Poll::Pending,
                },
            };
            let mut conn = match arrived {
                Ok(conn) => conn,
                Err(error) => break Err(error),
            };
            if !shared.is_broken(&mut conn) {
                break Ok(conn);
            }
            try_again(shared, conn, this.queued, cx);
        };
        let queued = this.queued.take();
        let shared = this.shared.take().expect("present until ready");
        let result = result.map(|conn| Lease::lent(shared.clone(), conn)); // from here on it is not lost
        let now = shared.clock.now();
        if let (Some(queued), Ok(_) | Err(GetError::Timeout(_))) = (queued, &result) {
            shared.stats.waited(now - queued.since);
        }
        Poll::Ready(result.map(|lease| {
            shared.stats.gets.add(1);
            Guard::new(lease, now, this.place)
        }))
    }
}

impl<C: Connect> Drop for Get<C> {
    fn drop(&mut self) {
        if let (Some(shared), Some(queued)) = (self.shared.take(), self.queued.take()) {
            shared.stats.cancelled.add(1);
            // What is left, a waker or an error, is foreign: dropped out here.
            drop(shared.change(|engine, now, fx| engine.leave(queued.ticket, now, fx)));
        }
    }
}

impl<C: Connect> fmt::Debug for Get<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get")
            .field("place", &format_args!("{}", self.place))
            .field("ready", &self.shared.is_none())
            .field("queued", &self.queued.is_some())
            .finish()
    }
}

type Arrived<C> = Result<Conn<<C as Connect>::Connection>, GetError<<C as Connect>::Error>>;

enum Started<C: Connect> {
    Arrived(Arrived<C>),
    Queued(Queued),
}

/// Takes what is ready, or joins the queue.
fn start<C: Connect>(shared: &Arc<Shared<C>>, cx: &Context<'_>) -> Started<C> {
    match shared.change(|engine, now, fx| engine.take(now, false, fx)) {
        Take::Ready(conn) => return Started::Arrived(Ok(conn)),
        Take::End(end) => return Started::Arrived(Err(end.error())),
        Take::Wait => {}
    }
    // Cloning a waker runs foreign code, so it is not done under the lock, and all is looked at anew afterwards.
    let deadline = shared.deadline();
    let mut waiter = Some(Waiter { waker: cx.waker().clone(), deadline });
    let (took, joined) = shared.change(|engine, now, fx| {
        let took = engine.take(now, false, fx);
        let joined = match took {
            Take::Wait => waiter.take().map(|waiter| (engine.enqueue(waiter, fx), now)),
            Take::End(_) | Take::Ready(_) => None,
        };
        (took, joined)
    });
    match (took, joined) {
        (Take::Ready(conn), _) => Started::Arrived(Ok(conn)),
        (Take::End(end), _) => Started::Arrived(Err(end.error())),
        (Take::Wait, Some((Ok(ticket), since))) => Started::Queued(Queued { ticket, since, deadline }),
        (Take::Wait, Some((Err((_waiter, waiters)), _))) => {
            shared.stats.full.add(1);
            Started::Arrived(Err(GetError::Full { waiters }))
        }
        (Take::Wait, None) => unreachable!("whoever must wait is put into the queue"),
    }
}

/// What has been delivered; otherwise sees to it that the right task is woken.
fn wait<C: Connect>(shared: &Arc<Shared<C>>, ticket: u64, cx: &Context<'_>) -> Option<Arrived<C>> {
    let (arrived, known) = shared.look(|engine| {
        let arrived = engine.pick_up(ticket);
        // Compares addresses; runs nothing foreign.
        let known = engine.waiter(ticket).is_some_and(|w| w.waker.will_wake(cx.waker()));
        (arrived, known)
    });
    if arrived.is_some() || known {
        return arrived;
    }
    let mut waker = cx.waker().clone();
    // The old waker is dropped out here.
    shared.look(|engine| {
        let arrived = engine.pick_up(ticket);
        if let Some(waiter) = engine.waiter(ticket) {
            std::mem::swap(&mut waiter.waker, &mut waker);
        }
        arrived
    })
}

/// The connection that arrived is broken: discards it, and keeps the caller's place.
fn try_again<C: Connect>(
    shared: &Arc<Shared<C>>,
    conn: Conn<C::Connection>,
    queued: Option<Queued>,
    cx: &Context<'_>,
) {
    let mut lease = Lease::lent(shared.clone(), conn); // the waker's clone may panic
    // Back into the queue first: while the connection is closed, others may come and go.
    if let Some(Queued { ticket, deadline, .. }) = queued {
        let waker = cx.waker().clone();
        shared.change(|engine, _, fx| engine.requeue(ticket, Waiter { waker, deadline }, fx));
    }
    lease.discard(Reason::Broken);
}
