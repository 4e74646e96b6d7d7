//! What the benches share: corpora, queries, and CPU time.

#![allow(dead_code, clippy::allow_attributes, reason = "each bench uses a part of it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the corpora are, or a line that says how to name it.
pub(crate) fn data() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "benches have no settings file")]
    let named = std::env::var("WINDROW_TEST_DATA").ok();
    if named.is_none() {
        println!("skipped: set WINDROW_TEST_DATA to the folder with wiki-passages.ndjson.zst");
    }
    named.map(PathBuf::from)
}

/// The (id, JSON) lines of a corpus, compressed or not.
pub(crate) fn corpus(path: &Path) -> Vec<(String, bytes::Bytes)> {
    #[derive(serde::Deserialize)]
    struct Id<'a> {
        #[serde(borrow)]
        id: std::borrow::Cow<'a, str>,
    }
    let file = std::fs::File::open(path).expect("the corpus opens");
    let read: Box<dyn std::io::Read> = if path.extension().is_some_and(|end| end == "zst") {
        Box::new(zstd::Decoder::new(file).expect("the corpus is zstd"))
    } else {
        Box::new(file)
    };
    let lines = BufReader::new(read).lines();
    lines
        .map(|line| {
            let line = line.expect("the corpus reads");
            let id = serde_json::from_str::<Id<'_>>(&line).expect("a line is a document").id.into_owned();
            (id, bytes::Bytes::from(line))
        })
        .collect()
}

/// The texts of `qid<TAB>text` lines.
pub(crate) fn queries(path: &Path, count: usize) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("the queries open");
    let all: Vec<&str> =
        text.lines().filter_map(|line| line.split_once('\t')).map(|(_, text)| text).collect();
    // Spread over the file, which is sorted by source.
    let step = (all.len() / count).max(1);
    all.into_iter().step_by(step).take(count).map(str::to_owned).collect()
}

/// CPU time of another process, summed over the threads that live: read while
/// it is idle, for the kernel accounts for a running thread in ticks.
pub(crate) fn cpu(pid: u32) -> Duration {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_nanos(sum)
}

/// CPU time of a process in ticks of 10 ms, threads that ended included.
pub(crate) fn cpu_total(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// CPU time of this thread.
pub(crate) fn thread_cpu() -> Duration {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

/// CPU time of this process.
pub(crate) fn process_cpu() -> Duration {
    clock(rustix::time::ClockId::ProcessCPUTime)
}

fn clock(id: rustix::time::ClockId) -> Duration {
    let now = rustix::time::clock_gettime(id);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Mean, median and 95th percentile, in microseconds.
pub(crate) fn summary(mut samples: Vec<f64>) -> (f64, f64, f64) {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    (samples.iter().sum::<f64>() / samples.len() as f64, at(0.5), at(0.95))
}
