//! Which plugins need which: cycles, the order of loading, who depends on whom, and pictures of it.

use std::collections::{BTreeMap, BTreeSet};

use semver::VersionReq;
use serde::Serialize;
use themis_messages::ids::{PluginName, PluginVersion};

pub mod export;
pub mod tree;
pub mod walk;

#[cfg(test)]
mod tests;

/// An installed or planned plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its version.
    pub version: PluginVersion,
    /// What it needs.
    pub needs: BTreeMap<PluginName, VersionReq>,
}

/// A plugin of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: PluginName,
    /// Its version.
    pub version: PluginVersion,
}

/// One plugin's need of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// Who needs.
    pub from: PluginName,
    /// What is needed; not always a plugin of the graph.
    pub to: PluginName,
    /// Which versions, as it is written.
    pub required: String,
    /// Whether such a version is in the graph.
    pub met: bool,
}

/// Plugins and their needs, both in order of their names. Serialises as `{ "nodes": […], "edges": […] }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    /// By node, the places of what it needs.
    #[serde(skip)]
    needs: Vec<Vec<usize>>,
}

impl Graph {
    /// The graph of these plugins.
    #[must_use]
    pub fn new(members: BTreeMap<PluginName, Member>) -> Self {
        let mut edges = Vec::new();
        let mut needs = Vec::with_capacity(members.len());
        let places: BTreeMap<_, _> =
            members.iter().enumerate().map(|(at, (name, it))| (name, (at, &it.version))).collect();
        for (from, member) in &members {
            let mut places_needed = Vec::new();
            for (to, wanted) in &member.needs {
                let found = places.get(to);
                places_needed.extend(found.map(|(at, _)| *at));
                edges.push(Edge {
                    from: from.clone(),
                    to: to.clone(),
                    required: wanted.to_string(),
                    met: found.is_some_and(|(_, version)| wanted.matches(version.semver())),
                });
            }
            needs.push(places_needed);
        }
        let node = |(name, member): (PluginName, Member)| Node { name, version: member.version };
        Self { nodes: members.into_iter().map(node).collect(), edges, needs }
    }

    /// The plugins, by name.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The needs, by who needs and what.
    #[must_use]
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Ways round, first and last the same: for every set of plugins that all need each other, a shortest one through
    /// the first of them by name. None means that the plugins can be loaded.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<PluginName>> {
        walk::cycles(&self.needs).into_iter().map(|way| self.names(way)).collect()
    }

    /// All plugins, each after what it needs; by name where nothing decides. `None` if there is a cycle.
    #[must_use]
    pub fn load_order(&self) -> Option<Vec<PluginName>> {
        walk::order(&self.needs).map(|order| self.names(order))
    }

    /// The plugins that need this one themselves.
    #[must_use]
    pub fn dependents_of(&self, name: &PluginName) -> BTreeSet<PluginName> {
        let needing = self.edges.iter().filter(|edge| edge.to == *name);
        needing.map(|edge| edge.from.clone()).collect()
    }

    fn names(&self, places: Vec<usize>) -> Vec<PluginName> {
        places.into_iter().filter_map(|at| self.nodes.get(at)).map(|it| it.name.clone()).collect()
    }
}
