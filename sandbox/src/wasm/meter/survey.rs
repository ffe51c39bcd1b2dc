//! What the meter must know of a module before it writes a new one: its index spaces, types and bodies.
//!
//! The module is validated here first, against exactly [`ACCEPTED`]. That is more than tidiness: an invalid module that
//! names the global or the function *after* its last one would name the meter's own once those are added.

use wasmparser::{
    ExternalKind, FunctionBody, Parser, Payload, TypeRef, ValType, Validator, WasmFeatures,
};

use super::{FUEL_EXPORT, MeterError, REFILL_FIELD, REFILL_MODULE};

/// The proposals a plugin may use. Each one beyond them needs its costs thought about first.
pub const ACCEPTED: WasmFeatures = WasmFeatures::WASM1
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::TAIL_CALL);

/// Most entries any one index space may have.
const INDEX_SPACE_MAX: u64 = 1_000_000;

/// Parameters and results of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Types of the parameters.
    pub(crate) parameters: Box<[ValType]>,
    /// Types of the results.
    pub(crate) results: Box<[ValType]>,
}

/// The index spaces, types and bodies of a module.
#[derive(Debug, Default)]
pub(crate) struct Survey<'a> {
    /// The type section.
    pub(crate) types: Vec<Signature>,
    /// How many functions are imported: they come first in the index space.
    pub(crate) imported_functions: u32,
    /// The type of each defined function.
    pub(crate) function_types: Vec<u32>,
    /// How many globals there are, imported ones included.
    pub(crate) globals: u32,
    /// The body of each defined function.
    pub(crate) bodies: Vec<FunctionBody<'a>>,
    imports: u32,
    exports: u32,
}

impl<'a> Survey<'a> {
    /// Validates a module and surveys it.
    ///
    /// # Errors
    /// [`MeterError::Invalid`] outside [`ACCEPTED`], [`MeterError::Reserved`] if a name of the meter's is taken, and
    /// [`MeterError::TooMany`] if an index space has no room for what the meter adds.
    pub(crate) fn of(module: &'a [u8]) -> Result<Self, MeterError> {
        Validator::new_with_features(ACCEPTED).validate_all(module)?;
        let mut survey = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            survey.read(payload?)?;
        }
        survey.has_room()?;
        Ok(survey)
    }

    /// The signature of the function with this place among the defined ones.
    pub(crate) fn signature(&self, defined: usize) -> Option<&Signature> {
        let index = usize::try_from(*self.function_types.get(defined)?).ok()?;
        self.types.get(index)
    }

    fn read(&mut self, payload: Payload<'a>) -> Result<(), MeterError> {
        match payload {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    let ty = ty?;
                    self.types.push(Signature {
                        parameters: ty.params().into(),
                        results: ty.results().into(),
                    });
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports_with_offsets() {
                    let (offset, import) = import?;
                    self.import(import.module, import.name, &import.ty, offset as u64)?;
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    self.function_types.push(ty?);
                }
            }
            Payload::GlobalSection(section) => {
                self.globals = self.globals.saturating_add(section.count());
            }
            Payload::ExportSection(section) => {
                for export in section.into_iter_with_offsets() {
                    let (offset, export) = export?;
                    if export.kind == ExternalKind::FuncExact {
                        return Err(exact(offset as u64));
                    }
                    self.export(export.name)?;
                }
            }
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            _ => {}
        }
        Ok(())
    }

    fn import(
        &mut self,
        module: &str,
        field: &str,
        ty: &TypeRef,
        offset: u64,
    ) -> Result<(), MeterError> {
        if module == REFILL_MODULE && field == REFILL_FIELD {
            let name = format!("{module}.{field}");
            return Err(MeterError::Reserved { kind: "import", name });
        }
        self.imports = self.imports.saturating_add(1);
        match ty {
            TypeRef::Func(_) => {
                self.imported_functions = self.imported_functions.saturating_add(1);
            }
            // The validator lets these through, whatever is accepted.
            TypeRef::FuncExact(_) => return Err(exact(offset)),
            TypeRef::Global(_) => self.globals = self.globals.saturating_add(1),
            TypeRef::Table(_) | TypeRef::Memory(_) | TypeRef::Tag(_) => {}
        }
        Ok(())
    }

    fn export(&mut self, name: &str) -> Result<(), MeterError> {
        if name == FUEL_EXPORT {
            return Err(MeterError::Reserved {
                kind: "export",
                name: name.escape_debug().collect(),
            });
        }
        self.exports = self.exports.saturating_add(1);
        Ok(())
    }

    /// The meter adds two functions (one of them imported), a global and an export; types are counted when added.
    fn has_room(&self) -> Result<(), MeterError> {
        let defined = self.function_types.len() as u64;
        let spaces = [
            ("functions", u64::from(self.imported_functions).saturating_add(defined), 2),
            ("imports", u64::from(self.imports), 1),
            ("globals", u64::from(self.globals), 1),
            ("exports", u64::from(self.exports), 1),
        ];
        for (what, count, added) in spaces {
            room(what, count, added)?;
        }
        Ok(())
    }
}

fn exact(offset: u64) -> MeterError {
    let reason = "an exact function type needs the proposal custom-descriptors".to_owned();
    MeterError::Invalid { offset, reason }
}

/// Whether `added` more entries fit into an index space with `count`.
///
/// # Errors
/// [`MeterError::TooMany`] if not.
pub(crate) fn room(what: &'static str, count: u64, added: u64) -> Result<(), MeterError> {
    if count.saturating_add(added) > INDEX_SPACE_MAX {
        return Err(MeterError::TooMany { what, count, max: INDEX_SPACE_MAX });
    }
    Ok(())
}
