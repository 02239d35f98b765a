//! What is invalidated, and how strictly.

use std::time::Duration;

use crate::dep::Dep;

/// An invalidation in words: of what, and how. A [`Dep`] alone is a strict one; the methods that lead here make it
/// gentler.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use swiftwater_cache::{Cache, dep};
///
/// let cache = Cache::builder().build()?;
/// cache.invalidate(dep!("tariff", 7)); // nobody gets the old one from now on
/// cache.invalidate(dep!("tariff", 7).soft()); // they may, while the first of them loads anew
/// cache.invalidate(dep!("catalogue").gradual(Duration::from_secs(60))); // not all at once
/// cache.invalidate(dep!("stock", 7).hold_off(Duration::from_secs(2))); // replicas lag behind
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "nothing is invalidated until this is given to `Cache::invalidate`"]
pub struct Change {
    pub(crate) dep: Dep,
    pub(crate) soft: bool,
    pub(crate) window: Duration,
    pub(crate) hold: Duration,
}

impl Change {
    /// Entries may still be served while they are loaded anew: the next loading call that finds one gets it, marked as
    /// stale ([`Hit::is_stale`](crate::Hit::is_stale)), and starts a load in the background. A plain `get` finds
    /// nothing, since it could not start one; neither does a loader, whose own value would be made of the past.
    ///
    /// Relaxes the first law of [`Region`](crate::Region) for these entries.
    pub fn soft(mut self) -> Self {
        self.soft = true;
        self
    }

    /// Every entry takes its turn at a moment of its own, spread evenly over this time from now, so that their loads are
    /// spread as well. Until then it is served as if nothing had happened.
    ///
    /// Relaxes the first law of [`Region`](crate::Region) for these entries.
    pub fn gradual(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Loads that start within this time from now are returned to those who wait for them, and not stored: for a source
    /// that is read through replicas, which may answer from before the change for so long.
    ///
    /// By the cache's clock, so a coarse one ends the time about a millisecond early; leave room for it.
    pub fn hold_off(mut self, window: Duration) -> Self {
        self.hold = window;
        self
    }

    pub(crate) fn is_strict(&self) -> bool {
        !self.soft && self.window.is_zero()
    }
}

impl From<Dep> for Change {
    fn from(dep: Dep) -> Self {
        Self { dep, soft: false, window: Duration::ZERO, hold: Duration::ZERO }
    }
}

impl Dep {
    /// [`Change::soft`].
    pub fn soft(self) -> Change {
        Change::from(self).soft()
    }

    /// [`Change::gradual`].
    pub fn gradual(self, window: Duration) -> Change {
        Change::from(self).gradual(window)
    }

    /// [`Change::hold_off`].
    pub fn hold_off(self, window: Duration) -> Change {
        Change::from(self).hold_off(window)
    }
}
