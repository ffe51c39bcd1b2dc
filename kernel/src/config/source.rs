//! The text of a configuration file, and where in it something is.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};

/// One file as it was read.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    /// What relative paths are relative to.
    pub(super) base_dir: &'a Path,
    /// For messages.
    pub(super) path: &'a Path,
}

impl Source<'_> {
    /// A path as the file means it.
    pub(super) fn resolve(&self, path: &Spanned<String>) -> Result<PathBuf, ConfigError> {
        let text = path.get_ref();
        if text.is_empty() || text.contains('\0') {
            return Err(self.invalid(path.span(), "a path must not be empty or contain NUL"));
        }
        Ok(self.base_dir.join(text))
    }

    pub(super) fn invalid(&self, span: Range<usize>, what: impl Into<String>) -> ConfigError {
        ConfigError::Invalid { at: self.place(span.start), what: what.into() }
    }

    pub(super) fn unsupported(&self, span: Range<usize>, what: impl Into<String>) -> ConfigError {
        ConfigError::Unsupported { at: self.place(span.start), what: what.into() }
    }

    /// What the TOML library says, on one line.
    pub(super) fn not_toml(&self, error: &toml::de::Error) -> ConfigError {
        let what = error.message().replace('\n', ": ");
        let span = error.span().unwrap_or_default();
        let mut at = self.place(span.start);
        // What is said of the file as a whole is not about the key it happens to start with.
        if span.is_empty() {
            at.key.clear();
        }
        ConfigError::Invalid { at, what }
    }

    /// Line, column and key at a byte of the text.
    pub(super) fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let in_line = before.get(line_start..).unwrap_or_default();
        Place {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: in_line.chars().count() + 1,
            key: self.key_at(offset).unwrap_or_default(),
        }
    }

    /// The key that the byte belongs to: its own name, or its value.
    fn key_at(&self, offset: usize) -> Option<String> {
        let (root, _faults) = DeTable::parse_recoverable(self.text);
        in_table(root.get_ref(), offset)
    }
}

fn in_table(table: &DeTable<'_>, offset: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        if let Some(inner) = in_value(value, offset) {
            let dot = if inner.is_empty() || inner.starts_with('[') { "" } else { "." };
            return Some(format!("{name}{dot}{inner}"));
        }
        key.span().contains(&offset).then(|| name.to_string())
    })
}

/// The rest of the key inside a value; empty for the value itself.
fn in_value(value: &Spanned<DeValue<'_>>, offset: usize) -> Option<String> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => in_table(table, offset),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, item)| {
            let inner = in_value(item, offset)?;
            let dot = if inner.is_empty() || inner.starts_with('[') { "" } else { "." };
            Some(format!("[{index}]{dot}{inner}"))
        }),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    };
    inner.or_else(|| value.span().contains(&offset).then(String::new))
}
