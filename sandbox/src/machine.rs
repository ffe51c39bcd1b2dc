//! What this machine offers for keeping plugins apart, found out without changing anything.

#![expect(
    unsafe_code,
    reason = "asks the kernel for versions by system calls that rustix does not have"
)]

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use themis_messages::limits::IMAGES_MAX;

/// Whether something is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "detail", rename_all = "kebab-case")]
pub enum Offer {
    /// It is, as far as this tells.
    Available(String),
    /// It is not, for this reason.
    Missing(String),
}

impl Offer {
    /// Whether it is there.
    #[must_use]
    pub fn is_available(&self) -> bool {
        matches!(self, Self::Available(_))
    }

    /// The reason or the detail.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Available(detail) | Self::Missing(detail) => detail,
        }
    }

    fn when(is_there: bool, available: impl Into<String>, missing: impl Into<String>) -> Self {
        if is_there { Self::Available(available.into()) } else { Self::Missing(missing.into()) }
    }
}

/// One thing a machine may offer.
#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    /// For programs.
    pub id: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Whether it is there.
    pub offer: Offer,
    /// What to do to have it.
    pub remedy: &'static str,
}

/// How much of the process tier's isolation a machine allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Isolation {
    /// Delegated cgroup v2 with its memory controller, namespaces, Landlock, seccomp.
    A,
    /// cgroup v2 without its memory controller: memory is limited by resource limits and watched.
    B,
    /// No cgroup of its own: what a plugin starts is ended with its pid namespace.
    C,
    /// seccomp and resource limits only.
    D,
    /// Not even seccomp: nothing can be kept apart.
    None,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The system's release.
    pub release: String,
    /// What it offers.
    pub facts: Vec<Fact>,
    /// What follows for plugins in processes of their own.
    pub isolation: Isolation,
    /// How to get more of it; empty when there is no more.
    pub next: String,
}

impl Machine {
    /// Looks.
    #[must_use]
    pub fn look() -> Self {
        let facts = vec![
            seccomp(),
            landlock(),
            namespaces(),
            cgroup(),
            cgroup_controllers(),
            pidfd(),
            clone3(),
            memory_files(),
            mappings(),
            descriptors(),
        ];
        let has = |id: &str| facts.iter().any(|it| it.id == id && it.offer.is_available());
        let isolation = match () {
            () if !has("seccomp") => Isolation::None,
            () if has("cgroup")
                && has("cgroup-controllers")
                && has("namespaces")
                && has("landlock") =>
            {
                Isolation::A
            }
            () if has("cgroup") && has("namespaces") => Isolation::B,
            () if has("namespaces") => Isolation::C,
            () => Isolation::D,
        };
        let wanted: &[&str] = match isolation {
            Isolation::A => &[],
            Isolation::B => &["cgroup-controllers", "landlock"],
            Isolation::C => &["cgroup"],
            Isolation::D => &["namespaces"],
            Isolation::None => &["seccomp"],
        };
        let missing = facts.iter().filter(|it| wanted.contains(&it.id) && !it.offer.is_available());
        let next = missing.map(|it| it.remedy).collect::<Vec<_>>().join("; ");
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self { release, facts, isolation, next }
    }
}

fn seccomp() -> Fact {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    let kills = actions.as_deref().is_ok_and(|it| it.contains("kill_process"));
    Fact {
        id: "seccomp",
        purpose: "refuse a plugin the system calls it has no business with",
        offer: match actions {
            Ok(actions) => Offer::when(kills, actions.trim(), "it cannot end a whole process"),
            Err(error) => Offer::Missing(error),
        },
        remedy: "run a kernel with CONFIG_SECCOMP_FILTER",
    }
}

fn landlock() -> Fact {
    const VERSION: u32 = 1;
    // SAFETY: with no attributes and this flag the call only answers the version of its interface.
    let abi = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION)
    };
    Fact {
        id: "landlock",
        purpose: "deny a plugin every file",
        offer: Offer::when(
            abi > 0,
            format!("version {abi}"),
            "the kernel does not have it, or it is off",
        ),
        remedy: "run a kernel from 5.13 on with landlock in its list of security modules (lsm=)",
    }
}

fn namespaces() -> Fact {
    const KINDS: [&str; 6] = ["user", "pid", "net", "mnt", "ipc", "uts"];
    let missing: Vec<_> =
        KINDS.into_iter().filter(|kind| !Path::new("/proc/self/ns").join(kind).exists()).collect();
    let users = number("/proc/sys/user/max_user_namespaces");
    let is_root = rustix::process::geteuid().is_root();
    let may = is_root || users.is_some_and(|most| most > 0);
    let offer = match (missing.is_empty(), may) {
        (true, true) => Offer::Available(KINDS.join(" ")),
        (false, _) => Offer::Missing(format!("the kernel has no {} namespaces", missing.join(" "))),
        (true, false) => Offer::Missing("users may not make namespaces".to_owned()),
    };
    Fact {
        id: "namespaces",
        purpose: "give a plugin no network, no mounts, and no sight of other processes",
        offer,
        remedy: "allow them: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone",
    }
}

