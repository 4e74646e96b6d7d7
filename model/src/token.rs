//! The token of a write: what a later search must be able to read.
//!
//! ```text
//! text: 1 │ index uid, 32 digits │ shard and seq of each, varints in hex │ checksum, 8 digits
//! ```
//!
//! **Invariant:** clients keep tokens as opaque text across releases: a version
//! stays readable, and a token that was altered is refused.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{IndexUid, Seq, ShardId};
use crate::settings::SHARDS_MAX;

/// Longest text that is looked at: the version, the uid, the checksum and for
/// each shard two varints of at most 5 and 10 bytes, in hex.
pub const TOKEN_BYTES_MAX: usize = 1 + 32 + 8 + SHARDS_MAX as usize * 2 * (5 + 10);

const VERSION: char = '1';
const UID_DIGITS: usize = 32;
const CHECKSUM_DIGITS: usize = 8;

/// The WAL seqs of a write, by shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    /// The index that was written.
    pub uid: IndexUid,
    /// The highest seq of the write in each shard that it touched.
    pub seqs: BTreeMap<ShardId, Seq>,
}

/// Why a text is no token, or two tokens are none together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not a token, cut short or altered.
    #[error("the token is damaged: send it exactly as a write returned it")]
    Damaged,
    /// From a later release.
    #[error("the token is of an unknown version: it was returned by a newer release")]
    Version,
    /// The tokens are of two indexes.
    #[error("the tokens are of two different indexes")]
    TwoIndexes,
}

impl Token {
    /// A token of nothing.
    #[must_use]
    pub fn new(uid: IndexUid) -> Self {
        Self { uid, seqs: BTreeMap::new() }
    }

    /// The token as text, safe in URLs.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(self.seqs.len() * 6);
        for (shard, seq) in &self.seqs {
            push_varint(&mut bytes, u64::from(shard.0));
            push_varint(&mut bytes, seq.0);
        }
        let mut text = format!("{VERSION}{}", self.uid);
        for byte in bytes {
            text.push(hex(byte >> 4));
            text.push(hex(byte & 15));
        }
        let sum = checksum(&text);
        text.push_str(&sum);
        text
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When the text is damaged, too long or of a later release.
    pub fn decode(text: &str) -> Result<Self, BadToken> {
        if text.len() > TOKEN_BYTES_MAX || !text.is_ascii() {
            return Err(BadToken::Damaged);
        }
        match text.chars().next() {
            Some(VERSION) => {}
            Some('2'..='9') => return Err(BadToken::Version),
            _ => return Err(BadToken::Damaged),
        }
        let split = text.len().checked_sub(CHECKSUM_DIGITS).ok_or(BadToken::Damaged)?;
        let (body, sum) = text.split_at(split);
        if body.len() < 1 + UID_DIGITS || checksum(body) != sum {
            return Err(BadToken::Damaged);
        }
        let (uid, pairs) = body[1..].split_at(UID_DIGITS);
        let uid = IndexUid::parse(uid).ok_or(BadToken::Damaged)?;
        let bytes = unhex(pairs).ok_or(BadToken::Damaged)?;
        let seqs = pairs_of(&bytes).ok_or(BadToken::Damaged)?;
        Ok(Self { uid, seqs })
    }

    /// Adds the writes of another token of the same index.
    ///
    /// # Errors
    /// When the other is of another index; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), BadToken> {
        if self.uid != other.uid {
            return Err(BadToken::TwoIndexes);
        }
        for (shard, seq) in &other.seqs {
            let known = self.seqs.entry(*shard).or_default();
            *known = (*known).max(*seq);
        }
        Ok(())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encode())
    }
}

impl TryFrom<String> for Token {
    type Error = BadToken;

    fn try_from(text: String) -> Result<Self, BadToken> {
        Self::decode(&text)
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.encode()
    }
}

fn checksum(text: &str) -> String {
    format!("{:08x}", xxh3_64(text.as_bytes()) >> 32)
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0')
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn pairs_of(bytes: &[u8]) -> Option<BTreeMap<ShardId, Seq>> {
    let mut seqs = BTreeMap::new();
    let mut at = 0;
    while at < bytes.len() {
        let shard = ShardId(u32::try_from(varint(bytes, &mut at)?).ok()?);
        let seq = Seq(varint(bytes, &mut at)?);
        let fresh = shard.0 < SHARDS_MAX && seqs.insert(shard, seq).is_none();
        if !fresh {
            return None;
        }
    }
    Some(seqs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(seqs: &[(u32, u64)]) -> Token {
        Token {
            uid: IndexUid::from_bits(0xabc),
            seqs: seqs.iter().map(|(shard, seq)| (ShardId(*shard), Seq(*seq))).collect(),
        }
    }

    #[test]
    fn the_text_never_changes() {
        let text = token(&[(0, 1), (3, 300)]).encode();
        assert_eq!(&text[..33], "100000000000000000000000000000abc");
        assert_eq!(&text[33..text.len() - 8], "000103ac02");
        assert_eq!(Token::decode(&text), Ok(token(&[(0, 1), (3, 300)])));
    }

    #[test]
    fn the_largest_token_fits() {
        let all: Vec<(u32, u64)> = (0..SHARDS_MAX).map(|shard| (shard, u64::MAX)).collect();
        let text = token(&all).encode();
        assert!(text.len() <= TOKEN_BYTES_MAX);
        assert_eq!(Token::decode(&text), Ok(token(&all)));
        assert_eq!(Token::decode(&"1".repeat(TOKEN_BYTES_MAX + 1)), Err(BadToken::Damaged));
    }

    #[test]
    fn merging_keeps_the_highest_seq_of_one_index() {
        let mut sum = token(&[(0, 5), (1, 1)]);
        sum.merge(&token(&[(0, 3), (1, 4), (2, 2)])).unwrap();
        assert_eq!(sum, token(&[(0, 5), (1, 4), (2, 2)]));
        let other = Token::new(IndexUid::from_bits(1));
        assert_eq!(sum.merge(&other), Err(BadToken::TwoIndexes));
    }

    #[test]
    fn versions_to_come_are_told_from_damage() {
        assert_eq!(Token::decode("2whatever"), Err(BadToken::Version));
        for bad in ["", "1", "x", "ü", "1abc", "{}"] {
            assert_eq!(Token::decode(bad), Err(BadToken::Damaged), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn tokens_survive_and_alterations_do_not(
            seqs in prop::collection::btree_map(0..SHARDS_MAX, any::<u64>(), 0..8),
            at in any::<prop::sample::Index>(),
        ) {
            let token = token(&seqs.into_iter().collect::<Vec<_>>());
            let text = token.encode();
            prop_assert_eq!(Token::decode(&text), Ok(token));
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = if bytes[at] == b'7' { b'8' } else { b'7' };
            prop_assert!(Token::decode(&String::from_utf8(bytes).unwrap()).is_err());
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = Token::decode(&text);
        }
    }
}
