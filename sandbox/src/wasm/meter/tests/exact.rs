//! Charges of small functions, added up by hand. Every case must cost the same however its loops are unrolled and whatever
//! the slices are.

use crate::wasm::meter::{FUEL_EXPORT, Options, instrument};
use wasmtime::{Caller, Extern, Instance, Module, Store, Val};

use super::host::{self, Outcome, PLENTY, State};

const UNROLLED: [Options; 4] = [
    Options { unroll: 1, growth_percent: 0 },
    Options { unroll: 2, growth_percent: u8::MAX },
    Options { unroll: 4, growth_percent: u8::MAX },
    Options { unroll: 8, growth_percent: u8::MAX },
];

/// What a call of the export `f` costs, and what comes of it.
struct Case {
    what: &'static str,
    /// What stands in the module.
    wat: &'static str,
    arguments: &'static [i32],
    /// Each term is a region: entry, then as they run.
    units: u64,
    comes_to: &'static str,
}

const fn case(
    what: &'static str,
    wat: &'static str,
    arguments: &'static [i32],
    units: u64,
    comes_to: &'static str,
) -> Case {
    Case { what, wat, arguments, units, comes_to }
}

fn parse(wat: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {wat})")).unwrap_or_else(|error| panic!("{error}\n{wat}"))
}

fn values(arguments: &[i32]) -> Vec<Val> {
    arguments.iter().map(|value| Val::I32(*value)).collect()
}

/// Calls `f` and tells what came of it and what was spent.
fn spend(store: &mut Store<State>, instance: &Instance, arguments: &[i32]) -> (Outcome, u64) {
    let outcome = host::call(store, instance, "f", &values(arguments));
    let left = host::left(store, instance);
    let spent = store.data().tank.spent(left).unwrap_or_else(|exhausted| exhausted.spent);
    (outcome, spent)
}

/// With every number of copies and several slices: what came of it and what was spent.
fn every_way(wat: &str, arguments: &[i32], budget: u64) -> Vec<(Outcome, u64)> {
    let (engine, wasm) = (host::engine(), parse(wat));
    let mut found = vec![];
    for options in UNROLLED {
        for slice in [1, 5, 1000] {
            let (mut store, instance) = host::start(&engine, &wasm, &options, (budget, slice));
            found.push(spend(&mut store, &instance.expect("it starts"), arguments));
        }
    }
    found
}

fn check(cases: &[Case]) {
    for Case { what, wat, arguments, units, comes_to } in cases {
        for (outcome, spent) in every_way(wat, arguments, PLENTY) {
            let shown = match outcome {
                Outcome::Values(values) => values.join(" "),
                Outcome::Trapped(text) => text,
                Outcome::Exhausted => "exhausted".to_owned(),
            };
            assert_eq!((shown.as_str(), spent), (*comes_to, *units), "{what}");
        }
    }
}

#[test]
fn straight_code_costs_its_entry_and_its_instructions() {
    check(&[
        case("nothing", "(func (export \"f\"))", &[], 1, ""),
        case(
            "parameters, locals and results are paid on entry",
            "(func (export \"f\") (param i32 i32) (result i32) (local i64 i64 f32) local.get 0)",
            &[7, 8],
            (1 + 2 + 3 + 1) + 1,
            "I32(7)",
        ),
        case(
            "instructions that only shape code are free",
            "(func (export \"f\") nop block nop block end end nop)",
            &[],
            1,
            "",
        ),
        case(
            "divisions and roots cost eight",
            "(func (export \"f\") (result i32) (i32.div_u (i32.const 6) (i32.const 3))
                  (drop (f64.sqrt (f64.const 4))) (drop (i64.rem_s (i64.const 4) (i64.const 3))))",
            &[],
            2 + (2 + 8) + (1 + 8 + 1) + (2 + 8 + 1),
            "I32(2)",
        ),
        case(
            "what follows a return, a branch or a trap costs nothing",
            "(func (export \"f\") (result i32) i32.const 1 return i32.const 2 i32.const 3 i32.add)",
            &[],
            2 + 2,
            "I32(1)",
        ),
        case(
            "many locals do not move the fuel's own",
            "(func (export \"f\") (result i64) (local i64 i64 i64) local.get 2)",
            &[],
            (1 + 3 + 1) + 1,
            "I64(0)",
        ),
    ]);
}

