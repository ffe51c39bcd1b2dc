//! Groups of cgroup v2 for worker processes: made with limits, and killed, counted and removed as one.
//!
//! ```text
//! <own>/                           the group this process was given
//! ├─ themis-<pid>-<start>/         a subtree: locked while its host lives
//! │  ├─ p-1/                       a group: one worker, and whatever it starts
//! │  └─ p-2/
//! └─ themis-host-<pid>-<start>/    the leaf: the host itself, where it may not stay in <own>
//! ```
//!
//! A group that hands controllers on may hold no process, except at the top of the hierarchy. So the host
//! steps aside into the leaf when it is alone in its group; when it is not, groups only kill.
//!
//! Every file is opened relative to the descriptor of its directory, so nothing that happens to a path
//! afterwards can lead a limit, or a kill, to another group.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::machine::group_dir;

/// What limits are written with.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// How long a killed group may take to become empty.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a leaf may take to become empty once it was left.
const LEAVE_WAIT_MAX: Duration = Duration::from_millis(100);
/// When to try again to remove an empty group that the system still holds.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// Subtrees one process may have at a time, one for each kernel in it.
const SUBTREES_MAX: u32 = 256;
/// Longest file that is read, in bytes: a machine may have thousands of mounts, a group of processes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Window of `cpu.max`, in microseconds: what the system takes unless told otherwise.
const CPU_PERIOD_MICROS: u64 = 100_000;

const CONTROLLERS_FILE: &str = "cgroup.controllers";
const EVENTS_FILE: &str = "cgroup.events";
const PROCS_FILE: &str = "cgroup.procs";
const SUBTREE_FILE: &str = "cgroup.subtree_control";

const DELEGATE_STEP: &str = "run the host as a systemd service with `Delegate=memory pids cpu` and \
    `DelegateSubgroup=host`, or alone in a container with a private, writable cgroup namespace";

// === What goes in and comes out ===

/// What one worker may use, with everything it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupLimits {
    /// Memory, in bytes. There is no swap on top.
    pub(super) memory_bytes: u64,
    /// CPU time, in percent of one core.
    pub(super) cpu_percent: u32,
    /// Processes and threads.
    pub(super) pids: u32,
}

/// What one worker has used, with everything it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct GroupUsage {
    /// CPU time. Zero when the group is gone.
    pub(super) cpu: Duration,
    /// Memory now, in bytes. Needs the memory controller.
    pub(super) memory_bytes: Option<u64>,
    /// The most memory it ever had, in bytes. Needs the memory controller and Linux 5.19.
    pub(super) memory_peak_bytes: Option<u64>,
}

/// What the groups of a subtree can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Controls {
    /// They limit memory, CPU time and processes.
    Full,
    /// They kill and count as one, but limit nothing.
    KillOnly {
        /// What stands in the way, and what to do about it.
        why: String,
    },
}

/// What was done to the hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// A group was made.
    Make,
    /// A directory or file was opened.
    Open,
    /// A file was read.
    Read,
    /// A file was written.
    Write,
    /// A group was removed.
    Remove,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Make => "make",
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Remove => "remove",
        })
    }
}

/// Why something about groups failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CgroupError {
    /// This process is in no group it could work below.
    #[error("there is no cgroup v2 for this process: {why}; mount cgroup2 on /sys/fs/cgroup")]
    NoHierarchy {
        /// What was looked for and not found.
        why: String,
    },
    /// The system refused.
    #[error("cannot {operation} {}: {errno}; {}", path.display(), step(*errno))]
    System {
        /// What was tried.
        operation: Operation,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        errno: Errno,
    },
    /// A group was killed, and something in it lives on.
    #[error(
        "cannot remove {}: processes are in it {waited:?} after it was killed; its cgroup.procs \
         tells which, and the next host that starts removes it once they are gone",
        path.display()
    )]
    StillPopulated {
        /// The group.
        path: PathBuf,
        /// How long they had.
        waited: Duration,
    },
}

