//! What was chosen, in the order in which it is loaded.

use std::collections::{BTreeMap, BTreeSet};

use semver::VersionReq;
use serde::Serialize;
use themis_messages::ids::{PluginName, PluginVersion};

use super::super::graph::{Graph, Member, walk};
use super::error::ResolveError;
use super::index::PluginId;
use super::instance::Instance;

/// One plugin of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The plugin.
    pub plugin: PluginName,
    /// The version that was chosen.
    pub version: PluginVersion,
    /// Whether it was asked for.
    pub wanted: bool,
    /// What it needs; all of it comes before.
    pub needs: BTreeMap<PluginName, VersionReq>,
    /// Which plugins of the plan need it, and which of those that stay.
    pub needed_by: BTreeSet<PluginName>,
}

/// What to load, dependencies first; by name where nothing decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What to load, in this order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Puts what was chosen in order.
    ///
    /// # Errors
    /// [`ResolveError::Cycle`].
    pub fn new(
        instance: &Instance<'_>,
        chosen: &BTreeMap<PluginId, u32>,
    ) -> Result<Self, ResolveError> {
        let index = instance.index;
        // Numbers go by name, and so do the steps from here on.
        let mut steps = Vec::with_capacity(chosen.len());
        let mut edges = Vec::with_capacity(chosen.len());
        let places: BTreeMap<_, _> = chosen.keys().zip(0_usize..).collect();
        for (plugin, place) in chosen {
            let (Some(name), Some(entry)) = (index.name(*plugin), index.entry(*plugin, *place))
            else {
                continue;
            };
            let needs = entry.needs.iter().filter_map(|(needed, wanted)| {
                Some((index.name(*needed)?.clone(), wanted.clone()))
            });
            let step = Step {
                plugin: name.clone(),
                version: entry.version.clone(),
                wanted: instance.is_wanted(*plugin),
                needs: needs.collect(),
                needed_by: BTreeSet::new(),
            };
            steps.push(step);
            let needed = |(needed, _): &(PluginId, VersionReq)| places.get(needed).copied();
            edges.push(entry.needs.iter().filter_map(needed).collect::<Vec<_>>());
        }
        for (from, needs) in edges.iter().enumerate() {
            let Some(needer) = steps.get(from).map(|step| step.plugin.clone()) else { continue };
            for to in needs {
                if let Some(step) = steps.get_mut(*to) {
                    step.needed_by.insert(needer.clone());
                }
            }
        }
        for stay in &instance.stays {
            let found = steps.binary_search_by(|step| step.plugin.cmp(&stay.dependency));
            if let Some(step) = found.ok().and_then(|at| steps.get_mut(at)) {
                step.needed_by.insert(stay.needer.clone());
            }
        }
        let Some(order) = walk::order(&edges) else {
            return Err(circle(&steps, &edges));
        };
        let mut unordered: Vec<_> = steps.into_iter().map(Some).collect();
        let steps = order.into_iter().filter_map(|at| unordered.get_mut(at)?.take()).collect();
        Ok(Self { steps })
    }

    /// Its plugins and what they need of each other.
    #[must_use]
    pub fn graph(&self) -> Graph {
        let member = |step: &Step| {
            let member = Member { version: step.version.clone(), needs: step.needs.clone() };
            (step.plugin.clone(), member)
        };
        Graph::new(self.steps.iter().map(member).collect())
    }
}

fn circle(steps: &[Step], edges: &[Vec<usize>]) -> ResolveError {
    let way = walk::cycles(edges).into_iter().next().unwrap_or_default();
    let names = way.iter().filter_map(|at| steps.get(*at)).map(|step| step.plugin.clone());
    ResolveError::Cycle { path: names.collect() }
}
