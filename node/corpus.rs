//! Documents from files: NDJSON, compressed or not, and folders of text.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use walkdir::WalkDir;
use xxhash_rust::xxh3::xxh3_128;

/// Largest text file that becomes a document; larger ones are data.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

/// One document, and the bytes of input that it came from.
pub(crate) struct Document {
    pub(crate) json: Vec<u8>,
    pub(crate) read: u64,
}

/// Documents one at a time; an error ends a file, not the rest.
pub(crate) type Documents = Box<dyn Iterator<Item = Result<Document>> + Send>;

/// Bytes that a source will read, where that can be known.
pub(crate) fn size(path: &Path) -> Option<u64> {
    if path == Path::new("-") {
        return None;
    }
    if path.is_dir() {
        let files = WalkDir::new(path).into_iter().flatten();
        return Some(
            files
                .filter_map(|file| file.metadata().ok())
                .filter(|meta| meta.is_file() && meta.len() <= FILE_BYTES_MAX)
                .map(|meta| meta.len())
                .sum(),
        );
    }
    std::fs::metadata(path).ok().map(|meta| meta.len())
}

/// Opens a file, a folder or standard input.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn open(path: &Path, id_field: Option<String>) -> Result<Documents> {
    if path == Path::new("-") {
        return Ok(lines(Box::new(std::io::stdin()), "-".into(), id_field));
    }
    let meta = std::fs::metadata(path)
        .map_err(|error| anyhow::anyhow!("{} cannot be read ({error}): check the path", path.display()))?;
    if meta.is_dir() {
        return Ok(folder(path));
    }
    let file = File::open(path).map_err(|error| {
        anyhow::anyhow!("{} cannot be read ({error}): check its permissions", path.display())
    })?;
    let counted = Counted { inner: file, read: std::sync::Arc::default() };
    let read = counted.read.clone();
    let plain: Box<dyn Read + Send> = match path.extension().and_then(|end| end.to_str()) {
        Some("zst") => Box::new(
            zstd::Decoder::new(counted).with_context(|| format!("{} is no zstd file", path.display()))?,
        ),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(counted)),
        _ => Box::new(counted),
    };
    let documents = lines(plain, path.to_owned(), id_field);
    // Progress is told in bytes of the file, also where it is compressed.
    let mut told = 0;
    Ok(Box::new(documents.map(move |document| {
        document.map(|document| {
            let now = read.load(std::sync::atomic::Ordering::Relaxed);
            let read = now - told;
            told = now;
            Document { read, ..document }
        })
    })))
}

struct Counted {
    inner: File,
    read: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read.fetch_add(read as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(read)
    }
}

fn lines(read: Box<dyn Read + Send>, path: PathBuf, id_field: Option<String>) -> Documents {
    let mut reader = BufReader::with_capacity(1 << 18, read);
    let mut number = 0_u64;
    let mut failed = false;
    Box::new(std::iter::from_fn(move || {
        while !failed {
            let mut line = Vec::new();
            number += 1;
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(read) => {
                    line.truncate(line.trim_ascii_end().len());
                    if line.is_empty() {
                        continue;
                    }
                    let json = identified(line, id_field.as_deref());
                    return Some(Ok(Document { json, read: read as u64 }));
                }
                Err(error) => {
                    failed = true;
                    return Some(Err(anyhow::anyhow!(
                        "{} cannot be read beyond line {number} ({error})",
                        path.display()
                    )));
                }
            }
        }
        None
    }))
}

