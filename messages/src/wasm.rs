//! Wasm plugins: why a module is refused before it is compiled, and why a call of one did not return.

use std::time::Duration;

use serde::Serialize;

use crate::sandbox::Activity;

/// What is wrong with a module, seen before anything of it is compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WasmFault {
    /// It is a component.
    #[error(
        "it is a component: core modules are supported, with bulk memory, multi-value, sign extension, saturating conversions, reference types, SIMD and tail calls"
    )]
    Component,
    /// Not a module, or one that uses what is not supported.
    #[error("it is no module of the supported features: {why} (at byte {offset})")]
    Malformed {
        /// Where, from the start of the file.
        offset: u64,
        /// The validator's words.
        why: String,
    },
    /// It imports what it is not granted.
    #[error("it imports what it may not: {}", imports.join(", "))]
    Imports {
        /// Every such import, with the reason.
        imports: Vec<String>,
    },
    /// An export of the ABI is missing or of another type.
    #[error("its export `{export}` {why}")]
    Export {
        /// The name.
        export: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// It asks for more than the operator lets any module have.
    #[error("it asks for {wanted} {what}, and may have {max}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much.
        wanted: u64,
        /// The limit.
        max: u64,
    },
    /// The custom section `themis` does not say what the manifest says.
    #[error("its custom section `themis` {why}")]
    Identity {
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be metered.
    #[error("it cannot be metered: {why}")]
    Unmetered {
        /// The meter's words.
        why: String,
    },
}

impl WasmFault {
    /// What its author can do.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Component => "build a core module: for Rust, the target wasm32-unknown-unknown",
            Self::Malformed { .. } => {
                "leave out threads, exceptions, garbage collection, wide memory and relaxed SIMD"
            }
            Self::Imports { .. } => {
                "import only from `themis`, and list the capabilities in the manifest"
            }
            Self::Export { .. } => "export what the SDK exports",
            Self::TooMuch { .. } => "declare less, or ask the operator for more",
            Self::Identity { .. } => "build it with the manifest's name and version",
            Self::Unmetered { .. } => {
                "leave the names of the meter alone, and split huge functions"
            }
        }
    }

    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Component => "wasm.component",
            Self::Malformed { .. } => "wasm.malformed",
            Self::Imports { .. } => "wasm.imports",
            Self::Export { .. } => "wasm.export",
            Self::TooMuch { .. } => "wasm.too_much",
            Self::Identity { .. } => "wasm.identity",
            Self::Unmetered { .. } => "wasm.unmetered",
        }
    }
}

/// Kinds of traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum TrapKind {
    /// It executed `unreachable`: how a guest aborts.
    Unreachable,
    /// It reached outside of its memory or a table.
    OutOfBounds,
    /// It called through a table what is not there, or is of another type.
    BadCall,
    /// A division by zero, an overflow, or a conversion of what is no number.
    Arithmetic,
    /// It called too deeply.
    StackOverflow,
    /// Any other.
    Other,
}

/// What fuel is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
pub enum Fuel {
    /// One call.
    #[strum(to_string = "`fuel_per_call`")]
    Call,
    /// All calls of one generation: a reload refills it.
    #[strum(to_string = "`fuel_total`: a reload refills it")]
    Total,
}

/// Why a call or hook of a wasm plugin did not return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "stop", rename_all = "kebab-case")]
pub enum Stop {
    /// It did more than its fuel allows.
    #[error("it was stopped: its fuel of {limit} units was used up ({of})")]
    FuelExhausted {
        /// Which fuel.
        of: Fuel,
        /// Units it had.
        limit: u64,
    },
    /// It took longer than it may.
    #[error("it was stopped: {what} did not end within {limit:?}")]
    Deadline {
        /// What it was doing.
        what: Activity,
        /// The limit.
        #[serde(rename = "limit_ms", serialize_with = "crate::lifecycle::as_millis")]
        limit: Duration,
    },
    /// It could not have more memory, and gave up.
    #[error("it was stopped: it wanted more memory than its limit of {limit} bytes")]
    MemoryLimit {
        /// The limit in bytes.
        limit: u64,
    },
    /// It trapped.
    #[error("it trapped ({kind}){}", calls(backtrace))]
    Trap {
        /// In which way.
        kind: TrapKind,
        /// The functions it was in, the innermost first.
        backtrace: Vec<String>,
    },
    /// It does not keep to the ABI.
    #[error("it broke the ABI: {what}")]
    Protocol {
        /// What it did.
        what: String,
    },
    /// A further instance did not start.
    #[error("a further instance of it did not start: {what}")]
    Instance {
        /// Why.
        what: String,
    },
}

impl Stop {
    /// Stable code for programs, metrics and logs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::FuelExhausted { .. } => "wasm.fuel_exhausted",
            Self::Deadline { .. } => "wasm.deadline",
            Self::MemoryLimit { .. } => "wasm.memory_limit",
            Self::Trap { .. } => "wasm.trap",
            Self::Protocol { .. } => "wasm.protocol",
            Self::Instance { .. } => "wasm.instance",
        }
    }
}

fn calls(backtrace: &[String]) -> String {
    match backtrace {
        [] => String::new(),
        calls => format!(" in {}", calls.join(" < ")),
    }
}
