//! A proof that nothing fits, told in a few sentences: who clashes with whom, and how they come in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pubgrub::VersionSet as _;

use super::dead_end::DeadEnd;
use super::diagnose::{named, unavailable, way_of};
use super::error::{ResolveError, Want, names};
use super::index::PluginId;
use super::instance::{ASKED, Bar, Instance};
use super::solve::Proof;
use super::versions::Versions;

/// Most reasons that are told: a proof may have thousands.
const SHOWN: usize = 4;
/// Most needs of one plugin that are compared with each other.
const COMPARED: usize = 64;
/// Most releases of a plugin that are listed one by one.
const LISTED: u32 = 3;

/// Who wants something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Asked,
    Releases(PluginId, Versions),
    Stays(u32),
}

/// One thing that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Fact {
    /// Over how many plugins it comes in.
    depth: usize,
    who: Who,
    needed: PluginId,
    /// As it was written.
    wanted: String,
    /// Which releases that leaves.
    set: Versions,
}

/// A reason, and the plugins in it whose presence needs an explanation.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reason {
    /// A clash tells more than a lack, and that more than a release that needs itself.
    rank: u8,
    depth: usize,
    sentence: String,
    about: BTreeSet<PluginId>,
}

/// Says what a proof says: the sentences, and how many reasons were left out.
#[must_use]
pub fn sentences(instance: &Instance<'_>, proof: &Proof) -> (Vec<String>, usize) {
    let story = Story::of(instance, proof);
    let mut reasons = story.clashes();
    reasons.extend(story.lacks());
    reasons.extend(story.selfish(proof));
    if reasons.is_empty() {
        reasons = story.everything();
    }
    reasons.sort();
    let left_out = reasons.len().saturating_sub(SHOWN);
    reasons.truncate(SHOWN);
    let about = reasons.iter().flat_map(|reason| reason.about.iter().copied()).collect();
    let told = reasons.into_iter().map(|reason| reason.sentence);
    (told.chain(story.origins(&about)).collect(), left_out)
}

/// Says why the way to what is asked for ends at a release that is barred.
#[must_use]
pub fn barred(instance: &Instance<'_>, dead_end: &DeadEnd, bar: Bar) -> Option<Vec<String>> {
    let ((last, _), before) = dead_end.chain.split_last()?;
    let (who, place) = before.last().copied().unwrap_or((ASKED, 0));
    let (_, wanted) = instance.needs(who, place).iter().find(|(needed, _)| needed == last)?;
    let who = if who == ASKED { Who::Asked } else { Who::Releases(who, Versions::of([place])) };
    let story = Story { instance, facts: Vec::new(), entries: BTreeMap::new() };
    let left = story.clause(&who, *last, &wanted.to_string());
    let right = match bar {
        Bar::Asked(at) => {
            let (_, wanted) = instance.wanted.get(at as usize)?;
            story.clause(&Who::Asked, *last, &wanted.to_string())
        }
        Bar::Stays(at) => {
            let stay = instance.stays.get(at as usize)?;
            story.clause(&Who::Stays(at), *last, &stay.wanted.to_string())
        }
        Bar::Itself => return None,
    };
    let mut told = vec![format!("{left}, but {right}")];
    if before.len() > 1 {
        told.push(format!("it comes in by {}", way_of(instance.index, dead_end)));
    }
    if dead_end.others {
        told.push("other releases do not help".to_owned());
    }
    Some(told)
}

struct Story<'a> {
    instance: &'a Instance<'a>,
    /// In order of depth.
    facts: Vec<Fact>,
    /// By plugin, over how many others it comes in, and the last of those.
    entries: BTreeMap<PluginId, (usize, PluginId)>,
}

