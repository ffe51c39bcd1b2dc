//! What is watched while a new version is on probation, and what it has to show for itself.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::lifecycle::as_millis;
use crate::limits::{
    PROBATION_ERROR_PERCENT, PROBATION_ERRORS_MIN, PROBATION_LATENCY_FACTOR,
    PROBATION_LATENCY_FLOOR, PROBATION_SAMPLES_MIN, PROBATION_STALL, PROBATION_WINDOW,
};

/// When a new version is swapped back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a version is watched. Zero settles every version at once.
    pub window: Duration,
    /// So many errors are needed before their rate counts.
    pub errors_min: u64,
    /// Percentage points the error rate may lie above that of the version before.
    pub error_percent: u64,
    /// How many times slower the ninth decile of latency may be than that of the version before.
    pub latency_factor: u64,
    /// Latency counts only when it grew by at least this much.
    pub latency_floor: Duration,
    /// So many timed calls of either version are needed before latency counts.
    pub samples_min: u64,
    /// Calls inside, of which none ends for so long, hang; or for four times as long as nine of ten took before.
    pub stall: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            window: PROBATION_WINDOW,
            errors_min: PROBATION_ERRORS_MIN,
            error_percent: PROBATION_ERROR_PERCENT,
            latency_factor: PROBATION_LATENCY_FACTOR,
            latency_floor: PROBATION_LATENCY_FLOOR,
            samples_min: PROBATION_SAMPLES_MIN,
            stall: PROBATION_STALL,
        }
    }
}

/// What was counted of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Calls made.
    pub calls: u64,
    /// Calls that ended in an error of any kind, faults and mistakes included.
    pub errors: u64,
    /// Calls that the plugin called its caller's mistake: unknown methods and bad requests.
    pub mistakes: u64,
    /// Calls that ended with a code outside the ABI, or with the death of what ran them.
    pub faults: u64,
    /// Calls that were timed.
    pub samples: u64,
    /// Nine of ten timed calls took at most this long, in nanoseconds, to a quarter of a power of two.
    pub p90_ns: u64,
    /// For how long calls have been inside without that one ended, in nanoseconds.
    pub stalled_ns: u64,
}

impl Tally {
    /// Errors among a thousand calls.
    #[must_use]
    pub fn errors_per_mille(&self) -> u64 {
        self.errors.saturating_mul(1_000).checked_div(self.calls).unwrap_or(0)
    }
}

/// Why a version was swapped back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It faults, and the version before did not.
    Faults,
    /// It fails more often than the version before.
    Errors,
    /// It is much slower than the version before.
    Latency,
    /// Its calls do not end.
    Hangs,
    /// Its health check failed.
    Health,
    /// Its process ended.
    Ended,
    /// Another member of the set it was reloaded with was swapped back.
    Set,
}

impl Fault {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Faults => "probation.faults",
            Self::Errors => "probation.errors",
            Self::Latency => "probation.latency",
            Self::Hangs => "probation.hangs",
            Self::Health => "probation.health",
            Self::Ended => "probation.ended",
            Self::Set => "probation.set",
        }
    }
}

/// What a probation has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Why the version was swapped back; `None` when it passed.
    pub fault: Option<Fault>,
    /// Of the version before, for as long as it served.
    pub before: Tally,
    /// Of the version on probation.
    pub after: Tally,
    /// From the swap to the verdict.
    #[serde(rename = "elapsed_ms", serialize_with = "as_millis")]
    pub elapsed: Duration,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, before, after, elapsed } = self;
        if *fault == Some(Fault::Hangs) {
            let stalled = Duration::from_nanos(after.stalled_ns);
            return write!(f, "no call has ended for {stalled:.1?}, within {elapsed:.1?}");
        }
        let rate = |tally: &Tally| {
            let per_mille = tally.errors_per_mille();
            format!("{}.{} %", per_mille / 10, per_mille % 10)
        };
        write!(
            f,
            "{} of {} calls failed ({}, before: {}), {} faults (before: {}), p90 {:?} (before: {:?}), within {elapsed:.1?}",
            after.errors,
            after.calls,
            rate(after),
            rate(before),
            after.faults,
            before.faults,
            Duration::from_nanos(after.p90_ns),
            Duration::from_nanos(before.p90_ns),
        )
    }
}

