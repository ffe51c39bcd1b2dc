//! Pictures of small graphs, and laws on graphs made by chance.

use std::collections::BTreeMap;

use expect_test::expect;
use proptest::prelude::*;

use super::*;

/// `name version [: dependency requirement; …]` in each line.
fn graph(text: &str) -> Graph {
    let mut members = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (what, needs) = line.split_once(':').unwrap_or((line, ""));
        let (name, version) = what.trim().split_once(' ').unwrap();
        let needs = needs.split(';').map(str::trim).filter(|need| !need.is_empty()).map(|need| {
            let (name, wanted) = need.split_once(' ').unwrap();
            (name.parse().unwrap(), wanted.parse().unwrap())
        });
        let member = Member { version: version.parse().unwrap(), needs: needs.collect() };
        members.insert(name.parse().unwrap(), member);
    }
    Graph::new(members)
}

const DIAMOND: &str = "
    app 1.0.0: geo ^1; text ^2; zip *
    geo 1.2.0: base ^1
    text 2.0.0: base >=1, <3
    base 1.1.0: log ^0.4
    log 0.4.2
    tool 0.1.0: log ^0.5; text ^2";

const CIRCLES: &str = "
    a 1.0.0: b *
    b 1.0.0: c *; d *
    c 1.0.0: a *
    d 1.0.0: d *
    e 1.0.0: c *";

