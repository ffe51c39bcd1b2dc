//! One request against one index, its names replaced by numbers: which releases may be chosen at all, and which are
//! preferred.

use pubgrub::VersionSet as _;
use semver::VersionReq;

use super::index::{Entry, Index, PluginId};
use super::versions::Versions;
use super::{Request, Stay};

/// What is asked for, as if it were a plugin that needs it. No index has this number.
pub const ASKED: PluginId = PluginId(u32::MAX);

/// Why a release cannot be chosen whatever else is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bar {
    /// It does not suit what is asked for: the place in [`Instance::wanted`].
    Asked(u32),
    /// It does not suit what stays: the place in [`Instance::stays`].
    Stays(u32),
    /// It needs itself, and so could never be loaded.
    Itself,
}

/// For the solver's own log.
impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked(at) => write!(f, "asked {at}"),
            Self::Stays(at) => write!(f, "stays {at}"),
            Self::Itself => f.write_str("itself"),
        }
    }
}

/// What the request says about one plugin.
#[derive(Debug, Clone, Default)]
struct About {
    /// Place of the version that is installed or locked.
    locked: Option<u32>,
    update: bool,
    /// Places in [`Instance::wanted`].
    wanted: Vec<u32>,
    /// Places in [`Instance::stays`].
    stays: Vec<u32>,
    /// Releases that are known to lead nowhere.
    fallen: Option<Versions>,
}

/// One request against one index.
#[derive(Debug)]
pub struct Instance<'a> {
    /// What is on offer.
    pub index: &'a Index,
    /// What is asked for, by name and requirement; all of it is in the index.
    pub wanted: Vec<(PluginId, VersionReq)>,
    /// What must stay possible, in order.
    pub stays: Vec<&'a Stay>,
    about: Vec<About>,
}

