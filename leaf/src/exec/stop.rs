//! When to give up: a cancel flag and a deadline, asked cheaply.

use std::cell::Cell;

use runtime::Cancel;

use crate::engine::Error;

/// Ticks between looks at the flag: a tick is about a document, so a look
/// comes every few microseconds.
const LOOK_EVERY: u32 = 1_024;

/// Asked by every loop; once it says stop, it says so for ever.
pub(crate) struct Stop<'a> {
    cancel: &'a Cancel,
    ticks: Cell<u32>,
    stopped: Cell<bool>,
}

impl<'a> Stop<'a> {
    pub(crate) fn new(cancel: &'a Cancel) -> Self {
        Self { cancel, ticks: Cell::new(0), stopped: Cell::new(false) }
    }

    /// Counts one document's worth of work; true when the loop must end.
    #[inline]
    pub(crate) fn tick(&self) -> bool {
        let ticks = self.ticks.get() + 1;
        self.ticks.set(ticks);
        if ticks.is_multiple_of(LOOK_EVERY) { self.look() } else { self.stopped.get() }
    }

    /// Looks at flag and clock now; for loops whose turns are long.
    pub(crate) fn look(&self) -> bool {
        if self.cancel.check() {
            self.stopped.set(true);
        }
        self.stopped.get()
    }

    /// Whether the search ran to its end.
    pub(crate) fn result(&self) -> Result<(), Error> {
        if self.stopped.get() || self.look() { Err(Error::Stopped) } else { Ok(()) }
    }
}