#[test]
fn trees() {
    expect![[r#"
        app 1.0.0
        ├── geo 1.2.0 (^1)
        │   └── base 1.1.0 (^1)
        │       └── log 0.4.2 (^0.4)
        ├── text 2.0.0 (^2)
        │   └── base 1.1.0 (>=1, <3) ↑ above
        └── zip *: missing

        tool 0.1.0
        ├── log 0.4.2 (^0.5, not met)
        └── text 2.0.0 (^2) ↑ above

        load order: log, base, geo, text, app, tool
    "#]]
    .assert_eq(&graph(DIAMOND).to_tree());
    expect![[r#"
        e 1.0.0
        └── c 1.0.0 (*)
            └── a 1.0.0 (*)
                └── b 1.0.0 (*)
                    ├── c 1.0.0 (*) ↺ cycle
                    └── d 1.0.0 (*)
                        └── d 1.0.0 (*) ↺ cycle

        no load order: a → b → c → a
        no load order: d → d
    "#]]
    .assert_eq(&graph(CIRCLES).to_tree());
    expect![[r#"
        load order: 
    "#]]
    .assert_eq(&graph("").to_tree());
}

#[test]
fn dot() {
    expect![[r#"
        digraph plugin_dependencies {
            rankdir=LR;
            node [shape=box];
            "app" [label="app 1.0.0"];
            "base" [label="base 1.1.0"];
            "geo" [label="geo 1.2.0"];
            "log" [label="log 0.4.2"];
            "text" [label="text 2.0.0"];
            "tool" [label="tool 0.1.0"];
            "app" -> "geo" [label="^1"];
            "app" -> "text" [label="^2"];
            "app" -> "zip" [label="*", style=dashed, color=red];
            "base" -> "log" [label="^0.4"];
            "geo" -> "base" [label="^1"];
            "text" -> "base" [label=">=1, <3"];
            "tool" -> "log" [label="^0.5", style=dashed, color=red];
            "tool" -> "text" [label="^2"];
        }
    "#]]
    .assert_eq(&graph(DIAMOND).to_dot());
    assert_eq!(export::quote("a\"b\\c\nd\r"), r#""a\"b\\c\nd�""#);
}

#[test]
fn json() {
    expect![[r#"
        {
          "nodes": [
            {
              "name": "log",
              "version": "0.4.2"
            },
            {
              "name": "tool",
              "version": "0.1.0"
            }
          ],
          "edges": [
            {
              "from": "tool",
              "to": "log",
              "required": "^0.5",
              "met": false
            },
            {
              "from": "tool",
              "to": "zip",
              "required": "*",
              "met": false
            }
          ]
        }"#]]
    .assert_eq(&graph("tool 0.1.0: log ^0.5; zip *\n log 0.4.2").to_json().unwrap());
}

#[test]
fn who_depends_on_whom() {
    let dependents = |name: &str| -> Vec<String> {
        let found = graph(DIAMOND).dependents_of(&name.parse().unwrap());
        found.iter().map(ToString::to_string).collect()
    };
    assert_eq!(dependents("text"), ["app", "tool"]);
    assert_eq!(dependents("zip"), ["app"]);
    assert!(dependents("app").is_empty());
}

#[test]
fn a_great_circle_and_a_long_chain() {
    let circle: Vec<_> = (0..1_000).map(|at| vec![(at + 1) % 1_000]).collect();
    let cycles = walk::cycles(&circle);
    assert_eq!(cycles.len(), 1);
    assert_eq!(cycles[0], (0..1_000).chain([0]).collect::<Vec<_>>());
    assert_eq!(walk::order(&circle), None);
    let chain: Vec<_> = (0..100_000).map(|at| vec![at + 1]).collect();
    assert!(walk::cycles(&chain).is_empty());
    assert_eq!(walk::order(&chain), Some((0..100_000).rev().collect()));
}

/// How many steps it takes from each node to each, at least one; by trying everything.
fn distances(edges: &[Vec<usize>]) -> Vec<Vec<Option<usize>>> {
    let count = edges.len();
    let mut ways = vec![vec![None; count]; count];
    for (from, needs) in edges.iter().enumerate() {
        for to in needs {
            ways[from][*to] = Some(1_usize);
        }
    }
    for over in 0..count {
        for from in 0..count {
            for to in 0..count {
                if let (Some(first), Some(second)) = (ways[from][over], ways[over][to]) {
                    let way = first + second;
                    ways[from][to] = Some(ways[from][to].map_or(way, |known| way.min(known)));
                }
            }
        }
    }
    ways
}

fn edges() -> impl Strategy<Value = Vec<Vec<usize>>> {
    (1..8_usize).prop_flat_map(|count| {
        let needs = prop::collection::btree_set(0..count, 0..3.min(count));
        prop::collection::vec(needs.prop_map(|needs| needs.into_iter().collect()), count)
    })
}

proptest! {
    #[test]
    fn cycles_are_those_that_trying_everything_finds(edges in edges()) {
        let ways = distances(&edges);
        let together = |a: usize, b: usize| ways[a][b].is_some() && ways[b][a].is_some();
        // The lowest of each set of nodes that reach each other.
        let lowest = (0..edges.len())
            .filter(|at| together(*at, *at) && !(0..*at).any(|before| together(before, *at)));
        let cycles = walk::cycles(&edges);
        let starts: Vec<_> = cycles.iter().map(|way| way[0]).collect();
        prop_assert_eq!(starts, lowest.collect::<Vec<_>>());
        for way in &cycles {
            prop_assert_eq!(way.first(), way.last());
            prop_assert!(way.windows(2).all(|step| edges[step[0]].contains(&step[1])));
            prop_assert_eq!(Some(way.len() - 1), ways[way[0]][way[0]]);
        }
        for a in 0..edges.len() {
            for b in 0..edges.len() {
                let numbers = walk::components(&edges);
                prop_assert_eq!(numbers[a] == numbers[b], a == b || together(a, b));
            }
        }
    }

    #[test]
    fn an_order_has_what_is_needed_first(edges in edges()) {
        match walk::order(&edges) {
            None => prop_assert!(!walk::cycles(&edges).is_empty()),
            Some(order) => {
                prop_assert_eq!(order.len(), edges.len());
                let mut done = vec![false; edges.len()];
                for at in order {
                    // The lowest of those that are ready.
                    let ready = |at: usize| !done[at] && edges[at].iter().all(|need| done[*need]);
                    prop_assert_eq!((0..edges.len()).find(|at| ready(*at)), Some(at));
                    done[at] = true;
                }
            }
        }
    }

    #[test]
    fn a_tree_draws_every_need_once_and_says_what_it_is(edges in edges()) {
        let name = |at: usize| format!("p{at}").parse::<PluginName>().unwrap();
        let members = edges.iter().enumerate().map(|(at, needs)| {
            let needs = needs.iter().map(|to| (name(*to), VersionReq::STAR)).collect();
            (name(at), Member { version: "1.0.0".parse().unwrap(), needs })
        });
        let graph = Graph::new(members.collect());
        let tree = graph.to_tree();
        let drawn = tree.matches("── ").count();
        prop_assert_eq!(drawn, graph.edges().len(), "{}", tree);
        prop_assert_eq!(tree.contains("↺"), tree.contains("no load order"), "{}", tree);
    }
}
