//! What a root knows of one leaf: how loaded it is, and what speaks against it.
//!
//! ```text
//!  good ─┬─ a call is late ──► late ── any answer ──► good
//!        │                       └─ no pong ──► silent ── pong, any answer ──► good
//!        └─ a call fails ──► failed ── time ──► on trial ── any answer ──► good
//! ```
//!
//! A late leaf is pinged: one that is only busy answers that at once, and one
//! that does not stands still. Nobody waits for a silent leaf, and none is asked
//! less willingly; its pong is the way back. A late leaf is asked last while it
//! owes an answer. One that owes nothing any more, and one whose time is over,
//! is on trial: it gets one real call at a time, which is hedged like any other.
//!
//! Moments are seconds since some beginning.

/// What a leaf reports of itself with an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Calls that run or are queued there, of all roots.
    pub in_flight: f64,
    /// How long it works on one, in seconds.
    pub service: f64,
}

/// What speaks against a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It owes an answer for too long, or stands still.
    Slow,
    /// It had too much to do.
    Refused,
    /// It could not be reached, or broke.
    Failed,
}

/// One leaf, as one root sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Standing {
    /// Sends without an answer.
    unanswered: usize,
    late: bool,
    silent: bool,
    /// Whether a ping is under way.
    pinged: bool,
    /// When it last gave a sign of life.
    heard: f64,
    /// Asked last until then, and on trial after that.
    failed: Option<(f64, Doubt)>,
    reported: Option<Reported>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Reported {
    /// In flight for other roots.
    others: f64,
    service: f64,
}

/// Of the figures that a leaf reports, the newest weighs this much.
const NEWEST: f64 = 0.3;

impl Standing {
    /// Notes that a call was sent.
    pub fn sent(&mut self) {
        self.unanswered += 1;
    }

    /// Notes that a call has ended, however.
    pub fn ended(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// Notes an answer; the call itself has not [ended](Self::ended) yet.
    pub fn answered(&mut self, now: f64, report: Option<Report>) {
        (self.late, self.failed) = (false, None);
        (self.silent, self.heard) = (false, now);
        // What is reported contained this root's own, without the one answered.
        if let Some(report) = report {
            self.reported(report, self.unanswered.saturating_sub(1));
        }
    }

    /// Whether to ping it: nothing was heard from it for so long, and no ping is
    /// under way. If so, one is now.
    pub fn ping(&mut self, now: f64, quiet: f64) -> bool {
        let due = !self.pinged && now - self.heard > quiet;
        self.pinged |= due;
        due
    }

    /// Notes that the ping had no answer so far.
    pub fn falls_silent(&mut self) {
        self.silent = self.pinged;
    }

    /// Notes the end of the ping, and what the answer said.
    pub fn pong(&mut self, now: f64, report: Option<Report>) {
        self.pinged = false;
        self.silent = false;
        let Some(report) = report else { return };
        self.heard = now;
        self.reported(report, self.unanswered);
    }

    /// Whether it stands still.
    #[must_use]
    pub fn silent(&self) -> bool {
        self.silent
    }

    fn reported(&mut self, report: Report, own: usize) {
        let others = (report.in_flight - own as f64).max(0.0);
        let old = self.reported.unwrap_or(Reported { others, service: report.service });
        self.reported = Some(Reported {
            others: old.others + NEWEST * (others - old.others),
            service: old.service + NEWEST * (report.service - old.service),
        });
    }

    /// Notes that a call takes too long; whether it was not late before.
    pub fn is_late(&mut self) -> bool {
        !std::mem::replace(&mut self.late, true)
    }

    /// How many times its usual time a call may take, of which one alone may
    /// take `stretch` times: that several are late by chance is less likely,
    /// and nobody waits for a leaf that stands still.
    #[must_use]
    pub fn stretched(&self, stretch: f64) -> f64 {
        if self.silent { 0.0 } else { stretch.powf(1.0 / self.unanswered.max(1) as f64) }
    }

    /// Notes a failure: it is asked last until then.
    pub fn failed(&mut self, until: f64, why: Doubt) {
        self.failed = Some((until, why));
    }

    /// Sends without an answer.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Why others are asked before it, if they are.
    #[must_use]
    pub fn doubt(&self, now: f64) -> Option<Doubt> {
        match self.failed {
            _ if self.silent => Some(Doubt::Slow),
            Some((until, why)) => (now < until || self.unanswered > 0).then_some(why),
            None => (self.late && self.unanswered > 0).then_some(Doubt::Slow),
        }
    }

    /// Whether something speaks against it that one answer would settle.
    #[must_use]
    pub fn on_trial(&self) -> bool {
        self.late || self.silent || self.failed.is_some()
    }

    /// What it has to do, and how long it takes for each, where it said so.
    #[must_use]
    pub fn load(&self) -> Load {
        Load { own: self.unanswered as f64, reported: self.reported.map(|it| (it.others, it.service)) }
    }
}

/// How loaded a leaf is, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    own: f64,
    reported: Option<(f64, f64)>,
}

