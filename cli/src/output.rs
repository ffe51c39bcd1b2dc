//! What the program prints: tables and sentences for people, JSON for programs, one line for a failure.

use std::io::{Write, stderr, stdout};

use comfy_table::Table;
use serde::Serialize;
use serde_json::json;

/// A refused or failed operation: a stable code and what, where, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: impl Into<String>, message: impl ToString) -> Self {
        Self { code: code.into(), message: message.to_string() }
    }
}

macro_rules! from_coded {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.code(), error)
            }
        }
    )*};
}
from_coded!(
    themis_kernel::ConfigError,
    themis_kernel::StartError,
    themis_kernel::StoreFault,
    themis_kernel::ab::assign::WeightsError,
    themis_kernel::ab::simulate::ScenarioError,
    themis_kernel::ab::spec::ExperimentError,
    themis_kernel::admission::KeyError,
    themis_kernel::admission::SignError,
    themis_kernel::admission::VerifyError,
    themis_kernel::admit::AdmitError,
    themis_kernel::call::CallError,
    themis_kernel::conformance::PrepareError,
    themis_kernel::lifecycle::KernelFault,
    themis_kernel::lifecycle::LoadError,
    themis_kernel::lifecycle::ReleaseError,
    themis_kernel::lifecycle::RollbackError,
    themis_kernel::lifecycle::UnloadError,
    themis_kernel::market::RegistryError,
    themis_kernel::registry::publish::PublishError,
    themis_kernel::sandbox::OfflineError,
    themis_kernel::persistence::audit_log::error::AuditError,
    themis_kernel::persistence::audit_log::error::VerifyFailure,
    themis_kernel::persistence::store::error::StoreError,
);

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    /// For programs.
    pub(crate) json: bool,
}

impl Printer {
    /// Prints a value for programs, or what `people` makes of it.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string_pretty(value)
                .map_err(|error| Failure::new("output.json", error))?
        } else {
            people(value)
        };
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Prints bytes as they are.
    pub(crate) fn raw(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|error| Failure::new("output.write", error))
    }

    /// Says something on the way, to people only. A reader that has gone away misses nothing that matters.
    pub(crate) fn say(self, line: &str) {
        if !self.json {
            drop(writeln!(stdout(), "{line}"));
        }
    }

    /// Says what went wrong. Nothing is left to do when even that cannot be written.
    pub(crate) fn fail(self, failure: &Failure) {
        let Failure { code, message } = failure;
        let line = if self.json {
            json!({"error": {"code": code, "message": message}}).to_string()
        } else {
            format!("themis: {code}: {}", clean(message))
        };
        drop(writeln!(stderr(), "{line}"));
    }
}

/// A table with a header.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(header.map(|title| title.to_uppercase()));
    for row in rows {
        table.add_row(row.map(|cell| clean(&cell)));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A value for people: a text without its quotes.
pub(crate) fn bare(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// One line that cannot steer a terminal: texts come from plugins, files and manifests.
pub(crate) fn clean(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_steers_the_terminal() {
        assert_eq!(clean("a\nb\r\u{1b}[2J\u{202e}c São"), "a b  [2J c São");
    }
}
