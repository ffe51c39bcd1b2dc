//! Checks, and what they keep: the locals that live meanwhile are put into globals before more fuel is asked for.
//!
//! That changes nothing for them, but much for a register allocator: no value lives across the call, and so none is kept in
//! memory on the way past it, which is the way that counts. Which locals live is only guessed, from how the code of the loop
//! and of the loop around it stands: one too many or too few is slower, not wrong.

use wasm_encoder::{BlockType, Instruction, ValType};

use super::emit::Emitter;
use super::loops::{HEIGHT_MAX, Loop};

impl Emitter<'_> {
    /// The locals that live while a loop runs, as far as they are known.
    pub(crate) fn kept(&self, found: &Loop) -> Vec<u32> {
        let mut kept: Vec<u32> = found.reads.iter().chain(&found.kept).copied().collect();
        let mut around = found.around;
        for _ in 0..HEIGHT_MAX {
            let Some(place) = around else { break };
            let paced = self.paces.iter().find(|paced| paced.place == place);
            kept.extend(paced.map(|paced| paced.near));
            around = self.regions.loops.get(place).and_then(|found| found.around);
        }
        kept
    }

    /// As [`Self::kept`], of the loop that begins with an instruction.
    pub(crate) fn kept_from(&self, start: usize) -> Vec<u32> {
        let found = self.regions.loops.binary_search_by_key(&start, |found| found.start);
        let found = found.ok().and_then(|found| self.regions.loops.get(found));
        found.map_or_else(Vec::new, |found| self.kept(found))
    }

    /// Asks for more if more was spent than granted.
    pub(crate) fn check(&mut self) {
        self.check_keeping(&[]);
    }

    /// As [`Self::check`]; these locals are kept meanwhile.
    pub(crate) fn check_keeping(&mut self, locals: &[u32]) {
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

    /// Asks for more.
    pub(crate) fn top_up(&mut self, locals: &[u32]) {
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
    pub(crate) fn number(&self, local: u32) -> Option<(ValType, u32)> {
        let place = self.types.partition_point(|(end, _)| *end <= local);
        let (_, ty) = self.types.get(place)?;
        match ty {
            ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 | ValType::V128 => {
                Some((*ty, local))
            }
            ValType::Ref(_) => None,
        }
    }
}
