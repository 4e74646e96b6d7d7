//! A search as a client asks it, in JSON, in a URL or in protobuf, and the
//! request it becomes.

use std::time::Duration;

use model::gather::Count;
use model::ids::{CutNumber, IndexName};
use model::query::{self, Query};
use model::token::Token;
use proto::convert;
use proto::search::{LIMIT_DEFAULT, REACH_MAX, Request, TIMEOUT_DEFAULT, TIMEOUT_MAX};
use proto::{Error, v1};
use runtime::Deadline;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::problem::Problem;
use crate::settings::Settings;
use runtime::duration;

/// The keys of a search.
pub(crate) const KEYS: [&str; 12] = [
    "query",
    "filter",
    "limit",
    "offset",
    "fields",
    "count",
    "timeout",
    "token",
    "at",
    "profile",
    "min_coverage",
    "q",
];

/// Most names in `fields`.
const FIELDS_MAX: usize = model::schema::FIELDS_MAX;

/// A search, not yet checked.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    pub(crate) query: Option<String>,
    pub(crate) filter: Option<String>,
    pub(crate) limit: Option<usize>,
    pub(crate) offset: usize,
    pub(crate) fields: Option<Vec<String>>,
    pub(crate) count: Count,
    pub(crate) timeout: Option<Duration>,
    pub(crate) token: Option<String>,
    pub(crate) at: Option<u64>,
    pub(crate) profile: bool,
    pub(crate) min_coverage: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    query: Option<String>,
    filter: Option<String>,
    limit: Option<usize>,
    offset: Option<usize>,
    fields: Option<Vec<String>>,
    count: Option<String>,
    timeout: Option<duration::Text>,
    token: Option<String>,
    at: Option<u64>,
    profile: Option<bool>,
    min_coverage: Option<f64>,
    #[serde(borrow)]
    cursor: Option<&'a RawValue>,
    sort: Option<&'a RawValue>,
    highlight: Option<&'a RawValue>,
    aggs: Option<&'a RawValue>,
    max_stale: Option<&'a RawValue>,
    scatter: Option<&'a RawValue>,
}

