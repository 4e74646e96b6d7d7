//! How fast refusals leave.
//!
//! A refusal is cheap, and whoever comes back at once, against what it says,
//! makes many of them: enough to take the CPU of those who answer. So beyond a
//! rate they wait: a client that comes back without a pause waits instead of
//! asking. By the generic cell rate algorithm (ITU-T I.371).
//!
//! **Invariant:** below the rate nobody waits, and nobody longer than `most`.

use std::time::Duration;

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Refusals a second of each core: one costs some 50 µs, and so a twentieth
    /// of it.
    pub rate: f64,
    /// For how long what was not refused before may be refused on top.
    pub burst: Duration,
    /// The longest wait: what is told to the refused anyway.
    pub most: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rate: 1_000.0, burst: Duration::from_millis(100), most: Duration::from_secs(1) }
    }
}

/// Refusals so far. It has no clock: times are counted from any one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When the next one may leave, at the rate.
    due: Duration,
}

impl Pace {
    /// How long one more waits.
    pub fn wait(&mut self, now: Duration, cores: usize, settings: &Settings) -> Duration {
        let rate = (settings.rate * cores.max(1) as f64).max(1e-3);
        let wait = self.due.saturating_sub(now).min(settings.most);
        let begin = self.due.max(now.saturating_sub(settings.burst));
        self.due = (begin + Duration::from_secs_f64(1.0 / rate)).min(now + settings.most);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn below_the_rate_nobody_waits() {
        let (mut pace, settings) = (Pace::default(), Settings::default());
        for number in 0..10_000 {
            assert_eq!(pace.wait(MS * 1_000 + MS * number, 1, &settings), Duration::ZERO, "{number}");
        }
        // Nor in a burst, whose size grows with the cores.
        for cores in [1, 4] {
            let mut pace = Pace::default();
            let at_once = (0..1_000).filter(|_| pace.wait(MS * 5_000, cores, &settings).is_zero()).count();
            assert!((at_once as i64 - 100 * cores as i64).abs() <= 1, "{at_once}");
        }
    }

    #[test]
    fn who_comes_back_at_once_comes_at_the_rate_and_nobody_waits_longer_than_is_said() {
        let (mut pace, settings) = (Pace::default(), Settings::default());
        // Each of thirty comes back when it was refused.
        let mut clients = [Duration::ZERO; 30];
        let mut refused = 0;
        while let Some(next) = clients.iter_mut().min().filter(|next| **next < MS * 10_000) {
            *next += pace.wait(*next, 1, &settings) + MS / 20;
            refused += 1;
        }
        assert!((10_000..10_300).contains(&refused), "{refused}");
        let waits: Vec<Duration> = (0..9_999).map(|_| pace.wait(MS * 20_000, 1, &settings)).collect();
        assert_eq!(waits.last(), Some(&settings.most));
        assert!(waits.iter().all(|wait| *wait <= settings.most));
    }
}
