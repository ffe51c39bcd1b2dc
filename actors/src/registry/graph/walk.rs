//! Order and cycles of a graph that is given as lists of neighbours. Nothing recurses: graphs are as deep as hostile
//! metadata makes them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The places of all nodes, each after its neighbours; the lowest first where nothing decides. `None` if there is a
/// cycle. Neighbours that are no nodes are passed over.
#[must_use]
pub fn order(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut missing: Vec<usize> = vec![0; edges.len()];
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    for (from, needs) in edges.iter().enumerate() {
        for to in needs {
            if let (Some(needers), Some(count)) = (needed_by.get_mut(*to), missing.get_mut(from)) {
                needers.push(from);
                *count += 1;
            }
        }
    }
    let free = |(at, count): (usize, &usize)| (*count == 0).then_some(Reverse(at));
    let mut ready: BinaryHeap<_> = missing.iter().enumerate().filter_map(free).collect();
    let mut order = Vec::with_capacity(edges.len());
    while let Some(Reverse(at)) = ready.pop() {
        order.push(at);
        for needer in needed_by.get(at).into_iter().flatten() {
            let Some(count) = missing.get_mut(*needer) else { continue };
            *count -= 1;
            if *count == 0 {
                ready.push(Reverse(*needer));
            }
        }
    }
    (order.len() == edges.len()).then_some(order)
}

/// One way round for every set of nodes that can all reach each other, first and last the same: a shortest one through
/// the lowest of them. There may be more ways round than could ever be listed.
#[must_use]
pub fn cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let component = components(edges);
    let mut size = vec![0_usize; edges.len()];
    for number in &component {
        if let Some(size) = size.get_mut(*number) {
            *size += 1;
        }
    }
    let mut seen = vec![false; edges.len()];
    let mut cycles = Vec::new();
    for (at, number) in component.iter().enumerate() {
        let loops = edges.get(at).is_some_and(|needs| needs.contains(&at));
        let many = size.get(*number).is_some_and(|size| *size > 1);
        let first = seen.get_mut(*number).is_some_and(|seen| !std::mem::replace(seen, true));
        if first && (loops || many) {
            cycles.extend(way_round(edges, &component, at));
        }
    }
    cycles
}

/// A shortest way from a node back to itself.
fn way_round(edges: &[Vec<usize>], component: &[usize], start: usize) -> Option<Vec<usize>> {
    let mut came_from = vec![None; edges.len()];
    let mut waiting = VecDeque::from([start]);
    while let Some(at) = waiting.pop_front() {
        for next in edges.get(at).into_iter().flatten() {
            if *next == start {
                let mut way = vec![start, at];
                let mut back = at;
                while let Some(before) = came_from.get(back).copied().flatten() {
                    way.push(before);
                    back = before;
                }
                if at == start {
                    way.pop();
                    way.push(start);
                }
                way.reverse();
                return Some(way);
            }
            let inside = component.get(*next) == component.get(start);
            if let Some(from @ None) = came_from.get_mut(*next).filter(|_| inside) {
                *from = Some(at);
                waiting.push_back(*next);
            }
        }
    }
    None
}

/// For every node the number of its strongly connected component, by Tarjan's algorithm with a stack of its own. What
/// a component needs has lower numbers.
#[must_use]
pub fn components(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut tarjan = Tarjan {
        edges,
        found: vec![None; edges.len()],
        lowest: vec![0; edges.len()],
        component: vec![None; edges.len()],
        open: Vec::new(),
        nodes: 0,
        components: 0,
    };
    for start in 0..edges.len() {
        if tarjan.found.get(start) == Some(&None) {
            tarjan.visit(start);
        }
    }
    tarjan.component.into_iter().flatten().collect()
}

struct Tarjan<'a> {
    edges: &'a [Vec<usize>],
    /// When the node was found.
    found: Vec<Option<usize>>,
    /// The earliest node that is still open and can be reached from it.
    lowest: Vec<usize>,
    component: Vec<Option<usize>>,
    /// Found, and not yet in a component.
    open: Vec<usize>,
    nodes: usize,
    components: usize,
}

impl Tarjan<'_> {
    fn visit(&mut self, start: usize) {
        self.enter(start);
        // A node, and how many of its neighbours have been followed.
        let mut path = vec![(start, 0)];
        while let Some((at, followed)) = path.last_mut() {
            let at = *at;
            let next = self.edges.get(at).and_then(|needs| needs.get(*followed)).copied();
            *followed += 1;
            match next {
                Some(next) => match self.found.get(next) {
                    Some(None) => {
                        self.enter(next);
                        path.push((next, 0));
                    }
                    Some(Some(found)) if self.component.get(next) == Some(&None) => {
                        let found = *found;
                        self.lower(at, found);
                    }
                    Some(Some(_)) | None => {}
                },
                None => {
                    path.pop();
                    self.leave(at);
                    if let Some((above, _)) = path.last() {
                        let lowest = self.lowest.get(at).copied().unwrap_or(usize::MAX);
                        self.lower(*above, lowest);
                    }
                }
            }
        }
    }

    fn enter(&mut self, at: usize) {
        if let (Some(found), Some(lowest)) = (self.found.get_mut(at), self.lowest.get_mut(at)) {
            *found = Some(self.nodes);
            *lowest = self.nodes;
        }
        self.nodes += 1;
        self.open.push(at);
    }

    fn lower(&mut self, at: usize, to: usize) {
        if let Some(lowest) = self.lowest.get_mut(at) {
            *lowest = to.min(*lowest);
        }
    }

    /// Closes the component if the node is the first of it that was found.
    fn leave(&mut self, at: usize) {
        if self.found.get(at).copied().flatten() != self.lowest.get(at).copied() {
            return;
        }
        while let Some(member) = self.open.pop() {
            if let Some(component) = self.component.get_mut(member) {
                *component = Some(self.components);
            }
            if member == at {
                break;
            }
        }
        self.components += 1;
    }
}
