//! How a worker ended, judged from what the system says and what the worker told: a pure function.
//!
//! The system's word counts. What the worker told of itself in shared memory only adds detail: a number, an address, a
//! text. A plugin can forge that, and accuse itself of something else than it did.

use themis_messages::sandbox::{Syscall, Verdict};

use crate::native::clean_text;

/// Longest panic text that is kept.
const PANIC_BYTES_MAX: usize = 512;

/// How the system says that a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// By itself.
    Exited(i32),
    /// By a signal.
    Killed(i32),
    /// Nothing is known yet, or the process was waited for by somebody else.
    Unknown,
}

/// What the worker's handler noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) signal: i32,
    pub(super) syscall: i32,
    pub(super) address: u64,
}

/// Everything that is known of an end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) status: Status,
    pub(super) note: Option<Note>,
    /// Processes of its group that the system killed for want of memory.
    pub(super) oom_kills: u64,
    /// Its cap in bytes.
    pub(super) memory_limit: u64,
    /// The last of what it wrote to its error output.
    pub(super) stderr: &'a [u8],
}

/// How it ended.
pub(super) fn judge(facts: &Facts<'_>) -> Verdict {
    let noted = facts.note.map(|note| note.signal);
    match facts.status {
        Status::Killed(libc::SIGKILL) if facts.oom_kills > 0 => memory(facts),
        Status::Killed(signal @ (libc::SIGKILL | libc::SIGTERM)) => {
            Verdict::ExternalKill { signal }
        }
        Status::Killed(libc::SIGSYS) => refused(facts),
        Status::Killed(signal) => crash(facts, signal),
        Status::Exited(code) => match noted {
            Some(libc::SIGSYS) if code == 128 + libc::SIGSYS => refused(facts),
            Some(signal) if code == 128 + signal => aborted(facts, signal),
            Some(_) | None => Verdict::UnexpectedExit { code },
        },
        Status::Unknown => match noted {
            Some(libc::SIGSYS) => refused(facts),
            Some(signal @ libc::SIGABRT) => aborted(facts, signal),
            Some(signal) => crash(facts, signal),
            None => Verdict::ExternalKill { signal: libc::SIGKILL },
        },
    }
}

fn memory(facts: &Facts<'_>) -> Verdict {
    Verdict::MemoryLimit { limit: facts.memory_limit }
}

fn refused(facts: &Facts<'_>) -> Verdict {
    let noted = facts.note.filter(|note| note.signal == libc::SIGSYS && note.syscall >= 0);
    let number = noted.map(|note| i64::from(note.syscall));
    Verdict::SeccompViolation { syscall: Syscall { number, name: number.and_then(name) } }
}

fn crash(facts: &Facts<'_>, signal: i32) -> Verdict {
    let noted = facts.note.filter(|note| note.signal == signal && signal != libc::SIGABRT);
    Verdict::Crash { signal, address: noted.map(|note| note.address) }
}

/// An abort has said why, if it came from Rust.
fn aborted(facts: &Facts<'_>, signal: i32) -> Verdict {
    let told = String::from_utf8_lossy(facts.stderr);
    if let Some((_, panic)) = told.rsplit_once("panicked at ") {
        let kept = panic.len().min(PANIC_BYTES_MAX);
        let message = clean_text(&panic.as_bytes()[..kept], kept < panic.len());
        return Verdict::Panic { message: message.trim().to_owned() };
    }
    let line = told.trim_end().rsplit('\n').next().unwrap_or_default();
    if line.starts_with("memory allocation of ") {
        return memory(facts);
    }
    crash(facts, signal)
}

fn name(number: i64) -> Option<&'static str> {
    syscalls::Sysno::new(usize::try_from(number).ok()?).map(|call| call.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn told(status: Status, note: Option<(i32, i32, u64)>, oom_kills: u64, stderr: &str) -> String {
        let note = note.map(|(signal, syscall, address)| Note { signal, syscall, address });
        let stderr = stderr.as_bytes();
        judge(&Facts { status, note, oom_kills, memory_limit: 1 << 20, stderr }).to_string()
    }

    #[test]
    fn every_end_has_its_verdict() {
        use Status::{Exited, Killed, Unknown};
        let none = None;
        let rust = "thread 'x' panicked at src/lib.rs:3:1:\nboom\n";
        let ends = [
            told(Killed(9), none, 0, ""),
            told(Killed(9), none, 2, ""),
            told(Killed(31), Some((31, 41, 0)), 0, ""),
            told(Killed(31), none, 0, ""),
            told(Killed(31), Some((31, 9_999, 0)), 0, ""),
            told(Killed(11), Some((11, -1, 0x10)), 0, ""),
            told(Killed(11), Some((4, -1, 0x10)), 0, ""),
            told(Exited(7), none, 0, ""),
            told(Exited(0), Some((11, -1, 0)), 0, ""),
            told(Exited(134), Some((6, -1, 0)), 0, ""),
            told(Exited(134), Some((6, -1, 0)), 0, rust),
            told(Exited(134), Some((6, -1, 0)), 0, "memory allocation of 64 bytes failed\n"),
            told(Exited(159), Some((31, 57, 0)), 0, ""),
            told(Unknown, Some((7, -1, 0x2000)), 0, ""),
            told(Unknown, none, 0, ""),
        ];
        expect![[r#"
            its worker was killed from outside, by SIGKILL
            its worker was killed: it used more memory than its limit of 1048576 bytes
            its worker was ended: it made the system call socket, which plugins may not
            its worker was ended: it made the system call one the system did not name, which plugins may not
            its worker was ended: it made the system call number 9999, which plugins may not
            its worker crashed: SIGSEGV at address 0x10
            its worker crashed: SIGSEGV
            its worker exited with status 7: no plugin may end its process
            its worker exited with status 0: no plugin may end its process
            its worker crashed: SIGABRT
            its worker panicked: src/lib.rs:3:1: boom
            its worker was killed: it used more memory than its limit of 1048576 bytes
            its worker was ended: it made the system call fork, which plugins may not
            its worker crashed: SIGBUS at address 0x2000
            its worker was killed from outside, by SIGKILL"#]].assert_eq(&ends.join("\n"));
    }
}
