//! A layer as one region uses it.

use std::{sync::Arc, time::Duration};

use swiftwater_core::Gate;

use crate::layer::Layer;

/// A [`Layer`] as one region uses it: with a time-out, perhaps behind a [`Gate`], filled at a moment of choice. Every layer
/// converts into one.
#[derive(Clone)]
#[must_use = "it does nothing until it is given to a region"]
pub struct Tier {
    pub(crate) layer: Arc<dyn Layer>,
    pub(crate) gate: Option<Arc<dyn Gate>>,
    pub(crate) timeout: Duration,
    pub(crate) ttl: Option<Duration>,
    pub(crate) fill: Fill,
}

/// When entries go to a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fill {
    /// When they have to make room in memory: the layer has what memory has not, and less is written.
    OnEviction,
    /// When they are loaded or inserted: the layer has all that memory has, so a restart finds it.
    #[default]
    OnLoad,
}

impl Tier {
    /// The layer with the defaults.
    pub fn new(layer: impl Layer) -> Self {
        Self::from(layer)
    }

    /// How long one call of the layer may take, after which it is dropped and counts as failed. Default: 100 ms. No
    /// `get` waits longer for this layer than that. Needs a runtime with timers, unless the layer always answers
    /// at once.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long what the layer has may be served, counted from when it is handed to the layer; never longer than the entry
    /// itself may be. Default: `None`, as long as that.
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// What is asked before every call of the layer, and told how it went, such as a circuit breaker. While it refuses the
    /// layer is as if it were not there. Default: none.
    pub fn gate(mut self, gate: Arc<dyn Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// When entries go to the layer. Default: [`Fill::OnLoad`].
    pub fn fill(mut self, fill: Fill) -> Self {
        self.fill = fill;
        self
    }
}

impl<L: Layer> From<L> for Tier {
    fn from(layer: L) -> Self {
        Self::from(Arc::new(layer))
    }
}

impl<L: Layer> From<Arc<L>> for Tier {
    fn from(layer: Arc<L>) -> Self {
        Self { layer, gate: None, timeout: DEFAULT_TIMEOUT, ttl: None, fill: Fill::default() }
    }
}

impl std::fmt::Debug for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tier")
            .field("layer", &self.layer.name())
            .field("gated", &self.gate.is_some())
            .field("timeout", &self.timeout)
            .field("ttl", &self.ttl)
            .field("fill", &self.fill)
            .finish()
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);
