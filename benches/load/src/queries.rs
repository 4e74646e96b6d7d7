//! What is asked: queries from files, and how often each is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// How often each query of a file is asked.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Each as often as any.
    Uniform,
    /// By the weight in this column, from 1.
    Column(usize),
    /// The nth of a random order in proportion to `1 / n^s`, as real queries
    /// are.
    Zipf(f64),
}

impl std::str::FromStr for Weights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is none of uniform, zipf:S (such as zipf:1.0) and column:N");
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            Some(("zipf", s)) => {
                let s: f64 = s.parse().map_err(|_| wrong())?;
                if (0.0..=10.0).contains(&s) { Ok(Self::Zipf(s)) } else { Err(wrong()) }
            }
            Some(("column", n)) => {
                let n: usize = n.parse().map_err(|_| wrong())?;
                if n > 0 { Ok(Self::Column(n)) } else { Err(wrong()) }
            }
            _ => Err(wrong()),
        }
    }
}

/// A file of queries, and its part of the mix.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Source {
    /// The file: one query a line, or several columns split by tabs.
    pub path: PathBuf,
    /// How often its queries are asked, relative to the other files'.
    pub part: f64,
}

impl std::str::FromStr for Source {
    type Err = String;

    /// `FILE`, or `FILE=PART` as in `people.tsv=3`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((path, part)) = text.rsplit_once('=')
            && let Ok(part) = part.parse::<f64>()
        {
            if !(part > 0.0 && part.is_finite()) {
                return Err(format!("the part of {path} is {part}: it must be above 0"));
            }
            return Ok(Self { path: path.into(), part });
        }
        Ok(Self { path: text.into(), part: 1.0 })
    }
}

/// Queries, each with its weight.
#[derive(Clone, Debug, Default)]
pub struct Queries {
    texts: Vec<String>,
    /// Sums of the weights up to and with each.
    sums: Vec<f64>,
}

/// Most queries that are kept: more are refused, not cut off.
const QUERIES_MAX: usize = 5_000_000;

impl Queries {
    /// Reads files. A query is in `column`, from 1; without it in the second
    /// column where lines have several (as in `id<TAB>text`), else the line.
    ///
    /// # Errors
    /// One line that names the file: missing, empty, a column or a weight that
    /// is not there.
    pub fn read(sources: &[Source], column: Option<usize>, weights: Weights, seed: u64) -> Result<Self> {
        let mut queries = Self::default();
        for source in sources {
            let read = read(&source.path, column, weights, seed)?;
            let sum: f64 = read.iter().map(|(_, weight)| weight).sum();
            ensure!(
                sum > 0.0 && sum.is_finite(),
                "{} has no query with a weight above 0: name a file with one query a line",
                source.path.display()
            );
            for (text, weight) in read {
                queries.push(text, weight / sum * source.part);
            }
            ensure!(queries.texts.len() <= QUERIES_MAX, "over {QUERIES_MAX} queries: take a sample of them");
        }
        ensure!(!queries.texts.is_empty(), "there are no queries: name a file with --queries");
        Ok(queries)
    }

    /// Queries that are asked equally often.
    #[must_use]
    pub fn of(texts: impl IntoIterator<Item = String>) -> Self {
        let mut queries = Self::default();
        for text in texts {
            queries.push(text, 1.0);
        }
        queries
    }

    fn push(&mut self, text: String, weight: f64) {
        self.sums.push(self.sums.last().copied().unwrap_or(0.0) + weight);
        self.texts.push(text);
    }

    /// The texts.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Draws a query's place by weight.
    pub fn draw(&self, random: &mut StdRng) -> usize {
        let sum = self.sums.last().copied().unwrap_or(0.0);
        let point = random.random::<f64>() * sum;
        self.sums.partition_point(|upto| *upto <= point).min(self.texts.len().saturating_sub(1))
    }
}

