//! From a failed search to an error that a person can act on.

use semver::{Prerelease, Version, VersionReq};
use themis_messages::ids::{PluginName, PluginVersion};

use super::dead_end::{self, DeadEnd, End, Fallen};
use super::error::{ResolveError, Want};
use super::explain;
use super::hint;
use super::index::{Entry, Index, PluginId};
use super::instance::{Bar, Instance};
use super::solve::Proof;
use super::{Limits, Request};

/// Says why there is no answer; `proof` is that of the search.
#[must_use]
pub fn no_answer(
    instance: &Instance<'_>,
    request: &Request,
    limits: &Limits<'_>,
    proof: &Proof,
) -> ResolveError {
    if let Some(Fallen::Everything(dead_end)) = dead_end::find(instance, limits)
        && let Some(error) = at_dead_end(instance, request, limits, dead_end)
    {
        return error;
    }
    let (because, left_out) = explain::sentences(instance, proof);
    let try_this = hint::find(instance.index, request, limits);
    ResolveError::Conflict { because, left_out, try_this }
}

/// Says what cannot be had, and who wants it.
#[must_use]
pub fn at_dead_end(
    instance: &Instance<'_>,
    request: &Request,
    limits: &Limits<'_>,
    dead_end: DeadEnd,
) -> Option<ResolveError> {
    let index = instance.index;
    match dead_end.end {
        End::Nothing { needed, wanted } => {
            let (plugin, chain) = (index.name(needed)?.clone(), named(index, &dead_end.chain));
            let want = Want { plugin, requirement: wanted, chain, others: dead_end.others };
            Some(unavailable(want, index.entries(needed)))
        }
        End::Barred(Bar::Itself) => {
            let (last, _) = dead_end.chain.last()?;
            let name = index.name(*last)?;
            Some(ResolveError::Cycle { path: vec![name.clone(), name.clone()] })
        }
        End::Barred(bar @ (Bar::Asked(_) | Bar::Stays(_))) => {
            let because = explain::barred(instance, &dead_end, bar)?;
            let try_this = hint::find(index, request, limits);
            Some(ResolveError::Conflict { because, left_out: 0, try_this })
        }
    }
}

/// Names and versions for numbers.
#[must_use]
pub fn named(index: &Index, chain: &[(PluginId, u32)]) -> Vec<(PluginName, PluginVersion)> {
    let name = |(plugin, place): &(PluginId, u32)| {
        Some((index.name(*plugin)?.clone(), index.entry(*plugin, *place)?.version.clone()))
    };
    chain.iter().filter_map(name).collect()
}

/// Says why none of the releases can be had.
#[must_use]
pub fn unavailable(want: Want, entries: &[Entry]) -> ResolveError {
    if entries.is_empty() {
        return ResolveError::Missing { want };
    }
    let matching = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<PluginVersion> {
        let wanted = entries.iter().filter(|entry| wanted(entry));
        wanted.map(|entry| entry.version.clone()).collect()
    };
    let matches = |entry: &Entry| want.requirement.matches(entry.version.semver());
    let near = near(&want.requirement, entries);
    let foreign = matching(&|entry| matches(entry) && !entry.yanked && !entry.runs_here);
    if !foreign.is_empty() {
        return ResolveError::NoTarget { want, foreign, near };
    }
    let yanked = matching(&|entry| matches(entry) && entry.yanked);
    if !yanked.is_empty() {
        return ResolveError::Yanked { want, yanked, near };
    }
    let found = matching(&|entry| {
        !entry.yanked && entry.runs_here && would_match(&want.requirement, entry.version.semver())
    });
    if !found.is_empty() {
        return ResolveError::PreRelease { want, found };
    }
    ResolveError::NoVersion { want, near }
}

/// Whether a pre-release would match were it the release that it precedes.
fn would_match(wanted: &VersionReq, version: &Version) -> bool {
    let release = Version { pre: Prerelease::EMPTY, ..version.clone() };
    !version.pre.is_empty() && wanted.matches(&release)
}

/// The releases just below and above where the requirement begins, and the newest, lowest first; only what can be
/// chosen, and pre-releases only where there is nothing else.
fn near(wanted: &VersionReq, entries: &[Entry]) -> Vec<PluginVersion> {
    let usable = |entry: &&Entry| !entry.yanked && entry.runs_here;
    let released = |entry: &&Entry| entry.version.semver().pre.is_empty();
    let mut from: Vec<_> = entries.iter().filter(usable).filter(released).collect();
    if from.is_empty() {
        from = entries.iter().filter(usable).collect();
    }
    let start = wanted.comparators.first().map_or(Version::new(0, 0, 0), |first| {
        let (minor, patch) = (first.minor.unwrap_or(0), first.patch.unwrap_or(0));
        Version { pre: first.pre.clone(), ..Version::new(first.major, minor, patch) }
    });
    let above = from.partition_point(|entry| *entry.version.semver() < start);
    let places = [above.checked_sub(1), Some(above), from.len().checked_sub(1)];
    let mut near: Vec<_> = places.into_iter().flatten().filter_map(|at| from.get(at)).collect();
    near.dedup_by_key(|entry| &entry.version);
    near.into_iter().map(|entry| entry.version.clone()).collect()
}

/// The way that a dead end took, for people.
#[must_use]
pub fn way_of(index: &Index, dead_end: &DeadEnd) -> String {
    super::error::way(&named(index, &dead_end.chain))
}
