//! What a function body owes and when: its charges, its loops and where control flows together.
//!
//! A *region* is a run of instructions that is entered only at its first one and left early only by a trap, so that all of
//! it runs or, but for traps, none of it does. Its whole cost is charged at its head. Calls do not end a region, since a
//! call returns or traps; these do:
//!
//! ```text
//! (func            ;; ← region: entry
//!   block $b
//!     local.get 0
//!     br_if $b     ;;   its last instruction
//!     nop          ;; ← region: only if the branch was not taken
//!   end            ;;   a label that a branch names
//!   loop $l        ;; ← region (after end); the header is a region of its own if a branch names $l
//!     …            ;; ← region: each iteration
//!     if … else    ;; ← regions: each arm
//!     end          ;;   after the arms the region before them goes on
//!   end)           ;;   and likewise after a loop, or a block that was entered above
//! ```
//!
//! A region so stretches over all that runs equally often; [`super::ahead`] has the exceptions. What follows `br`, `br_table`, `return`, `unreachable` or a tail call never runs and is not charged. Nesting is kept on an
//! explicit stack, so deeply nested input costs memory in proportion and no host stack.

use wasmparser::{BlockType, BrTable, FunctionBody, Operator};

use super::MeterError;
use super::ahead::Refund;
use super::cost;
use super::loops::Loop;
use super::pace::Window;
use super::survey::{Signature, Survey};

/// A region's cost, to be charged before the instruction at `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Charge {
    /// Number of the instruction within the body.
    pub(crate) position: usize,
    /// Units.
    pub(crate) units: u64,
    /// Whether its head stands directly in a loop's body, in no block or arm within: an iteration that comes past it has
    /// run every such region before it, and one that goes on to the body's end will run every such region after it.
    pub(crate) spine: bool,
}

/// What a body owes and when.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    /// By position, ascending. Regions that cost nothing are not among them.
    pub(crate) charges: Vec<Charge>,
    /// By position, ascending.
    pub(crate) refunds: Vec<Refund>,
    /// By `start`, ascending.
    pub(crate) loops: Vec<Loop>,
    /// Whether a branch leaves the function by its label.
    pub(crate) leaves_by_branch: bool,
    /// Whether anything in it calls, itself or through an import.
    pub(crate) calls: bool,
    /// Whether an instruction's cost depends on its operand.
    pub(crate) sized: bool,
}

/// What an `end` ends.
pub(crate) enum Kind {
    /// The function itself, or a `block`.
    Block,
    /// An `if` and its `else`.
    If,
    /// A `loop`, with its place in [`Regions::loops`].
    Loop(usize),
}

/// What is open where the survey stands.
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// Values a branch to its label carries.
    pub(crate) carried: u64,
    /// Whether a branch names its label.
    pub(crate) named: bool,
    /// The region that was open before its start, if control reaches that.
    pub(crate) before: Option<usize>,
    /// How often the fuel had been looked at when that region began.
    pub(crate) since: usize,
    /// Whether control may come to its start and not to its end, without being given back what it was charged ahead.
    pub(crate) skipped: bool,
    /// The outermost frame that a branch within leads to, likewise.
    pub(crate) furthest: usize,
}

/// Where a branch leads, seen from the innermost loop around it.
struct Branch {
    /// The frame whose label it names.
    target: usize,
    /// Values it carries.
    carried: u64,
    /// Whether it leaves that loop.
    leaves: bool,
    /// Whether it goes back to the head of that loop.
    repeats: bool,
}

/// A survey of a body.
pub(crate) struct Scan<'s> {
    survey: &'s Survey<'s>,
    function: u32,
    pub(crate) found: Regions,
    pub(crate) frames: Vec<Frame>,
    /// The loops among the frames: where in the frames, and their place in [`Regions::loops`].
    pub(crate) loops: Vec<(usize, usize)>,
    /// The region that is being added to, or `None` where nothing runs.
    pub(crate) open: Option<usize>,
    /// How often the fuel had been looked at when that region began.
    pub(crate) since: usize,
    /// How often it has been looked at by now: by callees, and by checks within.
    pub(crate) looks: usize,
    /// The last instructions.
    pub(crate) window: Window,
    /// Which local each instruction writes: the local and the instruction.
    pub(crate) writes: Vec<(u32, usize)>,
}

impl Regions {
    /// Surveys the body of a function, whose index is only for messages.
    ///
    /// # Errors
    /// [`MeterError::UnknownInstruction`] for one without a cost.
    pub(crate) fn of(
        survey: &Survey<'_>,
        signature: &Signature,
        function: u32,
        body: &FunctionBody<'_>,
        locals: u64,
    ) -> Result<Self, MeterError> {
        let found = Self::default();
        let mut scan = Scan {
            survey,
            function,
            found,
            frames: vec![],
            loops: vec![],
            open: None,
            since: 0,
            looks: 0,
            window: Window::new(),
            writes: vec![],
        };
        let results = signature.results.len() as u64;
        scan.push(Kind::Block, results);
        scan.region(0);
        scan.add(cost::entry(signature.parameters.len() as u64, locals, results));
        let mut reader = body.get_operators_reader()?;
        let mut position = 0;
        while !reader.eof() {
            let (operator, offset) = reader.read_with_offset()?;
            scan.operator(&operator, position, offset)?;
            scan.window.push(&operator);
            position += 1;
        }
        let mut found = scan.found;
        found.refund();
        found.charges.retain(|charge| charge.units > 0);
        Ok(found)
    }

