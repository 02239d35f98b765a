//! What a call does without.

#[cfg(feature = "layers")]
use std::sync::Arc;

/// What a loading call neither asks nor tells, see [`Region::skipping`](crate::Region::skipping). Made empty and added to.
#[derive(Clone, Debug, Default)]
#[must_use = "it is only said what to skip"]
pub struct Skip {
    pub(crate) memory: bool,
    #[cfg(feature = "layers")]
    layers: Layers,
}

/// As most calls.
pub(crate) static NOTHING: Skip = Skip {
    memory: false,
    #[cfg(feature = "layers")]
    layers: Layers::These(None),
};

#[cfg(feature = "layers")]
#[derive(Clone, Debug)]
enum Layers {
    All,
    These(Option<Arc<[&'static str]>>),
}

#[cfg(feature = "layers")]
impl Default for Layers {
    fn default() -> Self {
        Self::These(None)
    }
}

impl Skip {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory: the value is not looked for there, and not kept there.
    pub fn memory(mut self) -> Self {
        self.memory = true;
        self
    }

    /// All layers below memory.
    #[cfg(feature = "layers")]
    pub fn layers(mut self) -> Self {
        self.layers = Layers::All;
        self
    }

    /// The layers of that [name](crate::Layer::name).
    #[cfg(feature = "layers")]
    pub fn layer(mut self, name: &'static str) -> Self {
        if let Layers::These(names) = self.layers {
            let before = names.iter().flat_map(|names| names.iter().copied());
            self.layers = Layers::These(Some(before.chain([name]).collect()));
        }
        self
    }

    #[cfg(feature = "layers")]
    pub(crate) fn has_layer(&self, name: &str) -> bool {
        match &self.layers {
            Layers::All => true,
            Layers::These(names) => names.iter().any(|names| names.contains(&name)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        #[cfg(feature = "layers")]
        let has_layers = !matches!(self.layers, Layers::These(None));
        #[cfg(not(feature = "layers"))]
        let has_layers = false;
        !self.memory && !has_layers
    }
}
