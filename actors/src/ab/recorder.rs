//! Where outcomes are counted as they happen: no lock, no message, nothing allocated.
//!
//! ```text
//! caller's thread ─▶ its shard: count, sum, squares ─┐
//! caller's thread ─▶ its shard                      ─┴─▶ fold ─▶ Moments
//! ```
//!
//! Each thread has a shard, so that callers hardly ever meet; within one, sums are exchanged until they fit. A fold reads
//! while others write: it may have an outcome's count and not yet its value. Once the writers are done it is exact.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::moments::Moments;

/// Shards of each metric of each arm.
const SHARDS: usize = 8;
/// Steps between two powers of two: a bucket is 1.6 % wide, and its middle at most 0.8 % off.
const STEPS: usize = 64;
/// Powers of two: from about a microsecond to an hour and more.
const OCTAVES: usize = 32;
/// The exponent of the first bucket, in seconds: 2^-20.
const FIRST: i64 = -20;
/// Bits of a unit's number that tell units apart.
const UNIT_BITS: u32 = 19;
const UNIT_WORDS: usize = (1 << UNIT_BITS) / 64;

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|cell| {
        if cell.get() == usize::MAX {
            cell.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        cell.get()
    })
}

#[derive(Debug, Default)]
struct Shard {
    count: AtomicU64,
    /// Bits of sums of what is left when the shift is taken away.
    sum: AtomicU64,
    squares: AtomicU64,
}

/// Outcomes of one metric in one arm.
#[derive(Debug)]
pub struct Tally {
    /// Bits of the first value; [`NONE`] before there was one.
    shift: AtomicU64,
    shards: [CachePadded<Shard>; SHARDS],
}

/// No value has these bits: infinities and NaN are refused.
const NONE: u64 = u64::MAX;

/// What is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value is a finite number")]
pub struct NotFinite;

impl Default for Tally {
    fn default() -> Self {
        Self { shift: AtomicU64::new(NONE), shards: Default::default() }
    }
}

impl Tally {
    /// Counts one value.
    ///
    /// # Errors
    /// [`NotFinite`]; nothing is counted then.
    pub fn add(&self, value: f64) -> Result<(), NotFinite> {
        if !value.is_finite() {
            return Err(NotFinite);
        }
        self.count(value);
        Ok(())
    }

    /// Counts one value that is known to be finite.
    pub(super) fn count(&self, value: f64) {
        let shard = &self.shards[shard_of_thread()];
        let less = value - self.shift_or(value);
        shard.count.fetch_add(1, Ordering::Relaxed);
        add(&shard.sum, less);
        add(&shard.squares, less * less);
    }

    /// Whoever comes first decides.
    fn shift_or(&self, value: f64) -> f64 {
        let bits = self.shift.load(Ordering::Relaxed);
        if bits != NONE {
            return f64::from_bits(bits);
        }
        let first = value.to_bits();
        match self.shift.compare_exchange(NONE, first, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => value,
            Err(bits) => f64::from_bits(bits),
        }
    }

    /// Begins with what was counted before; only before anything is counted.
    pub(super) fn restore(&self, known: &Moments) {
        let Some(shard) = self.shards.first().filter(|_| known.count > 0) else { return };
        self.shift.store(known.shift.to_bits(), Ordering::Relaxed);
        shard.count.store(known.count, Ordering::Relaxed);
        shard.sum.store(known.sum.to_bits(), Ordering::Relaxed);
        shard.squares.store(known.squares.to_bits(), Ordering::Relaxed);
    }

    /// Everything counted so far.
    #[must_use]
    pub fn fold(&self) -> Moments {
        let bits = self.shift.load(Ordering::Relaxed);
        let shift = if bits == NONE { 0.0 } else { f64::from_bits(bits) };
        let mut all = Moments { shift, ..Moments::default() };
        for shard in &self.shards {
            all.count += shard.count.load(Ordering::Relaxed);
            all.sum += f64::from_bits(shard.sum.load(Ordering::Relaxed));
            all.squares += f64::from_bits(shard.squares.load(Ordering::Relaxed));
        }
        all
    }
}

/// Adds to a sum that is kept as bits.
fn add(sum: &AtomicU64, more: f64) {
    let mut bits = sum.load(Ordering::Relaxed);
    loop {
        let next = (f64::from_bits(bits) + more).to_bits();
        match sum.compare_exchange_weak(bits, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => bits = now,
        }
    }
}

