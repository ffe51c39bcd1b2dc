//! Laws of the resolver, on small registries made by chance and checked by trying everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use themis_messages::ids::{PluginName, PluginVersion};

use super::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const VERSIONS: [&str; 4] = ["1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0"];
const WANTED: [&str; 12] =
    ["*", "*", "^1", "^1", ">=1.1", "^2", ">=0", "=1.0.0", "<2", ">=2.0.0-rc.0", "~1.1", "=2.0.0"];
const LIMITS: Limits<'static> =
    Limits { spent: &|| false, budget: Duration::ZERO, decisions: 1_000_000 };

/// One of the plugins from `from` on; seldom any other, or one that is missing.
fn name_from(from: usize) -> impl Strategy<Value = PluginName> {
    let later = NAMES.get(from..).filter(|later| !later.is_empty()).unwrap_or(&NAMES);
    let any = prop::sample::select(&NAMES[..]);
    prop_oneof![40 => prop::sample::select(later), 1 => any, 1 => Just("missing")]
        .prop_map(|name| name.parse().unwrap())
}

fn name() -> impl Strategy<Value = PluginName> {
    name_from(0)
}

fn wanted() -> impl Strategy<Value = VersionReq> {
    prop::sample::select(&WANTED[..]).prop_map(|wanted| wanted.parse().unwrap())
}

fn version() -> impl Strategy<Value = PluginVersion> {
    prop::sample::select(&VERSIONS[..]).prop_map(|version| version.parse().unwrap())
}

/// The last plugin needs nothing but by chance, so that circles are few.
fn release(of: usize) -> impl Strategy<Value = Release> {
    let most = if of + 1 < NAMES.len() { 3 } else { 1 };
    let needs = prop::collection::btree_map(name_from(of + 1), wanted(), 0..=most);
    (needs, prop::bool::weighted(0.07), prop::bool::weighted(0.95)).prop_map(
        move |(mut dependencies, yanked, runs_here)| {
            if most == 1 && !yanked {
                dependencies.clear();
            }
            Release { dependencies, yanked, runs_here }
        },
    )
}

fn releases() -> impl Strategy<Value = Releases> {
    let one = |of: usize| prop::collection::btree_map(version(), release(of), 2..=4);
    (one(0), one(1), one(2), one(3), one(4)).prop_map(|(a, b, c, d, e)| {
        NAMES.iter().map(|name| name.parse().unwrap()).zip([a, b, c, d, e]).collect()
    })
}

fn request() -> impl Strategy<Value = Request> {
    let asked = prop::collection::vec((name(), wanted()), 1..4);
    let locked = prop::collection::btree_map(name(), version(), 0..4);
    let update = prop::collection::btree_set(name(), 0..2);
    let stay = (name(), name(), wanted()).prop_map(|(needer, dependency, wanted)| Stay {
        needer,
        dependency,
        wanted,
    });
    (asked, locked, update, prop::collection::vec(stay, 0..2))
        .prop_map(|(wanted, locked, update, stays)| Request { wanted, locked, update, stays })
}

type Chosen = BTreeMap<PluginName, PluginVersion>;

/// Whether the choice is an answer, by the letter of the rules.
fn is_answer(releases: &Releases, request: &Request, chosen: &Chosen) -> bool {
    let has = |name: &PluginName, wanted: &VersionReq| {
        chosen.get(name).is_some_and(|version| wanted.matches(version.semver()))
    };
    let asked = request.wanted.iter().all(|(name, wanted)| has(name, wanted));
    let fit = chosen.iter().all(|(name, version)| {
        let Some(release) = releases.get(name).and_then(|it| it.get(version)) else { return false };
        let installed = request.locked.get(name) == Some(version);
        release.runs_here
            && (!release.yanked || installed)
            && !release.dependencies.contains_key(name)
            && release.dependencies.iter().all(|(needed, wanted)| has(needed, wanted))
    });
    let stays = request.stays.iter().all(|stay| {
        request.wanted.iter().any(|(name, _)| *name == stay.needer)
            || !chosen.contains_key(&stay.dependency)
            || has(&stay.dependency, &stay.wanted)
    });
    asked && fit && stays
}

