//! What was counted by whichever thread is what is found (4.3 items 22 and 23).

use proptest::prelude::*;

use super::*;

#[test]
fn what_threads_count_adds_up() {
    let (tally, sketch, units) = (Tally::default(), Sketch::default(), UnitSet::default());
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let (tally, sketch, units) = (&tally, &sketch, &units);
            scope.spawn(move || {
                for number in 0..10_000_u32 {
                    tally.add(f64::from(number % 100)).unwrap();
                    sketch.add(f64::from(number % 7 + 1) / 1_000.0);
                    units.insert(
                        u64::from(number % 1_000 + thread).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    );
                }
            });
        }
    });
    let folded = tally.fold();
    assert_eq!(folded.count, 80_000);
    assert!((folded.mean() - 49.5).abs() < 1e-9);
    assert!((folded.variance() - 833.26).abs() < 0.01, "{}", folded.variance());
    assert_eq!(sketch.fold().iter().sum::<u64>(), 80_000);
    let count = units.count().estimate.unwrap();
    assert!((count - 1_007.0).abs() < 5.0, "{count}");
}

#[test]
fn what_is_no_number_is_not_counted() {
    let tally = Tally::default();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(tally.add(value), Err(NotFinite));
    }
    assert_eq!(tally.fold(), Moments::default());
    tally.add(-0.0).unwrap();
    assert_eq!(tally.fold().count, 1);
    let sketch = Sketch::default();
    for value in [f64::NAN, -1.0, 0.0, 1e-9, f64::MIN_POSITIVE, 1e9, f64::INFINITY] {
        sketch.add(value);
    }
    let counts = sketch.fold();
    assert_eq!((counts[0], counts[counts.len() - 1]), (5, 2));
    assert_eq!(quantile(&[0; 10], 0.5), None);
}

#[test]
fn a_unit_counts_once() {
    let units = UnitSet::default();
    assert!(units.insert(7 << 45) && !units.insert(7 << 45) && units.insert(8 << 45));
    let restored = UnitSet::default();
    restored.restore(&units.words());
    assert!(!restored.insert(7 << 45) && restored.insert(9 << 45));
    // A mix as the assignment makes it.
    for number in 0..400_000_u64 {
        units.insert(xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()));
    }
    let count = units.count();
    let off = (count.estimate.unwrap() - 400_000.0).abs();
    assert!(off < 4.0 * count.error.sqrt(), "off by {off}, error {}", count.error.sqrt());
    for place in 0..UNIT_WORDS as u64 * 64 {
        units.insert(place << 45);
    }
    assert_eq!(units.count().estimate, None);
}

proptest! {
    #[test]
    fn quantiles_are_within_a_percent(values in prop::collection::vec(2e-6..3_000.0_f64, 1..300), share in 0.01..1.0_f64) {
        let (sketch, other) = (Sketch::default(), Sketch::default());
        for (index, value) in values.iter().enumerate() {
            if index % 2 == 0 { sketch.add(*value) } else { other.add(*value) }
        }
        // Merged counts are those of one sketch.
        let merged: Vec<u64> = sketch.fold().iter().zip(other.fold()).map(|(a, b)| a + b).collect();
        let found = quantile(&merged, share).unwrap();
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        let rank = ((share * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
        let right = sorted[rank - 1];
        prop_assert!((found / right - 1.0).abs() < 0.01, "{} for {}", found, right);
    }
}
