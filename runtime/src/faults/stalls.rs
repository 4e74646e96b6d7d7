//! When a process stands still.
//!
//! ```text
//! ──gap──┤ stall ├───gap───┤ stall ├─gap─┤ …
//! ```
//!
//! No task runs it: whoever asks first after a stall's end draws the next one.

use std::time::Duration;

use tokio::time::Instant;

use super::spec::Stall;
use crate::{Distribution, Random};

/// The stall that is, or comes next.
pub(super) struct Stalls {
    stall: Stall,
    random: Random,
    begins: Instant,
}

impl Stalls {
    pub(super) fn new(stall: Stall, random: Random, now: Instant) -> Self {
        let mut stalls = Self { stall, random, begins: now };
        stalls.begins += stalls.gap();
        stalls
    }

    /// The end of the stall that holds at `now`; `None` between two.
    pub(super) fn end(&mut self, now: Instant) -> Option<Instant> {
        while now >= self.begins + self.stall.length.0 {
            self.begins += self.stall.length.0 + self.gap();
        }
        (now >= self.begins).then(|| self.begins + self.stall.length.0)
    }

    fn gap(&self) -> Duration {
        Distribution::Exponential(self.stall.every).draw(&mut || self.random.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duration::Text;

    const STALL: Stall =
        Stall { length: Text(Duration::from_millis(50)), every: Text(Duration::from_millis(450)) };

    #[test]
    fn a_stall_holds_until_its_own_end() {
        let start = Instant::now();
        let mut stalls = Stalls::new(STALL, Random::seeded(1), start);
        let begins = stalls.begins;
        assert_eq!(stalls.end(begins - Duration::from_nanos(1)), None);
        let end = begins + STALL.length.0;
        assert_eq!(stalls.end(begins), Some(end));
        assert_eq!(stalls.end(end - Duration::from_nanos(1)), Some(end));
        assert_ne!(stalls.end(end), Some(end));
    }

    #[test]
    fn stalls_take_their_share_of_the_time() {
        let start = Instant::now();
        let mut stalls = Stalls::new(STALL, Random::seeded(2), start);
        let looks = 1_000_000u32;
        let stalled =
            (0..looks).filter(|ms| stalls.end(start + Duration::from_millis((*ms).into())).is_some());
        let share = stalled.count() as f64 / f64::from(looks);
        assert!((0.09..0.11).contains(&share), "{share}");
    }
}
