//! Finds loops that count: those whose number of iterations can be told before they run, so that no iteration needs to ask.
//!
//! ```text
//! loop $l
//!   …
//!   local.get $i  step  i32.add  local.tee $i     ;; the only write of $i; the step is a constant or a fixed local
//!   bound  i32.ne  br_if $l                       ;; the only way back; the bound, too
//! end
//! ```
//!
//! That is what LLVM makes of most loops, with `!=` and a constant step wherever it can. Nothing is assumed of the values: a
//! loop may begin beyond its bound, step over it, wrap around or never end.

use wasm_encoder::{BlockType, Instruction};
use wasmparser::Operator;

/// Greatest step, either way: what a few of them add up to is far from wrapping around, and what a step is divisible by is
/// far from the width of a number.
pub(crate) const STEP_MAX: u64 = 1 << 20;

/// A number that does not change while the loop runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fixed {
    /// A constant.
    Constant(i64),
    /// A local that the loop does not write.
    Local(u32),
}

/// What must hold between the counter, after its step, and the bound, for the loop to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    /// It differs.
    Differs,
    /// It is less; the step is not negative.
    Below { signed: bool },
    /// It is greater; the step is negative.
    Above { signed: bool },
}

/// How a loop counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// The local that counts.
    pub(crate) counter: u32,
    /// Whether that is an `i64`, or else an `i32`.
    pub(crate) wide: bool,
    /// What is added to it in each iteration.
    pub(crate) step: Fixed,
    /// What it is compared with.
    pub(crate) bound: Fixed,
    /// And how.
    pub(crate) test: Test,
    /// Number of the instruction within the body that yields the counter to the test.
    pub(crate) tested: usize,
    /// Number of the instruction that yields the bound, if that comes before the other.
    pub(crate) bounded: Option<usize>,
}

