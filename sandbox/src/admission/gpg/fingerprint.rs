//! Fingerprints of OpenPGP keys: what the operator pins and what gpg names.

use std::fmt;

/// The fingerprint of a key: 40 (version 4) or 64 (version 5 and 6) upper-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(String);

/// The text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no key fingerprint: write the 40 or 64 digits that `gpg --fingerprint` shows, in upper \
     case, without spaces; a key id is too short to be pinned"
)]
pub struct FingerprintError {
    /// What was given, at most its first 80 characters.
    pub text: String,
}

impl FingerprintError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "gpg.fingerprint"
    }
}

impl Fingerprint {
    /// Takes exactly the digits: one spelling per key.
    ///
    /// # Errors
    /// [`FingerprintError`].
    pub fn parse(text: &str) -> Result<Self, FingerprintError> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
        if matches!(text.len(), 40 | 64) && text.bytes().all(is_digit) {
            return Ok(Self(text.to_owned()));
        }
        Err(FingerprintError { text: text.chars().take(80).collect() })
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether gpg may call this key by `name`: its fingerprint or its 16-digit id, which is the end of a
    /// version 4 fingerprint and the beginning of a longer one.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let id_fits = match self.0.len() {
            40 => self.0.ends_with(name),
            _ => self.0.starts_with(name),
        };
        name == self.0 || (name.len() == 16 && id_fits)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        Self::parse(text)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_is_a_fingerprint() {
        let v4 = "0123456789ABCDEF0123456789ABCDEF01234567";
        let v5 = "0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF";
        assert_eq!(Fingerprint::parse(v4).unwrap().as_str(), v4);
        assert_eq!(v5.parse::<Fingerprint>().unwrap().to_string(), v5);
        for wrong in ["", &v4[1..], &v4.to_lowercase(), &format!("{v4}\n"), &format!(" {v4}"), "é"]
        {
            let error = Fingerprint::parse(wrong).unwrap_err();
            assert_eq!((error.code(), error.text.as_str()), ("gpg.fingerprint", wrong));
        }
        // As many bytes, but not as many digits.
        assert!(Fingerprint::parse(&"é".repeat(20)).is_err());
        assert_eq!(Fingerprint::parse(&"A".repeat(5000)).unwrap_err().text.len(), 80);
    }

    #[test]
    fn a_key_is_named_by_the_right_end_of_its_fingerprint() {
        let v4 = Fingerprint::parse("0000000000000000AAAAAAAA1111111111111111").unwrap();
        assert!(v4.is_named("1111111111111111") && v4.is_named(v4.as_str()));
        assert!(!v4.is_named("0000000000000000") && !v4.is_named("11111111") && !v4.is_named(""));
        let v5 = Fingerprint::parse(&format!("{}{}", "2".repeat(16), "3".repeat(48))).unwrap();
        assert!(v5.is_named(&"2".repeat(16)) && !v5.is_named(&"3".repeat(16)));
    }
}
