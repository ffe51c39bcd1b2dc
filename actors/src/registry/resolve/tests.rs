//! What is chosen, and what is said when nothing is: one small registry after another.

use std::fmt::Write as _;
use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;

mod conflicts;
mod hostile;
mod laws;

/// Never reached.
const GENEROUS: Limits<'static> =
    Limits { spent: &|| false, budget: Duration::from_secs(1), decisions: 1_000_000 };

/// `name version [yanked] [foreign] [: dependency requirement; …]` in each line.
fn releases(text: &str) -> Releases {
    let mut releases = Releases::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (what, needs) = line.split_once(':').unwrap_or((line, ""));
        let words: Vec<_> = what.split_whitespace().collect();
        let needs = needs.split(';').map(str::trim).filter(|need| !need.is_empty());
        let release = Release {
            dependencies: needs.map(wanted).collect(),
            yanked: words.contains(&"yanked"),
            runs_here: !words.contains(&"foreign"),
        };
        let versions = releases.entry(words[0].parse().unwrap()).or_default();
        assert!(versions.insert(words[1].parse().unwrap(), release).is_none(), "twice: {line}");
    }
    releases
}

/// `name requirement`.
fn wanted(text: &str) -> (PluginName, VersionReq) {
    let (name, wanted) = text.split_once(' ').unwrap();
    (name.parse().unwrap(), wanted.parse().unwrap())
}

/// `name requirement` each.
fn request(asked: &[&str]) -> Request {
    Request { wanted: asked.iter().map(|text| wanted(text)).collect(), ..Request::default() }
}

fn locked(request: Request, versions: &[&str]) -> Request {
    let pair = |text: &&str| {
        let (name, version) = text.split_once(' ').unwrap();
        (name.parse().unwrap(), version.parse().unwrap())
    };
    Request { locked: versions.iter().map(pair).collect(), ..request }
}

/// `needer: dependency requirement`.
fn staying(request: Request, needs: &[&str]) -> Request {
    let stay = |text: &&str| {
        let (needer, need) = text.split_once(": ").unwrap();
        let (dependency, wanted) = wanted(need);
        Stay { needer: needer.parse().unwrap(), dependency, wanted }
    };
    Request { stays: needs.iter().map(stay).collect(), ..request }
}

/// The plan in one line, or the code and the message.
fn told(index: &Index, request: &Request) -> String {
    match resolve(index, request, &GENEROUS) {
        Ok(plan) => {
            let mut text = String::new();
            for step in plan.steps {
                let _infallible = write!(text, "{} {}", step.plugin, step.version);
                let needed_by: Vec<_> = step.needed_by.iter().map(PluginName::as_str).collect();
                if !needed_by.is_empty() {
                    let _infallible = write!(text, " (for {})", needed_by.join(", "));
                }
                text.push('\n');
            }
            text
        }
        Err(error) => format!("{}\n{error}\n", error.code()),
    }
}

/// Asks for plugins and compares what is told.
fn check(registry: &str, asked: &[&str], expected: Expect) {
    check_request(registry, &request(asked), expected);
}

fn check_request(registry: &str, request: &Request, expected: Expect) {
    expected.assert_eq(&told(&Index::new(releases(registry)), request));
}

const PLAIN: &str = "
    app 1.0.0: geo ^1; text >=1, <3
    geo 1.0.0: base ^1
    geo 1.2.0: base ^1.1
    geo 2.0.0-rc.1
    text 1.0.0: base *
    text 2.0.0: base >=1
    text 2.1.0 yanked
    text 2.2.0 foreign
    base 1.0.0
    base 1.1.0
    base 2.0.0";

