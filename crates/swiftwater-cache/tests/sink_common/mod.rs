//! A source to write to, which does as it is told.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use swiftwater_cache::{AnyError, Hit, LoadCx, LoadError, Region, Sink};

use crate::common::{Gates, readings};

/// How a call of the sink ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Applied,
    AppliedAndFailed,
    AppliedAndPanicked,
    Failed,
    Panicked,
}

impl Ends {
    pub(crate) const ALL: [Self; 5] =
        [Self::Applied, Self::AppliedAndFailed, Self::AppliedAndPanicked, Self::Failed, Self::Panicked];

    fn is_applied(self) -> bool {
        matches!(self, Self::Applied | Self::AppliedAndFailed | Self::AppliedAndPanicked)
    }
}

/// Pushes the key out of a region with room for one entry.
pub(crate) fn press(rows: &Region<u64, u32>, key: u64) {
    for other in 1000..1100 {
        (0..20).for_each(|_| drop(rows.get(&other))); // moka admits what is in demand, once it has settled
        readings(rows);
        rows.insert(other, 0);
        readings(rows);
        if rows.get(&key).is_none() {
            return;
        }
    }
    panic!("there is room for more than one");
}

#[derive(Clone, Default)]
pub(crate) struct Source(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rows: Mutex<HashMap<u64, u32>>,
    calls: Mutex<Vec<Vec<(u64, u32)>>>,
    loads: Mutex<Vec<u64>>,
    /// Keys that it refuses.
    refused: Mutex<HashSet<u64>>,
    is_down: AtomicBool,
    /// Calls wait until the test lets them end.
    gates: Option<Gates<Ends>>,
}

impl Source {
    pub(crate) fn gated(gates: &Gates<Ends>) -> Self {
        Self(Arc::new(Inner { gates: Some(gates.clone()), ..Inner::default() }))
    }

    pub(crate) fn rows(&self) -> HashMap<u64, u32> {
        self.0.rows.lock().unwrap().clone()
    }

    pub(crate) fn row(&self, key: u64) -> u32 {
        self.0.rows.lock().unwrap().get(&key).copied().unwrap_or(0)
    }

    pub(crate) fn set(&self, key: u64, value: u32) {
        self.0.rows.lock().unwrap().insert(key, value);
    }

    /// The calls of the sink until now, and since this was last asked.
    pub(crate) fn calls(&self) -> Vec<Vec<(u64, u32)>> {
        std::mem::take(&mut self.0.calls.lock().unwrap())
    }

    /// The keys that were loaded since this was last asked.
    pub(crate) fn loads(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.loads.lock().unwrap())
    }

    pub(crate) fn refuse(&self, key: u64, refused: bool) {
        let mut keys = self.0.refused.lock().unwrap();
        if refused {
            keys.insert(key)
        } else {
            keys.remove(&key)
        };
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.0.is_down.store(down, SeqCst);
    }

    /// Through the region.
    pub(crate) async fn load(
        &self,
        region: &Region<u64, u32>,
        key: u64,
    ) -> Result<Hit<u32>, LoadError<AnyError>> {
        let source = self.clone();
        region
            .get_or_load(&key, async move |cx: LoadCx<u64>| {
                source.0.loads.lock().unwrap().push(*cx.key());
                Ok(source.row(*cx.key()))
            })
            .await
    }

    pub(crate) async fn read(&self, region: &Region<u64, u32>, key: u64) -> u32 {
        *self.load(region, key).await.expect("the loader does not fail")
    }
}

impl Sink<u64, u32> for Source {
    type Error = io::Error;

    async fn store(&self, writes: Vec<(u64, Hit<u32>)>) -> Result<(), io::Error> {
        let writes: Vec<(u64, u32)> = writes.iter().map(|(key, value)| (*key, **value)).collect();
        self.0.calls.lock().unwrap().push(writes.clone());
        let mut ends = Ends::Applied;
        if let Some(gates) = &self.0.gates {
            ends = gates.pass(writes[0].0).await;
        }
        let refused = writes.iter().any(|(key, _)| self.0.refused.lock().unwrap().contains(key));
        if refused || self.0.is_down.load(SeqCst) {
            ends = Ends::Failed;
        }
        if ends.is_applied() {
            self.0.rows.lock().unwrap().extend(writes);
        }
        match ends {
            Ends::Applied => Ok(()),
            Ends::AppliedAndFailed | Ends::Failed => Err(io::Error::other("refused")),
            Ends::AppliedAndPanicked | Ends::Panicked => panic!("as the test wants it"),
        }
    }
}
