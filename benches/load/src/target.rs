//! Where requests go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use proto::v1;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::meter::Outcome;

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Connections by gRPC to each server: one would order all its answers.
const CHANNELS: usize = 4;

/// Something that answers requests by number.
pub trait Target {
    /// Sends request `number` and waits for its whole answer.
    fn send(&self, number: usize) -> impl Future<Output = Outcome>;
}

/// A bare HTTP/1.1 client: what a request costs here is taken from the server
/// beside it.
#[derive(Clone, Debug)]
pub struct Plain(Client<HttpConnector, Full<Bytes>>);

impl Default for Plain {
    fn default() -> Self {
        Self::new()
    }
}

impl Plain {
    /// A client without connections.
    #[must_use]
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        let client =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Self(client)
    }

    /// The body of a good answer.
    ///
    /// # Errors
    /// The reason in a few words.
    pub async fn get(&self, url: &str) -> Result<Bytes> {
        let request = Request::get(url).body(Full::default())?;
        let (status, body) = self.send(request).await.map_err(|why| anyhow::anyhow!(why))?;
        ensure!(status == 200, "HTTP {status}");
        Ok(body)
    }

    /// Puts a body of JSON.
    ///
    /// # Errors
    /// The reason in a few words, with what the server says.
    pub async fn put(&self, url: &str, json: String) -> Result<()> {
        let request = Request::put(url).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Full::new(json.into()))?;
        let (status, body) = self.send(request).await.map_err(|why| anyhow::anyhow!(why))?;
        ensure!(status < 300, "HTTP {status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), &'static str> {
        let answer = self
            .0
            .request(request)
            .await
            .map_err(|error| if error.is_connect() { "no connection" } else { "the connection broke" })?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|_| "the answer broke off")?;
        Ok((status, body.to_bytes()))
    }
}

/// What an answer by HTTP says that a load wants to know.
#[derive(Deserialize)]
struct Said {
    hits: Vec<IgnoredAny>,
    #[serde(default)]
    cache: String,
}

/// Searches by HTTP, to each server in turn.
pub struct Http {
    client: Plain,
    urls: Vec<Uri>,
    bodies: Vec<Bytes>,
    turn: AtomicUsize,
}

/// The members of a search request that a load sets for every query.
pub type Shape = Map<String, Value>;

impl Http {
    /// Searches `index` at each of `urls` for `queries`, each request with
    /// `shape`'s members (`limit`, `count`, `fields` …).
    ///
    /// # Errors
    /// When a URL is none.
    pub fn new(urls: &[String], index: &str, queries: &[String], shape: &Shape) -> Result<Self> {
        let uris = urls.iter().map(|url| {
            let text = format!("{}/v1/indexes/{index}/search", url.trim_end_matches('/'));
            text.parse::<Uri>().with_context(|| format!("{url:?} is no URL such as http://127.0.0.1:7700"))
        });
        let bodies = queries.iter().map(|query| {
            let mut request = shape.clone();
            request.insert("query".into(), query.as_str().into());
            Bytes::from(Value::Object(request).to_string())
        });
        Ok(Self {
            client: Plain::new(),
            urls: uris.collect::<Result<_>>()?,
            bodies: bodies.collect(),
            turn: AtomicUsize::new(0),
        })
    }
}

impl Target for Http {
    async fn send(&self, number: usize) -> Outcome {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.urls.len();
        let request = Request::post(self.urls[turn].clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(self.bodies[number].clone()));
        let Ok(request) = request else { return Outcome::Failed("the request is malformed".into()) };
        match self.client.send(request).await {
            Ok((200, body)) => match serde_json::from_slice::<Said>(&body) {
                Ok(said) => Outcome::Answered { empty: said.hits.is_empty(), cache: said.cache },
                Err(_) => Outcome::Failed("the answer is no search answer".into()),
            },
            Ok((status @ (429 | 503), body)) => Outcome::Refused(refusal(status, &body)),
            Ok((status, body)) => Outcome::Failed(refusal(status, &body)),
            Err(why) => Outcome::Failed(why.into()),
        }
    }
}

/// A refusal's status with its problem's title.
fn refusal(status: u16, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: String,
    }
    let problem = serde_json::from_slice::<Problem>(body);
    problem.map_or_else(|_| format!("HTTP {status}"), |problem| format!("HTTP {status} {}", problem.title))
}

/// Searches by gRPC, over several connections to each server in turn.
pub struct Grpc {
    clients: Vec<v1::windrow_client::WindrowClient<Channel>>,
    requests: Vec<v1::SearchRequest>,
    turn: AtomicUsize,
}

impl Grpc {
    /// As [`Http::new`]; of the members of a request it takes those that the
    /// protocol has as plain numbers and strings.
    ///
    /// # Errors
    /// When a URL is none, or a member of `shape` is not known here.
    pub fn new(urls: &[String], index: &str, queries: &[String], shape: &Shape) -> Result<Self> {
        let mut request = v1::SearchRequest { index: index.to_owned(), ..Default::default() };
        for (name, value) in shape {
            let number = || value.as_u64().with_context(|| format!("{name} must be a number"));
            match name.as_str() {
                "limit" => request.limit = Some(u32::try_from(number()?)?),
                "offset" => request.offset = u32::try_from(number()?)?,
                "at" => request.at = Some(number()?),
                "filter" => request.filter = value.as_str().map(str::to_owned),
                "token" => request.token = value.as_str().map(str::to_owned),
                "count" => {
                    request.count = match value.as_str() {
                        Some("bounded") => v1::Count::Bounded,
                        Some("exact") => v1::Count::Exact,
                        Some("none") => v1::Count::None,
                        _ => bail!("count is one of bounded, exact and none"),
                    }
                    .into();
                }
                "fields" => {
                    let names = value.as_array().context("fields is a list of names")?;
                    let names = names.iter().filter_map(|name| name.as_str().map(str::to_owned));
                    request.fields = Some(v1::FieldNames { names: names.collect() });
                }
                other => bail!("{other:?} cannot be set by gRPC here: use --protocol http"),
            }
        }
        let mut clients = Vec::new();
        for url in urls {
            let endpoint = Endpoint::from_shared(url.clone())
                .with_context(|| format!("{url:?} is no URL such as http://127.0.0.1:7700"))?
                .connect_timeout(CONNECT_WITHIN)
                .tcp_nodelay(true);
            for _ in 0..CHANNELS {
                let client = v1::windrow_client::WindrowClient::new(endpoint.connect_lazy());
                clients.push(client.max_decoding_message_size(64 << 20));
            }
        }
        let each = |query: &String| v1::SearchRequest { query: query.clone(), ..request.clone() };
        let requests = queries.iter().map(each).collect();
        Ok(Self { clients, requests, turn: AtomicUsize::new(0) })
    }
}

impl Target for Grpc {
    async fn send(&self, number: usize) -> Outcome {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.clients.len();
        match self.clients[turn].clone().search(self.requests[number].clone()).await {
            Ok(answer) => Outcome::Answered { empty: answer.get_ref().hits.is_empty(), cache: String::new() },
            Err(status) => {
                let why = format!("gRPC {:?}", status.code());
                match status.code() {
                    Code::ResourceExhausted | Code::Unavailable => Outcome::Refused(why),
                    _ => Outcome::Failed(why),
                }
            }
        }
    }
}
