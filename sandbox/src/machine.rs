//! What this machine offers for isolating plugins: looked at, never changed.
//!
//! Every probe reads a file, asks the kernel a question that has no effect, or makes an object and drops it.
//! Files of the system are read up to a bound. What follows for a kernel's tiers is decided from the facts
//! alone, so that it can be tested without other machines.
#![expect(unsafe_code, reason = "three questions to the kernel that no library asks")]

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Resource};
use serde::Serialize;

/// Longest file of the system that is read, in bytes: a machine may have thousands of mounts.
const SYSTEM_FILE_BYTES_MAX: u64 = 4 << 20;
/// Seal against changing whether a memory file may be executed.
const SEAL_EXEC: SealFlags = SealFlags::from_bits_retain(0x20);

/// The answer of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Probe {
    /// It is there.
    Available {
        /// As found.
        detail: String,
    },
    /// It is not, or not for this process.
    Missing {
        /// What stands in the way.
        why: String,
    },
}

impl Probe {
    /// Whether it is there.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        matches!(self, Self::Available { .. })
    }

    fn available(detail: impl ToString) -> Self {
        Self::Available { detail: detail.to_string() }
    }

    fn missing(why: impl ToString) -> Self {
        Self::Missing { why: why.to_string() }
    }
}

/// What this machine offers to this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Release of the operating system's kernel.
    pub kernel: String,
    /// Whether cgroup v2 is mounted, and the group this process is in.
    pub cgroup: Probe,
    /// Whether that group has what caps memory, processes and CPU: all of them.
    pub cgroup_controllers: Probe,
    /// Whether this process may make groups below its own.
    pub cgroup_delegated: Probe,
    /// Filters over system calls.
    pub seccomp: Probe,
    /// Rights over files that a process gives up, with the version of its interface.
    pub landlock: Probe,
    /// Users of its own.
    pub user_namespace: Probe,
    /// Process numbers of its own.
    pub pid_namespace: Probe,
    /// A network of its own.
    pub net_namespace: Probe,
    /// Mounts of its own.
    pub mount_namespace: Probe,
    /// Memory files that may be mapped as code, sealed.
    pub memfd: Probe,
    /// Handles of processes.
    pub pidfd: Probe,
    /// Starting a process in a cgroup and with a handle.
    pub clone3: Probe,
    /// Mappings a process may have; an image takes about four.
    pub max_map_count: Probe,
    /// Files a process may have open.
    pub open_files: Probe,
}

/// What isolation a machine allows a worker process, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Fallback {
    /// Capped by a cgroup of its own, in namespaces, without files, with a filter over system calls.
    A,
    /// As A, but memory is capped by resource limits and a watchdog.
    B,
    /// Without a cgroup: namespaces, resource limits and a filter.
    C,
    /// Resource limits and a filter.
    D,
    /// No filter over system calls: nothing that deserves the name.
    None,
}

/// The fallback tier of a machine, and what would get the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The tier.
    pub tier: Fallback,
    /// What it is worth.
    pub means: &'static str,
    /// What the next one needs, one step each; empty at the top.
    pub next: Vec<String>,
}

impl Machine {
    /// Looks at this machine. Changes nothing.
    #[must_use]
    pub fn probe() -> Self {
        let group = Group::of_this_process();
        let namespaces = Namespaces::look();
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cgroup: match &group {
                Ok(group) => Probe::available(group.dir.display()),
                Err(why) => Probe::missing(why),
            },
            cgroup_controllers: of_group(&group, Group::controllers),
            cgroup_delegated: of_group(&group, Group::delegated),
            seccomp: seccomp(),
            landlock: landlock(),
            user_namespace: namespaces.user(),
            pid_namespace: namespaces.other("pid", "pid"),
            net_namespace: namespaces.other("net", "net"),
            mount_namespace: namespaces.other("mnt", "mnt"),
            memfd: memfd(),
            pidfd: match rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            {
                Ok(_closed) => Probe::available("pidfd_open"),
                Err(errno) => Probe::missing(errno),
            },
            clone3: clone3(),
            max_map_count: setting("/proc/sys/vm/max_map_count"),
            open_files: open_files(),
        }
    }

    /// The strongest tier that these facts allow.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let seccomp = self.seccomp.is_available();
        let namespaces = [&self.pid_namespace, &self.net_namespace, &self.mount_namespace];
        let apart = seccomp && namespaces.iter().all(|probe| probe.is_available());
        let group = apart && self.cgroup_delegated.is_available() && self.clone3.is_available();
        let full = group && self.cgroup_controllers.is_available() && self.landlock.is_available();
        let (tier, means, wants) = match (full, group, apart, seccomp) {
            (true, ..) => {
                (Fallback::A, "everything: cgroup caps, namespaces, Landlock, seccomp", vec![])
            }
            (_, true, ..) => (
                Fallback::B,
                "a cgroup to kill by, memory capped by resource limits and a watchdog",
                vec![
                    (&self.cgroup_controllers, CONTROLLERS_STEP),
                    (&self.landlock, "boot a kernel with Landlock: 5.13 or newer, lsm=landlock,…"),
                ],
            ),
            (_, _, true, _) => (
                Fallback::C,
                "namespaces, resource limits and seccomp, without a cgroup",
                vec![
                    (&self.cgroup, "mount cgroup2 on /sys/fs/cgroup"),
                    (&self.cgroup_delegated, DELEGATE_STEP),
                    (
                        &self.clone3,
                        "allow clone3 (Linux 5.7 or newer; some containers' filters forbid it)",
                    ),
                ],
            ),
            (.., true) => (
                Fallback::D,
                "resource limits and seccomp only",
                namespaces.iter().map(|probe| (*probe, NAMESPACES_STEP)).collect(),
            ),
            (.., false) => (
                Fallback::None,
                "no filter over system calls: a worker process could not be confined",
                vec![(&self.seccomp, "boot a kernel with CONFIG_SECCOMP_FILTER")],
            ),
        };
        let mut next: Vec<String> = Vec::new();
        for (probe, step) in wants {
            if !probe.is_available() && !next.iter().any(|known| known == step) {
                next.push(step.to_owned());
            }
        }
        Verdict { tier, means, next }
    }
}

