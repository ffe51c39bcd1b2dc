//! What is said when everything exists, and does not fit together.

use expect_test::expect;

use super::check;

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
            no versions fit together: geo 1.2.0 needs tokenizer ^1, but tokenizer ^2 is asked for; try: tokenizer@1.0.0 instead of ^2
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