/// Where this process stands in the unified hierarchy.
fn own_cgroup() -> Result<PathBuf, String> {
    let mounts = read("/proc/self/mounts")?;
    let mounted = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (place, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    let root = mounted.ok_or("cgroup v2 is not mounted")?;
    let groups = read("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(root.join(own.ok_or("this process is in no group of cgroup v2")?))
}

fn cgroup() -> Fact {
    let offer = match own_cgroup() {
        Err(why) => Offer::Missing(why),
        Ok(own) => {
            let writable = rustix::fs::access(&own, rustix::fs::Access::WRITE_OK).is_ok();
            let place = own.display().to_string();
            Offer::when(writable, place.clone(), format!("{place} is not ours to write"))
        }
    };
    Fact {
        id: "cgroup",
        purpose: "end a plugin with everything it started",
        offer,
        remedy: "have a group of cgroup v2 delegated: Delegate=memory pids cpu in the service's unit, or a container with a private cgroup namespace",
    }
}

fn cgroup_controllers() -> Fact {
    let listed = own_cgroup().and_then(|own| {
        let path = own.join("cgroup.controllers");
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    });
    let offer = match listed {
        Err(why) => Offer::Missing(why),
        Ok(listed) => {
            let has = |name: &str| listed.split_whitespace().any(|it| it == name);
            let missing: Vec<_> =
                ["memory", "pids", "cpu"].into_iter().filter(|name| !has(name)).collect();
            let told = format!("there is no {} (of: {})", missing.join(", "), listed.trim());
            Offer::when(missing.is_empty(), listed.trim(), told)
        }
    };
    Fact {
        id: "cgroup-controllers",
        purpose: "limit a plugin's memory, processes and CPU so that they hold",
        offer,
        remedy: "boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1), so that the controllers are in it",
    }
}

fn pidfd() -> Fact {
    let opened = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    );
    Fact {
        id: "pidfd",
        purpose: "end the right process, also when its number was used again",
        offer: match opened {
            Ok(_) => Offer::Available("yes".to_owned()),
            Err(error) => Offer::Missing(error.to_string()),
        },
        remedy: "run a kernel from 5.3 on",
    }
}

fn clone3() -> Fact {
    // SAFETY: with a structure of no size the call is refused before it looks at anything; what it is refused with
    // tells whether it is there.
    let refused = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0_usize) };
    let error = std::io::Error::last_os_error();
    let is_there = refused == -1 && error.raw_os_error() == Some(libc::EINVAL);
    Fact {
        id: "clone3",
        purpose: "start a plugin's process inside its group from its first instruction on",
        offer: Offer::when(is_there, "yes", error.to_string()),
        remedy: "run a kernel from 5.7 on, and a container whose filter lets clone3 through",
    }
}

fn memory_files() -> Fact {
    let policy = number("/proc/sys/vm/memfd_noexec").unwrap_or(0);
    let missing =
        "vm.memfd_noexec is 2: images are mapped from private copies in the data directory";
    Fact {
        id: "memory-files",
        purpose: "map exactly the bytes that were verified, without a name in any directory",
        offer: Offer::when(policy < 2, format!("vm.memfd_noexec is {policy}"), missing),
        remedy: "sysctl vm.memfd_noexec=1",
    }
}

fn mappings() -> Fact {
    /// About as many each image takes.
    const OF_AN_IMAGE: u64 = 4;
    let most = number("/proc/sys/vm/max_map_count").unwrap_or(0);
    let wanted = IMAGES_MAX as u64 * OF_AN_IMAGE;
    Fact {
        id: "mappings",
        purpose: "map as many images as the kernel allows in-process",
        offer: Offer::when(
            most >= wanted,
            format!("vm.max_map_count is {most}"),
            format!("vm.max_map_count is {most}: room for some {} images", most / OF_AN_IMAGE),
        ),
        remedy: "sysctl vm.max_map_count=65530, or more",
    }
}

fn descriptors() -> Fact {
    const WANTED: u64 = 1_024;
    let most = getrlimit(Resource::Nofile).current;
    let told = most.map_or_else(|| "no limit".to_owned(), |most| format!("the limit is {most}"));
    Fact {
        id: "descriptors",
        purpose: "keep the store, the sockets and data files open",
        offer: Offer::when(most.is_none_or(|most| most >= WANTED), told.clone(), told),
        remedy: "ulimit -n 1024, or LimitNOFILE= in the service's unit",
    }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn number(path: &str) -> Option<u64> {
    read(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_finds_what_this_machine_must_have_to_run_these_tests() {
        let machine = Machine::look();
        assert!(!machine.release.is_empty());
        let of = |id: &str| machine.facts.iter().find(|it| it.id == id).unwrap();
        assert!(of("descriptors").offer.is_available());
        for fact in &machine.facts {
            assert!(!fact.offer.detail().is_empty(), "{fact:?}");
        }
        let best = machine.isolation == Isolation::A;
        assert_eq!(best, machine.next.is_empty(), "{machine:?}");
    }
}
