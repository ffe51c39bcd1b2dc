//! Which versions to install: the registry's offer or the lock file, what is wanted, and what stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use themis_messages::ids::PluginName;
use themis_messages::limits::RESOLVE_DEADLINE;
use themis_messages::registry::{
    InstallRequest, Planned, RegistryError, Release, Resolved, Wanted,
};

use super::client::RegistrySettings;
use super::index::{Offer, to_choose_from};
use super::lock::Lock;
use super::resolve::{self, Limits, Request, Stay, resolve};

/// Most versions that are tried.
const DECISIONS_MAX: u64 = 10_000_000;

/// What is to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallPlan {
    /// In the order in which they load.
    pub steps: Vec<Planned>,
    /// Their releases, in the same order.
    pub releases: Vec<Release>,
}

/// Chooses from what the registry offers.
///
/// # Errors
/// [`RegistryError::Resolve`].
pub fn choose(
    offer: &Offer,
    lock: &Lock,
    request: &InstallRequest,
) -> Result<InstallPlan, RegistryError> {
    let wanted = all_wanted(lock, request);
    let named: BTreeSet<&PluginName> = wanted.iter().map(|it| &it.plugin).collect();
    let installed = lock.plugins().map(|it| &it.release);
    let locked = installed.clone().map(|it| (it.plugin.clone(), it.version.clone()));
    let update = match request.update {
        // Everything, or what was named.
        true if request.wanted.is_empty() => {
            installed.clone().map(|it| it.plugin.clone()).collect()
        }
        true => request.wanted.iter().map(|it| it.plugin.clone()).collect(),
        false => BTreeSet::new(),
    };
    let stays = installed.filter(|it| !named.contains(&it.plugin)).flat_map(|it| {
        it.dependencies.iter().map(|(dependency, wanted)| Stay {
            needer: it.plugin.clone(),
            dependency: dependency.clone(),
            wanted: wanted.clone(),
        })
    });
    let request = Request {
        wanted: wanted.iter().map(|it| (it.plugin.clone(), it.version.clone())).collect(),
        locked: locked.collect(),
        update,
        stays: stays.collect(),
    };
    let started = Instant::now();
    let spent = || started.elapsed() >= RESOLVE_DEADLINE;
    let limits = Limits { spent: &spent, budget: RESOLVE_DEADLINE, decisions: DECISIONS_MAX };
    resolve_with(&offer.index, &request, &limits, |step| offer.find(&step.plugin, &step.version))
}

/// What is asked for: by name, or everything that somebody once asked for.
fn all_wanted(lock: &Lock, request: &InstallRequest) -> Vec<Wanted> {
    if !request.wanted.is_empty() {
        return request.wanted.clone();
    }
    let wanted = lock.plugins().filter_map(|locked| {
        let (plugin, version) = (locked.release.plugin.clone(), locked.wanted.clone()?);
        Some(Wanted { plugin, version })
    });
    wanted.collect()
}

/// Chooses, and finds the release of each step.
fn resolve_with<'r>(
    index: &resolve::Index,
    request: &Request,
    limits: &Limits<'_>,
    find: impl Fn(&Planned) -> Option<&'r Release>,
) -> Result<InstallPlan, RegistryError> {
    let plan = resolve(index, request, limits).map_err(|error| RegistryError::Resolve {
        code: error.code(),
        message: error.to_string(),
    })?;
    let (mut steps, mut releases) = (Vec::new(), Vec::new());
    for step in plan.steps {
        let (plugin, version) = (step.plugin, step.version);
        let step = Planned { plugin, version, needed_by: step.needed_by.into_iter().collect() };
        let release = find(&step).ok_or_else(|| RegistryError::Offline {
            what: format!("{} {}", step.plugin, step.version),
        })?;
        releases.push(release.clone());
        steps.push(step);
    }
    Ok(InstallPlan { steps, releases })
}

/// Chooses from the lock file alone: what it has is what is installed, and nothing else exists.
///
/// # Errors
/// [`RegistryError::Offline`]; [`RegistryError::Resolve`].
pub fn from_lock(lock: &Lock, request: &InstallRequest) -> Result<InstallPlan, RegistryError> {
    let mut releases = BTreeMap::<_, BTreeMap<_, _>>::new();
    for locked in lock.plugins() {
        let release = &locked.release;
        // What is installed stays, whether it was withdrawn since or not.
        let entry = resolve::Release { yanked: false, ..to_choose_from(release) };
        let versions = releases.entry(release.plugin.clone()).or_default();
        versions.insert(release.version.clone(), entry);
    }
    if let Some(missing) = request.wanted.iter().find(|it| lock.find(&it.plugin).is_none()) {
        let what = format!("{} is not in the lock file, and so it", missing.plugin);
        return Err(RegistryError::Offline { what });
    }
    let wanted = all_wanted(lock, request);
    let request = Request {
        wanted: wanted.into_iter().map(|it| (it.plugin, it.version)).collect(),
        ..Request::default()
    };
    let never = || false;
    let limits = Limits { spent: &never, budget: RESOLVE_DEADLINE, decisions: DECISIONS_MAX };
    let index = resolve::Index::new(releases);
    let find = |step: &Planned| lock.find(&step.plugin).map(|it| &it.release);
    resolve_with(&index, &request, &limits, find)
}

/// The answer to the question where a plugin is.
///
/// # Errors
/// [`RegistryError::Settings`].
pub fn resolved(
    settings: &RegistrySettings,
    plan: InstallPlan,
    plugin: &PluginName,
) -> Result<Resolved, RegistryError> {
    let release = plan.releases.into_iter().find(|release| release.plugin == *plugin);
    let release = release.ok_or_else(|| RegistryError::Offline { what: plugin.to_string() })?;
    Ok(Resolved { url: settings.url_of(&release)?.to_string(), release, plan: plan.steps })
}

/// What an update of an installed plugin brings that nobody has agreed to yet: needs, rights, another publisher.
#[must_use]
pub fn news(before: &Release, after: &Release) -> Vec<String> {
    let mut news = Vec::new();
    for dependency in after.dependencies.keys().filter(|it| !before.dependencies.contains_key(it)) {
        news.push(format!("it needs {dependency}"));
    }
    for capability in after.capabilities.difference(&before.capabilities) {
        news.push(format!("it may use {capability:?}"));
    }
    if before.key_id != after.key_id {
        news.push(format!("its publisher's key {} in place of {}", after.key_id, before.key_id));
    }
    news
}
