//! An index's definition: its schema and its settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::schema::Schema;

/// Most shards of one index: a query touches each of them.
pub const SHARDS_MAX: u32 = 1_024;
/// Most copies of a shard.
pub const COPIES_MAX: u32 = 16;
/// Shards of an index whose creator named no number: enough to use the cores
/// of a small machine and to spread over a few, few enough that a small index
/// pays nothing worth measuring.
pub const SHARDS_DEFAULT: u32 = 4;

/// What an index is. Numbered in the store; a WAL record names the number that
/// validated it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Number of shards, fixed for the life of the index.
    pub shards: u32,
    /// Copies of each shard, the owner's included.
    pub copies: u32,
    /// The fields.
    pub schema: Schema,
    /// How long a write may stay invisible, in milliseconds.
    pub refresh_interval_ms: u64,
    /// Least share of documents that an answer must cover, 0 to 1.
    pub min_coverage: f64,
    /// Oldest cached answer that is served, in milliseconds; 0 is none.
    pub max_stale_ms: u64,
}

impl Definition {
    /// How long a write may stay invisible.
    #[must_use]
    pub fn refresh_interval(&self) -> Duration {
        Duration::from_millis(self.refresh_interval_ms)
    }
}

/// Why a definition is refused; the text says what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadDefinition(pub String);

impl Definition {
    /// A definition with this schema and defaults for all else.
    #[must_use]
    pub fn of(schema: Schema) -> Self {
        Self {
            shards: SHARDS_DEFAULT,
            copies: 1,
            schema,
            refresh_interval_ms: 1_000,
            min_coverage: 1.0,
            max_stale_ms: 0,
        }
    }

    /// Checks every number's range and the schema.
    ///
    /// # Errors
    /// Says which setting is wrong and what its range is.
    pub fn check(&self) -> Result<(), BadDefinition> {
        let bad = |text: String| Err(BadDefinition(text));
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return bad(format!("shards is {}; it must be 1 to {SHARDS_MAX}", self.shards));
        }
        if !(1..=COPIES_MAX).contains(&self.copies) {
            return bad(format!("copies is {}; it must be 1 to {COPIES_MAX}", self.copies));
        }
        if !(10..=3_600_000).contains(&self.refresh_interval_ms) {
            return bad(format!(
                "refresh_interval is {} ms; it must be 10ms to 1h",
                self.refresh_interval_ms
            ));
        }
        if !(0.0..=1.0).contains(&self.min_coverage) {
            return bad(format!("min_coverage is {}; it must be 0 to 1", self.min_coverage));
        }
        self.schema.check().map_err(|error| BadDefinition(error.to_string()))
    }
}
