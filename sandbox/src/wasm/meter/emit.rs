//! Writes a function body anew with its charges, its checks and its innermost loops unrolled.
//!
//! Fuel lives in a local, which the compiler keeps in a register, and is written back to the global wherever others
//! look at it: at calls, returns and loop headers. A charge subtracts a region's cost; a check asks for more when the
//! local is negative:
//!
//! ```text
//! (func                       (func  fuel = global  ⟨entry⟩  check
//!   loop $l                     loop $l
//!     body                        ⟨body⟩                              ;; fuel -= what it costs
//!     br_if $l                    fuel < 0 ? fuel = topup(fuel)       ;; a check
//!   end                           global = fuel                       ;; so that a trap finds it
//!   call $g)                      body  br_if $l
//!                               end
//!                               global = fuel  call $g  fuel = global)
//! ```
//!
//! Loops that are unrolled look otherwise: see [`super::copies`].

use wasm_encoder::reencode::Reencode;
use wasm_encoder::{BlockType, Function, Instruction, ValType};
use wasmparser::{FunctionBody, Operator};

use super::MeterError;
use super::added::Added;
use super::cost::{self, Sized};
use super::regions::{Charge, Regions};
use super::rewrite::Layout;
use super::unroll::Unrolled;

/// Most bytes an engine accepts as one function's body.
const FUNCTION_BYTES_MAX: usize = 7_654_321;
/// A function that calls nothing and whose instructions, each taken once, cost at most this many units needs no check of
/// its own on entry: its caller's next check is near enough.
const LEAF_UNITS_MAX: u64 = 64;

/// A function as the engine will see it.
#[derive(Debug)]
pub(crate) struct Metered {
    /// Its body.
    pub(crate) body: Function,
    /// How many checks it contains.
    pub(crate) checks: usize,
    /// What is known of its branches, by ascending offset.
    pub(crate) hints: Vec<Hint>,
}

/// How a branch mostly goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hint {
    /// Where its `if` or `br_if` stands, in bytes from the start of the body.
    pub(crate) offset: u32,
    /// Whether it is mostly taken, or else rarely.
    pub(crate) likely: bool,
}

/// What is to be written.
pub(crate) struct Source<'s, 'a> {
    /// Index in the module as given, for messages.
    pub(crate) function: u32,
    /// The body as given.
    pub(crate) body: &'s FunctionBody<'a>,
    /// How many parameters and locals it has: the next indices are the meter's.
    pub(crate) locals: u32,
    /// Types of the parameters.
    pub(crate) parameters: &'s [wasmparser::ValType],
    /// What it owes.
    pub(crate) regions: &'s Regions,
    /// Which of its loops to unroll.
    pub(crate) unrolled: &'s [Unrolled],
    /// Type of a block that yields the function's results, if its label is branched to.
    pub(crate) frame: Option<BlockType>,
    /// Whether to meter at all, or only unroll.
    pub(crate) metering: bool,
}

/// A body being written.
pub(crate) struct Emitter<'e> {
    layout: Layout,
    added: &'e mut Added,
    /// Types of the parameters and locals: up to which index, and what.
    types: Vec<(u32, ValType)>,
    regions: &'e Regions,
    out: Function,
    checks: usize,
    hints: Vec<Hint>,
    /// The local that holds the fuel.
    fuel: u32,
    /// The local that holds the operand of a sized instruction.
    size: u32,
    /// Whether the global may differ from the local.
    dirty: bool,
    /// Whether to meter at all.
    metering: bool,
}

/// Writes a body anew.
///
/// # Errors
/// [`MeterError::FunctionTooLarge`] if an engine would refuse the result.
pub(crate) fn emit(added: &mut Added, source: &Source<'_, '_>) -> Result<Metered, MeterError> {
    let mut layout = added.layout;
    let (mut locals, mut types, mut end) = (vec![], vec![], 0_u32);
    for ty in source.parameters {
        end = end.saturating_add(1);
        types.push((end, layout.val_type(*ty)?));
    }
    for pair in source.body.get_locals_reader()? {
        let (count, ty) = pair?;
        let ty = layout.val_type(ty)?;
        locals.push((count, ty));
        end = end.saturating_add(count);
        types.push((end, ty));
    }
    locals.push((1, ValType::I64));
    if source.regions.sized {
        locals.push((1, ValType::I32));
    }
    let mut emitter = Emitter {
        layout,
        added,
        types,
        regions: source.regions,
        out: Function::new(locals),
        checks: 0,
        hints: vec![],
        fuel: source.locals,
        size: source.locals.saturating_add(1),
        dirty: false,
        metering: source.metering,
    };
    emitter.body(source)?;
    let bytes = emitter.out.byte_len();
    if bytes > FUNCTION_BYTES_MAX {
        return Err(MeterError::FunctionTooLarge { function: source.function, bytes });
    }
    Ok(Metered { body: emitter.out, checks: emitter.checks, hints: emitter.hints })
}

