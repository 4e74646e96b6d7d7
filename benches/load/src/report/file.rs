//! Reports as files.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{FORMAT, Report};

/// Enough to tell whose report it is.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Report {
    /// Reads what [`Report::write`] wrote.
    ///
    /// # Errors
    ///
    /// When there is no such file, when it is no report, and when it is one of
    /// another format. Each says in a line what to do.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("there is no report at {shown}: give the path of the JSON that a benchmark wrote")
            }
            Err(error) => bail!("failed to read {shown}: {error}"),
        };
        let head: Head = match serde_json::from_slice(&bytes) {
            Ok(head) => head,
            Err(error) => {
                bail!("{shown} is not a report ({error}): give the JSON that a benchmark wrote, not its page")
            }
        };
        ensure!(
            head.format == FORMAT,
            "{shown} is a report of format {}, and this program reads format {FORMAT}: measure again, or read it with \
             the program that wrote it",
            head.format
        );
        match serde_json::from_slice(&bytes) {
            Ok(report) => Ok(report),
            Err(error) => bail!("{shown} is a damaged report ({error}): measure again"),
        }
    }

    /// Writes it as JSON. Whoever reads the path sees the old file or the whole
    /// new one.
    ///
    /// # Errors
    ///
    /// When the path is that of a page, and when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let shown = path.display();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_page = ["html", "htm"].iter().any(|page| extension.eq_ignore_ascii_case(page));
        ensure!(!is_page, "{shown} is the name of a page: give the report a name that ends in .json");
        let name = path
            .file_name()
            .with_context(|| format!("{shown} names no file: add one, such as report.json"))?;
        let mut beside = name.to_owned();
        // Two programs that write one path do not write one temporary file.
        beside.push(format!(".{}.tmp", std::process::id()));
        let beside = path.with_file_name(beside);
        let written = self.write_new(&beside).and_then(|()| Ok(fs::rename(&beside, path)?));
        if written.is_err() {
            // What remains of it is of no use; the first error is the one to tell.
            let _removed = fs::remove_file(&beside);
        }
        written.with_context(|| format!("failed to write {shown}"))
    }

    fn write_new(&self, path: &Path) -> Result<()> {
        let mut file = fs::File::create(path)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.write_all(b"\n")?;
        // An hour's measurement outlives a power cut.
        file.sync_all()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn refusal(content: Option<&str>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let said = format!("{:#}", Report::read(&path).unwrap_err());
        assert!(!said.contains('\n'), "{said}");
        assert!(said.contains("report.json"), "{said}");
        said
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let report = sample::report(3);
        report.write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        sample::report(1).write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), sample::report(1));
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "a temporary file was left: {files:?}");
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        assert!(refusal(None).contains("there is no report"));
        assert!(refusal(Some("<!doctype html>")).contains("not its page"));
        assert!(refusal(Some("{\"hits\": []}")).contains("not a report"));
        assert!(refusal(Some("{\"format\": 99}")).contains("format 99"));
        assert!(refusal(Some("{\"format\": 1}")).contains("measure again"));
    }

    #[test]
    fn a_report_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let report = sample::report(1);
        let page = report.write(&folder.path().join("report.HTML")).unwrap_err();
        assert!(page.to_string().contains(".json"), "{page}");
        // A folder is in the way, so that only the renaming fails.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("file"), "").unwrap();
        assert!(report.write(&taken).is_err());
        let missing = report.write(&folder.path().join("none").join("report.json")).unwrap_err();
        assert!(format!("{missing:#}").contains("failed to write"), "{missing:#}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
