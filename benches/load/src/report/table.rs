//! A report as text, for the end of a benchmark.

use std::fmt::Write;

use super::summary::{self, Column};
use super::{Report, Run, notes, units};

/// The columns of a terminal that no line goes beyond.
const WIDTH: usize = 100;
/// The longest name of a run that is printed whole.
const NAME_MAX: usize = 28;
/// The longest name of a figure that is printed whole.
const FIGURE_MAX: usize = 56;
/// Between two columns.
const GAP: usize = 2;

/// Cells of one column, its head first.
type Cells = Vec<String>;

/// The aligned table of every run, the figures of this benchmark and the notes.
#[must_use]
pub fn print(report: &Report) -> String {
    let mut text = String::new();
    let title = if report.title.is_empty() { &report.benchmark } else { &report.title };
    wrapped(&mut text, "", &clean(title));
    if report.runs.is_empty() {
        text.push_str("\nNothing was measured.\n");
    } else {
        for block in blocks(&report.runs) {
            text.push('\n');
            text.push_str(&aligned(&names(&report.runs, 2), &block));
        }
        figures(&mut text, report);
    }
    let notes = notes::of(report);
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        wrapped(&mut text, "- ", &clean(&note));
    }
    text
}

/// The columns in as many tables as they need to fit.
fn blocks(runs: &[Run]) -> Vec<Vec<Cells>> {
    let columns = summary::columns(runs);
    let cells = |columns: &[&Column]| -> Vec<Cells> {
        let column = |column: &&Column| {
            column.head.iter().map(|line| (*line).to_owned()).chain(column.cells.iter().cloned()).collect()
        };
        columns.iter().map(column).collect()
    };
    let all = cells(&columns.iter().collect::<Vec<_>>());
    let first = width(&names(runs, 2));
    if first + all.iter().map(|column| GAP + width(column)).sum::<usize>() <= WIDTH {
        return vec![all];
    }
    // What was answered and what it cost is a table of its own.
    let (answers, times): (Vec<&Column>, Vec<&Column>) =
        columns.iter().partition(|column| column.about == summary::About::Answers);
    [times, answers].iter().flat_map(|columns| fitting(first, cells(columns))).collect()
}

/// Splits columns that do not fit beside a first one of that width.
fn fitting(first: usize, columns: Vec<Cells>) -> Vec<Vec<Cells>> {
    let mut blocks: Vec<Vec<Cells>> = Vec::new();
    let mut used = usize::MAX;
    for column in columns {
        let needed = GAP + width(&column);
        if used.saturating_add(needed) > WIDTH {
            blocks.push(Vec::new());
            used = first;
        }
        used += needed;
        if let Some(block) = blocks.last_mut() {
            block.push(column);
        }
    }
    blocks
}

/// A line for each figure and a column for each run, for the names of figures
/// are long; the other way round where that needs fewer tables.
fn figures(text: &mut String, report: &Report) {
    let figures = summary::figures(report);
    if figures.is_empty() {
        return;
    }
    let labels: Cells = figures.iter().map(|(name, _)| units::clipped(name, FIGURE_MAX)).collect();
    let cells: Vec<Cells> = figures.into_iter().map(|(_, cells)| cells).collect();
    let names = names(&report.runs, 0);
    let by_run = (0..names.len()).map(|run| cells.iter().map(|cells| cells[run].clone()).collect()).collect();
    let (rows, blocks) = crossed(&labels, &names, by_run);
    let (other_rows, other_blocks) = crossed(&names, &labels, cells);
    let fewer = other_blocks.len() < blocks.len();
    let (rows, blocks) = if fewer { (other_rows, other_blocks) } else { (rows, blocks) };
    for block in blocks {
        text.push('\n');
        text.push_str(&aligned(&rows, &block));
    }
}

/// Rows and columns with their names, in as many tables as fit.
fn crossed(rows: &[String], heads: &[String], columns: Vec<Cells>) -> (Cells, Vec<Vec<Cells>>) {
    let rows: Cells = [String::new()].into_iter().chain(rows.iter().cloned()).collect();
    let columns =
        heads.iter().zip(columns).map(|(head, cells)| [head.clone()].into_iter().chain(cells).collect());
    let blocks = fitting(width(&rows), columns.collect());
    (rows, blocks)
}

fn names(runs: &[Run], heads: usize) -> Cells {
    let names = runs.iter().map(|run| units::clipped(&run.name, NAME_MAX));
    std::iter::repeat_n(String::new(), heads).chain(names).collect()
}

fn width(cells: &[String]) -> usize {
    cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)
}

/// Names to the left, figures to the right.
fn aligned(names: &[String], columns: &[Cells]) -> String {
    let first = width(names);
    let widths: Vec<usize> = columns.iter().map(|column| width(column)).collect();
    let mut text = String::new();
    for (row, name) in names.iter().enumerate() {
        let mut line = format!("{name:first$}");
        for (column, width) in columns.iter().zip(&widths) {
            // To a `String` it cannot fail.
            let _written = write!(line, "{:GAP$}{:>width$}", "", column[row]);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn clean(text: &str) -> String {
    units::clipped(text, usize::MAX)
}

/// Adds a paragraph that stays within the width.
fn wrapped(text: &mut String, mark: &str, paragraph: &str) {
    let indent = " ".repeat(mark.len());
    let mut line = mark.to_owned();
    for word in paragraph.split_whitespace() {
        let begun = line.len() > mark.len();
        if begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line.clone_from(&indent);
        } else if begun {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sample;
    use super::*;

    fn fits(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{} columns: {line}", line.chars().count());
            assert_eq!(line.trim_end(), line, "blanks at the end");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn every_run_has_its_line() {
        let mut report = sample::report(3);
        let text = print(&report);
        fits(&text);
        for run in &report.runs {
            assert_eq!(text.matches(&run.name).count(), 4, "two tables, figures and failures: {text}");
        }
        for run in &mut report.runs {
            run.failed.clear();
            run.cache.clear();
            run.empty = 0;
            run.figures.clear();
        }
        let text = print(&report);
        assert_eq!(text.matches("p99.9").count(), 1, "{text}");
        assert!(
            text.lines().any(|line| line.contains("p99.9") && line.contains("cores")),
            "one table: {text}"
        );
    }

    #[test]
    fn an_empty_run_is_dashes() {
        let mut report = sample::report(1);
        report.runs = vec![Run { name: "nothing".into(), ..Run::default() }];
        let text = print(&report);
        fits(&text);
        assert!(text.contains("nothing"), "{text}");
        report.runs.clear();
        assert!(print(&report).contains("Nothing was measured."));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_line_is_too_long(
            names in prop::collection::vec("\\PC{0,60}", 1..13),
            figure in "\\PC{0,80}",
            value in prop::num::f64::ANY,
            note in "([a-z]{1,20} ){0,40}",
        ) {
            let mut report = sample::report(names.len());
            for (run, name) in report.runs.iter_mut().zip(names) {
                run.name = name;
                run.figures.insert(figure.clone(), value);
                run.server_cpu = Some(value);
            }
            report.notes = vec![note];
            for line in print(&report).lines().filter(|line| !line.starts_with("- ") && !line.starts_with("  ")) {
                prop_assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }
}