/// What can be said of a version so far.
#[must_use]
pub fn judge(rules: &Rules, before: &Tally, after: &Tally) -> Option<Fault> {
    if after.faults > 0 && before.faults == 0 {
        return Some(Fault::Faults);
    }
    // Whose mistake it was when a request is refused can only be told by what the version before made of it.
    let comparable = before.calls >= rules.errors_min;
    let errors =
        if comparable { after.errors } else { after.errors.saturating_sub(after.mistakes) };
    let margin = rules.error_percent as f64 / 100.0;
    let more =
        certainly_more(Share::of(before.errors, before.calls), Share::of(errors, after.calls));
    if errors >= rules.errors_min && more > margin {
        return Some(Fault::Errors);
    }
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let patience = nanos(rules.stall).max(before.p90_ns.saturating_mul(4));
    if after.stalled_ns >= patience {
        return Some(Fault::Hangs);
    }
    let sampled = before.samples.min(after.samples) >= rules.samples_min;
    let floor = nanos(rules.latency_floor);
    let slower = after.p90_ns > before.p90_ns.saturating_mul(rules.latency_factor)
        && after.p90_ns - before.p90_ns >= floor;
    (sampled && slower).then_some(Fault::Latency)
}

/// A share of failed calls, and how far it may be from what more calls would show.
#[derive(Debug, Clone, Copy)]
struct Share {
    seen: f64,
    least: f64,
    most: f64,
}

/// Standard deviations within which a true share is taken to lie: a few calls prove little, whichever way they went, and a
/// version on probation is looked at often.
const DEVIATIONS: f64 = 3.0;

impl Share {
    /// Wilson's score interval. Of no calls at all, nothing failed: a first fault has to count somewhere.
    fn of(errors: u64, calls: u64) -> Self {
        if calls == 0 {
            return Self { seen: 0.0, least: 0.0, most: 0.0 };
        }
        let (calls, square) = (calls as f64, DEVIATIONS * DEVIATIONS);
        let seen = errors as f64 / calls;
        let middle = (seen + square / (2.0 * calls)) / (1.0 + square / calls);
        let spread = seen * (1.0 - seen) / calls + square / (4.0 * calls * calls);
        let half = DEVIATIONS * spread.max(0.0).sqrt() / (1.0 + square / calls);
        Self { seen, least: (middle - half).max(0.0), most: (middle + half).min(1.0) }
    }
}

