//! A graph for other programs: Graphviz and JSON.

use std::fmt::Write as _;

use super::Graph;

impl Graph {
    /// For Graphviz. An arrow goes from what needs to what is needed; a need that is not met is red and dashed.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut dot =
            "digraph plugin_dependencies {\n    rankdir=LR;\n    node [shape=box];\n".to_owned();
        for node in self.nodes() {
            let (name, version) = (quote(node.name.as_str()), node.version.to_string());
            let label = quote(&format!("{} {version}", node.name));
            let _infallible = writeln!(dot, "    {name} [label={label}];");
        }
        for edge in self.edges() {
            let (from, to) = (quote(edge.from.as_str()), quote(edge.to.as_str()));
            let style = if edge.met { "" } else { ", style=dashed, color=red" };
            let label = quote(&edge.required);
            let _infallible = writeln!(dot, "    {from} -> {to} [label={label}{style}];");
        }
        dot.push_str("}\n");
        dot
    }

    /// `{ "nodes": [{ name, version }], "edges": [{ from, to, required, met }] }`.
    ///
    /// # Errors
    /// None that are known: names and texts can all be written.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

/// A quoted string of the DOT language. A backslash is doubled: within a label it would begin an escape.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            other if other.is_control() => quoted.push('\u{fffd}'),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
