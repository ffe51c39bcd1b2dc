//! In which range the difference between two arms lies: at one look, or at every look there will ever be.
//!
//! The confidence sequence is the asymptotic one of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Time-uniform central
//! limit theory, 2021), as GrowthBook writes it: with `N` outcomes in all, `ρ = √((−2 ln α + ln(1 − 2 ln α)) / N*)`, the
//! half-width is `s·√N·√(2(Nρ² + 1)/(Nρ)² · ln(√(Nρ² + 1)/α))`, where `s` is the standard error of the difference. It is
//! narrowest about `N*` outcomes. It assumes that each arm's share of units is fixed beforehand.

use serde::{Deserialize, Serialize};
use statrs::function::erf::{erfc, erfc_inv};

use super::moments::Moments;

/// Where the sequence is narrowest, in outcomes of all arms.
pub const TUNED_TO: f64 = 5_000.0;
/// The power that a minimum detectable effect is stated for.
pub const POWER: f64 = 0.8;

/// How far apart two arms are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The treatment's mean less the control's, or its lift.
    pub estimate: f64,
    /// The variance of that estimate.
    pub variance: f64,
    /// Outcomes of both arms.
    pub count: u64,
}

/// A range with a promise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether it leaves out no difference at all.
    #[must_use]
    pub fn has_zero(&self) -> bool {
        self.low <= 0.0 && self.high >= 0.0
    }

    fn around(estimate: f64, half: f64) -> Self {
        Self { low: estimate - half, high: estimate + half }
    }
}

impl Effect {
    /// The difference of means.
    #[must_use]
    pub fn difference(control: &Moments, treatment: &Moments) -> Self {
        Self {
            estimate: treatment.mean() - control.mean(),
            variance: treatment.variance_of_mean() + control.variance_of_mean(),
            count: control.count + treatment.count,
        }
    }

    /// The lift: the difference in parts of the control's mean, by the delta method. `None` where that mean is 0.
    #[must_use]
    pub fn lift(control: &Moments, treatment: &Moments) -> Option<Self> {
        let (base, other) = (control.mean(), treatment.mean());
        let square = base * base;
        if square <= 0.0 {
            return None;
        }
        let variance = treatment.variance_of_mean() / square
            + control.variance_of_mean() * other * other / (square * square);
        let count = control.count + treatment.count;
        Some(Self { estimate: (other - base) / base, variance, count })
    }

    /// Good at every look: the chance that the true effect is ever outside is at most `alpha`.
    #[must_use]
    pub fn sequence(&self, alpha: f64, tuned_to: f64) -> Interval {
        Interval::around(self.estimate, self.half_width(self.count as f64, alpha, tuned_to))
    }

    fn half_width(&self, count: f64, alpha: f64, tuned_to: f64) -> f64 {
        let log = -2.0 * alpha.ln();
        let rho2 = (log + log.ln_1p()) / tuned_to;
        let spread = count * rho2 + 1.0;
        let wide = 2.0 * spread / (count * count * rho2) * (spread.sqrt() / alpha).ln();
        // The standard error shrinks with the root of the count; what is under it was seen at `self.count`.
        let per_outcome = self.variance * self.count as f64;
        (per_outcome * wide).sqrt()
    }

    /// Good at one look that was fixed beforehand.
    #[must_use]
    pub fn interval(&self, alpha: f64) -> Interval {
        Interval::around(self.estimate, normal_quantile(1.0 - alpha / 2.0) * self.variance.sqrt())
    }

    /// The probability that the effect is above zero, where nothing was believed of it before; 0.5 of nothing.
    #[must_use]
    pub fn probability_above_zero(&self) -> f64 {
        match self.variance > 0.0 && self.variance.is_finite() {
            true => normal_cdf(self.estimate / self.variance.sqrt()),
            false => 0.5,
        }
    }

    /// The smallest true effect that a single look at this many outcomes finds with [`POWER`].
    #[must_use]
    pub fn detectable(&self, alpha: f64) -> f64 {
        (normal_quantile(1.0 - alpha / 2.0) + normal_quantile(POWER)) * self.variance.sqrt()
    }

    /// How many outcomes there will be when the sequence leaves out zero, if the effect is as it is estimated now. `None`
    /// where that is beyond `most`.
    #[must_use]
    pub fn outcomes_to_evidence(&self, alpha: f64, tuned_to: f64, most: u64) -> Option<u64> {
        let enough =
            |count: u64| self.half_width(count as f64, alpha, tuned_to) < self.estimate.abs();
        if self.count == 0 || !enough(most) {
            return None;
        }
        let (mut low, mut high) = (1, most);
        while low < high {
            let middle = low + (high - low) / 2;
            if enough(middle) { high = middle } else { low = middle + 1 }
        }
        Some(low)
    }
}

/// The standard normal's distribution function.
#[must_use]
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / std::f64::consts::SQRT_2)
}

/// Its inverse, for probabilities above 0 and below 1.
#[must_use]
pub fn normal_quantile(probability: f64) -> f64 {
    -std::f64::consts::SQRT_2 * erfc_inv(2.0 * probability)
}

#[cfg(test)]
mod tests;
