//! Dependencies that lie under others: what depends on one depends on all that it lies under.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crate::dep::{Dep, Edge};

/// The declared links. Entries are given what their dependencies lie under when they are filled, so nothing is walked when
/// something is read or invalidated.
pub(crate) struct Links {
    above: Mutex<HashMap<Dep, Vec<Dep>>>,
    /// Whether there has ever been a link.
    any: AtomicBool,
    limit: usize,
}

/// Why a link was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// The upper dependency lies under the lower one already: each of these under the next, and the last under the first.
    Cycle(Vec<Dep>),
    /// There are as many links as [`Builder::max_links`](crate::Builder::max_links) allows, which is this number.
    Full(usize),
}

impl Links {
    pub(crate) fn new(limit: usize) -> Self {
        Self { above: Mutex::default(), any: AtomicBool::new(false), limit }
    }

    /// Adds it, unless it is there.
    pub(crate) fn add(&self, lower: Dep, upper: Dep) -> Result<(), LinkError> {
        let mut above = self.above();
        if above.get(&lower).is_some_and(|uppers| uppers.contains(&upper)) {
            return Ok(());
        }
        if let Some(mut path) = path(&above, upper, lower) {
            path.rotate_right(1); // from the lower one, which is the last
            return Err(LinkError::Cycle(path));
        }
        if above.values().map(Vec::len).sum::<usize>() >= self.limit {
            return Err(LinkError::Full(self.limit));
        }
        above.entry(lower).or_default().push(upper);
        // Relaxed: whoever starts a load after the link was made, as it is promised from then on, has learnt of that.
        self.any.store(true, Relaxed);
        Ok(())
    }

    pub(crate) fn remove(&self, lower: Dep, upper: Dep) -> bool {
        let mut above = self.above();
        let Some(uppers) = above.get_mut(&lower) else { return false };
        let Some(place) = uppers.iter().position(|dep| *dep == upper) else { return false };
        uppers.swap_remove(place);
        if uppers.is_empty() {
            above.remove(&lower);
        }
        true
    }

    /// Whether there has ever been a link.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Hands `add` everything that `key` or any of `edges` lies under.
    pub(crate) fn above_each(&self, edges: &[Edge], key: Dep, mut add: impl FnMut(Edge)) {
        let above = self.above();
        let mut reached: Vec<Dep> = edges.iter().filter_map(|edge| edge.dep()).chain([key]).collect();
        // An entry that keeps kinds may depend on any name of the kind.
        reached.extend(above.keys().filter(|lower| edges.contains(&lower.edge().coarse())));
        let mut next = 0;
        while let Some(dep) = reached.get(next).copied() {
            for upper in above.get(&dep).into_iter().flatten() {
                if !reached.contains(upper) {
                    reached.push(*upper);
                    add(upper.edge());
                }
            }
            next += 1;
        }
    }

    fn above(&self) -> MutexGuard<'_, HashMap<Dep, Vec<Dep>>> {
        // No foreign code runs under the lock.
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From one dependency upwards to the other, both included.
fn path(above: &HashMap<Dep, Vec<Dep>>, from: Dep, to: Dep) -> Option<Vec<Dep>> {
    let mut reached = vec![(from, usize::MAX)];
    let mut next = 0;
    while let Some((dep, _)) = reached.get(next).copied() {
        if dep == to {
            let mut path = Vec::new();
            let mut at = next;
            while let Some((dep, before)) = reached.get(at).copied() {
                path.push(dep);
                at = before;
            }
            path.reverse();
            return Some(path);
        }
        for upper in above.get(&dep).into_iter().flatten() {
            if !reached.iter().any(|(dep, _)| dep == upper) {
                reached.push((*upper, next));
            }
        }
        next += 1;
    }
    None
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cycle(deps) => {
                f.write_str("the link would close a cycle: ")?;
                deps.iter().try_for_each(|dep| write!(f, "{dep:?} under "))?;
                match deps.first() {
                    Some(first) => write!(f, "{first:?}"),
                    None => Ok(()),
                }
            }
            Self::Full(limit) => write!(f, "there are {limit} links already, as many as `max_links` allows"),
        }
    }
}

impl Error for LinkError {}
