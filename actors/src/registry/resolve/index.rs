//! What the registry offers, in a form that is quick to search: built once per metadata load, shared by all requests.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use semver::VersionReq;
use themis_messages::ids::{PluginName, PluginVersion};

/// What matters about one release when versions are chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// What it needs.
    pub dependencies: BTreeMap<PluginName, VersionReq>,
    /// Withdrawn: kept where it is installed, never newly chosen.
    pub yanked: bool,
    /// It has a build for this platform, or is wasm.
    pub runs_here: bool,
}

/// All releases of all plugins, by name and version.
pub type Releases = BTreeMap<PluginName, BTreeMap<PluginVersion, Release>>;

/// A plugin's number in one index; numbers go by name, so that equal indexes give equal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginId(pub u32);

/// For the solver's own log.
impl fmt::Display for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A release with its names replaced by numbers.
#[derive(Debug)]
pub struct Entry {
    /// Its version.
    pub version: PluginVersion,
    /// What it needs, by name.
    pub needs: Vec<(PluginId, VersionReq)>,
    /// See [`Release::yanked`].
    pub yanked: bool,
    /// See [`Release::runs_here`].
    pub runs_here: bool,
}

/// A snapshot of what the registry offers. Cheap to clone: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Index(Arc<Tables>);

#[derive(Debug, Default)]
struct Tables {
    names: Vec<PluginName>,
    ids: HashMap<PluginName, PluginId>,
    /// Releases by plugin, lowest version first; none of those that are only needed and never published.
    entries: Vec<Vec<Entry>>,
}

impl Index {
    /// Takes the releases over.
    #[must_use]
    pub fn new(releases: Releases) -> Self {
        let mut tables = Tables::default();
        for name in releases.keys() {
            tables.id(name);
        }
        tables.entries.reserve(releases.len());
        for (at, (_name, versions)) in releases.into_iter().enumerate() {
            let mut entries = Vec::with_capacity(versions.len());
            for (version, release) in versions {
                let Release { dependencies, yanked, runs_here } = release;
                let needs =
                    dependencies.into_iter().map(|(name, wanted)| (tables.id(&name), wanted));
                entries.push(Entry { version, needs: needs.collect(), yanked, runs_here });
            }
            if let Some(place) = tables.entries.get_mut(at) {
                *place = entries;
            }
        }
        Self(Arc::new(tables))
    }

    /// The number of a plugin that is published, or needed by one that is.
    #[must_use]
    pub fn find(&self, name: &PluginName) -> Option<PluginId> {
        self.0.ids.get(name).copied()
    }

    /// The plugin's name; `None` for a number of another index.
    #[must_use]
    pub fn name(&self, plugin: PluginId) -> Option<&PluginName> {
        self.0.names.get(plugin.0 as usize)
    }

    /// The plugin's releases, lowest version first; none if it is not published.
    #[must_use]
    pub fn entries(&self, plugin: PluginId) -> &[Entry] {
        self.0.entries.get(plugin.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// The release at a place in that list.
    #[must_use]
    pub fn entry(&self, plugin: PluginId, place: u32) -> Option<&Entry> {
        self.entries(plugin).get(place as usize)
    }

    /// How many plugins have a number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.names.len()
    }

    /// Whether it offers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.names.is_empty()
    }
}

impl Tables {
    fn id(&mut self, name: &PluginName) -> PluginId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        // Four thousand million names do not fit in memory.
        let id = PluginId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(name.clone());
        self.entries.push(Vec::new());
        self.ids.insert(name.clone(), id);
        id
    }
}
