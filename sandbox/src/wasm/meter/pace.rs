//! Loops that look for fuel once in many iterations, because a test they make anyway tells when.
//!
//! Where every iteration compares a counter with a bound, it is compared with something nearer instead:
//!
//! ```text
//!                           near = where $i will be in 256 iterations, or n if that is nearer
//! loop $l                   loop $l
//!   ⟨check⟩                   …
//!   …                         br_if $l (++$i != near)
//!   br_if $l (++$i != n)      ⟨check⟩
//! end                         if ($i != n)  near = …  br $l  end
//!                           end
//! ```
//!
//! The test may stand anywhere in the loop where each iteration comes past it once, and branch wherever it likes within. A
//! loop that calls has no need of this, nor one that always runs another: there a check costs little in comparison.

use wasm_encoder::{BlockType, Instruction};
use wasmparser::Operator;

use super::ahead::{LOOKED_AT_MAX, Refund};
use super::counted::{Counted, Fixed, STEP_MAX, Test};
use super::emit::Emitter;
use super::regions::{Frame, Kind, Regions, Scan};

/// Most loops of a function that check at their own pace: each takes a local.
pub(crate) const PACES_MAX: usize = 64;
/// Most iterations between two checks.
const ITERATIONS_MAX: u64 = 256;
/// Fewest for which it is worth it.
const ITERATIONS_MIN: u64 = 8;
/// What they may cost together, if every instruction of the loop runs once in each.
const UNITS_MAX: u64 = 1 << 14;

/// A test that sets the pace of a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// What is compared with what.
    pub(crate) counted: Counted,
    /// Number of the `br_if` within the body of the function.
    pub(crate) test: usize,
    /// Whether there is a comparison before it, or else the counter alone, which must not be 0.
    pub(crate) compared: bool,
    /// How many iterations may go unchecked.
    iterations: i64,
}

impl Pace {
    /// The same for a loop in which all instructions together cost so much, unless that is too much.
    pub(crate) fn of(self, units: u64) -> Option<Self> {
        let iterations = (UNITS_MAX / units.max(1)).min(ITERATIONS_MAX);
        let fits = iterations >= ITERATIONS_MIN;
        Some(Self { iterations: i64::try_from(iterations).ok()?, ..self }).filter(|_| fits)
    }
}

/// A loop at its own pace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paced {
    /// The test.
    pub(crate) pace: Pace,
    /// Its place among all loops.
    pub(crate) place: usize,
    /// The local of the nearer bound.
    pub(crate) near: u32,
}

/// The loops that check at their own pace, by where they are tested, with locals from `first` on.
pub(crate) fn all(regions: &Regions, first: u32) -> Vec<Paced> {
    let paced =
        regions.loops.iter().enumerate().filter_map(|(place, found)| Some((place, found.pace?)));
    let numbered = (first..).zip(paced.take(PACES_MAX));
    let mut all: Vec<_> =
        numbered.map(|(near, (place, pace))| Paced { pace, place, near }).collect();
    all.sort_unstable_by_key(|paced| paced.pace.test);
    all
}

/// What matters of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Get(u32),
    Constant(i64),
    Add { wide: bool },
    Subtract { wide: bool },
    Tee(u32),
    Differs { wide: bool },
    Other,
}

/// The last few instructions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window([Seen; 6]);

impl Window {
    pub(crate) const fn new() -> Self {
        Self([Seen::Other; 6])
    }

    /// Takes note of one more.
    pub(crate) fn push(&mut self, operator: &Operator<'_>) {
        let seen = match operator {
            Operator::LocalGet { local_index } => Seen::Get(*local_index),
            Operator::LocalTee { local_index } => Seen::Tee(*local_index),
            Operator::I32Const { value } => Seen::Constant(i64::from(*value)),
            Operator::I64Const { value } => Seen::Constant(*value),
            Operator::I32Add => Seen::Add { wide: false },
            Operator::I64Add => Seen::Add { wide: true },
            Operator::I32Sub => Seen::Subtract { wide: false },
            Operator::I64Sub => Seen::Subtract { wide: true },
            Operator::I32Ne => Seen::Differs { wide: false },
            Operator::I64Ne => Seen::Differs { wide: true },
            _ => Seen::Other,
        };
        let [_, second, third, fourth, fifth, sixth] = self.0;
        self.0 = [second, third, fourth, fifth, sixth, seen];
    }

