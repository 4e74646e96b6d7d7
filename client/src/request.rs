//! Requests, as the API reads them.

use std::time::Duration;

use model::schema::Schema;
use serde::{Serialize, Serializer};

/// A search. What is `None` has the server's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SearchRequest {
    /// What is searched and scored; `*` is everything.
    pub query: String,
    /// What hits must also match, unscored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Hits wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Hits skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    /// Fields of the documents to return; an empty list returns none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// How matches are counted: `bounded`, `exact` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<String>,
    /// How long the server may take.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// Read at or after the write that returned this token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Read exactly this cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// The share of the documents that the answer must cover, 0 to 1; the
    /// index's own where it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_coverage: Option<f64>,
    /// Explain where the time went.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub profile: bool,
}

macro_rules! setter {
    ($(#[$doc:meta])* $name:ident: $kind:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: impl Into<$kind>) -> Self {
            self.$name = Some($name.into());
            self
        }
    };
}

impl SearchRequest {
    /// A search for `query`.
    #[must_use]
    pub fn new(query: impl Into<String>) -> Self {
        Self { query: query.into(), ..Self::default() }
    }

    setter!(/// Sets what hits must also match.
        filter: String);
    setter!(/// Sets the number of hits wanted.
        limit: usize);
    setter!(/// Sets the number of hits skipped.
        offset: usize);
    setter!(/// Sets the fields to return.
        fields: Vec<String>);
    setter!(/// Sets how matches are counted.
        count: String);
    setter!(/// Sets how long the server may take.
        timeout: Duration);
    setter!(/// Reads at or after a write.
        token: String);
    setter!(/// Reads exactly this cut.
        at: u64);
    setter!(/// Sets the share of the documents that the answer must cover.
        min_coverage: f64);

    /// Asks where the time went.
    #[must_use]
    pub fn profile(mut self, profile: bool) -> Self {
        self.profile = profile;
        self
    }
}

/// A new index. What is `None` has the server's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IndexRequest {
    /// Number of shards, fixed for the life of the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// Copies of each shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    /// Its fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// How long a write may stay invisible.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "duration")]
    pub refresh_interval: Option<Duration>,
    /// The share of the documents that answers must cover where a search does
    /// not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_coverage: Option<f64>,
}

fn duration<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = time.unwrap_or_default().as_micros();
    if micros.is_multiple_of(1_000) {
        return serializer.collect_str(&format_args!("{}ms", micros / 1_000));
    }
    serializer.collect_str(&format_args!("{micros}us"))
}
