//! Reads records one by one, each checked against its own hash and number.

use rocksdb::IteratorMode;

use super::error::{AuditError, VerifyFailure, VerifyFault};
use super::record::{AuditRecord, LeafHash};
use crate::keys;
use crate::store::error::StoreError;
use crate::store::{Entries, Store};

/// Which end of the log comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Upwards from a sequence number.
    OldestFirst {
        /// The first number of interest.
        from: u64,
    },
    /// Downwards from the last record.
    NewestFirst,
}

/// One record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place.
    pub seq: u64,
    /// Its hash.
    pub leaf: LeafHash,
    /// Its bytes: one line of JSON.
    pub bytes: Vec<u8>,
    /// What the bytes say.
    pub record: AuditRecord,
}

/// Records in order; one state of the log, whatever is appended meanwhile.
///
/// A record that is damaged in itself is an error in its place, and the next one follows. The chain between
/// records is for [`verify`](super::verify::verify) to check.
pub struct Records<'a>(Entries<'a>);

impl std::fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// Starts reading.
///
/// # Errors
/// [`AuditError::Store`] when the store cannot be read.
pub fn records(store: &Store, direction: Direction) -> Result<Records<'_>, AuditError> {
    let start;
    let mode = match direction {
        Direction::OldestFirst { from } => {
            start = keys::audit_key(from);
            IteratorMode::From(&start, rocksdb::Direction::Forward)
        }
        Direction::NewestFirst => IteratorMode::End,
    };
    Ok(Records(store.iterate(keys::AUDIT, mode)?))
}

impl Iterator for Records<'_> {
    type Item = Result<StoredRecord, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.0.next()? {
            Ok((key, value)) => parse(&key, &value).map_err(AuditError::Broken),
            Err(error) => Err(error.into()),
        })
    }
}

/// Checks everything a record can be checked for by itself.
pub(super) fn parse(key: &[u8], value: &[u8]) -> Result<StoredRecord, VerifyFailure> {
    // A key of another length was put there by somebody else; the number it sorts behind is its place.
    let Some(seq) = keys::parse_audit_key(key) else {
        return Err(VerifyFailure::new(place(key), VerifyFault::Unexpected));
    };
    let fail = |why| VerifyFailure::new(seq, why);
    let (leaf, bytes) = keys::parse_audit_value(value).ok_or(fail(VerifyFault::Edited))?;
    if LeafHash::of(bytes) != leaf {
        return Err(fail(VerifyFault::Edited));
    }
    let record = AuditRecord::decode(bytes).map_err(|fault| fail(VerifyFault::Malformed(fault)))?;
    if record.seq != seq {
        return Err(fail(VerifyFault::WrongSeq { found: record.seq }));
    }
    Ok(StoredRecord { seq, leaf, bytes: bytes.to_vec(), record })
}

/// Where a key that is none sorts: its first eight bytes, as if filled up with zeros.
fn place(key: &[u8]) -> u64 {
    key.iter()
        .copied()
        .chain(std::iter::repeat(0))
        .take(8)
        .fold(0, |sum, b| (sum << 8) | u64::from(b))
}

/// What went wrong while reading, at the place where a record was expected.
pub(super) fn unreadable(seq: u64, error: StoreError) -> VerifyFailure {
    VerifyFailure::new(seq, VerifyFault::Unreadable(error))
}
