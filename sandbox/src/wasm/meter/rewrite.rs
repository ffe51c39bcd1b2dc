//! Writes the module anew around its metered bodies: one import, one function, one export and some globals more.
//!
//! ```text
//! (import "themis" "refill" (func $refill (param i64) (result i64)))   ;; after the imported functions
//! (func $topup (param $left i64) (result i64) …)                       ;; after the defined functions
//! (global $fuel (export "themis\00fuel") (mut i64) (i64.const 0))      ;; after the globals
//! (global $slot (mut t) (t.const 0)) …                                 ;; as many as a check keeps locals
//! ```
//!
//! Only the import moves anything: defined functions shift by one, in calls, `ref.func`, element segments, exports, the
//! start function and the `name` section, all of which the re-encoder sends through [`Layout::function_index`]. Sections
//! the module lacks are added where they belong.
//!
//! Custom sections pass unchanged, but for these: `name` follows the shift, without its labels (copied loops renumber them);
//! `.debug_*`, `sourceMappingURL`, `linking`, `reloc.*` and `metadata.code.*` are dropped, because they name places in code
//! that has moved; and `metadata.code.branch_hint` is written for the checks, so that an engine which reads it (wasmtime's
//! `wasm_branch_hinting`) keeps them out of the hot path.

use std::borrow::Cow;
use std::convert::Infallible;

use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    BranchHint, BranchHints, CodeSection, ConstExpr, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, GlobalType, ImportSection, Module, NameSection,
    SectionId, TypeSection, ValType,
};

use super::added::Added;
use super::emit::Metered;
use super::{FUEL_EXPORT, REFILL_FIELD, REFILL_MODULE};

/// What the added function is called in backtraces.
const TOPUP_NAME: &str = "themis.topup";

/// Where the meter's own things stand in the module that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// How many functions the module imports itself; the next index is the added import's.
    pub(crate) imported: u32,
    /// Index of the added function.
    pub(crate) topup: u32,
    /// Index of the added global.
    pub(crate) fuel: u32,
}

impl Reencode for Layout {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error> {
        Ok(if index < self.imported { index } else { index.saturating_add(1) })
    }
}

/// Writes a module anew.
pub(crate) struct Rewriter {
    /// Where the meter's own things stand.
    pub(crate) layout: Layout,
    /// Number of types in the module as given: the next one is that of the import and the function, `(i64) -> i64`.
    pub(crate) types: u32,
    /// Types and globals to add.
    pub(crate) added: Added,
    /// The bodies, in order.
    pub(crate) bodies: Vec<Metered>,
}

impl Rewriter {
    fn add_types(&self, section: &mut TypeSection) {
        for (parameters, results) in &self.added.types {
            section.ty().function(parameters.iter().copied(), results.iter().copied());
        }
    }

    fn add_import(&self, section: &mut ImportSection) {
        section.import(REFILL_MODULE, REFILL_FIELD, EntityType::Function(self.types));
    }

    fn add_function(&self, section: &mut FunctionSection) {
        section.function(self.types);
    }

    fn add_global(&self, section: &mut GlobalSection) {
        let ty = GlobalType { val_type: ValType::I64, mutable: true, shared: false };
        section.global(ty, &ConstExpr::i64_const(0));
        for slot in &self.added.slots {
            section.global(GlobalType { val_type: *slot, ..ty }, &zero(*slot));
        }
    }

    fn add_export(&self, section: &mut ExportSection) {
        section.export(FUEL_EXPORT, ExportKind::Global, self.layout.fuel);
    }

    /// The bodies as given give way to the metered ones.
    fn add_code(&self, section: &mut CodeSection) {
        for metered in &self.bodies {
            section.function(&metered.body);
        }
        section.function(&self.topup());
    }

    /// Adds to the global what the host grants, and yields what is left then. The global may lag behind `$left`, which is
    /// why it is added to, not set: what it lags by stays the same however often the host is asked. The other globals are
    /// kept on the stack meanwhile: the host may call back into the instance.
    fn topup(&self) -> Function {
        let (left, grant) = (0, 1);
        let slots = self.layout.fuel.saturating_add(1)..;
        let slots: Vec<_> = slots.zip(&self.added.slots).map(|(slot, _)| slot).collect();
        let mut function = Function::new([(1, ValType::I64)]);
        let mut body = function.instructions();
        for slot in &slots {
            body.global_get(*slot);
        }
        body.local_get(left).call(self.layout.imported).local_set(grant);
        for slot in slots.iter().rev() {
            body.global_set(*slot);
        }
        body.global_get(self.layout.fuel).local_get(grant).i64_add().global_set(self.layout.fuel);
        body.local_get(left).local_get(grant).i64_add().end();
        function
    }

    fn hints(&self) -> BranchHints {
        let mut section = BranchHints::new();
        let first = self.layout.imported.saturating_add(1);
        for (index, metered) in (first..).zip(&self.bodies) {
            if !metered.hints.is_empty() {
                let hints = metered.hints.iter().map(|hint| BranchHint {
                    branch_func_offset: hint.offset,
                    branch_hint_value: hint.likely.into(),
                });
                section.function_hints(index, hints);
            }
        }
        section
    }

