//! How many distances were answered: the state that a version hands to the next.

use std::sync::atomic::{AtomicU64, Ordering};

use themis_plugin::Error;

/// What the saved state begins with, so that a number is not taken for another plugin's.
const MAGIC: &[u8; 4] = b"GEO1";

/// Counts answers.
#[derive(Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    /// One more was answered.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub(crate) fn answered(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For the next version.
    pub(crate) fn save(&self) -> Vec<u8> {
        [MAGIC.as_slice(), &self.answered().to_le_bytes()].concat()
    }

    /// From the version before.
    ///
    /// # Errors
    /// The bytes are not what [`Tally::save`] writes; the count is as it was.
    pub(crate) fn take(&self, state: &[u8]) -> Result<(), Error> {
        let count = state.strip_prefix(MAGIC).and_then(|count| count.try_into().ok());
        let count = count.ok_or_else(|| Error::new("the state is not a count of geo's"))?;
        self.0.store(u64::from_le_bytes(count), Ordering::Relaxed);
        Ok(())
    }
}
