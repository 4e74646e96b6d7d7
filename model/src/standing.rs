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

/// How long what a leaf says of itself is worth something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// What it says of how long it works on one, in seconds: one that was slow is
    /// asked again, and tells what it is now.
    pub service_lasts: f64,
    /// What it says of its queue, in times that it takes to work that queue off.
    /// Who seems less loaded is asked, and who is not asked does not tell that
    /// its queue is gone: otherwise a chance of long ago would decide. Not longer
    /// than `service_lasts`.
    pub queue_lasts: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { service_lasts: 10.0, queue_lasts: 30.0 }
    }
}

/// What a leaf reports of itself with an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Calls that run or are queued there, of all roots.
    pub in_flight: f64,
    /// How long it works on one, in seconds; 0 where it does not know.
    pub service: f64,
}

/// What speaks against a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It owes an answer for longer than usual.
    Late,
    /// It stands still.
    Silent,
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
    /// When the ping that is under way was sent.
    pinged: Option<f64>,
    /// When it last gave a sign of life.
    heard: f64,
    /// Asked last until then, and on trial after that.
    failed: Option<(f64, Doubt)>,
    reported: Reported,
}

/// The figures that a leaf reported, each by its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reported {
    /// In flight for other roots.
    others: Figure,
    service: Figure,
    /// When it reported last.
    since: f64,
}

/// A figure that is reported again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Figure {
    /// The reports' weights together: 0 at first, and nearer to 1 with each.
    weight: f64,
    /// The reports, each by its weight.
    sum: f64,
}

impl Figure {
    fn note(&mut self, report: f64) {
        self.weight += NEWEST * (1.0 - self.weight);
        self.sum += NEWEST * (report - self.sum);
    }

    fn add(&mut self, other: Self) {
        self.weight += other.weight;
        self.sum += other.sum;
    }

    fn faded(self, to: f64) -> Self {
        Self { weight: self.weight * to, sum: self.sum * to }
    }

    /// What it is, where something else is usual.
    fn beside(&self, usual: f64) -> f64 {
        self.sum + (1.0 - self.weight) * usual
    }

    fn mean(&self, otherwise: f64) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { otherwise }
    }
}

impl Reported {
    /// What it is worth at `now`.
    fn at(mut self, now: f64, settings: &Settings) -> Self {
        let drained = self.service.mean(1.0) * (1.0 + self.others.mean(0.0));
        let age = (now - self.since).max(0.0);
        // One that took long may not take as long now.
        self.others = self
            .others
            .faded((-age / (settings.queue_lasts * drained).clamp(1e-6, settings.service_lasts)).exp());
        self.service = self.service.faded((-age / settings.service_lasts).exp());
        self
    }
}

/// Of the figures that a leaf reports, the newest weighs this much, and what
/// was there before it the rest: older reports, and before all of them what is
/// usual. One that has just come and is idle by chance would otherwise be
/// overrun.
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
    pub fn answered(&mut self, now: f64, report: Option<Report>, settings: &Settings) {
        (self.late, self.failed) = (false, None);
        // It was on its way perhaps when the leaf stopped: a pong that comes long
        // after that must not keep anybody from asking again.
        if self.silent {
            self.pinged = None;
        }
        (self.silent, self.heard) = (false, now);
        // What is reported contained this root's own, without the one answered.
        if let Some(report) = report {
            self.reported(now, report, self.unanswered.saturating_sub(1), settings);
        }
    }

    /// Whether to ping it: nothing was heard from it for so long, and no ping is
    /// under way. If so, one is now.
    pub fn ping(&mut self, now: f64, quiet: f64) -> bool {
        let due = self.pinged.is_none() && now - self.heard > quiet;
        if due {
            self.pinged = Some(now);
        }
        due
    }

    /// Notes that the ping sent at `begun` had no answer so far. Whether it
    /// stands still: nothing else was heard since either.
    pub fn falls_silent(&mut self, begun: f64) -> bool {
        self.silent |= self.pinged == Some(begun) && self.heard <= begun;
        self.silent
    }

    /// Notes the answer to a ping.
    pub fn pong(&mut self, now: f64, report: Report, settings: &Settings) {
        (self.silent, self.heard) = (false, now);
        self.reported(now, report, self.unanswered, settings);
    }

    /// Notes that the ping sent at `begun` is over, however; whether it was the
    /// newest.
    pub fn ping_ends(&mut self, begun: f64) -> bool {
        let newest = self.pinged == Some(begun);
        if newest {
            (self.pinged, self.silent) = (None, false);
        }
        newest
    }

    /// Whether it stands still.
    #[must_use]
    pub fn silent(&self) -> bool {
        self.silent
    }

    fn reported(&mut self, now: f64, report: Report, own: usize, settings: &Settings) {
        let mut reported = self.reported.at(now, settings);
        reported.others.note((report.in_flight - own as f64).max(0.0));
        // One that has just begun does not know.
        if report.service > 0.0 {
            reported.service.note(report.service);
        }
        reported.since = now;
        self.reported = reported;
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

    /// Notes what speaks against it: it is asked last until then. That it is late
    /// says less than what is known already.
    pub fn failed(&mut self, now: f64, until: f64, why: Doubt) {
        let known = self.failed.is_some_and(|(until, known)| now < until && known != Doubt::Late);
        if !(known && why == Doubt::Late) {
            self.failed = Some((until, why));
        }
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
            _ if self.silent => Some(Doubt::Silent),
            Some((until, why)) => (now < until || self.unanswered > 0).then_some(why),
            None => (self.late && self.unanswered > 0).then_some(Doubt::Late),
        }
    }

    /// Whether something speaks against it that one answer would settle.
    #[must_use]
    pub fn on_trial(&self) -> bool {
        self.late || self.silent || self.failed.is_some()
    }

    /// What it has to do, and how long it takes for each, where it said so.
    #[must_use]
    pub fn load(&self, now: f64, settings: &Settings) -> Load {
        Load { own: self.unanswered as f64, reported: self.reported.at(now, settings) }
    }
}