/// By how much the second share is larger at least (Newcombe 1998, the tenth of his methods); negative when it need not be.
fn certainly_more(before: Share, after: Share) -> f64 {
    let doubt = (after.seen - after.least).hypot(before.most - before.seen);
    after.seen - before.seen - doubt
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: Rules = Rules {
        window: Duration::from_secs(10),
        errors_min: 10,
        error_percent: 5,
        latency_factor: 4,
        latency_floor: Duration::from_millis(1),
        samples_min: 50,
        stall: Duration::from_secs(1),
    };

    fn tally(calls: u64, errors: u64) -> Tally {
        Tally { calls, errors, ..Tally::default() }
    }

    #[test]
    fn a_version_that_always_fails_is_known_by_its_tenth_call() {
        let before = tally(1_000_000, 0);
        for calls in 0..10 {
            assert_eq!(judge(&RULES, &before, &tally(calls, calls)), None);
        }
        assert_eq!(judge(&RULES, &before, &tally(10, 10)), Some(Fault::Errors));
    }

    #[test]
    fn what_failed_before_may_fail_on() {
        let before = tally(1_000, 500);
        assert_eq!(judge(&RULES, &before, &tally(1_000, 540)), None);
        assert_eq!(judge(&RULES, &before, &tally(1_000, 600)), None, "which may be chance");
        assert_eq!(judge(&RULES, &before, &tally(1_000, 640)), Some(Fault::Errors));
        let before = tally(1_000_000, 500_000);
        assert_eq!(judge(&RULES, &before, &tally(1_000_000, 560_000)), Some(Fault::Errors));
    }

    #[test]
    fn a_few_calls_before_prove_little() {
        let before = tally(18, 17);
        assert_eq!(judge(&RULES, &before, &tally(27_226, 27_225)), None);
        assert_eq!(judge(&RULES, &tally(18, 0), &tally(10, 10)), Some(Fault::Errors));
        assert_eq!(judge(&RULES, &tally(1, 0), &tally(10, 10)), None);
        assert_eq!(judge(&RULES, &tally(1, 0), &tally(50, 50)), Some(Fault::Errors));
    }

    #[test]
    fn mistakes_of_callers_count_when_there_is_something_to_compare_with() {
        let refused = Tally { mistakes: 100, ..tally(100, 100) };
        assert_eq!(judge(&RULES, &tally(0, 0), &refused), None, "never called before");
        assert_eq!(judge(&RULES, &tally(1_000, 0), &refused), Some(Fault::Errors));
        assert_eq!(judge(&RULES, &tally(1_000, 1_000), &refused), None, "refused before as well");
    }

    #[test]
    fn one_fault_is_enough_unless_there_were_faults_before() {
        let faulted = Tally { faults: 1, ..tally(5, 1) };
        assert_eq!(judge(&RULES, &tally(5, 0), &faulted), Some(Fault::Faults));
        assert_eq!(judge(&RULES, &Tally { faults: 1, ..tally(5, 1) }, &faulted), None);
    }

    #[test]
    fn latency_counts_when_it_grew_much_and_was_measured_often() {
        let timed = |samples, p90_ns| Tally { samples, p90_ns, ..tally(10_000, 0) };
        let before = timed(100, 300_000);
        assert_eq!(judge(&RULES, &before, &timed(49, 9_000_000)), None, "too few");
        assert_eq!(judge(&RULES, &before, &timed(50, 1_100_000)), None, "less than four times");
        assert_eq!(judge(&RULES, &before, &timed(50, 2_000_000)), Some(Fault::Latency));
        let fast = timed(100, 300);
        assert_eq!(judge(&RULES, &fast, &timed(100, 900_000)), None, "below the floor");
    }

    #[test]
    fn calls_that_do_not_end_are_given_as_long_as_they_used_to_take() {
        let stalled = |millis: u64| Tally { stalled_ns: millis * 1_000_000, ..tally(4, 0) };
        assert_eq!(judge(&RULES, &tally(9, 0), &stalled(999)), None);
        assert_eq!(judge(&RULES, &tally(9, 0), &stalled(1_000)), Some(Fault::Hangs));
        let slow = Tally { p90_ns: 2_000_000_000, ..tally(9, 0) };
        assert_eq!(judge(&RULES, &slow, &stalled(7_999)), None);
        assert_eq!(judge(&RULES, &slow, &stalled(8_000)), Some(Fault::Hangs));
    }

    proptest! {
        #[test]
        fn a_version_that_is_no_worse_is_never_swapped_back(
            calls in 1_u64..1_000_000, share in 0_u64..=100, more in 1_u64..100, p90 in 0_u64..10_000_000,
        ) {
            let errors = calls * share / 100;
            let before =
                Tally { calls, errors, mistakes: errors / 2, faults: errors, samples: 100, p90_ns: p90, stalled_ns: 0 };
            let after = Tally { calls: calls * more, errors: errors * more, ..before };
            prop_assert_eq!(judge(&RULES, &before, &after), None);
        }
    }

    #[test]
    fn evidence_reads_as_a_sentence() {
        let after = Tally { faults: 2, p90_ns: 2_000, ..tally(40, 38) };
        let elapsed = Duration::from_millis(12);
        let evidence =
            Evidence { fault: Some(Fault::Errors), before: tally(1_000, 1), after, elapsed };
        assert_eq!(
            evidence.to_string(),
            "38 of 40 calls failed (95.0 %, before: 0.1 %), 2 faults (before: 0), p90 2µs (before: 0ns), \
             within 12.0ms"
        );
    }
}
