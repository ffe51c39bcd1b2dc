//! Damages a stored record on purpose: a verification that was never seen to fail proves little.
//!
//! Nothing in the kernel calls this. Operators and the demo use it on a copy, or on a store they give up.

use crate::audit_log::error::AuditError;
use crate::keys;
use crate::store::{Durability, Store};

/// Flips the lowest bit of the middle byte of one record, and nothing that belongs to it.
///
/// # Errors
/// [`AuditError::NoRecord`] when there is none with that number, or the store's own errors.
pub fn flip_bit(store: &Store, seq: u64) -> Result<(), AuditError> {
    let key = keys::audit_key(seq);
    let mut value = store.get(keys::AUDIT, &key)?.ok_or(AuditError::NoRecord { seq })?;
    let middle = value.len() / 2;
    if let Some(byte) = value.get_mut(middle) {
        *byte ^= 1;
    }
    let mut batch = store.batch()?;
    batch.put(keys::AUDIT, &key, &value)?;
    batch.commit(Durability::Synced)?;
    Ok(())
}
