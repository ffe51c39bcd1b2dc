//! The tamper-evident log: records chained by hash, written in batches with the head that counts them.
//!
//! ```text
//!   AuditLog::open ──head and tail agree──▶ Open ──append, sync fail──▶ Closed (every call answers so)
//!        │                                  │  ▲
//!        └─ they disagree: AuditError       └──┘ append, sync
//! ```
//!
//! A batch and the head are one write: a crash leaves both or neither. After a failed write nobody knows what is
//! on the disk, so the log closes and is opened again, which reads the head back. What a hash chain cannot show
//! by itself is a tail cut off together with the head, or a whole log written anew; that takes a copy of the
//! head kept elsewhere.

use std::sync::Arc;

use themis_messages::audit::AuditEntry;
use themis_messages::limits::AUDIT_BATCH_MAX;

use self::error::{AuditError, VerifyFailure, VerifyFault};
use self::read::{Direction, Records, StoredRecord};
use self::record::LeafHash;
use crate::keys;
use crate::moment::{BootId, Moment};
use crate::store::{Batch, Durability, Store, View};

pub mod error;
pub mod read;
pub mod record;
#[cfg(test)]
mod tests;
pub mod verify;

pub use self::record::AuditRecord;
pub use self::verify::VerifyReport;

/// How far a log goes and how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the last record; 0 while there is none.
    pub seq: u64,
    /// Its leaf hash; zeros while there is none.
    pub leaf: LeafHash,
}

impl Head {
    /// Of a log without records.
    pub const EMPTY: Self = Self { seq: 0, leaf: LeafHash::ZERO };
}

/// The one writer of the log.
#[derive(Debug)]
pub struct AuditLog {
    store: Arc<Store>,
    boot: BootId,
    head: Head,
    is_closed: bool,
}

impl AuditLog {
    /// Finds the end of the log and checks that it is the end that was written. The whole log is checked by
    /// [`verify::verify`].
    ///
    /// # Errors
    /// [`AuditError::Broken`] when head and last record disagree, [`AuditError::Store`] when the store cannot
    /// be read, [`AuditError::BootId`] when the system does not tell its boot.
    pub fn open(store: Arc<Store>) -> Result<Self, AuditError> {
        Self::open_in_boot(store, BootId::of_system()?)
    }

    /// [`AuditLog::open`] for a boot id the caller knows.
    ///
    /// # Errors
    /// As for [`AuditLog::open`].
    pub fn open_in_boot(store: Arc<Store>, boot: BootId) -> Result<Self, AuditError> {
        let head = check_end(&store)?;
        Ok(Self { store, boot, head, is_closed: false })
    }

    /// Appends all entries in one write and answers their sequence numbers.
    ///
    /// # Errors
    /// [`AuditError`]: none of the entries counts as written. When the store failed, the log is closed.
    pub fn append(
        &mut self,
        entries: &[AuditEntry],
        now: Moment,
        durability: Durability,
    ) -> Result<Vec<u64>, AuditError> {
        if self.is_closed {
            return Err(AuditError::Closed);
        }
        if entries.len() > AUDIT_BATCH_MAX {
            return Err(AuditError::BatchTooLarge { entries: entries.len(), max: AUDIT_BATCH_MAX });
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = self.store.batch()?;
        let mut head = self.head;
        let mut seqs = Vec::with_capacity(entries.len());
        for entry in entries {
            head = self.put(&mut batch, head, entry, now)?;
            seqs.push(head.seq);
        }
        batch.put(keys::META, keys::AUDIT_HEAD, &keys::head_value(head))?;
        if let Err(error) = batch.commit(durability) {
            self.is_closed = true;
            return Err(error.into());
        }
        self.head = head;
        Ok(seqs)
    }

    fn put(
        &self,
        batch: &mut Batch<'_>,
        head: Head,
        entry: &AuditEntry,
        now: Moment,
    ) -> Result<Head, AuditError> {
        let seq = head.seq.checked_add(1).ok_or(AuditError::Full)?;
        let record = AuditRecord::new(entry, seq, now, &self.boot, head.leaf);
        let bytes = record.encode().map_err(|fault| AuditError::Record { seq, fault })?;
        let leaf = LeafHash::of(&bytes);
        batch.put(keys::AUDIT, &keys::audit_key(seq), &keys::audit_value(leaf, &bytes))?;
        Ok(Head { seq, leaf })
    }

    /// Makes every buffered record durable.
    ///
    /// # Errors
    /// [`AuditError::Store`]: the buffered records may be lost, and the log is closed.
    pub fn sync(&mut self) -> Result<(), AuditError> {
        if self.is_closed {
            return Err(AuditError::Closed);
        }
        match self.store.sync() {
            Ok(()) => Ok(()),
            Err(error) => {
                self.is_closed = true;
                Err(error.into())
            }
        }
    }

    /// Where the log ends.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// The store it is in, for [`verify::verify`] and [`read::records`].
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// At most `limit` records from `from_seq` on, oldest first.
    ///
    /// # Errors
    /// [`AuditError`] at the first record that cannot be read.
    pub fn read(&self, from_seq: u64, limit: usize) -> Result<Vec<StoredRecord>, AuditError> {
        read::records(&self.store, Direction::OldestFirst { from: from_seq })?.take(limit).collect()
    }

    /// The records, newest first.
    ///
    /// # Errors
    /// [`AuditError::Store`] when the store cannot be read.
    pub fn newest(&self) -> Result<Records<'_>, AuditError> {
        read::records(&self.store, Direction::NewestFirst)
    }
}

/// The head as stored, in one view with the records.
fn stored_head(view: &View<'_>) -> Result<Head, VerifyFailure> {
    let unreadable = |error| VerifyFailure::new(0, VerifyFault::Unreadable(error));
    match view.get(keys::META, keys::AUDIT_HEAD).map_err(unreadable)? {
        None => Ok(Head::EMPTY),
        Some(value) => keys::parse_head(&value).ok_or(VerifyFailure::new(0, VerifyFault::Head)),
    }
}

/// The head, when the last record is the one it names.
fn check_end(store: &Store) -> Result<Head, AuditError> {
    let head = stored_head(&store.view())?;
    let Some(last) = read::records(store, Direction::NewestFirst)?.next() else {
        return match head {
            Head::EMPTY => Ok(head),
            Head { seq, .. } => Err(VerifyFailure::new(seq, VerifyFault::Missing).into()),
        };
    };
    let last = last?;
    if last.seq < head.seq {
        return Err(VerifyFailure::new(last.seq.saturating_add(1), VerifyFault::Missing).into());
    }
    if last.seq > head.seq {
        return Err(VerifyFailure::new(last.seq, VerifyFault::Unexpected).into());
    }
    if last.leaf != head.leaf {
        return Err(VerifyFailure::new(last.seq, VerifyFault::Rewritten).into());
    }
    Ok(head)
}