impl CgroupError {
    /// The system's answer, or the nearest to it.
    #[must_use]
    pub(super) const fn errno(&self) -> Errno {
        match self {
            Self::NoHierarchy { .. } => Errno::NOENT,
            Self::System { errno, .. } => *errno,
            Self::StillPopulated { .. } => Errno::BUSY,
        }
    }
}

/// What to do about an answer.
fn step(errno: Errno) -> &'static str {
    match errno {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => DELEGATE_STEP,
        Errno::BUSY => "processes or groups are in it: end them first",
        Errno::EXIST => "it is there already: take another number",
        Errno::NOENT | Errno::NODEV => {
            "the group was removed, or the system lacks the file: Linux 5.14 has all of them"
        }
        Errno::INVAL | Errno::RANGE => "the system does not take the value: correct the limit",
        Errno::AGAIN | Errno::NOSPC => {
            "raise cgroup.max.descendants and cgroup.max.depth of the groups above, or run \
             fewer workers"
        }
        Errno::MFILE | Errno::NFILE => "raise the limit of open files",
        _ => "the system's log may say more",
    }
}

// === The kernel's part of the hierarchy ===

/// This kernel's part of the hierarchy. Dropping it kills and removes every group in it, best effort, and
/// takes up to two seconds for processes that are slow to die.
#[derive(Debug)]
pub(super) struct Subtree {
    own: Arc<Dir>,
    /// Holds the lock that tells other hosts that this one lives.
    dir: Arc<Dir>,
    name: Name,
    controls: Controls,
    leaf: Option<Arc<Leaf>>,
}

impl Subtree {
    /// Makes a subtree below the group this process is in.
    ///
    /// # Errors
    /// There is no cgroup v2, or this process may not make groups below its own.
    pub(super) fn open() -> Result<Self, CgroupError> {
        let mounts = read_file(Path::new("/proc/self/mountinfo"))?;
        let groups = read_file(Path::new("/proc/self/cgroup"))?;
        let own = group_dir(&mounts, &groups).map_err(|why| CgroupError::NoHierarchy { why })?;
        Self::below(&delegated_to(&own))
    }

    /// Makes a subtree below a group, after removing those of hosts that are gone.
    ///
    /// The group should be the one this process is in: the controllers are enabled in it, for which this
    /// process may have to move to a leaf. What stands in the way of that is no error but said by
    /// [`Subtree::controls`].
    ///
    /// # Errors
    /// This process may not make groups there.
    pub(super) fn below(own: &Path) -> Result<Self, CgroupError> {
        let own = Arc::new(Dir::open(own)?);
        let host = Host::this()?;
        sweep(&own);
        // First what may fail: afterwards this process may have been moved.
        let (name, dir) = claim(&own, host)?;
        let (controls, leaf) = match take_controls(&own, &dir, host, &mut current_leaf()) {
            Ok(leaf) => (Controls::Full, leaf),
            Err(why) => (Controls::KillOnly { why }, None),
        };
        Ok(Self { own, dir: Arc::new(dir), name, controls, leaf })
    }

    /// What its groups can do.
    #[must_use]
    pub(super) const fn controls(&self) -> &Controls {
        &self.controls
    }

    /// Where it is.
    #[cfg(test)]
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.dir.path
    }

    /// Makes an empty group, `p-<number>`. It can have no groups below it.
    ///
    /// # Errors
    /// There is one with this number, or a limit cannot be written; nothing remains then.
    pub(super) fn create(&self, number: u64, limits: &GroupLimits) -> Result<Group, CgroupError> {
        let name = Name::Worker(number);
        let dir = self.dir.make(name)?;
        let capped = matches!(self.controls, Controls::Full);
        let group = Group { parent: Arc::clone(&self.dir), dir, name, capped, removed: false };
        group.confine(limits)?;
        Ok(group)
    }
}

