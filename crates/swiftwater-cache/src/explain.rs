//! Why an entry is or is not served.

use std::time::Duration;

use crate::dep::{Dep, Edge, Form};

/// What [`Region::explain`](crate::Region::explain) says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// Why a `get` would find it, or not.
    pub verdict: Verdict,
    /// Whether it is being loaded.
    pub is_loading: bool,
    /// How long it will still be fresh, if nothing happens to it; `None` if it is not, or has no lifetime.
    pub expires_in: Option<Duration>,
    /// On how many dependencies it depends, as far as they are told apart.
    pub dependencies: usize,
}

/// Why a `get` would find an entry, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// There is none in memory: never loaded, evicted, or removed since somebody found it unfit.
    Absent,
    /// It expired so long ago: by its lifetime, or because nobody asked for it (then zero).
    Expired(Duration),
    /// It would be served.
    Fresh,
    /// It was invalidated strictly since it was loaded, or its turn in a gradual invalidation has come.
    Invalidated(Cause),
    /// The region is switched off.
    Off,
    /// It was invalidated softly.
    Softened(Cause),
    /// The region's [invalidation policy](crate::InvalidationPolicy) does not want it any more.
    Unwanted,
}

/// What was invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Something of a kind of which it depends on too many to tell them apart.
    Kind,
    /// This dependency, or one that shares a version cell with it.
    Dependency(Dep),
    /// Everything.
    Everything,
    /// Its own key.
    Key,
    /// Its region.
    Region,
    /// Anything at all: it depends on too many kinds to tell them apart.
    Unknown,
}

impl Cause {
    pub(crate) fn of(edge: Edge) -> Self {
        match (edge.form(), edge.dep()) {
            (_, Some(dep)) => Self::Dependency(dep),
            (Form::Everything, _) => Self::Unknown,
            (Form::All, _) => Self::Everything,
            _ => Self::Kind,
        }
    }
}
