//! When the process ends, and why.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::scope;

/// Exit code after a second signal, as shells report an interrupted program.
pub const EXIT_INTERRUPTED: i32 = 130;

/// The wish that the process ends. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    failure: Arc<OnceLock<String>>,
}

impl Shutdown {
    /// A wish that nobody has yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for an orderly end.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Asks for an end because something broke; the first reason is kept.
    pub fn fail(&self, reason: String) {
        tracing::error!(reason, "shutting down");
        let _kept_first = self.failure.set(reason);
        self.token.cancel();
    }

    /// What broke, where something did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// Waits until the end is asked for.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// The token behind it.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Asks for the end at Ctrl-C or SIGTERM; a second one exits at once with
    /// [`EXIT_INTERRUPTED`].
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        // It listens until the very end, so no scope can wait for it.
        scope::spawn(async move {
            for asked_before in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if asked_before {
                    std::process::exit(EXIT_INTERRUPTED);
                }
                shutdown.request();
            }
        });
        Ok(())
    }
}
