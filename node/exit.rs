//! How the program ends: one line on stderr, and a code that means something.

use std::process::ExitCode;

use thiserror::Error;

/// Everything was done.
pub const OK: u8 = 0;
/// It could not be done; the line on stderr says why.
pub const FAILED: u8 = 1;
/// The command line or a setting is wrong.
pub const USAGE: u8 = 2;
/// No server answers at the URL.
pub const AWAY: u8 = 3;
/// A part was done: some documents did not go in.
pub const PARTIAL: u8 = 4;
/// Ctrl-C came before the end.
pub const INTERRUPTED: u8 = 130;

/// The codes, for `--help`.
pub const HELP: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 no server answers, \
                        4 some documents did not go in, 130 interrupted.";

/// A failure whose code is not plain [`FAILED`].
#[derive(Debug, Error)]
pub enum Failure {
    /// Ends with [`USAGE`].
    #[error("{0}")]
    Usage(String),
    /// Ends with [`PARTIAL`].
    #[error("{0}")]
    Partial(String),
    /// Ends with [`INTERRUPTED`].
    #[error("interrupted")]
    Interrupted,
}

/// The code of a failure.
#[must_use]
pub fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Usage(_)) => return USAGE,
        Some(Failure::Partial(_)) => return PARTIAL,
        Some(Failure::Interrupted) => return INTERRUPTED,
        None => {}
    }
    match error.downcast_ref::<client::Error>() {
        Some(client::Error::Away { .. }) => AWAY,
        Some(client::Error::Url { .. }) => USAGE,
        _ => FAILED,
    }
}

/// Says what failed, on one line, and returns its code.
#[must_use]
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("windrow: {}", line(&format!("{error:#}")));
    ExitCode::from(code(error))
}

/// A text on one line.
#[must_use]
pub fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_failure_keeps_its_code_under_context() {
        let away = client::Error::Away { url: "u".to_owned() };
        let error = Err::<(), _>(away).context("load").unwrap_err();
        assert_eq!(code(&error), AWAY);
        assert_eq!(code(&Failure::Partial(String::new()).into()), PARTIAL);
        assert_eq!(code(&anyhow::anyhow!("no")), FAILED);
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(line("a\n  b"), "a b");
    }
}
