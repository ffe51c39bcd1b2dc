//! How long calls took: counts by size class, recorded from any thread without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four classes for each power of two: a class is known to a quarter of it.
const CLASSES: usize = 64 * 4;

/// Counts by class.
pub(super) struct Times([AtomicU64; CLASSES]);

impl Default for Times {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; CLASSES])
    }
}

impl std::fmt::Debug for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Times").field(&self.ninth_decile()).finish()
    }
}

impl Times {
    /// Counts one call.
    pub(super) fn record(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.0[class(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were counted, and the longest time of the class below which nine of ten lie, in nanoseconds.
    pub(super) fn ninth_decile(&self) -> (u64, u64) {
        let counts = self.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        let all: u64 = counts.iter().sum();
        let mut below = 0;
        for (class, count) in counts.iter().enumerate() {
            below += count;
            if all > 0 && below * 10 >= all * 9 {
                return (all, longest(class));
            }
        }
        (all, 0)
    }
}

fn class(nanos: u64) -> usize {
    match nanos {
        0..4 => nanos as usize,
        _ => {
            let power = nanos.ilog2();
            power as usize * 4 + (nanos >> (power - 2) & 3) as usize
        }
    }
}

/// The longest time of a class.
fn longest(class: usize) -> u64 {
    let (power, quarter) = (class / 4, (class % 4) as u64);
    match power.checked_sub(2) {
        None => quarter,
        Some(shift) => ((4 + quarter) << shift) + ((1 << shift) - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nine_of_ten_lie_below_the_ninth_decile() {
        let times = Times::default();
        assert_eq!(times.ninth_decile(), (0, 0));
        for micros in 1..=100 {
            times.record(Duration::from_micros(micros));
        }
        let (all, p90) = times.ninth_decile();
        assert_eq!(all, 100);
        assert!((90_000..115_000).contains(&p90), "{p90}");
    }

    proptest! {
        #[test]
        fn a_class_is_known_to_a_quarter(nanos in 4_u64..u64::MAX) {
            let longest = longest(class(nanos));
            prop_assert!(nanos <= longest && longest - nanos <= nanos / 4, "{nanos} {longest}");
        }
    }
}
