//! How a plugin refuses: a kind and a text for people.

use std::fmt;

/// Whose fault a refusal is: the kernel tells callers apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The plugin understood and could not, or would not.
    Own,
    /// The request is not what the method takes.
    BadRequest,
}

/// A refusal. Any [`std::error::Error`] turns into one of kind [`ErrorKind::Own`], so `?` works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    text: String,
}

impl Error {
    /// The plugin's own error.
    pub fn new(text: impl fmt::Display) -> Self {
        Self { kind: ErrorKind::Own, text: text.to_string() }
    }

    /// The request is not what the method takes.
    pub fn bad_request(text: impl fmt::Display) -> Self {
        Self { kind: ErrorKind::BadRequest, text: text.to_string() }
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text for people.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// `Error` itself is no `std::error::Error`: otherwise this would overlap with `From<T> for T`.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}
