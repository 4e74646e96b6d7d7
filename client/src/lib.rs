//! The Rust client of Windrow's public API.
