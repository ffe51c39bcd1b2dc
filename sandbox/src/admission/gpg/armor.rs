//! ASCII armor: a signature as text. Strict, so that there is one reading of it.
//!
//! ```text
//! BEGIN line ─▶ "Name: value" lines ─▶ empty line ─▶ base64 lines ─▶ "=" checksum (if any) ─▶ END line
//! ```
//!
//! The checksum is not compared: what it protects is signed, and newer standards drop it.

use super::packet::SignatureFileFault;

const BEGIN: &[u8] = b"-----BEGIN PGP SIGNATURE-----";
const END: &[u8] = b"-----END PGP SIGNATURE-----";

const fn fault(why: &'static str) -> SignatureFileFault {
    SignatureFileFault::Armor { why }
}

/// The bytes inside the one armored block that `text` is.
pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, SignatureFileFault> {
    // Old signers end lines with CR LF or leave spaces behind.
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    let mut lines = lines.skip_while(|line| line.is_empty());
    match lines.next() {
        Some(line) if line == BEGIN => {}
        Some(b"-----BEGIN PGP SIGNED MESSAGE-----" | b"-----BEGIN PGP MESSAGE-----") => {
            return Err(SignatureFileFault::NotDetached);
        }
        Some(_) => return Err(fault("its first line does not begin a PGP SIGNATURE block")),
        None => return Err(SignatureFileFault::Empty),
    }
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if !line.windows(2).any(|pair| pair == b": ") && !line.ends_with(b":") {
            return Err(fault("the empty line after its headers is missing"));
        }
    }
    let mut base64 = Vec::new();
    let mut line = lines.next();
    while let Some(digits) = line.filter(|line| !line.starts_with(b"=") && *line != END) {
        base64.extend_from_slice(digits);
        line = lines.next();
    }
    if line.is_some_and(|line| line != END) {
        line = lines.next();
    }
    if line != Some(END) {
        return Err(fault("its last line does not end a PGP SIGNATURE block"));
    }
    match lines.find(|line| !line.is_empty()) {
        None => decode_base64(&base64),
        Some(line) if line == BEGIN => Err(SignatureFileFault::Several),
        Some(_) => Err(fault("there is text after its last line")),
    }
}

/// Whole groups of four digits; only the last may be padded, and then with no bits left over.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, SignatureFileFault> {
    let wrong = || fault("it is not base64");
    let (groups, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(wrong());
    }
    let mut bytes = Vec::with_capacity(groups.len().saturating_mul(3));
    for (index, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|&&digit| digit == b'=').count();
        let last = index + 1 == groups.len();
        if padding > 2 || (padding > 0 && !last) {
            return Err(wrong());
        }
        let mut bits = 0_u32;
        for &digit in group.iter().take(4 - padding) {
            bits = (bits << 6) | u32::from(value(digit).ok_or_else(wrong)?);
        }
        bits <<= 6 * padding;
        let [_, three @ ..] = bits.to_be_bytes();
        let (whole, left_over) = three.split_at(3 - padding);
        if left_over.iter().any(|&byte| byte != 0) {
            return Err(wrong());
        }
        bytes.extend_from_slice(whole);
    }
    Ok(bytes)
}

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
