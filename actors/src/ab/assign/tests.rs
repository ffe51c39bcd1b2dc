//! Shares, stability and independence of the assignment; the numbers are those of A/B engines' known mistakes.

use proptest::prelude::*;
use statrs::function::gamma::gamma_ur;

use super::*;

fn assignment(experiment: &str, weights: &[u32]) -> Assignment {
    let names: Vec<String> = (0..weights.len()).map(|arm| format!("arm-{arm}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Assignment::new(experiment, WEIGHTS_SUM, &names, &weights.to_vec().try_into().unwrap())
}

fn arm(assignment: &Assignment, unit: u64) -> usize {
    assignment.arm_of(assignment.hash(unit.to_string().as_bytes()))
}

/// Pearson's test of counts that should be in these shares.
fn fits(counts: &[u64], shares: &[f64]) -> f64 {
    let all = counts.iter().sum::<u64>() as f64;
    let distance: f64 = counts
        .iter()
        .zip(shares)
        .map(|(count, share)| (*count as f64 - all * share).powi(2) / (all * share))
        .sum();
    gamma_ur((counts.len() - 1) as f64 / 2.0, distance / 2.0)
}

/// Golden vectors: whoever computes an arm elsewhere must find these.
#[test]
fn the_procedure_does_not_change() {
    let assignment = assignment("checkout", &[5_000, 3_000, 2_000]);
    let units: [&[u8]; 8] =
        [b"", b"a", b"b", b"user-1", b"user-2", b"\0", "\u{fc}".as_bytes(), b"42"];
    let hashes = units.map(|unit| assignment.hash(unit));
    let arms = hashes.map(|hash| assignment.arm_of(hash));
    expect_test::expect!["[3783549668d5c693, d867849f32c634b0, 2e671efaf725bf2, bb18c9050a353e96, 28d81067a761a6db, b0bfafe4ea8a0843, a3c63f010bf448a0, d1c8bb324e524953] [0, 0, 0, 2, 0, 1, 2, 2]"].assert_eq(&format!("{hashes:x?} {arms:?}"));
    let half = Assignment::new("checkout", 5_000, &["a", "b"], &Weights::even(2).unwrap());
    let exposed = units.map(|unit| half.is_exposed(unit));
    expect_test::expect!["[false, false, false, false, false, false, false, false]"]
        .assert_eq(&format!("{exposed:?}"));
    expect_test::expect!["1a01a555d8059b7c 5ce6b11ec2f76b87"].assert_eq(&format!(
        "{:x} {:x}",
        bandit_seed("checkout", 0),
        bandit_seed("checkout", 1)
    ));
}

/// 4.3 item 16.
#[test]
fn shares_are_what_was_asked_for() {
    for weights in
        [vec![5_000, 5_000], vec![9_000, 1_000], vec![3_334, 3_333, 3_333], vec![1, 9_999]]
    {
        let assignment = assignment("shares", &weights);
        let mut counts = vec![0; weights.len()];
        for unit in 0..1_000_000 {
            counts[arm(&assignment, unit)] += 1;
        }
        let shares: Vec<f64> = weights.iter().map(|it| f64::from(*it) / 10_000.0).collect();
        let p = fits(&counts, &shares);
        assert!(p > 0.001, "{weights:?}: {counts:?}, p = {p}");
    }
    // A hundred buckets of exposure.
    let weights = Weights::even(2).unwrap();
    let mut counts = vec![0_u64; 100];
    let at = |percent: u32| Assignment::new("buckets", percent * 100, &["a", "b"], &weights);
    let steps: Vec<_> = (1..=100).map(at).collect();
    for unit in 0..200_000_u64 {
        let text = unit.to_string();
        counts[steps.partition_point(|step| !step.is_exposed(text.as_bytes()))] += 1;
    }
    let p = fits(&counts, &vec![0.01; 100]);
    assert!(p > 0.001, "p = {p}");
}

/// 4.3 items 17 and 18: which arm of one experiment says nothing about that of another, nor does taking part at all.
#[test]
fn experiments_and_exposure_are_independent() {
    let (one, other) = (assignment("one", &[5_000, 5_000]), assignment("other", &[5_000, 5_000]));
    let mut joint = vec![0; 4];
    for unit in 0..1_000_000 {
        joint[2 * arm(&one, unit) + arm(&other, unit)] += 1;
    }
    let p = fits(&joint, &[0.25; 4]);
    assert!(p > 0.001, "{joint:?}, p = {p}");
    for arms in [2, 3] {
        let weights = Weights::even(arms).unwrap();
        let names = &["a", "b", "c"][..arms];
        let tenth = Assignment::new("rollout", 1_000, names, &weights);
        let mut counts = vec![0; arms];
        for unit in 0..1_000_000_u64 {
            let text = unit.to_string();
            if tenth.is_exposed(text.as_bytes()) {
                counts[tenth.arm_of(tenth.hash(text.as_bytes()))] += 1;
            }
        }
        let all: u64 = counts.iter().sum();
        assert!((99_000..101_000).contains(&all), "{all}");
        let shares: Vec<f64> = (0..arms).map(|arm| weights.share(arm)).collect();
        let p = fits(&counts, &shares);
        assert!(p > 0.001, "{arms} arms: {counts:?}, p = {p}");
    }
}

/// 4.3 item 19: only what must move moves, and in one direction.
#[test]
fn a_changed_weight_moves_what_it_must() {
    let (before, after) =
        (assignment("move", &[5_000, 5_000]), assignment("move", &[6_000, 4_000]));
    let moved = (0..1_000_000).filter(|unit| arm(&before, *unit) != arm(&after, *unit));
    let moved: Vec<u64> = moved.collect();
    assert!(moved.iter().all(|unit| arm(&after, *unit) == 0), "towards the arm that gained");
    let share = moved.len() as f64 / 1e6;
    assert!((0.097..0.103).contains(&share), "{share}");
    // An arm that leaves: its units go to the others, and nobody else moves.
    let before = assignment("leave", &[4_000, 3_000, 3_000]);
    let after = before.without(2).unwrap();
    assert!((after.share(0) - 4.0 / 7.0).abs() < 1e-12);
    for unit in 0..100_000 {
        let (old, new) = (arm(&before, unit), arm(&after, unit));
        assert!(new != 2 && (old == 2 || old == new), "{unit}: {old} to {new}");
    }
}

/// 4.3 item 20.
#[test]
fn weights_are_shares_of_a_whole() {
    let all = assignment("all", &[0, 10_000]);
    assert!((0..100_000).all(|unit| arm(&all, unit) == 1));
    let rare = assignment("rare", &[1, 9_999]);
    let few = (0..1_000_000).filter(|unit| arm(&rare, *unit) == 0).count();
    assert!((50..160).contains(&few), "{few}");
    let refused = |weights: &[u32]| Weights::try_from(weights.to_vec()).unwrap_err();
    assert_eq!(refused(&[]).code(), "ab.arms");
    assert_eq!(refused(&[10_000]).code(), "ab.arms");
    assert_eq!(refused(&[5_000, 4_999]).to_string(), "the weights add up to 99.99 %, not to 100 %");
    assert_eq!(refused(&[u32::MAX, u32::MAX]).code(), "ab.weights");
    assert_eq!(refused(&[0; 17]).code(), "ab.arms");
    assert_eq!(Weights::even(3).unwrap().as_slice(), [3_334, 3_333, 3_333]);
    assert_eq!(Weights::even(1).unwrap_err().code(), "ab.arms");
    let zero = Assignment::new("none", 0, &["a", "b"], &Weights::even(2).unwrap());
    assert!((0..10_000_u64).all(|unit| !zero.is_exposed(unit.to_string().as_bytes())));
    assert_eq!(assignment("lost", &[0, 10_000]).without(1), None);
}

#[test]
fn the_logarithm_is_one() {
    for number in [0, 1, 2, 255, 256, 1 << 20, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let right = 64.0 - (number as f64 + 1.0).log2();
        let ours = minus_log2(number) as f64 / 4_294_967_296.0;
        assert!((ours - right).abs() < 4e-6, "{number}: {ours} for {right}");
    }
}

proptest! {
    #[test]
    fn the_same_unit_has_the_same_arm(unit: Vec<u8>, name in "[a-z]{1,20}", first in 0..=10_000_u32) {
        let weights: Weights = vec![first, 10_000 - first].try_into().unwrap();
        let one = Assignment::new(&name, 10_000, &["a", "b"], &weights);
        let again = Assignment::new(&name, 10_000, &["a", "b"], &weights);
        prop_assert_eq!(one.arm_of(one.hash(&unit)), again.arm_of(again.hash(&unit)));
        prop_assert!(one.is_exposed(&unit));
    }

    #[test]
    fn more_weight_never_loses_a_unit(unit: u64, less in 1..9_000_u32, more in 1..1_000_u32) {
        let (before, after) =
            (assignment("law", &[less, 10_000 - less]), assignment("law", &[less + more, 10_000 - less - more]));
        prop_assert!(arm(&before, unit) >= arm(&after, unit));
    }
}
