//! Chooses versions of plugins that suit each other: what is asked for, all that it needs, and what is installed.
//!
//! The search is PubGrub's. Requirements mean what they mean to Cargo ([`semver::VersionReq::matches`]); the highest
//! version wins, except that what is installed stays where it may. The same request of the same index has the same
//! answer, however either was put together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use semver::VersionReq;
use themis_messages::ids::{PluginName, PluginVersion};

pub mod dead_end;
pub mod diagnose;
pub mod error;
pub mod explain;
pub mod hint;
pub mod index;
pub mod instance;
pub mod plan;
pub mod solve;
pub mod versions;

#[cfg(test)]
mod tests;

pub use error::ResolveError;
pub use index::{Index, Release, Releases};
pub use plan::{Plan, Step};

use dead_end::Fallen;
use instance::Instance;
use solve::{Outcome, Stopped};

/// What is to be had, and what there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Plugins and which versions of them; all at once.
    pub wanted: Vec<(PluginName, VersionReq)>,
    /// What is installed or locked. It is chosen again if that is possible, yanked or not; a version that the index
    /// does not have is passed over, so a caller adds what is installed to the index if it is to stay.
    pub locked: BTreeMap<PluginName, PluginVersion>,
    /// Plugins of those that are brought to the newest version instead.
    pub update: BTreeSet<PluginName>,
    /// What must stay possible: needs of plugins that are installed and not to change. They bring nothing into the
    /// plan. Those of a plugin that is wanted do not count: its new version has needs of its own.
    pub stays: Vec<Stay>,
}

/// A need of an installed plugin that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// The plugin that stays.
    pub needer: PluginName,
    /// What it needs.
    pub dependency: PluginName,
    /// Which versions.
    pub wanted: VersionReq,
}

/// How long the search may go on. It has no clock of its own.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Whether the time is spent; asked for every version that is tried, and in every other loop that may be long.
    pub spent: &'a dyn Fn() -> bool,
    /// How long that is, for the message.
    pub budget: Duration,
    /// Most versions to try.
    pub decisions: u64,
}

impl fmt::Debug for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { budget, decisions, .. } = self;
        f.debug_struct("Limits").field("budget", budget).field("decisions", decisions).finish()
    }
}

/// How often a search that has met what leads nowhere chooses again before all of that is left out. To look for it
/// takes about as long as a whole search without trouble; but to go back costs the search time in proportion to all
/// that it has chosen, so that a long chain that leads nowhere would take it minutes.
const PATIENCE: u64 = 64;

/// Chooses one version of every plugin that is asked for or needed.
///
/// # Errors
/// The first thing that is missing, why nothing fits together, a cycle in what was chosen, or that a limit was reached.
pub fn resolve(
    index: &Index,
    request: &Request,
    limits: &Limits<'_>,
) -> Result<Plan, ResolveError> {
    resolve_with(index, request, limits, PATIENCE)
}

/// As [`resolve`]; `patience` is how often a search that has met what leads nowhere may choose again before it is begun
/// anew without all of that.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(
    index: &Index,
    request: &Request,
    limits: &Limits<'_>,
    patience: u64,
) -> Result<Plan, ResolveError> {
    let mut instance = Instance::new(index, request).map_err(|(plugin, requirement)| {
        let want = error::Want {
            plugin: plugin.clone(),
            requirement: requirement.clone(),
            chain: Vec::new(),
            others: false,
        };
        ResolveError::Missing { want }
    })?;
    let mut outcome = solve::solve(&instance, limits, patience);
    if matches!(outcome, Outcome::Stopped(Stopped::Impatient)) {
        match dead_end::find(&instance, limits) {
            None => outcome = Outcome::Stopped(Stopped::Time),
            Some(Fallen::Everything(way)) => {
                if let Some(error) = diagnose::at_dead_end(&instance, request, limits, way) {
                    return Err(error);
                }
            }
            Some(Fallen::Only(fallen)) => {
                instance.leave_out(fallen);
                outcome = solve::solve(&instance, limits, u64::MAX);
            }
        }
    }
    match outcome {
        Outcome::Solved(chosen) => Plan::new(&instance, &chosen),
        Outcome::Unsolvable(proof) => Err(diagnose::no_answer(&instance, request, limits, &proof)),
        Outcome::Stopped(Stopped::Time | Stopped::Impatient) => {
            Err(ResolveError::Budget { limit: limits.budget })
        }
        Outcome::Stopped(Stopped::Decisions) => {
            Err(ResolveError::Decisions { limit: limits.decisions })
        }
    }
}

/// As [`resolve`], but no long search, and no word of why not.
#[must_use]
pub fn attempt(index: &Index, request: &Request, limits: &Limits<'_>) -> Option<Plan> {
    let instance = Instance::new(index, request).ok()?;
    match solve::solve(&instance, limits, PATIENCE) {
        Outcome::Solved(chosen) => Plan::new(&instance, &chosen).ok(),
        Outcome::Unsolvable(_) | Outcome::Stopped(_) => None,
    }
}
