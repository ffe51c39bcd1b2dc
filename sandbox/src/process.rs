//! The process tier: a plugin in a worker process that has given up everything it could do harm with.
//!
//! ```text
//! host ── Workers ──▶ spawner ──▶ worker in the pool ──plugin──▶ sandbox ──init──▶ instance ──end──▶ verdict
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `sandbox` | what the host uses: a sandbox, and the instance in it |
//! | `workers` | the spawner, the pool, and the thread that watches |
//! | `handle` | one worker as the host sees it: turns, deadlines, its end |
//! | `worker`, `spawner` | the programs on the other side |
//! | `layout`, `shared`, `wire` | what is between them |
//! | `seccomp`, `cgroup` | what the system holds a worker to |
//! | `verdict` | how an end is judged |
//!
//! The host believes nothing a worker writes: every number is read once and checked, bytes are copied out before anybody
//! looks at them, and whoever writes what cannot be is killed. A worker that ends in any way costs its callers an error,
//! and nobody else anything.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::SocketType;

pub use offline::forbid_sockets;
pub use sandbox::{Loaded, Sandbox};
pub(crate) use workers::origin_elapsed;
pub use workers::{Options, Program, Workers};

mod cgroup;
mod drain;
mod handle;
mod layout;
mod offline;
mod pending;
mod sandbox;
mod seccomp;
mod shared;
mod spawner;
mod spin;
#[cfg(test)]
mod tests;
mod usage;
mod verdict;
mod wire;
mod worker;
mod workers;

/// Argument that makes the program a spawner.
const SPAWNER_ROLE: &str = "--themis-role=spawner";

static ENTRY_CALLED: AtomicBool = AtomicBool::new(false);

/// Makes this process a spawner or a worker when it was started as one, and answers its exit code then. Has to be the
/// first thing in `main`: nothing that the host does at its start may happen in those.
#[must_use]
pub fn process_entry() -> Option<ExitCode> {
    let role = std::env::args_os().nth(1);
    let role = role.as_ref().and_then(|role| role.to_str());
    let ended = match role {
        Some(SPAWNER_ROLE) => spawner_socket().and_then(spawner::run),
        Some(role) if role.as_bytes() == spawner::WORKER_ROLE.to_bytes() => worker::run(),
        Some(_) | None => {
            ENTRY_CALLED.store(true, Ordering::SeqCst);
            return None;
        }
    };
    Some(if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the host has put in place of the standard input; nothing else is served.
fn spawner_socket() -> Result<OwnedFd, Errno> {
    let input = rustix::stdio::stdin();
    if rustix::net::sockopt::socket_type(input)? != SocketType::SEQPACKET {
        return Err(Errno::INVAL);
    }
    rustix::io::fcntl_dupfd_cloexec(input, 3)
}

fn entry_was_called() -> bool {
    ENTRY_CALLED.load(Ordering::SeqCst)
}
