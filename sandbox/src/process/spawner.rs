//! The spawner: a small process of one thread that starts workers, so that the host never has to fork.
//!
//! ```text
//! host ──exec once──▶ spawner ──clone3(own pid and mount namespace, into the cgroup)──▶ child ──exec──▶ worker
//!                        │                                                               (child of the host)
//!                        └── the host's socket ends ──▶ every worker it started is killed ──▶ end
//! ```
//!
//! A fork of a large host copies its page tables: 94 ms with 2 GiB. The spawner stays small. Its workers are
//! children of the host, which waits for them by handle; when the spawner dies they go on, and the next spawner
//! takes no notice of them. They die with the host by their own parent-death signal as well.
//!
//! It makes the namespaces that all workers share once, since a network namespace costs more than all others together.
#![expect(unsafe_code, reason = "clone3 and what has to happen between it and exec")]

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use themis_messages::sandbox::{Layer, Layers, SetupStep};

use super::layout::{CONTROL_FD, DOWN_FD, EVENT_FD, LOG_FD, OUT_FD, PROGRAM_FD, UP_FD};
use super::wire::{self, Hello, Spawn, Spawned, Told};

/// Argument that makes the program a worker.
pub(super) const WORKER_ROLE: &CStr = c"--themis-role=worker";

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The kernel's argument of clone3, version 2.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Serves the host at the other end of `socket` until that is closed.
pub(super) fn run(socket: OwnedFd) -> Result<(), Errno> {
    rustix::thread::set_name(c"themis-spawner")?;
    // A terminal's interrupt is for the host, which ends its workers in order.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    raise_open_files();
    let program = File::open("/proc/self/exe").map_err(errno_of)?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(errno_of)?;
    let layers = leave_the_hosts_namespaces();
    let mut spawner =
        Spawner { socket, program: program.into(), null: null.into(), layers, workers: Vec::new() };
    wire::send(&spawner.socket, &Hello { layers: layers.bits(), errno: 0 }, &[])?;
    let served = spawner.serve();
    spawner.kill_all();
    served
}

struct Spawner {
    socket: OwnedFd,
    program: OwnedFd,
    null: OwnedFd,
    layers: Layers,
    /// Handles of workers that live, for the host's sudden end.
    workers: Vec<OwnedFd>,
}