impl Drop for Subtree {
    fn drop(&mut self) {
        let until = Instant::now() + EMPTY_WAIT_MAX;
        if let Err(error) = clear(&self.own, &self.dir, self.name, until) {
            tracing::warn!(%error, "a part of the cgroup hierarchy was not removed");
        }
        let _moving = current_leaf();
        // After the subtree, which needs the controllers that are disabled when the last one leaves.
        drop(self.leaf.take());
    }
}

/// The leaf this process is in: it can be in one group only, whatever its kernels want. Held while one of
/// them changes that.
fn current_leaf() -> MutexGuard<'static, Weak<Leaf>> {
    static CURRENT: Mutex<Weak<Leaf>> = Mutex::new(Weak::new());
    // Nothing is half done in it, even after a panic.
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The group to work below, for a process in group `own`: its own, unless that is a leaf for processes.
fn delegated_to(own: &Path) -> PathBuf {
    let Some(parent) = own.parent() else { return own.to_owned() };
    let name = own.file_name().and_then(OsStr::to_str).and_then(Name::parse);
    // Another kernel in this process moved it, or the process was started by a host that had moved.
    let in_leaf = matches!(name, Some(Name::Leaf(_)));
    // systemd starts a service in a subgroup when told so, and delegates the group above it.
    let in_subgroup =
        || !lists_controllers(own) && lists_controllers(parent) && is_delegated(parent);
    if in_leaf || in_subgroup() { parent.to_owned() } else { own.to_owned() }
}

fn lists_controllers(group: &Path) -> bool {
    let listed = read_file(&group.join(CONTROLLERS_FILE)).unwrap_or_default();
    CONTROLLERS.iter().all(|name| listed.split_whitespace().any(|it| it == *name))
}

