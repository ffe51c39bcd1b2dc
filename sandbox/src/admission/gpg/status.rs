//! gpg's status lines (its `doc/DETAILS`), read as what they are: bytes of a program that read hostile input.
//!
//! gpg escapes line ends in what it quotes, so a line that begins with the prefix is gpg's own. Anything else
//! on this stream, or a line without its end, and none of it counts.

use super::decide::GpgRefusal;
use super::output::{GpgStream, printable};

const PREFIX: &[u8] = b"[GNUPG:] ";

/// What the lines say that matters here.
#[derive(Debug, Default)]
pub(super) struct Report<'a> {
    /// Signatures that gpg began to look at.
    pub(super) started: usize,
    /// `GOODSIG`: its arguments.
    pub(super) good: Vec<Vec<&'a [u8]>>,
    /// `VALIDSIG`: its arguments.
    pub(super) valid: Vec<Vec<&'a [u8]>>,
    /// The first reason not to trust, one about a signature before a general one.
    pub(super) fault: Option<GpgRefusal>,
}

impl<'a> Report<'a> {
    /// Reads standard output of a run.
    pub(super) fn read(stream: &'a GpgStream) -> Result<Self, GpgRefusal> {
        if stream.dropped != 0 {
            return Err(GpgRefusal::StatusTooLong { bytes: stream.total() });
        }
        let mut report = Self::default();
        let Some((last, lines)) = stream.kept.split_last() else {
            return Ok(report);
        };
        if *last != b'\n' {
            return Err(GpgRefusal::StatusCut);
        }
        let mut general = None;
        for line in lines.split(|&byte| byte == b'\n') {
            let Some(line) = line.strip_prefix(PREFIX) else {
                return Err(GpgRefusal::StatusStray { line: printable(line) });
            };
            report.take(line, &mut general);
        }
        report.fault = report.fault.or(general);
        Ok(report)
    }

    fn take(&mut self, line: &'a [u8], general: &mut Option<GpgRefusal>) {
        let mut words = line.split(|&byte| byte == b' ');
        let keyword = words.next().unwrap_or_default();
        let arguments: Vec<&[u8]> = words.collect();
        match keyword {
            b"NEWSIG" => self.started += 1,
            b"GOODSIG" => self.good.push(arguments),
            b"VALIDSIG" => self.valid.push(arguments),
            _ => {
                if let Some(fault) = signature_fault(keyword, &arguments) {
                    self.fault.get_or_insert(fault);
                } else if is_general_fault(keyword) {
                    general.get_or_insert(GpgRefusal::Reported { line: printable(line) });
                }
            }
        }
    }
}

/// What a line says against a signature.
///
/// `KEYEXPIRED`, `SIGEXPIRED` and `KEYREVOKED` are not here: they name no key, and gpg prints them for every
/// subkey it comes across. When it is the signing key, the line is `EXPKEYSIG` or `REVKEYSIG` and there is no
/// `GOODSIG`.
fn signature_fault(keyword: &[u8], arguments: &[&[u8]]) -> Option<GpgRefusal> {
    let key = || printable(arguments.first().copied().unwrap_or_default());
    match keyword {
        b"BADSIG" => Some(GpgRefusal::BadSignature { key: key() }),
        b"EXPSIG" => Some(GpgRefusal::SignatureExpired { key: key() }),
        b"EXPKEYSIG" => Some(GpgRefusal::KeyExpired { key: key() }),
        b"REVKEYSIG" => Some(GpgRefusal::KeyRevoked { key: key() }),
        b"NO_PUBKEY" => Some(GpgRefusal::KeyMissing { key: key() }),
        // Its sixth argument says why: 9 is a missing key.
        b"ERRSIG" if arguments.get(5) == Some(&b"9".as_slice()) => {
            Some(GpgRefusal::KeyMissing { key: key() })
        }
        b"ERRSIG" => Some(GpgRefusal::CannotCheck { key: key() }),
        _ => None,
    }
}

/// Lines that have no place in the check of one detached signature. All others are for information, and new
/// versions of gpg add to them.
fn is_general_fault(keyword: &[u8]) -> bool {
    matches!(
        keyword,
        b"BADARMOR"
            | b"BEGIN_DECRYPTION"
            | b"DECRYPTION_OKAY"
            | b"ERROR"
            | b"FAILURE"
            | b"IMPORTED"
            | b"IMPORT_OK"
            | b"NODATA"
            | b"PLAINTEXT"
            | b"UNEXPECTED"
    )
}
