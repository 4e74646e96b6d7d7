//! How an object's bytes look:
//!
//! ```text
//! windrow manifest 1 9f0c…e2      kind, version, xxh3_128 of all that follows
//! {"uid":"…","shard":0,…}         the header, one line of JSON
//! …                               raw payload, where the kind has one
//! ```
//!
//! `head -2` shows the object to a person.
//!
//! **Invariant:** what decodes is what was encoded: a flipped bit anywhere is
//! an error that names the object.

use std::fmt;

use bytes::Bytes;
use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Error;

const VERSION: &str = "1";

/// Identifies one put among all puts: 128 random bits, drawn for each object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(pub u128);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<Nonce> for u128 {
    fn from(nonce: Nonce) -> Self {
        nonce.0
    }
}

impl From<Nonce> for u64 {
    /// The lower half: enough to tell the authors of one number apart.
    fn from(nonce: Nonce) -> Self {
        let [.., a, b, c, d, e, f, g, h] = nonce.0.to_be_bytes();
        Self::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        nonce.to_string()
    }
}

impl TryFrom<String> for Nonce {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

/// Frames a header and a payload.
pub(crate) fn encode<H: Serialize>(kind: &str, header: &H, payload: &[u8]) -> Bytes {
    let header = serde_json::to_vec(header).expect("headers have string keys and finite numbers");
    let first = kind.len() + 45;
    let mut bytes = Vec::with_capacity(first + header.len() + 1 + payload.len());
    bytes.extend_from_slice(format!("windrow {kind} {VERSION} {:032x}\n", 0).as_bytes());
    let body = bytes.len();
    bytes.extend_from_slice(&header);
    bytes.push(b'\n');
    bytes.extend_from_slice(payload);
    let checksum = format!("{:032x}\n", xxh3_128(&bytes[body..]));
    bytes[body - checksum.len()..body].copy_from_slice(checksum.as_bytes());
    bytes.into()
}

/// Checks a frame and takes it apart; the payload shares the object's bytes.
pub(crate) fn decode<H: DeserializeOwned>(
    path: &Path,
    kind: &str,
    bytes: &Bytes,
) -> Result<(H, Bytes), Error> {
    let body = line(bytes, 0).ok_or_else(|| Error::damaged(path, "it has no first line"))?;
    let first = std::str::from_utf8(&bytes[..body - 1])
        .map_err(|_| Error::damaged(path, "its first line is not text"))?;
    let words: Vec<&str> = first.split(' ').collect();
    let ["windrow", found, version, checksum] = words[..] else {
        return Err(Error::damaged(path, "its first line is not Windrow's"));
    };
    if version != VERSION {
        return Err(Error::damaged(path, format!("its version is {version}, not {VERSION}")));
    }
    if checksum != format!("{:032x}", xxh3_128(&bytes[body..])) {
        return Err(Error::damaged(path, "its checksum does not match"));
    }
    if found != kind {
        return Err(Error::damaged(path, format!("it is a {found}, not a {kind}")));
    }
    let payload = line(bytes, body).ok_or_else(|| Error::damaged(path, "it has no header line"))?;
    let header = serde_json::from_slice(&bytes[body..payload - 1])
        .map_err(|error| Error::damaged(path, format!("its header: {error}")))?;
    Ok((header, bytes.slice(payload..)))
}

/// Reads the kind and header from the start of an object, unchecked: for
/// decisions that keep the object when in doubt.
pub(crate) fn peek<H: DeserializeOwned>(start: &Bytes) -> Option<H> {
    let body = line(start, 0)?;
    let payload = line(start, body)?;
    serde_json::from_slice(&start[body..payload - 1]).ok()
}

/// The offset after the line that begins at `from`.
fn line(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].iter().position(|b| *b == b'\n').map(|at| from + at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Stamp {
        nonce: Nonce,
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let path = Path::from("names/a/1");
        let whole = encode("name", &serde_json::json!({"nonce": Nonce(5)}), b"raw\x00");
        let (stamp, payload) = decode::<Stamp>(&path, "name", &whole).unwrap();
        assert_eq!((stamp.nonce, &payload[..]), (Nonce(5), &b"raw\x00"[..]));
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = decode::<Stamp>(&path, "name", &bytes.into()).err().unwrap();
            assert!(error.to_string().starts_with("names/a/1 is damaged"), "{error}");
        }
        for end in 0..whole.len() {
            assert!(decode::<Stamp>(&path, "name", &whole.slice(..end)).is_err());
        }
    }

    #[test]
    fn the_bytes_never_change() {
        let bytes = encode("name", &serde_json::json!({"n": 1}), b"");
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            format!("windrow name 1 {:032x}\n{{\"n\":1}}\n", xxh3_128(b"{\"n\":1}\n"))
        );
    }
}
