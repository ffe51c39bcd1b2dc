//! A graph for people: a tree for everything that nothing needs, drawn with lines.

use std::collections::VecDeque;
use std::fmt::Write as _;

use themis_messages::ids::PluginName;

use super::{Edge, Graph, walk};

/// Deeper than that, a plugin begins a tree of its own further down: the indentation of a long chain would fill pages
/// by itself.
const DEPTH_MAX: usize = 24;

/// Whether a plugin has been drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drawn {
    Not,
    /// It begins a tree of its own, further down.
    Later,
    /// What it needs is being drawn.
    Open,
    Done,
}

/// A step of the drawing.
enum Task {
    /// Draws what a plugin needs: `place` is the plugin's, `indent` that of its lines.
    Need { of: usize, number: usize, indent: String },
    /// All that a plugin needs has been drawn.
    Close { place: usize },
}

impl Graph {
    /// A tree for every plugin that nothing needs, and for one of every circle that nothing else needs; then the order
    /// of loading. What is needed more than once is drawn once and referred to elsewhere.
    #[must_use]
    pub fn to_tree(&self) -> String {
        let mut drawing = Drawing {
            graph: self,
            drawn: vec![Drawn::Not; self.nodes.len()],
            first_edge: first_edges(self),
            roots: self.roots().into(),
            text: String::new(),
        };
        while let Some(root) = drawing.roots.pop_front() {
            drawing.tree(root);
        }
        let mut text = drawing.text;
        match self.load_order() {
            Some(order) => {
                let names: Vec<_> = order.iter().map(|name| name.as_str()).collect();
                let _infallible = writeln!(text, "load order: {}", names.join(", "));
            }
            None => {
                for way in self.cycles() {
                    let names: Vec<_> = way.iter().map(|name| name.as_str()).collect();
                    let _infallible = writeln!(text, "no load order: {}", names.join(" → "));
                }
            }
        }
        text
    }

    /// Plugins that nothing needs, and the first by name of every circle that nothing else needs.
    fn roots(&self) -> Vec<usize> {
        let component = walk::components(&self.needs);
        let mut needed = vec![false; self.nodes.len()];
        for (from, needs) in self.needs.iter().enumerate() {
            for to in needs {
                let (Some(above), Some(below)) = (component.get(from), component.get(*to)) else {
                    continue;
                };
                if let Some(needed) = needed.get_mut(*below).filter(|_| above != below) {
                    *needed = true;
                }
            }
        }
        let first = |(at, number): (usize, &usize)| {
            let taken = needed.get_mut(*number)?;
            (!std::mem::replace(taken, true)).then_some(at)
        };
        component.iter().enumerate().filter_map(first).collect()
    }
}

/// Where the edges of each node begin: both are in order of their names.
fn first_edges(graph: &Graph) -> Vec<usize> {
    let first = |name: &PluginName| graph.edges.partition_point(|edge| edge.from < *name);
    graph.nodes.iter().map(|node| first(&node.name)).collect()
}

struct Drawing<'a> {
    graph: &'a Graph,
    drawn: Vec<Drawn>,
    first_edge: Vec<usize>,
    /// Places of the plugins that begin a tree.
    roots: VecDeque<usize>,
    text: String,
}

impl<'a> Drawing<'a> {
    fn tree(&mut self, root: usize) {
        let graph = self.graph;
        let Some(node) = graph.nodes.get(root) else { return };
        let _infallible = writeln!(self.text, "{} {}", node.name, node.version);
        let mut tasks = Vec::new();
        self.open(root, String::new(), &mut tasks);
        while let Some(task) = tasks.pop() {
            match task {
                Task::Close { place } => self.mark(place, Drawn::Done),
                Task::Need { of, number, indent } => self.need(of, number, &indent, &mut tasks),
            }
        }
        self.text.push('\n');
    }

    /// One line for a need, and tasks for what it needs in turn.
    fn need(&mut self, of: usize, number: usize, indent: &str, tasks: &mut Vec<Task>) {
        let edges = self.edges(of);
        let Some(edge) = edges.get(number) else { return };
        let last = number + 1 == edges.len();
        let branch = if last { "└── " } else { "├── " };
        let (to, required) = (&edge.to, &edge.required);
        let graph = self.graph;
        let found = graph.nodes.binary_search_by(|node| node.name.cmp(to)).ok();
        let node = found.and_then(|at| graph.nodes.get(at).map(|node| (at, node)));
        let Some((at, node)) = node else {
            let _infallible = writeln!(self.text, "{indent}{branch}{to} {required}: missing");
            return;
        };
        let unmet = if edge.met { "" } else { ", not met" };
        let _infallible =
            write!(self.text, "{indent}{branch}{to} {} ({required}{unmet})", node.version);
        let bare = self.edges(at).is_empty();
        let note = match self.drawn.get(at) {
            Some(Drawn::Open) => " ↺ cycle",
            Some(Drawn::Done) if !bare => " ↑ above",
            Some(Drawn::Later) => " ↓ below",
            Some(Drawn::Not) if !bare && indent.chars().count() >= DEPTH_MAX * 4 => {
                self.mark(at, Drawn::Later);
                self.roots.push_back(at);
                " ↓ below"
            }
            Some(Drawn::Not) => {
                let line = if last { "    " } else { "│   " };
                self.open(at, format!("{indent}{line}"), tasks);
                ""
            }
            Some(Drawn::Done) | None => "",
        };
        self.text.push_str(note);
        self.text.push('\n');
    }

    fn open(&mut self, place: usize, indent: String, tasks: &mut Vec<Task>) {
        self.mark(place, Drawn::Open);
        tasks.push(Task::Close { place });
        // The last is pushed first: tasks are taken from the end.
        for number in (0..self.edges(place).len()).rev() {
            tasks.push(Task::Need { of: place, number, indent: indent.clone() });
        }
    }

    fn mark(&mut self, place: usize, as_what: Drawn) {
        if let Some(drawn) = self.drawn.get_mut(place) {
            *drawn = as_what;
        }
    }

    fn edges(&self, place: usize) -> &'a [Edge] {
        let from = self.first_edge.get(place).copied().unwrap_or_default();
        let rest = self.graph.edges.get(from..).unwrap_or_default();
        let count = self
            .graph
            .nodes
            .get(place)
            .map_or(0, |node| rest.partition_point(|edge| edge.from <= node.name));
        rest.get(..count).unwrap_or_default()
    }
}
