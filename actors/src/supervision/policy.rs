//! When to restart a child and when to stop trying: OTP's intensity, as a pure function of time.

use std::collections::VecDeque;
use std::time::Duration;

/// At most `restarts` within `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are still normal.
    pub restarts: usize,
    /// The window they are counted in.
    pub period: Duration,
}

/// What to do about a child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again.
    Restart,
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
        let horizon = now.saturating_sub(intensity.period);
        while self.restarts.front().is_some_and(|at| *at < horizon) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= intensity.restarts {
            return Verdict::GiveUp;
        }
        self.restarts.push_back(now);
        Verdict::Restart
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIVE_A_MINUTE: Intensity = Intensity { restarts: 5, period: Duration::from_secs(60) };

    #[test]
    fn the_sixth_failure_within_a_minute_ends_it() {
        let mut log = RestartLog::default();
        for second in 0..5 {
            assert_eq!(log.decide(Duration::from_secs(second), FIVE_A_MINUTE), Verdict::Restart);
        }
        assert_eq!(log.decide(Duration::from_secs(5), FIVE_A_MINUTE), Verdict::GiveUp);
        assert_eq!(log.decide(Duration::from_secs(61), FIVE_A_MINUTE), Verdict::Restart);
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
                if log.decide(now, FIVE_A_MINUTE) == Verdict::Restart {
                    granted.push(now);
                }
            }
            for window in granted.windows(FIVE_A_MINUTE.restarts + 1) {
                prop_assert!(window[FIVE_A_MINUTE.restarts] - window[0] > FIVE_A_MINUTE.period);
            }
        }
    }
}
