//! The false positives and the power of policies: the published table, and what the default promises.

use super::*;
use crate::ab::policy::Rule;

fn scenario(rule: Rule, rates: &[f64]) -> Scenario {
    // The table's rules know no minimum.
    let policy = Policy { rule, outcomes_min: 1, conversions_min: 0, ..Policy::default() };
    Scenario {
        rates: rates.to_vec(),
        weights: Weights::even(rates.len()).unwrap(),
        allocation: Allocation::Fixed,
        policy,
        either_side: true,
        every: 100,
        most: 10_000,
        runs: 1_500,
        seed: 1,
    }
}

const NAIVE: Rule = Rule::Thompson { threshold: 0.95 };

fn run(scenario: &Scenario) -> Report {
    let mut done = 0;
    let report = simulate(scenario, |run| done = run).unwrap();
    assert_eq!(done, scenario.runs);
    let ended: u32 = report.ended_for.iter().sum();
    assert_eq!(ended + report.undecided, report.runs);
    report
}

#[track_caller]
fn about(found: f64, expected: f64, off: f64) {
    assert!((found - expected).abs() <= off, "{found} for {expected}");
}

/// 4.1: how often the rule "above 95 %" is wrong between two arms that are the same, looked at so often, for the treatment
/// alone or for either.
#[test]
fn looking_again_and_again_finds_what_is_not_there() {
    for (every, most, runs, either_side, expected, off) in [
        (20_000, 20_000, 20_000, false, 0.050, 0.006),
        (20_000, 20_000, 20_000, true, 0.101, 0.008),
        (100, 10_000, 1_500, false, 0.288, 0.04),
        (1_000, 10_000, 1_500, false, 0.164, 0.035),
        (5_000, 10_000, 3_000, false, 0.087, 0.025),
        (100, 100_000, 600, false, 0.420, 0.055),
        (1_000, 100_000, 600, false, 0.320, 0.055),
        (5_000, 100_000, 1_000, false, 0.215, 0.04),
        (2, 10_000, 200, false, 0.379, 0.09),
        (2, 10_000, 1_000, true, 0.680, 0.05),
        (100, 100_000, 600, true, 0.758, 0.05),
        (1_000, 100_000, 600, true, 0.590, 0.055),
    ] {
        let same = scenario(NAIVE, &[0.05, 0.05]);
        let report = run(&Scenario { every, most, runs, either_side, ..same });
        about(report.decided().0, expected, off);
    }
}

/// 4.1, last rows: a higher threshold and a minimum.
#[test]
fn higher_thresholds_are_wrong_less_often() {
    for (threshold, expected, off) in [(0.99, 0.173, 0.035), (0.999, 0.024, 0.015)] {
        let naive = scenario(Rule::Thompson { threshold }, &[0.05, 0.05]);
        let policy = Policy { outcomes_min: 1_000, ..naive.policy };
        let report = run(&Scenario { policy, every: 1_000, most: 100_000, runs: 1_000, ..naive });
        about(report.decided().0, expected, off);
    }
}

/// 4.2: the sequence alone.
#[test]
fn a_sequence_is_wrong_as_rarely_as_it_says() {
    let rule = Rule::Anytime { alpha: 0.05 };
    let same = scenario(rule, &[0.05, 0.05]);
    let report = run(&Scenario { every: 200, most: 100_000, runs: 1_000, ..same });
    about(report.decided().0, 0.039, 0.02);
    let better = scenario(rule, &[0.05, 0.06]);
    let report = run(&Scenario { every: 200, most: 100_000, runs: 500, ..better });
    assert!(report.share([1]).0 > 0.99 && report.share([0]).0 == 0.0, "{report:?}");
    about(report.outcomes_mean / 2.0, 9_369.0, 700.0);
}

/// 4.3 item 9: the default finds what is not there in at most 5 % of experiments, at every base rate.
#[test]
fn the_default_keeps_its_promise() {
    for rate in [0.001, 0.01, 0.05, 0.5] {
        let same = scenario(NAIVE, &[rate, rate]);
        let policy = Policy::default();
        let report = run(&Scenario { policy, most: 100_000, runs: 2_000, ..same });
        let (share, range) = report.decided();
        assert!(range.high <= 0.05, "{rate}: {share} {range:?}");
    }
}

/// 4.3 item 10: what the documentation says of a policy is what happens.
#[test]
fn false_positives_are_as_documented() {
    for (rule, documented) in crate::ab::policy::FALSE_POSITIVES {
        let policy = Policy { rule, ..Policy::default() };
        assert_eq!(policy.false_positives(), Some(documented));
        let same = scenario(rule, &[0.05, 0.05]);
        let report = run(&Scenario { policy, most: 100_000, runs: 1_500, ..same });
        about(report.decided().0, documented, 0.03);
    }
    let other = Policy { rule: Rule::Anytime { alpha: 0.01 }, ..Policy::default() };
    assert_eq!(other.false_positives(), None);
}

/// 4.3 item 11.
#[test]
fn the_default_finds_what_is_there() {
    let better = scenario(NAIVE, &[0.05, 0.06]);
    let report = run(&Scenario { policy: Policy::default(), most: 100_000, runs: 1_000, ..better });
    assert!(report.share([1]).0 >= 0.99, "{report:?}");
    assert!(report.share([0]).0 <= 0.005, "{report:?}");
    let last = report.curve.last().unwrap();
    assert!(last.0 == 100_000 && (last.1 - report.decided().0).abs() < 1e-9);
    assert!(report.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
}

/// 4.3 item 28, and Thompson allocation: what is wrong with both is known.
#[test]
fn several_arms_and_a_bandit() {
    let four = scenario(NAIVE, &[0.05; 4]);
    let report = run(&Scenario { every: 1_000, most: 100_000, runs: 200, ..four.clone() });
    about(report.decided().0, 0.128, 0.07);
    let policy = Policy::default();
    let report = run(&Scenario { policy, every: 1_000, most: 100_000, runs: 400, ..four });
    assert!(report.decided().0 <= 0.05, "{report:?}");
    let two = scenario(NAIVE, &[0.05, 0.05]);
    let allocation = Allocation::Thompson { floor: 0.01 };
    let report = run(&Scenario { allocation, every: 1_000, most: 100_000, runs: 200, ..two });
    about(report.decided().0, 0.599, 0.12);
}

#[test]
fn the_same_seed_is_the_same_experiment() {
    let one = Scenario { runs: 50, ..scenario(NAIVE, &[0.05, 0.06]) };
    assert_eq!(run(&one), run(&one));
    assert_ne!(run(&one), run(&Scenario { seed: 2, ..one.clone() }));
    let wrong = |change: &dyn Fn(&mut Scenario)| {
        let mut it = one.clone();
        change(&mut it);
        simulate(&it, |_| {}).unwrap_err().code()
    };
    assert_eq!(wrong(&|it| it.rates[0] = 1.5), "ab.rate");
    assert_eq!(wrong(&|it| it.rates[0] = f64::NAN), "ab.rate");
    assert_eq!(wrong(&|it| it.rates.truncate(1)), "ab.arms");
    assert_eq!(wrong(&|it| it.every = 1), "ab.looks");
    assert_eq!(wrong(&|it| it.most = 10), "ab.looks");
}
