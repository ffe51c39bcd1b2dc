//! Moments of parts are those of the whole, and large values that hardly differ do not cancel.

use proptest::prelude::*;

use super::*;

fn of(values: &[f64]) -> Moments {
    let mut moments = Moments::default();
    values.iter().for_each(|value| moments.add(*value));
    moments
}

#[test]
fn large_values_that_hardly_differ_keep_their_scatter() {
    let moments = of(&[1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0]);
    assert!((moments.mean() - (1e9 + 2.0)).abs() < 1e-6);
    assert!((moments.variance() - 1.0).abs() < 1e-9, "{}", moments.variance());
}

#[test]
fn conversions_are_ones() {
    let moments = Moments::of_conversions(100, 49);
    assert!((moments.mean() - 0.49).abs() < 1e-12);
    assert!((moments.variance() - 0.49 * 0.51 * 100.0 / 99.0).abs() < 1e-12);
    assert_eq!((Moments::default().mean(), Moments::default().variance()), (0.0, 0.0));
    assert_eq!(of(&[3.0]).variance(), 0.0);
    assert!(Moments::default().variance_of_mean().is_infinite());
}

proptest! {
    #[test]
    fn parts_add_up(values in prop::collection::vec(-1e6..1e6_f64, 1..60), cut: prop::sample::Index) {
        let cut = cut.index(values.len());
        let (mut merged, whole) = (of(&values[..cut]), of(&values));
        merged.merge(&of(&values[cut..]));
        prop_assert_eq!(merged.count, whole.count);
        prop_assert!((merged.mean() - whole.mean()).abs() <= 1e-6);
        prop_assert!((merged.variance() - whole.variance()).abs() <= 1e-6 * whole.variance().max(1.0));
    }
}
