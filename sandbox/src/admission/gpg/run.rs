//! Runs one process to its end, within a limit of time and output, and leaves nothing of it behind.
//!
//! ```text
//! spawn ─▶ poll(exit, stdout, stderr) ◀─▶ read ── all three at their end ─▶ kill group ─▶ reap ─▶ result
//!                 │
//!                 └─ limit, too much output, error ───────────────────────▶ kill group ─▶ reap ─▶ error
//! ```
//!
//! One thread, the caller's, watches all three, so no order in which gpg writes can block either side. The
//! group is killed while its dead leader still holds its number, so the number cannot have been given to
//! another group. A descendant that has left the group is not killed; its pipes end with this call.

use std::io::Read;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::GpgLimits;
use super::input::GpgInputError;
use super::output::{GpgOutput, GpgResult, GpgStream};
use super::setup::GpgSetupError;

/// How long a killed process may take to be gone.
const REAP_LIMIT: Duration = Duration::from_secs(2);
/// How much is read at a time: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// Why there is no result of a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpgRunError {
    /// gpg, its home or its keyring will not do.
    #[error(transparent)]
    Setup(#[from] GpgSetupError),
    /// The signature or the signed file will not do.
    #[error(transparent)]
    Input(#[from] GpgInputError),
    /// gpg could not be started.
    #[error("{program}: cannot start gpg: {error}", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's words.
        error: String,
    },
    /// The system would not let gpg be watched.
    #[error("cannot watch gpg: {action}: {error}")]
    Watch {
        /// What was tried.
        action: &'static str,
        /// The system's words.
        error: String,
    },
    /// It was killed: the time was over.
    #[error("gpg was killed: it, or a process it started, had not ended after {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// It was killed: it printed too much.
    #[error("gpg was killed: it had printed more than {max} bytes")]
    TooMuchOutput {
        /// The limit.
        max: u64,
    },
    /// It was killed and is still there: the system holds it. It stays a child of this process.
    #[error(
        "gpg was killed, but process {pid} is still there after {limit:?}: look at what holds it"
    )]
    NotReaped {
        /// The process.
        pid: i32,
        /// How long it was waited for.
        limit: Duration,
    },
}

impl GpgRunError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Setup(error) => error.code(),
            Self::Input(error) => error.code(),
            Self::Start { .. } => "gpg.start",
            Self::Watch { .. } => "gpg.watch",
            Self::TimedOut { .. } => "gpg.timed_out",
            Self::TooMuchOutput { .. } => "gpg.too_much_output",
            Self::NotReaped { .. } => "gpg.not_reaped",
        }
    }
}

fn watch(action: &'static str) -> impl Fn(Errno) -> GpgRunError {
    move |errno| GpgRunError::Watch { action, error: errno.to_string() }
}

/// Runs a command that leads a process group of its own and has both streams piped.
pub(super) fn run(mut command: Command, limits: &GpgLimits) -> Result<GpgResult, GpgRunError> {
    let started = Instant::now();
    let child = command.spawn().map_err(|error| GpgRunError::Start {
        program: command.get_program().into(),
        error: error.to_string(),
    })?;
    let mut group = Group::new(child)?;
    let watched = watch_to_end(&mut group, limits, started);
    // In every case: when gpg has ended of itself, something it started may still be there.
    let status = group.end()?;
    let output = watched?;
    Ok(GpgResult { exit_code: status.code(), signal: status.signal(), output })
}

/// Reads both streams until they and the process have ended.
fn watch_to_end(
    group: &mut Group,
    limits: &GpgLimits,
    started: Instant,
) -> Result<GpgOutput, GpgRunError> {
    let mut status = Source::new(group.child.stdout.take())?;
    let mut messages = Source::new(group.child.stderr.take())?;
    let mut buffer = vec![0; CHUNK];
    let mut ended = false;
    while !(ended && status.has_ended() && messages.has_ended()) {
        let left = limits.time.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(GpgRunError::TimedOut { limit: limits.time });
        }
        ended = wait_for_any(&group.handle, ended, [&status, &messages], left)?;
        status.read(&mut buffer, limits.kept_bytes)?;
        messages.read(&mut buffer, limits.kept_bytes)?;
        let total = status.stream.total().saturating_add(messages.stream.total());
        if total > limits.output_bytes_max {
            return Err(GpgRunError::TooMuchOutput { max: limits.output_bytes_max });
        }
    }
    Ok(GpgOutput { status: status.stream, messages: messages.stream })
}

