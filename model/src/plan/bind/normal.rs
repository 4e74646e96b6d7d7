//! One form for nodes that mean the same: kinds of group merged, what cannot
//! match dropped, clauses sorted.

use crate::plan::Node;

/// Merges nested groups of one kind, drops what cannot matter, sorts clauses.
pub(super) fn normal(node: Node) -> Node {
    match node {
        Node::Max(children) => {
            let mut flat = Vec::with_capacity(children.len());
            for child in children.into_iter().map(normal) {
                match child {
                    Node::None => {}
                    Node::Max(inner) => flat.extend(inner),
                    other => flat.push(other),
                }
            }
            sort(&mut flat);
            flat.dedup();
            match flat.len() {
                0 => Node::None,
                1 => flat.remove(0),
                _ => Node::Max(flat),
            }
        }
        Node::Bool { must, should, not } => boolean(must, should, not),
        Node::Phrase { .. }
        | Node::Term { .. }
        | Node::None
        | Node::All { .. }
        | Node::Exact { .. }
        | Node::Prefix { .. }
        | Node::Range { .. }
        | Node::Exists { .. } => node,
    }
}

pub(super) fn boolean(must: Vec<Node>, should: Vec<Node>, not: Vec<Node>) -> Node {
    let mut all = Vec::with_capacity(must.len());
    let mut none: Vec<Node> = not.into_iter().map(normal).filter(|node| *node != Node::None).collect();
    for clause in must.into_iter().map(normal) {
        match clause {
            Node::None => return Node::None,
            Node::Bool { must, should, not } if should.is_empty() => {
                all.extend(must);
                none.extend(not);
            }
            other => all.push(other),
        }
    }
    let mut any = Vec::with_capacity(should.len());
    for clause in should.into_iter().map(normal) {
        match clause {
            Node::None => {}
            Node::Bool { must, should, not } if must.is_empty() && not.is_empty() => any.extend(should),
            other => any.push(other),
        }
    }
    if all.is_empty() && any.is_empty() {
        return Node::None;
    }
    // A lone positive clause is required, however it was joined; if it is a
    // group, its clauses are ours.
    if all.len() + any.len() == 1 {
        all.append(&mut any);
        match all.remove(0) {
            Node::Bool { must, should, not } => {
                all = must;
                any = should;
                none.extend(not);
            }
            other => all.push(other),
        }
    }
    sort(&mut all);
    sort(&mut any);
    sort(&mut none);
    none.dedup();
    if none.is_empty() && any.is_empty() && all.len() == 1 {
        return all.remove(0);
    }
    Node::Bool { must: all, should: any, not: none }
}

pub(super) fn sort(nodes: &mut [Node]) {
    nodes.sort_by_cached_key(Node::canonical_bytes);
}
