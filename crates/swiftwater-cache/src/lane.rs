//! How many loads of a region may run at a time.
//!
//! A load that another one waits for goes without a place where both might wait for ever, see [`waits`](crate::waits).

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, PoisonError},
    task::Poll,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    sync::{Mutex, MutexGuard},
    waits::RINGS,
};

/// What becomes of a load while as many as [`max_loads`](crate::RegionBuilder::max_loads) allows are running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Excess {
    /// It fails with [`LoadError::Busy`](crate::LoadError::Busy), as do all who wait for it.
    Fail,
    /// It waits for its turn, first come, first served.
    #[default]
    Wait,
}

pub(crate) struct Lane {
    places: Arc<Semaphore>,
    limit: Arc<Mutex<Limit>>,
    pub(crate) excess: Excess,
}

struct Limit {
    wanted: usize,
    /// Places that are taken and are not to be given back, since the limit was lowered meanwhile.
    owed: usize,
}

/// A place in the lane, given back when dropped.
pub(crate) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    limit: Arc<Mutex<Limit>>,
}

impl Lane {
    pub(crate) const MOST: usize = 1 << 20;

    pub(crate) fn new(wanted: usize, excess: Excess) -> Self {
        let limit = Arc::new(Mutex::new(Limit { wanted, owed: 0 }));
        Self { places: Arc::new(Semaphore::new(wanted)), limit, excess }
    }

    pub(crate) fn limit(&self) -> usize {
        lock(&self.limit).wanted
    }

    /// Raises the limit at once; lowers it as loads end.
    pub(crate) fn set_limit(&self, wanted: usize) {
        let mut limit = lock(&self.limit);
        if wanted >= limit.wanted {
            let more = wanted - limit.wanted;
            let forgiven = more.min(limit.owed);
            limit.owed -= forgiven;
            self.places.add_permits(more - forgiven);
        } else {
            let fewer = limit.wanted - wanted;
            limit.owed += fewer - self.places.forget_permits(fewer);
        }
        limit.wanted = wanted;
    }

    pub(crate) fn try_enter(&self) -> Option<Place> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        Some(Place { permit: Some(permit), limit: self.limit.clone() })
    }

    /// Waits for a place; `None` as soon as the load has to go without.
    pub(crate) async fn enter(&self, goes_without: impl Fn() -> bool) -> Option<Place> {
        let mut permit = pin!(self.places.clone().acquire_owned());
        loop {
            // Asked for before looking, so that a ring that closes in between is not missed.
            let mut ring = pin!(RINGS.notified());
            if goes_without() {
                return None;
            }
            let permit = poll_fn(|cx| match permit.as_mut().poll(cx) {
                // An error would say that it was closed, which it never is.
                Poll::Ready(permit) => Poll::Ready(permit.ok()),
                Poll::Pending => ring.as_mut().poll(cx).map(|()| None),
            });
            if let Some(permit) = permit.await {
                return Some(Place { permit: Some(permit), limit: self.limit.clone() });
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut limit = lock(&self.limit);
        if limit.owed > 0
            && let Some(permit) = self.permit.take()
        {
            limit.owed -= 1;
            permit.forget();
        }
    }
}

fn lock(limit: &Mutex<Limit>) -> MutexGuard<'_, Limit> {
    // No foreign code runs under the lock.
    limit.lock().unwrap_or_else(PoisonError::into_inner)
}
