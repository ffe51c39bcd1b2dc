//! Random loops that count, up and down, by any step and to any bound: what compilers write, and what is a little beside it.

use std::fmt::Write as _;

use arbtest::arbitrary::{Result, Unstructured};

/// Functions of a program.
const FUNCTIONS: usize = 3;
/// Most loops of a function.
const LOOPS: usize = 4;

/// Leaves a loop after some iterations.
const FUSE: &str = "(br_if $out (i32.le_s (local.tee $fuse (i32.sub (local.get $fuse) (i32.const 1))) (i32.const 0)))";

/// One loop to be written.
struct Count {
    /// `i32` or `i64`.
    ty: &'static str,
    /// The locals of that type: counter, bound and step.
    counter: &'static str,
    bound: &'static str,
    step: &'static str,
    start: i64,
    end: i64,
    by: i64,
}

/// A program in text form: exports `f0` to `f2`, each `(i32) -> (i64)`, and a memory.
pub(crate) fn program(u: &mut Unstructured<'_>) -> Result<String> {
    let mut text = String::from("(module (memory (export \"memory\") 1 1)\n");
    for function in 0..FUNCTIONS {
        let _ = write!(
            text,
            "(func $f{function} (export \"f{function}\") (param $p i32) (result i64)\n\
             (local $i i32) (local $n i32) (local $s i32) (local $a i32) (local $fuse i32) (local $k i32)\n\
             (local $wi i64) (local $wn i64) (local $ws i64) (local $wa i64)\n\
             (local.set $fuse (i32.const {}))\n",
            u.int_in_range(1..=300)?
        );
        for _ in 0..u.int_in_range(1..=LOOPS)? {
            if u.ratio(1, 3)? {
                let times = u.int_in_range(1..=20)?;
                let _ = writeln!(text, "(local.set $a (i32.const {times})) loop $around");
                lone(u, &mut text, function)?;
                text.push_str("(br_if $around (i32.gt_s (local.tee $a (i32.sub (local.get $a) (i32.const 1))) (i32.const 0))) end\n");
            } else {
                lone(u, &mut text, function)?;
            }
        }
        text.push_str("local.get $wa)\n");
    }
    text.push(')');
    Ok(text)
}

/// A number near where things go wrong.
fn edge(u: &mut Unstructured<'_>, wide: bool) -> Result<i64> {
    let near = u.int_in_range(-40..=40)?;
    let edges = if wide {
        [0, i64::MAX, i64::MIN, 1 << 32, -1 << 32]
    } else {
        [0, 0x7fff_ffff, -0x8000_0000, 0, 0]
    };
    let edge = *u.choose(&edges)?;
    let number = edge.wrapping_add(near);
    Ok(if wide { number } else { i64::from(number as i32) })
}

fn count(u: &mut Unstructured<'_>) -> Result<Count> {
    let wide = u.arbitrary()?;
    let steps = [
        1,
        -1,
        1,
        -1,
        2,
        -2,
        4,
        -4,
        8,
        -16,
        32,
        3,
        -3,
        5,
        7,
        -12,
        24,
        1 << 20,
        -(1 << 20),
        1 << 21,
        0,
        1 << 30,
        i64::from(i32::MIN),
    ];
    let by = *u.choose(&steps)?;
    let start = edge(u, wide)?;
    let end = match u.int_in_range(0..=5)? {
        0 => edge(u, wide)?,
        1 => start
            .wrapping_add(by.wrapping_mul(u.int_in_range(0..=60)?))
            .wrapping_add(u.int_in_range(-2..=2)?),
        _ => start.wrapping_add(by.wrapping_mul(u.int_in_range(0..=60)?)),
    };
    let end = if wide { end } else { i64::from(end as i32) };
    let [ty, counter, bound, step] =
        if wide { ["i64", "$wi", "$wn", "$ws"] } else { ["i32", "$i", "$n", "$s"] };
    Ok(Count { ty, counter, bound, step, start, end, by })
}

fn lone(u: &mut Unstructured<'_>, text: &mut String, function: usize) -> Result<()> {
    let count = count(u)?;
    let Count { ty, counter, bound, step, start, end, by } = count;
    let _ = writeln!(
        text,
        "(local.set {counter} ({ty}.const {start})) (local.set {bound} ({ty}.const {end})) (local.set {step} ({ty}.const {by}))"
    );
    if u.ratio(1, 4)? {
        let _ = writeln!(
            text,
            "{} local.get {counter} {ty}.add local.set {counter}",
            parameter(&count)
        );
    }
    let results = u.ratio(1, 12)?;
    let _ = writeln!(text, "block $out loop $l {}", if results { "(result i64)" } else { "" });
    if u.ratio(1, 3)? {
        // Such a loop is not copied, and may check at its own pace.
        text.push_str("local.get $fuse i32.const 99 i32.eq if (memory.fill (i32.const 8) (i32.const 1) (i32.const 9)) end\n");
    }
    for _ in 0..u.int_in_range(0..=4)? {
        statement(u, text, &count, function)?;
    }
    // Some loops would never end, and few others be as tight as can be.
    if u.ratio(2, 3)? {
        let _ = writeln!(text, "{FUSE}");
    }
    test(u, text, &count, by)?;
    let _ = writeln!(text, "br_if $l");
    if results {
        text.push_str("i64.const 5 end local.set $wa end\n");
    } else {
        if u.ratio(1, 8)? {
            statement(u, text, &count, function)?;
        }
        text.push_str("end end\n");
    }
    let back = if ty == "i32" { "i64.extend_i32_u" } else { "" };
    let _ = writeln!(
        text,
        "local.get $wa i64.const 31 i64.mul local.get {counter} {back} i64.add local.set $wa"
    );
    Ok(())
}

