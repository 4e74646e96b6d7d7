//! A report as one page that needs nothing else.
//!
//! **Invariants:** the page loads nothing, from nowhere, and runs no script; its
//! policy forbids both. Whatever comes from data is escaped.

mod axis;
mod escape;
mod labels;
mod over_time;
mod percentiles;
mod plot;
mod thin;

use escape::escape;

use super::{Report, Run, notes, summary, units};

/// Line styles of the sheet: more lines than that begin anew.
const STYLES: usize = 12;
const STYLE: &str = include_str!("style.css");

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let title = escape(if report.title.is_empty() { &report.benchmark } else { &report.title });
    let parts = [
        head(&title),
        header(report, &title),
        table(report),
        figures(report),
        note_list(report),
        percentiles(report),
        report.runs.iter().map(over_time).collect(),
        settings(report),
    ];
    format!("{}</body>\n</html>\n", parts.concat())
}

fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    )
}

fn header(report: &Report, title: &str) -> String {
    let machine = &report.machine;
    let cores = if machine.cores == 1 { "core" } else { "cores" };
    let on = format!("{}, {} {cores}, {}", machine.processor, machine.cores, machine.system);
    format!(
        "<header>\n<h1>{title}</h1>\n\
         <p class=\"soft\">Benchmark <b>{}</b> of Windrow {}, begun {}, seed {}</p>\n\
         <p class=\"soft\">{}</p>\n<pre class=\"command\">{}</pre>\n</header>\n",
        escape(&report.benchmark),
        escape(&machine.windrow),
        escape(&when(&report.started)),
        report.seed,
        escape(&on),
        escape(&report.command)
    )
}

/// RFC 3339 with the `T` and the `Z` said in words; other text as it is.
fn when(started: &str) -> String {
    match started.strip_suffix('Z').and_then(|started| started.split_once('T')) {
        Some((date, time)) => {
            // Nobody needs the nanoseconds of a beginning.
            let time = time.split('.').next().unwrap_or(time);
            format!("{date} {time} UTC")
        }
        None => started.to_owned(),
    }
}

fn table(report: &Report) -> String {
    if report.runs.is_empty() {
        return "<p>Nothing was measured.</p>\n".to_owned();
    }
    let columns = summary::columns(&report.runs);
    let heads: Vec<String> =
        columns.iter().map(|column| column.head.join("\n").trim_end().replace(' ', "\u{a0}")).collect();
    let rows = report.runs.iter().enumerate().map(|(run, name)| {
        (name.name.clone(), columns.iter().map(|column| column.cells[run].clone()).collect())
    });
    rows_of("run", &heads, rows)
}

fn figures(report: &Report) -> String {
    let figures = summary::figures(report);
    if figures.is_empty() {
        return String::new();
    }
    let names: Vec<String> = report.runs.iter().map(|run| run.name.clone()).collect();
    // What there is more of goes down the page.
    if figures.len() >= names.len() {
        return rows_of("", &names, figures.into_iter());
    }
    let heads: Vec<String> = figures.iter().map(|(name, _)| name.clone()).collect();
    let cells = |run: usize| figures.iter().map(|(_, cells)| cells[run].clone()).collect();
    rows_of("run", &heads, names.into_iter().enumerate().map(|(run, name)| (name, cells(run))))
}

/// A table that scrolls by itself where it is too wide.
fn rows_of(first: &str, heads: &[String], rows: impl Iterator<Item = (String, Vec<String>)>) -> String {
    let cell = |text: &String| format!("<td>{}</td>", escape(text));
    let head = |text: &String| format!("<th scope=\"col\">{}</th>", escape(text).replace('\n', "<br>"));
    let heads: String = heads.iter().map(head).collect();
    let rows: String = rows
        .map(|(name, cells)| {
            let cells: String = cells.iter().map(cell).collect();
            format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(&name))
        })
        .collect();
    format!(
        "<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">{first}</th>{heads}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn note_list(report: &Report) -> String {
    let notes: String = notes::of(report).iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
    if notes.is_empty() { notes } else { format!("<ul>\n{notes}</ul>\n") }
}

fn percentiles(report: &Report) -> String {
    let mut plot = percentiles::plot(&report.runs);
    for line in &mut plot.lines {
        line.style %= STYLES;
    }
    let drawn = plot.draw();
    if drawn.is_empty() {
        return drawn;
    }
    format!("<h2>Latency by percentile</h2>\n<div class=\"plots\">\n{drawn}</div>\n")
}

fn over_time(run: &Run) -> String {
    let plots: String = over_time::plots(run)
        .into_iter()
        .map(|mut plot| {
            plot.lines.iter_mut().for_each(|line| line.style %= STYLES);
            plot.draw()
        })
        .collect();
    let name = escape(&run.name);
    if plots.is_empty() {
        return format!("<h2>{name}</h2>\n<p>Nothing was measured.</p>\n");
    }
    let seconds = escape(&units::span(run.seconds));
    let part = thin::part(run.moments.len());
    let thinned = if part == 1 {
        String::new()
    } else {
        format!(
            "<p class=\"soft\">Each point stands for {part} samples: a line is at their median and its band covers all \
             of them. The longest answers and the failures are drawn at their highest.</p>\n"
        )
    };
    format!("<h2>{name}, over {seconds}</h2>\n{thinned}<div class=\"plots\">\n{plots}</div>\n")
}

fn settings(report: &Report) -> String {
    // What was parsed or built as JSON can be written as JSON.
    let settings = serde_json::to_string_pretty(&report.settings).unwrap_or_default();
    format!("<details>\n<summary>Every setting</summary>\n<pre>{}</pre>\n</details>\n", escape(&settings))
}

#[cfg(test)]
mod tests;