/// Tries every combination.
fn has_answer(releases: &Releases, request: &Request) -> bool {
    let mut choices = vec![Chosen::new()];
    for (name, versions) in releases {
        let with = |chosen: &Chosen| -> Vec<Chosen> {
            let add = |version: &PluginVersion| {
                let mut more = chosen.clone();
                more.insert(name.clone(), version.clone());
                more
            };
            std::iter::once(chosen.clone()).chain(versions.keys().map(add)).collect()
        };
        choices = choices.iter().flat_map(with).collect();
    }
    choices.iter().any(|chosen| is_answer(releases, request, chosen))
}

fn chosen(plan: &Plan) -> Chosen {
    plan.steps.iter().map(|step| (step.plugin.clone(), step.version.clone())).collect()
}

/// Nothing could be better with all else as it is: nothing installed was changed without need, and nothing is older
/// than it must be.
fn cannot_be_bettered(releases: &Releases, request: &Request, chosen: &Chosen) {
    for (name, version) in chosen {
        let locked = request.locked.get(name);
        let updates = request.update.contains(name);
        if locked == Some(version) && !updates {
            continue;
        }
        for (other, release) in &releases[name] {
            let kept = locked == Some(other) && !updates;
            let yanked = releases[name][version].yanked;
            let better = if release.yanked == yanked { other > version } else { yanked };
            let mut instead = chosen.clone();
            instead.insert(name.clone(), other.clone());
            if kept || better {
                assert!(!is_answer(releases, request, &instead), "{name} {other} not {version}");
            }
        }
    }
}

fn is_in_order(plan: &Plan) {
    let mut before = BTreeSet::new();
    for step in &plan.steps {
        assert!(step.needs.keys().all(|needed| before.contains(needed)), "{plan:?}");
        before.insert(step.plugin.clone());
        // Nothing is there for no reason.
        assert!(step.wanted || !step.needed_by.is_empty(), "{plan:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn there_is_a_plan_exactly_if_there_is_an_answer(
        releases in releases(),
        request in request(),
        patience in prop_oneof![Just(0_u64), Just(1), Just(64)],
    ) {
        let result = resolve_with(&Index::new(releases.clone()), &request, &LIMITS, patience);
        let possible = has_answer(&releases, &request);
        match result {
            Ok(plan) => {
                let chosen = chosen(&plan);
                prop_assert!(possible);
                prop_assert!(is_answer(&releases, &request, &chosen), "{:?}", plan);
                is_in_order(&plan);
                cannot_be_bettered(&releases, &request, &chosen);
                prop_assert!(plan.graph().edges().iter().all(|edge| edge.met));
            }
            // Versions that fit, but need each other; a release that needs itself is no answer.
            Err(ResolveError::Cycle { path }) => prop_assert_eq!(possible, path.len() > 2),
            Err(error) => {
                prop_assert!(!possible, "{}", error);
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(
        releases in releases(),
        (request, shuffled) in request().prop_flat_map(|request| {
            let wanted = Just(request.wanted.clone()).prop_shuffle();
            let stays = Just(request.stays.clone()).prop_shuffle();
            (Just(request), wanted, stays).prop_map(|(request, wanted, stays)| {
                let shuffled = Request { wanted, stays, ..request.clone() };
                (request, shuffled)
            })
        }),
    ) {
        let index = Index::new(releases.clone());
        let once = resolve(&index, &request, &LIMITS);
        prop_assert_eq!(&once, &resolve(&index, &shuffled, &LIMITS));
        prop_assert_eq!(&once, &resolve(&Index::new(releases), &request, &LIMITS));
    }

    #[test]
    fn a_plan_that_is_locked_is_chosen_again(releases in releases(), request in request()) {
        let index = Index::new(releases);
        if let Ok(plan) = resolve(&index, &request, &LIMITS) {
            let mut again = Request { update: BTreeSet::new(), ..request };
            again.locked.extend(chosen(&plan));
            prop_assert_eq!(resolve(&index, &again, &LIMITS), Ok(plan));
        }
    }
}
