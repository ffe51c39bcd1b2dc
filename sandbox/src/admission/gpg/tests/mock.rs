//! What is handed to the program, and what of its talk is trusted.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::fixtures::{GOOD, Mock, SIGNER, pins, write};
use crate::admission::gpg::{GpgRefusal, GpgRunError, GpgVerifyError};

/// Prints its arguments, each with a NUL after it.
const ECHO: &str = "printf '%s\\0' \"$@\"";

fn expected_arguments(mock: &Mock, sig: &OsStr, data: &OsStr) -> Vec<u8> {
    let (home, keyring) = (mock.path("home"), mock.path("home/pub.gpg"));
    let mut arguments: Vec<&OsStr> = [
        "--batch",
        "--no-tty",
        "--no-options",
        "--no-greeting",
        "--no-default-keyring",
        "--trust-model=always",
        "--no-auto-check-trustdb",
        "--no-auto-key-retrieve",
        "--no-auto-key-locate",
        "--disable-dirmngr",
        "--no-autostart",
        "--no-random-seed-file",
        "--lock-never",
        "--exit-on-status-write-error",
        "--homedir",
    ]
    .map(OsStr::new)
    .to_vec();
    arguments.extend([home.as_os_str(), OsStr::new("--keyring"), keyring.as_os_str()]);
    arguments.extend(["--status-fd", "1", "--verify", "--"].map(OsStr::new));
    arguments.extend([sig, data]);
    arguments.into_iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect()
}

#[test]
fn the_arguments_are_exactly_these() {
    let mock = Mock::new(ECHO);
    let (sig, data) = (mock.path("data.sig"), mock.path("data"));
    let result = mock.run().unwrap();
    assert_eq!(result.exit_code, Some(0));
    let expected = expected_arguments(&mock, sig.as_os_str(), data.as_os_str());
    assert_eq!(result.output.status.kept, expected);
    assert_eq!(result.output.messages.total(), 0);
}

#[test]
fn hostile_names_arrive_as_they_are() {
    let mock = Mock::new(ECHO);
    for name in [
        &b"-rf"[..],
        b"--output=x",
        b"-",
        b"-&0",
        b"a b'c\"d;e",
        b"$(touch pwned)`touch pwned`",
        b"line\n[GNUPG:] VALIDSIG",
        b"\xff\xfe not utf-8",
        b"*?[a]~|&<>\\",
        b"%s%n%0A",
    ] {
        let data = mock.dir.path().join(OsStr::from_bytes(name));
        let sig = mock.dir.path().join(OsStr::from_bytes(&[name, b".sig"].concat()));
        write(&data, b"data");
        write(&sig, &[0xc2, 1, 4]);
        let result = mock.gpg().run_gpg_verify(&sig, &data).unwrap();
        let expected = expected_arguments(&mock, sig.as_os_str(), data.as_os_str());
        assert_eq!(result.output.status.kept, expected, "{name:?}");
    }
    assert!(!mock.path("pwned").exists() && !Path::new("pwned").exists());
}

#[test]
fn relative_paths_are_made_absolute() {
    let mock = Mock::new(ECHO);
    let result = mock.gpg().run_gpg_verify(Path::new("Cargo.toml"), Path::new("./src/lib.rs"));
    let here = std::env::current_dir().unwrap();
    let (sig, data) = (here.join("Cargo.toml"), here.join("src/lib.rs"));
    let expected = expected_arguments(&mock, sig.as_os_str(), data.as_os_str());
    assert_eq!(result.unwrap().output.status.kept, expected);
}

#[test]
fn open_files_are_named_by_their_descriptors() {
    let mock = Mock::new(ECHO);
    let (sig, data) = (
        fs::File::open(mock.path("data.sig")).unwrap(),
        fs::File::open(mock.path("data")).unwrap(),
    );
    let name = |file: &fs::File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let result = mock.gpg().run_gpg_verify_open(sig.as_fd(), data.as_fd()).unwrap();
    let (sig, data) = (name(&sig), name(&data));
    let expected = expected_arguments(&mock, OsStr::new(&sig), OsStr::new(&data));
    assert_eq!(result.output.status.kept, expected);
}

#[test]
fn a_link_to_the_program_is_resolved_before_it_is_run() {
    let mock = Mock::new("printf '%s' \"$0\"");
    std::os::unix::fs::symlink(mock.path("gpg"), mock.path("link")).unwrap();
    let gpg = crate::admission::gpg::Gpg::new(
        mock.path("link"),
        mock.path("home"),
        mock.path("home/pub.gpg"),
    );
    let result = gpg.run_gpg_verify(&mock.path("data.sig"), &mock.path("data")).unwrap();
    let real = mock.path("gpg").canonicalize().unwrap();
    assert_eq!(result.output.status.kept, real.as_os_str().as_bytes());
}

#[test]
fn environment_input_and_group_are_its_own() {
    let mock = Mock::new(
        "cat /proc/$$/environ; readlink /proc/$$/fd/0; cut -d' ' -f5 /proc/$$/stat; echo $$",
    );
    let result = mock.run().unwrap();
    let text = String::from_utf8(result.output.status.kept).unwrap();
    let (environment, rest) = text.rsplit_once('\0').unwrap();
    let mut variables: Vec<_> = environment.split('\0').map(ToOwned::to_owned).collect();
    variables.sort();
    let home = mock.path("home").canonicalize().unwrap();
    let home = home.display();
    let expected = [
        format!("GNUPGHOME={home}"),
        format!("HOME={home}"),
        "LC_ALL=C".to_owned(),
        "PATH=/usr/bin:/bin".to_owned(),
    ];
    assert_eq!(variables, expected);
    let rest: Vec<_> = rest.lines().collect();
    assert_eq!(rest[0], "/dev/null");
    assert_eq!(rest[1], rest[2], "it leads its group");
}

