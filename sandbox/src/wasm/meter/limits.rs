//! Up to where the strips of a counted loop run, computed when the loop begins.

use wasm_encoder::Instruction;

use super::counted::{Counted, Fixed, Test};
use super::emit::Emitter;

impl Emitter<'_> {
    /// Up to where a strip is certain: a constant if that is known now, or else the local for it.
    pub(crate) fn limit(&self, counted: &Counted, count: i64) -> Instruction<'static> {
        let (Fixed::Constant(step), Fixed::Constant(bound)) = (counted.step, counted.bound) else {
            return Instruction::LocalGet(self.limit_local(counted));
        };
        let distance = step.saturating_mul(count - 1);
        let (least, most) = range(counted.wide);
        let limit = match counted.test {
            Test::Differs => return Instruction::LocalGet(self.limit_local(counted)),
            Test::Below { signed: true } | Test::Above { signed: true } => {
                bound.saturating_sub(distance).clamp(least, most)
            }
            Test::Below { signed: false } | Test::Above { signed: false } => {
                let top = if counted.wide { u64::MAX } else { u64::from(u32::MAX) };
                // As wide as it is, or the low half of its sign extension.
                let bound = u64::from_le_bytes(bound.to_le_bytes()) & top;
                let limit = bound.saturating_add_signed(distance.saturating_neg()).min(top);
                i64::from_le_bytes(limit.to_le_bytes())
            }
        };
        counted.constant(limit)
    }

    pub(crate) const fn limit_local(&self, counted: &Counted) -> u32 {
        let [narrow, wide] = self.limits;
        if counted.wide { wide } else { narrow }
    }

    /// Sets the limit of a strip where counters are compared by size: `bound - (count - 1) * step`, or the end of the numbers,
    /// which no counter is beyond.
    pub(crate) fn set_limit(&mut self, counted: &Counted, count: i64) {
        let local = self.limit_local(counted);
        let Fixed::Constant(step) = counted.step else {
            return self.set_variable_limit(counted, count);
        };
        if matches!(counted.bound, Fixed::Constant(_)) {
            return;
        }
        let distance = step.saturating_mul(count - 1);
        let (least, most) = range(counted.wide);
        let (end, near) = match counted.test {
            Test::Below { signed: true } => (least, least.saturating_add(distance)),
            Test::Above { signed: true } => (most, most.saturating_add(distance)),
            Test::Above { signed: false } => (-1, (-1_i64).saturating_add(distance)),
            Test::Below { signed: false } | Test::Differs => (0, distance),
        };
        let (add, bound) = (sum(counted.wide), counted.fixed(counted.bound));
        self.put(&bound);
        self.put(&counted.constant(distance.saturating_neg()));
        self.put(&add);
        self.put(&counted.constant(end));
        self.put(&bound);
        self.put(&counted.constant(near));
        // Below: the bound is far enough from the least number; above: from the greatest.
        self.put(&turned(&counted.comparison()));
        self.put(&Instruction::Select);
        self.put(&Instruction::LocalSet(local));
    }

    /// Likewise with a step that is only known when the loop begins.
    pub(crate) fn set_variable_limit(&mut self, counted: &Counted, count: i64) {
        let [narrow, wide] = self.limits;
        self.put(&counted.fixed(counted.bound));
        self.put(&Instruction::I64ExtendI32U);
        self.put(&counted.fixed(counted.step));
        self.put(&Instruction::I64ExtendI32U);
        self.put(&Instruction::I64Const(count - 1));
        self.put(&Instruction::I64Mul);
        self.put(&Instruction::I64Sub);
        self.put(&Instruction::LocalTee(wide));
        self.put(&Instruction::I32WrapI64);
        self.put(&Instruction::I32Const(0));
        self.put(&Instruction::LocalGet(wide));
        self.put(&Instruction::I64Const(0));
        self.put(&Instruction::I64GtS);
        self.put(&Instruction::Select);
        self.put(&Instruction::LocalSet(narrow));
    }

    /// How many iterations are left, less one, of a loop that goes on until its counter meets the bound by a constant step:
    /// `(bound - counter - step) / step`. The division is exact: by the odd part of the step it is a multiplication, and by
    /// the power of two a rotation, which yields a giant number if there is a remainder, for a loop that never ends.
    pub(crate) fn left(&mut self, counted: &Counted, step: i64) {
        let shift = step.trailing_zeros();
        if let Fixed::Constant(bound) = counted.bound {
            self.put(&Instruction::LocalGet(counted.counter));
            // As `not counter + (bound - step + 1)`, since a compiler keeps a constant it is to subtract from in a register.
            self.put(&counted.constant(-1));
            self.put(&if counted.wide { Instruction::I64Xor } else { Instruction::I32Xor });
            self.put(&counted.constant(bound.wrapping_sub(step).wrapping_add(1)));
            self.put(&sum(counted.wide));
        } else {
            self.put(&counted.fixed(counted.bound));
            self.put(&Instruction::LocalGet(counted.counter));
            self.put(&difference(counted.wide));
            self.put(&counted.constant(step));
            self.put(&difference(counted.wide));
        }
        self.put(&counted.constant(inverse(step >> shift)));
        self.put(&product(counted.wide));
        self.put(&counted.constant(i64::from(shift)));
        self.put(&if counted.wide { Instruction::I64Rotr } else { Instruction::I32Rotr });
    }

    /// Skips the strips if fewer iterations are left than one has, or else sets the limit to where they end: for a loop that
    /// never meets its bound, where it never comes.
    pub(crate) fn meets(&mut self, counted: &Counted, count: i64) {
        let Fixed::Constant(step) = counted.step else { return };
        let local = self.limit_local(counted);
        let bound = counted.fixed(counted.bound);
        self.left(counted, step);
        self.put(&Instruction::LocalTee(local));
        self.put(&counted.constant(count - 1));
        self.put(&if counted.wide { Instruction::I64LtU } else { Instruction::I32LtU });
        self.put(&Instruction::BrIf(0));
        self.put(&bound);
        self.put(&Instruction::LocalGet(local));
        self.put(&counted.constant(1));
        self.put(&sum(counted.wide));
        self.put(&counted.constant(count - 1));
        self.put(&if counted.wide { Instruction::I64And } else { Instruction::I32And });
        self.put(&counted.constant(step));
        self.put(&product(counted.wide));
        self.put(&difference(counted.wide));
        self.put(&Instruction::LocalSet(local));
    }
}

