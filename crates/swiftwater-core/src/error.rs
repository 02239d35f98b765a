//! The one error that every builder of the workspace answers with.

use std::{error::Error, fmt};

/// A builder was given an option that cannot work: which one, its value, and what it must be.
///
/// ```
/// use swiftwater_core::BuildError;
///
/// let error = BuildError::new("max_size", 0, "must be at least 1");
/// assert_eq!(error.to_string(), "max_size = 0: must be at least 1");
/// assert_eq!(error.option(), "max_size");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    option: &'static str,
    value: String,
    expected: &'static str,
}

impl BuildError {
    /// Names the option as the builder spells it, the value it was given, and what would have been accepted.
    pub fn new(option: &'static str, value: impl fmt::Display, expected: &'static str) -> Self {
        Self { option, value: value.to_string(), expected }
    }

    /// The option, spelled as the builder's method.
    #[must_use]
    pub fn option(&self) -> &'static str {
        self.option
    }

    /// The refused value, as text.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.option, self.value, self.expected)
    }
}

impl Error for BuildError {}