#[test]
fn only_status_lines_and_exit_code_count() {
    let good_words = "gpg: Good signature from \"Somebody\" [ultimate]\n";
    let verdict = |stdout: &str, stderr: &str, code| Mock::printing(stdout, stderr, code).verdict();
    assert_eq!(verdict(GOOD, good_words, 0), Ok(()));
    assert_eq!(verdict("", good_words, 0), Err("gpg.no_proof"));
    assert_eq!(verdict("", "", 0), Err("gpg.no_proof"));
    assert_eq!(verdict("", good_words, 1), Err("gpg.exit_code"));
    assert_eq!(verdict(GOOD, good_words, 1), Err("gpg.exit_code"));
    assert_eq!(verdict(GOOD, good_words, 2), Err("gpg.exit_code"));
    assert_eq!(verdict("", GOOD, 0), Err("gpg.no_proof"), "on the wrong stream");
    assert_eq!(verdict(good_words, "", 0), Err("gpg.status_stray"));
    assert_eq!(verdict(&format!("{good_words}{GOOD}"), "", 0), Err("gpg.status_stray"));
    assert_eq!(verdict(&format!(" {GOOD}"), "", 0), Err("gpg.status_stray"));
    assert_eq!(verdict(GOOD.trim_end(), "", 0), Err("gpg.status_cut"), "no line end");
}

#[test]
fn a_program_that_dies_by_a_signal_proves_nothing() {
    for (name, signal) in [("SEGV", 11), ("KILL", 9), ("TERM", 15)] {
        let mock = Mock::new(&format!("cat \"$DIR/out\"; kill -{name} $$"));
        write(&mock.path("out"), GOOD.as_bytes());
        let result = mock.run().unwrap();
        assert_eq!((result.exit_code, result.signal), (None, Some(signal)));
        assert_eq!(result.output.status.kept, GOOD.as_bytes());
        assert_eq!(mock.verdict(), Err("gpg.killed"));
    }
}

#[test]
fn a_refusal_brings_the_run_along() {
    let mock = Mock::printing("[GNUPG:] BADSIG 89ABCDEF01234567 Somebody\n", "gpg: BAD\n", 1);
    let (sig, data) = (mock.path("data.sig"), mock.path("data"));
    let error = mock.gpg().verify(&sig, &data, &pins(&[SIGNER])).unwrap_err();
    let text = error.to_string();
    let GpgVerifyError::Refused { path, reason, result } = error else { panic!("{error:?}") };
    assert_eq!(path, data);
    assert_eq!(reason, GpgRefusal::BadSignature { key: "89ABCDEF01234567".to_owned() });
    assert_eq!(result.exit_code, Some(1));
    assert!(result.output.to_string().starts_with("gpg: BAD\n[GNUPG:] BADSIG"));
    assert!(text.contains("has been changed") && !text.contains('\n'), "{text}");
}

#[test]
fn what_cannot_be_started_is_said() {
    let mock = Mock::new("");
    // Executable, but neither a program nor a script.
    super::fixtures::install(&mock.path("gpg"), b"\x7fELF but not really");
    let error = mock.run().unwrap_err();
    assert!(matches!(&error, GpgRunError::Start { .. }), "{error:?}");
    assert_eq!(error.code(), "gpg.start");
    super::fixtures::install(&mock.path("gpg"), b"#!/nonexistent/interpreter\n");
    assert_eq!(mock.run().unwrap_err().code(), "gpg.start");
}

#[test]
fn gpg_is_not_run_for_what_it_should_not_read() {
    let mock = Mock::new("touch \"$DIR/ran\"");
    let (sig, data) = (mock.path("data.sig"), mock.path("data"));
    let code = |gpg: &crate::admission::gpg::Gpg| {
        gpg.verify(&sig, &data, &pins(&[SIGNER])).unwrap_err().code()
    };
    assert_eq!(
        mock.gpg().verify(&sig, &data, &pins(&[])).unwrap_err().code(),
        "gpg.nothing_pinned"
    );
    write(&sig, &vec![0xc2; 65 << 10]);
    assert_eq!(code(&mock.gpg()), "gpg.signature_too_large");
    assert_eq!(mock.run().unwrap_err().code(), "gpg.signature_too_large");
    write(&sig, b"");
    assert_eq!(code(&mock.gpg()), "gpg.signature_empty");
    let gone = crate::admission::gpg::Gpg::new(
        "/nonexistent/gpg",
        mock.path("home"),
        mock.path("home/pub.gpg"),
    );
    write(&sig, &[0xc2, 1, 4]);
    assert_eq!(code(&gone), "gpg.program_missing");
    assert!(!mock.path("ran").exists());
}

#[test]
fn many_at_once_do_not_mix() {
    let good = Mock::printing(GOOD, "", 0);
    let bad = Mock::printing("[GNUPG:] BADSIG 89ABCDEF01234567 x\n", "", 1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(good.verdict(), Ok(()))));
            scope.spawn(|| {
                (0..10).for_each(|_| assert_eq!(bad.verdict(), Err("gpg.bad_signature")));
            });
        }
    });
}
