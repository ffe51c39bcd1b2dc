//! What is noted of each `loop` while a body is surveyed: whether to copy it, what its checks must keep, and whether its
//! head's charge can be paid on the ways that lead there.

use super::pace::Pace;

/// Of how many locals that a loop reads note is taken, and of how many that it writes.
const LOCALS_MAX: usize = 24;
/// How many loops within a loop are told what comes after them, and of how many locals.
const AFTER_MAX: usize = 4;
const THROUGH_MAX: usize = 8;
/// How many loops around the innermost are told which locals that reads. Checks further out are rarely run, and what they
/// add to the code stays bounded by what stands in it.
pub(crate) const HEIGHT_MAX: u8 = 2;

/// One `loop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loop {
    /// Number of the `loop` instruction within the body.
    pub(crate) start: usize,
    /// Number of its `end`.
    pub(crate) end: usize,
    /// Size of what is between, in bytes.
    pub(crate) bytes: usize,
    /// Number of the last branch that leads back to it; without one it is but a block.
    pub(crate) repeats: Option<usize>,
    /// Whether it may be unrolled: it takes no parameters, nothing in it loops, calls or is sized, no `br_table` leads out
    /// of it or back to it, and no `br_if` takes values out of it.
    pub(crate) simple: bool,
    /// Whether anything in it calls.
    pub(crate) calls: bool,
    /// Whether every iteration runs a loop within.
    pub(crate) loops: bool,
    /// Whether a loop within checks at its own pace. What may run unchecked would multiply.
    pub(crate) paces: bool,
    /// The test that every iteration makes, if it may set the pace of the checks.
    pub(crate) pace: Option<Pace>,
    /// Locals that it reads before it writes them, as the code stands: what an iteration takes from what was before.
    pub(crate) reads: Vec<u32>,
    /// The loop around it, by its place among all, if that goes on after it.
    pub(crate) around: Option<usize>,
    /// Locals besides that live while it runs.
    pub(crate) kept: Vec<u32>,
    /// Locals that it writes before it reads them.
    writes: Vec<u32>,
    /// What comes after each of the first loops within it.
    after: Vec<After>,
    /// How many loops stand in one another within it.
    height: u8,
    /// The region that flows into it, by its place among the charges.
    before: Option<usize>,
    /// The region at its head, likewise.
    head: Option<usize>,
    /// The regions that end in a branch back to it, or `None` if not all of these branches are always taken.
    backs: Option<Vec<usize>>,
}

/// How the code after a loop, in the loop around it, uses locals.
#[derive(Debug, Clone, PartialEq, Eq)]
struct After {
    /// The place of the loop among all.
    place: usize,
    /// Locals that are used.
    seen: Vec<u32>,
    /// Those of them that are read first.
    reads: Vec<u32>,
}

/// The charge of a loop's head and where else it can be paid.
pub(crate) struct Merge {
    /// The region whose units move.
    pub(crate) head: usize,
    /// The regions that are always followed by the head: its units move to each of them.
    pub(crate) to: Vec<usize>,
}

impl Loop {
    /// A loop that begins with the instruction `start`, which stands at the byte `offset`, after the region `before`.
    pub(crate) fn new(start: usize, offset: usize, before: Option<usize>, simple: bool) -> Self {
        Self {
            start,
            end: start,
            // Where the body starts, until its end is known.
            bytes: offset,
            repeats: None,
            simple,
            calls: false,
            loops: false,
            paces: false,
            pace: None,
            reads: vec![],
            around: None,
            kept: vec![],
            writes: vec![],
            after: vec![],
            height: 0,
            before,
            head: None,
            backs: Some(vec![]),
        }
    }

    /// Notes the region that begins with the loop's first instruction.
    pub(crate) fn begins(&mut self, head: Option<usize>) {
        self.head = head;
    }

    /// Notes where it ends: the instruction and the byte.
    pub(crate) fn ends(&mut self, end: usize, offset: usize) {
        self.end = end;
        self.bytes = offset.saturating_sub(self.bytes);
    }

    /// Notes a branch back, the last one so far, and the region that ends with it if the branch is always taken.
    pub(crate) fn repeats(&mut self, at: usize, region: Option<usize>) {
        self.repeats = Some(at);
        match (&mut self.backs, region) {
            (Some(backs), Some(region)) => backs.push(region),
            (backs, _) => *backs = None,
        }
    }

    /// Notes that a local is read or written.
    pub(crate) fn uses(&mut self, local: u32, written: bool) {
        let known = self.reads.contains(&local) || self.writes.contains(&local);
        let list = if written { &mut self.writes } else { &mut self.reads };
        if !known && list.len() < LOCALS_MAX {
            list.push(local);
        }
        for after in &mut self.after {
            if after.seen.len() < LOCALS_MAX && !after.seen.contains(&local) {
                after.seen.push(local);
                after.reads.extend((!written).then_some(local));
            }
        }
    }

    /// Notes what a loop does that stands within this one.
    pub(crate) fn contains(&mut self, inner: &Self) {
        let height = inner.height.saturating_add(1);
        self.calls |= inner.calls;
        self.paces |= inner.paces || inner.pace.is_some();
        self.height = self.height.max(height);
        if height <= HEIGHT_MAX {
            inner.reads.iter().for_each(|local| self.uses(*local, false));
            inner.writes.iter().for_each(|local| self.uses(*local, true));
        }
    }

    /// Notes that a loop within this one has ended.
    pub(crate) fn follows(&mut self, place: usize) {
        if self.after.len() < AFTER_MAX {
            self.after.push(After { place, seen: vec![], reads: vec![] });
        }
    }

    /// For loops within this one, what is read after them, in the same iteration or the next.
    pub(crate) fn through(&mut self) -> Vec<(usize, Vec<u32>)> {
        let all = std::mem::take(&mut self.after).into_iter().map(|after| {
            let next = self.reads.iter().filter(|local| !after.seen.contains(local));
            (after.place, after.reads.iter().chain(next).copied().collect())
        });
        all.collect()
    }

    /// Keeps some of the locals, too, that the loop around it goes on with.
    pub(crate) fn keep(&mut self, through: Vec<u32>) {
        let own = |local: &u32| self.reads.contains(local) || self.writes.contains(local);
        let others: Vec<_> =
            through.into_iter().filter(|local| !own(local)).take(THROUGH_MAX).collect();
        self.kept.extend(others);
    }

    /// Where its head's charge can be paid instead, one subtraction less per iteration: not where only some of the branches
    /// back are taken. A loop that may be unrolled is left alone, since its copies are charged by regions.
    pub(crate) fn merge(&self) -> Option<Merge> {
        let (head, before) = (self.head?, self.before?);
        let backs = self.backs.as_ref().filter(|backs| !backs.is_empty())?;
        if self.simple || backs.contains(&head) {
            return None;
        }
        let to = std::iter::once(before).chain(backs.iter().copied()).collect();
        Some(Merge { head, to })
    }
}