/// Whether systemd marked a group as one it leaves to whoever runs in it. Older versions set the mark that
/// only root can read.
fn is_delegated(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|mark| {
        let mut value = [0_u8; 2];
        let length = rustix::fs::getxattr(group, *mark, &mut value);
        length.is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

/// Makes a subtree's directory and locks it.
fn claim(own: &Dir, host: Host) -> Result<(Name, Dir), CgroupError> {
    for nth in 1..=SUBTREES_MAX {
        let name = Name::Subtree { host, nth };
        match own.make(name) {
            // A sweeper that cannot see this process may be at it already: leave it to that one.
            Ok(dir) if dir.lock() == Err(Errno::WOULDBLOCK) => {}
            Ok(dir) => return Ok((name, dir)),
            // Another kernel of this process has it.
            Err(error) if error.errno() == Errno::EXIST => {}
            Err(error) => return Err(error),
        }
    }
    let path = own.path.join(Name::Subtree { host, nth: SUBTREES_MAX }.to_string());
    Err(CgroupError::System { operation: Operation::Make, path, errno: Errno::EXIST })
}

/// Removes what hosts left behind that are gone. Many live side by side: theirs are left alone.
fn sweep(own: &Dir) {
    let until = Instant::now() + EMPTY_WAIT_MAX;
    for name in own.names() {
        match name {
            Name::Subtree { host, .. } if !host.lives() => {
                if let Err(error) = sweep_subtree(own, name, until) {
                    tracing::warn!(%error, "the groups of a host that is gone were not removed");
                }
            }
            // What is in it may be anything the host's program had started: it goes only when empty.
            Name::Leaf(host) if !host.lives() => {
                if let Err(error) = own.remove_once(name) {
                    tracing::debug!(%error, "the leaf of a host that is gone was not removed");
                }
            }
            Name::Subtree { .. } | Name::Leaf(_) | Name::Worker(_) => {}
        }
    }
}

fn sweep_subtree(own: &Dir, name: Name, until: Instant) -> Result<(), CgroupError> {
    let dir = match own.enter(name) {
        Ok(dir) => dir,
        Err(error) if error.errno() == Errno::NOENT => return Ok(()),
        Err(error) => return Err(error),
    };
    match dir.lock() {
        Ok(()) => clear(own, &dir, name, until),
        // Its host lives where this process cannot see it, or another sweeper is at it.
        Err(_locked) => Ok(()),
    }
}

/// Kills everything in a subtree and removes it.
fn clear(own: &Dir, dir: &Dir, name: Name, until: Instant) -> Result<(), CgroupError> {
    let workers =
        |dir: &Dir| dir.names().into_iter().filter(|name| matches!(name, Name::Worker(_)));
    for worker in workers(dir) {
        if let Ok(group) = dir.enter(worker) {
            group.unthrottle();
        }
    }
    let killed = dir.kill();
    if !dir.wait_empty(until) {
        killed?;
        let path = dir.path.clone();
        return Err(CgroupError::StillPopulated { path, waited: EMPTY_WAIT_MAX });
    }
    for worker in workers(dir) {
        dir.remove(worker, until)?;
    }
    own.remove(name, until)
}

// === Controllers ===

/// Enables the controllers for a subtree's groups; the error says what stands in the way and what to do.
fn take_controls(
    own: &Arc<Dir>,
    dir: &Dir,
    host: Host,
    current: &mut Weak<Leaf>,
) -> Result<Option<Arc<Leaf>>, String> {
    let available = own.read(CONTROLLERS_FILE).map_err(told)?;
    let lacking = without(&available);
    if !lacking.is_empty() {
        let all = available.split_whitespace().collect::<Vec<_>>().join(" ");
        let all = if all.is_empty() { "none" } else { &all };
        let (path, lacking) = (own.path.display(), lacking.join(", "));
        return Err(format!("{path} has no {lacking} (there is: {all}); {DELEGATE_STEP}"));
    }
    let wanted = without(&own.read(SUBTREE_FILE).map_err(told)?);
    let leaf = if wanted.is_empty() {
        // Another kernel of this process may have done it, and shares what keeps it so.
        current.upgrade().filter(|leaf| leaf.own.path == own.path)
    } else {
        enable_below(own, wanted, host)?.map(Arc::new)
    };
    dir.write(SUBTREE_FILE, &switch('+', &CONTROLLERS)).map_err(told)?;
    if let Some(leaf) = &leaf {
        *current = Arc::downgrade(leaf);
    }
    Ok(leaf)
}

/// Enables controllers for groups below this process's own, moving it out of the way if need be.
fn enable_below(
    own: &Arc<Dir>,
    wanted: Vec<&'static str>,
    host: Host,
) -> Result<Option<Leaf>, String> {
    let enable = switch('+', &wanted);
    match own.write(SUBTREE_FILE, &enable) {
        Ok(()) => return Ok(None),
        Err(error) if error.errno() == Errno::BUSY => {}
        Err(error) => return Err(told(error)),
    }
    if !own.processes().map_err(told)?.contains(&this_process()) {
        return Err(crowded(own));
    }
    let mut leaf = Leaf::enter(own, host).map_err(told)?;
    match own.write(SUBTREE_FILE, &enable) {
        Ok(()) => {
            leaf.enabled = wanted;
            Ok(Some(leaf))
        }
        // Counted while this process is out; it goes back when the leaf is dropped.
        Err(error) if error.errno() == Errno::BUSY => Err(crowded(own)),
        Err(error) => Err(told(error)),
    }
}

fn crowded(own: &Dir) -> String {
    let others = own.processes().map_or(0, |all| all.len());
    let noun = if others == 1 { "process is" } else { "processes are" };
    let path = own.path.display();
    format!("{others} other {noun} in {path}, so it cannot hand controllers on; {DELEGATE_STEP}")
}

/// The controllers that a list lacks.
fn without(listed: &str) -> Vec<&'static str> {
    let lacks = |name: &&str| !listed.split_whitespace().any(|it| it == *name);
    CONTROLLERS.into_iter().filter(lacks).collect()
}

/// `+memory +pids`: all of them or none.
fn switch(sign: char, names: &[&str]) -> String {
    names.iter().map(|name| format!("{sign}{name}")).collect::<Vec<_>>().join(" ")
}

fn told(error: CgroupError) -> String {
    error.to_string()
}

/// As the files of the hierarchy know it.
fn this_process() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

/// Where this process is while its own group hands controllers on. Dropping it moves the process back, with
/// what it has started meanwhile, unless another host needs the controllers.
#[derive(Debug)]
struct Leaf {
    own: Arc<Dir>,
    name: Name,
    /// What was enabled in the process's own group, and has to go before it may go back.
    enabled: Vec<&'static str>,
}

impl Leaf {
    fn enter(own: &Arc<Dir>, host: Host) -> Result<Self, CgroupError> {
        let name = Name::Leaf(host);
        let dir = match own.make(name) {
            Err(error) if error.errno() == Errno::EXIST => own.enter(name)?,
            made => made?,
        };
        let leaf = Self { own: Arc::clone(own), name, enabled: Vec::new() };
        dir.write(PROCS_FILE, &this_process().to_string())?;
        Ok(leaf)
    }

    fn leave(&self) -> Result<(), CgroupError> {
        if !self.enabled.is_empty() {
            self.own.write(SUBTREE_FILE, &switch('-', &self.enabled))?;
        }
        self.own.write(PROCS_FILE, &this_process().to_string())?;
        // Those that have no number here are not of this process, and 0 would be this process again.
        for started in self.own.enter(self.name)?.processes()?.into_iter().filter(|pid| *pid != 0) {
            if let Err(error) = self.own.write(PROCS_FILE, &started.to_string()) {
                tracing::debug!(%error, started, "a process stays in the leaf of its host");
            }
        }
        // One that was just being started, or is ending, goes soon.
        self.own.remove(self.name, Instant::now() + LEAVE_WAIT_MAX)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::debug!(%error, "this process stays in a cgroup of its own");
        }
    }
}

