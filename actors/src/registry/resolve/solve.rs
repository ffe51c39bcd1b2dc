//! The search itself, by PubGrub: what it asks of the index, and what is left of its proof when there is no answer.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use pubgrub::{
    Dependencies, DependencyProvider, DerivationTree, External, PackageResolutionStatistics,
    PubGrubError, VersionSet as _,
};

use super::Limits;
use super::index::PluginId;
use super::instance::{ASKED, Bar, Instance};
use super::versions::Versions;

/// Why the search ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Its time is spent.
    #[error("the time is spent")]
    Time,
    /// It has chosen too often.
    #[error("too many versions were tried")]
    Decisions,
    /// It has met what leads nowhere, and chosen again too often since.
    #[error("too much leads nowhere")]
    Impatient,
}

/// What a proof rests on: all that is not derived.
#[derive(Debug, Default)]
pub struct Proof {
    /// Releases and what they need: who, whom, which versions do → of which versions who.
    pub needs: BTreeMap<(PluginId, PluginId, Versions), Versions>,
    /// Releases that are out of the question.
    pub bars: BTreeMap<(PluginId, Bar), Versions>,
}

/// How the search ended.
#[derive(Debug)]
pub enum Outcome {
    /// With one version of each plugin that is needed.
    Solved(BTreeMap<PluginId, u32>),
    /// With a proof that there is no answer.
    Unsolvable(Proof),
    /// Without having come to an end.
    Stopped(Stopped),
}

/// Searches for versions that suit each other. `patience` is how often it may choose again for a plugin, all plugins
/// together, once it has met a release that leads nowhere.
#[must_use]
pub fn solve(instance: &Instance<'_>, limits: &Limits<'_>, patience: u64) -> Outcome {
    let search = Search {
        instance,
        limits,
        decisions: Cell::new(0),
        patience: Cell::new(patience),
        hopeless: Cell::new(false),
        chosen: RefCell::new(vec![false; instance.index.len()]),
    };
    match pubgrub::resolve(&search, ASKED, 0_u32) {
        Ok(chosen) => {
            Outcome::Solved(chosen.into_iter().filter(|(plugin, _)| *plugin != ASKED).collect())
        }
        Err(PubGrubError::NoSolution(tree)) => Outcome::Unsolvable(take_apart(tree)),
        Err(
            PubGrubError::ErrorInShouldCancel(stopped)
            | PubGrubError::ErrorChoosingVersion { source: stopped, .. }
            | PubGrubError::ErrorRetrievingDependencies { source: stopped, .. },
        ) => Outcome::Stopped(stopped),
    }
}

struct Search<'a> {
    instance: &'a Instance<'a>,
    limits: &'a Limits<'a>,
    decisions: Cell<u64>,
    patience: Cell<u64>,
    /// Whether a release that leads nowhere was met.
    hopeless: Cell<bool>,
    /// By plugin, whether a version was chosen before.
    chosen: RefCell<Vec<bool>>,
}

impl DependencyProvider for Search<'_> {
    type P = PluginId;
    type V = u32;
    type VS = Versions;
    type M = Bar;
    type Err = Stopped;
    type Priority = (u32, bool, bool, Reverse<u32>);

    /// Whatever conflicts most first, for speed; then what is installed, so that little changes; then what is asked
    /// for, so that what it needs gives way to it; then where there is least to choose from.
    fn prioritize(
        &self,
        plugin: &PluginId,
        among: &Versions,
        statistics: &PackageResolutionStatistics,
    ) -> Self::Priority {
        let (kept, wanted) = (self.instance.is_kept(*plugin), self.instance.is_wanted(*plugin));
        (statistics.conflict_count(), kept, wanted, Reverse(among.len()))
    }

    fn choose_version(&self, plugin: &PluginId, among: &Versions) -> Result<Option<u32>, Stopped> {
        if *plugin == ASKED {
            return Ok(Some(0));
        }
        let decisions = self.decisions.get() + 1;
        self.decisions.set(decisions);
        if decisions > self.limits.decisions {
            return Err(Stopped::Decisions);
        }
        let mut chosen = self.chosen.borrow_mut();
        let before = chosen.get_mut(plugin.0 as usize);
        let again = before.is_some_and(|before| std::mem::replace(before, true));
        if again && self.hopeless.get() {
            let patience = self.patience.get().checked_sub(1).ok_or(Stopped::Impatient)?;
            self.patience.set(patience);
        }
        Ok(self.instance.preferred(*plugin, among))
    }

    fn get_dependencies(
        &self,
        plugin: &PluginId,
        place: &u32,
    ) -> Result<Dependencies<PluginId, Versions, Bar>, Stopped> {
        if let Some(bar) = self.instance.bar(*plugin, *place) {
            self.hopeless.set(true);
            return Ok(Dependencies::Unavailable(bar));
        }
        let needs = self.instance.needs(*plugin, *place).iter();
        let sets = needs.map(|(needed, wanted)| {
            let set = self.instance.candidates(*needed, wanted);
            self.hopeless.set(self.hopeless.get() || self.instance.is_hopeless(*needed, &set));
            (*needed, set)
        });
        Ok(Dependencies::Available(sets.collect()))
    }

    fn should_cancel(&self) -> Result<(), Stopped> {
        if (self.limits.spent)() { Err(Stopped::Time) } else { Ok(()) }
    }
}

/// Collects the leaves of a proof and frees it, both without recursion: a proof is as deep as the chains in hostile
/// metadata are long, and pubgrub's own `collapse_no_versions`, reporter and drop recurse. A node that several others
/// rest on is met once, by the last of them.
fn take_apart(tree: DerivationTree<PluginId, Versions, Bar>) -> Proof {
    let mut proof = Proof::default();
    let mut waiting = vec![tree];
    while let Some(tree) = waiting.pop() {
        match tree {
            DerivationTree::Derived(derived) => {
                waiting.extend(Arc::into_inner(derived.cause1));
                waiting.extend(Arc::into_inner(derived.cause2));
            }
            DerivationTree::External(External::FromDependencyOf(who, which, whom, set)) => {
                let known = proof.needs.entry((who, whom, set)).or_insert_with(Versions::empty);
                *known = known.union(&which);
            }
            DerivationTree::External(External::Custom(plugin, which, bar)) => {
                let known = proof.bars.entry((plugin, bar)).or_insert_with(Versions::empty);
                *known = known.union(&which);
            }
            // Never made: what is needed is a set of releases that exist.
            DerivationTree::External(External::NoVersions(..) | External::NotRoot(..)) => {}
        }
    }
    proof
}
