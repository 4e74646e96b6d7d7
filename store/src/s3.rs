//! Stores in a bucket of S3, or of what speaks its protocol.
//!
//! **Invariant:** every request ends within [`REQUEST_MAX`] for each try, and
//! no try begins later than [`RETRY_MAX`] after the first.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::limit::LimitStore;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::error::{Cause, Error, one_line};
use crate::store::{Home, Store};

/// Longest wait for a connection: a lost SYN is sent again after one second.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest try, body and all: a put of 16 MiB fits at 5 Mbit/s.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// After this no further try begins: our callers have deadlines of their own
/// and retry as well. The default of three minutes outlasts every one of them.
const RETRY_MAX: Duration = Duration::from_secs(3);
/// Tries after the first: as many as there are longest waits in [`RETRY_MAX`].
const RETRIES_MAX: usize = 6;
/// First wait: about one round trip to S3.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest wait: a store that comes back is noticed within half a second.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Requests on their way at once, and so connections: enough for many shards
/// that fetch files in parts, few enough for the default limit of open files.
const REQUESTS_MAX: usize = 64;
/// An idle connection is closed by us before S3 does it, which takes 20 s or
/// so: a put on a connection that just went away has an unknown outcome.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Where S3 looks when nothing names a region.
const REGION: &str = "us-east-1";

/// A bucket, and how to come at it, all of it explicit.
#[derive(Clone, PartialEq, Eq)]
pub struct S3 {
    /// The bucket's name.
    pub bucket: String,
    /// What every key begins with; empty for the whole bucket.
    pub prefix: String,
    /// The URL of the server, such as `http://127.0.0.1:9000`; `None` for
    /// Amazon's own.
    pub endpoint: Option<String>,
    /// The region; `None` for `us-east-1`.
    pub region: Option<String>,
    /// The public half of the credentials.
    pub access_key_id: String,
    /// The secret half, which is never printed.
    pub secret_access_key: String,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// What error messages say about a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub name: String,
    /// A URL, or "Amazon S3 in" a region.
    pub server: String,
}

impl Store {
    /// Opens a store in a bucket, with nothing taken from the environment.
    /// Nothing is asked of the server yet: [`Store::check`] does that.
    ///
    /// # Errors
    /// When the endpoint is no URL of HTTP.
    pub fn s3(s3: &S3) -> Result<Self, Error> {
        let mut builder = AmazonS3Builder::new()
            .with_access_key_id(&s3.access_key_id)
            .with_secret_access_key(&s3.secret_access_key);
        if let Some(endpoint) = &s3.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &s3.region {
            builder = builder.with_region(region);
        }
        connect(builder, &s3.bucket, &s3.prefix)
    }

    pub(crate) fn s3_from_env(bucket: &str, prefix: &str) -> Result<Self, Error> {
        connect(AmazonS3Builder::from_env(), bucket, prefix)
    }
}

/// Builds the store, with our limits in place of the builder's.
fn connect(builder: AmazonS3Builder, bucket: &str, prefix: &str) -> Result<Store, Error> {
    let value = |key| builder.get_config_value(&key);
    let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint));
    let region = value(AmazonS3ConfigKey::Region)
        .filter(|region| !region.is_empty())
        .unwrap_or_else(|| REGION.to_owned());
    let plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if let Some(endpoint) = &endpoint
        && !plain
        && !endpoint.starts_with("https://")
    {
        let what = format!(
            "the S3 endpoint {endpoint:?} is no URL: begin AWS_ENDPOINT_URL with https:// or http://"
        );
        return Err(Cause::Invalid(what).into());
    }
    let objects = builder
        .with_bucket_name(bucket)
        .with_region(&region)
        // Safety rests on put-if-absent: no variable may switch it off.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client(plain))
        .with_retry(retry())
        .build()
        .map_err(|error| unfit(&error))?;
    let objects = LimitStore::new(objects, REQUESTS_MAX);
    let objects: Arc<dyn ObjectStore> =
        if prefix.is_empty() { Arc::new(objects) } else { Arc::new(PrefixStore::new(objects, prefix)) };
    let server = endpoint.unwrap_or_else(|| format!("Amazon S3 in {region}"));
    Ok(Store::at_home(objects, Home::Bucket(Bucket { name: bucket.to_owned(), server })))
}

fn client(plain: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT_MAX)
        .with_timeout(REQUEST_MAX)
        .with_pool_max_idle_per_host(REQUESTS_MAX)
        .with_pool_idle_timeout(IDLE_MAX)
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF_MIN, max_backoff: BACKOFF_MAX, base: 2.0 },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_MAX,
    }
}

fn unfit(error: &object_store::Error) -> Error {
    let why = one_line(error);
    let todo = if why.contains("AccessKey") {
        "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither"
    } else {
        "look through the AWS_ variables of the environment"
    };
    Cause::Invalid(format!("the settings of S3 do not fit ({why}): {todo}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn an_endpoint_is_a_url() {
        for (endpoint, fine) in
            [("http://127.0.0.1:1", true), ("https://s3.example", true), ("127.0.0.1:1", false)]
        {
            let builder = AmazonS3Builder::new()
                .with_endpoint(endpoint)
                .with_access_key_id("id")
                .with_secret_access_key("secret");
            match connect(builder, "docs", "") {
                Ok(_) => assert!(fine),
                Err(error) => {
                    assert!(!fine);
                    assert_eq!(error.kind(), Kind::Invalid);
                    assert!(error.to_string().contains("AWS_ENDPOINT_URL"), "{error}");
                }
            }
        }
    }

    #[test]
    fn both_names_of_the_endpoint_are_known() {
        for name in ["aws_endpoint_url", "aws_endpoint", "aws_endpoint_url_s3"] {
            let key: AmazonS3ConfigKey = name.parse().unwrap();
            let builder =
                AmazonS3Builder::new().with_config(key, "http://127.0.0.1:1").with_skip_signature(true);
            let store = connect(builder, "docs", "").unwrap();
            assert!(matches!(store.home(), Home::Bucket(bucket) if bucket.server == "http://127.0.0.1:1"));
        }
    }

    #[test]
    fn half_of_the_credentials_says_what_is_missing() {
        let error = connect(AmazonS3Builder::new().with_access_key_id("id"), "docs", "").unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{error}");
    }

    #[test]
    fn the_secret_is_not_printed() {
        let s3 = S3 {
            bucket: "docs".into(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            access_key_id: "id".into(),
            secret_access_key: "hidden".into(),
        };
        assert!(!format!("{s3:?} {:?}", Store::s3(&s3).unwrap()).contains("hidden"));
    }
}
