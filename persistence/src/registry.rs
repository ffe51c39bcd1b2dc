//! What is remembered of the marketplace: metadata that was believed, floors, publishers, and what versions were.
//!
//! Nothing of it can be asked for again: it is what makes a registry that goes back, a key that changes and a version with
//! two contents visible. So it lies in the store, each note in one write, and what cannot be read is an error and never
//! "nothing known".

use serde::Serialize;
use serde::de::DeserializeOwned;
use themis_messages::ids::{PluginName, PluginVersion};

use crate::keys;
use crate::store::{Durability, Store, StoreError};

/// A note, by what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The metadata of a registry, by its address.
    Trust(String),
    /// The lowest version of a plugin that may be installed.
    Floor(PluginName),
    /// The key that a plugin was first installed with.
    Publisher(PluginName),
    /// The digest that a version's bundle had when it was first seen.
    Seen(PluginName, PluginVersion),
}

/// Why a note cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The store's own failure.
    #[error("{0}")]
    Store(StoreError),
    /// It is not what was written.
    #[error("the note {key:?} is damaged: {what}")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
}

impl From<StoreError> for NoteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Note {
    /// The key it lies under.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Trust(address) => format!("trust/{address}"),
            Self::Floor(plugin) => format!("floor/{plugin}"),
            Self::Publisher(plugin) => format!("publisher/{plugin}"),
            Self::Seen(plugin, version) => format!("seen/{plugin}/{version}"),
        }
    }
}

/// Reads a note.
///
/// # Errors
/// [`NoteError`].
pub fn read<T: DeserializeOwned>(store: &Store, note: &Note) -> Result<Option<T>, NoteError> {
    let key = note.key();
    let Some(bytes) = store.get(keys::REGISTRY, key.as_bytes())? else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| NoteError::Damaged { key, what: error.to_string() })
}

/// Notes that are written together, durably, or not at all.
#[derive(Debug, Default)]
pub struct Notes(Vec<(String, Option<Vec<u8>>)>);

impl Notes {
    /// One more, in place of what stood there.
    #[must_use]
    pub fn with(mut self, note: &Note, value: &impl Serialize) -> Self {
        // Ids, texts and maps of them: all of them can be written.
        self.0.push((note.key(), Some(serde_json::to_vec(value).unwrap_or_default())));
        self
    }

    /// One less, if it stood there.
    #[must_use]
    pub fn without(mut self, note: &Note) -> Self {
        self.0.push((note.key(), None));
        self
    }

    /// Writes them.
    ///
    /// # Errors
    /// [`StoreError`]: then none of them was written.
    pub fn write(self, store: &Store) -> Result<(), StoreError> {
        let mut batch = store.batch()?;
        for (key, value) in self.0 {
            match value {
                Some(value) => batch.put(keys::REGISTRY, key.as_bytes(), &value)?,
                None => batch.delete(keys::REGISTRY, key.as_bytes())?,
            }
        }
        batch.commit(Durability::Synced)
    }
}

/// Every floor there is.
///
/// # Errors
/// [`NoteError`].
pub fn floors(store: &Store) -> Result<Vec<(PluginName, PluginVersion)>, NoteError> {
    let mut found = Vec::new();
    for (key, value) in store.with_prefix(keys::REGISTRY, b"floor/")? {
        let key = String::from_utf8_lossy(&key).into_owned();
        let damaged = |what: String| NoteError::Damaged { key: key.clone(), what };
        let name = key.trim_start_matches("floor/").parse();
        let name =
            name.map_err(|error: themis_messages::ids::IdError| damaged(error.to_string()))?;
        let version = serde_json::from_slice(&value).map_err(|error| damaged(error.to_string()))?;
        found.push((name, version));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(name: &str) -> PluginName {
        name.parse().unwrap()
    }

    fn version(text: &str) -> PluginVersion {
        text.parse().unwrap()
    }

    #[test]
    fn notes_outlive_the_store_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (geo, seen) = (plugin("geo"), Note::Seen(plugin("geo"), version("1.0.0")));
        {
            let store = Store::open(&data).unwrap();
            assert_eq!(read::<PluginVersion>(&store, &Note::Floor(geo.clone())).unwrap(), None);
            let notes = Notes::default()
                .with(&Note::Floor(geo.clone()), &version("1.2.0"))
                .with(&Note::Floor(plugin("text")), &version("2.0.0"))
                .with(&seen, &"x");
            notes.write(&store).unwrap();
        }
        let store = Store::open(&data).unwrap();
        let all = [(geo.clone(), version("1.2.0")), (plugin("text"), version("2.0.0"))];
        assert_eq!(floors(&store).unwrap(), all);
        assert_eq!(read(&store, &Note::Floor(geo.clone())).unwrap(), Some(version("1.2.0")));
        Notes::default().without(&Note::Floor(geo)).write(&store).unwrap();
        assert_eq!(floors(&store).unwrap(), all[1..]);
        let damaged = read::<PluginVersion>(&store, &seen).unwrap_err();
        assert!(damaged.to_string().contains("seen/geo/1.0.0"), "{damaged}");
    }
}
