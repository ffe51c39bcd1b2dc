//! Programs that print more than anybody wants, or other things than text.

use super::fixtures::{GOOD, Mock, write};
use crate::admission::gpg::GpgRunError;

const FLOOD: u64 = 100_000_000;
const STDOUT: &str = "head -c 100000000 /dev/zero";
const STDERR: &str = "head -c 100000000 /dev/zero >&2";

/// `[status, messages]`, if everything may be printed.
fn totals(script: &str) -> [u64; 2] {
    let mut mock = Mock::new(script);
    mock.limits.output_bytes_max = u64::MAX;
    let output = mock.run().unwrap().output;
    for stream in [&output.status, &output.messages] {
        assert!(stream.kept.len() <= mock.limits.kept_bytes);
        assert_eq!(stream.kept.len() as u64, stream.total().min(mock.limits.kept_bytes as u64));
    }
    [output.status.total(), output.messages.total()]
}

#[test]
fn a_flood_is_read_and_counted_but_not_kept() {
    assert_eq!(totals(STDOUT), [FLOOD, 0]);
    assert_eq!(totals(STDERR), [0, FLOOD]);
    assert_eq!(totals(&format!("{STDOUT}; {STDERR}")), [FLOOD, FLOOD], "one after the other");
    assert_eq!(totals(&format!("{STDERR}; {STDOUT}")), [FLOOD, FLOOD], "the other way round");
    assert_eq!(totals(&format!("{STDERR} & {STDOUT}; wait")), [FLOOD, FLOOD], "at the same time");
}

#[test]
fn a_flood_over_the_cap_is_stopped() {
    let error = GpgRunError::TooMuchOutput { max: 8 << 20 };
    for script in [STDOUT, STDERR, &format!("{STDERR} & {STDOUT}; wait")] {
        let mock = Mock::new(script);
        assert_eq!(mock.run().unwrap_err(), error, "{script}");
        assert_eq!(mock.verdict(), Err("gpg.too_much_output"));
    }
    let endless = Mock::new("echo $$ > \"$DIR/pid\"; exec cat /dev/zero");
    assert_eq!(endless.run().unwrap_err(), error);
    endless.assert_gone("pid");
}

#[test]
fn a_flood_of_messages_does_not_drown_the_status() {
    let mock = Mock::new("head -c 1000000 /dev/zero >&2; cat \"$DIR/out\"");
    write(&mock.path("out"), GOOD.as_bytes());
    assert_eq!(mock.verdict(), Ok(()));
}

#[test]
fn the_cap_is_what_both_streams_may_have_together() {
    let mut mock = Mock::new("head -c 600 /dev/zero; head -c 400 /dev/zero >&2");
    mock.limits.output_bytes_max = 1000;
    assert_eq!(mock.run().unwrap().exit_code, Some(0));
    mock.limits.output_bytes_max = 999;
    assert_eq!(mock.run().unwrap_err().code(), "gpg.too_much_output");
}

#[test]
fn status_lines_that_were_not_kept_are_not_trusted() {
    let mut mock = Mock::printing(GOOD, "", 0);
    mock.limits.kept_bytes = GOOD.len();
    assert_eq!(mock.verdict(), Ok(()));
    mock.limits.kept_bytes -= 1;
    assert_eq!(mock.verdict(), Err("gpg.status_too_long"));
    let padded = format!("{GOOD}{}", "[GNUPG:] PROGRESS x\n".repeat(5000));
    assert_eq!(Mock::printing(padded, "", 0).verdict(), Err("gpg.status_too_long"));
}

#[test]
fn other_things_than_text_break_nothing() {
    let with = |bytes: &[u8]| Mock::printing([GOOD.as_bytes(), bytes].concat(), "", 0).verdict();
    // Within the text of an unknown line there may be anything but a line end.
    assert_eq!(with(b"[GNUPG:] NOTATION_DATA \xff\xfe\0\x1b[2J\r\n"), Ok(()));
    assert_eq!(with(b"\xff\xfe\n"), Err("gpg.status_stray"));
    assert_eq!(with(b"\0\n"), Err("gpg.status_stray"));
    assert_eq!(with(b"\n"), Err("gpg.status_stray"));
    assert_eq!(with(b"[GNUPG:] "), Err("gpg.status_cut"));
    assert_eq!(with(b"[GNUPG:] VALIDSIG 0123"), Err("gpg.status_cut"));
    assert_eq!(with(&vec![b'x'; 7_000_000]), Err("gpg.status_too_long"));
    let no_end = Mock::new("head -c 10000000 /dev/zero | tr '\\0' x");
    assert_eq!(no_end.verdict(), Err("gpg.too_much_output"));
}
