//! What is charged ahead, and given back where control leaves before it ran.
//!
//! A region goes on after an inner block, the arms of an `if` or a loop, since whoever came there comes past them. So it
//! does, too, after a branch that leaves the innermost loop, which is rare: that gives back what of the region, and of those
//! that wait for inner blocks to end, comes later:
//!
//! ```text
//! loop $l                     loop $l
//!   a  br_if $out (…)           fuel -= a + b + c   a  (if (…)  fuel += b + c  br $out)
//!   block                       block
//!     b  br_if 0 (…)  d           b  br_if 0 (…)  fuel -= d  d
//!   end                         end
//!   c  br $l                    c  br $l
//! ```
//!
//! Nothing may be given back of what others have looked at: a check in between must not ask for more than is due in the end,
//! so that a budget of exactly what a call costs suffices. A loop looks, so does a callee, and a large operation.

use super::regions::{Frame, Regions, Scan};

/// Most frames between a loop and a place in it that are looked at there.
const WITHIN_MAX: usize = 32;
/// Most writes of locals, regions and branches out of a loop that are looked at when it ends.
pub(crate) const LOOKED_AT_MAX: usize = 1000;

/// What was charged ahead, for instructions that do not run if the branch at `position` is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refund {
    /// Number of the branch, or of the `return` or the like, within the body.
    pub(crate) position: usize,
    /// Regions that were begun, by their place among the charges, with the units up to the branch.
    pub(crate) parts: Vec<(usize, i64)>,
    /// Units to be given back.
    pub(crate) units: i64,
}

impl Regions {
    /// Adds up what each branch gives back.
    pub(crate) fn refund(&mut self) {
        for refund in &mut self.refunds {
            let rest = |(region, before): &(usize, i64)| {
                let units = self.charges.get(*region).map_or(0, |charge| charge.units);
                i64::try_from(units).unwrap_or(i64::MAX).saturating_sub(*before)
            };
            refund.units = refund.parts.iter().map(rest).fold(0, i64::saturating_add);
        }
        self.refunds.retain(|refund| refund.units > 0);
    }

    /// What is to be given back if a branch is taken.
    pub(crate) fn refund_at(&self, position: usize) -> i64 {
        let found = self.refunds.binary_search_by_key(&position, |refund| refund.position);
        found.ok().and_then(|found| self.refunds.get(found)).map_or(0, |refund| refund.units)
    }
}

impl Scan<'_> {
    /// Goes on after the end of a block or of arms: with the region that was open before, if whoever ran that comes here, or
    /// else with a new one.
    pub(crate) fn join(&mut self, frame: &Frame, at: usize) {
        if frame.skipped || frame.before.is_none() {
            self.region(at + 1);
        } else {
            (self.open, self.since) = (frame.before, frame.since);
        }
    }

    /// Notes that callees or checks look at what was charged so far. Nothing may be given back of it then, so that a budget of
    /// exactly what is due suffices.
    pub(crate) const fn watch(&mut self) {
        self.looks = self.looks.saturating_add(1);
    }

    /// Notes a branch to the frame `target`, or out of the function. If it leaves the innermost loop, which is rare, what was
    /// charged ahead is given back on the way; elsewhere what comes after is charged where it begins. Tells whether the open
    /// region goes on behind the branch.
    pub(crate) fn leave(&mut self, target: usize, at: usize, refundable: bool) -> bool {
        if self.open.is_none() {
            return false;
        }
        let within =
            self.within().filter(|within| refundable && target.saturating_add(1) < *within);
        let Some(within) = within else {
            self.skips(self.frames.len(), target);
            return false;
        };
        self.skips(within, target);
        let goes_on = self.since == self.looks;
        let mut parts: Vec<usize> = self.open.filter(|_| goes_on).into_iter().collect();
        for frame in self.frames.iter_mut().skip(within) {
            if frame.since == self.looks {
                parts.extend(frame.before);
            } else {
                frame.skipped = true;
            }
        }
        let parts = self.so_far(parts);
        if !parts.is_empty() {
            self.found.refunds.push(Refund { position: at, parts, units: 0 });
        }
        goes_on
    }

    /// Notes that a branch leads from among the first `count` frames past the ends of those after the frame `target`.
    pub(crate) fn skips(&mut self, count: usize, target: usize) {
        if let Some(frame) = count.checked_sub(1).and_then(|last| self.frames.get_mut(last)) {
            frame.furthest = frame.furthest.min(target);
        }
    }

    /// Where the frames begin that stand within the innermost loop, if they are not too many to look at.
    pub(crate) fn within(&self) -> Option<usize> {
        let (frame, _) = self.loops.last()?;
        let within = frame.saturating_add(1);
        (self.frames.len().saturating_sub(within) <= WITHIN_MAX).then_some(within)
    }

    /// Regions that are begun, with their units until now.
    pub(crate) fn so_far(&self, mut regions: Vec<usize>) -> Vec<(usize, i64)> {
        regions.sort_unstable();
        regions.dedup();
        let so_far = |region: usize| {
            let units = self.found.charges.get(region).map_or(0, |charge| charge.units);
            (region, i64::try_from(units).unwrap_or(i64::MAX))
        };
        regions.into_iter().map(so_far).collect()
    }

    /// Moves the charge of the head of the loop that ends to where it can be paid along with others. No check comes between
    /// there and the head but those of callees and sized operations, and they look for what is about to be due anyway.
    pub(crate) fn merge(&mut self, place: usize) {
        let Some(found) = self.found.loops.get(place) else { return };
        let Some(merge) = found.merge() else { return };
        let from = self.found.refunds.partition_point(|refund| refund.position < found.start);
        let refunds = self.found.refunds.get_mut(from..).unwrap_or_default();
        let few = refunds.len() <= LOOKED_AT_MAX;
        let parts = refunds.iter_mut().take(LOOKED_AT_MAX).flat_map(|refund| &mut refund.parts);
        let mut parts: Vec<_> = parts.filter(|(region, _)| *region == merge.head).collect();
        // What may yet be given back must not be charged before the check at the head, if there is one.
        if !few || (found.pace.is_none() && !parts.is_empty()) {
            return;
        }
        let Some(head) = self.found.charges.get_mut(merge.head) else { return };
        let units = std::mem::take(&mut head.units);
        let moved = i64::try_from(units).unwrap_or(i64::MAX);
        parts.iter_mut().for_each(|(_, before)| *before = before.saturating_sub(moved));
        for region in merge.to {
            if let Some(charge) = self.found.charges.get_mut(region) {
                charge.units = charge.units.saturating_add(units);
            }
        }
    }
}