impl<'e> Emitter<'e> {
    fn body(&mut self, source: &Source<'_, '_>) -> Result<(), MeterError> {
        self.load();
        let mut charges = self.regions.charges.as_slice();
        let mut loops = self.regions.loops.iter().peekable();
        let mut unrolled = source.unrolled.iter().peekable();
        let mut reader = source.body.get_operators_reader()?;
        let mut position = 0;
        self.charge(&mut charges, position);
        if !self.is_cheap_leaf() {
            self.check();
        }
        if let Some(ty) = source.frame {
            self.put(&Instruction::Block(ty));
        }
        while !reader.eof() {
            self.charge(&mut charges, position);
            let operator = reader.read()?;
            if matches!(operator, Operator::Loop { .. }) {
                let this = loops.next();
                if let Some(plan) = unrolled.next_if(|plan| plan.start == position) {
                    let count = plan.end.saturating_sub(plan.start);
                    let rest = (0..count).map(|_| reader.read()).collect::<Result<Vec<_>, _>>()?;
                    let Operator::Loop { blockty } = operator else { continue };
                    let ty = self.layout.block_type(blockty)?;
                    self.unroll(ty, rest.split_last().map_or(&[], |(_, body)| body), plan)?;
                    charges = self.regions.charges_from(plan.end);
                    position = plan.end;
                    self.charge(&mut charges, position);
                    position += 1;
                    continue;
                }
                self.operator(operator)?;
                position += 1;
                self.charge(&mut charges, position);
                if let Some(this) = this.filter(|this| this.repeats.is_some()) {
                    // What lives across calls anyway needs no keeping.
                    self.check_keeping(if this.calls { &[] } else { &this.reads });
                    self.store();
                }
                continue;
            }
            if reader.eof() {
                // The function's last `end`.
                if source.frame.is_some() {
                    self.put(&Instruction::End);
                    self.dirty = true;
                }
                self.store();
            }
            self.operator(operator)?;
            position += 1;
        }
        Ok(())
    }

    /// Whether the function may run to its end, or to its first loop's check, before anyone looks.
    fn is_cheap_leaf(&self) -> bool {
        let all = self.regions.charges.iter().map(|charge| charge.units);
        let units = all.fold(0_u64, u64::saturating_add);
        !self.regions.calls && !self.regions.sized && units <= LEAF_UNITS_MAX
    }

    /// Writes an instruction, and before and after it what it means for the fuel.
    pub(crate) fn operator(&mut self, operator: Operator<'_>) -> Result<(), MeterError> {
        match operator {
            Operator::Call { .. } | Operator::CallIndirect { .. } => {
                self.store();
                self.plain(operator)?;
                self.load();
            }
            Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::Return
            | Operator::Unreachable => {
                self.store();
                self.plain(operator)?;
            }
            Operator::Loop { .. } | Operator::Else | Operator::End => {
                self.plain(operator)?;
                self.dirty = true;
            }
            other => {
                if let Some(sized) = cost::sized(&other) {
                    self.sized(sized);
                }
                self.plain(other)?;
            }
        }
        Ok(())
    }

    /// Charges what is due at a position, the first of `charges` if any.
    pub(crate) fn charge(&mut self, charges: &mut &[Charge], position: usize) {
        let Some((first, rest)) = charges.split_first() else { return };
        if first.position != position {
            return;
        }
        *charges = rest;
        self.add(i64::try_from(first.units).map_or(i64::MIN, i64::wrapping_neg));
    }

    /// Adds to the fuel: a refund, or a charge if negative.
    pub(crate) fn add(&mut self, units: i64) {
        if self.metering && units != 0 {
            self.put(&Instruction::LocalGet(self.fuel));
            self.put(&Instruction::I64Const(units));
            self.put(&Instruction::I64Add);
            self.put(&Instruction::LocalSet(self.fuel));
            self.dirty = true;
        }
    }

    /// Asks for more if more was spent than granted.
    pub(crate) fn check(&mut self) {
        self.check_keeping(&[]);
    }

    /// As [`Self::check`]; these locals are kept meanwhile.
    fn check_keeping(&mut self, locals: &[u32]) {
        if !self.metering {
            return;
        }
        self.put(&Instruction::LocalGet(self.fuel));
        self.put(&Instruction::I64Const(0));
        self.put(&Instruction::I64LtS);
        self.hint(false);
        self.put(&Instruction::If(BlockType::Empty));
        self.top_up(locals);
        self.put(&Instruction::End);
    }

