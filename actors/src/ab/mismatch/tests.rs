//! The sample-ratio test against known values (4.3 items 14 and 15).

use rand::SeedableRng as _;
use rand_distr::{Binomial, Distribution as _};

use super::*;

fn p(counts: &[u64], shares: &[f64]) -> Option<f64> {
    probability(&counted(counts, shares))
}

#[test]
fn known_values() {
    assert!((p(&[600, 400], &[0.5, 0.5]).unwrap() / 2.54e-10 - 1.0).abs() < 0.01);
    assert!((p(&[502, 498], &[0.5, 0.5]).unwrap() - 0.899).abs() < 0.001);
    assert_eq!(p(&[500, 500], &[0.5, 0.5]), Some(1.0));
    assert!((p(&[333, 333, 334], &[1.0, 1.0, 1.0]).unwrap() - 0.999).abs() < 0.002);
}

#[test]
fn arms_without_a_share_do_not_count() {
    assert_eq!(p(&[502, 498, 0], &[0.5, 0.5, 0.0]), p(&[502, 498], &[0.5, 0.5]));
    assert_eq!(p(&[502, 498, 7], &[0.5, 0.5, 0.0]), p(&[502, 498], &[0.5, 0.5]));
    assert_eq!(p(&[1_000, 0], &[1.0, 0.0]), None);
    assert_eq!(p(&[3, 4], &[0.5, 0.5]), None, "too few to say");
    assert_eq!(p(&[], &[]), None);
}

#[test]
fn an_estimate_is_given_its_error() {
    let off = |error: f64| {
        let unit = |count: f64| Units { count, error, expected: 500_000.0 };
        probability(&[unit(502_000.0), unit(498_000.0)]).unwrap()
    };
    assert!(off(0.0) < MISMATCH_LEVEL && off(5_000_000.0) > 0.1);
}

#[test]
fn false_alarms_are_as_rare_as_they_should_be() {
    let mut chance = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(1);
    let half = Binomial::new(10_000, 0.5).unwrap();
    let alarm = |count: u64| p(&[count, 10_000 - count], &[0.5, 0.5]).unwrap() < MISMATCH_LEVEL;
    let alarms = (0..20_000).filter(|_| alarm(half.sample(&mut chance))).count();
    assert!(alarms <= 40, "{alarms} of 20,000");
    // Power: 52 to 48 of 10,000 is found in 76 %.
    let off = Binomial::new(10_000, 0.52).unwrap();
    let found = (0..4_000).filter(|_| alarm(off.sample(&mut chance))).count();
    assert!((2_880..3_200).contains(&found), "{found} of 4,000");
}
