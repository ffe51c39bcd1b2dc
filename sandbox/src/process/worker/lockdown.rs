//! Everything a worker gives up before it sees a plugin, in an order that works, each step by name.
//!
//! ```text
//! root ▶ limits ▶ capabilities ▶ user ▶ flags ▶ Landlock
//! ```
//!
//! A layer that this machine does not have is left out and told; a step that the machine has and that fails ends the
//! worker. Nothing here can be taken back by the process itself.
#![expect(unsafe_code, reason = "process attributes that no library sets")]

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use themis_messages::limits::MEMORY_BYTES_MAX;
use themis_messages::sandbox::{Layer, Layers, SetupStep};

/// Users of workers begin here, and each has its process's number added, and above it what tells hosts apart whose
/// processes have the same numbers: no two that live have the same user. Above what distributions and containers give to
/// people and services.
const USERS: u32 = 0x6000_0000;
/// Process numbers end below this.
const NUMBERS: u32 = 1 << 22;
/// Threads of all workers of one host together, where they have no users of their own: whoever gets there first is found by
/// the host's watchdog, and until then only workers want for threads.
const THREADS_TOGETHER: u64 = 4_096;
/// What a worker itself needs beyond its plugin: its heap, stacks and libraries' data.
const OWN_MEMORY: u64 = 48 << 20;
/// Address space: the shared messages, and reservations that plugins' allocators make.
const ADDRESS_SPACE: u64 = 8 << 30;
const _: () = assert!(ADDRESS_SPACE > 2 * MEMORY_BYTES_MAX);
const STACK: u64 = 8 << 20;
const OPEN_FILES: u64 = 16;
const PENDING_SIGNALS: u64 = 64;

/// The step that failed, and why.
pub(super) type Failed = (SetupStep, Errno);

/// What the host says about this worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) memory_bytes: u64,
    pub(super) cap_memory: bool,
    pub(super) pids: u32,
    /// Tells hosts apart that see the same process numbers.
    pub(super) host: u32,
}

/// Gives everything up; answers which layers hold.
pub(super) fn lock_down(wanted: Wanted) -> Result<Layers, Failed> {
    let mut layers = Layers::default();
    // Users, capabilities and Landlock are given up by one thread, for itself.
    alone().map_err(|errno| (SetupStep::Flags, errno))?;
    // While the host's processes can still be seen.
    let user = own_user(wanted.host).map_err(|errno| (SetupStep::User, errno))?;
    let apart = std::process::id() == 1;
    if apart {
        layers = layers.with(Layer::PidNamespace);
        if empty_root().map_err(|errno| (SetupStep::Root, errno))? {
            layers = layers.with(Layer::MountNamespace);
        }
    }
    limits(wanted, user.is_some()).map_err(|errno| (SetupStep::ResourceLimits, errno))?;
    bound_capabilities().map_err(|errno| (SetupStep::Capabilities, errno))?;
    if let Some(user) = user {
        change_user(user).map_err(|errno| (SetupStep::User, errno))?;
        layers = layers.with(Layer::OwnUser);
    }
    drop_capabilities().map_err(|errno| (SetupStep::Capabilities, errno))?;
    if flags().map_err(|errno| (SetupStep::Flags, errno))? {
        layers = layers.with(Layer::WriteXorExecute);
    }
    layers = layers.with(Layer::Unprivileged);
    if landlock().map_err(|errno| (SetupStep::Landlock, errno))? {
        layers = layers.with(Layer::Landlock);
    }
    Ok(layers)
}

/// That no library of the program has started a thread: it would keep what this one gives up.
fn alone() -> Result<(), Errno> {
    let threads = std::fs::read_dir("/proc/self/task");
    let threads = threads.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if threads.count() == 1 { Ok(()) } else { Err(Errno::BUSY) }
}

/// The number of this process in the namespace that `/proc` was mounted for: the host's.
fn host_pid() -> Option<u32> {
    std::fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}

/// The user that this worker becomes; none where the host is not root, or has no users to give.
fn own_user(host: u32) -> Result<Option<u32>, Errno> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let pid = host_pid().ok_or(Errno::SRCH)?;
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let (users, groups) = (read("/proc/self/uid_map"), read("/proc/self/gid_map"));
    let user = user_in(&users, host, pid);
    // The group has the same number.
    Ok(user.filter(|user| has(&groups, *user)))
}

/// A user of this namespace for a worker: one that nobody else has, or where there are not so many, one of the upper half
/// of those there are, which two workers may have in common.
fn user_in(map: &str, host: u32, pid: u32) -> Option<u32> {
    /// With fewer, those are people and services.
    const FEW: u32 = 4_096;
    let own = USERS + ((host & 0x7f) * NUMBERS) + (pid % NUMBERS);
    if has(map, own) {
        return Some(own);
    }
    let (first, count) = ranges(map).max_by_key(|(_, count)| *count)?;
    (count >= FEW).then(|| first + count / 2 + pid % (count / 2 - 1))
}

fn has(map: &str, id: u32) -> bool {
    ranges(map).any(|(first, count)| id.checked_sub(first).is_some_and(|above| above < count))
}

/// Ids inside, and how many of them, of each line: `inside outside count`.
fn ranges(map: &str) -> impl Iterator<Item = (u32, u32)> {
    map.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u32>().ok());
        let (first, _, count) = (fields.next()??, fields.next()??, fields.next()??);
        Some((first, count))
    })
}