    /// Goes back to the loop it stands in if there is fuel, or else leaves it and asks for more, keeping these locals.
    pub(crate) fn again(&mut self, locals: &[u32]) {
        if !self.metering {
            self.put(&Instruction::Br(0));
            self.put(&Instruction::End);
            return;
        }
        self.put(&Instruction::LocalGet(self.fuel));
        self.put(&Instruction::I64Const(0));
        self.put(&Instruction::I64GeS);
        self.hint(true);
        self.put(&Instruction::BrIf(0));
        self.put(&Instruction::End);
        self.top_up(locals);
    }

    /// Asks for more. The locals that matter here are put into globals before and taken from there after, which changes
    /// nothing for them, but much for a register allocator: no value lives across this call, and so none is kept in memory
    /// on the way past it, which is the way that counts.
    fn top_up(&mut self, locals: &[u32]) {
        self.checks = self.checks.saturating_add(1);
        let mut kept: Vec<_> = locals.iter().filter_map(|local| self.number(*local)).collect();
        kept.sort_unstable();
        let slots = self.added.slots(kept.iter().map(|(ty, _)| *ty));
        for ((_, local), slot) in kept.iter().zip(&slots) {
            self.put(&Instruction::LocalGet(*local));
            self.put(&Instruction::GlobalSet(*slot));
        }
        self.put(&Instruction::LocalGet(self.fuel));
        self.put(&Instruction::Call(self.layout.topup));
        self.put(&Instruction::LocalSet(self.fuel));
        for ((_, local), slot) in kept.iter().zip(&slots) {
            self.put(&Instruction::GlobalGet(*slot));
            self.put(&Instruction::LocalSet(*local));
        }
    }

    /// The type of a local if it is a number, and the local.
    fn number(&self, local: u32) -> Option<(ValType, u32)> {
        let place = self.types.partition_point(|(end, _)| *end <= local);
        let (_, ty) = self.types.get(place)?;
        match ty {
            ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 | ValType::V128 => {
                Some((*ty, local))
            }
            ValType::Ref(_) => None,
        }
    }

    /// Notes how the branch that comes next mostly goes.
    pub(crate) fn hint(&mut self, likely: bool) {
        let offset = u32::try_from(self.out.byte_len()).unwrap_or(u32::MAX);
        self.hints.push(Hint { offset, likely });
    }

    /// Charges for the topmost operand, which stays where it is, and checks: one such operation may cost a whole budget.
    fn sized(&mut self, sized: Sized) {
        if !self.metering {
            return;
        }
        self.put(&Instruction::LocalTee(self.size));
        self.put(&Instruction::LocalGet(self.fuel));
        self.put(&Instruction::LocalGet(self.size));
        if sized == Sized::Pages {
            self.put(&Instruction::I32Const(cost::PAGES_MAX));
            self.put(&Instruction::LocalGet(self.size));
            self.put(&Instruction::I32Const(cost::PAGES_MAX));
            self.put(&Instruction::I32LtU);
            self.put(&Instruction::Select);
        }
        self.put(&Instruction::I64ExtendI32U);
        match sized {
            Sized::Bytes => {
                self.put(&Instruction::I64Const(cost::BYTES_PER_UNIT_LOG2));
                self.put(&Instruction::I64ShrU);
            }
            Sized::Elements => {}
            Sized::Pages => {
                self.put(&Instruction::I64Const(cost::UNITS_PER_PAGE_LOG2));
                self.put(&Instruction::I64Shl);
            }
        }
        self.put(&Instruction::I64Sub);
        self.put(&Instruction::LocalSet(self.fuel));
        self.dirty = true;
        self.check();
        self.store();
    }

    /// Takes the fuel from the global.
    fn load(&mut self) {
        if !self.metering {
            return;
        }
        self.put(&Instruction::GlobalGet(self.layout.fuel));
        self.put(&Instruction::LocalSet(self.fuel));
        self.dirty = false;
    }

    /// Puts the fuel back into the global, unless it is there.
    pub(crate) fn store(&mut self) {
        if self.dirty && self.metering {
            self.put(&Instruction::LocalGet(self.fuel));
            self.put(&Instruction::GlobalSet(self.layout.fuel));
            self.dirty = false;
        }
    }

    /// Notes that control may come from elsewhere, with the global behind the local.
    pub(crate) fn joined(&mut self) {
        self.dirty = true;
    }

    /// What the body owes.
    pub(crate) fn regions(&self) -> &'e Regions {
        self.regions
    }

    fn plain(&mut self, operator: Operator<'_>) -> Result<(), MeterError> {
        let instruction = self.layout.instruction(operator)?;
        self.put(&instruction);
        Ok(())
    }

    pub(crate) fn put(&mut self, instruction: &Instruction<'_>) {
        self.out.instruction(instruction);
    }
}
