//! What stops an experiment and what does not (4.3 items 24, 29), decision by decision.

use expect_test::expect;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn rates(arms: &[(u64, u64)]) -> Vec<Moments> {
    arms.iter().map(|(count, hits)| Moments::of_conversions(*count, *hits)).collect()
}

fn even(arms: &[Moments]) -> Vec<Units> {
    let all: u64 = arms.iter().map(|it| it.count).sum();
    let expected = all as f64 / arms.len() as f64;
    arms.iter().map(|it| Units { count: it.count as f64, error: 0.0, expected }).collect()
}

fn judged(policy: &Policy, arms: &[(u64, u64)], elapsed: Duration) -> String {
    let arms = rates(arms);
    let units = even(&arms);
    let evidence =
        Evidence { kind: Kind::Conversion, arms: &arms, units: &units, guards: &[], elapsed };
    let (decision, waiting) = (decide(&evidence, policy), waiting(&evidence, policy));
    format!("{decision:?} {waiting:?}")
}

#[test]
fn what_is_decided_and_what_is_waited_for() {
    let policy = Policy::default();
    let judge = |arms: &[(u64, u64)]| judged(&policy, arms, DAY);
    let lines = [
        judge(&[(0, 0), (0, 0)]),
        judge(&[(999, 100), (1_000, 200)]),
        judge(&[(5_000, 5_000), (5_000, 4_000)]),
        judge(&[(10_000, 500), (10_000, 520)]),
        judge(&[(10_000, 500), (10_000, 700)]),
        judge(&[(10_000, 700), (10_000, 500)]),
        judge(&[(10_000, 500), (10_000, 510), (10_000, 720)]),
        judge(&[(10_000, 700), (10_000, 710), (10_000, 400)]),
        judge(&[(10_000, 700), (10_000, 400), (10_000, 400)]),
        judge(&[(10_000, 500), (11_000, 900)]),
        judged(&policy, &[(10_000, 500), (10_000, 700)], Duration::from_secs(60)),
        judged(&policy, &[(10_000, 500), (10_000, 510)], 3 * DAY),
        judged(&policy, &[(10, 5), (10, 5)], 3 * DAY),
    ];
    expect![[r#"
        Continue [Outcomes { arm: 0, has: 0, wants: 1000 }, Conversions { arm: 0, has: 0, wants: 40 }, Outcomes { arm: 1, has: 0, wants: 1000 }, Conversions { arm: 1, has: 0, wants: 40 }]
        Continue [Outcomes { arm: 0, has: 999, wants: 1000 }]
        Continue [Conversions { arm: 0, has: 0, wants: 40 }]
        Continue []
        Winner { arm: 1 } []
        RollBack(ControlIsBetter) []
        Winner { arm: 2 } []
        Continue []
        RollBack(ControlIsBetter) []
        Continue [Ratio { probability: 5.176309056990158e-12 }]
        Continue [Duration { left: 3540s }]
        RollBack(TimeIsUp) []
        RollBack(TimeIsUp) [Outcomes { arm: 0, has: 10, wants: 1000 }, Conversions { arm: 0, has: 5, wants: 40 }, Outcomes { arm: 1, has: 10, wants: 1000 }, Conversions { arm: 1, has: 5, wants: 40 }]
    "#]].assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn one_arm_alone_is_no_comparison() {
    let policy = Policy::default();
    assert_eq!(judged(&policy, &[(10_000, 500)], DAY), "Continue []");
    assert_eq!(judged(&policy, &[], DAY), "Continue []");
    assert_eq!(judged(&policy, &[(10_000, 500)], 4 * DAY), "RollBack(TimeIsUp) []");
}

#[test]
fn each_rule_alone_and_both() {
    // Probable, and not beyond what is seen again and again by chance.
    let arms = [(10_000, 500), (10_000, 560)];
    let rule = |rule| judged(&Policy { rule, ..Policy::default() }, &arms, DAY);
    assert!(rule(Rule::Thompson { threshold: 0.95 }).starts_with("Winner { arm: 1 }"));
    assert!(rule(Rule::Anytime { alpha: 0.05 }).starts_with("Continue"));
    assert!(rule(Rule::Both { threshold: 0.95, alpha: 0.05 }).starts_with("Continue"));
    assert!(rule(Rule::Both { threshold: 0.95, alpha: 0.9 }).starts_with("Winner { arm: 1 }"));
    assert!(rule(Rule::Both { threshold: 0.99, alpha: 0.9 }).starts_with("Continue"));
}

/// 4.3 item 29: whatever the outcomes say.
#[test]
fn a_wrong_ratio_stops_the_stopping() {
    let policy = Policy::default();
    let arms = rates(&[(10_000, 500), (10_000, 900)]);
    let units = [(10_000.0, 10_500.0), (11_000.0, 10_500.0)].map(|(count, expected)| Units {
        count,
        error: 0.0,
        expected,
    });
    let kind = Kind::Conversion;
    let evidence = Evidence { kind, arms: &arms, units: &units, guards: &[], elapsed: DAY };
    assert_eq!(decide(&evidence, &policy), Decision::Continue);
    assert!(matches!(waiting(&evidence, &policy)[..], [Waiting::Ratio { .. }]));
    let late = Evidence { elapsed: 4 * DAY, ..evidence };
    assert_eq!(decide(&late, &policy), Decision::RollBack(GivenUp::TimeIsUp));
}

#[test]
fn a_broken_guard_rail_rolls_back_at_once() {
    let policy = Policy::default();
    let arms = rates(&[(10_000, 500), (10_000, 900)]);
    let rail = GuardRail { metric: "errors".to_owned(), limit: 0.1 };
    let judge = |errors: &[(u64, u64)]| {
        let guards = [Guarded { rail: &rail, arms: rates(errors) }];
        let kind = Kind::Conversion;
        let evidence =
            Evidence { kind, arms: &arms, units: &[], guards: &guards, elapsed: Duration::ZERO };
        decide(&evidence, &policy)
    };
    assert_eq!(judge(&[(10_000, 1_000), (10_000, 1_050)]), Decision::Continue);
    assert_eq!(judge(&[(900, 100), (900, 800)]), Decision::Continue, "too few to say");
    let broken = GivenUp::Guard { metric: "errors".to_owned(), arm: 1 };
    assert_eq!(judge(&[(10_000, 1_000), (10_000, 1_500)]), Decision::RollBack(broken));
}

#[test]
fn means_are_compared_by_their_scatter() {
    let arm = |mean: f64| {
        let mut moments = Moments::default();
        (0..4_000).for_each(|it| moments.add(mean + f64::from(it % 7)));
        moments
    };
    let policy = Policy::default();
    let judge = |arms: &[Moments]| {
        let kind = Kind::Continuous;
        decide(&Evidence { kind, arms, units: &[], guards: &[], elapsed: DAY }, &policy)
    };
    assert_eq!(judge(&[arm(10.0), arm(10.5)]), Decision::Winner { arm: 1 });
    assert_eq!(judge(&[arm(10.0), arm(10.02)]), Decision::Continue);
    assert_eq!(judge(&[arm(10.0), arm(9.0)]), Decision::RollBack(GivenUp::ControlIsBetter));
    let constant = Moments { count: 5_000, shift: 3.0, sum: 0.0, squares: 0.0 };
    assert_eq!(judge(&[constant, constant]), Decision::Continue, "nothing is known of the scatter");
}

/// 4.3 item 24.
#[test]
fn an_allocation_has_a_floor_and_keeps_the_order() {
    let shares = allocate(&[0.0, 0.1, 0.9], 0.01);
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!(
        shares.iter().all(|share| *share >= 0.01) && shares[0] < shares[1] && shares[1] < shares[2]
    );
}

#[test]
fn a_policy_survives_being_written_down() {
    let policy = Policy::default();
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
    assert!(serde_json::from_str::<Policy>(&text.replace("both", "maybe")).is_err());
}
