//! Writes a function body anew with its charges, its checks and its innermost loops unrolled.
//!
//! Fuel lives in a local, which the compiler keeps in a register, and is written back to the global wherever others
//! look at it: at calls, returns and loop headers. A charge subtracts a region's cost; a check asks for more when the
//! local is negative:
//!
//! ```text
//! (func                       (func  fuel = global  ⟨entry⟩  check
//!   loop $l                     loop $l
//!     body                        fuel < 0 ? fuel = topup(fuel)       ;; a check
//!     br_if $l                    global = fuel                       ;; so that a trap finds it
//!   end                           ⟨body⟩                              ;; fuel -= what it costs
//!   call $g)                      body  br_if $l
//!                               end
//!                               global = fuel  call $g  fuel = global)
//! ```
//!
//! Loops that are unrolled look otherwise: see [`super::copies`]; and so do some others: see [`super::pace`].

use wasm_encoder::reencode::Reencode;
use wasm_encoder::{BlockType, Function, Instruction, ValType};
use wasmparser::{FunctionBody, Operator};

use super::MeterError;
use super::added::Added;
use super::cost::{self, Sized};
use super::pace::{self, Paced};
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
    pub(crate) layout: Layout,
    pub(crate) added: &'e mut Added,
    /// Types of the parameters and locals: up to which index, and what.
    pub(crate) types: Vec<(u32, ValType)>,
    pub(crate) regions: &'e Regions,
    out: Function,
    pub(crate) checks: usize,
    hints: Vec<Hint>,
    /// The local that holds the fuel.
    pub(crate) fuel: u32,
    /// The local that holds the operand of a sized instruction.
    size: u32,
    /// The locals that hold up to where a counted loop runs in strips: an `i32` and an `i64`.
    pub(crate) limits: [u32; 2],
    /// The local that holds down to what fuel the rest of a counted loop runs unchecked.
    pub(crate) floor: u32,
    /// Loops at their own pace, by where they are tested.
    pub(crate) paces: Vec<Paced>,
    /// Whether the global may differ from the local.
    dirty: bool,
    /// Whether to meter at all.
    pub(crate) metering: bool,
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
    let (strips, sized) = (!source.unrolled.is_empty(), source.regions.sized);
    // Fuel, size, and for strips two limits and a floor.
    let own = [(ValType::I64, true), (ValType::I32, sized || strips)];
    let limits = [ValType::I32, ValType::I64, ValType::I64].map(|ty| (ty, strips));
    for (ty, _) in own.into_iter().chain(limits).filter(|(_, used)| *used) {
        end = end.saturating_add(1);
        locals.push((1, ty));
        types.push((end, ty));
    }
    let paces = if source.metering { pace::all(source.regions, end) } else { vec![] };
    for paced in &paces {
        let ty = if paced.pace.counted.wide { ValType::I64 } else { ValType::I32 };
        end = end.saturating_add(1);
        locals.push((1, ty));
        types.push((end, ty));
    }
    let mut emitter = Emitter {
        paces,
        layout,
        added,
        types,
        regions: source.regions,
        out: Function::new(locals),
        checks: 0,
        hints: vec![],
        fuel: source.locals,
        size: source.locals.saturating_add(1),
        limits: [source.locals.saturating_add(2), source.locals.saturating_add(3)],
        floor: source.locals.saturating_add(4),
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
                let paced = this.and_then(|this| self.paced(this.pace?.test));
                if let Some(paced) = paced {
                    self.set_pace(&paced.pace, paced.near);
                }
                self.operator(operator)?;
                position += 1;
                if let Some(this) = this.filter(|this| this.repeats.is_some() && paced.is_none()) {
                    // What lives across calls anyway needs no keeping.
                    let kept = if this.calls { vec![] } else { self.kept(this) };
                    self.check_keeping(&kept);
                    self.store();
                }
                // After the check, which so sees nothing that may yet be given back.
                self.charge(&mut charges, position);
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
            self.leaving(operator, position)?;
            position += 1;
        }
        Ok(())
    }

    /// Writes an instruction, and before it what is given back if it leads out of a loop.
    fn leaving(&mut self, operator: Operator<'_>, position: usize) -> Result<(), MeterError> {
        let refund = self.regions.refund_at(position);
        if let (Operator::BrIf { relative_depth }, Some(paced)) = (&operator, self.paced(position))
        {
            self.put(&Instruction::Drop);
            self.keep_pace(&paced, *relative_depth, refund);
            return Ok(());
        }
        match operator {
            // The test of a loop that checks at its own pace: its operands are written anew.
            Operator::I32Ne | Operator::I64Ne
                if self.paced(position + 1).is_some_and(|paced| paced.pace.compared) =>
            {
                self.put(&Instruction::Drop);
                Ok(())
            }
            Operator::BrIf { relative_depth } if refund > 0 && self.metering => {
                self.leave(true, refund, relative_depth, true);
                Ok(())
            }
            other => {
                self.add(refund);
                self.operator(other)
            }
        }
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
                let sized = cost::sized(&other);
                if let Some(sized) = sized {
                    self.sized(sized);
                }
                self.plain(other)?;
                if sized.is_some() {
                    // An engine calls a function for it: taking the fuel from the global spares keeping it meanwhile.
                    self.load();
                }
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
