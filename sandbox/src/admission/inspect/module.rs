//! What a wasm module is, as `inspect` tells it: what it asks for, what it offers, and what metering makes of it.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use themis_messages::admit::AdmitError;
use themis_messages::ids::Digest;
use themis_messages::limits::FILE_BYTES_MAX;

use super::super::root::PluginFile;
use super::{Finding, PathBuf};
use crate::wasm::examine::{Surveyed, survey};
use crate::wasm::meter;

/// A module, looked at and metered; nothing of it was compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleInspection {
    /// The module.
    pub file: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, as a manifest lists it.
    pub sha256: Digest,
    /// What its custom section `themis` says, as text.
    pub identity: Option<String>,
    /// `module.name` of what it imports, and what that is.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// Linear memory it starts with, in bytes.
    pub memory_bytes: u64,
    /// What the meter adds; none for what cannot be metered.
    pub metered: Option<Metered>,
    /// Every reason to refuse it that does not depend on its manifest.
    pub findings: Vec<Finding>,
}

/// What metering makes of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Metered {
    /// Its size then, in bytes.
    pub size: u64,
    /// Places where fuel is checked.
    pub checks: usize,
    /// Loops that were unrolled.
    pub unrolled: usize,
}

/// Looks at a module.
pub(super) fn module(file: PluginFile) -> Result<ModuleInspection, AdmitError> {
    let path = file.path.clone();
    let bytes = file.read(FILE_BYTES_MAX)?;
    let mut found = ModuleInspection {
        size: bytes.len() as u64,
        sha256: Digest(Sha256::digest(&bytes).into()),
        file: path,
        identity: None,
        imports: Vec::new(),
        exports: Vec::new(),
        memory_bytes: 0,
        metered: None,
        findings: Vec::new(),
    };
    match survey(&bytes) {
        Ok(Surveyed { identity, imports, exports, memory_bytes, faults }) => {
            (found.identity, found.imports) = (identity, imports);
            (found.exports, found.memory_bytes) = (exports, memory_bytes);
            found.findings = faults.iter().map(finding).collect();
        }
        Err(fault) => {
            found.findings.push(finding(&fault));
            return Ok(found);
        }
    }
    match meter::instrument(&bytes, &meter::Options::default()) {
        Ok(metered) => {
            let (size, checks, unrolled) =
                (metered.module.len() as u64, metered.checks, metered.unrolled);
            found.metered = Some(Metered { size, checks, unrolled });
        }
        Err(error) => {
            let fault = themis_messages::wasm::WasmFault::Unmetered { why: error.to_string() };
            found.findings.push(finding(&fault));
        }
    }
    Ok(found)
}

fn finding(fault: &themis_messages::wasm::WasmFault) -> Finding {
    Finding { code: fault.code(), what: fault.to_string(), remedy: fault.remedy() }
}
