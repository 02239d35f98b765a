//! The life of the versions: within it stamps can be compared, and beyond it nothing can.
//!
//! A cache that starts begins a new life, unless it was told where the last one was written down when the cache was closed
//! (see [`persist`](crate::persist)); then it goes on with that one. Times are kept as the life's own nanoseconds.

use std::hash::{BuildHasher, Hasher, RandomState};

use swiftwater_core::Tick;

use crate::{scope::NEVER, stamps::Stamp};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    id: u64,
    /// What its clock is ahead of the cache's clock.
    ahead: u64,
}

impl Life {
    /// A new one. Its identity is random: the keys of a hasher are drawn by the system.
    pub(crate) fn begin() -> Self {
        Self { id: RandomState::new().build_hasher().finish(), ahead: 0 }
    }

    /// Goes on with one that was at this time.
    pub(crate) fn resume(id: u64, at: u64, now: Tick) -> Self {
        Self { id, ahead: at.saturating_sub(now.as_nanos()) }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn nanos(&self, tick: Tick) -> u64 {
        if tick == NEVER { u64::MAX } else { tick.as_nanos().saturating_add(self.ahead) }
    }

    /// Nothing that was written in an earlier run is later than this run's clock can say, unless it lives for ever.
    pub(crate) fn tick(&self, nanos: u64) -> Tick {
        if nanos == u64::MAX { NEVER } else { Tick::from_nanos(nanos.saturating_sub(self.ahead)) }
    }

    /// The stamp, if it is of this life.
    pub(crate) fn stamp(&self, life: u64, stamp: u64) -> Option<Stamp> {
        (life == self.id).then(|| Stamp::from_number(stamp))
    }
}
