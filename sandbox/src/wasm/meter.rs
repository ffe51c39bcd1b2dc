//! Meters a wasm module: a rewrite of its code, before compilation, that counts what a guest does and stops it in time.
//!
//! ```text
//!   module ──▶ survey ──▶ per body: regions ──▶ unroll ──▶ emit ──▶ rewrite ──▶ metered module
//!            (validate,     what is owed          which      charges,    indices, sections,
//!             index spaces) and when              loops      checks      names
//! ```
//!
//! The guest counts down a global, [`FUEL_EXPORT`], of its own. At loop headers, function entries and before operations
//! on many bytes it looks whether that is negative; if so it calls the import [`REFILL_MODULE`]`.`[`REFILL_FIELD`] with
//! what is left, and the host grants more ([`Tank`]) or traps: one mechanism for budgets, deadlines and yielding.
//!
//! **Exact.** Every instruction costs what [`cost`] says. A region, which runs as a whole or not at all, is charged at its
//! head (`regions`), and what of it does not run after all is given back (`ahead`), so a call that returns has paid for
//! exactly what it ran: the same for the same input, whatever the slices, the unrolling and the machine. No check sees what
//! may yet be given back, so that a budget of exactly that suffices.
//!
//! **Bounded.** Every cycle of control passes a check: in a loop, or at the entry of a function that calls. Between two
//! checks a guest runs each instruction of a function at most 2 × `unroll` times (`copies`, `strips`), of each loop at its own
//! pace as many iterations as cost 2¹⁴ units, each instruction counted once (`pace`), and in each call at most one leaf of 64
//! units. Function bodies are bounded, so what is spent past a slice is too (below 2⁴⁰ units), and the global cannot wrap.
//!
//! **A trap** loses what was charged since the last write to the global, also for what it kept from running: at most one
//! function's way since its last call, or the loop iterations since its last check. What it leaves depends on module, input
//! and [`Options`], not on slices.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "instructions and sections are many and become more: what is not named passes unchanged"
)]

mod added;
mod ahead;
mod copies;
mod counted;
mod emit;
mod error;
mod keep;
mod limits;
mod loops;
mod pace;
mod regions;
mod rewrite;
mod strips;
mod survey;
mod tank;
mod unroll;

pub mod cost;

use wasm_encoder::Module;
use wasm_encoder::reencode::Reencode;
use wasmparser::Parser;

use added::Added;
use emit::{Metered, Source};
use regions::Regions;
use rewrite::{Layout, Rewriter};
use survey::Survey;
use unroll::Allowance;

pub use error::MeterError;
pub use survey::ACCEPTED;
pub use tank::{Exhausted, Tank};

/// Name of the exported global that holds what is left of the slice: a mutable `i64`, 0 in a new instance. The NUL keeps
/// it clear of anything a compiler would write.
pub const FUEL_EXPORT: &str = "themis\u{0}fuel";
/// Module of the import through which a guest asks for fuel.
pub const REFILL_MODULE: &str = "themis";
/// Field of that import, `(left: i64) -> grant: i64`: `left` is negative when more was spent than granted.
pub const REFILL_FIELD: &str = "refill";

/// A metered module has at most this many bytes for each it had as it was, besides [`GROWTH_BYTES_MAX`]. What comes near
/// are bulk operations without operands between them: two bytes that become a charge, a check and a write. What compilers
/// write grows by two thirds, copies of loops aside.
pub const GROWTH_FACTOR_MAX: usize = 40;
/// What the meter adds to the smallest module, the copies of loops that every module may have included.
pub const GROWTH_BYTES_MAX: usize = 128 << 10;

/// Most parameters and locals a function may have.
const LOCALS_MAX: u64 = 50_000;
/// Most locals the meter adds to a function.
const LOCALS_ADDED: u64 = 5 + pace::PACES_MAX as u64;

/// How a module is metered. What it costs to run does not depend on it; what its code looks like does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Options {
    /// Most copies of an innermost loop's body, 1 to 8. One check pays for all of them; 1 leaves loops as they are.
    pub unroll: u8,
    /// How much all copies together may add to the code, in percent of its size; 16 KiB are always allowed.
    pub growth_percent: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { unroll: 8, growth_percent: 50 }
    }
}