/// How long things took, in seconds: log-linear buckets, from 1 µs to an hour.
#[derive(Debug)]
pub struct Sketch(Box<[AtomicU64]>);

impl Default for Sketch {
    fn default() -> Self {
        Self((0..STEPS * OCTAVES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Sketch {
    /// Counts one; what is shorter or longer than the buckets goes to the first or last.
    pub fn add(&self, seconds: f64) {
        if let Some(bucket) = self.0.get(bucket_of(seconds)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins with what was counted before, by bucket.
    pub(super) fn restore(&self, known: &[(u32, u64)]) {
        for (bucket, count) in known {
            if let Some(bucket) = usize::try_from(*bucket).ok().and_then(|it| self.0.get(it)) {
                bucket.fetch_add(*count, Ordering::Relaxed);
            }
        }
    }

    /// Counts by bucket.
    #[must_use]
    pub fn fold(&self) -> Vec<u64> {
        self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }
}

/// The exponent and the highest bits of the fraction are the bucket.
fn bucket_of(seconds: f64) -> usize {
    if seconds.is_nan() || seconds <= 0.0 {
        return 0;
    }
    let bits = seconds.to_bits();
    let exponent = (bits >> 52).cast_signed() - 1_023 - FIRST;
    let step = (bits >> 46) & (STEPS as u64 - 1);
    let bucket = exponent.saturating_mul(STEPS as i64).saturating_add(step.cast_signed());
    usize::try_from(bucket).unwrap_or(0).min(STEPS * OCTAVES - 1)
}

/// The value below which this share of what was counted lies: the middle of its bucket. `None` of nothing.
#[must_use]
pub fn quantile(counts: &[u64], share: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let wanted = (share * all as f64).ceil().max(1.0);
    let mut seen = 0_u64;
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        seen += count;
        if seen as f64 >= wanted {
            let (octave, step) = (bucket / STEPS, bucket % STEPS);
            let power = 2_f64.powi(i32::try_from(octave as i64 + FIRST).unwrap_or(0));
            return Some(power * (1.0 + (step as f64 + 0.5) / STEPS as f64));
        }
    }
    None
}

/// Which units an arm has seen: each counts once. Units are told apart by 19 bits of their number; how many there were is
/// estimated from how many places are taken (linear counting: Whang, Vander-Zanden, Taylor, 1990).
#[derive(Debug)]
pub struct UnitSet(Box<[AtomicU64]>);

impl Default for UnitSet {
    fn default() -> Self {
        Self((0..UNIT_WORDS).map(|_| AtomicU64::new(0)).collect())
    }
}

/// How many units there were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnitCount {
    /// The estimate; `None` when nearly all places are taken, and units cannot be told apart any more.
    pub estimate: Option<f64>,
    /// The variance of the estimate.
    pub error: f64,
}

impl UnitSet {
    /// Notes a unit by its number; answers whether it is new.
    pub fn insert(&self, number: u64) -> bool {
        let place = number >> (64 - UNIT_BITS);
        let (word, bit) = (place as usize / 64, 1_u64 << (place % 64));
        // Mostly it is there already, and looking costs others nothing.
        let Some(word) = self.0.get(word) else { return false };
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// The places, for the store.
    #[must_use]
    pub fn words(&self) -> Vec<u64> {
        self.0.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// Puts places back; what is not as long as it should be is taken as far as it goes.
    pub fn restore(&self, words: &[u64]) {
        for (word, known) in self.0.iter().zip(words) {
            word.fetch_or(*known, Ordering::Relaxed);
        }
    }

    /// How many units there were.
    #[must_use]
    pub fn count(&self) -> UnitCount {
        let taken: u32 = self.0.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum();
        let places = f64::from(1_u32 << UNIT_BITS);
        let free = places - f64::from(taken);
        // Beyond four units a place the estimate is hardly one.
        if free < places * (-4.0_f64).exp() {
            return UnitCount { estimate: None, error: f64::INFINITY };
        }
        let load = (places / free).ln();
        let error = places * (load.exp() - load - 1.0);
        UnitCount { estimate: Some(places * load), error }
    }
}

#[cfg(test)]
mod tests;
