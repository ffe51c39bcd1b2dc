//! Metadata that means harm: searches without end, chains without end, and more releases than anybody has.

use std::fmt::Write as _;
use std::time::Duration;

use expect_test::expect;

use super::*;

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

/// `plugin-0` needs `plugin-1` needs …, and the last needs what is given; `each` has so many releases.
fn chain(length: usize, each: usize, last: &str) -> Releases {
    let mut text = String::new();
    for at in 0..length {
        let need = if at + 1 < length { format!("plugin-{} *", at + 1) } else { last.to_owned() };
        for minor in 0..each {
            let _infallible = writeln!(text, "plugin-{at} 1.{minor}.0: {need}");
        }
    }
    text.push_str("end 1.0.0\n end 2.0.0\n clash 1.0.0: end ^1; other *\n other 1.0.0: end ^2");
    releases(&text)
}

#[test]
fn long_chains_do_not_overflow_the_stack() {
    let long = 10_000;
    let work = move || {
        let ask = request(&["plugin-0 *", "end ^2"]);
        let index = Index::new(chain(long, 2, "end ^2"));
        let plan = resolve(&index, &ask, &GENEROUS).unwrap();
        assert_eq!(plan.steps.len(), long + 1);
        assert!(plan.graph().to_tree().len() < long * 1_000);
        expect![[r#"
            resolve.conflict
            no versions fit together: plugin-9999 1.1.0 needs end ^1, but end ^2 is asked for; it comes in by plugin-0 1.1.0 → plugin-1 1.1.0 → plugin-2 1.1.0 → … 9995 more … → plugin-9998 1.1.0 → plugin-9999 1.1.0 → end 1.0.0; other releases do not help; try: leave out plugin-0
        "#]].assert_eq(&told(&Index::new(chain(long, 2, "end ^1")), &ask));
        expect![[r#"
            resolve.missing
            plugin-9999 1.1.0 needs missing ^1 (plugin-0 1.1.0 → plugin-1 1.1.0 → plugin-2 1.1.0 → … 9994 more … → plugin-9997 1.1.0 → plugin-9998 1.1.0 → plugin-9999 1.1.0 → missing), but the registry has no plugin missing; other releases do not help; try: tell the author of plugin-9999
        "#]].assert_eq(&told(&Index::new(chain(long, 2, "missing ^1")), &ask));
        expect![[r#"
            resolve.cycle
            plugins need each other in a circle: plugin-0 → plugin-1 → plugin-2 → plugin-3 → plugin-4 → plugin-5 → … 9989 more … → plugin-9995 → plugin-9996 → plugin-9997 → plugin-9998 → plugin-9999 → plugin-0; none of them can be loaded first; try: an older release of plugin-0, or tell its author
        "#]].assert_eq(&told(&Index::new(chain(long, 2, "plugin-0 *")), &ask));
        // Nothing that is missing or asked for: the search goes through, and its proof is as deep as the chain is long.
        let clash = Index::new(chain(long, 1, "clash *"));
        expect![[r#"
            resolve.conflict
            no versions fit together: clash 1.0.0 needs end ^1, but other 1.0.0 needs end ^2; clash comes in by plugin-0 → plugin-1 → plugin-2 → plugin-3 → plugin-4 → plugin-5 → … 9989 more … → plugin-9995 → plugin-9996 → plugin-9997 → plugin-9998 → plugin-9999 → clash; other comes in by plugin-0 → plugin-1 → plugin-2 → plugin-3 → plugin-4 → plugin-5 → … 9990 more … → plugin-9996 → plugin-9997 → plugin-9998 → plugin-9999 → clash → other; plugin-0 * is asked for
        "#]].assert_eq(&told(&clash, &request(&["plugin-0 *"])));
        let stays = staying(request(&["plugin-0 *"]), &["old: end ^1"]);
        expect![[r#"
            resolve.conflict
            no versions fit together: plugin-9999 1.1.0 needs end ^2, but old, which stays, needs end ^1; it comes in by plugin-0 1.1.0 → plugin-1 1.1.0 → plugin-2 1.1.0 → … 9995 more … → plugin-9998 1.1.0 → plugin-9999 1.1.0 → end 2.0.0; other releases do not help
        "#]].assert_eq(&told(&index, &stays));
    };
    // A small stack, so that what is deep in the chain would be found out.
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap();
    thread.join().unwrap();
}

#[test]
fn what_leads_nowhere_is_left_out_where_there_is_another_way() {
    // The newest release begins a chain that ends nowhere; the search would go back over it release by release.
    let mut releases = chain(2_000, 2, "missing ^1");
    let first = releases.get_mut(&"plugin-0".parse().unwrap()).unwrap();
    first.insert("0.9.0".parse().unwrap(), Release { runs_here: true, ..Release::default() });
    let plan = resolve(&Index::new(releases), &request(&["plugin-0 *"]), &GENEROUS).unwrap();
    assert_eq!(plan.steps.len(), 1);
    assert_eq!(plan.steps[0].version.to_string(), "0.9.0");
}

#[test]
fn a_version_that_no_number_holds_is_refused_before_it_comes_here() {
    assert!("999999999999999999999.0.0".parse::<PluginVersion>().is_err());
    assert!("^999999999999999999999".parse::<VersionReq>().is_err());
    check(
        "a 18446744073709551615.0.0",
        &["a >=18446744073709551615.0.0"],
        expect![[r#"
        a 18446744073709551615.0.0
    "#]],
    );
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
            no versions fit together: a 1.199.0 needs b <=1.0.0, but b >=99.0.0 is asked for; other releases do not help; try: b@1.0.0 instead of >=99.0.0
        "#]],
    );
}
