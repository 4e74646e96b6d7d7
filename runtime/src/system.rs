//! What we ask of the operating system for this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process open as many files as it is allowed to: each connection is
/// one, and each segment some. Returns how many that is; `None` without bound.
///
/// # Errors
/// When the system refuses; then it stays as it was.
pub fn raise_open_files() -> std::io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

/// Lets this thread yield the CPU to others, by 0 to 19. It cannot be taken
/// back. Where threads have no priority of their own nothing happens.
pub(crate) fn yield_to_others(by: u8) {
    #[cfg(target_os = "linux")]
    if by > 0 {
        // On Linux this is the calling thread, not its process. To refuse would
        // be odd; then all threads are equal, as they are elsewhere.
        let _refused = rustix::process::setpriority_process(None, i32::from(by.min(19)));
    }
    #[cfg(not(target_os = "linux"))]
    let _nothing = by;
}

/// Does `work` on a thread that yields the CPU to others, by 0 to 19, as do the
/// threads that it starts.
///
/// # Errors
/// When there can be no such thread; then nothing was done.
///
/// # Panics
/// When `work` does.
pub fn yielding<T: Send>(by: u8, work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("yielding".to_owned()).spawn_scoped(scope, || {
            yield_to_others(by);
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_that_are_allowed_can_be_opened() {
        let most = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, most);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_yields_alone() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        let after = std::thread::spawn(move || {
            yield_to_others(7);
            priority()
        });
        // The system returns 20 less the nice value, or the value itself: both
        // are told apart from what was.
        assert_ne!(after.join().unwrap(), before);
        assert_eq!(priority(), before);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_done_yielding_yields_with_the_threads_it_starts() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let own = nice();
        let seen = yielding(18, || (nice(), std::thread::spawn(nice).join().unwrap())).unwrap();
        assert_ne!(seen.0, own);
        assert_eq!(seen.0, seen.1);
        assert_eq!(nice(), own, "this thread does not");
    }
}