    /// The pace that a `br_if` would set which comes next. Whether its locals keep to it remains to be seen.
    pub(crate) fn pace(&self, test: usize) -> Option<Pace> {
        let (parts, bound, compared) = match self.0 {
            [get, by, sum, tee, bound, Seen::Differs { wide }] if matches!(tee, Seen::Tee(_)) => {
                ([get, by, sum, tee], fixed(bound)?, Some(wide))
            }
            [bound, get, by, sum, tee, Seen::Differs { wide }] => {
                ([get, by, sum, tee], fixed(bound)?, Some(wide))
            }
            [.., get, by, sum, tee] => ([get, by, sum, tee], Fixed::Constant(0), None),
        };
        let [Seen::Get(counter), Seen::Constant(by), sum, Seen::Tee(written)] = parts else {
            return None;
        };
        let (step, wide) = match sum {
            Seen::Add { wide } => (by, wide),
            Seen::Subtract { wide } => (by.checked_neg()?, wide),
            _ => return None,
        };
        let fits = counter == written
            && compared.is_none_or(|compared| compared == wide)
            && bound != Fixed::Local(counter)
            && step != 0
            && step.unsigned_abs() <= STEP_MAX;
        let step = Fixed::Constant(step);
        let counted =
            Counted { counter, wide, step, bound, test: Test::Differs, tested: 0, bounded: None };
        fits.then_some(Pace { counted, test, compared: compared.is_some(), iterations: 1 })
    }
}

fn fixed(seen: Seen) -> Option<Fixed> {
    match seen {
        Seen::Get(local) => Some(Fixed::Local(local)),
        Seen::Constant(value) => Some(Fixed::Constant(value)),
        _ => None,
    }
}

impl Scan<'_> {
    /// Whether every iteration of the innermost loop comes here, once, and nothing sets its pace yet.
    pub(crate) fn may_pace(&self) -> bool {
        let place = self.loops.last().and_then(|(_, place)| self.found.loops.get(*place));
        place.is_some_and(|found| found.pace.is_none()) && self.is_passed()
    }

    /// Whether every iteration of the innermost loop comes here, once.
    pub(crate) fn is_passed(&self) -> bool {
        let place = self.loops.last().and_then(|(_, place)| self.found.loops.get(*place));
        let fresh = place.is_some_and(|found| found.repeats.is_none());
        let Some(within) = self.within().filter(|_| fresh && self.open.is_some()) else {
            return false;
        };
        let straight = |frame: &Frame| {
            matches!(frame.kind, Kind::Block) && !frame.skipped && frame.furthest == usize::MAX
        };
        self.frames.iter().skip(within).all(straight)
    }

    /// Notes that a test may set the pace of the innermost loop, and what is charged ahead there.
    pub(crate) fn pace(&mut self, at: usize) {
        let Some(pace) = self.window.pace(at) else { return };
        let Some(within) = self.within() else { return };
        if let Some(found) = self.innermost() {
            found.pace = Some(pace);
        }
        let within = self.frames.iter().skip(within).filter_map(|frame| frame.before);
        let parts = self.so_far(within.chain(self.open).collect());
        self.found.refunds.push(Refund { position: at, parts, units: 0 });
    }

    /// Forgets the pace of the loop that ends, and what was to be given back for it, unless its locals keep to it.
    pub(crate) fn settle(&mut self, place: usize) {
        let Some(found) = self.found.loops.get_mut(place) else { return };
        let Some(pace) = found.pace else { return };
        let from = self.writes.partition_point(|(_, position)| *position < found.start);
        let writes = self.writes.get(from..).unwrap_or_default();
        let from = self.found.charges.partition_point(|charge| charge.position <= found.start);
        let charges = self.found.charges.get(from..).unwrap_or_default();
        let plain = !found.simple && !found.calls && !found.loops && !found.paces;
        let plain = plain && found.repeats.is_some();
        let few = writes.len() <= LOOKED_AT_MAX && charges.len() <= LOOKED_AT_MAX;
        found.pace = None;
        if plain && few {
            let written = |local: u32| writes.iter().filter(|(one, _)| *one == local).count();
            let stays = match pace.counted.bound {
                Fixed::Constant(_) => true,
                Fixed::Local(local) => written(local) == 0,
            };
            let units = charges.iter().fold(0_u64, |sum, charge| sum.saturating_add(charge.units));
            let keeps = stays && written(pace.counted.counter) == 1;
            found.pace = pace.of(units).filter(|_| keeps);
        }
        if found.pace.is_none() {
            let refunds = &mut self.found.refunds;
            let refund = refunds.binary_search_by_key(&pace.test, |refund| refund.position);
            if let Some(refund) = refund.ok().and_then(|refund| refunds.get_mut(refund)) {
                // Nothing is given back for it.
                refund.parts.clear();
            }
        }
    }
}