fn parameter(count: &Count) -> &'static str {
    if count.ty == "i32" { "local.get $p" } else { "local.get $p i64.extend_i32_s" }
}

/// Steps the counter and compares it.
fn test(u: &mut Unstructured<'_>, text: &mut String, count: &Count, by: i64) -> Result<()> {
    let Count { ty, counter, bound, step, end, .. } = *count;
    let amount = match u.int_in_range(0..=4)? {
        0 => format!("local.get {step} {ty}.add"),
        1 if by > i64::from(i32::MIN) => format!("{ty}.const {} {ty}.sub", -by),
        _ => format!("{ty}.const {by} {ty}.add"),
    };
    let limit =
        if u.arbitrary()? { format!("local.get {bound}") } else { format!("{ty}.const {end}") };
    let fitting = if by < 0 {
        ["ne", "ne", "gt_u", "gt_s", "ge_s"]
    } else {
        ["ne", "ne", "lt_u", "lt_s", "le_u"]
    };
    let any = ["ne", "lt_u", "lt_s", "gt_u", "gt_s", "le_u", "ge_u", "eq"];
    let operator = if u.ratio(9, 10)? { *u.choose(&fitting)? } else { *u.choose(&any)? };
    let turned = match operator {
        "lt_u" => "gt_u",
        "lt_s" => "gt_s",
        "gt_u" => "lt_u",
        "gt_s" => "lt_s",
        other => other,
    };
    let sum = format!("local.get {counter} {amount}");
    let _ = match u.int_in_range(0..=5)? {
        0 => writeln!(text, "{limit} {sum} local.tee {counter} {ty}.{turned}"),
        1 => {
            let _ = writeln!(text, "{sum} local.set {counter}");
            if u.arbitrary()? {
                store(text, count);
            }
            writeln!(text, "local.get {counter} {limit} {ty}.{operator}")
        }
        2 => writeln!(text, "{sum} local.set {counter} {limit} local.get {counter} {ty}.{turned}"),
        3 if ty == "i32" => writeln!(text, "{sum} local.tee {counter}"),
        4 if ty == "i64" => writeln!(text, "{sum} local.tee {counter} {ty}.eqz i32.eqz"),
        _ => writeln!(text, "{sum} local.tee {counter} {limit} {ty}.{operator}"),
    };
    Ok(())
}

fn narrow(count: &Count) -> &'static str {
    if count.ty == "i32" { "" } else { "i32.wrap_i64" }
}

fn store(text: &mut String, count: &Count) {
    let (counter, narrow) = (count.counter, narrow(count));
    let _ = writeln!(
        text,
        "local.get {counter} {narrow} i32.const 0xfff8 i32.and local.get $wa i64.store"
    );
}

fn statement(
    u: &mut Unstructured<'_>,
    text: &mut String,
    count: &Count,
    function: usize,
) -> Result<()> {
    let Count { ty, counter, bound, step, .. } = *count;
    let narrow = narrow(count);
    let odd = u.int_in_range(1..=63)?;
    let hash = format!(
        "local.get {counter} {narrow} local.get $wa i32.wrap_i64 i32.add i32.const {odd} i32.rem_u"
    );
    let _ = match u.int_in_range(0..=18)? {
        0 | 1 => writeln!(
            text,
            "local.get $wa i64.const 3 i64.rotl local.get {counter} {narrow} i64.extend_i32_u i64.xor local.set $wa"
        ),
        2 | 3 => {
            store(text, count);
            Ok(())
        }
        4 => writeln!(
            text,
            "local.get $wa local.get {counter} {narrow} i32.const 0xffff i32.and i64.load8_u i64.add local.set $wa"
        ),
        5 => {
            writeln!(text, "{hash} if local.get $wa i64.const 1 i64.add local.set $wa else nop end")
        }
        6 => writeln!(
            text,
            "block {hash} br_if 0 local.get $wa i64.const 9 i64.sub local.set $wa end"
        ),
        7 => writeln!(text, "{hash} i32.eqz br_if $out"),
        8 => writeln!(text, "{FUSE}"),
        9 => writeln!(text, "{hash} i32.eqz if i64.const 7 return end"),
        10 => writeln!(
            text,
            "{hash} i32.eqz if local.get {counter} {ty}.const 1 {ty}.add local.set {counter} end"
        ),
        11 => writeln!(
            text,
            "{hash} i32.eqz if local.get {bound} {ty}.const 1 {ty}.sub local.set {bound} end"
        ),
        12 => writeln!(
            text,
            "{hash} i32.eqz if local.get {step} {ty}.const 1 {ty}.add local.set {step} end"
        ),
        // What makes a loop one that is not copied: loops within, big operations and tables.
        15 => writeln!(
            text,
            "{hash} if (local.set $k (i32.and (i32.wrap_i64 (local.get $wa)) (i32.const 15))) (loop (br_if 0 (i32.gt_s (local.tee $k (i32.sub (local.get $k) (i32.const 1))) (i32.const 0)))) end"
        ),
        16 => writeln!(
            text,
            "{hash} i32.eqz if (memory.fill (i32.const 8) (i32.const 1) (i32.const 9)) end"
        ),
        17 => writeln!(
            text,
            "block block {hash} br_table 0 1 0 end local.get $wa i64.const 5 i64.xor local.set $wa end"
        ),
        // A trap once in a while: the end of the memory, or a division.
        13 => writeln!(text, "{hash} i32.const 1400 i32.mul i32.load8_u drop"),
        14 if function > 0 => {
            writeln!(text, "{hash} i32.eqz if local.get $p call $f{} drop end", function - 1)
        }
        _ => writeln!(text, "local.get {counter} {ty}.const {odd} {ty}.add local.set {counter}"),
    };
    Ok(())
}