#[test]
fn the_highest_that_suits_everybody_comes_in_load_order() {
    check(
        PLAIN,
        &["app *"],
        expect![[r#"
        base 1.1.0 (for geo, text)
        geo 1.2.0 (for app)
        text 2.0.0 (for app)
        app 1.0.0
    "#]],
    );
    check(
        PLAIN,
        &["text ^1", "geo =1.0.0"],
        expect![[r#"
        base 1.1.0 (for geo, text)
        geo 1.0.0
        text 1.0.0
    "#]],
    );
    check(
        PLAIN,
        &["geo >=1", "geo <1.1"],
        expect![[r#"
        base 1.1.0 (for geo)
        geo 1.0.0
    "#]],
    );
}

#[test]
fn a_pre_release_is_chosen_where_it_is_named() {
    check(
        PLAIN,
        &["geo >=0"],
        expect![[r#"
        base 1.1.0 (for geo)
        geo 1.2.0
    "#]],
    );
    check(
        PLAIN,
        &["geo ^2.0.0-rc.0"],
        expect![[r#"
        geo 2.0.0-rc.1
    "#]],
    );
    check(
        PLAIN,
        &["geo ^2"],
        expect![[r#"
        resolve.pre_release
        geo ^2 is asked for, but only pre-releases of geo match (2.0.0-rc.1); try: geo@2.0.0-rc.1
    "#]],
    );
    check(
        "app 1.0.0: geo ^2\n geo 2.0.0-rc.1\n geo 2.0.0-rc.2",
        &["app *"],
        expect![[r#"
        resolve.pre_release
        app 1.0.0 needs geo ^2, but only pre-releases of geo match (2.0.0-rc.1, 2.0.0-rc.2); try: tell the author of app
    "#]],
    );
}

#[test]
fn what_is_installed_stays_unless_it_is_updated_or_in_the_way() {
    let held = locked(request(&["app *"]), &["geo 1.0.0", "base 1.0.0", "text 2.1.0"]);
    check_request(
        PLAIN,
        &held,
        expect![[r#"
        base 1.0.0 (for geo)
        geo 1.0.0 (for app)
        text 2.1.0 (for app)
        app 1.0.0
    "#]],
    );
    let update =
        held.update.iter().cloned().chain(["geo".parse().unwrap(), "text".parse().unwrap()]);
    let updated = Request { update: update.collect(), ..held.clone() };
    check_request(
        PLAIN,
        &updated,
        expect![[r#"
        base 1.1.0 (for geo, text)
        geo 1.2.0 (for app)
        text 2.0.0 (for app)
        app 1.0.0
    "#]],
    );
    // A release that is yanked and installed may stay even in an update, where there is nothing else.
    let only = "geo 1.0.0\n geo 1.1.0 yanked\n geo 1.2.0 foreign";
    let stuck = locked(request(&["geo ^1.1"]), &["geo 1.1.0"]);
    let stuck = Request { update: ["geo".parse().unwrap()].into(), ..stuck };
    check_request(
        only,
        &stuck,
        expect![[r#"
        geo 1.1.0
    "#]],
    );
    let gone = locked(request(&["geo *"]), &["geo 1.2.0"]);
    check_request(
        only,
        &gone,
        expect![[r#"
        geo 1.0.0
    "#]],
    );
}

#[test]
fn what_stays_keeps_what_it_needs() {
    let plain = staying(request(&["text *"]), &["speech: base <1.1"]);
    check_request(
        PLAIN,
        &plain,
        expect![[r#"
        base 1.0.0 (for speech, text)
        text 2.0.0
    "#]],
    );
    let against = staying(request(&["app *"]), &["speech: base ^2"]);
    check_request(
        PLAIN,
        &against,
        expect![[r#"
            resolve.conflict
            no versions fit together: geo 1.2.0 needs base ^1.1, but speech, which stays, needs base ^2; it comes in by app 1.0.0 → geo 1.2.0 → base 1.1.0; other releases do not help
        "#]],
    );
    let deep = staying(request(&["geo *"]), &["speech: base ^2"]);
    check_request(
        PLAIN,
        &deep,
        expect![[r#"
            resolve.conflict
            no versions fit together: geo 1.2.0 needs base ^1.1, but speech, which stays, needs base ^2; other releases do not help
        "#]],
    );
    // What changes has needs of its own.
    let changing = staying(request(&["text *", "base ^1"]), &["text: base ^2"]);
    check_request(
        PLAIN,
        &changing,
        expect![[r#"
        base 1.1.0 (for text)
        text 2.0.0
    "#]],
    );
    let newer = "speech 1.0.0: base ^1\n speech 2.0.0: base ^2\n app 1.0.0: base ^2\n base 1.0.0\n base 2.0.0";
    let update = staying(request(&["app *"]), &["speech: base ^1"]);
    check_request(
        newer,
        &update,
        expect![[r#"
        resolve.conflict
        no versions fit together: app 1.0.0 needs base ^2, but speech, which stays, needs base ^1; try: update speech as well
    "#]],
    );
}

#[test]
fn a_missing_plugin_is_named_with_the_way_to_it() {
    check(
        PLAIN,
        &["goe ^1"],
        expect![[r#"
        resolve.missing
        goe ^1 is asked for, but the registry has no plugin goe; try: check the spelling, or add the registry that has it
    "#]],
    );
    check(
        "app 1.0.0: geo ^1",
        &["app *"],
        expect![[r#"
        resolve.missing
        app 1.0.0 needs geo ^1, but the registry has no plugin geo; try: tell the author of app
    "#]],
    );
    let deep = "app 1.0.0: core *\n core 1.0.0: geo ^1\n core 1.1.0: geo ^1\n geo 1.0.0: base ^1";
    check(
        deep,
        &["app *"],
        expect![[r#"
        resolve.missing
        geo 1.0.0 needs base ^1 (app 1.0.0 → core 1.1.0 → geo 1.0.0 → base), but the registry has no plugin base; other releases do not help; try: tell the author of geo
    "#]],
    );
    // It is only avoided where something else works.
    check(
        "app 1.0.0\n app 1.1.0: geo ^1",
        &["app *"],
        expect![[r#"
        app 1.0.0
    "#]],
    );
}

#[test]
fn no_version_yanked_and_no_target_are_told_apart() {
    check(
        PLAIN,
        &["base ^1.5"],
        expect![[r#"
            resolve.no_version
            base ^1.5 is asked for, but no release of base matches; nearest: 1.1.0, 2.0.0; try: base@2.0.0
        "#]],
    );
    check(
        "app 1.0.0: base =1.5.0\n base 1.4.0\n base 1.6.0\n base 2.0.0",
        &["app *"],
        expect![[r#"
            resolve.no_version
            app 1.0.0 needs base =1.5.0, but no release of base matches; nearest: 1.4.0, 1.6.0, 2.0.0; try: tell the author of app
        "#]],
    );
    check(
        PLAIN,
        &["text ~2.1"],
        expect![[r#"
            resolve.yanked
            text ~2.1 is asked for, but every release of text that matches is yanked (2.1.0); nearest: 2.0.0; try: text@2.0.0
        "#]],
    );
    check(
        PLAIN,
        &["text ~2.2"],
        expect![[r#"
            resolve.no_target
            text ~2.2 is asked for, but no release of text that matches runs on this platform (2.2.0); nearest: 2.0.0; try: text@2.0.0
        "#]],
    );
    let all = "app 1.0.0: text *\n text 1.0.0 yanked\n text 1.1.0 yanked foreign";
    check(
        all,
        &["app *"],
        expect![[r#"
            resolve.yanked
            app 1.0.0 needs text *, but every release of text that matches is yanked (1.0.0, 1.1.0); there is none to take instead; try: tell the author of app
        "#]],
    );
    check(
        "app 1.0.0: text *\n text 1.0.0 foreign",
        &["app *"],
        expect![[r#"
            resolve.no_target
            app 1.0.0 needs text *, but no release of text that matches runs on this platform (1.0.0); there is none to take instead; try: tell the author of app
        "#]],
    );
}
