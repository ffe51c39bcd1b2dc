//! How keys and the small fixed values of the store are written, so that nothing else knows.
//!
//! | key space | key | value |
//! |---|---|---|
//! | `meta` | `format` | decimal text |
//! | `meta` | `audit.head` | sequence number of the last record, 8 bytes big-endian; its leaf hash, 32 bytes |
//! | `registry` | `trust/…`, `floor/…`, `publisher/…`, `seen/…`: see [`crate::registry`] | JSON |
//! | `experiments` | `ab_test::…`: see [`crate::experiments`] | version, checksum, JSON |
//! | `audit` | sequence number, 8 bytes big-endian, so that byte order is time order | leaf hash, 32 bytes; the record's bytes |

use crate::audit_log::Head;
use crate::audit_log::record::{HASH_BYTES, LeafHash};

/// The key space of small facts about the store.
pub(crate) const META: &str = "meta";
/// The key space of audit records.
pub(crate) const AUDIT: &str = "audit";
/// The key space of what is remembered of the marketplace.
pub(crate) const REGISTRY: &str = "registry";
/// The key space of experiments.
pub(crate) const EXPERIMENTS: &str = "experiments";
/// RocksDB insists on this one; it stays empty.
pub(crate) const DEFAULT: &str = "default";
/// In `meta`: the format of everything else.
pub(crate) const FORMAT: &[u8] = b"format";
/// In `meta`: how far the audit log goes and how it ends.
pub(crate) const AUDIT_HEAD: &[u8] = b"audit.head";

const SEQ_BYTES: usize = size_of::<u64>();

/// Key of an audit record.
pub(crate) const fn audit_key(seq: u64) -> [u8; SEQ_BYTES] {
    seq.to_be_bytes()
}

/// Sequence number of an audit record's key; `None` when it is no such key.
pub(crate) fn parse_audit_key(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// Value of an audit record: its leaf hash in front, so that an edit is found at the record itself and
/// proofs need not hash the log again.
pub(crate) fn audit_value(leaf: LeafHash, record: &[u8]) -> Vec<u8> {
    [leaf.as_bytes(), record].concat()
}

/// Leaf hash and record of an audit value; `None` when it is too short to have both.
pub(crate) fn parse_audit_value(value: &[u8]) -> Option<(LeafHash, &[u8])> {
    let (leaf, record) = value.split_first_chunk::<HASH_BYTES>()?;
    (!record.is_empty()).then_some((LeafHash::from_bytes(*leaf), record))
}

/// Value of [`AUDIT_HEAD`].
pub(crate) fn head_value(head: Head) -> Vec<u8> {
    [head.seq.to_be_bytes().as_slice(), head.leaf.as_bytes()].concat()
}

/// The head; `None` when the bytes are not one. A head that counts no records is never written.
pub(crate) fn parse_head(value: &[u8]) -> Option<Head> {
    let (seq, rest) = value.split_first_chunk::<SEQ_BYTES>()?;
    let leaf: [u8; HASH_BYTES] = rest.try_into().ok()?;
    let seq = u64::from_be_bytes(*seq);
    (seq > 0).then_some(Head { seq, leaf: LeafHash::from_bytes(leaf) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_like_numbers(a: u64, b: u64) {
            prop_assert_eq!(audit_key(a).cmp(&audit_key(b)), a.cmp(&b));
            prop_assert_eq!(parse_audit_key(&audit_key(a)), Some(a));
        }

        #[test]
        fn what_is_written_is_read_back(seq in 1_u64.., hash: [u8; 32], record in prop::collection::vec(any::<u8>(), 1..64)) {
            let leaf = LeafHash::from_bytes(hash);
            let head = Head { seq, leaf };
            prop_assert_eq!(parse_head(&head_value(head)), Some(head));
            let value = audit_value(leaf, &record);
            prop_assert_eq!(parse_audit_value(&value), Some((leaf, record.as_slice())));
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        assert_eq!(parse_audit_key(&[0; 7]), None);
        assert_eq!(parse_audit_key(&[0; 9]), None);
        assert_eq!(parse_audit_value(&[0; HASH_BYTES]), None);
        assert_eq!(parse_head(&[1; 39]), None);
        assert_eq!(parse_head(&[1; 41]), None);
        assert_eq!(parse_head(&[0; 40]), None, "an empty log has no head");
    }
}
