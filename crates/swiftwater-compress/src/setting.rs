//! A coding and how hard it works.

use std::fmt;

use swiftwater_core::BuildError;

use crate::coding::Coding;

/// A coding with its level. The constructors only store; a builder judges.
///
/// | | Levels | Window | What a stream holds besides |
/// |---|---|---|---|
/// | [`brotli`](Self::brotli) | 0 to 11 | 256 KiB | tables that grow with the level; at 9 one of 32 MiB, so take 8, or 10 and 11 for what can wait |
/// | [`gzip`](Self::gzip) | 1 to 9 | 32 KiB | the same at every level, far below a mebibyte |
/// | [`lz4`](Self::lz4) | | 64 KiB | a table of 8 to 16 KiB |
/// | [`zstd`](Self::zstd) | -7 to -1 and 1 to 19 | 512 KiB at 1, 2 MiB from 3, 4 MiB from 9, 8 MiB from 17 | tables: half a window at 3, two at 6, three at 9, ten and more from 12 |
///
/// zstd takes a window, and tables, no larger than the body where its length is [known](crate::Hints::size) to be at most
/// 256 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Setting {
    coding: Coding,
    level: i32,
}

impl Setting {
    /// Brotli: 0 to 11. 4 or 5 suit what is made on the fly, 10 and 11 only what is made once and sent often.
    #[must_use]
    pub const fn brotli(level: i32) -> Self {
        Self { coding: Coding::Brotli, level }
    }

    /// Gzip: 1 to 9. 6 is what most servers use.
    #[must_use]
    pub const fn gzip(level: i32) -> Self {
        Self { coding: Coding::Gzip, level }
    }

    /// The bytes as they are.
    #[must_use]
    pub const fn identity() -> Self {
        Self { coding: Coding::Identity, level: 0 }
    }

    /// LZ4 frames; there is one level.
    #[must_use]
    pub const fn lz4() -> Self {
        Self { coding: Coding::Lz4, level: 0 }
    }

    /// Zstandard: 1 to 19, or -7 to -1 for more speed and less gain. Higher levels need windows that an HTTP client does
    /// not have to accept (RFC 9659).
    #[must_use]
    pub const fn zstd(level: i32) -> Self {
        Self { coding: Coding::Zstd, level }
    }

    /// The coding.
    #[must_use]
    pub const fn coding(self) -> Coding {
        self.coding
    }

    /// The level; 0 for codings that have none.
    #[must_use]
    pub const fn level(self) -> i32 {
        self.level
    }

    /// Whether this build can do it.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the coding, the level and the levels there are, or the feature that is missing.
    pub fn check(self) -> Result<(), BuildError> {
        let Self { coding, level } = self;
        let (levels, expected, missing) = match coding {
            Coding::Brotli => (0..=11, "must be a level from 0 to 11", "needs the feature \"brotli\""),
            Coding::Gzip => (1..=9, "must be a level from 1 to 9", "needs the feature \"gzip\""),
            Coding::Identity => return Ok(()),
            Coding::Lz4 => (0..=0, "has no levels", "needs the feature \"lz4\""),
            Coding::Zstd => {
                (-7..=19, "must be a level from -7 to 19, but not 0", "needs the feature \"zstd\"")
            }
        };
        if !coding.is_available() {
            return Err(BuildError::new(coding.token(), level, missing));
        }
        if !levels.contains(&level) || (coding == Coding::Zstd && level == 0) {
            return Err(BuildError::new(coding.token(), level, expected));
        }
        Ok(())
    }
}

/// `gzip 6`, `lz4`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.coding {
            Coding::Identity | Coding::Lz4 => self.coding.fmt(f),
            Coding::Brotli | Coding::Gzip | Coding::Zstd => write!(f, "{} {}", self.coding, self.level),
        }
    }
}
