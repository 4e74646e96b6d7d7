//! The Rust client of Windrow's public API.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! let windrow = client::Client::new("127.0.0.1:7700")?;
//! let written = windrow.documents("papers", "{\"id\": \"1\"}".into(), true).await?;
//! let answer = windrow.search("papers", &client::SearchRequest::new("*")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant:** nothing is retried unless the caller asks with [`Retry`]:
//! a search that is late once is not made later by us.

mod answers;
mod error;
mod request;
mod retry;
#[cfg(test)]
mod tests;

pub use answers::{Answer, Cluster, Hit, Index, IndexState, Node, Rejected, Replica, Shard, Written};
pub use error::{Error, Problem};
pub use request::{IndexRequest, SearchRequest};
pub use retry::Retry;

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;

use crate::answers::Indexes;

/// Where `windrow up` listens.
pub const URL_DEFAULT: &str = "http://127.0.0.1:7700";

/// How long connecting may take: far longer than any network that works.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take. A server answers a write within 30 s and a
/// search within at most 300 s; this is for a server that does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(330);

/// A client of one server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    /// As the caller gave it, for messages.
    url: String,
}

/// A body, and whether it is JSON.
enum Send {
    Nothing,
    Json(Vec<u8>),
    Lines(Bytes),
}

impl Client {
    /// A client of the server at `url`: `http://host:port` or `host:port`. It
    /// connects at the first call.
    ///
    /// # Errors
    /// [`Error::Url`] for anything else.
    pub fn new(url: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Error::Url { url: url.to_owned(), reason: reason.to_owned() };
        let text = url.trim().trim_end_matches('/');
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let base: Url = text.parse().map_err(|_| bad("it is none"))?;
        match base.scheme() {
            "http" => {}
            "https" => {
                return Err(bad("TLS is not built in yet: use http://, or a proxy that speaks TLS"));
            }
            scheme => return Err(bad(&format!("{scheme:?} is not http"))),
        }
        if base.host_str().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        if base.path() != "/" || base.query().is_some() || base.fragment().is_some() {
            return Err(bad("only a host and a port belong there"));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .tcp_nodelay(true)
            // A proxy of the environment is for the world, not for a cluster.
            .no_proxy()
            .build()
            .map_err(|error| Error::Client { reason: error.to_string() })?;
        Ok(Self { http, base, url: text })
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates an index.
    ///
    /// # Errors
    /// [`Error::Refused`] when the name is taken or the definition is wrong.
    pub async fn create_index(&self, index: &str, request: &IndexRequest) -> Result<Index, Error> {
        self.call(Method::PUT, &["v1", "indexes", index], &[], Send::json(request)).await
    }

    /// Lists the indexes by name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_indexes(&self) -> Result<Vec<Index>, Error> {
        let list: Indexes = self.call(Method::GET, &["v1", "indexes"], &[], Send::Nothing).await?;
        Ok(list.indexes)
    }

    /// Describes one index.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub async fn describe_index(&self, index: &str) -> Result<Index, Error> {
        self.call(Method::GET, &["v1", "indexes", index], &[], Send::Nothing).await
    }