/// A metered module and what was done to it.
#[derive(Debug)]
pub struct Instrumented {
    /// The module.
    pub module: Vec<u8>,
    /// How many checks it contains.
    pub checks: usize,
    /// How many of its loops were unrolled.
    pub unrolled: usize,
}

/// Meters a module.
///
/// # Errors
/// A [`MeterError`] for a module that is invalid, uses a proposal outside [`ACCEPTED`], takes the meter's names or leaves no
/// room for what it adds.
pub fn instrument(module: &[u8], options: &Options) -> Result<Instrumented, MeterError> {
    rewrite(module, options, true)
}

/// Unrolls loops as [`instrument`] does, and meters nothing: to measure what of a gain is the unrolling's. Never for guests.
///
/// # Errors
/// As [`instrument`].
#[doc(hidden)]
pub fn unroll_without_meter(module: &[u8], options: &Options) -> Result<Instrumented, MeterError> {
    rewrite(module, options, false)
}

fn rewrite(module: &[u8], options: &Options, metering: bool) -> Result<Instrumented, MeterError> {
    let survey = Survey::of(module)?;
    let defined = u32::try_from(survey.function_types.len()).unwrap_or(u32::MAX);
    let layout = Layout {
        imported: survey.imported_functions,
        topup: survey.imported_functions.saturating_add(defined).saturating_add(1),
        fuel: survey.globals,
    };
    let mut added = Added::to(&survey, layout)?;
    let code_bytes = survey.bodies.iter().map(|body| body.range().len()).sum();
    let mut allowance = Allowance::new(options, code_bytes);
    let mut unrolled = 0_usize;
    let mut bodies = Vec::with_capacity(survey.bodies.len());
    for defined in 0..survey.bodies.len() {
        let (metered, loops) = body(&survey, &mut added, &mut allowance, defined, metering)?;
        unrolled = unrolled.saturating_add(loops);
        bodies.push(metered);
    }
    let checks = bodies.iter().map(|metered| metered.checks).sum();
    survey::room("types", survey.types.len() as u64, added.types.len() as u64)?;
    survey::room("globals", u64::from(survey.globals), added.slots.len() as u64 + 1)?;
    let types = u32::try_from(survey.types.len()).unwrap_or(u32::MAX);
    let mut rewriter = Rewriter { layout, types, added, bodies };
    let mut output = Module::new();
    rewriter.parse_core_module(&mut output, Parser::new(0), module)?;
    Ok(Instrumented { module: output.finish(), checks, unrolled })
}

/// Meters one body, and tells how many of its loops were unrolled.
fn body(
    survey: &Survey<'_>,
    added: &mut Added,
    allowance: &mut Allowance,
    defined: usize,
    metering: bool,
) -> Result<(Metered, usize), MeterError> {
    let layout = added.layout;
    let function = u32::try_from(defined).unwrap_or(u32::MAX).saturating_add(layout.imported);
    let (Some(body), Some(signature)) = (survey.bodies.get(defined), survey.signature(defined))
    else {
        return Err(MeterError::Inconsistent { function, what: "a body without a type" });
    };
    let mut locals = 0_u64;
    for pair in body.get_locals_reader()? {
        locals = locals.saturating_add(u64::from(pair?.0));
    }
    let count = locals.saturating_add(signature.parameters.len() as u64);
    if count.saturating_add(LOCALS_ADDED) > LOCALS_MAX {
        return Err(MeterError::TooManyLocals { function, count });
    }
    let regions = Regions::of(survey, signature, function, body, locals)?;
    let unrolled = allowance.choose(&regions);
    let frame = if regions.leaves_by_branch { Some(added.block(signature)?) } else { None };
    let source = Source {
        function,
        body,
        locals: u32::try_from(count).unwrap_or(u32::MAX),
        parameters: &signature.parameters,
        regions: &regions,
        unrolled: &unrolled,
        frame,
        metering,
    };
    Ok((emit::emit(added, &source)?, unrolled.len()))
}

#[cfg(test)]
mod tests;
