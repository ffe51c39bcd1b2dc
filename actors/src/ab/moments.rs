//! What came of an arm: how many outcomes, how much, how scattered.
//!
//! Sums are of differences from the first value, the `shift`: squares of large values that hardly differ would cancel to
//! nothing but rounding. Moments add up, whichever way they were divided.

use serde::{Deserialize, Serialize};

/// Count, mean and scatter of the outcomes of one metric in one arm. A conversion counts as 1 and its absence as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Outcomes.
    pub count: u64,
    /// What is taken from each value.
    #[serde(with = "bits")]
    pub shift: f64,
    /// Sum of values less the shift.
    #[serde(with = "bits")]
    pub sum: f64,
    /// Sum of squares of values less the shift.
    #[serde(with = "bits")]
    pub squares: f64,
}

/// Numbers are kept as their bits: read back from decimal text they could be another by a hair each time.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        number.to_bits().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

impl Moments {
    /// Of conversions.
    #[must_use]
    pub fn of_conversions(count: u64, conversions: u64) -> Self {
        let sum = conversions as f64;
        Self { count, shift: 0.0, sum, squares: sum }
    }

    /// Takes one more value. Infinities and NaN are the caller's to keep out.
    pub fn add(&mut self, value: f64) {
        if self.count == 0 {
            self.shift = value;
        }
        let less = value - self.shift;
        (self.count, self.sum) = (self.count + 1, self.sum + less);
        self.squares += less * less;
    }

    /// Takes in what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (count, by) = (other.count as f64, other.shift - self.shift);
        self.squares += other.squares + by * (2.0 * other.sum + count * by);
        self.sum += other.sum + count * by;
        self.count += other.count;
    }

    /// The mean; 0 of nothing.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self.count {
            0 => 0.0,
            count => self.shift + self.sum / count as f64,
        }
    }

    /// The variance of the values (unbiased); 0 below two.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let count = self.count as f64;
        ((self.squares - self.sum * self.sum / count) / (count - 1.0)).max(0.0)
    }

    /// The variance of the mean.
    #[must_use]
    pub fn variance_of_mean(&self) -> f64 {
        match self.count {
            0 => f64::INFINITY,
            count => self.variance() / count as f64,
        }
    }
}

#[cfg(test)]
mod tests;
