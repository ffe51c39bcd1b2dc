//! Failures that need no conflict: something that is needed cannot be had, and everything that leads there falls with
//! it. Found by following the fall, in time that grows with what can be reached.

use std::collections::{BTreeMap, HashMap, VecDeque};

use pubgrub::VersionSet as _;
use semver::VersionReq;

use super::Limits;
use super::index::PluginId;
use super::instance::{ASKED, Bar, Instance};
use super::versions::Versions;

/// Where the way to what is missing ends.
#[derive(Debug, Clone)]
pub enum End {
    /// No release can be had of what is needed.
    Nothing {
        /// What is needed.
        needed: PluginId,
        /// Which versions.
        wanted: VersionReq,
    },
    /// The last release on the way is out of the question.
    Barred(Bar),
}

/// The way from what is asked for to what cannot be had.
#[derive(Debug, Clone)]
pub struct DeadEnd {
    /// The releases that lead there, what is asked for first; of each plugin the one that would have been chosen.
    pub chain: Vec<(PluginId, u32)>,
    /// Whether other releases could have stood in the chain; they lead nowhere either.
    pub others: bool,
    /// Where it ends.
    pub end: End,
}

/// What is known when everything has fallen that can.
#[derive(Debug, Clone)]
pub enum Fallen {
    /// Something that is asked for cannot be had whatever is chosen for the rest.
    Everything(DeadEnd),
    /// Only these releases lead nowhere.
    Only(Vec<(PluginId, Versions)>),
}

/// Finds out which releases lead nowhere whatever is chosen for the rest. `None` if the time is spent.
#[must_use]
pub fn find(instance: &Instance<'_>, limits: &Limits<'_>) -> Option<Fallen> {
    let mut fall = Fall { instance, nodes: Vec::new(), watchers: HashMap::new() };
    fall.explore(limits)?;
    fall.spread(limits)?;
    let dead_end = fall.trace().map(Fallen::Everything);
    Some(dead_end.unwrap_or_else(|| Fallen::Only(fall.fallen())))
}

/// How often the time is looked at: a step takes microseconds.
const STEPS_PER_LOOK: usize = 256;

/// A release that can be reached.
struct Node {
    plugin: PluginId,
    place: u32,
    needs: Vec<Need>,
    fallen: Option<Cause>,
}

/// One need of a release.
struct Need {
    set: Versions,
    /// How many of the set have not fallen.
    left: u32,
}

/// Why a release has fallen.
#[derive(Clone, Copy)]
enum Cause {
    /// For want of its need at this place.
    Need(usize),
    Bar(Bar),
}

struct Fall<'a> {
    instance: &'a Instance<'a>,
    nodes: Vec<Node>,
    /// Who needs the plugin: places of the release and of the need.
    watchers: HashMap<PluginId, Vec<(usize, usize)>>,
}

impl Fall<'_> {
    /// Meets every release that could be chosen for some need, from what is asked for on.
    fn explore(&mut self, limits: &Limits<'_>) -> Option<()> {
        let mut waiting = VecDeque::from([(ASKED, 0)]);
        let mut met = vec![Versions::empty(); self.instance.index.len()];
        while let Some((plugin, place)) = waiting.pop_front() {
            let at = self.nodes.len();
            if at.is_multiple_of(STEPS_PER_LOOK) && (limits.spent)() {
                return None;
            }
            let bar = self.instance.any_bar(plugin, place);
            let mut needs = Vec::new();
            // What a barred release needs does not matter.
            let wanted = if bar.is_some() { &[] } else { self.instance.needs(plugin, place) };
            for (number, (needed, wanted)) in wanted.iter().enumerate() {
                let set = self.instance.candidates(*needed, wanted);
                self.watchers.entry(*needed).or_default().push((at, number));
                if let Some(met) = met.get_mut(needed.0 as usize).filter(|met| !set.subset_of(met))
                {
                    let fresh = set.intersection(&met.complement());
                    waiting.extend(fresh.places().map(|place| (*needed, place)));
                    *met = met.union(&set);
                }
                needs.push(Need { left: set.len(), set });
            }
            let empty = needs.iter().position(|need| need.left == 0).map(Cause::Need);
            let fallen = bar.map(Cause::Bar).or(empty);
            self.nodes.push(Node { plugin, place, needs, fallen });
        }
        Some(())
    }

    /// Lets everything fall that stands on what has fallen.
    fn spread(&mut self, limits: &Limits<'_>) -> Option<()> {
        let fallen = |(at, node): (usize, &Node)| node.fallen.is_some().then_some(at);
        let mut waiting: VecDeque<_> = self.nodes.iter().enumerate().filter_map(fallen).collect();
        let mut steps = 0_usize;
        while let Some(at) = waiting.pop_front() {
            let Some(Node { plugin, place, .. }) = self.nodes.get(at) else { continue };
            let (plugin, place) = (*plugin, *place);
            for (above, number) in self.watchers.get(&plugin).into_iter().flatten() {
                steps += 1;
                if steps.is_multiple_of(STEPS_PER_LOOK) && (limits.spent)() {
                    return None;
                }
                let Some(node) = self.nodes.get_mut(*above) else { continue };
                let Some(need) = node.needs.get_mut(*number) else { continue };
                if !need.set.contains(&place) {
                    continue;
                }
                need.left -= 1;
                if need.left == 0 && node.fallen.is_none() {
                    node.fallen = Some(Cause::Need(*number));
                    waiting.push_back(*above);
                }
            }
        }
        Some(())
    }

    /// What has fallen, by plugin.
    fn fallen(&self) -> Vec<(PluginId, Versions)> {
        let mut fallen: BTreeMap<PluginId, Vec<u32>> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.fallen.is_some()) {
            fallen.entry(node.plugin).or_default().push(node.place);
        }
        fallen.into_iter().map(|(plugin, places)| (plugin, Versions::of(places))).collect()
    }

    /// Follows the causes down. Every release fell after all that it fell for, so this comes to an end.
    fn trace(&self) -> Option<DeadEnd> {
        let mut chain = Vec::new();
        let mut others = false;
        let mut node = self.nodes.first().filter(|node| node.fallen.is_some())?;
        let number = |(at, node): (usize, &Node)| ((node.plugin, node.place), at);
        let places: HashMap<_, _> = self.nodes.iter().enumerate().map(number).collect();
        loop {
            let number = match node.fallen? {
                Cause::Bar(bar) => return Some(DeadEnd { chain, others, end: End::Barred(bar) }),
                Cause::Need(number) => number,
            };
            let set = &node.needs.get(number)?.set;
            let (needed, wanted) = self.instance.needs(node.plugin, node.place).get(number)?;
            let Some(place) = self.instance.preferred(*needed, set) else {
                let end = End::Nothing { needed: *needed, wanted: wanted.clone() };
                return Some(DeadEnd { chain, others, end });
            };
            others |= set.len() > 1;
            chain.push((*needed, place));
            node = self.nodes.get(*places.get(&(*needed, place))?)?;
        }
    }
}
