//! The simple things that would help against a conflict, found by trying them.

use std::collections::BTreeSet;

use semver::VersionReq;

use super::index::Index;
use super::{Limits, Request, attempt};

/// Most tries of each kind.
const TRIES: usize = 4;
/// Most choices within one try: a hint is not worth a long search.
const DECISIONS: u64 = 2_000;

/// The first change of the request that makes it work: another version of something, one more update, one plugin less.
#[must_use]
pub fn find(index: &Index, request: &Request, limits: &Limits<'_>) -> Option<String> {
    let limits = Limits { decisions: limits.decisions.min(DECISIONS), ..*limits };
    let mut wanted = request.wanted.clone();
    wanted.sort_by_cached_key(|(name, wanted)| (name.clone(), wanted.to_string()));
    let request = Request { wanted, ..request.clone() };
    another_version(index, &request, &limits)
        .or_else(|| another_update(index, &request, &limits))
        .or_else(|| one_less(index, &request, &limits))
}

fn another_version(index: &Index, request: &Request, limits: &Limits<'_>) -> Option<String> {
    let narrow = request.wanted.iter().enumerate().filter(|(_, (_, it))| *it != VersionReq::STAR);
    narrow.take(TRIES).find_map(|(at, (name, narrow))| {
        let mut wider = request.clone();
        wider.wanted.get_mut(at)?.1 = VersionReq::STAR;
        let plan = attempt(index, &wider, limits)?;
        let version = &plan.steps.iter().find(|step| step.plugin == *name)?.version;
        // Of a plugin that is asked for twice, this may be the one that is not in the way.
        (!narrow.matches(version.semver())).then(|| format!("{name}@{version} instead of {narrow}"))
    })
}

fn another_update(index: &Index, request: &Request, limits: &Limits<'_>) -> Option<String> {
    let needers: BTreeSet<_> = request.stays.iter().map(|stay| &stay.needer).collect();
    needers.into_iter().take(TRIES).find_map(|needer| {
        let mut freer = request.clone();
        freer.stays.retain(|stay| stay.needer != *needer);
        freer.wanted.push((needer.clone(), VersionReq::STAR));
        freer.update.insert(needer.clone());
        attempt(index, &freer, limits)?;
        Some(format!("update {needer} as well"))
    })
}

fn one_less(index: &Index, request: &Request, limits: &Limits<'_>) -> Option<String> {
    let names: BTreeSet<_> = request.wanted.iter().map(|(name, _)| name).collect();
    if names.len() < 2 {
        return None;
    }
    names.into_iter().take(TRIES).find_map(|name| {
        let mut fewer = request.clone();
        fewer.wanted.retain(|(other, _)| other != name);
        attempt(index, &fewer, limits)?;
        Some(format!("leave out {name}"))
    })
}
