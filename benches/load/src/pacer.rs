//! Waits for a moment, to some ten microseconds.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

/// Waits for moments. The runtime's own timer counts in milliseconds, which is
/// longer than many answers take; on Linux a timer of the kernel wakes the same
/// event loop as the sockets do.
#[derive(Debug)]
pub(crate) struct Pacer {
    #[cfg(target_os = "linux")]
    timer: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
}

/// Below this the loop goes round once more instead of waiting.
const TOO_SHORT: Duration = Duration::from_micros(5);

impl Pacer {
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // The replacement is unsafe; an owned descriptor keeps what it asks for.
        #[expect(deprecated, reason = "sound for a descriptor that we own and never replace")]
        let timer = tokio::io::unix::AsyncFd::new(timer)?;
        Ok(Self { timer })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits until `moment`.
    ///
    /// # Cancel safety
    /// May be dropped and begun again.
    #[cfg(target_os = "linux")]
    pub(crate) async fn until(&mut self, moment: Instant) {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let wait = moment.saturating_duration_since(Instant::now());
        if wait < TOO_SHORT {
            tokio::task::yield_now().await;
            return;
        }
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let spec = Itimerspec { it_interval: none, it_value: value };
        // Setting it also forgets an earlier expiry.
        let set = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec);
        let mut bytes = [0; 8];
        while set.is_ok() {
            let Ok(mut ready) = self.timer.readable().await else { break };
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut bytes)?));
            if matches!(read, Ok(Ok(_))) {
                return;
            }
        }
        tokio::time::sleep_until(moment).await;
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn until(&mut self, moment: Instant) {
        let wait = moment.saturating_duration_since(Instant::now());
        if wait < TOO_SHORT {
            tokio::task::yield_now().await;
            return;
        }
        tokio::time::sleep_until(moment).await;
    }
}
