//! Looks at a module before anything is compiled: what it is, what it imports and exports, and what it says of itself.
//!
//! The whole file is validated in one pass; what it declares is capped by the validator and by its own size. Imports are
//! collected of every kind and in any order, so that an operator sees all that is not granted at once.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sections and types are many: what is not named is the validator's business"
)]

use std::collections::BTreeMap;

use serde::Deserialize;
use themis_messages::ids::{PluginName, PluginVersion};
use themis_messages::limits::{
    WASM_MEMORY_BYTES_MAX, WASM_MODULE_BYTES_MAX, WASM_SECTION_BYTES_MAX, WASM_TABLE_ELEMENTS_MAX,
    WASM_TABLES_MAX,
};
use themis_messages::manifest::{AbiVersion, Capability, Manifest};
use themis_messages::wasm::WasmFault;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef, ValType, Validator};

use super::meter::ACCEPTED;

/// Bytes of a page of linear memory.
pub(crate) const PAGE: u64 = 1 << 16;
/// Module of all imports.
pub(super) const HOST_MODULE: &str = "themis";
/// The custom section that names the plugin.
const SECTION: &str = "themis";

use ValType::{I32, I64};

/// A function's parameters and results.
type Signature = (&'static [ValType], &'static [ValType]);

/// What the host offers: the name, what it takes, and the capability it needs.
const OFFERED: [(&str, Signature, Option<Capability>); 5] = [
    ("reply", (&[I32, I32], &[]), None),
    ("log", (&[I32, I32, I32], &[]), Some(Capability::Log)),
    ("now_ns", (&[], &[I64]), Some(Capability::Clock)),
    ("counter_add", (&[I32, I32, I64], &[]), Some(Capability::Metrics)),
    ("resource_read", (&[I32, I32, I64, I32, I32], &[I64]), Some(Capability::Resources)),
];

/// What a plugin exports: the name, what it takes, and whether it must.
const EXPORTED: [(&str, Signature, bool); 8] = [
    ("themis_alloc", (&[I32], &[I32]), true),
    ("themis_init", (&[I32, I32], &[I32]), true),
    ("themis_call", (&[I32, I32, I32], &[I32]), true),
    ("themis_health", (&[], &[I32]), false),
    ("themis_save_state", (&[], &[I32]), false),
    ("themis_reload", (&[I32, I32, I32, I32], &[I32]), false),
    ("themis_shutdown", (&[], &[I32]), false),
    ("_initialize", (&[], &[]), false),
];

/// What a module is, as far as the kernel has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Examined {
    /// The ABI it was built for.
    pub(crate) abi: AbiVersion,
    /// It keeps state: one instance serves.
    pub(crate) saves: bool,
    /// It can take over state.
    pub(crate) takes: bool,
    /// It can be asked whether it is well.
    pub(crate) health: bool,
}

impl Examined {
    /// It has a state: one instance serves, and its calls come in turn.
    pub(crate) const fn is_single(&self) -> bool {
        self.saves || self.takes
    }
}

/// What the custom section says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    name: PluginName,
    version: PluginVersion,
    abi: String,
}

/// Examines a module for the plugin that its manifest describes. `memory_bytes_max` is the operator's cap.
///
/// # Errors
/// [`WasmFault`]: the first thing that is wrong; of imports, all of them.
pub(crate) fn examine(
    bytes: &[u8],
    manifest: &Manifest,
    memory_bytes_max: u64,
) -> Result<Examined, WasmFault> {
    let module = Module::read(bytes)?;
    module.check_imports(manifest)?;
    module.check_exports()?;
    module.check_sizes(memory_bytes_max)?;
    let abi = module.check_identity(manifest)?;
    let has = |name| module.exports.contains_key(name);
    Ok(Examined {
        abi,
        saves: has("themis_save_state"),
        takes: has("themis_reload"),
        health: has("themis_health"),
    })
}

/// What can be said of a module without a manifest.
pub(crate) struct Surveyed {
    pub(crate) identity: Option<String>,
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    pub(crate) memory_bytes: u64,
    /// What every operator would refuse.
    pub(crate) faults: Vec<WasmFault>,
}

/// Longest name that is told, in characters.
const NAME_SHOWN: usize = 80;

/// A name that somebody else chose, fit to be shown.
fn shown(name: &str) -> String {
    name.chars().take(NAME_SHOWN).flat_map(char::escape_debug).collect()
}