impl<'a> Story<'a> {
    fn of(instance: &'a Instance<'a>, proof: &Proof) -> Self {
        let mut story = Self { instance, facts: Vec::new(), entries: BTreeMap::new() };
        let mut needs: BTreeMap<PluginId, BTreeSet<PluginId>> = BTreeMap::new();
        for (who, needed, _) in proof.needs.keys() {
            needs.entry(*who).or_default().insert(*needed);
        }
        let mut waiting = VecDeque::from([(ASKED, 0)]);
        while let Some((who, depth)) = waiting.pop_front() {
            for needed in needs.get(&who).into_iter().flatten() {
                if !story.entries.contains_key(needed) {
                    story.entries.insert(*needed, (depth + 1, who));
                    waiting.push_back((*needed, depth + 1));
                }
            }
        }
        for ((who, needed, set), which) in &proof.needs {
            story.add(*who, which, *needed, set);
        }
        for (plugin, bar) in proof.bars.keys() {
            if let Bar::Stays(at) = bar
                && let Some(stay) = instance.stays.get(*at as usize)
            {
                let set = instance.candidates(*plugin, &stay.wanted);
                let wanted = stay.wanted.to_string();
                let who = Who::Stays(*at);
                story.facts.push(Fact { depth: 0, who, needed: *plugin, wanted, set });
            }
        }
        story.facts.sort();
        story
    }

    /// One fact for each way in which the need is written.
    fn add(&mut self, who: PluginId, which: &Versions, needed: PluginId, set: &Versions) {
        let mut written: BTreeMap<String, Versions> = BTreeMap::new();
        for place in which.places() {
            let needs = self.instance.needs(who, place).iter();
            for (_, wanted) in needs.filter(|(name, _)| *name == needed) {
                // Of one plugin several things can be asked.
                if who == ASKED && self.instance.candidates(needed, wanted) != *set {
                    continue;
                }
                let releases = written.entry(wanted.to_string()).or_insert_with(Versions::empty);
                *releases = releases.union(&Versions::of([place]));
            }
        }
        let depth = self.depth(who);
        for (wanted, releases) in written {
            let who = if who == ASKED { Who::Asked } else { Who::Releases(who, releases) };
            self.facts.push(Fact { depth, who, needed, wanted, set: set.clone() });
        }
    }

    fn depth(&self, plugin: PluginId) -> usize {
        self.entries.get(&plugin).map_or(0, |(depth, _)| *depth)
    }

    /// Pairs that leave no release of what both need.
    fn clashes(&self) -> Vec<Reason> {
        let mut by_needed: BTreeMap<PluginId, Vec<&Fact>> = BTreeMap::new();
        for fact in self.facts.iter().filter(|fact| !fact.set.is_empty()) {
            let facts = by_needed.entry(fact.needed).or_default();
            if facts.len() < COMPARED {
                facts.push(fact);
            }
        }
        let mut reasons = Vec::new();
        for facts in by_needed.values() {
            for (at, left) in facts.iter().enumerate() {
                for right in facts.iter().skip(at + 1) {
                    // Two releases of one plugin are never chosen together.
                    let apart = left.plugin() != right.plugin() || left.plugin().is_none();
                    if apart && left.set.is_disjoint(&right.set) {
                        reasons.push(self.clash(left, right));
                    }
                }
            }
        }
        reasons
    }

    fn clash(&self, left: &Fact, right: &Fact) -> Reason {
        // What stays is told last.
        let (left, right) =
            if matches!(left.who, Who::Stays(_)) { (right, left) } else { (left, right) };
        let sentence = format!("{}, but {}", self.tell(left), self.tell(right));
        let about = [left, right].into_iter().filter_map(Fact::plugin).collect();
        Reason { rank: 0, depth: left.depth + right.depth, sentence, about }
    }

    /// Needs for which there is nothing to choose.
    fn lacks(&self) -> Vec<Reason> {
        let empty = self.facts.iter().filter(|fact| fact.set.is_empty());
        empty
            .filter(|fact| !matches!(fact.who, Who::Stays(_)))
            .map(|fact| {
                let sentence = format!("{}, but {}", self.tell(fact), self.lack(fact));
                let about = fact.plugin().into_iter().collect();
                Reason { rank: 1, depth: fact.depth, sentence, about }
            })
            .collect()
    }