/// Sleeps until the process ends, a stream has something or the time is over; says whether it has ended.
fn wait_for_any(
    process: &OwnedFd,
    ended: bool,
    sources: [&Source; 2],
    left: Duration,
) -> Result<bool, GpgRunError> {
    let mut polled = Vec::with_capacity(3);
    // First, so that it is found again.
    polled.extend((!ended).then(|| PollFd::new(process, PollFlags::IN)));
    let pipes = sources.into_iter().filter_map(|source| source.pipe.as_ref());
    polled.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    // A time beyond what the system can count is as good as none.
    let left = Timespec::try_from(left).ok();
    match rustix::event::poll(&mut polled, left.as_ref()) {
        Ok(_) => Ok(ended || polled.first().is_some_and(|first| !first.revents().is_empty())),
        Err(Errno::INTR) => Ok(ended),
        Err(errno) => Err(watch("poll")(errno)),
    }
}

/// One of the two pipes and what has come through it.
struct Source {
    pipe: Option<OwnedFd>,
    stream: GpgStream,
}

impl Source {
    fn new(pipe: Option<impl Into<OwnedFd> + Read>) -> Result<Self, GpgRunError> {
        let pipe: Option<OwnedFd> = pipe.map(Into::into);
        if let Some(pipe) = &pipe {
            // Only this end: whether gpg's end blocks is its own affair.
            rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK).map_err(watch("fcntl"))?;
        }
        Ok(Self { pipe, stream: GpgStream::default() })
    }

    fn has_ended(&self) -> bool {
        self.pipe.is_none()
    }

    /// Reads what is there, at most one bufferful, so that a flood holds up neither the other stream nor
    /// the look at the clock.
    fn read(&mut self, buffer: &mut [u8], keep: usize) -> Result<(), GpgRunError> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => self.pipe = None,
            Ok(count) => self.stream.push(buffer.get(..count).unwrap_or_default(), keep),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(watch("read")(errno)),
        }
        Ok(())
    }
}

/// A running process, leader of its group.
struct Group {
    child: Child,
    pid: Pid,
    /// Becomes readable when the process ends.
    handle: OwnedFd,
}

impl Group {
    fn new(mut child: Child) -> Result<Self, GpgRunError> {
        let pid = Pid::from_child(&child);
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok(Self { child, pid, handle }),
            Err(errno) => {
                // Without a handle it cannot be waited for within a limit; killed, it ends at once.
                kill(pid);
                let _status = child.wait();
                Err(watch("pidfd_open")(errno))
            }
        }
    }

    /// Kills whatever is left of the group and reaps its leader.
    fn end(mut self) -> Result<ExitStatus, GpgRunError> {
        kill(self.pid);
        let limit = Timespec::try_from(REAP_LIMIT).ok();
        let mut polled = [PollFd::from_borrowed_fd(self.handle.as_fd(), PollFlags::IN)];
        // A signal starts the time anew: seconds at worst, and no reason to leave a zombie.
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, limit.as_ref()))
            .map_err(watch("poll"))?;
        match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(GpgRunError::NotReaped {
                pid: self.pid.as_raw_nonzero().get(),
                limit: REAP_LIMIT,
            }),
            Err(error) => Err(GpgRunError::Watch { action: "wait", error: error.to_string() }),
        }
    }
}

fn kill(group: Pid) {
    // It fails only when nothing is left to kill.
    let _nothing_left = rustix::process::kill_process_group(group, Signal::KILL);
}