    /// Deletes an index with all its documents.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub async fn delete_index(&self, index: &str) -> Result<(), Error> {
        self.send(Method::DELETE, &["v1", "indexes", index], &[], Send::Nothing).await?;
        Ok(())
    }

    /// Writes documents: one JSON object a line, or a JSON array. With
    /// `refresh_wait` it answers when a search sees them.
    ///
    /// Documents that do not go in, even all of them, are in the value.
    ///
    /// # Errors
    /// When the request as a whole failed.
    pub async fn documents(&self, index: &str, body: Bytes, refresh_wait: bool) -> Result<Written, Error> {
        let path = ["v1", "indexes", index, "documents"];
        let (status, body) =
            self.exchange(Method::POST, &path, refresh(refresh_wait), Send::Lines(body)).await?;
        if status >= 400 {
            let problem = Problem::read(status, &body);
            // All lines failed, and the answer says how each did.
            return match serde_json::from_slice::<Written>(&body.bytes) {
                Ok(written) => Ok(written),
                Err(_) => Err(Error::Refused(problem)),
            };
        }
        read(&body.bytes)
    }

    /// Returns one document's JSON as it was sent, or `None`.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such index.
    pub async fn document(&self, index: &str, id: &str, token: Option<&str>) -> Result<Option<Bytes>, Error> {
        let path = ["v1", "indexes", index, "documents", checked(id)?];
        let token: Vec<(&str, &str)> = token.iter().map(|token| ("token", *token)).collect();
        match self.send(Method::GET, &path, &token, Send::Nothing).await {
            Ok(body) => Ok(Some(body)),
            Err(Error::Refused(problem)) if problem.kind == proto::Kind::NotFound => {
                // No document, or no index? Only the latter is an error.
                self.describe_index(index).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes one document; deleting what is not there is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_document(&self, index: &str, id: &str, refresh_wait: bool) -> Result<Written, Error> {
        let path = ["v1", "indexes", index, "documents", checked(id)?];
        self.call(Method::DELETE, &path, refresh(refresh_wait), Send::Nothing).await
    }

    /// Searches.
    ///
    /// # Errors
    /// [`Error::Refused`] with a position where the query does not parse.
    pub async fn search(&self, index: &str, request: &SearchRequest) -> Result<Answer, Error> {
        self.call(Method::POST, &["v1", "indexes", index, "search"], &[], Send::json(request)).await
    }

    /// As [`Client::search`], and returns the answer's JSON as it came.
    ///
    /// # Errors
    /// As [`Client::search`].
    pub async fn search_raw(&self, index: &str, request: &SearchRequest) -> Result<Bytes, Error> {
        self.send(Method::POST, &["v1", "indexes", index, "search"], &[], Send::json(request)).await
    }

    /// Returns the state of the cluster.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cluster(&self) -> Result<Cluster, Error> {
        self.call(Method::GET, &["v1", "cluster"], &[], Send::Nothing).await
    }

    /// Whether the server can answer.
    ///
    /// # Errors
    /// Says what is missing, or that the server is away.
    pub async fn ready(&self) -> Result<(), Error> {
        self.send(Method::GET, &["readyz"], &[], Send::Nothing).await?;
        Ok(())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Send,
    ) -> Result<T, Error> {
        read(&self.send(method, path, query, body).await?)
    }

    /// The body of a success.
    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Send,
    ) -> Result<Bytes, Error> {
        let (status, body) = self.exchange(method, path, query, body).await?;
        if status >= 400 {
            return Err(Error::Refused(Problem::read(status, &body)));
        }
        Ok(body.bytes)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Send,
    ) -> Result<(u16, error::Body), Error> {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http URL has a path").clear().extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        let request = match body {
            Send::Nothing => request,
            Send::Json(body) => request.header("content-type", "application/json").body(body),
            Send::Lines(body) => request.header("content-type", "application/x-ndjson").body(body),
        };
        let failed = |error: reqwest::Error| Error::of_transport(&self.url, &error);
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|after| after.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let bytes = response.bytes().await.map_err(failed)?;
        Ok((status, error::Body { bytes, retry_after }))
    }
}

impl Send {
    fn json(value: &impl serde::Serialize) -> Self {
        Self::Json(serde_json::to_vec(value).expect("requests are strings and numbers"))
    }
}

/// URLs drop these parts, which would make it another call's path.
fn checked(id: &str) -> Result<&str, Error> {
    match id {
        "" | "." | ".." => Err(Error::Id { id: id.to_owned() }),
        id => Ok(id),
    }
}

fn refresh(wait: bool) -> &'static [(&'static str, &'static str)] {
    if wait { &[("refresh", "wait")] } else { &[] }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Answer { reason: error.to_string() })
}
