//! What one run of gpg came to: how it ended and what it printed.

use std::fmt::{self, Write as _};

/// A finished run. It is no verdict: see [`decide`](super::decide()).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpgResult {
    /// gpg's exit code; `None` when a signal ended it.
    pub exit_code: Option<i32>,
    /// The number of the signal that ended it, if one did.
    pub signal: Option<i32>,
    /// What it printed.
    pub output: GpgOutput,
}

/// Both streams of a run, kept apart because only one of them counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpgOutput {
    /// Standard output: status lines for programs.
    pub status: GpgStream,
    /// Standard error: messages for people, in parts under the control of whoever made key and signature.
    pub messages: GpgStream,
}

/// The beginning of a stream, and how much more there was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpgStream {
    /// The first bytes, up to [`GpgLimits::kept_bytes`](super::GpgLimits::kept_bytes).
    pub kept: Vec<u8>,
    /// How many bytes came after those.
    pub dropped: u64,
}

impl GpgStream {
    /// Everything that came, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.dropped.saturating_add(self.kept.len() as u64)
    }

    /// Takes what was read, keeping `max` bytes altogether.
    pub(super) fn push(&mut self, bytes: &[u8], max: usize) {
        let room = max.saturating_sub(self.kept.len());
        let (keep, drop) = bytes.split_at(room.min(bytes.len()));
        self.kept.extend_from_slice(keep);
        self.dropped = self.dropped.saturating_add(drop.len() as u64);
    }
}

/// As text for a log or a terminal, which nothing in it can steer: control characters are escaped.
impl fmt::Display for GpgStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in String::from_utf8_lossy(&self.kept).chars() {
            // Other characters that end a line or turn the direction of text are no control characters.
            let steers = matches!(character, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
            match character {
                '\n' => f.write_char('\n')?,
                other if other.is_control() || steers => write!(f, "{}", other.escape_unicode())?,
                other => f.write_char(other)?,
            }
        }
        match self.dropped {
            0 => Ok(()),
            more => write!(f, "\n[{more} more bytes]"),
        }
    }
}

/// Messages for people first, then the status lines.
impl fmt::Display for GpgOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.messages, self.status)
    }
}

/// Bytes of unknown origin for an error message: short, printable ASCII, on one line.
pub(super) fn printable(bytes: &[u8]) -> String {
    const MAX: usize = 120;
    let shown = bytes.iter().take(MAX);
    let mut text: String = shown
        .map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' })
        .collect();
    if bytes.len() > MAX {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_keeps_its_beginning_and_counts_the_rest() {
        let mut stream = GpgStream::default();
        stream.push(b"abc", 5);
        stream.push(b"defg", 5);
        stream.push(b"hi", 5);
        assert_eq!(stream, GpgStream { kept: b"abcde".to_vec(), dropped: 4 });
        assert_eq!(stream.total(), 9);
        assert_eq!(stream.to_string(), "abcde\n[4 more bytes]");
    }

    #[test]
    fn text_for_people_cannot_steer_a_terminal() {
        let kept = b"a\x1b[2J\rb\0\xff\xe2\x80\xae\nc".to_vec();
        let text = GpgStream { kept, dropped: 0 }.to_string();
        assert_eq!(text, "a\\u{1b}[2J\\u{d}b\\u{0}\u{fffd}\\u{202e}\nc");
        assert_eq!(printable(b"a\nb\xff"), "a?b?");
        assert_eq!(printable(&[b'x'; 500]).len(), 123);
    }
}
