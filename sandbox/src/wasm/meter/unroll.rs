//! Which loops to unroll and how often: the most iterations per check that a bounded growth of the code allows.
//!
//! Loops are taken in the order in which they stand in the module, so the same module always gets the same answer. A loop
//! is copied 8, 4, 2 times or not at all: the most that keeps the copies together below [`COPIES_BYTES_MAX`] and that the
//! module's allowance can pay for.

use super::Options;
use super::loops::Loop;
use super::regions::Regions;

/// Most bytes all copies of one loop's body may take, about what a processor's cache of decoded instructions holds.
const COPIES_BYTES_MAX: usize = 1024;
/// A module may always grow by this many bytes, however small it is.
const GROWTH_BYTES_MIN: usize = 16 << 10;

/// A loop to be unrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unrolled {
    /// Number of the `loop` instruction within the body.
    pub(crate) start: usize,
    /// Number of its `end`.
    pub(crate) end: usize,
    /// Number of the last branch that leads back to it.
    pub(crate) repeats: usize,
    /// How many copies of its body there will be.
    pub(crate) factor: usize,
    /// Locals that an iteration takes from the one before.
    pub(crate) reads: Vec<u32>,
}

/// How much a module may still grow by unrolling.
#[derive(Debug)]
pub(crate) struct Allowance {
    bytes: usize,
    factor: usize,
}

impl Allowance {
    /// For a module with this much code.
    pub(crate) fn new(options: &Options, code_bytes: usize) -> Self {
        let share = code_bytes / 100;
        let bytes = share.saturating_mul(usize::from(options.growth_percent));
        Self { bytes: bytes.max(GROWTH_BYTES_MIN), factor: usize::from(options.unroll) }
    }

    /// Chooses among the loops of a body, and takes what they will need from the allowance.
    pub(crate) fn choose(&mut self, regions: &Regions) -> Vec<Unrolled> {
        let candidates = regions.loops.iter().filter(|found| found.simple);
        candidates.filter_map(|found| self.admit(found)).collect()
    }

    fn admit(&mut self, found: &Loop) -> Option<Unrolled> {
        let repeats = found.repeats?;
        let fits = |factor: &usize| {
            *factor <= self.factor
                && found.bytes.saturating_mul(*factor) <= COPIES_BYTES_MAX
                && found.bytes.saturating_mul(*factor) <= self.bytes
        };
        let factor = [8, 4, 2].into_iter().find(fits)?;
        self.bytes = self.bytes.saturating_sub(found.bytes.saturating_mul(factor));
        Some(Unrolled {
            start: found.start,
            end: found.end,
            repeats,
            factor,
            reads: found.reads.clone(),
        })
    }
}