const CONTROLLERS_STEP: &str = "give this group the controllers memory, pids and cpu: systemd \
    `Delegate=memory pids cpu` on the host's service, on a machine that boots without cgroup v1";
const DELEGATE_STEP: &str = "delegate a cgroup to the host: systemd `Delegate=memory pids cpu` on its \
    service, or a container with a private, writable cgroup namespace";
const NAMESPACES_STEP: &str = "allow user namespaces: sysctl user.max_user_namespaces, and where they exist \
    kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0";

/// The start of a file of the system.
fn read(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    let fault = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fault)?;
    file.take(SYSTEM_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(fault)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn setting(path: &str) -> Probe {
    match read(path) {
        Ok(value) => Probe::available(value.trim()),
        Err(why) => Probe::missing(why),
    }
}

/// The v2 group this process is in.
struct Group {
    dir: PathBuf,
}

fn of_group(group: &Result<Group, String>, ask: impl FnOnce(&Group) -> Probe) -> Probe {
    match group {
        Ok(group) => ask(group),
        Err(_told) => Probe::missing("there is no cgroup v2"),
    }
}

impl Group {
    fn of_this_process() -> Result<Self, String> {
        let dir = group_dir(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?;
        if dir.is_dir() {
            Ok(Self { dir })
        } else {
            Err(format!("{}: is not there", dir.display()))
        }
    }

    fn controllers(&self) -> Probe {
        match read(self.dir.join("cgroup.controllers")) {
            Ok(listed) => judge_controllers(&listed),
            Err(why) => Probe::missing(why),
        }
    }

    /// Asks for rights only. A group that others manage may be writable too: root may write anywhere.
    fn delegated(&self) -> Probe {
        let files = ["cgroup.procs", "cgroup.subtree_control"].map(|name| self.dir.join(name));
        for path in std::iter::once(self.dir.clone()).chain(files) {
            let rights = Access::WRITE_OK;
            let allowed =
                rustix::fs::accessat(rustix::fs::CWD, &path, rights, rustix::fs::AtFlags::EACCESS);
            if let Err(errno) = allowed {
                return Probe::missing(format!("{} is not writable: {errno}", path.display()));
            }
        }
        Probe::available(format!("{} is writable", self.dir.display()))
    }
}

/// Where the group is mounted: `mountinfo` says what of the hierarchy lies where, `cgroup` which group it is.
pub(crate) fn group_dir(mountinfo: &str, cgroup: &str) -> Result<PathBuf, String> {
    let mount = mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next() == Some("cgroup2")).then_some(())?;
        let mut fields = left.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    });
    let (root, point) = mount.ok_or("cgroup v2 is not mounted")?;
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.ok_or("this process is in no v2 group")?;
    let below = if root == "/" { Some(own) } else { own.strip_prefix(root) };
    let below = below.ok_or_else(|| format!("group {own} lies outside what is mounted"))?;
    // Joining nothing would leave a slash at the end.
    let names = below.split('/').filter(|name| !name.is_empty());
    Ok(names.fold(PathBuf::from(point), |dir, name| dir.join(name)))
}

fn judge_controllers(listed: &str) -> Probe {
    let listed: Vec<_> = listed.split_whitespace().collect();
    let all = if listed.is_empty() { "none".to_owned() } else { listed.join(" ") };
    let lacking: Vec<_> =
        ["memory", "pids", "cpu"].into_iter().filter(|it| !listed.contains(it)).collect();
    if lacking.is_empty() {
        Probe::available(all)
    } else {
        Probe::missing(format!("no {} (there is: {all})", lacking.join(", ")))
    }
}

