//! Which arm a unit gets: the same one for ever, with the shares that were asked for.
//!
//! Weighted rendezvous: every arm draws an exponential time for the unit, from a hash, and the earliest has it. An arm's
//! weight is its rate. So a changed weight moves units to the arm that gained, from those that lost, and no other unit:
//! between two arms whose ratio stays, nothing moves. There is no table and no history to keep.
//!
//! The hash is XXH3 (64 bits) of the unit, mixed with a number for each arm (SplitMix64's finaliser); the logarithm is in
//! fixed point. There is no floating point in it, so it comes out the same on every machine and in every language.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What all weights of an experiment add up to: hundredths of a percent.
pub const WEIGHTS_SUM: u32 = 10_000;
/// Most arms of an experiment, the control included.
pub const ARMS_MAX: usize = 16;

/// Salts are apart, so that which units are in an experiment says nothing about the arm they get. The number is that of the
/// procedure: another one would have another.
const EXPOSURE: &str = "themis/ab/1/exposure";
const VARIANT: &str = "themis/ab/1/variant";
const BANDIT: &str = "themis/ab/1/bandit";

/// Why weights are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// One arm is no comparison, and too many cannot be told apart.
    #[error("an experiment has 2 to {max} arms, not {arms}")]
    Arms {
        /// How many there are.
        arms: usize,
        /// How many there may be.
        max: usize,
    },
    /// They are shares of a whole.
    #[error("the weights add up to {}, not to 100 %", percent(*sum))]
    Sum {
        /// What they add up to, in hundredths of a percent.
        sum: u64,
    },
}

fn percent(hundredths: u64) -> String {
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

impl WeightsError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Arms { .. } => "ab.arms",
            Self::Sum { .. } => "ab.weights",
        }
    }
}

/// Shares of the arms in hundredths of a percent, which add up to [`WEIGHTS_SUM`]. An arm may have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
pub struct Weights(Vec<u32>);

impl TryFrom<Vec<u32>> for Weights {
    type Error = WeightsError;

    fn try_from(weights: Vec<u32>) -> Result<Self, WeightsError> {
        let arms = weights.len();
        if !(2..=ARMS_MAX).contains(&arms) {
            return Err(WeightsError::Arms { arms, max: ARMS_MAX });
        }
        let sum = weights.iter().map(|weight| u64::from(*weight)).sum();
        if sum != u64::from(WEIGHTS_SUM) {
            return Err(WeightsError::Sum { sum });
        }
        Ok(Self(weights))
    }
}

impl From<Weights> for Vec<u32> {
    fn from(weights: Weights) -> Self {
        weights.0
    }
}

impl Weights {
    /// The same share for each, as nearly as hundredths of a percent go: the first arms have the rest.
    ///
    /// # Errors
    /// [`WeightsError::Arms`].
    pub fn even(arms: usize) -> Result<Self, WeightsError> {
        let count = u32::try_from(arms).unwrap_or(u32::MAX).max(1);
        let share = |arm: u32| WEIGHTS_SUM / count + u32::from(arm < WEIGHTS_SUM % count);
        (0..count.min(WEIGHTS_SUM)).map(share).collect::<Vec<_>>().try_into()
    }

    /// Them, by arm.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// The share of an arm, 0 to 1.
    #[must_use]
    pub fn share(&self, arm: usize) -> f64 {
        let weight = self.0.get(arm).copied().unwrap_or_default();
        f64::from(weight) / f64::from(WEIGHTS_SUM)
    }
}

/// How the units of one experiment are dealt out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    exposure_seed: u64,
    /// Of units that may take part, in hundredths of a percent.
    exposure: u32,
    unit_seed: u64,
    /// A number and the weight of each arm.
    arms: Vec<(u64, u64)>,
}

impl Assignment {
    /// For an experiment; `exposure` is the share of units that take part, in hundredths of a percent, and `arms` are the
    /// arms' names.
    #[must_use]
    pub fn new(experiment: &str, exposure: u32, arms: &[&str], weights: &Weights) -> Self {
        let unit_seed = seed(VARIANT, experiment);
        let numbers = arms.iter().map(|arm| xxh3_64_with_seed(arm.as_bytes(), unit_seed));
        let weights = weights.as_slice().iter().map(|weight| u64::from(*weight));
        Self {
            exposure_seed: seed(EXPOSURE, experiment),
            exposure: exposure.min(WEIGHTS_SUM),
            unit_seed,
            arms: numbers.zip(weights).collect(),
        }
    }

