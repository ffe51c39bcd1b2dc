//! Writes a loop several times over, so that one check pays for several iterations and an iteration charges nothing at all.
//!
//! A short loop that counts runs in strips instead: see [`super::strips`]. Elsewhere every copy keeps its tests. All iterations
//! are charged ahead, once, and whoever leaves early is refunded on the way out. With `k` = 2 copies of a loop
//! that is left at its bottom, and `c` the cost of an iteration:
//!
//! ```text
//! loop $l                 block $land2
//!   body                    block $land1
//!   br_if $l (test)           loop $l
//! end                           fuel -= 2c
//!                               block $next1  body  br_if $land1 (not test)  end
//!                               block $next2  body  br_if $land2 (not test)  end
//!                               fuel < 0 ? fuel = topup(fuel);  global = fuel     ;; the one check
//!                               br $l
//!                             end
//!                           end              ;; left in the first iteration:
//!                           fuel += c        ;;   the second did not run
//!                         end
//! ```
//!
//! What is charged ahead is the *spine*: the regions that stand directly in the loop's body, up to the last branch back. An
//! iteration runs them in order, so wherever it is left or cut short, what it has not run is known: the later ones. Regions
//! nested in blocks and arms are charged where they are. Hence the charges along any path add up to what they would be
//! without copies, and all that the hot path does for the fuel is one subtraction and one check per `k` iterations.
//!
//! The landings are nested for a reason besides the refunds: each but the first is reached two ways with different values of
//! the loop's variables, which makes a compiler compute these in the iteration they belong to. Cranelift would otherwise
//! move them past all tests, into every way out, and spill what they need on the way. A loop that carries one local from
//! iteration to iteration, a search, has nothing to be moved: there each way out has its refund, and no landing.

use wasm_encoder::{BlockType, Instruction};
use wasmparser::Operator;

use super::MeterError;
use super::counted::Counted;
use super::emit::Emitter;
use super::regions::Charge;
use super::unroll::Unrolled;

/// Most instructions of a loop's body that runs in strips. A compiler puts off what a longer run without branches computes
/// until it is needed, at the end, and has no registers for so many numbers.
const STRIPPED_MAX: usize = 24;

/// The branch by which the loop is mostly left: the one that has landings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Not taking the branch back at the very end of the body.
    Bottom,
    /// A `br_if` out of the loop, at this position, to this label as seen from the body.
    Branch { position: usize, label: u32 },
}

/// A loop being written.
pub(crate) struct Copies<'p> {
    pub(crate) plan: &'p Unrolled,
    way: Option<Way>,
    /// Number of landings: one per copy, or none.
    lands: u32,
    /// How many more blocks and loops are around a copy than were around the body.
    around: u32,
    /// Number of copies.
    pub(crate) count: i64,
    /// The spine: positions and units.
    spine: Vec<(usize, i64)>,
}

/// Where in the copies an instruction stands.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Number of the copy, from 1.
    pub(crate) copy: u32,
    /// How many blocks of the body are around it.
    pub(crate) depth: u32,
    /// Number of the original instruction.
    pub(crate) position: usize,
}

impl<'p> Copies<'p> {
    /// So many copies without landings, in so many more blocks and loops than the body was in.
    pub(crate) const fn straight(
        plan: &'p Unrolled,
        count: i64,
        around: u32,
        spine: Vec<(usize, i64)>,
    ) -> Self {
        Self { plan, way: None, lands: 0, around, count, spine }
    }

    fn is_spine(&self, position: usize) -> bool {
        self.spine.binary_search_by_key(&position, |(position, _)| *position).is_ok()
    }

    /// What an iteration left at a position has been charged and does not run.
    fn rest(&self, position: usize) -> i64 {
        let later = self.spine.iter().filter(|(head, _)| *head > position);
        later.fold(0, |sum, (_, units)| sum.saturating_add(*units))
    }