impl Load {
    /// The time after which each leaf would answer one more call, of leaves
    /// between which one is chosen. One that has said nothing is taken to be as
    /// the others are on average.
    pub fn compare(loads: &mut [(Self, &mut f64)]) {
        let known = loads.iter().filter_map(|(load, _)| load.reported);
        let (count, others, service) = known
            .fold((0.0, 0.0, 0.0), |(count, others, service), (o, s)| (count + 1.0, others + o, service + s));
        let usual = if count > 0.0 { (others / count, service / count) } else { (0.0, 1.0) };
        for (load, to) in loads {
            let (others, service) = load.reported.unwrap_or(usual);
            // A leaf that answers in no time is not infinitely good.
            let service = service.max(usual.1 / 10.0).max(1e-6);
            **to = (load.own + others + 1.0) * service;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(in_flight: f64) -> Option<Report> {
        Some(Report { in_flight, service: 0.001 })
    }

    #[test]
    fn a_late_leaf_is_good_again_with_any_answer() {
        let mut leaf = Standing::default();
        (0..2).for_each(|_| leaf.sent());
        assert!(leaf.is_late() && !leaf.is_late());
        assert_eq!(leaf.doubt(0.0), Some(Doubt::Slow));
        leaf.answered(0.0, None);
        leaf.ended();
        assert!(leaf.doubt(0.0).is_none() && !leaf.on_trial());
    }

    #[test]
    fn one_that_was_late_and_owes_nothing_gets_one_call_at_a_time() {
        let mut leaf = Standing::default();
        leaf.sent();
        leaf.is_late();
        leaf.ended();
        assert!(leaf.on_trial() && leaf.doubt(0.0).is_none());
        leaf.sent();
        assert_eq!(leaf.doubt(0.0), Some(Doubt::Slow));
    }

    #[test]
    fn one_that_failed_is_left_alone_for_a_while_and_then_tried() {
        let mut leaf = Standing::default();
        leaf.failed(3.0, Doubt::Refused);
        assert_eq!([2.9, 3.0].map(|now| leaf.doubt(now)), [Some(Doubt::Refused), None]);
        leaf.sent();
        assert_eq!(leaf.doubt(3.0), Some(Doubt::Refused));
        leaf.answered(0.0, None);
        assert_eq!(leaf.doubt(3.0), None);
    }

    #[test]
    fn a_leaf_without_a_pong_is_silent_until_its_pong() {
        let mut leaf = Standing::default();
        leaf.sent();
        leaf.answered(1.0, None);
        // Heard a moment ago.
        assert!(!leaf.ping(1.5, 1.0));
        assert!(leaf.ping(2.5, 1.0) && !leaf.ping(2.6, 0.0), "one at a time");
        leaf.falls_silent();
        assert!(leaf.silent() && leaf.doubt(3.0).is_some() && leaf.on_trial());
        assert_eq!(leaf.stretched(4.0), 0.0);
        leaf.pong(4.0, report(1.0));
        assert!(!leaf.silent() && leaf.doubt(4.0).is_none() && !leaf.ping(4.5, 1.0));
        // What comes too late changes nothing.
        leaf.falls_silent();
        assert!(!leaf.silent());
        // An answer does as well.
        assert!(leaf.ping(9.0, 1.0));
        leaf.falls_silent();
        leaf.answered(9.5, None);
        assert!(!leaf.silent());
    }

    #[test]
    fn several_late_calls_are_less_likely_chance_than_one() {
        let mut leaf = Standing::default();
        leaf.sent();
        assert_eq!(leaf.stretched(4.0), 4.0);
        leaf.sent();
        assert_eq!(leaf.stretched(4.0), 2.0);
    }

    fn compared(leaves: &[Standing]) -> Vec<f64> {
        let mut times = vec![0.0; leaves.len()];
        let mut loads: Vec<_> = leaves.iter().map(Standing::load).zip(times.iter_mut()).collect();
        Load::compare(&mut loads);
        drop(loads);
        times
    }

    #[test]
    fn load_is_what_others_ask_and_what_is_owed_here() {
        let (mut busy, mut idle, unknown) = (Standing::default(), Standing::default(), Standing::default());
        (0..4).for_each(|_| busy.sent());
        // Three of the eleven are this root's own.
        busy.answered(0.0, report(11.0));
        busy.ended();
        idle.sent();
        idle.answered(0.0, report(0.0));
        idle.ended();
        let times = compared(&[busy, idle, unknown]);
        assert!((times[0] - 0.012).abs() < 1e-9, "{times:?}");
        assert!((times[1] - 0.001).abs() < 1e-9, "{times:?}");
        // Neither flooded nor left alone.
        assert!(times[1] < times[2] && times[2] < times[0], "{times:?}");
        assert_eq!(compared(&[unknown, unknown]), [1.0, 1.0]);
    }
}