// === One worker ===

/// A group for one worker and whatever it starts. Dropping it kills what is in it and removes it only if
/// that needs no waiting: [`Group::remove`] is the way. What is left goes with the subtree.
#[derive(Debug)]
pub(super) struct Group {
    parent: Arc<Dir>,
    dir: Dir,
    name: Name,
    /// Whether it has the controllers.
    capped: bool,
    removed: bool,
}

impl Group {
    /// Its directory, to start a process in it with `CLONE_INTO_CGROUP`.
    #[must_use]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.dir.fd.as_fd()
    }

    /// Whether a process is in it.
    #[must_use]
    pub(super) fn has(&self, pid: u32) -> bool {
        let procs = self.dir.read("cgroup.procs").unwrap_or_default();
        procs.lines().any(|line| line.parse() == Ok(pid))
    }

    fn confine(&self, limits: &GroupLimits) -> Result<(), CgroupError> {
        // Also where it limits nothing else: nobody may hide a process in a group of their own below.
        self.dir.write("cgroup.max.descendants", "0")?;
        self.set_limits(limits)
    }

    /// Writes limits, where there are controllers for them: see [`Subtree::controls`].
    ///
    /// Memory below what is in use gets processes killed, so lower it only before there is anything to lose.
    ///
    /// # Errors
    /// One could not be written; those before it have been.
    pub(super) fn set_limits(&self, limits: &GroupLimits) -> Result<(), CgroupError> {
        if !self.capped {
            return Ok(());
        }
        let GroupLimits { memory_bytes, cpu_percent, pids } = limits;
        // Before the cap on memory, which would push into swap what it finds above itself.
        self.dir.write_if_there("memory.swap.max", "0")?;
        self.dir.write_if_there("memory.zswap.max", "0")?;
        // A worker that lost one of its processes is no worker.
        self.dir.write("memory.oom.group", "1")?;
        self.dir.write("memory.max", &memory_bytes.to_string())?;
        self.dir.write("pids.max", &pids.to_string())?;
        let quota = u64::from(*cpu_percent) * (CPU_PERIOD_MICROS / 100);
        self.dir.write("cpu.max", &format!("{quota} {CPU_PERIOD_MICROS}"))
    }

    /// Kills every process in it, also those being started. Does not wait for them to be gone.
    ///
    /// # Errors
    /// The system has no way to kill a group: it is older than Linux 5.14.
    pub(super) fn kill(&self) -> Result<(), CgroupError> {
        if self.capped {
            self.dir.unthrottle();
        }
        self.dir.kill()
    }

    /// How many processes the system has killed in it for want of memory. Compare it with zero only: one
    /// event can count several times.
    #[must_use]
    pub(super) fn oom_kills(&self) -> u64 {
        self.dir.number("memory.events", "oom_kill").unwrap_or(0)
    }

    /// A descriptor that becomes ready for `POLLPRI` when [`Group::oom_kills`] may have changed; none
    /// without the memory controller. For `POLLIN` it is always ready: wait for `POLLPRI` alone.
    ///
    /// It stays ready until it is read from its start, so wait for edges (`EPOLLET`) or read it after
    /// every event. It also becomes ready when memory was reclaimed and nothing was killed.
    #[must_use]
    pub(super) fn memory_events(&self) -> Option<OwnedFd> {
        let events = self.dir.file("memory.events", OFlags::RDONLY).ok()?;
        // Until it is read once, it is ready without an event.
        text_of(&events).ok()?;
        Some(OwnedFd::from(events))
    }

    /// What it has used; what cannot be known is absent.
    #[must_use]
    pub(super) fn usage(&self) -> GroupUsage {
        let whole = |name| self.dir.read(name).ok()?.trim().parse().ok();
        GroupUsage {
            cpu: self
                .dir
                .number("cpu.stat", "usage_usec")
                .map_or(Duration::ZERO, Duration::from_micros),
            memory_bytes: whole("memory.current"),
            memory_peak_bytes: whole("memory.peak"),
        }
    }

    /// Whether a process is in it. One that ended and was not waited for is not.
    #[cfg(test)]
    #[must_use]
    pub(super) fn is_populated(&self) -> bool {
        match self.dir.file(EVENTS_FILE, OFlags::RDONLY) {
            Ok(events) => populated(&events),
            Err(error) => !is_gone(error.errno()),
        }
    }

    /// Kills what is in it, waits until it is empty, two seconds at most, and removes it.
    ///
    /// # Errors
    /// Something in it lives on, or the system holds it; it goes with the subtree then.
    pub(super) fn remove(mut self) -> Result<(), CgroupError> {
        // Nothing more to try when it is dropped.
        self.removed = true;
        let until = Instant::now() + EMPTY_WAIT_MAX;
        let killed = self.kill();
        if self.dir.wait_empty(until) {
            return self.parent.remove(self.name, until);
        }
        killed?;
        let path = self.dir.path.clone();
        Err(CgroupError::StillPopulated { path, waited: EMPTY_WAIT_MAX })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(error) = self.kill().and_then(|()| self.parent.remove_once(self.name)) {
            tracing::debug!(%error, "a group is left for the end of its subtree");
        }
    }
}

