//! A corpus that every machine that built Windrow has: the crates in Cargo's
//! registry folder.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::json;
use walkdir::WalkDir;

use crate::corpus::{Document, Documents, shortened, text};

/// Most bytes of text that the demo loads: minutes, not hours.
const BYTES_MAX: u64 = 300 << 20;

/// The folders with unpacked crates.
///
/// # Errors
/// Says where they were looked for, and what else can be loaded.
pub(crate) fn folders() -> Result<Vec<PathBuf>> {
    // Cargo's own variables, read where its folder is looked for.
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = named("CARGO_HOME").or_else(|| named("HOME").map(|home| home.join(".cargo")));
    let source = home.unwrap_or_default().join("registry").join("src");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(&source).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    if folders.is_empty() {
        bail!("no crates in {}: name another file or folder with --corpus PATH", source.display());
    }
    Ok(folders)
}

/// Text files of the crates, and how many bytes they will come to at most.
pub(crate) fn documents(folders: &[PathBuf]) -> (Documents, u64) {
    let size: u64 = walk(folders).map(|(_, _, bytes)| bytes).sum();
    let mut left = BYTES_MAX;
    let documents = walk(folders).filter_map(move |(root, path, bytes)| {
        if bytes > left {
            return None;
        }
        let body = text(&path, bytes)?;
        left -= bytes;
        let inner = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
        let (package, rest) = inner.split_once('/').unwrap_or((&inner, ""));
        let (name, version) = split(package);
        let document = json!({
            "id": shortened(&inner),
            "crate": name,
            "version": version,
            "path": rest,
            "extension": path.extension().unwrap_or_default().to_string_lossy(),
            "bytes": bytes,
            "body": body,
        });
        Some(Ok(Document { json: document.to_string().into_bytes(), read: bytes }))
    });
    (Box::new(documents), size.min(BYTES_MAX))
}

fn walk(folders: &[PathBuf]) -> impl Iterator<Item = (PathBuf, PathBuf, u64)> + Send + use<> {
    let folders = folders.to_vec();
    folders.into_iter().flat_map(|root| {
        let files = WalkDir::new(&root).sort_by_file_name().into_iter().flatten();
        files.filter(|entry| entry.file_type().is_file()).filter_map(move |entry| {
            let bytes = entry.metadata().ok()?.len();
            (bytes <= crate::corpus::FILE_BYTES_MAX && plausible(entry.path()))
                .then(|| (root.clone(), entry.into_path(), bytes))
        })
    })
}

/// Sources and documentation; generated data and fixtures are passed over.
fn plausible(path: &Path) -> bool {
    let known = [
        "rs", "md", "toml", "txt", "c", "h", "cc", "cpp", "proto", "html", "css", "js", "py", "sh", "yml",
        "yaml",
    ];
    match path.extension().and_then(|end| end.to_str()) {
        Some(end) => known.contains(&end),
        None => true,
    }
}

/// `serde_json-1.0.1` → `serde_json`, `1.0.1`: the version begins at the last
/// dash before a digit.
fn split(package: &str) -> (&str, &str) {
    let dash = package.match_indices('-').find(|(at, _)| {
        package[at + 1..].starts_with(|next: char| next.is_ascii_digit()) && package[at + 1..].contains('.')
    });
    dash.map_or((package, ""), |(at, _)| (&package[..at], &package[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_a_crate_and_its_version() {
        assert_eq!(split("serde_json-1.0.154"), ("serde_json", "1.0.154"));
        assert_eq!(split("toml-1.2.1+spec-1.1.0"), ("toml", "1.2.1+spec-1.1.0"));
        assert_eq!(split("base64-0.22.1"), ("base64", "0.22.1"));
        assert_eq!(split("odd"), ("odd", ""));
    }
}
