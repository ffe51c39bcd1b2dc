//! Why a module could not be metered: one variant per cause, each with what a reader needs to act.

use thiserror::Error;

/// Why [`super::instrument`] refused a module.
///
/// Every refusal leaves the caller with no module at all: there is no partly metered result.
#[derive(Debug, Error)]
pub enum MeterError {
    /// The bytes are no module, or use a proposal outside [`super::ACCEPTED`].
    #[error(
        "not an accepted module at byte {offset}: {reason}; compile it with those features off"
    )]
    Invalid {
        /// Distance from the start of the module, in bytes.
        offset: u64,
        /// The validator's words.
        reason: String,
    },
    /// An instruction for which no cost is defined.
    #[error("function {function} uses `{instruction}`, which has no cost; compile it without")]
    UnknownInstruction {
        /// Index of the function in the module as given, imports included.
        function: u32,
        /// The instruction with its operands.
        instruction: String,
    },
    /// A name the meter needs for itself is taken.
    #[error("the {kind} `{name}` belongs to the meter; rename it in the plugin")]
    Reserved {
        /// `import` or `export`.
        kind: &'static str,
        /// The name in question.
        name: String,
    },
    /// The module has so many things of a kind that the meter's own no longer fit.
    #[error("{count} {what}: with the meter's own that is more than {max}; split the plugin")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many the module has.
        count: u64,
        /// How many a module may have.
        max: u64,
    },
    /// A function has so many locals that the meter's own no longer fit.
    #[error(
        "function {function} has {count} locals, no room for the meter's own; split the function"
    )]
    TooManyLocals {
        /// Index of the function in the module as given, imports included.
        function: u32,
        /// Parameters and locals.
        count: u64,
    },
    /// A function would be larger than an engine accepts once it is metered.
    #[error("function {function} takes {bytes} bytes once metered; split the function")]
    FunctionTooLarge {
        /// Index of the function in the module as given, imports included.
        function: u32,
        /// Size of the metered body, in bytes.
        bytes: usize,
    },
    /// The module could be read but not written again.
    #[error("could not write the metered module: {reason}; report this as a defect of the meter")]
    Encoding {
        /// What the encoder said.
        reason: String,
    },
    /// A validated module contradicts itself.
    #[error("function {function} is inconsistent: {what}; report this as a defect of the meter")]
    Inconsistent {
        /// Index of the function in the module as given, imports included.
        function: u32,
        /// What did not fit.
        what: &'static str,
    },
}

impl From<wasmparser::Error> for MeterError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid { offset: error.offset() as u64, reason: error.message().to_owned() }
    }
}

impl From<wasm_encoder::reencode::Error> for MeterError {
    fn from(error: wasm_encoder::reencode::Error) -> Self {
        Self::Encoding { reason: error.to_string() }
    }
}