    /// What it becomes when an arm has left: its units go to the others, and no other unit moves. `None` when nobody else has
    /// a share.
    #[must_use]
    pub fn without(&self, arm: usize) -> Option<Self> {
        let mut rest = self.clone();
        rest.arms.get_mut(arm)?.1 = 0;
        rest.arms.iter().any(|(_, weight)| *weight > 0).then_some(rest)
    }

    /// What it becomes when every unit goes to one arm, those that took no part included.
    #[must_use]
    pub fn only(&self, arm: usize) -> Self {
        let arms = self.arms.iter().enumerate();
        let arms = arms.map(|(at, (number, _))| (*number, u64::from(at == arm))).collect();
        Self { arms, exposure: WEIGHTS_SUM, ..self.clone() }
    }

    /// The share of an arm among those that are left, 0 to 1.
    #[must_use]
    pub fn share(&self, arm: usize) -> f64 {
        let all: u64 = self.arms.iter().map(|(_, weight)| weight).sum();
        let weight = self.arms.get(arm).map_or(0, |(_, weight)| *weight);
        weight as f64 / all.max(1) as f64
    }

    /// Whether the unit takes part.
    #[must_use]
    pub fn is_exposed(&self, unit: &[u8]) -> bool {
        let hash = xxh3_64_with_seed(unit, self.exposure_seed);
        // Multiply and shift: a remainder would prefer small numbers.
        let place = (u128::from(hash) * u128::from(WEIGHTS_SUM)) >> 64;
        place < u128::from(self.exposure)
    }

    /// A number for the unit, the same for ever.
    #[must_use]
    pub fn hash(&self, unit: &[u8]) -> u64 {
        xxh3_64_with_seed(unit, self.unit_seed)
    }

    /// The arm of the unit with this [`Assignment::hash`].
    #[must_use]
    pub fn arm_of(&self, hash: u64) -> usize {
        let (mut best, mut time, mut rate) = (0, 1_u64, 0_u64);
        for (arm, (number, weight)) in self.arms.iter().enumerate() {
            let drawn = minus_log2(mix(hash ^ number));
            // drawn / weight < time / rate, without the division: below 2^38 and 2^14 each.
            if *weight > 0 && (rate == 0 || drawn * rate < time * weight) {
                (best, time, rate) = (arm, drawn, *weight);
            }
        }
        best
    }
}

/// Where the draws of an experiment's bandit begin.
#[must_use]
pub fn bandit_seed(experiment: &str, round: u64) -> u64 {
    mix(seed(BANDIT, experiment) ^ round)
}

/// A salt and a name; a length in front keeps two of them apart that read the same when joined.
fn seed(salt: &str, experiment: &str) -> u64 {
    let length = salt.len().to_string();
    xxh3_64_with_seed(format!("{length}:{salt}{experiment}").as_bytes(), 0)
}

/// SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Bits of the fraction of a logarithm.
const FRACTION: u32 = 32;
/// Steps of the table between two powers of two.
const STEPS: usize = 256;

/// log2(1 + i / 256) for i from 0 to 256, with 32 bits of fraction.
const LOGS: [u64; STEPS + 1] = logs();

const fn logs() -> [u64; STEPS + 1] {
    let mut logs = [0; STEPS + 1];
    let mut step = 0;
    while step < STEPS {
        // Bit by bit: squaring doubles the logarithm.
        let mut number = (((STEPS + step) as u128) << 63) / STEPS as u128;
        let (mut log, mut bit) = (0_u64, FRACTION);
        while bit > 0 {
            bit -= 1;
            number = (number * number) >> 63;
            if number >= 1 << 64 {
                number >>= 1;
                log |= 1 << bit;
            }
        }
        logs[step] = log;
        step += 1;
    }
    logs[STEPS] = 1 << FRACTION;
    logs
}

/// -log2((number + 1) / 2^64) with 32 bits of fraction; linear between 256 steps, so at most 3e-6 too high.
const fn minus_log2(number: u64) -> u64 {
    let number = number.saturating_add(1);
    let zeros = number.leading_zeros();
    let mantissa = (number << zeros) & (u64::MAX >> 1);
    let step = (mantissa >> 55) as usize;
    let rest = (mantissa >> 23) & 0xffff_ffff;
    let (low, high) = (LOGS[step], LOGS[step + 1]);
    let log = low + (((high - low) * rest) >> 32);
    ((64 - 63 + zeros as u64) << FRACTION) - log
}

#[cfg(test)]
mod tests;