#[test]
fn only_the_arm_and_the_branch_taken_cost() {
    const CHOICE: &str = "(func (export \"f\") (param i32) (result i32)
        (if (result i32) (local.get 0) (then (i32.const 1))
          (else (i32.add (i32.const 1) (i32.add (i32.const 2) (i32.const 3))))))";
    const WITHOUT_ELSE: &str = "(func (export \"f\") (param i32)
        (if (local.get 0) (then nop (drop (i32.const 1)))) (drop (i32.const 2)))";
    const TABLE: &str = "(func (export \"f\") (param i32) (result i32)
        (block $c (block $b (block $a (br_table $a $b $c (local.get 0)))
            (return (i32.const 10)))
          (drop (i32.const 0)) (return (i32.const 20)))
        (i32.const 30))";
    const CARRIED: &str = "(func (export \"f\") (param i32) (result i32 i32)
        (block $b (result i32 i32)
          (br_if $b (i32.const 1) (i32.const 2) (local.get 0))
          (drop) (drop) (i32.const 3) (i32.const 4)))";
    check(&[
        case("then", CHOICE, &[1], 3 + 2 + 1, "I32(1)"),
        case("else", CHOICE, &[0], 3 + 2 + 5, "I32(6)"),
        case("an arm", WITHOUT_ELSE, &[1], 2 + 2 + 2 + 2, ""),
        case("no arm", WITHOUT_ELSE, &[0], 2 + 2 + 2, ""),
        case("table, 0", TABLE, &[0], 3 + 2 + 2, "I32(10)"),
        case("table, 1", TABLE, &[1], 3 + 2 + 4, "I32(20)"),
        case("table, 2", TABLE, &[2], 3 + 2 + 1, "I32(30)"),
        case("table, else", TABLE, &[9], 3 + 2 + 1, "I32(30)"),
        case(
            "a branch that is always taken pays for each value it carries",
            "(func (export \"f\") (result i32 i32) (block $b (result i32 i32)
                (br $b (i32.const 1) (i32.const 2))))",
            &[],
            (1 + 2) + (2 + 1 + 2),
            "I32(1) I32(2)",
        ),
        case(
            "a branch that is taken at times pays likewise",
            CARRIED,
            &[1],
            (1 + 1 + 2) + (3 + 1 + 2),
            "I32(1) I32(2)",
        ),
        case(
            "and so does one that is not taken",
            CARRIED,
            &[0],
            (1 + 1 + 2) + (3 + 1 + 2) + 4,
            "I32(3) I32(4)",
        ),
    ]);
}

/// Tested at the bottom: 5 units per iteration.
const COUNT_DOWN: &str = "(func (export \"f\") (param i32) (result i32)
    (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (local.get 0))";
/// Tested on top: 2 units, and 6 more if it goes on.
const WHILE: &str = "(func (export \"f\") (param i32) (result i32)
    (block $out (loop $l
      (br_if $out (i32.eqz (local.get 0)))
      (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
      (br $l)))
    (local.get 0))";
/// Continued from within every third time, left early at 100: see the units of the cases.
const WINDING: &str = "(func (export \"f\") (param i32) (result i32) (local i32)
    (block $out (loop $l
      (local.set 1 (i32.add (local.get 1) (i32.const 1)))
      (br_if $out (i32.eq (local.get 1) (i32.const 100)))
      (if (i32.eqz (i32.rem_u (local.get 1) (i32.const 3))) (then (br $l)))
      (br_if $l (i32.lt_u (local.get 1) (local.get 0)))))
    (local.get 1))";

