//! When something happened, told by two clocks and the boot they count from.

use std::fmt;

use crate::audit_log::error::AuditError;

const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// One reading of both clocks: people read the wall clock, which can be set; order within one boot is told by
/// the other, which cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Wall clock, UTC.
    pub time: jiff::Timestamp,
    /// Nanoseconds since the machine started, time asleep included.
    pub mono_ns: u64,
}

impl Moment {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(since_boot.tv_nsec).unwrap_or_default();
        let mono_ns = seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self { time: jiff::Timestamp::now(), mono_ns }
    }
}

/// Which boot of the machine [`Moment::mono_ns`] counts from: 36 characters, as Linux writes a UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootId(String);

impl BootId {
    /// Asks the system.
    ///
    /// # Errors
    /// [`AuditError::BootId`] when it does not say, or not as a UUID.
    pub fn of_system() -> Result<Self, AuditError> {
        let text = std::fs::read_to_string(BOOT_ID_FILE)
            .map_err(|error| AuditError::BootId { what: error.to_string() })?;
        Self::parse(text.trim_end())
    }

    /// Takes a UUID in lower case.
    ///
    /// # Errors
    /// [`AuditError::BootId`] when it is none.
    pub fn parse(text: &str) -> Result<Self, AuditError> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'-';
        if text.len() == 36 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AuditError::BootId { what: "it is not a UUID in lower case".to_owned() })
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_reading_is_not_before_the_first() {
        let (first, second) = (Moment::now(), Moment::now());
        assert!(first.mono_ns > 0);
        assert!(second.mono_ns >= first.mono_ns);
    }

    #[test]
    fn a_boot_id_is_a_uuid_and_stays_the_same() {
        assert_eq!(BootId::of_system().unwrap(), BootId::of_system().unwrap());
        for bad in [
            "",
            "0",
            "00000000-0000-0000-0000-00000000000g",
            "00000000-0000-0000-0000-0000000000000",
        ] {
            assert!(BootId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
