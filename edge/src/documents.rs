//! Bodies of documents: reading one within its bounds, cutting it into lines,
//! and telling what became of each.

use axum::body::{Body, HttpBody};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use proto::admin::{Change, Rejected, Written};
use proto::{Error, Kind};
use runtime::Deadline;
use serde::Serialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;

use crate::problem::{Members, Problem};
use crate::service::{BUDGET_BYTES, Edge};
use crate::settings::Settings;

/// A body cut into its documents.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) lines: Vec<(u64, Change)>,
    /// Lines that could not even be cut out.
    pub(crate) rejected: Vec<Rejected>,
}

/// A body in memory, and its share of the room for bodies.
pub(crate) struct Read<'a> {
    pub(crate) bytes: Bytes,
    _room: Option<SemaphorePermit<'a>>,
}

/// Reads a body of at most `bytes_max`, until `deadline`.
pub(crate) async fn read<'a>(
    edge: &'a Edge,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    deadline: Deadline,
) -> Result<Read<'a>, Problem> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && encoding.as_bytes() != b"identity"
    {
        let encoding: String = String::from_utf8_lossy(encoding.as_bytes()).chars().take(50).collect();
        return Err(Problem::invalid(format!(
            "content-encoding {encoding:?} is not supported; send the body as it is"
        )));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let bytes = collect(edge, body, length, bytes_max);
    match tokio::time::timeout_at(deadline.instant(), bytes).await {
        Ok(read) => read,
        Err(_late) => Err(Error::expired(
            "the body did not arrive within the request's time; send smaller bodies on this connection",
        )
        .into()),
    }
}

async fn collect<'a>(
    edge: &'a Edge,
    mut body: Body,
    length: Option<usize>,
    bytes_max: usize,
) -> Result<Read<'a>, Problem> {
    let mut room = match length {
        Some(length) => Some(reserve(edge, length)?),
        None => None,
    };
    let mut reserved = length.unwrap_or(0);
    // One frame is kept as it is; several are joined, for a line may cross
    // from one to the next.
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Problem::invalid(format!("the body broke off: {error}; send it again")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let known = first.as_ref().map_or(0, Bytes::len).max(joined.len()) + data.len();
        if known > bytes_max {
            return Err(too_large(bytes_max));
        }
        if known > reserved {
            // In steps, so that small frames do not each take a permit.
            let more = (known - reserved).max(64 * BUDGET_BYTES);
            let more_room = reserve(edge, more)?;
            match &mut room {
                Some(room) => room.merge(more_room),
                None => room = Some(more_room),
            }
            reserved += more;
        }
        match first.take() {
            None if joined.is_empty() => first = Some(data),
            None => joined.extend_from_slice(&data),
            Some(first) => {
                joined.reserve(length.unwrap_or(known).max(known));
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
            }
        }
        if length.is_some_and(|length| known >= length) && body.is_end_stream() {
            break;
        }
    }
    Ok(Read { bytes: first.unwrap_or_else(|| joined.freeze()), _room: room })
}

fn reserve(edge: &Edge, bytes: usize) -> Result<SemaphorePermit<'_>, Problem> {
    let units = u32::try_from(bytes.div_ceil(BUDGET_BYTES)).unwrap_or(u32::MAX);
    edge.bodies
        .try_acquire_many(units)
        .map_err(|_full| edge.overloaded("bytes of bodies", edge.settings.bodies_bytes_max).into())
}

fn too_large(bytes_max: usize) -> Problem {
    let message = format!("the body has more than {bytes_max} bytes; split it into several requests");
    Error::too_large(message).into()
}

/// Cuts a body: a JSON array, a single JSON object where the client says it is
/// JSON, else one object a line.
pub(crate) fn cut(headers: &HeaderMap, body: &Bytes, settings: &Settings) -> Result<Cut, Problem> {
    let body = &body.slice(body.strip_prefix(BOM).map_or(0, |_| BOM.len())..);
    let json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    match body.trim_ascii_start().first() {
        Some(b'[') => array(body, settings),
        Some(b'{') if json && serde_json::from_slice::<&RawValue>(body).is_ok() => {
            let mut cut = Cutter::new(settings);
            cut.push(1, body.trim_ascii(), body)?;
            Ok(cut.cut)
        }
        _ => lines(body, settings),
    }
}

/// What some editors put before UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

