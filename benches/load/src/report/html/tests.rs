//! The page as a whole.

use proptest::prelude::*;

use super::*;
use crate::report::{Histogram, Moment, sample};

/// Every text of a report.
fn texts(report: &mut Report, text: &str) {
    for field in [&mut report.benchmark, &mut report.title, &mut report.command, &mut report.started] {
        *field = text.to_owned();
    }
    let machine = &mut report.machine;
    for field in [&mut machine.windrow, &mut machine.system, &mut machine.processor] {
        *field = text.to_owned();
    }
    report.settings = serde_json::json!({ text: [text] });
    report.notes = vec![text.to_owned()];
    for run in &mut report.runs {
        run.name = text.to_owned();
        run.failed = [(text.to_owned(), 3)].into();
        run.cache = [(text.to_owned(), 3)].into();
        run.figures = [(text.to_owned(), 3.0)].into();
        run.counters = [(text.to_owned(), 3.0)].into();
        for moment in &mut run.moments {
            moment.counters = run.counters.clone();
        }
    }
}

fn sound(page: &str) {
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    for tag in ["svg", "figure", "g", "text", "table", "tr", "div", "title", "pre", "ul", "details", "h2"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn the_page_loads_nothing() {
    let page = page(&sample::report(2));
    sound(&page);
    for reference in
        ["http://", "https://", "//", "src=", "href=", "url(", "@import", "<script", "<link", "<img"]
    {
        assert!(!page.contains(reference), "{reference}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn every_text_is_escaped() {
    let mut report = sample::report(2);
    texts(&mut report, "</title></svg><i>\"'&");
    let page = page(&report);
    sound(&page);
    assert!(!page.contains("<i>") && !page.contains("\"'"), "{page}");
    assert!(page.matches("&lt;i&gt;&quot;&#39;&amp;").count() > 20);
}

#[test]
fn what_was_measured_is_on_it() {
    let page = page(&sample::report(3));
    // One by percentile; latency, throughput, cache, two of counters and CPU for each run.
    assert_eq!(page.matches("<figure>").count(), 1 + 3 * 6);
    for said in [
        "p99.9",
        "CPU\u{a0}per<br>answer",
        "recovery after the stall, s",
        "AMD EPYC 9554",
        "2026-03-04 05:06:07 UTC",
    ] {
        assert!(page.contains(said), "{said}");
    }
    assert!(page.contains("Half of the answers came within"));
    assert!(page.contains("&quot;arrivals&quot;: &quot;poisson&quot;"));
}

#[test]
fn nothing_is_a_page_too() {
    let mut report = sample::report(0);
    let none = page(&report);
    sound(&none);
    assert!(none.contains("Nothing was measured."));
    let silent = Moment { at: 1.0, seconds: 1.0, sent: 5, failed: 5, ..Moment::default() };
    report.runs = vec![
        Run { name: "empty".into(), ..Run::default() },
        Run { name: "refused".into(), seconds: 1.0, sent: 5, moments: vec![silent], ..Run::default() },
        Run {
            name: "odd".into(),
            server_cpu: Some(f64::NAN),
            offered: Some(f64::INFINITY),
            ..Run::default()
        },
    ];
    let page = page(&report);
    sound(&page);
    assert_eq!(page.matches("<figure>").count(), 1, "what was refused, over time");
}

#[test]
fn twelve_runs_of_an_hour_are_a_page_of_a_few_megabytes() {
    let mut report = sample::report(0);
    report.runs = (1..=12).map(|step| sample::lasting(step, 3_600, 20)).collect();
    let page = page(&report);
    sound(&page);
    assert!(page.len() < 4_000_000, "{} bytes", page.len());
    // Every peak is still there: the slowest second of each run is told.
    assert!(page.contains(&units::time(report.runs[0].latency.max() as f64)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_numbers_make_a_page(
        seconds in prop::num::f64::ANY, at in prop::num::f64::ANY, cpu in prop::num::f64::ANY, counter in prop::num::f64::ANY,
        sent in any::<u32>(), us in any::<u64>(),
    ) {
        let mut latency = Histogram::default();
        (0..50).for_each(|_| latency.record(us));
        let moment = Moment {
            at, seconds, sent: sent.into(), answered: 1, hits: 1, p50: us, p99: us, max: us, server_cpu: Some(cpu),
            counters: [("searches".to_owned(), counter)].into(), ..Moment::default()
        };
        let mut report = sample::report(0);
        let run = Run {
            offered: Some(at), seconds, sent: sent.into(), answered: 50, server_cpu: Some(cpu),
            counters: moment.counters.clone(), moments: vec![moment.clone(), moment], latency, ..Run::default()
        };
        report.runs = vec![run];
        sound(&page(&report));
    }
}
