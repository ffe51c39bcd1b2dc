//! How often a plugin may fail: restarts with back-off, then quarantine. A pure function of what failed when.
//!
//! ```text
//! unwell ──▶ restart due ──wait over──▶ restarting ──▶ well
//!    └─ spent: quarantine
//! load failed (same image) ×3, none good between ──▶ quarantine
//! ```
//!
//! One policy for all tiers: a failed health check, a hang and a crash count alike.

use std::collections::BTreeMap;
use std::time::Duration;

use themis_messages::ids::{Digest, GenerationId};
use themis_messages::limits::{
    FAILED_LOADS_MAX, PLUGIN_RESTART_PERIOD, PLUGIN_RESTART_WAIT_FIRST,
    PLUGIN_RESTART_WAIT_LONGEST, PLUGIN_RESTARTS_MAX,
};

use crate::supervision::policy::{Backoff, Intensity, RestartLog, Verdict};

/// How often, and how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Restarts that are still tried.
    pub intensity: Intensity,
    /// Wait before the first restart; each further one waits twice as long.
    pub wait_first: Duration,
    /// The longest wait.
    pub wait_longest: Duration,
    /// Loads of one image that may fail one after the other.
    pub failed_loads: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            intensity: Intensity { restarts: PLUGIN_RESTARTS_MAX, period: PLUGIN_RESTART_PERIOD },
            wait_first: PLUGIN_RESTART_WAIT_FIRST,
            wait_longest: PLUGIN_RESTART_WAIT_LONGEST,
            failed_loads: FAILED_LOADS_MAX,
        }
    }
}

/// What to do about a plugin that is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A restart of this generation is due already.
    Wait,
    /// Start it again.
    Restart {
        /// Its how manieth restart of the period, from 1.
        attempt: usize,
        /// After this long.
        wait: Duration,
    },
    /// It was restarted as often as it may be.
    Quarantine {
        /// How often.
        restarts: usize,
    },
}

/// The failures of one plugin.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    restarts: RestartLog,
    /// The generation whose restart is due.
    due: Option<GenerationId>,
    failed_loads: BTreeMap<Digest, u32>,
}

impl Failures {
    /// A generation is not well, at `now` counted from any fixed moment.
    pub fn unwell(&mut self, rules: &Rules, generation: GenerationId, now: Duration) -> Decision {
        if self.due == Some(generation) {
            return Decision::Wait;
        }
        match self.restarts.decide(now, rules.intensity) {
            Verdict::Restart { earlier } => {
                self.due = Some(generation);
                let backoff = Backoff { first: rules.wait_first, longest: rules.wait_longest };
                Decision::Restart { attempt: earlier + 1, wait: backoff.wait(earlier + 1) }
            }
            Verdict::GiveUp => Decision::Quarantine { restarts: rules.intensity.restarts },
        }
    }

    /// The wait is over; whether this generation is still the one to restart.
    pub fn take_due(&mut self, generation: GenerationId) -> bool {
        let is_due = self.due == Some(generation);
        if is_due {
            self.due = None;
        }
        is_due
    }

    /// A load of this image failed; whether that was once too often.
    pub fn load_failed(&mut self, rules: &Rules, digest: Digest) -> bool {
        let failed = self.failed_loads.entry(digest).or_default();
        *failed += 1;
        *failed >= rules.failed_loads
    }

    /// A load of this image succeeded.
    pub fn loaded(&mut self, digest: Digest) {
        self.failed_loads.remove(&digest);
        self.due = None;
    }

    /// The image is released from quarantine: it starts with a clean record.
    pub fn forgive(&mut self, digest: Digest) {
        self.failed_loads.remove(&digest);
        self.restarts = RestartLog::default();
    }

    /// Restarts within the period before `now`.
    #[must_use]
    pub fn restarts(&self, rules: &Rules, now: Duration) -> usize {
        self.restarts.count(now, rules.intensity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_plugin_that_stays_unwell_is_restarted_five_times_and_then_quarantined() {
        let rules = Rules::default();
        let mut failures = Failures::default();
        let mut trace = String::new();
        let mut now = at(0);
        for generation in (1..).map(GenerationId) {
            let decision = failures.unwell(&rules, generation, now);
            trace.push_str(&format!("{:>3} s {decision:?}\n", now.as_secs()));
            let Decision::Restart { wait, .. } = decision else { break };
            assert_eq!(failures.unwell(&rules, generation, now), Decision::Wait);
            assert!(failures.take_due(generation));
            now += wait;
        }
        expect![[r#"
              0 s Restart { attempt: 1, wait: 5s }
              5 s Restart { attempt: 2, wait: 10s }
             15 s Restart { attempt: 3, wait: 20s }
             35 s Restart { attempt: 4, wait: 40s }
             75 s Restart { attempt: 5, wait: 80s }
            155 s Quarantine { restarts: 5 }
        "#]]
        .assert_eq(&trace);
    }

    #[test]
    fn restarts_long_ago_do_not_count_and_no_wait_is_longer_than_the_longest() {
        let rules =
            Rules { intensity: Intensity { restarts: 20, period: at(10_000) }, ..Rules::default() };
        let mut failures = Failures::default();
        let mut waits = Vec::new();
        for round in 0..9 {
            let Decision::Restart { wait, .. } =
                failures.unwell(&rules, GenerationId(round), at(round))
            else {
                panic!("it may be restarted");
            };
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        let later = failures.unwell(&rules, GenerationId(99), at(20_000));
        assert_eq!(later, Decision::Restart { attempt: 1, wait: at(5) });
    }

    #[test]
    fn three_failed_loads_of_one_image_in_a_row_are_too_many() {
        let rules = Rules::default();
        let (bad, other) = (Digest([1; 32]), Digest([2; 32]));
        let mut failures = Failures::default();
        assert!(!failures.load_failed(&rules, bad));
        assert!(!failures.load_failed(&rules, other));
        assert!(!failures.load_failed(&rules, bad));
        failures.loaded(bad);
        assert!(!failures.load_failed(&rules, bad));
        assert!(!failures.load_failed(&rules, bad));
        assert!(failures.load_failed(&rules, bad));
        failures.forgive(bad);
        assert!(!failures.load_failed(&rules, bad));
    }
}