fn lines(body: &Bytes, settings: &Settings) -> Result<Cut, Problem> {
    let mut cut = Cutter::new(settings);
    cut.utf8 = std::str::from_utf8(body).is_ok();
    let mut from = 0;
    let mut number = 0;
    for end in memchr::memchr_iter(b'\n', body).chain([body.len()]) {
        number += 1;
        let line = body[from..end].trim_ascii();
        if !line.is_empty() {
            cut.push(number, line, body)?;
        }
        from = end + 1;
    }
    Ok(cut.cut)
}

fn array(body: &Bytes, settings: &Settings) -> Result<Cut, Problem> {
    /// Borrows each element of an array as it is written.
    struct Elements<'a, 'b>(&'b mut Cutter<'a>, &'b Bytes, Result<(), Problem>);

    impl<'de> Visitor<'de> for &mut Elements<'_, '_> {
        type Value = ();

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array of objects")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
            let mut number = 0;
            while let Some(element) = elements.next_element::<&'de RawValue>()? {
                number += 1;
                let pushed = self.0.push(number, element.get().as_bytes(), self.1);
                if let Err(problem) = pushed {
                    self.2 = Err(problem);
                    return Err(serde::de::Error::custom("too many"));
                }
            }
            Ok(())
        }
    }

    let mut cut = Cutter::new(settings);
    let mut elements = Elements(&mut cut, body, Ok(()));
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = reader.deserialize_seq(&mut elements).and_then(|()| reader.end());
    elements.2?;
    read.map_err(|error| Problem::json("a JSON array of documents", &[], &error))?;
    Ok(cut.cut)
}

struct Cutter<'a> {
    settings: &'a Settings,
    /// The whole body is known to be UTF-8.
    utf8: bool,
    cut: Cut,
}

impl<'a> Cutter<'a> {
    fn new(settings: &'a Settings) -> Self {
        Self { settings, utf8: true, cut: Cut::default() }
    }

    /// Takes the slice `line` of `body` as document number `number`.
    fn push(&mut self, number: u64, line: &[u8], body: &Bytes) -> Result<(), Problem> {
        if self.cut.lines.len() + self.cut.rejected.len() >= self.settings.lines_max {
            let message = format!(
                "the body holds more than {} documents; split it into several requests",
                self.settings.lines_max
            );
            return Err(Error::too_large(message).into());
        }
        match check(line, self.utf8, self.settings) {
            Ok(()) => self.cut.lines.push((number, Change::Upsert(body.slice_ref(line)))),
            Err((kind, reason)) => {
                self.cut.rejected.push(Rejected { line: number, id: None, reason, kind, retry: false })
            }
        }
        Ok(())
    }
}

fn check(line: &[u8], utf8: bool, settings: &Settings) -> Result<(), (Kind, String)> {
    if line.len() > settings.line_bytes_max {
        let most = settings.line_bytes_max;
        return Err((Kind::TooLarge, format!("the document has {} bytes; it may have {most}", line.len())));
    }
    if !utf8 && let Err(error) = std::str::from_utf8(line) {
        let at = error.valid_up_to() + 1;
        return Err((Kind::Invalid, format!("the line is not UTF-8 from its byte {at} on; convert it")));
    }
    Ok(())
}

/// Checks documents that arrived one by one, as in gRPC.
pub(crate) fn each(documents: Vec<Bytes>, settings: &Settings) -> Result<Cut, Problem> {
    let mut cut = Cutter::new(settings);
    cut.utf8 = false;
    for (number, document) in (1..).zip(&documents) {
        cut.push(number, document, document)?;
    }
    Ok(cut.cut)
}

#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    problem: Option<Members>,
    accepted: u64,
    rejected: usize,
    failures: &'a [Rejected],
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    searchable: Option<bool>,
}

