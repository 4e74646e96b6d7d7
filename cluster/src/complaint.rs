//! Saying once in a while what goes wrong all the time.

use std::time::Duration;

use proto::Error;
use tokio::time::Instant;

/// Between two lines about the same trouble.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// One trouble that may last.
pub struct Complaint {
    what: &'static str,
    said: Option<Instant>,
}

impl Complaint {
    /// A trouble that nobody has yet; `what` is what its line says.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self { what, said: None }
    }

    /// It is there.
    pub fn say(&mut self, error: &Error) {
        if self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            tracing::warn!(%error, "{}", self.what);
            self.said = Some(Instant::now());
        }
    }

    /// It is over.
    pub fn over(&mut self) {
        if self.said.take().is_some() {
            tracing::info!("over: {}", self.what);
        }
    }
}
