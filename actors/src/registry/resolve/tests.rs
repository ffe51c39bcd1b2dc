//! What is chosen, and what is said when nothing is: one small registry after another.

use std::fmt::Write as _;
use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;

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
        no versions fit together: geo 1.2.0 needs base ^1.1, but speech, which stays, needs base ^2; it comes in by app 1.0.0 → geo 1.2.0 → base 1.1.0
    "#]],
    );
    let deep = staying(request(&["geo *"]), &["speech: base ^2"]);
    check_request(
        PLAIN,
        &deep,
        expect![[r#"
        resolve.conflict
        no versions fit together: geo 1.2.0 needs base ^1.1, but speech, which stays, needs base ^2
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
        base ^1.5 is asked for, but no release of base matches; the nearest are 1.1.0, 2.0.0; try: base@2.0.0
    "#]],
    );
    check(
        "app 1.0.0: base =1.5.0\n base 1.4.0\n base 1.6.0\n base 2.0.0",
        &["app *"],
        expect![[r#"
        resolve.no_version
        app 1.0.0 needs base =1.5.0, but no release of base matches; the nearest are 1.4.0, 1.6.0, 2.0.0; try: tell the author of app
    "#]],
    );
    check(
        PLAIN,
        &["text ~2.1"],
        expect![[r#"
        resolve.yanked
        text ~2.1 is asked for, but every release of text that matches is yanked (2.1.0); the nearest are 2.0.0; try: text@2.0.0
    "#]],
    );
    check(
        PLAIN,
        &["text ~2.2"],
        expect![[r#"
        resolve.no_target
        text ~2.2 is asked for, but no release of text that matches runs on this platform (2.2.0); the nearest are 2.0.0; try: text@2.0.0
    "#]],
    );
    let all = "app 1.0.0: text *\n text 1.0.0 yanked\n text 1.1.0 yanked foreign";
    check(
        all,
        &["app *"],
        expect![[r#"
        resolve.yanked
        app 1.0.0 needs text *, but every release of text that matches is yanked (1.0.0, 1.1.0), and there is none to take instead; try: tell the author of app
    "#]],
    );
    check(
        "app 1.0.0: text *\n text 1.0.0 foreign",
        &["app *"],
        expect![[r#"
        resolve.no_target
        app 1.0.0 needs text *, but no release of text that matches runs on this platform (1.0.0), and there is none to take instead; try: tell the author of app
    "#]],
    );
}

#[test]
fn a_diamond_that_does_not_close_is_explained() {
    let diamond = "
        geo 1.2.0: tokenizer ^1
        text 2.0.0: tokenizer ^2
        tokenizer 1.0.0
        tokenizer 2.0.0";
    check(
        diamond,
        &["geo *", "text *"],
        expect![[r#"
        resolve.conflict
        no versions fit together: geo 1.2.0 needs tokenizer ^1, but text 2.0.0 needs tokenizer ^2; geo * and text * are both asked for; try: leave out geo
    "#]],
    );
    let older = format!("{diamond}\n text 1.4.0: tokenizer ^1");
    check(
        &older,
        &["geo ^1", "text ^2"],
        expect![[r#"
        resolve.conflict
        no versions fit together: geo 1.2.0 needs tokenizer ^1, but text 2.0.0 needs tokenizer ^2; geo ^1 and text ^2 are both asked for; try: text@1.4.0 instead of ^2
    "#]],
    );
    check(
        &older,
        &["geo *", "text *"],
        expect![[r#"
        tokenizer 1.0.0 (for geo, text)
        geo 1.2.0
        text 1.4.0
    "#]],
    );
    let deeper = format!("{diamond}\n app 1.0.0: core *; text ^2\n core 1.0.0: geo *");
    check(
        &deeper,
        &["app *"],
        expect![[r#"
        resolve.conflict
        no versions fit together: text 2.0.0 needs tokenizer ^2, but geo 1.2.0 needs tokenizer ^1; geo comes in by app → core → geo; text comes in by app → text; app * is asked for
    "#]],
    );
    check(
        diamond,
        &["geo *", "tokenizer ^2"],
        expect![[r#"
        resolve.conflict
        no versions fit together: tokenizer ^2 is asked for, but geo 1.2.0 needs tokenizer ^1; geo * is asked for; try: tokenizer@1.0.0 instead of ^2
    "#]],
    );
    check(
        diamond,
        &["tokenizer ^1", "tokenizer ^2"],
        expect![[r#"
        resolve.conflict
        no versions fit together: tokenizer ^1 is asked for, but tokenizer ^2 is asked for; try: tokenizer@2.0.0 instead of ^1
    "#]],
    );
}

#[test]
fn a_conflict_may_need_more_than_two() {
    let ways = "
        geo 1.0.0: tokenizer ^1
        geo 1.1.0: tokenizer ^1
        geo 1.2.0: tokenizer ^1
        geo 1.3.0: tokenizer ^1
        geo 1.4.0: maps ^3
        geo 1.5.0: geo *
        geo 1.6.0: parser ^1
        text 2.0.0: tokenizer ^2; parser ^2
        maps 1.0.0
        parser 1.0.0
        parser 2.0.0
        tokenizer 1.0.0
        tokenizer 2.0.0";
    check(
        ways,
        &["geo *", "text *"],
        expect![[r#"
        resolve.conflict
        no versions fit together: geo 1.0.0 … 1.3.0 (4 releases) needs tokenizer ^1, but text 2.0.0 needs tokenizer ^2; geo 1.6.0 needs parser ^1, but text 2.0.0 needs parser ^2; geo 1.4.0 needs maps ^3, but no release matches; geo 1.5.0 needs itself; geo * and text * are both asked for; try: leave out geo
    "#]],
    );
    let three = "
        a 1.0.0: x =1.0.0
        a 2.0.0: x =2.0.0
        b 1.0.0: y =1.0.0
        b 2.0.0: y =2.0.0
        x 1.0.0: y =2.0.0
        x 2.0.0: y =3.0.0
        y 1.0.0
        y 2.0.0: a =2.0.0
        y 3.0.0";
    check(
        three,
        &["a *", "b *"],
        expect![[r#"
        resolve.conflict
        no versions fit together: b 1.0.0 needs y =1.0.0, but x 1.0.0 needs y =2.0.0; b 1.0.0 needs y =1.0.0, but x 2.0.0 needs y =3.0.0; b 2.0.0 needs y =2.0.0, but x 2.0.0 needs y =3.0.0; x comes in by a → x; a * and b * are both asked for; try: leave out a
    "#]],
    );
}

#[test]
fn circles_are_refused() {
    check(
        "a 1.0.0: b *\n b 1.0.0: c *\n c 1.0.0: a *\n d 1.0.0: a *",
        &["d *"],
        expect![[r#"
        resolve.cycle
        plugins need each other in a circle: a → b → c → a; none of them can be loaded first; try: an older release of a, or tell its author
    "#]],
    );
    check(
        "a 1.0.0: a *",
        &["a *"],
        expect![[r#"
        resolve.cycle
        plugins need each other in a circle: a → a; it cannot be loaded; try: tell the author of a
    "#]],
    );
    check(
        "a 1.0.0: a ^2\n b 1.0.0: a *",
        &["b *"],
        expect![[r#"
        resolve.cycle
        plugins need each other in a circle: a → a; it cannot be loaded; try: tell the author of a
    "#]],
    );
    check(
        "a 1.0.0\n a 1.1.0: a *",
        &["a *"],
        expect![[r#"
        a 1.0.0
    "#]],
    );
}

#[test]
fn limits_are_kept() {
    // More pigeons than holes: every hole has one release, and every pigeon in it needs another.
    let mut text = String::new();
    for pigeon in 0..20 {
        for hole in 0..8 {
            let _infallible =
                writeln!(text, "pigeon-{pigeon} 1.{hole}.0: hole-{hole} =1.{pigeon}.0");
            let _infallible = writeln!(text, "hole-{hole} 1.{pigeon}.0");
        }
    }
    let index = Index::new(releases(&text));
    let all: Vec<_> = (0..20).map(|pigeon| format!("pigeon-{pigeon} *")).collect();
    let request = request(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let looks = std::cell::Cell::new(0);
    let spent = || looks.replace(looks.get() + 1) >= 1_000;
    let limits = Limits { spent: &spent, budget: Duration::from_millis(250), decisions: u64::MAX };
    let error = resolve(&index, &request, &limits).unwrap_err();
    expect!["resolve.budget: no answer within 250ms: there are too many combinations; try: ask for exact versions, or for less at once"].assert_eq(&format!("{}: {error}", error.code()));
    assert_eq!(looks.get(), 1_001);
    let error = resolve(&index, &request, &Limits { decisions: 500, ..GENEROUS }).unwrap_err();
    expect!["resolve.budget: no answer after 500 choices: there are too many combinations; try: ask for exact versions, or for less at once"].assert_eq(&format!("{}: {error}", error.code()));
}

/// `plugin-0` needs `plugin-1` needs …, and the last needs what is given.
fn chain(length: usize, last: &str) -> Releases {
    let mut text = String::new();
    for at in 0..length {
        let need = if at + 1 < length { format!("plugin-{} *", at + 1) } else { last.to_owned() };
        let _infallible = writeln!(text, "plugin-{at} 1.0.0: {need}");
        let _infallible = writeln!(text, "plugin-{at} 1.1.0: {need}");
    }
    let _infallible = writeln!(text, "end 1.0.0\n end 2.0.0");
    releases(&text)
}

#[test]
fn long_chains_do_not_overflow_the_stack() {
    let long = 10_000;
    let work = move || {
        let ask = request(&["plugin-0 *", "end ^2"]);
        let index = Index::new(chain(long, "end ^2"));
        let plan = resolve(&index, &ask, &GENEROUS).unwrap();
        assert_eq!(plan.steps.len(), long + 1);
        assert!(plan.graph().to_tree().len() < long * 1_000);
        expect![[r#"
            resolve.conflict
            no versions fit together: end ^2 is asked for, but plugin-9999 1.0.0, 1.1.0 needs end ^1; plugin-9999 comes in by plugin-0 → plugin-1 → plugin-2 → plugin-3 → plugin-4 → plugin-5 → … 9988 more … → plugin-9994 → plugin-9995 → plugin-9996 → plugin-9997 → plugin-9998 → plugin-9999; plugin-0 * is asked for; try: leave out plugin-0
        "#]].assert_eq(&told(&Index::new(chain(long, "end ^1")), &ask));
        expect![[r#"
            resolve.missing
            plugin-9999 1.1.0 needs other ^1 (plugin-0 1.1.0 → plugin-1 1.1.0 → plugin-2 1.1.0 → … 9994 more … → plugin-9997 1.1.0 → plugin-9998 1.1.0 → plugin-9999 1.1.0 → other), but the registry has no plugin other; other releases do not help; try: tell the author of plugin-9999
        "#]].assert_eq(&told(&Index::new(chain(long, "other ^1")), &ask));
        expect![[r#"
            resolve.cycle
            plugins need each other in a circle: plugin-0 → plugin-1 → plugin-2 → plugin-3 → plugin-4 → plugin-5 → … 9989 more … → plugin-9995 → plugin-9996 → plugin-9997 → plugin-9998 → plugin-9999 → plugin-0; none of them can be loaded first; try: an older release of plugin-0, or tell its author
        "#]].assert_eq(&told(&Index::new(chain(long, "plugin-0 *")), &ask));
        let stays = staying(request(&["plugin-0 *"]), &["old: end ^1"]);
        expect![[r#"
            resolve.conflict
            no versions fit together: plugin-9999 1.1.0 needs end ^2, but old, which stays, needs end ^1; it comes in by plugin-0 1.1.0 → plugin-1 1.1.0 → plugin-2 1.1.0 → … 9995 more … → plugin-9998 1.1.0 → plugin-9999 1.1.0 → end 2.0.0
        "#]].assert_eq(&told(&index, &stays));
    };
    // A small stack, so that what is deep in the chain would be found out.
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap();
    thread.join().unwrap();
}

#[test]
fn more_releases_than_bits_in_a_word() {
    let mut text = String::new();
    for at in 0..200 {
        let _infallible = writeln!(text, "a 1.{at}.0: b <={}.0.0", 200 - at);
        let _infallible = writeln!(text, "b {at}.0.0");
    }
    check(
        &text,
        &["a *", "b >=99.0.0"],
        expect![[r#"
        b 199.0.0 (for a)
        a 1.1.0
    "#]],
    );
    check(
        &text,
        &["a *", "b >=99.0.0", "a >1.120"],
        expect![[r#"
        resolve.conflict
        no versions fit together: b >=99.0.0 is asked for, but a 1.128.0 needs b <=72.0.0; b >=99.0.0 is asked for, but a 1.129.0 needs b <=71.0.0; b >=99.0.0 is asked for, but a 1.130.0 needs b <=70.0.0; b >=99.0.0 is asked for, but a 1.131.0 needs b <=69.0.0; a * and a >1.120 are both asked for; and 59 more reasons like these; try: a@1.1.0 instead of >1.120
    "#]],
    );
}