// === Names ===

/// A process, and not another one that got its number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Host {
    pid: u32,
    /// When it started, in ticks since boot.
    start: u64,
}

impl Host {
    fn this() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/stat");
        let stat = read_file(path)?;
        let (host, _state) = of_stat(&stat).ok_or_else(|| CgroupError::System {
            operation: Operation::Read,
            path: path.to_owned(),
            errno: Errno::BADMSG,
        })?;
        Ok(host)
    }

    /// Whether it is there. If that cannot be told, it is.
    fn lives(self) -> bool {
        match read_file(Path::new(&format!("/proc/{}/stat", self.pid))) {
            Ok(stat) => of_stat(&stat).is_none_or(|(host, state)| host == self && state != "Z"),
            Err(error) => !matches!(error.errno(), Errno::NOENT | Errno::SRCH),
        }
    }
}

/// `pid (name) state …`: the name may hold anything. Fields are counted from one.
fn of_stat(stat: &str) -> Option<(Host, &str)> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some((Host { pid: pid.parse().ok()?, start: field(22)?.parse().ok()? }, field(3)?))
}

/// The groups this module makes: it touches no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// A kernel's part of the hierarchy.
    Subtree {
        host: Host,
        /// Counted from one: a process may have several kernels.
        nth: u32,
    },
    /// A host itself.
    Leaf(Host),
    /// A worker.
    Worker(u64),
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let number = |text: &str| text.parse::<u64>().ok();
        let host = |pid: &str, start| Some(Host { pid: pid.parse().ok()?, start: number(start)? });
        let parts: Vec<_> = name.split('-').collect();
        let parsed = match parts.as_slice() {
            ["p", worker] => Self::Worker(number(worker)?),
            ["themis", "host", pid, start] => Self::Leaf(host(pid, start)?),
            ["themis", pid, start] => Self::Subtree { host: host(pid, start)?, nth: 1 },
            ["themis", pid, start, nth] => {
                Self::Subtree { host: host(pid, start)?, nth: nth.parse().ok()? }
            }
            _ => return None,
        };
        // There is one way to write it: `p-01` is somebody else's.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subtree { host: Host { pid, start }, nth: 1 } => {
                write!(f, "themis-{pid}-{start}")
            }
            Self::Subtree { host: Host { pid, start }, nth } => {
                write!(f, "themis-{pid}-{start}-{nth}")
            }
            Self::Leaf(Host { pid, start }) => write!(f, "themis-host-{pid}-{start}"),
            Self::Worker(number) => write!(f, "p-{number}"),
        }
    }
}