    fn add_section(&self, module: &mut Module, id: SectionId) {
        match id {
            SectionId::Type => {
                let mut section = TypeSection::new();
                self.add_types(&mut section);
                module.section(&section);
            }
            SectionId::Import => {
                let mut section = ImportSection::new();
                self.add_import(&mut section);
                module.section(&section);
            }
            SectionId::Function => {
                let mut section = FunctionSection::new();
                self.add_function(&mut section);
                module.section(&section);
            }
            SectionId::Global => {
                let mut section = GlobalSection::new();
                self.add_global(&mut section);
                module.section(&section);
            }
            SectionId::Export => {
                let mut section = ExportSection::new();
                self.add_export(&mut section);
                module.section(&section);
            }
            SectionId::Code => {
                let mut section = CodeSection::new();
                self.add_code(&mut section);
                module.section(&section);
            }
            SectionId::Custom
            | SectionId::Table
            | SectionId::Memory
            | SectionId::Tag
            | SectionId::Start
            | SectionId::Element
            | SectionId::DataCount
            | SectionId::Data => {}
        }
    }

    fn names(
        &mut self,
        section: wasmparser::NameSectionReader<'_>,
    ) -> Result<NameSection, reencode::Error> {
        let mut names = NameSection::new();
        for subsection in section {
            match subsection? {
                wasmparser::Name::Function(map) => {
                    let mut map = utils::name_map(map, |index| self.function_index(index))?;
                    map.append(self.layout.topup, TOPUP_NAME);
                    names.functions(&map);
                }
                wasmparser::Name::Label(_) => {}
                other => self.parse_custom_name_subsection(&mut names, other)?,
            }
        }
        Ok(names)
    }
}

/// Zero of a type, or null.
fn zero(ty: ValType) -> ConstExpr {
    match ty {
        ValType::I32 => ConstExpr::i32_const(0),
        ValType::I64 => ConstExpr::i64_const(0),
        ValType::F32 => ConstExpr::f32_const(0.0_f32.into()),
        ValType::F64 => ConstExpr::f64_const(0.0_f64.into()),
        ValType::V128 => ConstExpr::v128_const(0),
        ValType::Ref(ty) => ConstExpr::ref_null(ty.heap_type),
    }
}

/// Place of a section in the order the specification fixes; custom sections have none.
const fn rank(id: SectionId) -> u8 {
    match id {
        SectionId::Custom => 0,
        SectionId::Type => 1,
        SectionId::Import => 2,
        SectionId::Function => 3,
        SectionId::Table => 4,
        SectionId::Memory => 5,
        SectionId::Tag => 6,
        SectionId::Global => 7,
        SectionId::Export => 8,
        SectionId::Start => 9,
        SectionId::Element => 10,
        SectionId::DataCount => 11,
        SectionId::Code => 12,
        SectionId::Data => 13,
    }
}

/// The sections every metered module has, in order.
const NEEDED: [SectionId; 6] = [
    SectionId::Type,
    SectionId::Import,
    SectionId::Function,
    SectionId::Global,
    SectionId::Export,
    SectionId::Code,
];

/// Whether a custom section tells of places in the code by their offset, and so would lie.
fn is_positional(name: &str) -> bool {
    name.starts_with(".debug_")
        || name.starts_with("reloc.")
        || name.starts_with("metadata.code.")
        || matches!(name, "linking" | "sourceMappingURL" | "external_debug_info")
}

impl Reencode for Rewriter {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error> {
        self.layout.function_index(index)
    }

    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result<(), reencode::Error> {
        let low = after.map_or(0, rank);
        let high = before.map_or(u8::MAX, rank);
        for id in NEEDED {
            let is_code = id == SectionId::Code;
            if is_code && low < rank(id) && rank(id) <= high {
                let hints = self.hints();
                if !hints.is_empty() {
                    module.section(&hints);
                }
            }
            if low < rank(id) && rank(id) < high {
                self.add_section(module, id);
            }
        }
        Ok(())
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        utils::parse_type_section(self, types, section)?;
        self.add_types(types);
        Ok(())
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        utils::parse_import_section(self, imports, section)?;
        self.add_import(imports);
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        utils::parse_function_section(self, functions, section)?;
        self.add_function(functions);
        Ok(())
    }

    fn parse_global_section(
        &mut self,
        globals: &mut GlobalSection,
        section: wasmparser::GlobalSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        utils::parse_global_section(self, globals, section)?;
        self.add_global(globals);
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        utils::parse_export_section(self, exports, section)?;
        self.add_export(exports);
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        _section: wasmparser::CodeSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        self.add_code(code);
        Ok(())
    }

    fn parse_custom_section(
        &mut self,
        module: &mut Module,
        section: wasmparser::CustomSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        if let wasmparser::KnownCustom::Name(names) = section.as_known() {
            // A damaged custom section does not make a module invalid: without its names it still runs.
            if let Ok(names) = self.names(names) {
                module.section(&names);
            }
        } else if !is_positional(section.name()) {
            let (name, data) = (Cow::Borrowed(section.name()), Cow::Borrowed(section.data()));
            module.section(&wasm_encoder::CustomSection { name, data });
        }
        Ok(())
    }
}
