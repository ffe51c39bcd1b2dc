//! The framing of a signature file: exactly one signature packet (RFC 9580, 4.2).
//!
//! gpg is content with more: of several signatures it may check only the first and say nothing of the rest.

use std::borrow::Cow;

use super::armor;

/// The number of the signature packet.
const SIGNATURE: u8 = 2;

/// Why a file is not one detached signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFileFault {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is text, but not an armored signature.
    #[error("it is no armored signature: {why}")]
    Armor {
        /// What is wrong.
        why: &'static str,
    },
    /// It carries a message with its signature.
    #[error("it is a signed message, not a detached signature: sign with `gpg --detach-sign`")]
    NotDetached,
    /// It begins with another packet.
    #[error("it is no signature: it begins with an OpenPGP packet of type {tag}")]
    NotASignature {
        /// The packet's type.
        tag: u8,
    },
    /// It has more than one signature.
    #[error("it has more than one signature: exactly one counts")]
    Several,
    /// Something follows the signature.
    #[error("something follows the signature")]
    Trailing,
    /// It ends within the packet, or does not say where the packet ends.
    #[error("it is cut off, or does not say how long the signature is")]
    Cut,
}

impl SignatureFileFault {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "gpg.signature_empty",
            Self::Armor { .. } => "gpg.signature_armor",
            Self::NotDetached => "gpg.signature_not_detached",
            Self::NotASignature { .. } => "gpg.signature_wrong_packet",
            Self::Several => "gpg.several_signatures",
            Self::Trailing => "gpg.signature_trailing",
            Self::Cut => "gpg.signature_cut",
        }
    }
}

/// The one signature packet in a signature file, binary or armored.
pub(super) fn only_signature(file: &[u8]) -> Result<Cow<'_, [u8]>, SignatureFileFault> {
    // The first bit of every packet is set, and text is ASCII where armor begins.
    let packets = match file.first() {
        Some(first) if first & 0x80 != 0 => Cow::Borrowed(file),
        Some(_) => Cow::Owned(armor::decode(file)?),
        None => return Err(SignatureFileFault::Empty),
    };
    let header = Header::parse(&packets)?;
    match header.tag {
        SIGNATURE => {}
        // A one-pass signature, compressed data or a literal: a message with its signature.
        4 | 8 | 11 => return Err(SignatureFileFault::NotDetached),
        tag => return Err(SignatureFileFault::NotASignature { tag }),
    }
    let rest = header.end.and_then(|end| packets.get(end..)).ok_or(SignatureFileFault::Cut)?;
    if rest.is_empty() {
        return Ok(packets);
    }
    match Header::parse(rest) {
        Ok(Header { tag: SIGNATURE, .. }) => Err(SignatureFileFault::Several),
        Ok(_) | Err(_) => Err(SignatureFileFault::Trailing),
    }
}

/// The beginning of a packet.
struct Header {
    tag: u8,
    /// Where the packet ends; `None` when it does not say or that is beyond counting.
    end: Option<usize>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, SignatureFileFault> {
        let (&first, rest) = bytes.split_first().ok_or(SignatureFileFault::Empty)?;
        match first >> 6 {
            0b11 => Ok(Self { tag: first & 0x3f, end: new_length(rest) }),
            0b10 => Ok(Self { tag: (first >> 2) & 0x0f, end: old_length(first & 3, rest) }),
            _ => Err(SignatureFileFault::Trailing),
        }
    }
}

/// The end of a packet whose header is the type byte, `length_bytes` more, and then `body` bytes.
fn end(length_bytes: usize, body: u32) -> Option<usize> {
    usize::try_from(body).ok()?.checked_add(length_bytes)?.checked_add(1)
}

fn new_length(rest: &[u8]) -> Option<usize> {
    match *rest {
        [one @ ..192, ..] => end(1, u32::from(one)),
        [high @ 192..=223, low, ..] => end(2, (u32::from(high - 192) << 8) + u32::from(low) + 192),
        [255, a, b, c, d, ..] => end(5, u32::from_be_bytes([a, b, c, d])),
        // From 224 on a part of a body in several parts, which only data may have.
        _ => None,
    }
}

fn old_length(kind: u8, rest: &[u8]) -> Option<usize> {
    match (kind, rest) {
        (0, &[one, ..]) => end(1, u32::from(one)),
        (1, &[a, b, ..]) => end(2, u32::from(u16::from_be_bytes([a, b]))),
        (2, &[a, b, c, d, ..]) => end(4, u32::from_be_bytes([a, b, c, d])),
        // Kind 3 goes on to the end of the file.
        _ => None,
    }
}

#[cfg(test)]
mod tests;