    /// What the iterations after this copy's were charged.
    pub(crate) fn later(&self, copy: u32) -> i64 {
        let copies = self.count.saturating_sub(i64::from(copy));
        copies.saturating_mul(self.whole())
    }

    /// What one iteration is charged ahead.
    fn whole(&self) -> i64 {
        self.spine.iter().fold(0, |sum, (_, units)| sum.saturating_add(*units))
    }
}

impl<'e> Emitter<'e> {
    /// Writes the copies of a loop whose body is `body`.
    ///
    /// # Errors
    /// [`MeterError::Encoding`] for an instruction that cannot be written.
    pub(crate) fn unroll(
        &mut self,
        ty: BlockType,
        body: &[Operator<'_>],
        plan: &Unrolled,
    ) -> Result<(), MeterError> {
        if body.len() <= STRIPPED_MAX
            && let Some(counted) = Counted::of(ty, body)
        {
            return self.strips(&counted, body, plan);
        }
        let way = way_out(ty, body, plan);
        let factor = u32::try_from(plan.factor).unwrap_or(u32::MAX);
        let lands = if way.is_some() { factor } else { 0 };
        let copies = Copies {
            plan,
            way,
            lands,
            around: lands.saturating_add(3),
            count: i64::from(factor),
            spine: self.spine(plan),
        };
        self.put(&Instruction::Block(ty));
        for _ in 0..copies.lands {
            self.put(&Instruction::Block(BlockType::Empty));
        }
        self.put(&Instruction::Loop(BlockType::Empty));
        self.put(&Instruction::Loop(BlockType::Empty));
        self.add(copies.later(0).saturating_neg());
        for copy in 1..=factor {
            self.copy(&copies, copy, body)?;
        }
        self.joined();
        self.store();
        let kept = self.kept_from(plan.start);
        self.again(&kept);
        self.put(&Instruction::Br(0));
        self.put(&Instruction::End);
        self.put(&Instruction::Unreachable);
        for land in 1..=copies.lands {
            self.put(&Instruction::End);
            if land < copies.lands {
                self.add(copies.whole());
            }
        }
        if let Some(Way::Branch { position, label }) = way {
            self.add(copies.rest(position).saturating_add(self.regions().refund_at(position)));
            self.put(&Instruction::Br(label));
        }
        self.put(&Instruction::End);
        self.joined();
        Ok(())
    }

    /// The regions of a loop that every iteration runs which goes on to the next.
    pub(crate) fn spine(&self, plan: &Unrolled) -> Vec<(usize, i64)> {
        let charges = self.regions().charges_from(plan.start);
        let within = charges.iter().take_while(|charge| charge.position <= plan.repeats);
        let spine = within.filter(|charge| charge.spine && charge.position > plan.start);
        spine
            .map(|charge| (charge.position, i64::try_from(charge.units).unwrap_or(i64::MAX)))
            .collect()
    }

    fn copy(
        &mut self,
        copies: &Copies<'_>,
        copy: u32,
        body: &[Operator<'_>],
    ) -> Result<(), MeterError> {
        self.joined();
        self.put(&Instruction::Block(BlockType::Empty));
        let mut place = Place { copy, depth: 0, position: copies.plan.start };
        let tested = copies.way == Some(Way::Bottom);
        let body = if tested { body.split_last().map_or(body, |(_, rest)| rest) } else { body };
        let mut charges = self.regions().charges_from(copies.plan.start + 1);
        for operator in body {
            place.position += 1;
            self.nested(copies, &mut charges, place.position);
            if matches!(operator, Operator::End) {
                place.depth = place.depth.saturating_sub(1);
            }
            self.copied(copies, place, operator)?;
            if matches!(operator, Operator::Block { .. } | Operator::If { .. }) {
                place.depth += 1;
            }
        }
        if tested {
            self.put(&Instruction::I32Eqz);
            self.hint(false);
            self.put(&Instruction::BrIf(2 + copy));
        } else {
            self.add(copies.later(copy));
            self.put(&Instruction::Br(copies.around));
        }
        self.put(&Instruction::End);
        Ok(())
    }

    /// Charges what is due at a position, unless it was charged ahead.
    pub(crate) fn nested(
        &mut self,
        copies: &Copies<'_>,
        charges: &mut &'e [Charge],
        position: usize,
    ) {
        if copies.is_spine(position) {
            *charges = self.regions().charges_from(position + 1);
        } else {
            self.charge(charges, position);
        }
    }

    pub(crate) fn copied(
        &mut self,
        copies: &Copies<'_>,
        place: Place,
        operator: &Operator<'_>,
    ) -> Result<(), MeterError> {
        let rest = copies.rest(place.position);
        let refund = self.regions().refund_at(place.position);
        let leaving = rest.saturating_add(copies.later(place.copy)).saturating_add(refund);
        match operator {
            Operator::Br { relative_depth: label } | Operator::BrIf { relative_depth: label } => {
                let tested = matches!(operator, Operator::BrIf { .. });
                if *label < place.depth {
                    self.operator(operator.clone())?;
                } else if *label == place.depth {
                    self.leave(tested, rest, *label, false);
                } else if is_way(copies.way, place.position) {
                    self.hint(false);
                    self.put(&Instruction::BrIf(place.depth.saturating_add(2 + place.copy)));
                } else {
                    self.leave(tested, leaving, label.saturating_add(copies.around), true);
                }
            }
            Operator::Return | Operator::Unreachable => {
                self.add(leaving);
                self.operator(operator.clone())?;
            }
            other => self.operator(other.clone())?,
        }
        Ok(())
    }

    /// Writes a branch that refunds when it is taken.
    pub(crate) fn leave(&mut self, tested: bool, refund: i64, label: u32, rare: bool) {
        if !tested {
            self.add(refund);
            self.put(&Instruction::Br(label));
        } else if refund == 0 {
            self.put(&Instruction::BrIf(label));
        } else {
            if rare {
                self.hint(false);
            }
            self.put(&Instruction::If(BlockType::Empty));
            self.add(refund);
            self.put(&Instruction::Br(label.saturating_add(1)));
            self.put(&Instruction::End);
        }
    }
}

fn is_way(way: Option<Way>, at: usize) -> bool {
    matches!(way, Some(Way::Branch { position, .. }) if position == at)
}

/// Chooses the way out that gets the landings: the test at the bottom, or else the least nested `br_if` out of the loop.
fn way_out(ty: BlockType, body: &[Operator<'_>], plan: &Unrolled) -> Option<Way> {
    if carried(body, plan) <= 1 {
        return None;
    }
    let bottom = matches!(body.last(), Some(Operator::BrIf { relative_depth: 0 }));
    if bottom && matches!(ty, BlockType::Empty) {
        return Some(Way::Bottom);
    }
    let mut depth = 0_u32;
    let mut found: Option<(u32, Way)> = None;
    for (position, operator) in (plan.start + 1..).zip(body) {
        match operator {
            Operator::Block { .. } | Operator::If { .. } => depth = depth.saturating_add(1),
            Operator::End => depth = depth.saturating_sub(1),
            Operator::BrIf { relative_depth } if *relative_depth > depth => {
                let label = relative_depth.saturating_sub(depth);
                if found.is_none_or(|(best, _)| depth < best) {
                    found = Some((depth, Way::Branch { position, label }));
                }
            }
            _ => {}
        }
    }
    found.map(|(_, way)| way)
}

/// How many locals an iteration takes from the one before that the loop writes.
fn carried(body: &[Operator<'_>], plan: &Unrolled) -> usize {
    let written = |local: u32| {
        body.iter().any(|operator| match operator {
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                *local_index == local
            }
            _ => false,
        })
    };
    plan.reads.iter().filter(|local| written(**local)).count()
}