/// Looks at a module for somebody who wants to know what it is.
///
/// # Errors
/// [`WasmFault`] when it is none.
pub(crate) fn survey(bytes: &[u8]) -> Result<Surveyed, WasmFault> {
    let module = Module::read(bytes)?;
    let imports = module.imports.iter().map(|(from, name, what)| {
        let what = match what {
            Import::Function(_) => "function",
            Import::Other(what) => what,
        };
        format!("{}.{} ({what})", shown(from), shown(name))
    });
    let refused = module.imports.iter().filter_map(|import| module.refused(import, |_| true));
    let refused: Vec<_> = refused.collect();
    let mut faults = Vec::new();
    if !refused.is_empty() {
        faults.push(WasmFault::Imports { imports: refused });
    }
    faults.extend(module.check_exports().err());
    faults.extend(module.check_sizes(WASM_MEMORY_BYTES_MAX).err());
    let identity = module.identities.first().map(|text| {
        let text = text.get(..WASM_SECTION_BYTES_MAX).unwrap_or(text);
        String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect()
    });
    if identity.is_none() {
        faults.push(WasmFault::Identity { why: "is missing".to_owned() });
    }
    Ok(Surveyed {
        identity,
        imports: imports.collect(),
        exports: module.exports.keys().map(|name| shown(name)).collect(),
        memory_bytes: module.memory_bytes(),
        faults,
    })
}

/// What matters of a module.
#[derive(Default)]
struct Module<'a> {
    imports: Vec<(String, String, Import)>,
    exports: BTreeMap<&'a str, (ExternalKind, u32)>,
    /// Types by index; `None` for what is no function.
    types: Vec<Option<(Vec<ValType>, Vec<ValType>)>>,
    /// Type of each function, imported ones first.
    functions: Vec<u32>,
    memories: Vec<u64>,
    tables: Vec<u64>,
    identities: Vec<&'a [u8]>,
}

