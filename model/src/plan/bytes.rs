//! The bytes of a node: equal for equal nodes, and a contract between releases.

use super::{End, Node, Value};

impl Node {
    /// Bytes that are equal for equal nodes, unequal for unequal ones, and that
    /// order clauses. The order decides how scores are summed, so releases that
    /// answer together must agree on it.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        encode(self, &mut bytes);
        bytes
    }
}

fn encode(node: &Node, bytes: &mut Vec<u8>) {
    match node {
        Node::None => bytes.push(0),
        Node::All { boost } => {
            bytes.push(1);
            encode_boost(*boost, bytes);
        }
        Node::Term { term, boost } => {
            bytes.push(2);
            encode_text(&term.field, bytes);
            encode_text(&term.text, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Phrase { field, terms, slop, boost } => {
            bytes.push(3);
            encode_text(field, bytes);
            encode_length(terms.len(), bytes);
            for (at, text) in terms {
                bytes.extend_from_slice(&at.to_be_bytes());
                encode_text(text, bytes);
            }
            bytes.extend_from_slice(&slop.to_be_bytes());
            encode_boost(*boost, bytes);
        }
        Node::Exact { field, value, boost } => {
            bytes.push(4);
            encode_text(field, bytes);
            encode_value(value, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Prefix { field, prefix, boost } => {
            bytes.push(5);
            encode_text(field, bytes);
            encode_text(prefix, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Range { field, lower, upper, boost } => {
            bytes.push(6);
            encode_text(field, bytes);
            encode_end(lower, bytes);
            encode_end(upper, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Exists { field, boost } => {
            bytes.push(7);
            encode_text(field, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Max(children) => {
            bytes.push(8);
            encode_nodes(children, bytes);
        }
        Node::Bool { must, should, not } => {
            bytes.push(9);
            encode_nodes(must, bytes);
            encode_nodes(should, bytes);
            encode_nodes(not, bytes);
        }
    }
}

fn encode_nodes(nodes: &[Node], bytes: &mut Vec<u8>) {
    encode_length(nodes.len(), bytes);
    for node in nodes {
        encode(node, bytes);
    }
}

fn encode_end(end: &End, bytes: &mut Vec<u8>) {
    match end {
        End::Unbounded => bytes.push(0),
        End::Included(value) => {
            bytes.push(1);
            encode_value(value, bytes);
        }
        End::Excluded(value) => {
            bytes.push(2);
            encode_value(value, bytes);
        }
    }
}

fn encode_value(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Keyword(text) => {
            bytes.push(0);
            encode_text(text, bytes);
        }
        Value::I64(number) => {
            bytes.push(1);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Value::U64(number) => {
            bytes.push(2);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Value::F64(number) => {
            bytes.push(3);
            bytes.extend_from_slice(&number.to_bits().to_be_bytes());
        }
        Value::Bool(flag) => bytes.extend_from_slice(&[4, u8::from(*flag)]),
        Value::Date(at) => {
            bytes.push(5);
            bytes.extend_from_slice(&at.to_be_bytes());
        }
    }
}

fn encode_boost(boost: f32, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&boost.to_bits().to_be_bytes());
}

fn encode_text(text: &str, bytes: &mut Vec<u8>) {
    encode_length(text.len(), bytes);
    bytes.extend_from_slice(text.as_bytes());
}

fn encode_length(length: usize, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(length as u64).to_be_bytes());
}