/// What became of a write: 200 when all is durable, 207 when some is, 503 when
/// nothing is but may be later, 400 when nothing ever will.
pub(crate) fn response(written: &Written) -> Response {
    let problem = problem_of(written);
    let outcome = Outcome {
        problem: problem.as_ref().map(Problem::members),
        accepted: written.accepted,
        rejected: written.rejected.len(),
        failures: &written.rejected,
        token: written.token.as_ref().map(ToString::to_string),
        searchable: written.searchable,
    };
    if let Some(problem) = problem {
        return problem.respond(&outcome);
    }
    let body = serde_json::to_vec(&outcome).expect("strings and numbers always serialise");
    let mut response = Response::new(Body::from(body));
    if !written.rejected.is_empty() {
        *response.status_mut() = StatusCode::MULTI_STATUS;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn problem_of(written: &Written) -> Option<Problem> {
    let first = written.rejected.first()?;
    let all = |wanted: bool| written.rejected.iter().all(|rejected| rejected.retry == wanted);
    if written.accepted > 0 {
        return None;
    }
    let said = format!("line {}: {}", first.line, first.reason);
    // What may have arrived is not "not in": a write is idempotent by id, so
    // the advice is the same, and the words are not.
    if all(true) && written.rejected.iter().any(|rejected| rejected.kind == Kind::Expired) {
        let text = format!("whether the documents went in is unknown; send them all again ({said})");
        return Some(Error::unavailable(text).into());
    }
    if all(true) {
        return Some(Error::unavailable(format!("no document went in; retry them all ({said})")).into());
    }
    all(false).then(|| {
        Problem::invalid(format!("no document went in; each failure says what would be right ({said})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_text(text: &str) -> Vec<(u64, String)> {
        let cut = cut(&HeaderMap::new(), &Bytes::from(text.to_owned()), &Settings::default()).unwrap();
        texts(cut.lines)
    }

    fn texts(lines: Vec<(u64, Change)>) -> Vec<(u64, String)> {
        let text = |(line, change)| match change {
            Change::Upsert(bytes) => (line, String::from_utf8(bytes.to_vec()).unwrap()),
            Change::Delete(id) => (line, id),
        };
        lines.into_iter().map(text).collect()
    }

    fn owned(lines: &[(u64, &str)]) -> Vec<(u64, String)> {
        lines.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn blank_lines_are_skipped_and_counted() {
        assert_eq!(cut_text("\n{1}\r\n \n {2} \n\n"), owned(&[(2, "{1}"), (4, "{2}")]));
        assert_eq!(cut_text("\u{feff}{1}\n{2}"), owned(&[(1, "{1}"), (2, "{2}")]));
        assert_eq!(cut_text(""), owned(&[]));
    }

    #[test]
    fn an_array_is_cut_by_its_elements() {
        assert_eq!(cut_text(" [ {\"a\": [1]} ,\n3]"), owned(&[(1, "{\"a\": [1]}"), (2, "3")]));
        let broken = Bytes::from_static(b"[{},\n {]");
        let problem = array(&broken, &Settings::default()).unwrap_err();
        assert_eq!((problem.line, problem.error.kind), (Some(2), Kind::Invalid));
        assert!(array(&Bytes::from_static(b"[] x"), &Settings::default()).is_err());
    }

    #[test]
    fn a_single_object_over_several_lines_is_one_document() {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect();
        let body = Bytes::from_static(b"{\n \"id\": \"1\"\n}\n");
        assert_eq!(cut(&headers, &body, &Settings::default()).unwrap().lines.len(), 1);
        let lines = Bytes::from_static(b"{\"id\": \"1\"}\n{\"id\": \"2\"}\n");
        assert_eq!(cut(&headers, &lines, &Settings::default()).unwrap().lines.len(), 2);
    }

    #[test]
    fn a_bad_line_is_its_own_failure() {
        let settings = Settings { line_bytes_max: 4, ..Settings::default() };
        let body = Bytes::from_static(b"{1}\n\xff\n{234}\n{5}");
        let cut = cut(&HeaderMap::new(), &body, &settings).unwrap();
        assert_eq!(texts(cut.lines), owned(&[(1, "{1}"), (4, "{5}")]));
        let failures: Vec<_> = cut.rejected.iter().map(|r| (r.line, r.kind)).collect();
        assert_eq!(failures, [(2, Kind::Invalid), (3, Kind::TooLarge)]);
    }

    #[test]
    fn lines_are_slices_of_the_body() {
        let body = Bytes::from_static(b"{1}\n{2}");
        let cut = cut(&HeaderMap::new(), &body, &Settings::default()).unwrap();
        let Change::Upsert(second) = &cut.lines[1].1 else { panic!("an upsert") };
        assert_eq!(second.as_ptr(), body[4..].as_ptr());
    }

    #[test]
    fn the_number_of_documents_is_bounded() {
        let settings = Settings { lines_max: 2, ..Settings::default() };
        for body in ["1\n2\n3\n", "[1,2,3]"] {
            let problem = cut(&HeaderMap::new(), &Bytes::from(body), &settings).unwrap_err();
            assert_eq!(problem.error.kind, Kind::TooLarge, "{body}");
        }
    }
}
