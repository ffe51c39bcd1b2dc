//! Writes a counted loop in strips: several iterations in a row that test nothing, then the rest one by one.
//!
//! Where the counter stands tells whether several more iterations are certain. With 8 copies, and `c` the cost of an iteration:
//!
//! ```text
//! loop $l                     block $done
//!   body                        loop $again                                  ;; unless the bound is met exactly
//!   br_if $l (i < n)              block $rest
//! end                               br_if $rest (not i < n - 7 steps)
//!                                   loop $strip
//!                                     fuel -= 8c
//!                                     body  body  body  body  body  body  body  body
//!                                     fuel < 0 ? fuel = topup(fuel);  global = fuel
//!                                     br_if $strip (i < n - 7 steps)
//!                                   end
//!                                   br_if $done (not i < n)
//!                                 end
//!                                 loop $r                                    ;; fewer than 8, mostly
//!                                   fuel -= c
//!                                   body
//!                                   br_if $done (not i < n)
//!                                   br_if $r (fuel > what 8 iterations leave)
//!                                 end
//!                                 fuel < 0 ? fuel = topup(fuel);  global = fuel
//!                                 br $again
//!                               end
//!                             end
//! ```
//!
//! A loop that goes on while `i != n` by a constant step has a number of iterations that can be computed, or never ends; all of
//! them but the last few run in strips, and `$again` is not needed. Elsewhere a counter may start beyond its bound or wrap
//! around; then the rest is more than a few, and is looked at like any loop.

use wasm_encoder::{BlockType, Instruction};
use wasmparser::Operator;

use super::MeterError;
use super::copies::{Copies, Place};
use super::counted::{Counted, Test};
use super::emit::Emitter;
use super::unroll::Unrolled;

impl Emitter<'_> {
    /// Writes a counted loop in strips.
    ///
    /// # Errors
    /// [`MeterError::Encoding`] for an instruction that cannot be written.
    pub(crate) fn strips(
        &mut self,
        counted: &Counted,
        body: &[Operator<'_>],
        plan: &Unrolled,
    ) -> Result<(), MeterError> {
        let exact = counted.test == Test::Differs;
        let inner = if exact { 0 } else { 1 };
        let count = i64::try_from(plan.factor).unwrap_or(i64::MAX);
        let limit = self.limit(counted, count);
        self.put(&Instruction::Block(BlockType::Empty));
        if !exact {
            self.set_limit(counted, count);
            self.put(&Instruction::Loop(BlockType::Empty));
        }
        self.put(&Instruction::Block(BlockType::Empty));
        if exact {
            self.meets(counted, count);
        } else {
            self.certain(counted, &limit);
            self.put(&Instruction::I32Eqz);
            self.put(&Instruction::BrIf(0));
        }
        self.put(&Instruction::Loop(BlockType::Empty));
        let spine = self.spine(plan);
        let copies = Copies::straight(plan, count, 2 + inner, spine.clone());
        self.add(copies.later(0).saturating_neg());
        for copy in 1..=u32::try_from(plan.factor).unwrap_or(u32::MAX) {
            self.stripped(&copies, copy, counted, body)?;
        }
        self.joined();
        let mut kept = self.kept_from(plan.start);
        kept.extend(if let Instruction::LocalGet(limit) = limit { Some(limit) } else { None });
        self.check_keeping(&kept);
        self.store();
        self.certain(counted, &limit);
        self.put(&Instruction::BrIf(0));
        self.put(&Instruction::End);
        self.put(&Instruction::LocalGet(counted.counter));
        self.put(&counted.fixed(counted.bound));
        self.put(&counted.comparison());
        self.put(&Instruction::I32Eqz);
        self.put(&Instruction::BrIf(1 + inner));
        self.put(&Instruction::End);
        self.rest(&Copies::straight(plan, 1, 1 + inner, spine), counted, body)?;
        self.put(&Instruction::End);
        self.joined();
        Ok(())
    }

    /// Writes the rest, iteration by iteration.
    fn rest(
        &mut self,
        copies: &Copies<'_>,
        counted: &Counted,
        body: &[Operator<'_>],
    ) -> Result<(), MeterError> {
        let looks = self.metering && counted.test != Test::Differs;
        if looks {
            let several = i64::try_from(copies.plan.factor).unwrap_or(i64::MAX);
            self.put(&Instruction::LocalGet(self.fuel));
            self.put(&Instruction::I64Const(self.whole(copies.plan).saturating_mul(several)));
            self.put(&Instruction::I64Sub);
            self.put(&Instruction::LocalSet(self.floor));
        }
        self.put(&Instruction::Loop(BlockType::Empty));
        self.add(copies.later(0).saturating_neg());
        let body = body.split_last().map_or(body, |(_, rest)| rest);
        self.iteration(copies, 1, body.iter().map(Some))?;
        if looks {
            self.put(&Instruction::I32Eqz);
            self.put(&Instruction::BrIf(2));
            self.put(&Instruction::LocalGet(self.fuel));
            self.put(&Instruction::LocalGet(self.floor));
            self.put(&Instruction::I64GtS);
            self.hint(true);
        }
        self.put(&Instruction::BrIf(0));
        self.put(&Instruction::End);
        if looks {
            self.joined();
            let kept = self.kept_from(copies.plan.start);
            self.check_keeping(&kept);
            self.store();
            self.put(&Instruction::Br(0));
        }
        if counted.test != Test::Differs {
            self.put(&Instruction::End);
        }
        Ok(())
    }

    /// What all that stands in a loop costs.
    fn whole(&self, plan: &Unrolled) -> i64 {
        let charges = self.regions().charges_from(plan.start + 1);
        let within = charges.iter().take_while(|charge| charge.position < plan.end);
        let units = within.fold(0_u64, |sum, charge| sum.saturating_add(charge.units));
        i64::try_from(units).unwrap_or(i64::MAX)
    }

    /// Writes an iteration without its test.
    fn stripped(
        &mut self,
        copies: &Copies<'_>,
        copy: u32,
        counted: &Counted,
        body: &[Operator<'_>],
    ) -> Result<(), MeterError> {
        let kept = body.iter().enumerate().map(|(place, operator)| {
            (place < counted.tested && counted.bounded != Some(place)).then_some(operator)
        });
        self.iteration(copies, copy, kept.take(counted.tested))?;
        if matches!(body.get(counted.tested), Some(Operator::LocalTee { .. })) {
            self.put(&Instruction::LocalSet(counted.counter));
        }
        Ok(())
    }

    fn iteration<'o, 'a: 'o>(
        &mut self,
        copies: &Copies<'_>,
        copy: u32,
        body: impl Iterator<Item = Option<&'o Operator<'a>>>,
    ) -> Result<(), MeterError> {
        self.joined();
        let mut place = Place { copy, depth: 0, position: copies.plan.start };
        let mut charges = self.regions().charges_from(copies.plan.start + 1);
        for operator in body {
            place.position += 1;
            self.nested(copies, &mut charges, place.position);
            let Some(operator) = operator else { continue };
            if matches!(operator, Operator::End) {
                place.depth = place.depth.saturating_sub(1);
            }
            self.copied(copies, place, operator)?;
            if matches!(operator, Operator::Block { .. } | Operator::If { .. }) {
                place.depth += 1;
            }
        }
        Ok(())
    }

    /// Whether a whole strip is certain, when at least one iteration is.
    fn certain(&mut self, counted: &Counted, limit: &Instruction<'static>) {
        self.put(&Instruction::LocalGet(counted.counter));
        self.put(limit);
        self.put(&counted.comparison());
    }
}