/// The least and the greatest signed number.
const fn range(wide: bool) -> (i64, i64) {
    if wide { (i64::MIN, i64::MAX) } else { (i32::MIN as i64, i32::MAX as i64) }
}

const fn sum(wide: bool) -> Instruction<'static> {
    if wide { Instruction::I64Add } else { Instruction::I32Add }
}

const fn difference(wide: bool) -> Instruction<'static> {
    if wide { Instruction::I64Sub } else { Instruction::I32Sub }
}

const fn product(wide: bool) -> Instruction<'static> {
    if wide { Instruction::I64Mul } else { Instruction::I32Mul }
}

/// What an odd number is multiplied with to make 1, modulo 2⁶⁴ and so modulo 2³². Each round doubles the bits that are right.
fn inverse(odd: i64) -> i64 {
    (0..6).fold(odd, |found, _| found.wrapping_mul(2_i64.wrapping_sub(odd.wrapping_mul(found))))
}

/// The comparison with its sides exchanged.
fn turned(comparison: &Instruction<'static>) -> Instruction<'static> {
    use Instruction as I;
    match comparison {
        I::I32LtU => I::I32GtU,
        I::I32LtS => I::I32GtS,
        I::I64LtU => I::I64GtU,
        I::I64LtS => I::I64GtS,
        I::I32GtU => I::I32LtU,
        I::I32GtS => I::I32LtS,
        I::I64GtU => I::I64LtU,
        I::I64GtS => I::I64LtS,
        other => other.clone(),
    }
}