fn seccomp() -> Probe {
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the call reads one number through the pointer and changes nothing.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    if answer == 0 {
        Probe::available("filters can kill the process")
    } else {
        Probe::missing(format!("asking for filters: {}", std::io::Error::last_os_error()))
    }
}

fn landlock() -> Probe {
    const VERSION: libc::c_long = 1;
    // SAFETY: with this flag the call takes no structure; it answers a number and makes nothing.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION)
    };
    if answer > 0 {
        return Probe::available(format!("ABI {answer}"));
    }
    Probe::missing(match Errno::from_io_error(&std::io::Error::last_os_error()) {
        Some(Errno::NOSYS) => "this kernel was built without it".to_owned(),
        Some(Errno::OPNOTSUPP) => "it is switched off at boot".to_owned(),
        Some(errno) => errno.to_string(),
        None => "the kernel does not say why".to_owned(),
    })
}

fn clone3() -> Probe {
    // SAFETY: a structure of size 0 is refused before anything is read or started.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0_usize) };
    match Errno::from_io_error(&std::io::Error::last_os_error()) {
        Some(Errno::INVAL) if answer == -1 => Probe::available("clone3"),
        Some(errno) => Probe::missing(errno),
        None => Probe::missing("the kernel does not say why"),
    }
}

/// What decides whether this process may make namespaces.
struct Namespaces {
    /// May make any, without a user namespace first.
    privileged: bool,
    /// Switches that forbid user namespaces to others, with their values.
    forbidden: Option<String>,
}

impl Namespaces {
    fn look() -> Self {
        let status = read("/proc/self/status").unwrap_or_default();
        // Only some distributions have these.
        let switches = [
            ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
        ];
        let forbids =
            |(path, value): &(&str, &str)| read(path).is_ok_and(|found| found.trim() == *value);
        let forbidden = switches.iter().find(|it| forbids(it));
        Self {
            privileged: has_sys_admin(&status),
            forbidden: forbidden.map(|(path, value)| format!("{path} is {value}")),
        }
    }

    fn user(&self) -> Probe {
        match (&self.forbidden, self.privileged) {
            (Some(why), false) => Probe::missing(why),
            (_, _) => kind_of_namespace("user", "user"),
        }
    }

    fn other(&self, file: &str, setting: &str) -> Probe {
        let user = self.user();
        if self.privileged || user.is_available() { kind_of_namespace(file, setting) } else { user }
    }
}

/// Whether the kernel has this kind, and lets at least one be made.
fn kind_of_namespace(file: &str, setting: &str) -> Probe {
    if !Path::new("/proc/self/ns").join(file).exists() {
        return Probe::missing("this kernel was built without it");
    }
    let path = format!("/proc/sys/user/max_{setting}_namespaces");
    match read(&path) {
        Ok(most) if most.trim() == "0" => Probe::missing(format!("{path} is 0")),
        Ok(most) => Probe::available(format!("at most {}", most.trim())),
        Err(why) => Probe::missing(why),
    }
}

/// `CapEff` of a process's status, bit 21.
fn has_sys_admin(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> 21 & 1 == 1)
}

/// Makes an executable memory file, seals it as the loader would and drops it.
fn memfd() -> Probe {
    let policy = read("/proc/sys/vm/memfd_noexec").map(|value| value.trim().to_owned());
    let policy = policy.unwrap_or_else(|_absent| "absent".to_owned());
    let plain = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let make = |flags| rustix::fs::memfd_create("themis-doctor", flags);
    let seal = |file: &OwnedFd, seals| rustix::fs::fcntl_add_seals(file, seals);
    match make(plain | MemfdFlags::EXEC) {
        Ok(file) => match seal(&file, SEAL_EXEC | SealFlags::WRITE) {
            Ok(()) => Probe::available(format!("with exec seals; vm.memfd_noexec = {policy}")),
            Err(_older) => Probe::available(format!("no exec seals; vm.memfd_noexec = {policy}")),
        },
        // Kernels before 6.3 know no flag about execution, and forbid none.
        Err(Errno::INVAL) => match make(plain) {
            Ok(_dropped) => Probe::available("no exec seals: the kernel is older than 6.3"),
            Err(errno) => Probe::missing(errno),
        },
        Err(errno) => Probe::missing(format!("{errno}; vm.memfd_noexec = {policy}")),
    }
}

fn open_files() -> Probe {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let told = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |it| it.to_string());
    Probe::available(format!("{} (at most {})", told(limit.current), told(limit.maximum)))
}

#[cfg(test)]
mod tests;