fn read(path: &Path, column: Option<usize>, weights: Weights, seed: u64) -> Result<Vec<(String, f64)>> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("{} cannot be read: name a text file with one query a line", path.display())
    })?;
    let mut read = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() {
            continue;
        }
        let columns: Vec<&str> = line.split('\t').collect();
        let at = column.unwrap_or(if columns.len() > 1 { 2 } else { 1 });
        let wanted = |at: usize, what: &str| {
            columns
                .get(at - 1)
                .copied()
                .with_context(|| format!("line {number} of {} has no {what} in column {at}", path.display()))
        };
        let weight = match weights {
            Weights::Column(at) => {
                let text = wanted(at, "weight")?;
                match text.trim().parse::<f64>() {
                    Ok(weight) if weight >= 0.0 && weight.is_finite() => weight,
                    _ => bail!("line {number} of {}: {text:?} is no weight", path.display()),
                }
            }
            Weights::Uniform | Weights::Zipf(_) => 1.0,
        };
        read.push((wanted(at, "query")?.to_owned(), weight));
    }
    if let Weights::Zipf(s) = weights {
        // A file's order says nothing of how often a query is asked.
        read.shuffle(&mut StdRng::seed_from_u64(seed));
        for (rank, (_, weight)) in (1..).zip(&mut read) {
            *weight = f64::from(rank).powf(-s);
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.tsv");
        std::fs::write(&path, text).unwrap();
        (folder, Source { path, part: 1.0 })
    }

    fn shares(queries: &Queries) -> Vec<f64> {
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = vec![0.0; queries.texts().len()];
        for _ in 0..100_000 {
            counts[queries.draw(&mut random)] += 1e-5;
        }
        counts
    }

    #[test]
    fn lines_and_columns_are_read() {
        let (_folder, source) = file("hay\r\n\nwet hay\n");
        let queries = Queries::read(&[source], None, Weights::Uniform, 0).unwrap();
        assert_eq!(queries.texts(), ["hay", "wet hay"]);
        let (_folder, source) = file("q1\thay\t3\nq2\train\t1\n");
        let queries = Queries::read(&[source], None, Weights::Column(3), 0).unwrap();
        assert_eq!(queries.texts(), ["hay", "rain"]);
        assert!((shares(&queries)[0] - 0.75).abs() < 0.01);
    }

    #[test]
    fn files_have_their_parts_and_zipf_its_law() {
        let (_one, mut often) = file("a\n");
        let (_two, seldom) = file("b\nc\n");
        often.part = 3.0;
        let queries = Queries::read(&[often, seldom], None, Weights::Uniform, 0).unwrap();
        let found = shares(&queries);
        assert!((found[0] - 0.75).abs() < 0.01 && (found[1] - 0.125).abs() < 0.01, "{found:?}");
        let (_folder, source) = file("a\nb\nc\n");
        let found = shares(&Queries::read(&[source], None, Weights::Zipf(1.0), 5).unwrap());
        assert!(
            (found[0] / found[1] - 2.0).abs() < 0.1 && (found[0] / found[2] - 3.0).abs() < 0.2,
            "{found:?}"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let away = Source { path: "/nowhere/queries.txt".into(), part: 1.0 };
        let (_one, empty) = file("\n\n");
        let (_two, narrow) = file("hay\n");
        let (_three, heavy) = file("hay\tmuch\n");
        for (source, weights, says) in [
            (away, Weights::Uniform, "/nowhere/queries.txt"),
            (empty, Weights::Uniform, "no query"),
            (narrow, Weights::Column(3), "line 1"),
            (heavy, Weights::Column(2), "\"much\" is no weight"),
        ] {
            let error = Queries::read(&[source], Some(1), weights, 0).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
        for wrong in ["zipf", "zipf:x", "column:0", "even"] {
            assert!(wrong.parse::<Weights>().is_err(), "{wrong}");
        }
        assert_eq!("a=b.tsv=2".parse(), Ok(Source { path: "a=b.tsv".into(), part: 2.0 }));
        assert!("a.tsv=-1".parse::<Source>().is_err());
    }
}
