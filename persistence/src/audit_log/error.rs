//! Why the audit log could not be opened, written or read, and what verification found wrong.

use super::record::RecordFault;
use crate::store::error::StoreError;

/// A failure of the audit log. Whoever waits for a record must not go on without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log is not what was written.
    #[error(transparent)]
    Broken(#[from] VerifyFailure),
    /// A write failed earlier, so what is on the disk is unknown until the log is opened again.
    #[error("the audit log is closed since a write failed: open it again")]
    Closed,
    /// More entries than one batch takes.
    #[error("{entries} audit entries are over the limit of {max} for one batch")]
    BatchTooLarge {
        /// How many were given.
        entries: usize,
        /// How many are taken.
        max: usize,
    },
    /// A record could not be encoded within its limit.
    #[error("audit record {seq} cannot be encoded: {fault}")]
    Record {
        /// The sequence number it would have had.
        seq: u64,
        /// What is wrong.
        fault: RecordFault,
    },
    /// There is no record with that number.
    #[error("there is no audit record {seq}")]
    NoRecord {
        /// The sequence number asked for.
        seq: u64,
    },
    /// All 2^64 - 1 sequence numbers are used.
    #[error("the audit log has no sequence number left")]
    Full,
    /// The system does not say which boot this is.
    #[error("the boot id cannot be read: {what}")]
    BootId {
        /// The system's words.
        what: String,
    },
}

impl AuditError {
    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Broken(failure) => failure.code(),
            Self::Closed => "audit.closed",
            Self::BatchTooLarge { .. } => "audit.batch_too_large",
            Self::Record { .. } => "audit.record",
            Self::NoRecord { .. } => "audit.no_record",
            Self::Full => "audit.full",
            Self::BootId { .. } => "audit.boot_id",
        }
    }
}

/// The first record that is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("audit record {seq}: {why}")]
pub struct VerifyFailure {
    /// The first bad sequence number; 0 when it is the head itself.
    pub seq: u64,
    /// What is wrong with it.
    pub why: VerifyFault,
}

impl VerifyFailure {
    pub(crate) const fn new(seq: u64, why: VerifyFault) -> Self {
        Self { seq, why }
    }

    /// Stable code for programs, metrics and the audit log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.why {
            VerifyFault::Missing => "audit.missing",
            VerifyFault::Unexpected => "audit.unexpected",
            VerifyFault::Edited => "audit.edited",
            VerifyFault::Malformed(_) => "audit.malformed",
            VerifyFault::WrongSeq { .. } => "audit.wrong_seq",
            VerifyFault::WrongPrev => "audit.wrong_prev",
            VerifyFault::Rewritten => "audit.rewritten",
            VerifyFault::Head => "audit.head",
            VerifyFault::Unreadable(_) => "audit.unreadable",
        }
    }
}

/// What can be wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyFault {
    /// The head or a later record counts it, and it is not there: deleted, or the tail was cut off.
    #[error("is missing")]
    Missing,
    /// The head does not count it: inserted, or added behind the end.
    #[error("is not one the head of the log counts")]
    Unexpected,
    /// Its bytes do not have the hash stored with them.
    #[error("was edited: its bytes do not have the hash stored with them")]
    Edited,
    /// Its bytes are not a record.
    #[error("is not a record: {0}")]
    Malformed(RecordFault),
    /// It says another number than the one it is stored under: moved, swapped or duplicated.
    #[error("says of itself that it is record {found}")]
    WrongSeq {
        /// What it says.
        found: u64,
    },
    /// It does not continue the record before it, and what follows does not vouch for it.
    #[error("does not continue the record before it")]
    WrongPrev,
    /// It is whole in itself, but the record after it, or the head, was chained to other bytes.
    #[error("was rewritten: what follows was chained to another record")]
    Rewritten,
    /// The head itself cannot be read.
    #[error("the head of the log is damaged")]
    Head,
    /// The store could not read it.
    #[error("cannot be read: {0}")]
    Unreadable(StoreError),
}
