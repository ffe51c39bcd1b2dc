//! What each instruction costs, in units of fuel: the one table the meter charges by.
//!
//! One unit is roughly one instruction of the machine. The table is part of the contract with plugin authors:
//! the same module, input and table give the same fuel on every machine. An instruction outside the accepted
//! proposals has no cost, and a module that uses one is refused.

use wasmparser::Operator;

/// An instruction that is in none of the groups below.
pub const ORDINARY: u64 = 1;
/// `nop`, `block`, `loop`, `else` and `end`: they shape code and do nothing.
pub const STRUCTURE: u64 = 0;
/// A division, remainder or square root.
pub const DIVISION: u64 = 8;
/// A direct call, with or without return, and `ref.func`. The callee pays its [`entry`] besides.
pub const CALL: u64 = 4;
/// An indirect call: table bounds, null and signature are looked at.
pub const CALL_INDIRECT: u64 = 8;
/// A bulk operation or a growth, before what its size costs.
pub const BULK: u64 = 64;
/// `memory.copy`, `memory.fill` and `memory.init` cost one unit per this many bytes (2³).
pub const BYTES_PER_UNIT_LOG2: i64 = 3;
/// `memory.grow` costs this many units per page (2¹⁰): one per 64 bytes that the system will have to clear.
pub const UNITS_PER_PAGE_LOG2: i64 = 10;
/// `memory.grow` by more pages than this fails anyway and costs as much as this many.
pub const PAGES_MAX: i32 = 1 << 16;

/// What the size operand of an instruction, the topmost on the stack, adds to its cost before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sized {
    /// Bytes: one unit per 2^[`BYTES_PER_UNIT_LOG2`], rounded down.
    Bytes,
    /// Elements of a table: one unit each.
    Elements,
    /// Pages of memory: 2^[`UNITS_PER_PAGE_LOG2`] units each, at most [`PAGES_MAX`] of them.
    Pages,
}

/// What entering a function costs: each of its parameters, locals and results may need to be set or moved.
#[must_use]
pub const fn entry(parameters: u64, locals: u64, results: u64) -> u64 {
    1 + parameters + locals + results
}

/// What an instruction costs whenever it runs, or `None` for one outside the accepted proposals.
///
/// A branch costs one unit more for each value it carries, which only its label tells: see the survey of a body.
#[must_use]
pub fn of(operator: &Operator<'_>) -> Option<u64> {
    match operator {
        Operator::Nop
        | Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::Else
        | Operator::End => Some(STRUCTURE),
        Operator::I32DivS
        | Operator::I32DivU
        | Operator::I32RemS
        | Operator::I32RemU
        | Operator::I64DivS
        | Operator::I64DivU
        | Operator::I64RemS
        | Operator::I64RemU
        | Operator::F32Div
        | Operator::F64Div
        | Operator::F32Sqrt
        | Operator::F64Sqrt
        | Operator::F32x4Div
        | Operator::F64x2Div
        | Operator::F32x4Sqrt
        | Operator::F64x2Sqrt => Some(DIVISION),
        Operator::Call { .. } | Operator::ReturnCall { .. } | Operator::RefFunc { .. } => {
            Some(CALL)
        }
        Operator::CallIndirect { .. } | Operator::ReturnCallIndirect { .. } => Some(CALL_INDIRECT),
        Operator::DataDrop { .. } | Operator::ElemDrop { .. } => Some(BULK),
        other if sized(other).is_some() => Some(BULK),
        other => accepted(other).then_some(ORDINARY),
    }
}

/// Whether the cost of an instruction depends on its topmost operand, and how.
#[must_use]
pub fn sized(operator: &Operator<'_>) -> Option<Sized> {
    match operator {
        Operator::MemoryCopy { .. } | Operator::MemoryFill { .. } | Operator::MemoryInit { .. } => {
            Some(Sized::Bytes)
        }
        Operator::TableCopy { .. }
        | Operator::TableFill { .. }
        | Operator::TableInit { .. }
        | Operator::TableGrow { .. } => Some(Sized::Elements),
        Operator::MemoryGrow { .. } => Some(Sized::Pages),
        _ => None,
    }
}

/// Whether an instruction belongs to an accepted proposal: what is not named here is refused.
fn accepted(operator: &Operator<'_>) -> bool {
    macro_rules! by_proposal {
        ($( @$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
            match operator {
                $( Operator::$op { .. } => by_proposal!(is @$proposal), )*
                _ => false,
            }
        };
        (is @mvp) => { true };
        (is @sign_extension) => { true };
        (is @saturating_float_to_int) => { true };
        (is @bulk_memory) => { true };
        (is @reference_types) => { true };
        (is @tail_call) => { true };
        (is @simd) => { true };
        (is @$proposal:ident) => { false };
    }
    wasmparser::for_each_operator!(by_proposal)
}