impl<'a> Instance<'a> {
    /// Sorts what is asked, so that its order does not matter.
    ///
    /// # Errors
    /// The first wanted plugin that the index does not know.
    pub fn new(
        index: &'a Index,
        request: &'a Request,
    ) -> Result<Self, &'a (themis_messages::ids::PluginName, VersionReq)> {
        let mut about = vec![About::default(); index.len()];
        let mut asked: Vec<_> = request.wanted.iter().collect();
        asked.sort_by_cached_key(|(name, wanted)| (name.clone(), wanted.to_string()));
        asked.dedup();
        let mut wanted = Vec::with_capacity(asked.len());
        for (at, pair) in (0..).zip(asked) {
            let plugin = index.find(&pair.0).ok_or(pair)?;
            wanted.push((plugin, pair.1.clone()));
            if let Some(about) = about.get_mut(plugin.0 as usize) {
                about.wanted.push(at);
            }
        }
        for (name, version) in &request.locked {
            let Some(plugin) = index.find(name) else { continue };
            let place = index.entries(plugin).binary_search_by(|entry| entry.version.cmp(version));
            if let (Ok(place), Some(about)) = (place, about.get_mut(plugin.0 as usize)) {
                about.locked = u32::try_from(place).ok();
                about.update = request.update.contains(name);
            }
        }
        // The needs of one that is asked for are those of the version that will be chosen.
        let asked_for = |stay: &Stay| request.wanted.iter().any(|(name, _)| *name == stay.needer);
        let mut stays: Vec<_> = request.stays.iter().filter(|stay| !asked_for(stay)).collect();
        stays.sort_by_cached_key(|stay| {
            (stay.needer.clone(), stay.dependency.clone(), stay.wanted.to_string())
        });
        stays.dedup();
        for (at, stay) in (0..).zip(&stays) {
            let plugin = index.find(&stay.dependency);
            if let Some(about) = plugin.and_then(|plugin| about.get_mut(plugin.0 as usize)) {
                about.stays.push(at);
            }
        }
        Ok(Self { index, wanted, stays, about })
    }

    fn about(&self, plugin: PluginId) -> Option<&About> {
        self.about.get(plugin.0 as usize)
    }

    /// Whether the release at `place` may be chosen as far as it alone goes.
    fn may_be_chosen(&self, plugin: PluginId, place: u32, entry: &Entry) -> bool {
        let Some(about) = self.about(plugin) else { return false };
        let fallen = about.fallen.as_ref().is_some_and(|fallen| fallen.contains(&place));
        entry.runs_here && !fallen && (!entry.yanked || about.locked == Some(place))
    }

    /// Takes releases that lead nowhere out of every choice.
    pub fn leave_out(&mut self, fallen: impl IntoIterator<Item = (PluginId, Versions)>) {
        for (plugin, versions) in fallen {
            if let Some(about) = self.about.get_mut(plugin.0 as usize) {
                about.fallen = Some(versions);
            }
        }
    }

    /// The releases that match `wanted` and may be chosen.
    #[must_use]
    pub fn candidates(&self, plugin: PluginId, wanted: &VersionReq) -> Versions {
        Versions::of((0..).zip(self.index.entries(plugin)).filter_map(|(place, entry)| {
            let takes =
                self.may_be_chosen(plugin, place, entry) && wanted.matches(entry.version.semver());
            takes.then_some(place)
        }))
    }

    /// The one to try first: what is installed, unless it is to be updated, else the highest.
    #[must_use]
    pub fn preferred(&self, plugin: PluginId, among: &Versions) -> Option<u32> {
        let about = self.about(plugin)?;
        if let Some(locked) = about.locked.filter(|locked| among.contains(locked))
            && !about.update
        {
            return Some(locked);
        }
        // Of an updated plugin, a yanked version that is installed only stays if there is nothing else.
        let withdrawn =
            |place: &u32| self.index.entry(plugin, *place).is_some_and(|entry| entry.yanked);
        among.places().rev().find(|place| !withdrawn(place)).or_else(|| among.highest())
    }

    /// Whether the version that is installed is to be kept if possible.
    #[must_use]
    pub fn is_kept(&self, plugin: PluginId) -> bool {
        self.about(plugin).is_some_and(|about| about.locked.is_some() && !about.update)
    }

    /// Whether it is asked for.
    #[must_use]
    pub fn is_wanted(&self, plugin: PluginId) -> bool {
        self.about(plugin).is_some_and(|about| !about.wanted.is_empty())
    }

    /// What a release needs; of [`ASKED`], what is asked for.
    #[must_use]
    pub fn needs(&self, plugin: PluginId, place: u32) -> &[(PluginId, VersionReq)] {
        if plugin == ASKED {
            return &self.wanted;
        }
        self.index.entry(plugin, place).map_or(&[], |entry| &entry.needs)
    }

    /// Why a release is out of the question, if it is.
    #[must_use]
    pub fn bar(&self, plugin: PluginId, place: u32) -> Option<Bar> {
        let entry = self.index.entry(plugin, place)?;
        if entry.needs.iter().any(|(needed, _)| *needed == plugin) {
            return Some(Bar::Itself);
        }
        let about = self.about(plugin)?;
        let against = |at: &&u32| {
            let stay = self.stays.get(**at as usize);
            stay.is_some_and(|stay| !stay.wanted.matches(entry.version.semver()))
        };
        about.stays.iter().find(against).map(|at| Bar::Stays(*at))
    }

    /// As [`Self::bar`], and what is asked for counts as well. The search sees that for itself, and explains it better.
    #[must_use]
    pub fn any_bar(&self, plugin: PluginId, place: u32) -> Option<Bar> {
        let against = |at: &&u32| {
            let wanted = self.wanted.get(**at as usize);
            let entry = self.index.entry(plugin, place);
            wanted.zip(entry).is_some_and(|((_, it), entry)| !it.matches(entry.version.semver()))
        };
        let asked = || self.about(plugin)?.wanted.iter().find(against).map(|at| Bar::Asked(*at));
        self.bar(plugin, place).or_else(asked)
    }

    /// Whether no release of the set can be had, as is seen at once.
    #[must_use]
    pub fn is_hopeless(&self, plugin: PluginId, set: &Versions) -> bool {
        let restricted =
            || self.about(plugin).is_some_and(|it| !it.wanted.is_empty() || !it.stays.is_empty());
        let barred = |place| self.any_bar(plugin, place).is_some();
        set.is_empty() || (restricted() && set.places().all(barred))
    }
}