/// How loaded a leaf is, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    own: f64,
    reported: Reported,
}

impl Load {
    /// The time after which each leaf would answer one more call, of leaves
    /// between which one is chosen. One that has said nothing is taken to be as
    /// the others are on average, and one that has said little nearly so.
    pub fn compare(loads: &mut [(Self, &mut f64)]) {
        let mut all = Reported::default();
        for (load, _) in loads.iter() {
            all.others.add(load.reported.others);
            all.service.add(load.reported.service);
        }
        let (others, service) = (all.others.mean(0.0), all.service.mean(1.0));
        for (Self { own, reported }, to) in loads {
            // A leaf that answers in no time is not infinitely good.
            let each = reported.service.beside(service).max(service / 10.0).max(1e-6);
            **to = (*own + reported.others.beside(others) + 1.0) * each;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: &Settings = &Settings { service_lasts: 10.0, queue_lasts: 30.0 };

    fn report(in_flight: f64) -> Report {
        Report { in_flight, service: 0.001 }
    }

    #[test]
    fn a_late_leaf_is_good_again_with_any_answer() {
        let mut leaf = Standing::default();
        (0..2).for_each(|_| leaf.sent());
        assert!(leaf.is_late() && !leaf.is_late());
        assert_eq!(leaf.doubt(0.0), Some(Doubt::Late));
        leaf.answered(0.0, None, LASTS);
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
        assert_eq!(leaf.doubt(0.0), Some(Doubt::Late));
    }

    #[test]
    fn one_that_failed_is_left_alone_for_a_while_and_then_tried() {
        let mut leaf = Standing::default();
        leaf.failed(0.0, 3.0, Doubt::Refused);
        leaf.failed(0.0, 4.0, Doubt::Late);
        assert_eq!([2.9, 3.0].map(|now| leaf.doubt(now)), [Some(Doubt::Refused), None]);
        leaf.sent();
        assert_eq!(leaf.doubt(3.0), Some(Doubt::Refused));
        leaf.answered(0.0, None, LASTS);
        assert_eq!(leaf.doubt(3.0), None);
    }

    #[test]
    fn a_leaf_without_a_pong_is_silent_until_its_pong() {
        let mut leaf = Standing::default();
        leaf.sent();
        leaf.answered(1.0, None, LASTS);
        // Heard a moment ago.
        assert!(!leaf.ping(1.5, 1.0));
        assert!(leaf.ping(2.5, 1.0) && !leaf.ping(2.6, 0.0), "one at a time");
        assert!(leaf.falls_silent(2.5));
        assert!(leaf.silent() && leaf.doubt(3.0) == Some(Doubt::Silent) && leaf.on_trial());
        assert_eq!(leaf.stretched(4.0), 0.0);
        leaf.pong(4.0, report(1.0), LASTS);
        assert!(leaf.ping_ends(2.5));
        assert!(!leaf.silent() && leaf.doubt(4.0).is_none() && !leaf.ping(4.5, 1.0));
        // What comes too late changes nothing.
        assert!(!leaf.falls_silent(2.5));
        // An answer does as well; and it is pinged again if that was its last.
        assert!(leaf.ping(9.0, 1.0) && leaf.falls_silent(9.0));
        leaf.answered(9.5, None, LASTS);
        assert!(!leaf.silent());
        assert!(leaf.ping(11.0, 1.0) && leaf.falls_silent(11.0));
        assert!(!leaf.ping_ends(9.0) && leaf.silent(), "the old one's end says nothing");
        assert!(leaf.ping_ends(11.0) && !leaf.silent());
        // Who was heard in the meantime does not stand still.
        assert!(leaf.ping(13.0, 1.0));
        leaf.answered(13.5, None, LASTS);
        assert!(!leaf.falls_silent(13.0) && leaf.ping_ends(13.0));
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
        let mut loads: Vec<_> =
            leaves.iter().map(|leaf| leaf.load(0.0, LASTS)).zip(times.iter_mut()).collect();
        Load::compare(&mut loads);
        drop(loads);
        times
    }

    #[test]
    fn load_is_what_others_ask_and_what_is_owed_here() {
        let (mut busy, mut idle, unknown) = (Standing::default(), Standing::default(), Standing::default());
        (0..3).for_each(|_| busy.sent());
        // Often enough for what they say to be known well.
        for _ in 0..100 {
            // Three of the eleven are this root's own.
            busy.sent();
            busy.answered(0.0, Some(report(11.0)), LASTS);
            busy.ended();
            idle.sent();
            idle.answered(0.0, Some(report(0.0)), LASTS);
            idle.ended();
        }
        let times = compared(&[busy, idle, unknown]);
        assert!((times[0] - 0.012).abs() < 1e-9, "{times:?}");
        assert!((times[1] - 0.001).abs() < 1e-9, "{times:?}");
        // Neither flooded nor left alone.
        assert!((times[2] - 0.005).abs() < 1e-9, "{times:?}");
        assert_eq!(compared(&[unknown, unknown]), [1.0, 1.0]);
    }

    #[test]
    fn who_has_said_little_is_taken_to_be_nearly_as_the_others() {
        let said = |in_flight, times| {
            let mut leaf = Standing::default();
            (0..times).for_each(|_| leaf.pong(0.0, report(in_flight), LASTS));
            leaf
        };
        let times: Vec<f64> =
            (0..5).map(|times| compared(&[said(0.0, times), said(4.0, 100), said(4.0, 100)])[0]).collect();
        // The others' 5 ms at first, and then down to its own 1 ms.
        assert!((times[0] - 0.005).abs() < 1e-9, "{times:?}");
        assert!(times.is_sorted_by(|a, b| a > b) && times[1] > 0.003 && times[4] < 0.002, "{times:?}");
    }

    #[test]
    fn what_was_said_of_a_queue_fades() {
        let (mut busy, mut idle) = (Standing::default(), Standing::default());
        (0..100).for_each(|_| busy.pong(1.0, report(9.0), LASTS));
        (0..100).for_each(|_| idle.pong(2.0, report(1.0), LASTS));
        // Ten calls of a millisecond: worth something for a third of a second.
        let times: Vec<f64> = [1.0, 1.3, 2.0, 9.0]
            .iter()
            .map(|now| {
                let mut times = [0.0, 0.0];
                let [busy_time, idle_time] = &mut times;
                Load::compare(&mut [(busy.load(*now, LASTS), busy_time), (idle.load(2.0, LASTS), idle_time)]);
                times[0] / times[1]
            })
            .collect();
        assert!((times[0] - 5.0).abs() < 1e-9, "{times:?}");
        assert!(times.is_sorted_by(|a, b| a > b) && times[1] > 2.0 && times[3] < 1.001, "{times:?}");
        // How long it takes for each is remembered, though not for ever.
        let mut slow = Standing::default();
        (0..100).for_each(|_| slow.pong(0.0, Report { in_flight: 0.0, service: 0.01 }, LASTS));
        let mut slower = |now: f64| {
            idle.pong(now, report(1.0), LASTS);
            let mut times = [0.0, 0.0];
            let [slow_time, idle_time] = &mut times;
            Load::compare(&mut [(slow.load(now, LASTS), slow_time), (idle.load(now, LASTS), idle_time)]);
            times[0] / times[1]
        };
        let times: Vec<f64> = [1.0, 10.0, 60.0].into_iter().map(&mut slower).collect();
        assert!(times[0] > 4.0 && (2.0..4.0).contains(&times[1]) && times[2] < 1.1, "{times:?}");
        // One that was slow and full is asked again as soon.
        let mut stuck = Standing::default();
        (0..100).for_each(|_| stuck.pong(0.0, Report { in_flight: 20.0, service: 1.0 }, LASTS));
        (0..100).for_each(|_| idle.pong(120.0, report(1.0), LASTS));
        let mut times = [0.0, 0.0];
        let [stuck_time, idle_time] = &mut times;
        Load::compare(&mut [(stuck.load(120.0, LASTS), stuck_time), (idle.load(120.0, LASTS), idle_time)]);
        assert!(times[0] / times[1] < 2.0, "{times:?}");
    }
}
