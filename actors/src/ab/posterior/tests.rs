//! The quadrature against exact values (4.3 items 1, 2, 3, 5, 7).

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_distr::{Beta, Distribution as _};

use super::*;

/// The probability that the second is better.
fn better(a: (f64, f64), b: (f64, f64)) -> f64 {
    compare(&[Posterior::beta(a.0, a.1), Posterior::beta(b.0, b.1)]).best[1]
}

#[test]
fn known_probabilities() {
    for (a, b, expected) in [
        ((1.0, 1.0), (1.0, 1.0), 0.5),
        ((11.0, 91.0), (16.0, 86.0), 0.853_283_790),
        ((51.0, 951.0), (66.0, 936.0), 0.924_480_379),
        ((101.0, 901.0), (121.0, 881.0), 0.923_183_439),
        ((1_001.0, 9_001.0), (1_051.0, 8_951.0), 0.878_076_673),
        ((10_001.0, 90_001.0), (10_151.0, 89_851.0), 0.867_425_802),
        ((2.0, 100.0), (8.0, 94.0), 0.982_530_098),
        ((1.0, 1_001.0), (4.0, 998.0), 0.937_687_359),
    ] {
        let found = better(a, b);
        assert!((found - expected).abs() < 1e-6, "{a:?} {b:?}: {found} for {expected}");
    }
}

/// 4.3 item 5: where a published implementation fails.
#[test]
fn half_of_a_symmetric_distribution_is_below_the_middle() {
    for shape in [1.0, 2.0, 10.0, 1e3, 1e5, 1e6, 1e7, 1e8] {
        let posterior = Posterior::beta(shape, shape);
        assert!((posterior.cdf(0.5) - 0.5).abs() < 1e-6, "{shape}: {}", posterior.cdf(0.5));
        assert!((posterior.quantile(0.5) - 0.5).abs() < 1e-6, "{shape}");
    }
}

#[test]
fn uniform_and_normal_distributions_are_what_they_are() {
    let uniform = Posterior::beta(1.0, 1.0);
    let normal = Posterior::normal(3.0, 2.0);
    for p in [0.001, 0.05, 0.3, 0.5, 0.77, 0.975] {
        assert!((uniform.cdf(p) - p).abs() < 1e-6 && (uniform.quantile(p) - p).abs() < 1e-6, "{p}");
        let right = 3.0 + 2.0 * crate::ab::sequence::normal_quantile(p);
        assert!((normal.quantile(p) - right).abs() < 1e-4, "{p}: {}", normal.quantile(p));
    }
    assert!((uniform.cdf(0.0), uniform.cdf(1.0)) == (0.0, 1.0));
    // A square has this distribution function: 1 - (1 - x)^2.
    assert!((Posterior::beta(1.0, 2.0).cdf(0.3) - 0.51).abs() < 1e-6);
    let credible = Posterior::of_rate(50, 950).credible(0.05);
    assert!(credible.low > 0.037 && credible.high < 0.067, "{credible:?}");
}

/// 4.3 item 3: where the approximation is used it is off by less than a ten-thousandth.
#[test]
fn the_approximation_is_close_where_it_is_used() {
    let approximate = |a: u64, b: u64, n: u64| {
        let moments = |s: u64| {
            let (a, b) = (s as f64 + 1.0, (n - s) as f64 + 1.0);
            (a / (a + b), a * b / ((a + b) * (a + b) * (a + b + 1.0)))
        };
        let ((p, v), (q, w)) = (moments(a), moments(b));
        crate::ab::sequence::normal_cdf((q - p) / (v + w).sqrt())
    };
    for (a, b, n, least, most) in [
        (0, 3, 1_000, 0.02, 0.05),
        (1, 7, 1_000, 0.003, 0.05),
        (1_000, 1_060, 20_000, 0.0, 1e-4),
        (1_000, 1_120, 2_500, 0.0, 1e-4),
        (10_000, 10_200, 100_000, 0.0, 1e-4),
    ] {
        let exact =
            better(((a + 1) as f64, (n - a + 1) as f64), ((b + 1) as f64, (n - b + 1) as f64));
        let off = (approximate(a, b, n) - exact).abs();
        assert!((least..=most).contains(&off), "{a} beside {b} of {n}: off by {off}");
    }
}

