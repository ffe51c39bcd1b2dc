//! Experiments as they were last: each in one value, with a version and a checksum.
//!
//! | key | value |
//! |---|---|
//! | `ab_test::` and the experiment's name | format, 1 byte; the first 8 bytes of the SHA-256 of the rest; JSON |
//!
//! A value is a whole state and not a change, so reading it back never counts anything twice; what was counted after it was
//! written is lost with the process.

use sha2::{Digest as _, Sha256};

use crate::keys;
use crate::store::{Durability, Store, StoreError};

/// What stands in front of every name.
const PREFIX: &[u8] = b"ab_test::";
/// The form this release writes and reads.
const FORMAT: u8 = 1;
const CHECK_BYTES: usize = 8;

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record of experiment {name:?} is damaged: {what}")]
pub struct Damaged {
    /// The experiment's name, as far as it is text.
    pub name: String,
    /// What is wrong.
    pub what: &'static str,
}

fn checksum(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

/// Writes records by name, together. They outlive the process at once; a loss of power may take the last of them.
///
/// # Errors
/// [`StoreError`]: then none of them was written.
pub fn write(store: &Store, records: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
    let mut batch = store.batch()?;
    for (name, bytes) in records {
        let key = [PREFIX, name.as_bytes()].concat();
        let value = [&[FORMAT][..], &checksum(bytes), bytes].concat();
        batch.put(keys::EXPERIMENTS, &key, &value)?;
    }
    batch.commit(Durability::Buffered)
}

/// A record, or why it cannot be used.
pub type Read = Result<Vec<u8>, Damaged>;

/// Every record there is.
///
/// # Errors
/// [`StoreError`].
pub fn read_all(store: &Store) -> Result<Vec<Read>, StoreError> {
    let pairs = store.with_prefix(keys::EXPERIMENTS, PREFIX)?;
    Ok(pairs.iter().map(|(key, value)| read(key, value)).collect())
}

fn read(key: &[u8], value: &[u8]) -> Read {
    let name = || String::from_utf8_lossy(&key[PREFIX.len()..]).into_owned();
    let damaged = |what| Damaged { name: name(), what };
    let (format, rest) = value.split_first().ok_or_else(|| damaged("it is empty"))?;
    if *format != FORMAT {
        return Err(damaged("it is of a form that this release does not read"));
    }
    let (check, bytes) =
        rest.split_first_chunk::<CHECK_BYTES>().ok_or_else(|| damaged("it is cut short"))?;
    if *check != checksum(bytes) {
        return Err(damaged("its checksum does not match"));
    }
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_outlive_the_store_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let record = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        {
            let store = Store::open(&data).unwrap();
            assert_eq!(read_all(&store).unwrap(), []);
            write(&store, &[record("one", "1"), record("two", "2")]).unwrap();
            write(&store, &[record("two", "3")]).unwrap();
        }
        let store = Store::open(&data).unwrap();
        assert_eq!(read_all(&store).unwrap(), [Ok(b"1".to_vec()), Ok(b"3".to_vec())]);
        let key = [PREFIX, b"one"].concat();
        for (value, what) in [
            (&b""[..], "it is empty"),
            (b"\x02", "it is of a form that this release does not read"),
            (b"\x01short", "it is cut short"),
            (b"\x01\0\0\0\0\0\0\0\0text", "its checksum does not match"),
        ] {
            let mut batch = store.batch().unwrap();
            batch.put(keys::EXPERIMENTS, &key, value).unwrap();
            batch.commit(Durability::Buffered).unwrap();
            let read = read_all(&store).unwrap();
            assert_eq!(read[0], Err(Damaged { name: "one".to_owned(), what }));
            assert_eq!(read[1], Ok(b"3".to_vec()), "the others are as they were");
        }
    }
}