impl Counted {
    /// Looks whether a simple loop with this body counts.
    pub(crate) fn of(ty: BlockType, body: &[Operator<'_>]) -> Option<Self> {
        if !matches!(ty, BlockType::Empty) {
            return None;
        }
        let found = Self::tail(body)?;
        found.counts(body).then_some(found)
    }

    /// Reads the test at the end of the body and the step of what it tests.
    fn tail(body: &[Operator<'_>]) -> Option<Self> {
        let (Operator::BrIf { relative_depth: 0 }, before) = body.split_last()? else {
            return None;
        };
        let (compared, before) = before.split_last()?;
        if let Some(counter) = yielded(compared) {
            let tested = before.len();
            return Self::stepped(
                body,
                counter,
                tested,
                None,
                (Test::Differs, None, Fixed::Constant(0)),
            );
        }
        let (test, wide) = comparison(compared)?;
        let (last, earlier) = before.split_last()?;
        let (first, tested) = (earlier.last()?, earlier.len());
        // The counter first, then the bound …
        if let (Some(bound), Some(counter)) = (fixed(last), yielded(first))
            && !matches!(last, Operator::LocalGet { local_index } if writes(body, *local_index) > 0)
        {
            return Self::stepped(
                body,
                counter,
                tested.checked_sub(1)?,
                None,
                (test, Some(wide), bound),
            );
        }
        // … or the bound first: directly before, or before all that makes up the counter.
        let counter = yielded(last)?;
        let distance = if matches!(last, Operator::LocalTee { .. }) { 4 } else { 1 };
        let bounded = tested.checked_sub(distance)?;
        let bound = fixed(body.get(bounded)?)?;
        Self::stepped(body, counter, tested, Some(bounded), (turned(test), Some(wide), bound))
    }

    /// Finds the one write of the counter.
    fn stepped(
        body: &[Operator<'_>],
        counter: u32,
        tested: usize,
        bounded: Option<usize>,
        (test, wide, bound): (Test, Option<bool>, Fixed),
    ) -> Option<Self> {
        let written = body.iter().position(|operator| written(operator) == Some(counter))?;
        let [one, other, sum] = body.get(written.checked_sub(3)?..written)? else { return None };
        let (adds, width) = match sum {
            Operator::I32Add => (true, false),
            Operator::I64Add => (true, true),
            Operator::I32Sub => (false, false),
            Operator::I64Sub => (false, true),
            _ => return None,
        };
        let is_counter = |operator: &Operator<'_>| matches!(operator, Operator::LocalGet { local_index } if *local_index == counter);
        let step = match (fixed(one)?, fixed(other)?) {
            (_, step) if is_counter(one) => step,
            (step, _) if is_counter(other) && adds => step,
            _ => return None,
        };
        let step = match step {
            Fixed::Constant(step) if !adds => Fixed::Constant(step.checked_neg()?),
            Fixed::Local(_) if !adds => return None,
            step => step,
        };
        let wide = wide.unwrap_or(width);
        (wide == width).then_some(Self { counter, wide, step, bound, test, tested, bounded })
    }

    /// Whether nothing else in the body spoils it.
    fn counts(&self, body: &[Operator<'_>]) -> bool {
        let fitting = match (self.test, self.step) {
            (Test::Differs, Fixed::Constant(step)) => step != 0 && step.unsigned_abs() <= STEP_MAX,
            (Test::Below { .. }, Fixed::Constant(step)) => {
                step > 0 && step.unsigned_abs() <= STEP_MAX
            }
            (Test::Above { .. }, Fixed::Constant(step)) => {
                step < 0 && step.unsigned_abs() <= STEP_MAX
            }
            (Test::Below { signed: false }, Fixed::Local(_)) => !self.wide,
            (_, Fixed::Local(_)) => false,
        };
        let stays = |fixed: Fixed| match fixed {
            Fixed::Constant(_) => true,
            Fixed::Local(local) => local != self.counter && writes(body, local) == 0,
        };
        fitting
            && stays(self.step)
            && stays(self.bound)
            && writes(body, self.counter) == 1
            && self.is_straight(body)
    }

    /// Whether every iteration steps once, and comes back by the test alone.
    fn is_straight(&self, body: &[Operator<'_>]) -> bool {
        let (mut depth, mut straight) = (0_u32, true);
        let last = body.len().saturating_sub(1);
        for (place, operator) in body.iter().enumerate() {
            match operator {
                Operator::Block { .. } | Operator::If { .. } => depth = depth.saturating_add(1),
                Operator::End => depth = depth.saturating_sub(1),
                Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
                    straight &= *relative_depth != depth || place == last;
                }
                other => straight &= depth == 0 || written(other) != Some(self.counter),
            }
        }
        straight
    }

    /// A constant of the counter's type.
    pub(crate) fn constant(&self, value: i64) -> Instruction<'static> {
        if self.wide {
            Instruction::I64Const(value)
        } else {
            // The low half of the number, which is what arithmetic on it would have left.
            let low = value.to_le_bytes();
            Instruction::I32Const(i32::from_le_bytes([low[0], low[1], low[2], low[3]]))
        }
    }

    /// The number itself.
    pub(crate) fn fixed(&self, fixed: Fixed) -> Instruction<'static> {
        match fixed {
            Fixed::Constant(value) => self.constant(value),
            Fixed::Local(local) => Instruction::LocalGet(local),
        }
    }

    /// The comparison of the counter with the bound.
    pub(crate) fn comparison(&self) -> Instruction<'static> {
        use Instruction as I;
        match (self.test, self.wide) {
            (Test::Differs, false) => I::I32Ne,
            (Test::Differs, true) => I::I64Ne,
            (Test::Below { signed: false }, false) => I::I32LtU,
            (Test::Below { signed: true }, false) => I::I32LtS,
            (Test::Below { signed: false }, true) => I::I64LtU,
            (Test::Below { signed: true }, true) => I::I64LtS,
            (Test::Above { signed: false }, false) => I::I32GtU,
            (Test::Above { signed: true }, false) => I::I32GtS,
            (Test::Above { signed: false }, true) => I::I64GtU,
            (Test::Above { signed: true }, true) => I::I64GtS,
        }
    }
}

/// The local that an instruction yields.
fn yielded(operator: &Operator<'_>) -> Option<u32> {
    match operator {
        Operator::LocalGet { local_index } | Operator::LocalTee { local_index } => {
            Some(*local_index)
        }
        _ => None,
    }
}

/// The local that an instruction writes.
fn written(operator: &Operator<'_>) -> Option<u32> {
    match operator {
        Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
            Some(*local_index)
        }
        _ => None,
    }
}

/// How often a body writes a local.
fn writes(body: &[Operator<'_>], local: u32) -> usize {
    body.iter().filter(|operator| written(operator) == Some(local)).count()
}

/// What an instruction yields if that may be fixed.
fn fixed(operator: &Operator<'_>) -> Option<Fixed> {
    match operator {
        Operator::I32Const { value } => Some(Fixed::Constant(i64::from(*value))),
        Operator::I64Const { value } => Some(Fixed::Constant(*value)),
        Operator::LocalGet { local_index } => Some(Fixed::Local(*local_index)),
        _ => None,
    }
}

/// The test that a comparison makes, and whether on `i64`.
fn comparison(operator: &Operator<'_>) -> Option<(Test, bool)> {
    Some(match operator {
        Operator::I32Ne => (Test::Differs, false),
        Operator::I64Ne => (Test::Differs, true),
        Operator::I32LtU => (Test::Below { signed: false }, false),
        Operator::I32LtS => (Test::Below { signed: true }, false),
        Operator::I64LtU => (Test::Below { signed: false }, true),
        Operator::I64LtS => (Test::Below { signed: true }, true),
        Operator::I32GtU => (Test::Above { signed: false }, false),
        Operator::I32GtS => (Test::Above { signed: true }, false),
        Operator::I64GtU => (Test::Above { signed: false }, true),
        Operator::I64GtS => (Test::Above { signed: true }, true),
        _ => return None,
    })
}

/// The same test with its sides exchanged.
const fn turned(test: Test) -> Test {
    match test {
        Test::Differs => Test::Differs,
        Test::Below { signed } => Test::Above { signed },
        Test::Above { signed } => Test::Below { signed },
    }
}