/// Gives a document the id that was asked for, or a hash where it has none.
/// A line that is no object is left as it is: the server says what is wrong.
fn identified(line: Vec<u8>, id_field: Option<&str>) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: Option<serde::de::IgnoredAny>,
    }
    let Some(field) = id_field else {
        return match serde_json::from_slice::<Id>(&line) {
            Ok(Id { id: None }) => with_id(&line, &format!("{:032x}", xxh3_128(&line))),
            _ => line,
        };
    };
    if field == "id" {
        return line;
    }
    let Ok(Value::Object(mut object)) = serde_json::from_slice::<Value>(&line) else { return line };
    let id = match object.get(field) {
        Some(Value::String(text)) => Value::String(text.clone()),
        Some(Value::Number(number)) => Value::String(number.to_string()),
        // Missing or of another type: the server names the line and the field.
        other => other.cloned().unwrap_or(Value::Null),
    };
    object.insert("id".to_owned(), id);
    serde_json::to_vec(&object).unwrap_or(line)
}

/// Puts an id before an object's first entry.
fn with_id(line: &[u8], id: &str) -> Vec<u8> {
    let Some(open) = line.iter().position(|byte| *byte == b'{') else { return line.to_vec() };
    let rest = &line[open + 1..];
    let empty = rest.trim_ascii_start().first() == Some(&b'}');
    let mut made = Vec::with_capacity(line.len() + 48);
    made.extend_from_slice(format!("{{\"id\":\"{id}\"").as_bytes());
    if !empty {
        made.push(b',');
    }
    made.extend_from_slice(rest);
    made
}

/// The text files below a folder, a document each; others are passed over.
fn folder(root: &Path) -> Documents {
    let root = root.to_owned();
    let files = WalkDir::new(&root).sort_by_file_name().into_iter();
    Box::new(files.filter_map(move |entry| {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Some(Err(anyhow::anyhow!("a file cannot be read: {error}"))),
        };
        if !entry.file_type().is_file() {
            return None;
        }
        let bytes = entry.metadata().map_or(0, |meta| meta.len());
        let path = entry.path();
        let body = text(path, bytes)?;
        let inner = path.strip_prefix(&root).unwrap_or(path).to_string_lossy().into_owned();
        let document = json!({
            "id": shortened(&inner),
            "path": inner,
            "name": entry.file_name().to_string_lossy(),
            "extension": path.extension().unwrap_or_default().to_string_lossy(),
            "bytes": bytes,
            "body": body,
        });
        Some(Ok(Document { json: document.to_string().into_bytes(), read: bytes }))
    }))
}

/// A path as an id: itself, or a hash where it is too long for one.
pub(crate) fn shortened(path: &str) -> String {
    if path.len() <= model::ids::DOCUMENT_ID_BYTES_MAX {
        path.to_owned()
    } else {
        format!("{:032x}", xxh3_128(path.as_bytes()))
    }
}

/// A file's text, or `None` for a large or binary one.
pub(crate) fn text(path: &Path, bytes: u64) -> Option<String> {
    if bytes > FILE_BYTES_MAX {
        return None;
    }
    let text = String::from_utf8(std::fs::read(path).ok()?).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// Refuses sources that are not there before anything is sent.
///
/// # Errors
/// Names the first one.
pub(crate) fn check(files: &[PathBuf]) -> Result<()> {
    for file in files {
        if file != Path::new("-") && !file.exists() {
            bail!("{} does not exist: check the path", file.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_without_an_id_get_the_hash_of_their_bytes() {
        let made = identified(br#"{"title":"a"}"#.to_vec(), None);
        let again = identified(br#"{"title":"a"}"#.to_vec(), None);
        assert_eq!(made, again);
        let value: Value = serde_json::from_slice(&made).unwrap();
        assert_eq!(value["title"], "a");
        assert_eq!(value["id"].as_str().unwrap().len(), 32);
        assert_eq!(identified(br#"{"id":"x"}"#.to_vec(), None), br#"{"id":"x"}"#);
        assert_eq!(identified(b"{}".to_vec(), None)[..7], *b"{\"id\":\"");
    }

    #[test]
    fn an_id_field_becomes_the_id() {
        let made = identified(br#"{"key":7,"id":"other"}"#.to_vec(), Some("key"));
        assert_eq!(serde_json::from_slice::<Value>(&made).unwrap()["id"], "7");
    }
}
