//! One query language, parsed once: text to [`Query`] and back.
//!
//! ```text
//! text ──parse──► Query (limits checked first, errors carry positions)
//!                   │ canonical()   commutative clauses sorted, idempotent
//!                   ├─► canonical bytes (versioned; equal trees, equal bytes)
//!                   ├─► Display     (parses back to the same tree)
//!                   └─► plan::bind  (with a schema: fields, types, analysed terms)
//! ```

#[cfg(any(test, feature = "test-util"))]
pub mod arbitrary;
mod canonical;
mod limits;
mod parse;
mod print;
mod token;
mod tree;

pub use canonical::CANONICAL_VERSION;
pub use limits::{Limits, Refused};
pub use parse::{ParseError, parse};
pub use tree::{Bound, Group, Query};
