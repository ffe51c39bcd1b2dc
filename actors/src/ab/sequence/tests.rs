//! Intervals against other engines' numbers (4.3 item 13), and the promise of the sequence (item 12).

use rand::SeedableRng as _;
use rand_distr::{Binomial, Distribution as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;

fn sums(sum: f64, squares: f64, count: u64) -> Moments {
    Moments { count, shift: 0.0, sum, squares }
}

fn close(range: Interval, low: f64, high: f64) {
    assert!((range.low - low).abs() < 1e-4 && (range.high - high).abs() < 1e-4, "{range:?}");
}

#[test]
fn other_engines_have_the_same_numbers() {
    let (a, b) = (sums(1396.87, 52_377.976_7, 3_000), sums(2_422.7, 134_698.29, 3_461));
    close(Effect::lift(&a, &b).unwrap().sequence(0.05, 1_000.0), -0.55844, 1.56516);
    let (a, b) = (Moments::of_conversions(3_000, 1_396), Moments::of_conversions(3_461, 2_422));
    close(Effect::lift(&a, &b).unwrap().sequence(0.05, TUNED_TO), 0.40098, 0.60675);
    let (a, b) = (Moments::of_conversions(100, 49), Moments::of_conversions(100, 51));
    let chance = Effect::lift(&a, &b).unwrap().probability_above_zero();
    assert!((chance - 0.60918).abs() < 2e-3, "{chance}");
}

#[test]
fn normal_functions_are_inverse() {
    assert!((normal_quantile(0.975) - 1.959_963_985).abs() < 1e-8);
    for p in [1e-6, 0.01, 0.3, 0.5, 0.9, 0.999] {
        assert!((normal_cdf(normal_quantile(p)) - p).abs() < 1e-9, "{p}");
    }
}

#[test]
fn nothing_is_known_of_nothing() {
    let (none, some) = (Moments::default(), Moments::of_conversions(10, 5));
    assert_eq!(Effect::lift(&none, &some), None);
    let effect = Effect::difference(&none, &some);
    assert_eq!(effect.probability_above_zero(), 0.5);
    assert_eq!(effect.outcomes_to_evidence(0.05, TUNED_TO, 1 << 40), None);
    let range = effect.sequence(0.05, TUNED_TO);
    assert!(!(range.low > 0.0 || range.high < 0.0), "{range:?}");
}

#[test]
fn how_much_longer_is_what_it_takes() {
    let (a, b) = (Moments::of_conversions(1_000, 50), Moments::of_conversions(1_000, 65));
    let effect = Effect::difference(&a, &b);
    assert!(effect.sequence(0.05, TUNED_TO).has_zero());
    let needed = effect.outcomes_to_evidence(0.05, TUNED_TO, 1 << 40).unwrap();
    let scaled = |count: u64| {
        let variance = effect.variance * 2_000.0 / count as f64;
        Effect { count, variance, ..effect }.sequence(0.05, TUNED_TO).has_zero()
    };
    assert!(!scaled(needed) && scaled(needed - 1), "{needed}");
    assert!(effect.detectable(0.05) > effect.estimate);
}

/// 4.3 item 12: the true difference is inside at every look.
#[test]
fn the_sequence_keeps_its_promise() {
    let mut outside = 0;
    for run in 0..2_000 {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(run);
        let (control, treatment) =
            (Binomial::new(50, 0.05).unwrap(), Binomial::new(50, 0.06).unwrap());
        let (mut a, mut b, mut count) = (0, 0, 0);
        let mut inside = true;
        for _ in 0..500 {
            (a, b) = (a + control.sample(&mut chance), b + treatment.sample(&mut chance));
            count += 50;
            let (a, b) = (Moments::of_conversions(count, a), Moments::of_conversions(count, b));
            let range = Effect::difference(&a, &b).sequence(0.05, TUNED_TO);
            // Asymptotic: it says nothing of the first few.
            inside &= count < 500 || (range.low..=range.high).contains(&0.01);
        }
        outside += u32::from(!inside);
    }
    assert!(outside <= 100, "{outside} of 2,000");
}
