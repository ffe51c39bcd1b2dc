//! What holds for every module: what comes out is valid and bounded in size, what is refused is refused by name, and
//! everything around the code survives.

use std::fmt::Write as _;

use crate::wasm::meter::{
    ACCEPTED, Exhausted, FUEL_EXPORT, GROWTH_BYTES_MAX, GROWTH_FACTOR_MAX, Instrumented,
    MeterError, Options, REFILL_FIELD, REFILL_MODULE, Tank, instrument,
};
use arbtest::arbtest;
use wasm_encoder::{
    CodeSection, CustomSection, ExportKind, ExportSection, Function, FunctionSection,
    GlobalSection, Instruction, Module, TypeSection,
};
use wasmparser::{BranchHint, KnownCustom, Name, Operator, Parser, Payload, Validator};

use super::programs::program;

const WHOLE: Options = Options { unroll: 8, growth_percent: u8::MAX };

fn meter(wasm: &[u8], options: &Options) -> Instrumented {
    instrument(wasm, options).unwrap_or_else(|error| panic!("{error}"))
}

fn parse(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}\n{wat}"))
}

/// A module of functions with these bodies, all `(i32) -> ()` with `locals` locals.
fn module(bodies: &[&[Instruction<'_>]], locals: u32) -> Vec<u8> {
    let (mut types, mut functions) = (TypeSection::new(), FunctionSection::new());
    let mut code = CodeSection::new();
    types.ty().function([wasm_encoder::ValType::I32], []);
    let mut memories = wasm_encoder::MemorySection::new();
    memories.memory(wasm_encoder::MemoryType {
        minimum: 0,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    for body in bodies {
        functions.function(0);
        let mut function = Function::new([(locals, wasm_encoder::ValType::I32)]);
        for instruction in *body {
            function.instruction(instruction);
        }
        function.instruction(&Instruction::End);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&code);
    module.finish()
}

fn repeat(times: usize, unit: &[Instruction<'static>]) -> Vec<Instruction<'static>> {
    unit.iter().cycle().take(unit.len() * times).cloned().collect()
}

fn is_within_bound(what: &str, wasm: &[u8], options: &Options) -> usize {
    let metered = meter(wasm, options).module;
    let bound = wasm.len() * GROWTH_FACTOR_MAX + GROWTH_BYTES_MAX;
    println!("{what}, {options:?}: {} bytes become {}", wasm.len(), metered.len());
    assert!(metered.len() <= bound, "{what}: {} bytes become {}", wasm.len(), metered.len());
    Validator::new_with_features(ACCEPTED).validate_all(&metered).expect("a valid module");
    metered.len()
}

/// Bodies that make the meter write as much as it can, by name.
fn adversaries() -> Vec<(&'static str, Vec<u8>)> {
    use Instruction as I;
    let empty = wasm_encoder::BlockType::Empty;
    let one = |body: Vec<I<'static>>, locals| module(&[&body], locals);
    let grow = [I::MemoryGrow(0)];
    let mut grows = vec![I::LocalGet(0)];
    grows.extend(repeat(50_000, &grow));
    grows.push(I::Drop);
    let loops = repeat(20_000, &[I::Loop(empty), I::LocalGet(0), I::BrIf(0), I::End]);
    let exits = [
        I::Block(empty),
        I::Loop(empty),
        I::LocalGet(0),
        I::BrIf(1),
        I::LocalGet(0),
        I::BrIf(1),
        I::LocalGet(0),
        I::BrIf(0),
        I::End,
        I::End,
    ];
    // Three in one another, since checks keep what the innermost reads that far out.
    let far = 30_000..30_024;
    let reads = far.flat_map(|local| [I::LocalGet(local), I::Drop]);
    let back = [I::LocalGet(0), I::BrIf(0), I::End];
    let mut keeping = vec![I::Loop(empty), I::Loop(empty), I::Loop(empty)];
    keeping.extend(reads.chain(back.iter().cycle().take(9).cloned()));
    let deep = 20_000;
    let mut nested = repeat(deep, &[I::Loop(empty)]);
    nested.extend(repeat(deep, &[I::LocalGet(0), I::BrIf(0), I::End]));
    let mut blocks = repeat(deep, &[I::Block(empty)]);
    blocks.extend(repeat(deep, &[I::LocalGet(0), I::BrIf(0), I::End]));
    let targets: Vec<u32> = (0..100_000).map(|target| target % 3).collect();
    let table = vec![
        I::Loop(empty),
        I::Block(empty),
        I::LocalGet(0),
        I::BrTable(targets.into(), 0),
        I::End,
        I::End,
    ];
    let mut dead = vec![I::Unreachable];
    dead.extend(repeat(50_000, &grow));
    dead.push(I::Drop);
    let nothing: &[I<'_>] = &[];
    vec![
        ("a row of growths", one(grows.clone(), 0)),
        ("a row of growths behind many locals", one(grows, 40_000)),
        ("many tiny loops", one(loops.clone(), 0)),
        ("many tiny loops behind many locals", one(loops.clone(), 40_000)),
        ("many tiny loops, each its own function", module(&vec![&loops[..4]; 20_000], 0)),
        ("loops with many ways out", one(repeat(10_000, &exits), 40_000)),
        ("loops in loops", one(nested, 0)),
        ("loops that keep many locals", one(repeat(3_000, &keeping), 40_000)),
        ("blocks in blocks", one(blocks, 0)),
        ("a giant table", one(table, 0)),
        (
            "regions as short as can be",
            one(repeat(100_000, &[I::LocalGet(0), I::If(empty), I::End]), 40_000),
        ),
        ("branches only", one(repeat(100_000, &[I::LocalGet(0), I::BrIf(0)]), 40_000)),
        ("calls only", one(repeat(100_000, &[I::LocalGet(0), I::Call(0)]), 40_000)),
        ("one long line", one(repeat(1_000_000, &[I::LocalGet(0), I::Drop]), 0)),
        ("50,000 functions", module(&vec![nothing; 50_000], 0)),
        ("dead code", one(dead, 40_000)),
        ("nothing", Module::new().finish()),
    ]
}

#[test]
fn the_bound_on_growth_holds_for_what_is_made_to_break_it() {
    for (what, wasm) in adversaries() {
        let plain = is_within_bound(what, &wasm, &Options { unroll: 1, growth_percent: 0 });
        let least = is_within_bound(what, &wasm, &Options { unroll: 8, growth_percent: 0 });
        let usual = is_within_bound(what, &wasm, &Options::default());
        // What unrolling adds is bounded besides: copies are paid for in bytes of the bodies copied.
        assert!(least <= plain + GROWTH_BYTES_MAX, "{what}: {plain} bytes become {least}");
        let share = wasm.len() * 8 * usize::from(Options::default().growth_percent) / 100;
        assert!(usual <= plain + GROWTH_BYTES_MAX + share, "{what}: {plain} bytes become {usual}");
    }
}

#[test]
fn twice_the_code_is_twice_the_output() {
    let one = |count: usize| {
        let unit = repeat(count, &[Instruction::LocalGet(0), Instruction::BrIf(0)]);
        meter(&module(&[&unit], 0), &WHOLE).module.len()
    };
    let (once, twice, fourfold) = (one(10_000), one(20_000), one(40_000));
    assert!(twice < once * 21 / 10 && fourfold < twice * 21 / 10, "{once}, {twice}, {fourfold}");
}

#[test]
fn unrolling_no_more_than_the_options_allow() {
    let unit = "(loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))";
    let wasm = parse(&format!("(module (func (param i32) {}))", unit.repeat(5_000)));
    let unrolled =
        |unroll, growth_percent| meter(&wasm, &Options { unroll, growth_percent }).unrolled;
    assert_eq!(unrolled(1, u8::MAX), 0);
    assert_eq!(unrolled(0, u8::MAX), 0);
    let (least, half, most) = (unrolled(8, 0), unrolled(8, 50), unrolled(8, u8::MAX));
    assert!(0 < least && least < half && half < most, "{least}, {half}, {most}");
    // Fewer copies each, so more loops.
    assert!(unrolled(2, 50) > half);
}

#[test]
fn a_function_too_large_once_metered_is_refused() {
    let unit = [Instruction::LocalGet(0), Instruction::BrIf(0)];
    let wasm = module(&[&[], &repeat(1_000_000, &unit)], 0);
    match instrument(&wasm, &WHOLE) {
        Err(MeterError::FunctionTooLarge { function: 1, bytes }) => assert!(bytes > 7_654_321),
        other => panic!("{:?}", other.map(|metered| metered.module.len())),
    }
}

#[test]
fn locals_that_leave_no_room_are_refused() {
    assert!(instrument(&module(&[&[]], 49_930), &WHOLE).is_ok());
    let error = instrument(&module(&[&[]], 49_931), &WHOLE).expect_err("no room");
    assert!(matches!(error, MeterError::TooManyLocals { function: 0, count: 49_932 }), "{error}");
}

/// A module with so many globals, exports of its first function, and functions.
fn crowd(globals: u32, exports: u32, functions: u32) -> Vec<u8> {
    let (mut types, mut list) = (TypeSection::new(), FunctionSection::new());
    let (mut all, mut names) = (GlobalSection::new(), ExportSection::new());
    let mut code = CodeSection::new();
    types.ty().function([], []);
    let ty = wasm_encoder::GlobalType {
        val_type: wasm_encoder::ValType::I32,
        mutable: false,
        shared: false,
    };
    let zero = wasm_encoder::ConstExpr::i32_const(0);
    for _ in 0..globals {
        all.global(ty, &zero);
    }
    for name in 0..exports {
        names.export(&name.to_string(), ExportKind::Func, 0);
    }
    let mut function = Function::new([]);
    function.instruction(&Instruction::End);
    for _ in 0..functions {
        list.function(0);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&list).section(&all).section(&names).section(&code);
    module.finish()
}

#[test]
fn index_spaces_that_leave_no_room_are_refused_and_full_ones_are_not() {
    // Of exports the validator takes only as many as their types, added up, are below a limit of its own.
    let full = [(999_999, 1, 1), (1, 490_000, 1), (1, 1, 999_998)];
    for (globals, exports, functions) in full {
        let metered = meter(&crowd(globals, exports, functions), &WHOLE);
        Validator::new_with_features(ACCEPTED)
            .validate_all(&metered.module)
            .expect("a valid module");
    }
    let over = [("globals", 1_000_000, 1, 1), ("functions", 1, 1, 999_999)];
    for (kind, globals, exports, functions) in over {
        match instrument(&crowd(globals, exports, functions), &WHOLE) {
            Err(MeterError::TooMany { what, max: 1_000_000, .. }) => assert_eq!(what, kind),
            other => panic!("{kind}: {:?}", other.map(|metered| metered.module.len())),
        }
    }
}

#[test]
fn names_of_the_meter_are_refused_in_a_module() {
    let export = "(module (global i32 (i32.const 0)) (export \"themis\\00fuel\" (global 0)))";
    let import = "(module (import \"themis\" \"refill\" (func (param i64) (result i64))))";
    let cases = [(export, "export", "themis\\0fuel"), (import, "import", "themis.refill")];
    for (wat, expected, named) in cases {
        match instrument(&parse(wat), &WHOLE) {
            Err(error @ MeterError::Reserved { .. }) => {
                let MeterError::Reserved { kind, name } = &error else { unreachable!() };
                assert_eq!((*kind, name.as_str()), (expected, named), "{error}");
            }
            other => panic!("{:?}", other.map(|metered| metered.module.len())),
        }
    }
    // Whatever has been metered is so refused, too.
    let once = meter(&parse("(module (func))"), &WHOLE).module;
    assert!(matches!(instrument(&once, &WHOLE), Err(MeterError::Reserved { .. })));
    for allowed in [
        "(module (import \"themis\" \"other\" (func)) (func (export \"themis.refill\")))",
        "(module (import \"other\" \"refill\" (func)) (func (export \"fuel\")))",
    ] {
        assert!(instrument(&parse(allowed), &WHOLE).is_ok(), "{allowed}");
    }
}

#[test]
fn proposals_that_are_not_accepted_are_refused() {
    for wat in [
        "(module (memory i64 1))",
        "(module (memory 1) (memory 1))",
        "(module (memory 1 1 shared))",
        "(module (tag))",
        "(module (type (struct)))",
        "(module (global i32 (i32.add (i32.const 1) (i32.const 1))))",
        "(module (func (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))))",
        "(module (func (param (ref func))))",
        "(module (type $t (func)) (import \"a\" \"b\" (func (exact (type $t)))))",
    ] {
        let refused = instrument(&parse(wat), &WHOLE);
        assert!(matches!(refused, Err(MeterError::Invalid { .. })), "{wat}");
    }
}

#[test]
fn random_bytes_and_damaged_modules_never_panic() {
    arbtest(|u| {
        let bytes: Vec<u8> = u.arbitrary()?;
        let _ = instrument(&bytes, &WHOLE);
        let _ = instrument(&[b"\0asm\x01\0\0\0", &bytes[..]].concat(), &WHOLE);
        Ok(())
    })
    .budget_ms(500);
    let mut taken = 0;
    arbtest(|u| {
        let mut wasm = parse(&program(u)?);
        for _ in 0..u.int_in_range(1..=3)? {
            let at = u.choose_index(wasm.len())?;
            wasm[at] = u.arbitrary()?;
        }
        if let Ok(metered) = instrument(&wasm, &WHOLE) {
            Validator::new_with_features(ACCEPTED).validate_all(&metered.module).expect("valid");
            taken += 1;
        }
        Ok(())
    })
    .budget_ms(1500);
    assert!(taken > 0, "all were refused");
}

/// Names of the custom sections, in order, with their size.
fn customs(wasm: &[u8]) -> Vec<(String, usize)> {
    let payloads = Parser::new(0).parse_all(wasm).map(|payload| payload.expect("a module"));
    payloads
        .filter_map(|payload| match payload {
            Payload::CustomSection(section) => {
                Some((section.name().to_owned(), section.data().len()))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn custom_sections_stay_but_for_those_that_tell_of_places_in_the_code() {
    let custom = |name: &'static str| CustomSection { name: name.into(), data: b"data"[..].into() };
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut code = CodeSection::new();
    let mut function = Function::new([]);
    function.instruction(&Instruction::End);
    code.function(&function);
    let mut module = Module::new();
    module.section(&custom("themis.first")).section(&types);
    module.section(&custom("between")).section(&functions).section(&custom(".debug_line"));
    module.section(&custom("metadata.code.branch_hint")).section(&custom("before code"));
    module.section(&code).section(&custom("producers")).section(&custom("linking"));
    module.section(&custom("reloc.CODE")).section(&custom("sourceMappingURL"));
    module.section(&custom("name")).section(&custom("last"));
    let metered = meter(&module.finish(), &WHOLE);
    Validator::new_with_features(ACCEPTED).validate_all(&metered.module).expect("a valid module");
    let kept = ["themis.first", "between", "before code", "producers", "last"];
    let found = customs(&metered.module);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    // The section `name` is damaged: four bytes that are no names.
    assert_eq!(names, kept);
    assert!(found.iter().all(|(_, bytes)| *bytes == 4));
}

/// Names of functions by index.
fn function_names(wasm: &[u8]) -> Vec<(u32, String)> {
    let mut found = vec![];
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::CustomSection(section) = payload.expect("a module") else { continue };
        let KnownCustom::Name(names) = section.as_known() else { continue };
        for name in names {
            if let Name::Function(map) = name.expect("names") {
                let names = map.into_iter().map(|name| name.expect("a name"));
                found.extend(names.map(|name| (name.index, name.name.to_owned())));
            }
        }
    }
    found
}

#[test]
fn names_follow_their_functions_and_the_meters_own_has_one() {
    let wasm = parse(
        "(module $m (import \"a\" \"b\" (func $imported)) (table funcref (elem $one $two))
           (func $one (param $p i32) (local $l i32) call $two)
           (func $two (export \"two\") call $imported ref.func $one drop) (start $two))",
    );
    let metered = meter(&wasm, &WHOLE).module;
    let expected = [(0, "imported"), (2, "one"), (3, "two"), (4, "themis.topup")];
    let expected = expected.map(|(index, name)| (index, name.to_owned()));
    assert_eq!(function_names(&metered), expected);
    let text = wasmprinter::print_bytes(&metered).expect("text");
    for line in [
        "(start $two)",
        "(export \"two\" (func $two))",
        "$one $two",
        "ref.func $one",
        "call $imported",
        "$p i32",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
}

/// Whether every hint names a branch, in order, and how many there are; and how many calls of the last function.
fn hints_and_checks(wasm: &[u8]) -> (usize, usize) {
    let (mut bodies, mut hints, mut imported) = (vec![], vec![], 0_u32);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.expect("a module") {
            Payload::ImportSection(section) => imported = section.into_imports().count() as u32,
            Payload::CodeSectionEntry(body) => bodies.push(body),
            Payload::CustomSection(section) => {
                if let KnownCustom::BranchHints(section) = section.as_known() {
                    assert!(bodies.is_empty(), "hints come before the code");
                    hints.extend(section.into_iter().map(|hints| hints.expect("hints")));
                }
            }
            _ => {}
        }
    }
    let mut count = 0;
    for function in hints {
        let body = &bodies[(function.func - imported) as usize];
        let mut last = 0;
        for hint in function.hints {
            let BranchHint { func_offset, .. } = hint.expect("a hint");
            assert!(func_offset > last, "hints in order");
            last = func_offset;
            let code = body.as_bytes()[func_offset as usize];
            assert!(code == 0x04 || code == 0x0d, "a hint at {code:#x}");
            count += 1;
        }
    }
    let topup = imported + bodies.len() as u32 - 1;
    let calls = bodies.iter().flat_map(|body| body.get_operators_reader().expect("code"));
    let is_check = |operator: Operator<'_>| matches!(operator, Operator::Call { function_index } if function_index == topup);
    (count, calls.filter(|operator| is_check(operator.clone().expect("code"))).count())
}

#[test]
fn every_branch_hint_names_a_branch_and_every_check_is_counted() {
    let mut all = 0;
    arbtest(|u| {
        let metered = meter(&parse(&program(u)?), &WHOLE);
        let (hints, checks) = hints_and_checks(&metered.module);
        assert_eq!(checks, metered.checks);
        assert!(hints >= checks, "every check is hinted at: {hints} of {checks}");
        all += hints;
        Ok(())
    })
    .budget_ms(500);
    assert!(all > 0);
}

#[test]
fn what_is_added_is_one_import_one_export_and_nothing_a_guest_can_name() {
    let wasm = parse("(module (func (export \"f\")))");
    let metered = meter(&wasm, &WHOLE).module;
    let engine = super::host::engine();
    let module = wasmtime::Module::new(&engine, metered).expect("a valid module");
    let imports: Vec<_> = module.imports().map(|import| (import.module(), import.name())).collect();
    assert_eq!(imports, [(REFILL_MODULE, REFILL_FIELD)]);
    let exports: Vec<_> = module.exports().map(|export| export.name().to_owned()).collect();
    assert_eq!(exports, ["f", FUEL_EXPORT]);
    // One past the last global, function or type is not the meter's, but an error.
    for body in ["global.get 0", "call 1", "block (type 1) end"] {
        let mut text = String::new();
        let _ = write!(text, "(module (type (func)) (func (export \"f\") {body}))");
        let refused = instrument(&parse(&text), &WHOLE);
        assert!(matches!(refused, Err(MeterError::Invalid { .. })), "{body}");
    }
}

#[test]
fn a_tank_grants_slices_until_its_budget_is_gone() {
    let mut tank = Tank::new(25, 10);
    assert_eq!((tank.refill(-3), tank.refill(-12), tank.granted()), (Ok(10), Ok(12), 22));
    assert_eq!((tank.refill(-1), tank.granted()), (Ok(3), 25));
    assert_eq!(tank.spent(2), Ok(23));
    assert_eq!((tank.spent(0), tank.spent(-1)), (Ok(25), Err(Exhausted { spent: 26 })));
    assert_eq!((tank.refill(0), tank.refill(-1)), (Ok(0), Err(Exhausted { spent: 26 })));
    assert_eq!(
        Tank::new(u64::MAX, u64::MAX).refill(i64::MIN + 1),
        Err(Exhausted { spent: i64::MAX as u64 })
    );
    assert_eq!(Tank::new(u64::MAX, 0).refill(-1), Ok(1));
}

#[test]
fn a_tank_takes_no_more_than_the_store_it_draws_from() {
    let mut tank = Tank::new(100, 10);
    assert_eq!((tank.refill_from(-1, 4), tank.granted()), (Ok(4), 4));
    assert_eq!(tank.refill_from(-5, 4), Err(Exhausted { spent: 9 }));
    assert_eq!((tank.refill_from(-5, 5), tank.granted()), (Ok(5), 9));
}

#[test]
fn what_a_tank_granted_and_the_guest_holds_is_what_was_spent() {
    arbtest(|u| {
        let (budget, slice) = (u.int_in_range(0..=500)?, u.int_in_range(1..=50)?);
        let (mut tank, mut left, mut spent) = (Tank::new(budget, slice), 0_i64, 0_u64);
        for _ in 0..20 {
            let cost: u32 = u.int_in_range(0..=40)?;
            left -= i64::from(cost);
            spent += u64::from(cost);
            let known = tank.spent(left);
            assert_eq!(known.is_ok(), spent <= budget);
            assert_eq!(known.unwrap_or_else(|exhausted| exhausted.spent), spent);
            if left < 0 {
                match tank.refill(left) {
                    Ok(grant) => left += grant,
                    Err(exhausted) => {
                        assert!(spent > budget && exhausted.spent == spent);
                        return Ok(());
                    }
                }
            }
            assert!(left >= 0 && tank.granted() <= budget);
        }
        Ok(())
    });
}