#[test]
fn the_best_of_many_and_what_a_choice_costs() {
    let same: Vec<_> = (0..4).map(|_| Posterior::of_rate(50, 950)).collect();
    let comparison = compare(&same);
    assert!(comparison.best.iter().all(|best| (best - 0.25).abs() < 1e-6), "{comparison:?}");
    // One is twice as good, and much better known: a step on the scale of the others.
    let arms = [Posterior::of_rate(5, 95), Posterior::of_rate(100_000, 900_000)];
    let comparison = compare(&arms);
    let mut chance = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(7);
    let (few, many) = (Beta::new(6.0, 96.0).unwrap(), Beta::new(100_001.0, 900_001.0).unwrap());
    let (mut wins, mut loss, draws) = (0, 0.0_f64, 400_000);
    for _ in 0..draws {
        let (a, b): (f64, f64) = (few.sample(&mut chance), many.sample(&mut chance));
        wins += u32::from(b > a);
        loss += (a - b).max(0.0) / f64::from(draws);
    }
    assert!(
        (comparison.best[1] - f64::from(wins) / f64::from(draws)).abs() < 0.003,
        "{comparison:?}"
    );
    assert!((comparison.loss[1] - loss).abs() < 1e-4, "{comparison:?} for {loss}");
    assert!(
        (comparison.loss[0] - comparison.loss[1] - (arms[1].mean() - arms[0].mean())).abs() < 1e-9
    );
}

/// 4.3 item 7: what Thompson allocation draws from is what is believed.
#[test]
fn samples_are_distributed_as_they_should_be() {
    for (a, b) in [(0.5, 0.5), (1.0, 1.0), (2.0, 5.0), (100.0, 900.0), (1e5, 9e5)] {
        let mut chance = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(3);
        let beta = Beta::new(a, b).unwrap();
        let mut drawn: Vec<f64> = (0..100_000).map(|_| beta.sample(&mut chance)).collect();
        drawn.sort_by(f64::total_cmp);
        let posterior = Posterior::beta(a, b);
        let count = drawn.len() as f64;
        let off =
            |(index, value): (usize, &f64)| (posterior.cdf(*value) - index as f64 / count).abs();
        let distance = drawn.iter().enumerate().map(off).fold(0.0, f64::max);
        // Kolmogorov and Smirnov at 10^-4: 2.23 / √n.
        assert!(distance < 2.23 / count.sqrt(), "{a} {b}: {distance}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// 4.3 item 2.
    #[test]
    fn the_chances_of_both_are_one(a in 1..5_000_u64, b in 1..5_000_u64, n in 5_000..1_000_000_u64) {
        let (one, other) = (Posterior::of_rate(a, n - a), Posterior::of_rate(b, n - b));
        let forth = compare(&[one.clone(), other.clone()]);
        let back = compare(&[other, one]);
        prop_assert!((forth.best[0] + forth.best[1] - 1.0).abs() < 1e-9);
        prop_assert!((forth.best[0] - back.best[1]).abs() < 1e-9);
        prop_assert!(forth.loss.iter().all(|loss| loss.is_finite() && *loss >= 0.0));
    }

    #[test]
    fn more_conversions_are_never_worse(a in 0..500_u64, b in 0..500_u64, n in 1_000..100_000_u64) {
        let chance = |b: u64| {
            compare(&[Posterior::of_rate(a, n - a), Posterior::of_rate(b, n - b)]).best[1]
        };
        prop_assert!(chance(b + 1) >= chance(b) - 1e-7);
    }

    #[test]
    fn quantiles_undo_the_distribution(a in 1.0..1e6_f64, b in 1.0..1e6_f64, p in 0.0001..0.9999_f64) {
        let posterior = Posterior::beta(a, b);
        let again = posterior.cdf(posterior.quantile(p));
        prop_assert!((again - p).abs() < 1e-5, "{again} for {p}");
    }
}