    fn lack(&self, fact: &Fact) -> &'static str {
        let index = self.instance.index;
        let (Some(name), Ok(requirement)) = (index.name(fact.needed), fact.wanted.parse()) else {
            return "it cannot be had";
        };
        let want = Want { plugin: name.clone(), requirement, chain: Vec::new(), others: false };
        match unavailable(want, index.entries(fact.needed)) {
            ResolveError::Missing { .. } => "the registry has no such plugin",
            ResolveError::Yanked { .. } => "every release that matches is yanked",
            ResolveError::PreRelease { .. } => "only pre-releases match",
            ResolveError::NoTarget { .. } => "no release that matches runs on this platform",
            ResolveError::NoVersion { .. }
            | ResolveError::Conflict { .. }
            | ResolveError::Cycle { .. }
            | ResolveError::Budget { .. }
            | ResolveError::Decisions { .. } => "no release matches",
        }
    }

    /// Releases that need themselves.
    fn selfish(&self, proof: &Proof) -> Vec<Reason> {
        let barred = proof.bars.iter().filter(|((_, bar), _)| *bar == Bar::Itself);
        barred
            .map(|((plugin, _), which)| Reason {
                rank: 2,
                depth: self.depth(*plugin),
                sentence: format!("{} needs itself", self.releases(*plugin, which)),
                about: BTreeSet::from([*plugin]),
            })
            .collect()
    }

    /// When no two of them clash but all together do.
    fn everything(&self) -> Vec<Reason> {
        let reason = |fact: &Fact| Reason {
            rank: 3,
            depth: fact.depth,
            sentence: self.tell(fact),
            about: fact.plugin().into_iter().collect(),
        };
        self.facts.iter().map(reason).collect()
    }

    /// How the plugins come in: what was asked for, and the way from there.
    fn origins(&self, about: &BTreeSet<PluginId>) -> Vec<String> {
        let mut told = Vec::new();
        let mut asked = BTreeSet::new();
        for plugin in about {
            let mut way = vec![*plugin];
            let mut at = *plugin;
            while let Some((_, from)) = self.entries.get(&at).filter(|(_, from)| *from != ASKED) {
                way.push(*from);
                at = *from;
            }
            asked.insert(at);
            if way.len() > 1 {
                let way: Vec<_> = way
                    .iter()
                    .rev()
                    .filter_map(|at| self.instance.index.name(*at))
                    .cloned()
                    .collect();
                told.push(format!("{} comes in by {}", self.name(*plugin), names(&way)));
            }
        }
        let wanted = self.instance.wanted.iter().filter(|(plugin, _)| asked.contains(plugin));
        let asked: Vec<_> =
            wanted.map(|(plugin, wanted)| format!("{} {wanted}", self.name(*plugin))).collect();
        match asked.as_slice() {
            [] => {}
            [only] => told.push(format!("{only} is asked for")),
            [one, two] => told.push(format!("{one} and {two} are both asked for")),
            [all @ .., last] => {
                told.push(format!("{} and {last} are all asked for", all.join(", ")))
            }
        }
        told
    }

    fn name(&self, plugin: PluginId) -> &str {
        self.instance.index.name(plugin).map_or("?", |name| name.as_str())
    }

    fn tell(&self, fact: &Fact) -> String {
        self.clause(&fact.who, fact.needed, &fact.wanted)
    }

    fn clause(&self, who: &Who, needed: PluginId, wanted: &str) -> String {
        let needed = self.name(needed);
        match who {
            Who::Asked => format!("{needed} {wanted} is asked for"),
            Who::Releases(plugin, which) => {
                format!("{} needs {needed} {wanted}", self.releases(*plugin, which))
            }
            Who::Stays(at) => {
                let stay = self.instance.stays.get(*at as usize);
                let needer = stay.map_or("?", |stay| stay.needer.as_str());
                format!("{needer}, which stays, needs {needed} {wanted}")
            }
        }
    }

    /// Releases of one plugin: each of a few, first and last of many.
    fn releases(&self, plugin: PluginId, which: &Versions) -> String {
        let chain: Vec<_> = which.places().map(|place| (plugin, place)).collect();
        let versions: Vec<_> = named(self.instance.index, &chain)
            .into_iter()
            .map(|(_, version)| version.to_string())
            .collect();
        let name = self.name(plugin);
        match (versions.as_slice(), which.len()) {
            ([first, .., last], count) if count > LISTED => {
                format!("{name} {first} … {last} ({count} releases)")
            }
            (few, _) => format!("{name} {}", few.join(", ")),
        }
    }
}

impl Fact {
    /// The plugin that wants it.
    fn plugin(&self) -> Option<PluginId> {
        match &self.who {
            Who::Releases(plugin, _) => Some(*plugin),
            Who::Asked | Who::Stays(_) => None,
        }
    }
}