#[test]
fn loops_cost_per_iteration_however_many_copies() {
    let entry = 3;
    check(&[
        case("once", COUNT_DOWN, &[1], entry + 5 + 1, "I32(0)"),
        case("7", COUNT_DOWN, &[7], entry + 7 * 5 + 1, "I32(0)"),
        case("8", COUNT_DOWN, &[8], entry + 8 * 5 + 1, "I32(0)"),
        case("9", COUNT_DOWN, &[9], entry + 9 * 5 + 1, "I32(0)"),
        case("999", COUNT_DOWN, &[999], entry + 999 * 5 + 1, "I32(0)"),
        case("never", WHILE, &[0], entry + 3 + 1, "I32(0)"),
        case("3 times", WHILE, &[3], entry + 3 * 8 + 3 + 1, "I32(0)"),
        case("8 times", WHILE, &[8], entry + 8 * 8 + 3 + 1, "I32(0)"),
        case(
            "one iteration: on, test, choice, test",
            WINDING,
            &[1],
            4 + (8 + (2 + 8 + 2) + 4) + 1,
            "I32(1)",
        ),
        case(
            "of 1 to 4, the third goes on by its own branch",
            WINDING,
            &[4],
            4 + 3 * (8 + 12 + 4) + (8 + 12 + 1) + 1,
            "I32(4)",
        ),
        case(
            "of 99, 33 go on by their own branch; the hundredth leaves",
            WINDING,
            &[500],
            4 + 66 * (8 + 12 + 4) + 33 * (8 + 12 + 1) + 8 + 1,
            "I32(100)",
        ),
    ]);
}

#[test]
fn loops_with_results_parameters_returns_and_loops_inside() {
    check(&[
        case(
            "a result: 5 per iteration, then the value",
            "(func (export \"f\") (param i32) (result i32) (loop $l (result i32)
                (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))) (i32.const 9)))",
            &[11],
            3 + 11 * 5 + 1,
            "I32(9)",
        ),
        case(
            "a parameter: the branch back carries one value",
            "(func (export \"f\") (param i32) (result i32) local.get 0
                loop $l (param i32) (result i32)
                  i32.const 1 i32.sub local.tee 0 local.get 0 br_if $l end)",
            &[4],
            3 + 1 + 4 * (5 + 1),
            "I32(0)",
        ),
        case(
            "a return from the second iteration",
            "(func (export \"f\") (param i32) (result i32) (loop $l
                (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                (if (i32.eq (local.get 0) (i32.const 2)) (then (return (i32.const 7))))
                (br $l)) (unreachable))",
            &[0],
            3 + (4 + 4 + 1) + (4 + 4 + 2),
            "I32(7)",
        ),
        case(
            "nested: 3 × (set, 4 × 5, 5)",
            "(func (export \"f\") (param i32) (local i32)
                (loop $o (local.set 1 (i32.const 4))
                  (loop $i (br_if $i (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))
                  (br_if $o (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))",
            &[3],
            3 + 3 * (2 + 4 * 5 + 5),
            "",
        ),
        case(
            "a loop that does not go round is a block",
            "(func (export \"f\") (loop (drop (i32.const 1))) (drop (i32.const 1)))",
            &[],
            1 + 2 + 2,
            "",
        ),
        case(
            "a table that leads out of the loop or on: 0 goes on",
            "(func (export \"f\") (param i32) (loop $l (block $out
                (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                (br_table $l $l $l $out (local.get 0)))))",
            &[0],
            2 + 3 * (4 + 2),
            "",
        ),
    ]);
}

#[test]
fn calls_cost_themselves_and_what_is_called() {
    const CALLED: &str =
        "(func $leaf (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
        (table funcref (elem $leaf)) (type $t (func (param i32) (result i32)))";
    let wats: Vec<(&'static str, &str, u64)> = vec![
        ("call", "(call $leaf (i32.const 1))", 2 + (1 + 4) + (3 + 3)),
        ("two calls", "(call $leaf (call $leaf (i32.const 0)))", 2 + (1 + 4 + 4) + 2 * (3 + 3)),
        (
            "indirect",
            "(call_indirect (type $t) (i32.const 1) (i32.const 0))",
            2 + (2 + 8) + (3 + 3),
        ),
        ("tail", "(return_call $leaf (i32.const 1))", 2 + (1 + 4) + (3 + 3)),
        (
            "indirect tail",
            "(return_call_indirect (type $t) (i32.const 1) (i32.const 0))",
            2 + (2 + 8) + (3 + 3),
        ),
    ];
    for (what, body, units) in wats {
        let wat = format!("{CALLED} (func (export \"f\") (result i32) {body})");
        for found in every_way(&wat, &[], PLENTY) {
            assert_eq!(found, (Outcome::Values(vec!["I32(2)".to_owned()]), units), "{what}");
        }
    }
}