// === Files ===

/// A directory of the hierarchy, kept open.
#[derive(Debug)]
struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    fn open(path: &Path) -> Result<Self, CgroupError> {
        let fd = rustix::fs::open(path, dir_flags(), Mode::empty());
        let fd = fd.map_err(refused(Operation::Open, path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    fn enter(&self, name: Name) -> Result<Self, CgroupError> {
        let (name, path) = self.at(name);
        let fd = rustix::fs::openat(&self.fd, &name, dir_flags(), Mode::empty());
        Ok(Self { fd: fd.map_err(refused(Operation::Open, &path))?, path })
    }

    fn make(&self, name: Name) -> Result<Self, CgroupError> {
        let (text, path) = self.at(name);
        let made = rustix::fs::mkdirat(&self.fd, &text, Mode::from_raw_mode(0o755));
        made.map_err(refused(Operation::Make, &path))?;
        self.enter(name)
    }

    fn at(&self, name: Name) -> (String, PathBuf) {
        let name = name.to_string();
        let path = self.path.join(&name);
        (name, path)
    }

    /// Removes an empty group below; one that is gone is as good.
    fn remove_once(&self, name: Name) -> Result<(), CgroupError> {
        let (name, path) = self.at(name);
        match rustix::fs::unlinkat(&self.fd, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(refused(Operation::Remove, &path)(errno)),
        }
    }

    /// As [`Dir::remove_once`], again while the system is busy with it.
    fn remove(&self, name: Name, until: Instant) -> Result<(), CgroupError> {
        loop {
            match self.remove_once(name) {
                Err(error) if error.errno() == Errno::BUSY && Instant::now() < until => {
                    wait(&mut [], RETRY_AFTER);
                }
                done => return done,
            }
        }
    }

    /// The groups in it that are of this module.
    fn names(&self) -> Vec<Name> {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.fd) else { return Vec::new() };
        let dirs = entries
            .filter_map(Result::ok)
            .filter(|entry| matches!(entry.file_type(), FileType::Directory | FileType::Unknown));
        dirs.filter_map(|entry| Name::parse(entry.file_name().to_str().ok()?)).collect()
    }

    /// Locks it for as long as its descriptor is open, also for hosts that see other process numbers. A
    /// forked process shares the lock until it executes its program: at worst a sweep comes too early.
    fn lock(&self) -> Result<(), Errno> {
        rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive)
    }

    fn file(&self, name: &str, access: OFlags) -> Result<File, CgroupError> {
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::openat(&self.fd, name, flags, Mode::empty());
        opened.map(File::from).map_err(refused(Operation::Open, &self.path.join(name)))
    }

    fn read(&self, name: &str) -> Result<String, CgroupError> {
        let file = self.file(name, OFlags::RDONLY)?;
        read_all(file).map_err(refused(Operation::Read, &self.path.join(name)))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CgroupError> {
        let file = self.file(name, OFlags::WRONLY)?;
        // The system takes a value whole or refuses it.
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, text.as_bytes()));
        let whole = written.and_then(|n| if n == text.len() { Ok(()) } else { Err(Errno::IO) });
        whole.map_err(refused(Operation::Write, &self.path.join(name)))
    }

    fn write_if_there(&self, name: &str, text: &str) -> Result<(), CgroupError> {
        match self.write(name, text) {
            Err(error) if error.errno() == Errno::NOENT => Ok(()),
            written => written,
        }
    }

    /// A value of a file with one `key value` a line.
    fn number(&self, name: &str, key: &str) -> Option<u64> {
        number(&self.read(name).ok()?, key)
    }

    /// The processes in it; those of other process namespaces have no number here, and are 0.
    fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let all = self.read(PROCS_FILE)?;
        Ok(all.lines().map(|pid| pid.trim().parse().unwrap_or(0)).collect())
    }

    /// Lets what was slowed down run, so that it can die. Without the controller there is nothing to do,
    /// and it dies also if this fails, later.
    fn unthrottle(&self) {
        if let Err(error) = self.write_if_there("cpu.max", "max") {
            tracing::debug!(%error, "a group dies throttled");
        }
    }

    fn kill(&self) -> Result<(), CgroupError> {
        match self.write("cgroup.kill", "1") {
            Err(error) if is_gone(error.errno()) && self.is_removed() => Ok(()),
            done => done,
        }
    }

    /// Whether the group of this descriptor is there no more. Every group has this file.
    fn is_removed(&self) -> bool {
        self.read(PROCS_FILE).is_err_and(|error| is_gone(error.errno()))
    }

    /// Whether nothing is in it, after waiting until then.
    fn wait_empty(&self, until: Instant) -> bool {
        let events = match self.file(EVENTS_FILE, OFlags::RDONLY) {
            Ok(events) => events,
            Err(error) => return is_gone(error.errno()),
        };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Whatever changes after this read makes the descriptor ready.
            if !populated(&events) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            wait(&mut [PollFd::new(&events, PollFlags::PRI)], left);
        }
    }
}