impl Spawner {
    fn serve(&mut self) -> Result<(), Errno> {
        loop {
            self.wait()?;
            match wire::receive::<Spawn>(&self.socket) {
                Ok(Some((request, fds))) => self.answer(request, &fds)?,
                Ok(None) => return Ok(()),
                Err(Errno::INTR | Errno::AGAIN) => {}
                // The request is lost with its descriptors: the host finds this socket closed, and has another spawner
                // started. Its workers go on: they are the host's.
                Err(Errno::MFILE) => {
                    self.workers.clear();
                    return Err(Errno::MFILE);
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Waits for the host, and lets go of workers that ended meanwhile.
    fn wait(&mut self) -> Result<(), Errno> {
        loop {
            let everybody = std::iter::once(&self.socket).chain(&self.workers);
            let mut polled: Vec<_> = everybody.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            match rustix::event::poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                polled => polled?,
            };
            let ended: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            let mut ended = ended.into_iter();
            let host = ended.next() == Some(true);
            self.workers.retain(|_| ended.next() != Some(true));
            if host {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, request: Spawn, fds: &[OwnedFd]) -> Result<(), Errno> {
        let number = request.number;
        match self.start(request, fds) {
            Ok((pid, handle)) => {
                let told = Spawned { number, pid, errno: 0 };
                let sent = wire::send(&self.socket, &told, &[handle.as_fd()]);
                // Also one that the host will never hear of: it is killed with the others.
                self.workers.push(handle);
                sent
            }
            Err(errno) => {
                let told = Spawned { number, pid: 0, errno: errno.raw_os_error() };
                wire::send(&self.socket, &told, &[])
            }
        }
    }

    fn start(&self, request: Spawn, fds: &[OwnedFd]) -> Result<(u32, OwnedFd), Errno> {
        let [control, down, up, event, log, group @ ..] = fds else { return Err(Errno::INVAL) };
        let places = Places { null: self.null.as_fd(), log, control, down, up, event };
        let group = match (request.into_cgroup, group) {
            (0, []) => None,
            (1, [group]) => Some(group),
            _ => return Err(Errno::INVAL),
        };
        let mut apart = 0;
        if self.layers.has(Layer::PidNamespace) {
            apart = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        }
        match clone_into(apart, group) {
            // Containers refuse this call, or its part about groups, where the older one will do.
            Err(_refused) => match clone_alone(apart)? {
                Cloned::Child => self.become_worker(&places, group),
                Cloned::Parent(pid, handle) => Ok((pid, handle)),
            },
            Ok(Cloned::Child) => self.become_worker(&places, None),
            Ok(Cloned::Parent(pid, handle)) => Ok((pid, handle)),
        }
    }

    /// In the child: enters its group, if it is not in it yet, puts descriptors in their places and executes the program.
    /// Ends the child if that fails.
    fn become_worker(&self, places: &Places<'_>, group: Option<&OwnedFd>) -> ! {
        let entered = group.map_or(Ok(()), enter);
        let placed = entered.is_ok().then(|| places.settle(&self.program));
        // From then on what was passed is not where it was.
        // SAFETY: the control socket is in its place, and stays there.
        let settled = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
        let (step, errno, control) = match (entered, placed) {
            (Err(errno), _) => (SetupStep::Cgroup, errno, places.control.as_fd()),
            (Ok(()), Some(Err(errno))) => (SetupStep::Descriptors, errno, places.control.as_fd()),
            (Ok(()), Some(Ok(())) | None) => (SetupStep::Exec, execute(), settled),
        };
        let failed = Told { step: step as u32, errno: errno.raw_os_error() };
        // The host finds the process ended if it cannot be told.
        let _ = wire::send(control, &failed, &[]);
        // SAFETY: ends the child without running what the spawner has registered for its own end.
        unsafe { libc::_exit(1) }
    }

    fn kill_all(&self) {
        for worker in &self.workers {
            let _ = rustix::process::pidfd_send_signal(worker, Signal::KILL);
        }
    }
}

enum Cloned {
    Child,
    /// The child's number, and its handle.
    Parent(u32, OwnedFd),
}

/// A child of the host, in namespaces of its own, and in a group from its first moment on.
fn clone_into(apart: libc::c_int, group: Option<&OwnedFd>) -> Result<Cloned, Errno> {
    let mut handle: RawFd = -1;
    let flags = (libc::CLONE_PIDFD | libc::CLONE_PARENT | apart) as u64 | CLONE_CLEAR_SIGHAND;
    let mut arguments = CloneArgs { flags, ..CloneArgs::default() };
    arguments.pidfd = std::ptr::from_mut(&mut handle).expose_provenance() as u64;
    if let Some(group) = group {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM the child has a copy of this process, which has one thread. The argument and what it points
    // to outlive the call.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) };
    cloned(pid, handle)
}

/// The same without a group, by the call that came before it.
fn clone_alone(apart: libc::c_int) -> Result<Cloned, Errno> {
    let mut handle: RawFd = -1;
    let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::CLONE_PARENT | apart);
    // SAFETY: as above; the handle is written where the third argument points, and no other is used.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut handle, 0, 0) };
    cloned(pid, handle)
}

fn cloned(pid: libc::c_long, handle: RawFd) -> Result<Cloned, Errno> {
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel has put a new descriptor there.
            let handle = unsafe { OwnedFd::from_raw_fd(handle) };
            Ok(Cloned::Parent(u32::try_from(pid).unwrap_or(0), handle))
        }
        _ => Err(errno_of(std::io::Error::last_os_error())),
    }
}

/// Moves this process into a group.
fn enter(group: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let procs = rustix::fs::openat(group, "cgroup.procs", flags, Mode::empty())?;
    // Itself, whatever its number is here.
    rustix::io::write(procs, b"0").map(drop)
}

/// What goes where in a worker.
struct Places<'a> {
    null: BorrowedFd<'a>,
    log: &'a OwnedFd,
    control: &'a OwnedFd,
    down: &'a OwnedFd,
    up: &'a OwnedFd,
    event: &'a OwnedFd,
}

impl Places<'_> {
    fn settle(&self, program: &OwnedFd) -> Result<(), Errno> {
        let wanted: [(BorrowedFd<'_>, RawFd); 8] = [
            (self.null, 0),
            (self.log.as_fd(), OUT_FD),
            (self.log.as_fd(), LOG_FD),
            (self.control.as_fd(), CONTROL_FD),
            (self.down.as_fd(), DOWN_FD),
            (self.up.as_fd(), UP_FD),
            (self.event.as_fd(), EVENT_FD),
            (program.as_fd(), PROGRAM_FD),
        ];
        // Out of the way first: a place may be taken by what belongs in another.
        let mut aside = Vec::new();
        for (fd, place) in wanted {
            aside.push((rustix::io::fcntl_dupfd_cloexec(fd, PROGRAM_FD + 1)?, place));
        }
        for (fd, place) in aside {
            // SAFETY: the numbers below are the child's own, which executes another program right after.
            let copied = unsafe { libc::dup2(fd.as_raw_fd(), place) };
            if copied != place {
                return Err(errno_of(std::io::Error::last_os_error()));
            }
            // It is dropped with everything above the places.
            std::mem::forget(fd);
        }
        let first = (PROGRAM_FD + 1).unsigned_abs();
        // SAFETY: nothing in the child uses these any more; the program's own is closed by executing it.
        let closed = unsafe {
            libc::fcntl(PROGRAM_FD, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::syscall(libc::SYS_close_range, first, u32::MAX, 0)
        };
        if closed == 0 { Ok(()) } else { Err(errno_of(std::io::Error::last_os_error())) }
    }
}

/// Executes the program at its place, without an environment; answers why that failed.
fn execute() -> Errno {
    let arguments = [c"themis-worker".as_ptr(), WORKER_ROLE.as_ptr(), std::ptr::null()];
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: both lists end with NULL and outlive the call; the path is the empty string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            PROGRAM_FD,
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    errno_of(std::io::Error::last_os_error())
}

/// What all workers share: no network, no message queues, a host name of its own. Answers what was to be had.
fn leave_the_hosts_namespaces() -> Layers {
    let mut layers = Layers::default();
    // SAFETY: this process has one thread, and shares nothing with another that these flags would part it from.
    let unshare = |flags| unsafe { rustix::thread::unshare_unsafe(flags) };
    let user = rustix::process::geteuid();
    if unshare(UnshareFlags::NEWNS).is_err() {
        // Without the right to it, a user namespace of its own gives it.
        let group = rustix::process::getegid();
        if unshare(UnshareFlags::NEWUSER).is_err()
            || map_own_user(user.as_raw(), group.as_raw()).is_err()
            || unshare(UnshareFlags::NEWNS).is_err()
        {
            return layers;
        }
    }
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    if rustix::mount::mount_change("/", private).is_ok() {
        layers = layers.with(Layer::PidNamespace);
    }
    if unshare(UnshareFlags::NEWNET).is_ok() {
        layers = layers.with(Layer::NetNamespace);
    }
    if unshare(UnshareFlags::NEWIPC | UnshareFlags::NEWUTS).is_ok() {
        layers = layers.with(Layer::IpcNamespace);
    }
    layers
}

/// Root of the new user namespace is whoever this process was.
fn map_own_user(user: u32, group: u32) -> std::io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Each worker takes a descriptor here.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
