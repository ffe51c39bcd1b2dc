//! Which versions to install: the registry's offer or the lock file, what is wanted, and what stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use semver::VersionReq;
use themis_messages::ids::{KeyId, PluginName};
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

/// Chooses from what the registry offers. What is installed and not asked for stays as it is; where that leaves no choice,
/// installed plugins that need what is asked for may change with it.
///
/// # Errors
/// [`RegistryError::Resolve`].
pub fn choose(
    offer: &Offer,
    lock: &Lock,
    request: &InstallRequest,
) -> Result<InstallPlan, RegistryError> {
    let started = Instant::now();
    let spent = || started.elapsed() >= RESOLVE_DEADLINE;
    let limits = Limits { spent: &spent, budget: RESOLVE_DEADLINE, decisions: DECISIONS_MAX };
    let chosen = |moving: &BTreeSet<PluginName>| {
        resolve_with(&offer.index, &question(lock, request, moving), &limits, |step| {
            offer.find(&step.plugin, &step.version)
        })
    };
    let first = chosen(&BTreeSet::new());
    let conflict = |error: &RegistryError| error.code() == "resolve.conflict";
    let dependents = dependents(lock, request);
    if dependents.is_empty() || !first.as_ref().is_err_and(conflict) {
        return first.map_err(|error| with_refused(error, offer));
    }
    // If they cannot change either, what holds them is the answer.
    chosen(&dependents).or(first).map_err(|error| with_refused(error, offer))
}

/// What is asked of the resolver; `moving` may change, though nobody asked for that.
fn question(lock: &Lock, request: &InstallRequest, moving: &BTreeSet<PluginName>) -> Request {
    let mut wanted = all_wanted(lock, request);
    wanted.extend(lock.plugins().filter(|it| moving.contains(&it.release.plugin)).map(|it| {
        let version = it.wanted.clone().unwrap_or(VersionReq::STAR);
        Wanted { plugin: it.release.plugin.clone(), version }
    }));
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
    Request {
        locked: locked.collect(),
        update,
        stays: stays.collect(),
        wanted: wanted.iter().map(|it| (it.plugin.clone(), it.version.clone())).collect(),
    }
}

/// Installed plugins that need what is asked for, directly or through others, and are not asked for themselves.
fn dependents(lock: &Lock, request: &InstallRequest) -> BTreeSet<PluginName> {
    let named: BTreeSet<_> = request.wanted.iter().map(|it| it.plugin.clone()).collect();
    let mut found = named.clone();
    loop {
        let needs = |release: &Release| release.dependencies.keys().any(|it| found.contains(it));
        let releases = lock.plugins().map(|it| &it.release);
        let more: BTreeSet<_> =
            releases.filter(|it| needs(it)).map(|it| it.plugin.clone()).collect();
        if more.is_subset(&found) {
            return found.difference(&named).cloned().collect();
        }
        found.extend(more);
    }
}

/// What cannot be chosen may be what was passed over.
fn with_refused(error: RegistryError, offer: &Offer) -> RegistryError {
    let (RegistryError::Resolve { code, message }, Some(first)) = (&error, offer.refused.first())
    else {
        return error;
    };
    let count = offer.refused.len();
    let message = format!("{message} ({count} entries were passed over; the first: {first})");
    RegistryError::Resolve { code, message }
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

/// What a release brings that nobody has agreed to yet: needs and rights that the installed one does not have, and another
/// publisher's key than the plugin had so far.
#[must_use]
pub fn news(before: Option<&Release>, key: Option<KeyId>, after: &Release) -> Vec<String> {
    let mut news = Vec::new();
    if let Some(before) = before {
        let known = &before.dependencies;
        let needs = after.dependencies.keys().filter(|it| !known.contains_key(it));
        news.extend(needs.map(|dependency| format!("it needs {dependency}")));
        let rights = after.capabilities.difference(&before.capabilities);
        news.extend(rights.map(|capability| format!("it may use {capability:?}")));
    }
    if let Some(key) = key.filter(|key| *key != after.key_id) {
        news.push(format!("its publisher's key {} in place of {key}", after.key_id));
    }
    news
}
