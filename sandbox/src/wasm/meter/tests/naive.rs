//! A meter so simple that it is right by looking at it: before every single instruction it adds what that costs to a global.
//!
//! It knows no regions, no slices and no copies. Whatever returns must have cost the same with it and with the meter.

use std::convert::Infallible;

use crate::wasm::meter::cost::{self, Sized};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, ConstExpr, ExportKind, ExportSection, Function, GlobalSection, GlobalType,
    Instruction, Module, SectionId, ValType,
};
use wasmparser::{BlockType, FunctionBody, Operator, Parser, Payload};

/// Export under which the global is found: units spent so far.
pub(crate) const SPENT_EXPORT: &str = "spent\u{0}";

/// Counts of parameters and results.
type Arity = (u64, u64);

#[derive(Default)]
struct Naive {
    types: Vec<Arity>,
    /// Types of the defined functions.
    functions: Vec<u32>,
    /// Index of the added global.
    spent: u32,
    /// How many bodies were written.
    written: usize,
}

/// The module with its count.
pub(crate) fn naive(wasm: &[u8]) -> Vec<u8> {
    let mut this = Naive::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.expect("a valid module") {
            Payload::TypeSection(section) => {
                let types = section.into_iter_err_on_gc_types().map(|ty| ty.expect("a type"));
                this.types =
                    types.map(|ty| (ty.params().len() as u64, ty.results().len() as u64)).collect();
            }
            Payload::ImportSection(section) => {
                let imports = section.into_imports().map(|import| import.expect("an import").ty);
                let globals = imports.filter(|ty| matches!(ty, wasmparser::TypeRef::Global(_)));
                this.spent += u32::try_from(globals.count()).unwrap();
            }
            Payload::FunctionSection(section) => {
                this.functions = section.into_iter().map(|ty| ty.expect("an index")).collect();
            }
            Payload::GlobalSection(section) => this.spent += section.count(),
            _ => {}
        }
    }
    let mut output = Module::new();
    this.parse_core_module(&mut output, Parser::new(0), wasm).expect("a module to write anew");
    output.finish()
}

impl Naive {
    fn arity(&self, ty: BlockType) -> Arity {
        match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(index) => self.types[index as usize],
        }
    }

    fn bump(&self, out: &mut Function, units: u64) {
        if units > 0 {
            out.instruction(&Instruction::GlobalGet(self.spent));
            out.instruction(&Instruction::I64Const(i64::try_from(units).unwrap()));
            out.instruction(&Instruction::I64Add);
            out.instruction(&Instruction::GlobalSet(self.spent));
        }
    }

    /// Adds what the size on top of the stack costs, and leaves it there.
    fn bump_by_size(&self, out: &mut Function, sized: Sized, size: u32) {
        out.instruction(&Instruction::LocalSet(size));
        out.instruction(&Instruction::GlobalGet(self.spent));
        out.instruction(&Instruction::LocalGet(size));
        out.instruction(&Instruction::I64ExtendI32U);
        match sized {
            Sized::Bytes => {
                out.instruction(&Instruction::I64Const(8)).instruction(&Instruction::I64DivU);
            }
            Sized::Elements => {}
            Sized::Pages => {
                // The lesser of the size and 65,536, times 1,024.
                out.instruction(&Instruction::I64Const(65_536));
                out.instruction(&Instruction::LocalGet(size));
                out.instruction(&Instruction::I64ExtendI32U);
                out.instruction(&Instruction::I64Const(65_536));
                out.instruction(&Instruction::I64LtU);
                out.instruction(&Instruction::Select);
                out.instruction(&Instruction::I64Const(1024)).instruction(&Instruction::I64Mul);
            }
        }
        out.instruction(&Instruction::I64Add);
        out.instruction(&Instruction::GlobalSet(self.spent));
        out.instruction(&Instruction::LocalGet(size));
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> Function {
        let (parameters, results) = self.types[self.functions[self.written] as usize];
        self.written += 1;
        let (mut locals, mut declared) = (0, vec![]);
        for pair in body.get_locals_reader().expect("locals") {
            let (count, ty) = pair.expect("a local");
            locals += u64::from(count);
            declared.push((count, self.val_type(ty).expect("a type")));
        }
        declared.push((1, ValType::I32));
        let size = u32::try_from(parameters + locals).unwrap();
        let mut out = Function::new(declared);
        self.bump(&mut out, cost::entry(parameters, locals, results));
        let mut labels = vec![results];
        let mut reader = body.get_operators_reader().expect("instructions");
        while !reader.eof() {
            let operator = reader.read().expect("an instruction");
            let carried = |label: u32| labels[labels.len() - 1 - label as usize];
            let carried = match &operator {
                Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
                    carried(*relative_depth)
                }
                Operator::BrTable { targets } => carried(targets.default()),
                _ => 0,
            };
            self.bump(&mut out, cost::of(&operator).expect("an accepted instruction") + carried);
            match &operator {
                Operator::Block { blockty } | Operator::If { blockty } => {
                    labels.push(self.arity(*blockty).1);
                }
                Operator::Loop { blockty } => labels.push(self.arity(*blockty).0),
                Operator::End => drop(labels.pop()),
                other => {
                    if let Some(sized) = cost::sized(other) {
                        self.bump_by_size(&mut out, sized, size);
                    }
                }
            }
            out.instruction(&self.instruction(operator).expect("an instruction"));
        }
        out
    }

    fn add_global(section: &mut GlobalSection) {
        let ty = GlobalType { val_type: ValType::I64, mutable: true, shared: false };
        section.global(ty, &ConstExpr::i64_const(0));
    }
}

impl Reencode for Naive {
    type Error = Infallible;

    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result<(), Error> {
        use SectionId::{Code, Data, DataCount, Element, Export, Global, Start};
        let globals = [Global, Export, Start, Element, DataCount, Code, Data];
        let is =
            |from: usize, id: Option<SectionId>| id.is_some_and(|id| globals[from..].contains(&id));
        let at_end = before.is_none();
        if !is(0, after) && (is(1, before) || at_end) {
            let mut section = GlobalSection::new();
            Self::add_global(&mut section);
            module.section(&section);
        }
        if !is(1, after) && (is(2, before) || at_end) {
            let mut section = ExportSection::new();
            section.export(SPENT_EXPORT, ExportKind::Global, self.spent);
            module.section(&section);
        }
        Ok(())
    }

    fn parse_global_section(
        &mut self,
        globals: &mut GlobalSection,
        section: wasmparser::GlobalSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_global_section(self, globals, section)?;
        Self::add_global(globals);
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), Error> {
        utils::parse_export_section(self, exports, section)?;
        exports.export(SPENT_EXPORT, ExportKind::Global, self.spent);
        Ok(())
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), Error> {
        let function = self.body(&body);
        code.function(&function);
        Ok(())
    }
}