enum Import {
    Function(u32),
    Other(&'static str),
}

fn malformed(error: &wasmparser::BinaryReaderError) -> WasmFault {
    let offset = u64::try_from(error.offset()).unwrap_or(u64::MAX);
    WasmFault::Malformed { offset, why: error.message().to_owned() }
}

impl<'a> Module<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, WasmFault> {
        let (what, wanted, max) = ("bytes of module", bytes.len() as u64, WASM_MODULE_BYTES_MAX);
        if wanted > max {
            return Err(WasmFault::TooMuch { what, wanted, max });
        }
        if Parser::is_component(bytes) {
            return Err(WasmFault::Component);
        }
        let mut validator = Validator::new_with_features(ACCEPTED);
        validator.validate_all(bytes).map_err(|error| malformed(&error))?;
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|error| malformed(&error))?;
            module.take(payload).map_err(|error| malformed(&error))?;
        }
        Ok(module)
    }

    fn take(&mut self, payload: Payload<'a>) -> Result<(), wasmparser::BinaryReaderError> {
        match payload {
            Payload::TypeSection(types) => {
                for group in types {
                    for kind in group?.into_types() {
                        let function = match &kind.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(function) => {
                                Some((function.params().to_vec(), function.results().to_vec()))
                            }
                            _ => None,
                        };
                        self.types.push(function);
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    let what = self.import_of(import.ty);
                    self.imports.push((import.module.to_owned(), import.name.to_owned(), what));
                }
            }
            Payload::FunctionSection(functions) => {
                for kind in functions {
                    self.functions.push(kind?);
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    self.memories.push(memory?.initial);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    self.tables.push(table?.ty.initial);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    self.exports.insert(export.name, (export.kind, export.index));
                }
            }
            Payload::CustomSection(section) if section.name() == SECTION => {
                self.identities.push(section.data());
            }
            // Nothing else is the host's to know; the validator has seen it.
            _ => {}
        }
        Ok(())
    }

    fn import_of(&mut self, kind: TypeRef) -> Import {
        match kind {
            TypeRef::Func(kind) | TypeRef::FuncExact(kind) => {
                self.functions.push(kind);
                Import::Function(kind)
            }
            TypeRef::Memory(_) => Import::Other("memory"),
            TypeRef::Table(_) => Import::Other("table"),
            TypeRef::Global(_) => Import::Other("global"),
            TypeRef::Tag(_) => Import::Other("tag"),
        }
    }

    fn is(&self, kind: u32, signature: Signature) -> bool {
        let found = usize::try_from(kind).ok().and_then(|kind| self.types.get(kind)?.as_ref());
        found.is_some_and(|(takes, gives)| (takes.as_slice(), gives.as_slice()) == signature)
    }

    /// Why an import is refused: it has to be offered, granted, and of the right type.
    fn refused(
        &self,
        (module, name, import): &(String, String, Import),
        is_granted: impl Fn(Capability) -> bool,
    ) -> Option<String> {
        let offered = OFFERED.iter().find(|(known, _, _)| module == HOST_MODULE && name == known);
        let why = match (import, offered) {
            (Import::Other(kind), _) => format!("a {kind}"),
            (Import::Function(_), None) => "not offered".to_owned(),
            (Import::Function(_), Some((_, _, Some(needs)))) if !is_granted(*needs) => {
                format!("capability `{}` is not granted", needs.as_str())
            }
            (Import::Function(kind), Some((_, signature, _))) if !self.is(*kind, *signature) => {
                "of another type".to_owned()
            }
            (Import::Function(_), Some(_)) => return None,
        };
        Some(format!("{}.{} ({why})", shown(module), shown(name)))
    }

    fn check_imports(&self, manifest: &Manifest) -> Result<(), WasmFault> {
        let refused = |import| self.refused(import, |needs| manifest.wants(needs));
        let imports: Vec<_> = self.imports.iter().filter_map(refused).collect();
        if imports.is_empty() { Ok(()) } else { Err(WasmFault::Imports { imports }) }
    }

    fn check_exports(&self) -> Result<(), WasmFault> {
        let fault = |export, why: &str| WasmFault::Export { export, why: why.to_owned() };
        match self.exports.get("memory") {
            Some((ExternalKind::Memory, _)) => {}
            Some(_) => return Err(fault("memory", "is no memory")),
            None => return Err(fault("memory", "is missing")),
        }
        for (name, signature, must) in EXPORTED {
            let index = match self.exports.get(name) {
                Some((ExternalKind::Func, index)) => usize::try_from(*index).ok(),
                Some(_) => return Err(fault(name, "is no function")),
                None if must => return Err(fault(name, "is missing")),
                None => continue,
            };
            let kind = index.and_then(|index| self.functions.get(index));
            if !kind.is_some_and(|kind| self.is(*kind, signature)) {
                let (takes, gives) = signature;
                return Err(fault(name, &format!("is not of type {takes:?} -> {gives:?}")));
            }
        }
        Ok(())
    }

    /// Linear memory it starts with.
    fn memory_bytes(&self) -> u64 {
        self.memories.iter().map(|pages| pages.saturating_mul(PAGE)).sum()
    }

    fn check_sizes(&self, memory_bytes_max: u64) -> Result<(), WasmFault> {
        let too_much = |what, wanted, max| Err(WasmFault::TooMuch { what, wanted, max });
        let memory = self.memory_bytes();
        if memory > memory_bytes_max {
            return too_much("bytes of memory", memory, memory_bytes_max);
        }
        let tables = self.tables.len() as u64;
        if tables > WASM_TABLES_MAX {
            return too_much("tables", tables, WASM_TABLES_MAX);
        }
        let elements = self.tables.iter().copied().max().unwrap_or(0);
        if elements > WASM_TABLE_ELEMENTS_MAX {
            return too_much("elements of a table", elements, WASM_TABLE_ELEMENTS_MAX);
        }
        Ok(())
    }

    fn check_identity(&self, manifest: &Manifest) -> Result<AbiVersion, WasmFault> {
        let fault = |why: String| WasmFault::Identity { why };
        let section = match self.identities.as_slice() {
            [one] => *one,
            [] => return Err(fault("is missing".to_owned())),
            _ => return Err(fault("is there more than once".to_owned())),
        };
        if section.len() > WASM_SECTION_BYTES_MAX {
            return Err(fault(format!("is longer than {WASM_SECTION_BYTES_MAX} bytes")));
        }
        let says: Identity = serde_json::from_slice(section)
            .map_err(|error| fault(format!("is not what it should be: {error}")))?;
        if says.name != manifest.name {
            return Err(fault(format!("names {}, the manifest {}", says.name, manifest.name)));
        }
        if says.version != manifest.version {
            let (says, manifest) = (says.version, &manifest.version);
            return Err(fault(format!("is of version {says}, the manifest of {manifest}")));
        }
        let parts = says.abi.split_once('.');
        let abi = parts.and_then(|(major, minor)| {
            Some(AbiVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        let abi = abi.filter(|abi| abi.is_supported() && abi.to_string() == says.abi);
        let abi = abi.ok_or_else(|| fault(format!("asks for ABI {:?}", says.abi)))?;
        if abi != manifest.abi {
            return Err(fault(format!("asks for ABI {abi}, the manifest for {}", manifest.abi)));
        }
        Ok(abi)
    }
}