impl Ask {
    /// Reads the body of `POST …/search`.
    pub(crate) fn from_json(body: &[u8]) -> Result<Self, Problem> {
        let known = &KEYS[..KEYS.len() - 1];
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::invalid(format!(
                "the body is no JSON object; send one such as {{\"query\": \"words to find\"}}, with any of {}",
                known.join(", ")
            )));
        }
        let body: Body<'_> =
            serde_json::from_slice(body).map_err(|error| Problem::json("a search", known, &error))?;
        let to_come = [
            ("cursor", body.cursor),
            ("sort", body.sort),
            ("highlight", body.highlight),
            ("aggs", body.aggs),
            ("max_stale", body.max_stale),
            ("scatter", body.scatter),
        ];
        if let Some((key, _)) = to_come.iter().find(|(_, value)| value.is_some()) {
            return Err(not_yet(key));
        }
        Ok(Self {
            query: body.query,
            filter: body.filter,
            limit: body.limit,
            offset: body.offset.unwrap_or(0),
            fields: body.fields,
            count: body.count.as_deref().map(convert::count).transpose()?.unwrap_or_default(),
            timeout: body.timeout.map(|text| text.0),
            token: body.token,
            at: body.at,
            profile: body.profile.unwrap_or(false),
            min_coverage: body.min_coverage,
        })
    }

    /// Reads the query string of `GET …/search`.
    pub(crate) fn from_url(query: &str) -> Result<Self, Problem> {
        let mut ask = Self::default();
        let mut seen = Vec::new();
        for pair in pairs(query) {
            let (key, value) = pair?;
            let key = if key == "q" { "query" } else { key.as_str() };
            let Some(known) = KEYS.into_iter().chain(TO_COME).find(|known| *known == key) else {
                let key: String = key.chars().take(100).collect();
                return Err(Problem::invalid(format!(
                    "there is no parameter {key:?}; the parameters are {}",
                    KEYS.join(", ")
                )));
            };
            if seen.contains(&known) {
                return Err(Problem::invalid(format!("parameter {known:?} is there twice; send it once")));
            }
            seen.push(known);
            match known {
                "query" => ask.query = Some(value),
                "filter" => ask.filter = Some(value),
                "limit" => ask.limit = Some(number(known, &value)?),
                "offset" => ask.offset = number(known, &value)?,
                "fields" => {
                    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    ask.fields = Some(names.map(str::to_owned).collect());
                }
                "count" => ask.count = convert::count(&value)?,
                "timeout" => {
                    let timeout = duration::parse(&value);
                    ask.timeout = Some(timeout.ok_or_else(|| wrong(known, &value, duration::EXPECTED))?);
                }
                "token" => ask.token = Some(value),
                "at" => ask.at = Some(number(known, &value)?),
                "profile" => {
                    ask.profile = match value.as_str() {
                        "true" | "1" | "" => true,
                        "false" | "0" => false,
                        _ => return Err(wrong(known, &value, "true or false")),
                    }
                }
                "min_coverage" => ask.min_coverage = Some(number(known, &value)?),
                _ => return Err(not_yet(known)),
            }
        }
        Ok(ask)
    }

    /// Reads a gRPC search, but for its index.
    pub(crate) fn from_message(message: v1::SearchRequest) -> Result<Self, Problem> {
        let count = v1::Count::try_from(message.count)
            .map_err(|unknown| Problem::invalid(format!("count: {unknown}")))?;
        Ok(Self {
            query: Some(message.query),
            filter: message.filter,
            limit: message.limit.map(|limit| limit as usize),
            offset: message.offset as usize,
            fields: message.fields.map(|fields| fields.names),
            count: count.into(),
            timeout: message.timeout_ms.map(Duration::from_millis),
            token: message.token,
            at: message.at,
            profile: message.profile,
            min_coverage: message.min_coverage,
        })
    }

    /// Checks every part and parses the query, once.
    pub(crate) fn request(self, index: IndexName, settings: &Settings) -> Result<Request, Problem> {
        let timeout = self.timeout.unwrap_or(TIMEOUT_DEFAULT);
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            return Err(Problem::invalid(format!(
                "timeout must be more than 0 and at most {} s",
                TIMEOUT_MAX.as_secs()
            )));
        }
        let deadline = Deadline::after(timeout);
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if limit.saturating_add(self.offset) > REACH_MAX {
            return Err(Problem::invalid(format!(
                "offset + limit is {}; it must be at most {REACH_MAX}: narrow the query or its filter",
                limit.saturating_add(self.offset)
            )));
        }
        if self.fields.as_ref().is_some_and(|fields| fields.len() > FIELDS_MAX) {
            return Err(Problem::invalid(format!(
                "fields names more than {FIELDS_MAX} fields; leave it out to get whole documents"
            )));
        }
        if self.min_coverage.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err(Problem::invalid(
                "min_coverage must be 0 to 1: the share of the documents that an answer must cover",
            ));
        }
        let Some(query) = self.query else {
            return Err(Problem::invalid("query is missing; \"*\" finds every document"));
        };
        if self.at == Some(0) {
            return Err(Problem::invalid("at is 0; cuts are numbered from 1"));
        }
        Ok(Request {
            index,
            query: parsed("query", &query, settings)?,
            filter: self.filter.map(|filter| parsed("filter", &filter, settings)).transpose()?,
            limit,
            offset: self.offset,
            fields: self.fields,
            count: self.count,
            deadline,
            min_coverage: self.min_coverage,
            token: self.token.as_deref().map(token).transpose()?,
            at: self.at.map(CutNumber),
            profile: self.profile,
        })
    }
}

/// What DESIGN names and a later release brings.
const TO_COME: [&str; 6] = ["cursor", "sort", "highlight", "aggs", "max_stale", "scatter"];

fn not_yet(key: &str) -> Problem {
    Problem::invalid(format!("{key} is not supported yet; leave it out"))
}

fn parsed(part: &str, text: &str, settings: &Settings) -> Result<Query, Problem> {
    let query = query::parse(text, &settings.query).map_err(|error| Problem::query(part, &error))?;
    Ok(query.canonical())
}

/// Reads the token of a write.
pub(crate) fn token(text: &str) -> Result<Token, Problem> {
    Token::decode(text).map_err(|bad| Problem::invalid(bad.to_string()))
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Problem> {
    value.parse().map_err(|_| wrong(key, value, "a number that is not negative"))
}

fn wrong(key: &str, value: &str, expected: &str) -> Problem {
    let value: String = value.chars().take(100).collect();
    Problem::invalid(format!("{key} is {value:?}; it must be {expected}"))
}

/// The pairs of a query string, decoded.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = Result<(String, String), Problem>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text| {
            decode(text).ok_or_else(|| {
                Problem::from(Error::invalid(
                    "the URL's parameters are not UTF-8 with %-escapes; encode a % itself as %25",
                ))
            })
        };
        Ok((decoded(key)?, decoded(value)?))
    })
}

/// Undoes form encoding; `None` for a broken escape or what is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
                bytes.push(digit(digits[0])? << 4 | digit(digits[1])?);
                rest = after;
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}
