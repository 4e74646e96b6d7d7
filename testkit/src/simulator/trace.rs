//! What happened in a simulation, line by line.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::unslowed;

/// Lines with their simulated moments; none are kept unless asked for.
pub(super) struct Trace {
    begun: Instant,
    lines: Option<Mutex<Vec<String>>>,
}

impl Trace {
    pub(super) fn new(begun: Instant, wanted: bool) -> Self {
        Self { begun, lines: wanted.then(Mutex::default) }
    }

    /// Keeps a line.
    pub(super) fn say(&self, line: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            let at: Duration = unslowed(self.begun.elapsed());
            let line = format!("{:.6} {}", at.as_secs_f64(), line());
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    /// What was kept.
    pub(super) fn take(&self) -> Vec<String> {
        let lines = self
            .lines
            .as_ref()
            .map(|lines| std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner)));
        lines.unwrap_or_default()
    }
}
