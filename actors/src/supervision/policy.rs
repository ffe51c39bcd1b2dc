//! When to restart which children, after how long, and when to stop trying: OTP's rules, as pure functions.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// Whom a failed child takes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nobody: the children are independent.
    OneForOne,
    /// Those started after it: they may have taken something from it.
    RestForOne,
}

impl Strategy {
    /// The children to start again, in this order, when the one at `failed` of `count` ended.
    #[must_use]
    pub fn affected(self, failed: usize, count: usize) -> Range<usize> {
        match self {
            Self::OneForOne => failed..(failed + 1).min(count),
            Self::RestForOne => failed..count,
        }
    }
}

/// At most `restarts` within `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are still normal.
    pub restarts: usize,
    /// The window they are counted in.
    pub period: Duration,
}

/// How long to wait before a restart: the first one is at once, each further one within the period waits twice
/// as long as the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second restart of a period.
    pub first: Duration,
    /// Never longer than this.
    pub longest: Duration,
}

impl Backoff {
    /// The wait before the restart that follows `earlier` ones of the same period.
    #[must_use]
    pub fn wait(self, earlier: usize) -> Duration {
        match u32::try_from(earlier).unwrap_or(u32::MAX).checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
                self.first.saturating_mul(factor).min(self.longest)
            }
        }
    }
}

/// What to do about a child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again; so many restarts of this period came before.
    Restart {
        /// Restarts of this period before this one.
        earlier: usize,
    },
    /// It fails too often: starting it again would only repeat the fault.
    GiveUp,
}

/// The restarts of the last period. Times are counted from any fixed moment.
#[derive(Debug, Clone, Default)]
pub struct RestartLog {
    restarts: VecDeque<Duration>,
}

impl RestartLog {
    /// Decides about a failure at `now`, which must not go backwards.
    pub fn decide(&mut self, now: Duration, intensity: Intensity) -> Verdict {
        let earlier = self.count(now, intensity);
        self.restarts.drain(..self.restarts.len() - earlier);
        if earlier >= intensity.restarts {
            return Verdict::GiveUp;
        }
        self.restarts.push_back(now);
        Verdict::Restart { earlier }
    }

    /// Restarts within the period before `now`.
    #[must_use]
    pub fn count(&self, now: Duration, intensity: Intensity) -> usize {
        let horizon = now.saturating_sub(intensity.period);
        self.restarts.iter().filter(|at| **at >= horizon).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prop_assert, proptest};

    const FIVE_A_MINUTE: Intensity = Intensity { restarts: 5, period: Duration::from_secs(60) };

    #[test]
    fn the_sixth_failure_within_a_minute_ends_it() {
        let mut log = RestartLog::default();
        for second in 0..5 {
            let earlier = usize::try_from(second).unwrap();
            let restart = Verdict::Restart { earlier };
            assert_eq!(log.decide(Duration::from_secs(second), FIVE_A_MINUTE), restart);
        }
        assert_eq!(log.decide(Duration::from_secs(5), FIVE_A_MINUTE), Verdict::GiveUp);
        let restart = Verdict::Restart { earlier: 4 };
        assert_eq!(log.decide(Duration::from_secs(61), FIVE_A_MINUTE), restart);
    }

    #[test]
    fn the_first_restart_is_at_once_and_each_further_one_waits_twice_as_long() {
        let backoff =
            Backoff { first: Duration::from_millis(50), longest: Duration::from_millis(300) };
        let waits = [0, 1, 2, 3, 4, 5, 1_000].map(|earlier| backoff.wait(earlier).as_millis());
        assert_eq!(waits, [0, 50, 100, 200, 300, 300, 300]);
    }

    #[test]
    fn a_failed_child_takes_those_started_after_it_along_or_nobody() {
        assert_eq!(Strategy::OneForOne.affected(1, 4), 1..2);
        assert_eq!(Strategy::RestForOne.affected(1, 4), 1..4);
        assert_eq!(Strategy::RestForOne.affected(3, 4), 3..4);
    }

    proptest! {
        #[test]
        fn never_more_restarts_than_the_intensity_in_any_window(
            gaps in proptest::collection::vec(0_u64..30, 1..60),
        ) {
            let mut log = RestartLog::default();
            let mut now = Duration::ZERO;
            let mut granted: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += Duration::from_secs(gap);
                if log.decide(now, FIVE_A_MINUTE) != Verdict::GiveUp {
                    granted.push(now);
                }
            }
            for window in granted.windows(FIVE_A_MINUTE.restarts + 1) {
                prop_assert!(window[FIVE_A_MINUTE.restarts] - window[0] > FIVE_A_MINUTE.period);
            }
        }
    }
}
