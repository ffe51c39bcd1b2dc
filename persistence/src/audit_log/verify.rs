//! Replays the whole log and names the first record that is not what was written.
//!
//! Each record is checked by itself (hash, form, number), then against its neighbour. When two neighbours that
//! are whole in themselves do not fit, the one after them decides: if it, or the head, was chained to the second
//! one, then the first was rewritten; otherwise the second was.

use std::cmp::Ordering;

use rocksdb::IteratorMode;

use super::error::{VerifyFailure, VerifyFault};
use super::read::{StoredRecord, parse, unreadable};
use super::record::LeafHash;
use super::{Head, stored_head};
use crate::keys;
use crate::store::{Entries, Store};

/// Two clocks that drift further apart than this between neighbours mean that the wall clock was set.
const CLOCK_STEP_NS: u128 = 1_000_000_000;

/// What a log that is whole looks like.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct VerifyReport {
    /// How many records there are.
    pub records: u64,
    /// The first, if any.
    pub first: Option<u64>,
    /// The last, if any.
    pub last: Option<u64>,
    /// Leaf hash of the last record: keep a copy elsewhere to notice a log cut off or written anew.
    pub head_hash: LeafHash,
    /// How often the wall clock was set between two records of the same boot, by more than a second.
    pub clock_steps: u64,
}

/// Checks every record of one state of the log, also while it is being written.
///
/// # Errors
/// [`VerifyFailure`] with the first bad sequence number.
pub fn verify(store: &Store) -> Result<VerifyReport, VerifyFailure> {
    let view = store.view();
    let head = stored_head(&view)?;
    let entries =
        view.iterate(keys::AUDIT, IteratorMode::Start).map_err(|error| unreadable(0, error))?;
    let mut replay = Replay { entries, head, end: Head::EMPTY, before: None, clock_steps: 0 };
    while replay.step()? {}
    Ok(VerifyReport {
        records: head.seq,
        first: (head.seq > 0).then_some(1),
        last: (head.seq > 0).then_some(head.seq),
        head_hash: head.leaf,
        clock_steps: replay.clock_steps,
    })
}

struct Replay<'a> {
    entries: Entries<'a>,
    /// What the store says the end is.
    head: Head,
    /// The end of what was checked so far.
    end: Head,
    before: Option<StoredRecord>,
    clock_steps: u64,
}

impl Replay<'_> {
    /// Checks one more record; `false` at the end.
    fn step(&mut self) -> Result<bool, VerifyFailure> {
        let Some(found) = self.next()? else {
            return self.check_end().map(|()| false);
        };
        let expected = self.end.seq.saturating_add(1);
        if found.record.prev != self.end.leaf {
            return Err(self.blame(&found));
        }
        if let Some(before) = &self.before {
            self.clock_steps += u64::from(clock_was_set(before, &found));
        }
        self.end = Head { seq: expected, leaf: found.leaf };
        self.before = Some(found);
        Ok(true)
    }

    /// The next record, sound in itself and in its place.
    fn next(&mut self) -> Result<Option<StoredRecord>, VerifyFailure> {
        let expected = self.end.seq.saturating_add(1);
        let Some(entry) = self.entries.next() else {
            return Ok(None);
        };
        let (key, value) = entry.map_err(|error| unreadable(expected, error))?;
        if let Some(seq) = keys::parse_audit_key(&key) {
            self.check_place(seq, expected)?;
        }
        parse(&key, &value).map(Some)
    }

    fn check_place(&self, seq: u64, expected: u64) -> Result<(), VerifyFailure> {
        if expected > self.head.seq {
            // One too many; but the last one that is counted comes first.
            self.check_end()?;
            return Err(VerifyFailure::new(seq, VerifyFault::Unexpected));
        }
        match seq.cmp(&expected) {
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(VerifyFailure::new(seq, VerifyFault::Unexpected)),
            Ordering::Greater => Err(VerifyFailure::new(expected, VerifyFault::Missing)),
        }
    }

    fn check_end(&self) -> Result<(), VerifyFailure> {
        if self.end.seq < self.head.seq {
            return Err(VerifyFailure::new(self.end.seq.saturating_add(1), VerifyFault::Missing));
        }
        if self.end.leaf != self.head.leaf {
            return Err(VerifyFailure::new(self.end.seq, VerifyFault::Rewritten));
        }
        Ok(())
    }

    /// Which of two neighbours that do not fit is the bad one.
    fn blame(&mut self, second: &StoredRecord) -> VerifyFailure {
        let first = self.end.seq;
        let vouched = if second.seq == self.head.seq {
            second.leaf == self.head.leaf
        } else {
            self.follows(second)
        };
        if vouched && first > 0 {
            VerifyFailure::new(first, VerifyFault::Rewritten)
        } else {
            VerifyFailure::new(second.seq, VerifyFault::WrongPrev)
        }
    }

    /// Whether the record after `second` is sound and was chained to it.
    fn follows(&mut self, second: &StoredRecord) -> bool {
        let Some(Ok((key, value))) = self.entries.next() else {
            return false;
        };
        parse(&key, &value).is_ok_and(|third| third.record.prev == second.leaf)
    }
}

fn clock_was_set(before: &StoredRecord, after: &StoredRecord) -> bool {
    let (before, after) = (&before.record, &after.record);
    if before.boot != after.boot {
        return false;
    }
    let wall = after.time.as_nanosecond() - before.time.as_nanosecond();
    let mono = i128::from(after.mono_ns) - i128::from(before.mono_ns);
    wall.abs_diff(mono) > CLOCK_STEP_NS
}
