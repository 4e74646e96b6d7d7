//! Standard output and error, whose readers may go away: `windrow search … |
//! head` is no reason to panic, and to load goes on.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

macro_rules! err {
    ($($text:tt)*) => { $crate::output::print_error(format_args!($($text)*)) };
}

macro_rules! errln {
    ($($text:tt)*) => { $crate::output::print_error(format_args!("{}\n", format_args!($($text)*))) };
}

static FAILED: AtomicBool = AtomicBool::new(false);

/// Whether something could not be written for another reason.
pub(crate) fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Writes to standard output.
pub(crate) fn print(text: Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    if let Err(error) = output.write_fmt(text).and_then(|()| output.flush())
        && error.kind() != ErrorKind::BrokenPipe
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        errln!("windrow: standard output cannot be written to: {error}");
    }
}

/// Writes to standard error; that it cannot be written to can be told nobody.
pub(crate) fn print_error(text: Arguments<'_>) {
    drop(std::io::stderr().lock().write_fmt(text));
}

macro_rules! out {
    ($($text:tt)*) => { $crate::output::print(format_args!($($text)*)) };
}

macro_rules! outln {
    () => { $crate::output::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {err, errln, out, outln};