impl Emitter<'_> {
    /// Sets the nearer bound: as many iterations away as may go unchecked, or the bound itself if fewer are left.
    pub(crate) fn set_pace(&mut self, pace: &Pace, near: u32) {
        let counted = &pace.counted;
        let Fixed::Constant(step) = counted.step else { return };
        let sum = if counted.wide { Instruction::I64Add } else { Instruction::I32Add };
        self.left(counted, step);
        self.put(&Instruction::LocalTee(near));
        self.put(&counted.constant(pace.iterations.saturating_sub(1)));
        self.put(&Instruction::LocalGet(near));
        self.put(&counted.constant(pace.iterations.saturating_sub(1)));
        self.put(&if counted.wide { Instruction::I64LtU } else { Instruction::I32LtU });
        self.put(&Instruction::Select);
        self.put(&counted.constant(step));
        self.put(&if counted.wide { Instruction::I64Mul } else { Instruction::I32Mul });
        self.put(&counted.constant(step));
        self.put(&sum);
        self.put(&Instruction::LocalGet(counted.counter));
        self.put(&sum);
        self.put(&Instruction::LocalSet(near));
    }

    /// The loop whose pace is set by the test at a position.
    pub(crate) fn paced(&self, test: usize) -> Option<Paced> {
        let found = self.paces.binary_search_by_key(&test, |paced| paced.pace.test).ok()?;
        self.paces.get(found).copied()
    }

    /// Writes the test, whose branch leads to `label`, and the check for when it fails. What was charged ahead does not count
    /// in the check, since some of it may yet be given back.
    pub(crate) fn keep_pace(&mut self, paced: &Paced, label: u32, ahead: i64) {
        let counted = &paced.pace.counted;
        self.put(&Instruction::LocalGet(counted.counter));
        self.put(&Instruction::LocalGet(paced.near));
        self.put(&counted.comparison());
        self.hint(true);
        self.put(&Instruction::BrIf(label));
        self.add(ahead);
        let found = self.regions().loops.get(paced.place);
        let kept = found.map_or_else(Vec::new, |found| self.kept(found));
        self.check_keeping(&kept);
        self.store();
        self.add(ahead.saturating_neg());
        self.put(&Instruction::LocalGet(counted.counter));
        self.put(&counted.fixed(counted.bound));
        self.put(&counted.comparison());
        self.put(&Instruction::If(BlockType::Empty));
        self.set_pace(&paced.pace, paced.near);
        self.put(&Instruction::Br(label.saturating_add(1)));
        self.put(&Instruction::End);
    }
}