    /// The charges at and after a position.
    pub(crate) fn charges_from(&self, position: usize) -> &[Charge] {
        let first = self.charges.partition_point(|charge| charge.position < position);
        self.charges.get(first..).unwrap_or_default()
    }
}

impl Scan<'_> {
    fn operator(&mut self, op: &Operator<'_>, at: usize, offset: usize) -> Result<(), MeterError> {
        let units = cost::of(op).ok_or_else(|| MeterError::UnknownInstruction {
            function: self.function,
            instruction: format!("{op:?}"),
        })?;
        self.add(units);
        match op {
            Operator::Block { blockty } => {
                let carried = self.results(*blockty);
                self.push(Kind::Block, carried);
            }
            Operator::If { blockty } => {
                let carried = self.results(*blockty);
                self.push(Kind::If, carried);
                self.follow(at);
            }
            Operator::Loop { blockty } => self.open_loop(*blockty, at, offset),
            Operator::Else => {
                let live = self.frames.last().is_some_and(|frame| frame.before.is_some());
                self.open = None;
                if live {
                    self.region(at + 1);
                }
            }
            Operator::End => self.close(at, offset)?,
            Operator::Br { relative_depth } => {
                let branch = self.branch(*relative_depth, at, true)?;
                self.add(branch.carried);
                self.leave(branch.target, at, true);
                self.open = None;
            }
            Operator::BrIf { relative_depth } => self.test(*relative_depth, at)?,
            Operator::BrTable { targets } => self.table(targets, at)?,
            Operator::Return | Operator::Unreachable => {
                self.leave(0, at, true);
                self.open = None;
            }
            Operator::ReturnCall { .. } | Operator::ReturnCallIndirect { .. } => {
                self.calls();
                self.leave(0, at, true);
                self.open = None;
            }
            Operator::Call { .. } | Operator::CallIndirect { .. } => self.calls(),
            Operator::LocalGet { local_index } => self.uses(*local_index, false),
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                self.uses(*local_index, true);
                self.writes.push((*local_index, at));
            }
            other if cost::sized(other).is_some() => {
                self.found.sized = true;
                self.watch();
                self.complicate();
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes a branch that is taken at times.
    fn test(&mut self, depth: u32, at: usize) -> Result<(), MeterError> {
        let may_pace = self.may_pace();
        let branch = self.branch(depth, at, false)?;
        if branch.leaves && branch.carried > 0 {
            self.complicate();
        }
        self.add(branch.carried);
        // Values that a branch carries lie where the second of the two branches could not reach them.
        if may_pace && !branch.leaves && branch.carried == 0 {
            self.pace(at);
        }
        if !self.leave(branch.target, at, branch.carried == 0) {
            self.follow(at);
        }
        Ok(())
    }

    /// Opens a region before the instruction at `position`.
    pub(crate) fn region(&mut self, position: usize) {
        self.open = Some(self.found.charges.len());
        self.since = self.looks;
        let spine = self.frames.last().is_some_and(|frame| matches!(frame.kind, Kind::Loop(_)));
        self.found.charges.push(Charge { position, units: 0, spine });
    }

    /// Opens a region after the instruction at `at`, if that can be reached.
    fn follow(&mut self, at: usize) {
        if self.open.is_some() {
            self.region(at + 1);
        }
    }

    fn add(&mut self, units: u64) {
        if let Some(charge) = self.open.and_then(|open| self.found.charges.get_mut(open)) {
            charge.units = charge.units.saturating_add(units);
        }
    }

    fn push(&mut self, kind: Kind, carried: u64) {
        let (before, since, furthest) = (self.open, self.since, usize::MAX);
        let frame = Frame { kind, carried, named: false, before, since, skipped: false, furthest };
        self.frames.push(frame);
    }

    fn open_loop(&mut self, ty: BlockType, at: usize, offset: usize) {
        // Whatever loops around this one is not innermost; and if it always runs, checks elsewhere matter little.
        self.complicate();
        if self.is_passed()
            && let Some(found) = self.innermost()
        {
            found.loops = true;
        }
        self.watch();
        let carried = self.parameters(ty);
        let place = self.found.loops.len();
        let simple = carried == 0 && self.open.is_some();
        self.found.loops.push(Loop::new(at, offset, self.open, simple));
        self.push(Kind::Loop(place), carried);
        self.loops.push((self.frames.len().saturating_sub(1), place));
        self.follow(at);
        let head = self.open;
        if let Some(found) = self.innermost() {
            found.begins(head);
        }
    }

    fn close(&mut self, at: usize, offset: usize) -> Result<(), MeterError> {
        let mut frame = self.frames.pop().ok_or_else(|| self.inconsistent("one end too many"))?;
        frame.skipped |= frame.furthest < self.frames.len();
        if frame.furthest < self.frames.len() {
            self.skips(self.frames.len(), frame.furthest);
        }
        match frame.kind {
            Kind::Block if frame.named && frame.before.is_some() => self.join(&frame, at),
            Kind::If if frame.before.is_some() => self.join(&frame, at),
            Kind::Block | Kind::If => {}
            Kind::Loop(place) => {
                self.loops.pop();
                if let Some(found) = self.found.loops.get_mut(place) {
                    found.ends(at, offset);
                }
                self.settle(place);
                self.pass_on(place);
                self.merge(place);
                // Whoever comes to a loop comes to its end, or never comes out of it, unless a branch leads past that.
                if self.open.is_some() && !frame.skipped && frame.before.is_some() {
                    (self.open, self.since) = (frame.before, frame.since);
                }
            }
        }
        if self.frames.is_empty() {
            self.found.leaves_by_branch = frame.named;
            self.open = None;
        }
        Ok(())
    }

    /// Notes a branch to a label, which is `always` taken or not. One that nothing reaches leads nowhere.
    fn branch(&mut self, depth: u32, at: usize, always: bool) -> Result<Branch, MeterError> {
        let live = self.open.is_some();
        let depth = usize::try_from(depth).unwrap_or(usize::MAX).saturating_add(1);
        let index = self.frames.len().checked_sub(depth);
        let frame = index.and_then(|index| self.frames.get_mut(index));
        let (Some(index), Some(frame)) = (index, frame) else {
            return Err(self.inconsistent("a branch out of nothing"));
        };
        frame.named |= live;
        let carried = frame.carried;
        if let (Kind::Loop(place), true) = (&frame.kind, live)
            && let Some(found) = self.found.loops.get_mut(*place)
        {
            found.repeats(at, self.open.filter(|_| always));
        }
        let innermost = self.loops.last().map(|(frame, _)| *frame);
        let leaves = innermost.is_some_and(|innermost| index < innermost);
        Ok(Branch { target: index, carried, leaves, repeats: innermost == Some(index) })
    }

    fn table(&mut self, targets: &BrTable<'_>, at: usize) -> Result<(), MeterError> {
        let default = self.branch(targets.default(), at, false)?;
        let mut stays = !default.leaves && !default.repeats;
        let mut furthest = default.target;
        for target in targets.targets() {
            let branch = self.branch(target?, at, false)?;
            furthest = furthest.min(branch.target);
            stays &= !branch.leaves && !branch.repeats;
        }
        if !stays {
            self.complicate();
        }
        // All labels of a table carry equally many values.
        self.add(default.carried);
        self.leave(furthest, at, false);
        self.open = None;
        Ok(())
    }

    fn calls(&mut self) {
        self.found.calls = true;
        self.watch();
        self.complicate();
        if let Some(found) = self.innermost() {
            found.calls = true;
        }
    }

    pub(crate) fn innermost(&mut self) -> Option<&mut Loop> {
        let (_, place) = self.loops.last().copied()?;
        self.found.loops.get_mut(place)
    }

    fn uses(&mut self, local: u32, written: bool) {
        if let Some(found) = self.innermost() {
            found.uses(local, written);
        }
    }

    /// Tells the loop around the one that ends what that one does.
    fn pass_on(&mut self, place: usize) {
        let around = self.loops.last().map(|(_, around)| *around);
        let (outer, inner) = self.found.loops.split_at_mut(place);
        let outer = around.and_then(|around| outer.get_mut(around));
        if let (Some(outer), Some(inner)) = (outer, inner.first()) {
            outer.contains(inner);
            outer.follows(place);
        }
        let through = self.found.loops.get_mut(place).map(Loop::through);
        for (within, locals) in through.unwrap_or_default() {
            if let Some(within) = self.found.loops.get_mut(within) {
                within.keep(locals);
                within.around = Some(place);
            }
        }
    }

    /// No loop that is open here is simple. Only the innermost needs telling: an outer one was told when that opened.
    fn complicate(&mut self) {
        if let Some(found) = self.innermost() {
            found.simple = false;
        }
    }

    fn results(&self, ty: BlockType) -> u64 {
        match ty {
            BlockType::Empty => 0,
            BlockType::Type(_) => 1,
            BlockType::FuncType(index) => self.of_type(index, |ty| ty.results.len()),
        }
    }

    fn parameters(&self, ty: BlockType) -> u64 {
        match ty {
            BlockType::Empty | BlockType::Type(_) => 0,
            BlockType::FuncType(index) => self.of_type(index, |ty| ty.parameters.len()),
        }
    }

    fn of_type(&self, index: u32, count: impl Fn(&Signature) -> usize) -> u64 {
        let ty = usize::try_from(index).ok().and_then(|index| self.survey.types.get(index));
        ty.map_or(0, |ty| count(ty) as u64)
    }

    fn inconsistent(&self, what: &'static str) -> MeterError {
        MeterError::Inconsistent { function: self.function, what }
    }
}