#[test]
fn a_thousand_calls_of_itself() {
    check(&[Case {
        what: "entry 3, test 2, and 1 at the end or 3 + 4 + 1 on the way",
        wat: "(func $f (export \"f\") (param i32) (result i32)
            (if (result i32) (local.get 0)
              (then (i32.add (call $f (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
              (else (i32.const 5))))",
        arguments: &[1000],
        units: 1001 * (3 + 2) + 1000 * (3 + 4 + 2) + 1,
        comes_to: "I32(1005)",
    }]);
}

/// What a bulk operation stands in.
const BULK: &str = "(memory (export \"memory\") 1 16) (table $t (export \"table\") 10 5000 funcref)
    (data $d \"0123456789abcdef\") (elem $e func $n $n $n) (func $n)";

/// Bulk operations with a size as parameter, and what they cost for 0, 1, 3 and 10 besides 3 for entry and operands.
const SIZED: [(&str, &str, u64, [u64; 4]); 8] = [
    ("memory.fill", "(memory.fill (i32.const 0) (i32.const 7) (local.get 0))", 3, [0, 0, 0, 1]),
    ("memory.copy", "(memory.copy (i32.const 9) (i32.const 0) (local.get 0))", 3, [0, 0, 0, 1]),
    ("memory.init", "(memory.init $d (i32.const 0) (i32.const 0) (local.get 0))", 3, [0, 0, 0, 1]),
    ("table.fill", "(table.fill (i32.const 0) (ref.null func) (local.get 0))", 3, [0, 1, 3, 10]),
    ("table.copy", "(table.copy (i32.const 0) (i32.const 0) (local.get 0))", 3, [0, 1, 3, 10]),
    ("table.init", "(table.init $e (i32.const 0) (i32.const 0) (local.get 0))", 3, [0, 1, 3, 10]),
    ("table.grow", "(drop (table.grow (ref.null func) (local.get 0)))", 3, [0, 1, 3, 10]),
    ("memory.grow", "(drop (memory.grow (local.get 0)))", 2, [0, 1024, 3072, 10240]),
];

#[test]
fn bulk_operations_cost_by_their_size() {
    for (what, body, others, by_size) in SIZED {
        let wat = format!("{BULK} (func (export \"f\") (param i32) {body})");
        for (size, units) in [0, 1, 3, 10].into_iter().zip(by_size) {
            if what == "table.init" && size == 10 {
                continue;
            }
            for (outcome, spent) in every_way(&wat, &[size], PLENTY) {
                let expected = 2 + others + 64 + units;
                assert_eq!(
                    (outcome, spent),
                    (Outcome::Values(vec![]), expected),
                    "{what} of {size}"
                );
            }
        }
    }
    check(&[Case {
        what: "dropping segments costs what a bulk operation does",
        wat: "(memory 1) (data $d \"\") (elem $e func) (func (export \"f\") data.drop $d elem.drop $e)",
        arguments: &[],
        units: 1 + 64 + 64,
        comes_to: "",
    }]);
}

#[test]
fn growing_by_more_than_there_is_costs_no_more_than_all_there_is() {
    let wat =
        "(memory 1) (func (export \"f\") (param i32) (result i32) (memory.grow (local.get 0)))";
    for size in [65_536, 65_537, -1] {
        for found in every_way(wat, &[size], PLENTY) {
            let units = 3 + 1 + 64 + (65_536 << 10);
            assert_eq!(found, (Outcome::Values(vec!["I32(-1)".to_owned()]), units));
        }
    }
}

/// Contents of the memory and the tables, to see whether something ran.
fn contents(store: &mut Store<State>, instance: &Instance) -> (Vec<u8>, u64) {
    let memory = instance.get_memory(&mut *store, "memory").expect("a memory");
    let table = instance.get_table(&mut *store, "table").expect("a table");
    let size = table.size(&*store);
    let null = |at| table.get(&mut *store, at).is_none_or(|value| value.is_null());
    let nulls = (0..size).map(null).filter(|null| *null).count() as u64;
    (memory.data(&*store).to_vec(), size << 32 | nulls)
}

#[test]
fn a_bulk_operation_that_cannot_be_paid_does_not_run() {
    let engine = host::engine();
    for (what, body, others, _) in SIZED {
        let prepare = "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 16))
            (table.init $e (i32.const 3) (i32.const 0) (i32.const 3))";
        let wat = format!(
            "{BULK} (func (export \"prepare\") {prepare}) (func (export \"f\") (param i32) {body})"
        );
        let size = match what {
            "memory.fill" => 65_536,
            "memory.copy" => 60_000,
            "memory.init" => 16,
            "table.grow" => 4000,
            "table.init" => 3,
            _ => 10,
        };
        let wasm = parse(&wat);
        let full = every_way(&wat, &[size], PLENTY)[0].clone();
        assert_eq!(full.0, Outcome::Values(vec![]), "{what}");
        for options in UNROLLED {
            // All but its last unit.
            let prepared = 1 + (3 + 64 + 2) + (3 + 64 + 3);
            let budget = prepared + full.1 - 1;
            let (mut store, instance) = host::start(&engine, &wasm, &options, (budget, 50));
            let instance = instance.expect("it starts");
            host::call(&mut store, &instance, "prepare", &[]);
            let before = contents(&mut store, &instance);
            let (outcome, spent) = spend(&mut store, &instance, &[size]);
            assert_eq!(outcome, Outcome::Exhausted, "{what}");
            assert!(contents(&mut store, &instance) == before, "{what} ran");
            assert!(spent <= budget, "{what}: {spent} of {budget}");
        }
        assert!(others > 0, "{what}");
    }
}

#[test]
fn a_budget_of_what_a_call_costs_suffices_and_one_unit_less_does_not() {
    for (wat, argument) in [(COUNT_DOWN, 100), (WHILE, 100), (WINDING, 50)] {
        let (outcome, units) = every_way(wat, &[argument], PLENTY)[0].clone();
        for found in every_way(wat, &[argument], units) {
            assert_eq!(found, (outcome.clone(), units));
        }
        for (outcome, spent) in every_way(wat, &[argument], units - 1) {
            // Whoever returns before the next check is told by the tank.
            assert!(outcome == Outcome::Exhausted || spent == units, "{outcome:?}, {spent}");
        }
    }
}

#[test]
fn whatever_goes_on_for_ever_is_stopped() {
    let endless = [
        "(func (export \"f\") (loop $l (br $l)))",
        "(func (export \"f\") (loop $l (br_if $l (i32.const 1))))",
        "(func (export \"f\") (loop $l (block (br_if 1 (i32.const 1)))))",
        "(func (export \"f\") (loop $l (br_table $l $l (i32.const 7))))",
        "(func (export \"f\") (loop $l (if (i32.const 1) (then (br $l)) (else (br $l)))))",
        "(func (export \"f\") (loop $a (loop $b (br $a))))",
        "(func (export \"f\") (loop $a (loop $b (br_if $b (i32.const 0))) (br $a)))",
        "(func (export \"f\") (i32.const 1) (loop $l (param i32) (br $l)))",
        "(func $f (export \"f\") (call $f))",
        "(func $f (export \"f\") (call $g)) (func $g (call $f))",
        "(func $f (export \"f\") (return_call $f))",
        "(func $f (export \"f\") (return_call $g)) (func $g (return_call $f))",
        "(func $f (export \"f\") (call_indirect (i32.const 0))) (table funcref (elem $f))",
        "(func $f (export \"f\") (return_call_indirect (i32.const 0))) (table funcref (elem $f))",
    ];
    for wat in endless {
        for (outcome, spent) in every_way(wat, &[], 5000) {
            assert_eq!(outcome, Outcome::Exhausted, "{wat}");
            assert!(spent < 5100, "{wat}: {spent}");
        }
    }
}

#[test]
fn a_test_that_iterations_pass_by_sets_no_pace() {
    const NEVER: &str = "(if (i32.eq (local.get 0) (i32.const 7)) (then (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))";
    const TEST: &str = "(i32.ne (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 9))";
    for body in [
        format!("{NEVER} (block $b (br_if $b (i32.const 1)) (br_if $b {TEST})) (br $l)"),
        format!("{NEVER} (br_if $l (i32.const 1)) (br_if $l {TEST})"),
        format!("{NEVER} (if (local.get 0) (then (br_if $l {TEST}))) (br $l)"),
        format!("{NEVER} (block $b (block (br_if $b (i32.const 1))) (br_if $b {TEST})) (br $l)"),
        format!("{NEVER} (block $c (block $b (br_if $c (i32.const 1)) (br_if $b {TEST}))) (br $l)"),
        format!("{NEVER} (local.set 0 (i32.const 0)) (br_if $l {TEST})"),
    ] {
        let wat = format!("(memory 1) (func (export \"f\") (local i32) (loop $l {body}))");
        for (outcome, spent) in every_way(&wat, &[], 5000) {
            assert_eq!(outcome, Outcome::Exhausted, "{wat}");
            assert!(spent < 5100, "{wat}: {spent}");
        }
    }
}

#[test]
fn a_loop_at_its_own_pace_that_never_meets_its_bound_is_stopped_in_time() {
    // What is never done keeps the loop from being copied.
    const NEVER: &str = "(if (i32.eq (local.get 0) (i32.const 7)) (then (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))";
    for (step, bound) in [(2, 1), (-4, 2), (6, 4), (12, 2), (1 << 20, 5)] {
        let wat = format!(
            "(memory 1) (func (export \"f\") (local i32) (loop $l {NEVER} (br_if $l
               (i32.ne (local.tee 0 (i32.add (local.get 0) (i32.const {step}))) (i32.const {bound})))))"
        );
        // 6 by 6 meets 4 at last, after more than the budget.
        for (outcome, spent) in every_way(&wat, &[], 5000) {
            assert_eq!(outcome, Outcome::Exhausted, "{wat}");
            assert!(spent < 5000 + (1 << 14), "{wat}: {spent}");
        }
    }
}

#[test]
fn a_start_function_is_metered() {
    let engine = host::engine();
    let wasm = parse("(func $s (drop (i32.const 1))) (start $s) (func (export \"f\"))");
    let endless = parse("(func $s (loop (br 0))) (start $s)");
    for options in UNROLLED {
        let (mut store, instance) = host::start(&engine, &wasm, &options, (PLENTY, 1));
        let left = host::left(&mut store, &instance.expect("it starts"));
        assert_eq!(store.data().tank.spent(left), Ok(1 + 2));
        let (_, instance) = host::start(&engine, &endless, &options, (1000, 10));
        assert_eq!(instance.err(), Some(Outcome::Exhausted));
    }
}

#[test]
fn a_host_that_calls_back_costs_what_it_calls() {
    let engine = host::engine();
    let wasm = parse(
        "(import \"host\" \"again\" (func $again (param i32)))
         (func $f (export \"f\") (param i32)
           (if (local.get 0) (then (call $again (i32.sub (local.get 0) (i32.const 1))))))",
    );
    for options in UNROLLED {
        for slice in [1, 10, 1000] {
            let metered = instrument(&wasm, &options).expect("an accepted module");
            let module = Module::new(&engine, metered.module).expect("a valid module");
            let mut linker = host::linker(&engine);
            let again = |mut caller: Caller<'_, State>, deep: i32| {
                let Some(Extern::Func(f)) = caller.get_export("f") else { panic!("no f") };
                f.call(&mut caller, &[Val::I32(deep)], &mut [])
            };
            linker.func_wrap("host", "again", again).expect("a free name");
            let mut store = host::store(&engine, PLENTY, slice);
            let instance = linker.instantiate(&mut store, &module).expect("it starts");
            let found = spend(&mut store, &instance, &[9]);
            assert_eq!(
                found,
                (Outcome::Values(vec![]), 10 * (2 + 2) + 9 * (3 + 4)),
                "slice {slice}"
            );
        }
    }
}

#[test]
fn a_host_that_calls_back_while_it_refills_disturbs_nothing() {
    let engine = host::engine();
    // Locals of every type, which checks keep, in loops of both functions.
    let wat = |name: &str| {
        format!(
            "(func (export \"{name}\") (param i32) (result f64) (local i64 f32 f64 i32)
               (loop $o (local.set 4 (i32.const 20))
                 (loop $l
                   (local.set 1 (i64.add (local.get 1) (i64.extend_i32_u (local.get 0))))
                   (local.set 2 (f32.add (local.get 2) (f32.const 0.5)))
                   (local.set 3 (f64.add (local.get 3) (f64.convert_i64_s (local.get 1))))
                   (br_if $l (local.tee 4 (i32.sub (local.get 4) (i32.const 1)))))
                 (br_if $o (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
               (f64.add (local.get 3) (f64.promote_f32 (local.get 2))))"
        )
    };
    let wasm = parse(&(wat("f") + &wat("g")));
    for options in UNROLLED {
        let metered = instrument(&wasm, &options).expect("an accepted module");
        let module = Module::new(&engine, metered.module).expect("a valid module");
        let run = |calls_back: bool| {
            let mut linker = wasmtime::Linker::new(&engine);
            let refill = move |mut caller: Caller<'_, State>, left: i64| {
                let grant = caller.data_mut().tank.refill(left)?;
                caller.data_mut().refills += 1;
                if calls_back && caller.data().refills % 3 == 1 {
                    let Some(Extern::Func(g)) = caller.get_export("g") else { panic!("no g") };
                    g.call(&mut caller, &[Val::I32(5)], &mut [Val::F64(0)])?;
                }
                Ok(grant)
            };
            linker
                .func_wrap(
                    crate::wasm::meter::REFILL_MODULE,
                    crate::wasm::meter::REFILL_FIELD,
                    refill,
                )
                .expect("free");
            let mut store = host::store(&engine, PLENTY, 4000);
            let instance = linker.instantiate(&mut store, &module).expect("it starts");
            let (outcome, _) = spend(&mut store, &instance, &[40]);
            (outcome, store.data().refills)
        };
        let ((expected, few), (found, many)) = (run(false), run(true));
        assert!(1 < few && few < many, "{few}, {many}");
        assert_eq!(found, expected, "{options:?}");
    }
}

#[test]
fn a_trap_leaves_the_same_fuel_whatever_the_slices() {
    let traps = [
        // Everything up to an `unreachable` is paid.
        ("(func (export \"f\") (drop (i32.const 1)) unreachable)", Some(1 + 2 + 1)),
        // What was paid before a call stays paid; what came since is lost.
        (
            "(func $n) (func (export \"f\") (call $n) (drop (i32.div_u (i32.const 1) (i32.const 0))))",
            None,
        ),
        ("(memory 1) (func (export \"f\") (drop (i32.load (i32.const -1))))", None),
        (
            "(func (export \"f\") (local i32) (local.set 0 (i32.const 9)) (loop $l
            (drop (i32.div_u (i32.const 1) (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
            (br $l)))",
            None,
        ),
    ];
    for (wat, exact) in traps {
        let found = every_way(wat, &[], PLENTY);
        for by_slice in found.chunks(3) {
            assert!(by_slice.iter().all(|one| one == &by_slice[0]), "{wat}: {by_slice:?}");
            assert!(matches!(by_slice[0].0, Outcome::Trapped(_)), "{wat}");
        }
        if let Some(units) = exact {
            assert!(found.iter().all(|(_, spent)| *spent == units), "{wat}: {found:?}");
        }
    }
}

#[test]
fn the_fuel_of_two_instances_is_their_own() {
    let engine = host::engine();
    let wasm = parse(COUNT_DOWN);
    let metered = instrument(&wasm, &UNROLLED[0]).expect("an accepted module");
    let module = Module::new(&engine, metered.module).expect("a valid module");
    let mut store = host::store(&engine, PLENTY, 1000);
    let linker = host::linker(&engine);
    let one = linker.instantiate(&mut store, &module).expect("it starts");
    let other = linker.instantiate(&mut store, &module).expect("it starts");
    host::call(&mut store, &one, "f", &[Val::I32(3)]);
    assert_eq!(host::left(&mut store, &one), 1000 - (3 + 3 * 5 + 1));
    let fuel = other.get_global(&mut store, FUEL_EXPORT).expect("a global");
    assert_eq!(fuel.get(&mut store).unwrap_i64(), 0);
}