/// A root with nothing in it but a `/proc` of this namespace, which has only this process; `false` where a container
/// allows no mounts, or has hidden parts of `/proc`, and nobody below may see more of it.
fn empty_root() -> Result<bool, Errno> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let place = Path::new("/proc");
    // Over the old /proc, which every system has: this mount namespace is the worker's own.
    let size = c"size=64k,nr_inodes=8,mode=0555";
    match rustix::mount::mount(c"tmpfs", place, c"tmpfs", flags, size) {
        // A profile of the container's has no mounts.
        Err(Errno::PERM | Errno::ACCESS) => return Ok(false),
        mounted => mounted?,
    }
    rustix::process::chdir(place)?;
    rustix::fs::mkdirat(CWD, c"proc", Mode::from_raw_mode(0o555))?;
    let own =
        rustix::mount::mount(c"proc", c"proc", c"proc", flags, c"subset=pid,hidepid=invisible");
    match own {
        // Before 5.8 there were no such options.
        Err(Errno::INVAL) => rustix::mount::mount(c"proc", c"proc", c"proc", flags, None)?,
        Err(Errno::PERM) => {
            rustix::process::chdir(c"/")?;
            rustix::mount::unmount(place, UnmountFlags::DETACH)?;
            return Ok(false);
        }
        mounted => mounted?,
    }
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::mount::mount_remount(c"/", MountFlags::RDONLY | flags, c"")?;
    rustix::process::chdir(c"/")?;
    Ok(true)
}

/// Whether this process is in a user namespace that the spawner made: then only workers are counted with it.
fn in_own_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    ranges(&map).map(|(_, count)| count).sum::<u32>() == 1
}

fn limits(wanted: Wanted, own_user: bool) -> Result<(), Errno> {
    let mut limits = vec![
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Sigpending, PENDING_SIGNALS),
        (Resource::Stack, STACK),
        (Resource::As, ADDRESS_SPACE),
    ];
    if wanted.cap_memory {
        limits.push((Resource::Data, wanted.memory_bytes + OWN_MEMORY));
    }
    // It counts all processes of the user: only a user of its own makes it this worker's. Where a cgroup counts, it may not
    // be in the way of another worker that has the same.
    if own_user && wanted.cap_memory {
        limits.push((Resource::Nproc, u64::from(wanted.pids)));
    } else if !own_user && in_own_namespace() {
        limits.push((Resource::Nproc, THREADS_TOGETHER));
    }
    for (resource, most) in limits {
        let now = rustix::process::getrlimit(resource).maximum;
        let most = now.map_or(most, |now| now.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit)?;
    }
    Ok(())
}

/// No capability can be gained from here on, also not by executing a file.
fn bound_capabilities() -> Result<(), Errno> {
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // One that this kernel does not have, or no right to drop what was never there.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    match rustix::thread::clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno),
    }
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    match rustix::thread::set_capabilities_secure_bits(locked) {
        // Without the right to set them there is nothing to lock.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn change_user(user: u32) -> Result<(), Errno> {
    let (group, user) = (Gid::from_raw(user), Uid::from_raw(user));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)
}

fn drop_capabilities() -> Result<(), Errno> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}

/// Flags of the process; answers whether memory that was writable can never become code.
fn flags() -> Result<bool, Errno> {
    const PR_SET_MDWE: i32 = 65;
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    // After the user changed: that clears it. The host's death may have come first: the control socket is looked at after.
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    prctl(libc::PR_SET_DUMPABLE, 0)?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    match prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN) {
        Ok(()) => Ok(true),
        // Before 6.3.
        Err(Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn prctl(option: i32, value: libc::c_ulong) -> Result<(), Errno> {
    let none: libc::c_ulong = 0;
    // SAFETY: these options take numbers only.
    let done = unsafe { libc::prctl(option, value, none, none, none) };
    if done == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Gives up every right to files, to connect, and to signal or reach others, as far as this kernel knows such rights;
/// answers whether the rights to files are gone.
fn landlock() -> Result<bool, Errno> {
    let newest = ABI::V6;
    let deny_all = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(newest))?
            .handle_access(AccessNet::from_all(newest))?
            .scope(Scope::from_all(newest))?
            .create()?
            .restrict_self()
    };
    match deny_all() {
        Ok(status) => Ok(status.ruleset != RulesetStatus::NotEnforced),
        Err(_) => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_a_user_of_its_own_wherever_there_is_one() {
        let everybody = "         0          0 4294967295\n";
        assert_eq!(user_in(everybody, 0, 7), Some(USERS + 7));
        // The same number in another container.
        assert_eq!(user_in(everybody, 3, 7), Some(USERS + 3 * NUMBERS + 7));
        // The highest of either is still a user.
        assert!(user_in(everybody, 0x7f, NUMBERS - 1).is_some_and(|user| user < u32::MAX / 2 + 1));
        // A container's users: the upper half, where no service is.
        let container = "0 100000 65536\n";
        assert_eq!(user_in(container, 0, 7), Some(32_768 + 7));
        assert!(
            (0..200_000).filter_map(|pid| user_in(container, 0, pid)).all(|it| has(container, it))
        );
        // Root and somebody: nobody to become.
        assert_eq!(user_in("0 1000 1\n1 100000 10\n", 0, 7), None);
        assert_eq!(user_in("", 0, 7), None);
        assert_eq!(user_in("x y z", 0, 7), None);
    }
}