/// Of an open `cgroup.events`. Rather yes when it cannot be told: then somebody waits for nothing.
fn populated(events: &File) -> bool {
    match text_of(events) {
        Ok(text) => number(&text, "populated") != Some(0),
        Err(errno) => !is_gone(errno),
    }
}

fn number(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key);
    value?.1.trim().parse().ok()
}

/// Of a file or a group that was removed, for a descriptor in it or of it.
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV)
}

/// Waits until a descriptor is ready or the time has passed. May return early: look again.
fn wait(fds: &mut [PollFd<'_>], limit: Duration) {
    let tv_sec = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec, tv_nsec: i64::from(limit.subsec_nanos()) };
    let _early = rustix::event::poll(fds, Some(&limit));
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW
}

fn refused(operation: Operation, path: &Path) -> impl FnOnce(Errno) -> CgroupError {
    let path = path.to_owned();
    move |errno| CgroupError::System { operation, path, errno }
}

fn read_file(path: &Path) -> Result<String, CgroupError> {
    let file =
        File::open(path).map_err(|error| refused(Operation::Open, path)(errno_of(&error)))?;
    read_all(file).map_err(refused(Operation::Read, path))
}

fn read_all(file: File) -> Result<String, Errno> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| errno_of(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A short file from its start, however often it was read.
fn text_of(file: &File) -> Result<String, Errno> {
    let mut bytes = [0_u8; 1_024];
    let length = file.read_at(&mut bytes, 0).map_err(|error| errno_of(&error))?;
    Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests;
