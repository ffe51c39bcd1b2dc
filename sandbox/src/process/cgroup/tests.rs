//! Groups in a directory of plain files, where everything can be arranged, and in the system's hierarchy,
//! where it is writable. Most machines lend no controllers to tests: what needs them says that it was skipped.

use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{RwLock, RwLockReadGuard};

use rustix::event::epoll;
use rustix::fs::XattrFlags;
use rustix::process::{Pid, PidfdFlags};
use tempfile::TempDir;

use super::*;

const LIMITS: GroupLimits = GroupLimits { memory_bytes: 64 << 20, cpu_percent: 150, pids: 16 };
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// As when its host ends. Closing it is not enough here: what another test has just forked shares it until
/// it executes its program.
fn unlock(dir: Dir) {
    rustix::fs::flock(&dir.fd, FlockOperation::Unlock).unwrap();
}

// === Plain files ===

fn mock(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), files);
    dir
}

fn fill(dir: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(dir).unwrap();
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
}

/// `p-7` in a directory of plain files.
fn mock_group(parent: &TempDir, capped: bool, files: &[(&str, &str)]) -> Group {
    fill(&parent.path().join("p-7"), files);
    let parent = Arc::new(Dir::open(parent.path()).unwrap());
    let name = Name::Worker(7);
    let dir = parent.enter(name).unwrap();
    Group { parent, dir, name, capped, removed: false }
}

fn content(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

fn why(subtree: &Subtree) -> &str {
    match subtree.controls() {
        Controls::KillOnly { why } => why,
        Controls::Full => panic!("{} has all controllers", subtree.path().display()),
    }
}

const CAPS: [(&str, &str); 7] = [
    ("cgroup.max.descendants", ""),
    ("memory.swap.max", ""),
    ("memory.zswap.max", ""),
    ("memory.oom.group", ""),
    ("memory.max", ""),
    ("pids.max", ""),
    ("cpu.max", ""),
];

#[test]
fn limits_are_written_as_the_system_reads_them() {
    let parent = mock(&[]);
    let group = mock_group(&parent, true, &CAPS);
    group.confine(&LIMITS).unwrap();
    let written = CAPS.map(|(name, _)| content(&group.dir.path, name));
    assert_eq!(written, ["0", "0", "0", "1", "67108864", "16", "150000 100000"]);
}

#[test]
fn a_group_without_controllers_has_no_limits_but_no_groups_below_either() {
    let parent = mock(&[]);
    let group = mock_group(&parent, false, &CAPS);
    group.confine(&LIMITS).unwrap();
    let written = CAPS.map(|(name, _)| content(&group.dir.path, name));
    assert_eq!(written, ["0", "", "", "", "", "", ""]);
}

#[test]
fn only_swap_may_be_missing() {
    for (missing, _) in CAPS {
        let parent = mock(&[]);
        let files: Vec<_> = CAPS.into_iter().filter(|(name, _)| *name != missing).collect();
        let group = mock_group(&parent, true, &files);
        let written = group.confine(&LIMITS);
        if missing.contains("swap") {
            assert_eq!(written, Ok(()), "{missing}");
            continue;
        }
        let error = written.unwrap_err();
        assert_eq!(error.errno(), Errno::NOENT, "{missing}");
        let told = error.to_string();
        assert!(told.contains(missing) && told.contains("Linux 5.14"), "{told}");
    }
}

#[test]
fn a_throttled_group_may_run_before_it_is_killed() {
    let parent = mock(&[]);
    let group = mock_group(&parent, true, &[("cgroup.kill", ""), ("cpu.max", "")]);
    group.kill().unwrap();
    assert_eq!(content(&group.dir.path, "cgroup.kill"), "1");
    assert_eq!(content(&group.dir.path, "cpu.max"), "max");
}

#[test]
fn a_system_that_cannot_kill_groups_is_told_from_a_group_that_is_gone() {
    let parent = mock(&[]);
    let group = mock_group(&parent, false, &[(PROCS_FILE, "")]);
    assert_eq!(group.kill().unwrap_err().errno(), Errno::NOENT);
    fs::remove_dir_all(&group.dir.path).unwrap();
    assert_eq!(group.kill(), Ok(()));
    assert!(!group.is_populated());
    assert_eq!(group.remove(), Ok(()));
}

#[test]
fn links_are_not_followed() {
    let parent = mock(&[("elsewhere", "as it was")]);
    let group = mock_group(&parent, false, &[]);
    for name in ["cgroup.kill", "memory.events"] {
        std::os::unix::fs::symlink("../elsewhere", group.dir.path.join(name)).unwrap();
    }
    assert_eq!(group.kill().unwrap_err().errno(), Errno::LOOP);
    assert!(group.memory_events().is_none());
    assert_eq!(content(parent.path(), "elsewhere"), "as it was");
}

#[test]
fn kills_for_memory_are_counted_whatever_the_file_says() {
    let events = "low 0\nhigh 9\nmax 4\noom 1\noom_kill 3\noom_group_kill 2\n";
    let cases = [
        (events, 3),
        ("oom 5\noom_kill 0\n", 0),
        ("oom_kill 18446744073709551615", u64::MAX),
        ("oom_kill 18446744073709551616\n", 0),
        ("oom_kill -1\n", 0),
        ("oom_kill\n", 0),
        ("oom_kill  7 \n", 7),
        ("oom_killer 7\n oom_kill 8\n", 0),
        ("\0\u{fffd}", 0),
        ("", 0),
    ];
    for (text, expected) in cases {
        let parent = mock(&[]);
        let group = mock_group(&parent, true, &[("memory.events", text)]);
        assert_eq!(group.oom_kills(), expected, "{text:?}");
        assert!(group.memory_events().is_some());
    }
    let parent = mock(&[]);
    let group = mock_group(&parent, true, &[]);
    assert_eq!(group.oom_kills(), 0);
    assert!(group.memory_events().is_none());
}

#[test]
fn usage_is_what_there_is() {
    let parent = mock(&[]);
    let all = [
        ("cpu.stat", "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n"),
        ("memory.current", "4096\n"),
        ("memory.peak", "8192\n"),
    ];
    let full = GroupUsage {
        cpu: Duration::from_millis(1_500),
        memory_bytes: Some(4_096),
        memory_peak_bytes: Some(8_192),
    };
    assert_eq!(mock_group(&parent, true, &all).usage(), full);
    let garbage = [
        ("cpu.stat", "usage_usec many\n"),
        ("memory.current", "max\n"),
        ("memory.peak", "\u{fffd}"),
    ];
    assert_eq!(mock_group(&parent, true, &garbage).usage(), GroupUsage::default());
    let parent = mock(&[]);
    assert_eq!(mock_group(&parent, true, &[]).usage(), GroupUsage::default());
}

#[test]
fn a_group_is_empty_only_if_it_says_so() {
    for (text, expected) in [
        ("populated 0\nfrozen 0\n", false),
        ("populated 1\nfrozen 0\n", true),
        ("frozen 0\npopulated 0\n", false),
        ("populated\n", true),
        ("unpopulated 0\n", true),
        ("", true),
    ] {
        let parent = mock(&[]);
        let group = mock_group(&parent, false, &[(EVENTS_FILE, text)]);
        assert_eq!(group.is_populated(), expected, "{text:?}");
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(group.dir.wait_empty(soon), !expected, "{text:?}");
    }
}

#[test]
fn names_are_read_in_the_one_way_they_are_written() {
    let host = Host { pid: 12, start: 345 };
    let names = [
        ("p-0", Name::Worker(0)),
        ("p-18446744073709551615", Name::Worker(u64::MAX)),
        ("themis-12-345", Name::Subtree { host, nth: 1 }),
        ("themis-12-345-2", Name::Subtree { host, nth: 2 }),
        ("themis-host-12-345", Name::Leaf(host)),
    ];
    for (text, name) in names {
        assert_eq!(Name::parse(text), Some(name));
        assert_eq!(name.to_string(), text);
    }
    let others = [
        "",
        "p",
        "p-",
        "p-01",
        "p-+1",
        "p--1",
        "p-1 ",
        "p-18446744073709551616",
        "themis",
        "themis-",
        "themis-1",
        "themis-1-2-1",
        "themis-1-2-03",
        "themis-01-2",
        "themis-1-2-3-4",
        "themis-a-b",
        "themis-host",
        "themis-host-1",
        "themis-host-1-2-3",
        "themis-4294967296-1",
        "Themis-1-2",
        "cgroup.procs",
        "../p-1",
    ];
    for text in others {
        assert_eq!(Name::parse(text), None, "{text:?}");
    }
}

#[test]
fn a_process_is_told_from_a_later_one_of_its_number() {
    let stat = "7 (a) R) Z 1 7 7 0 -1 4194304 120 0 3 0 250 50 0 0 20 0 1 0 9876 0 0";
    assert_eq!(of_stat(stat), Some((Host { pid: 7, start: 9_876 }, "Z")));
    for garbage in
        ["", "7", "7 (a", "7 (a) R", "x (a) R 1 7 7 0 -1 4 120 0 3 0 2 5 0 0 20 0 1 0 9 0"]
    {
        assert_eq!(of_stat(garbage), None, "{garbage:?}");
    }
    let this = Host::this().unwrap();
    assert_eq!(this.pid, this_process());
    assert!(this.lives());
    assert!(!Host { start: this.start + 1, ..this }.lives());
    assert!(!gone().lives());
}

#[test]
fn lacking_controllers_are_named_with_the_way_out() {
    for (listed, there) in [("hugetlb\n", "hugetlb"), ("", "none")] {
        let own = mock(&[(CONTROLLERS_FILE, listed)]);
        let subtree = Subtree::below(own.path()).unwrap();
        let why = why(&subtree);
        for part in ["no memory, pids, cpu", there, "Delegate=memory pids cpu", "DelegateSubgroup="]
        {
            assert!(why.contains(part), "{part}: {why}");
        }
        let host = Host::this().unwrap();
        assert_eq!(subtree.path(), own.path().join(format!("themis-{}-{}", host.pid, host.start)));
        let path = subtree.path().to_owned();
        drop(subtree);
        assert!(!path.exists(), "it was empty");
    }
    let own = mock(&[(CONTROLLERS_FILE, "cpuset cpu io pids\n")]);
    let subtree = Subtree::below(own.path()).unwrap();
    assert!(why(&subtree).contains("no memory (there is: cpuset cpu io pids)"), "{subtree:?}");
}

#[test]
fn only_controllers_that_are_not_enabled_are_enabled() {
    let all = (CONTROLLERS_FILE, "cpuset cpu io memory pids\n");
    for (enabled, written) in [
        ("", "+memory +pids +cpu"),
        ("io pids", "+memory +cpu"),
        ("cpu memory pids\n", "cpu memory pids\n"),
    ] {
        let own = mock(&[all, (SUBTREE_FILE, enabled)]);
        fill(&own.path().join("p-1"), &[(SUBTREE_FILE, "")]);
        let dir = Arc::new(Dir::open(own.path()).unwrap());
        let below = dir.enter(Name::Worker(1)).unwrap();
        let leaf = take_controls(&dir, &below, Host::this().unwrap(), &mut Weak::new()).unwrap();
        assert!(leaf.is_none());
        assert_eq!(content(own.path(), SUBTREE_FILE), written);
        assert_eq!(content(&below.path, SUBTREE_FILE), "+memory +pids +cpu");
    }
}

#[test]
fn controllers_that_cannot_be_enabled_leave_groups_that_kill() {
    let all = (CONTROLLERS_FILE, "cpu memory pids\n");
    for files in [&[all][..], &[all, (SUBTREE_FILE, "")][..]] {
        let own = mock(files);
        let subtree = Subtree::below(own.path()).unwrap();
        assert!(why(&subtree).contains(SUBTREE_FILE), "{subtree:?}");
        assert!(why(&subtree).contains("No such file"), "{subtree:?}");
    }
}

#[test]
fn what_cannot_be_made_is_told_with_its_place() {
    let own = mock(&[]);
    let path = own.path().join("missing");
    let error = Subtree::below(&path).unwrap_err();
    let errno = Errno::NOENT;
    let operation = Operation::Open;
    assert_eq!(error, CgroupError::System { operation, path: path.clone(), errno });
    assert!(error.to_string().starts_with(&format!("cannot open {}: ", path.display())), "{error}");
    for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS] {
        let told = refused(Operation::Make, &path)(errno).to_string();
        assert!(told.contains("Delegate=") && told.contains("container"), "{told}");
    }
    let subtree = mock_subtree(&own);
    let error = subtree.create(3, &LIMITS).unwrap_err();
    assert_eq!(error.errno(), Errno::NOENT, "plain directories have no files of their own");
    assert!(!subtree.path().join("p-3").exists(), "nothing remains");
    fs::create_dir(subtree.path().join("p-3")).unwrap();
    assert_eq!(subtree.create(3, &LIMITS).unwrap_err().errno(), Errno::EXIST);
    assert!(subtree.path().join("p-3").exists(), "it is not this one's");
}

fn mock_subtree(own: &TempDir) -> Subtree {
    fill(own.path(), &[(CONTROLLERS_FILE, "")]);
    Subtree::below(own.path()).unwrap()
}

#[test]
fn a_process_in_a_leaf_works_beside_it() {
    let own = mock(&[]);
    for (name, beside) in [("themis-host-1-2", true), ("themis-1-2", false), ("host", false)] {
        let path = own.path().join(name);
        let expected = if beside { own.path() } else { &path };
        assert_eq!(delegated_to(&path), expected, "{name}");
    }
    assert_eq!(delegated_to(Path::new("/")), Path::new("/"));
}

#[test]
fn a_service_in_a_subgroup_works_in_what_was_delegated() {
    let all = (CONTROLLERS_FILE, "cpu memory pids\n");
    let service = mock(&[all]);
    let own = service.path().join("host");
    fill(&own, &[(CONTROLLERS_FILE, "\n")]);
    assert_eq!(delegated_to(&own), own, "nobody said that the group above may be used");
    let mark =
        |value| rustix::fs::setxattr(service.path(), "user.delegate", value, XattrFlags::empty());
    if let Err(errno) = mark(b"1") {
        return println!("skipped: temporary files cannot be marked: {errno}");
    }
    assert_eq!(delegated_to(&own), service.path());
    mark(b"0").unwrap();
    assert_eq!(delegated_to(&own), own);
    mark(b"1").unwrap();
    fill(&own, &[all]);
    assert_eq!(delegated_to(&own), own, "it has what is needed");
}

#[test]
fn a_sweep_touches_only_what_hosts_left_that_are_gone() {
    let dead = gone();
    let this = Host::this().unwrap();
    let own = mock(&[("themis-3-4", "a file"), (CONTROLLERS_FILE, "")]);
    let kept = [
        "p-1".to_owned(),
        "themis".to_owned(),
        "themis-host".to_owned(),
        "themis-old-1".to_owned(),
        format!("themis-0{}-1", dead.pid),
        Name::Subtree { host: this, nth: 7 }.to_string(),
        Name::Leaf(this).to_string(),
    ];
    let stale =
        [Name::Subtree { host: dead, nth: 1 }, Name::Leaf(dead)].map(|name| name.to_string());
    for name in kept.iter().chain(&stale) {
        fs::create_dir(own.path().join(name)).unwrap();
    }
    fs::create_dir(own.path().join(&stale[0]).join("p-9")).unwrap();
    // As a host locks it that has another view of process numbers.
    let locked = Name::Subtree { host: dead, nth: 2 };
    let lock = Dir::open(own.path()).unwrap().make(locked).unwrap();
    lock.lock().unwrap();
    drop(Subtree::below(own.path()).unwrap());
    let left = |name: &str| own.path().join(name).exists();
    assert!(kept.iter().all(|name| left(name)), "{kept:?}");
    assert!(left("themis-3-4") && left(&locked.to_string()));
    assert!(!stale.iter().any(|name| left(name)), "{stale:?}");
    unlock(lock);
    drop(Subtree::below(own.path()).unwrap());
    assert!(!left(&locked.to_string()), "its host ended");
}

#[test]
fn what_others_put_into_a_stale_subtree_is_not_removed() {
    let own = mock(&[(CONTROLLERS_FILE, "")]);
    let stale = own.path().join(Name::Subtree { host: gone(), nth: 1 }.to_string());
    fs::create_dir_all(stale.join("p-1")).unwrap();
    fs::create_dir_all(stale.join("somebody-else")).unwrap();
    drop(Subtree::below(own.path()).unwrap());
    assert!(stale.join("somebody-else").exists());
    assert!(!stale.join("p-1").exists());
}

#[test]
fn kernels_in_one_process_have_subtrees_of_their_own() {
    let own = mock(&[(CONTROLLERS_FILE, "")]);
    let first = Subtree::below(own.path()).unwrap();
    let second = Subtree::below(own.path()).unwrap();
    assert_ne!(first.path(), second.path());
    drop(first);
    assert!(second.path().is_dir());
    let third = Subtree::below(own.path()).unwrap();
    assert_ne!(third.path(), second.path());
}

// === The system's hierarchy ===

/// A group to play in, below the one this process is in.
struct Scratch(PathBuf, #[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>);

/// Written to by the one test that may move this process, and take controllers away from the others.
static HANDED_ON: RwLock<()> = RwLock::new(());

impl Scratch {
    fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let shared = HANDED_ON.read().unwrap_or_else(PoisonError::into_inner);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let made = own_group().and_then(|own| {
            let dir = own.join(format!("test-{}-{number}", this_process()));
            fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            Ok(dir)
        });
        made.map(|dir| Self(dir, shared)).map_err(|why| println!("skipped: {why}")).ok()
    }

    /// With controllers for the groups in it, if this machine lends any.
    fn with_controllers() -> Option<Self> {
        let scratch = Self::new()?;
        let own = Dir::open(scratch.0.parent().unwrap()).unwrap();
        let enabled = own.write(SUBTREE_FILE, &switch('+', &CONTROLLERS));
        enabled.map_err(|error| println!("skipped: {error}")).ok()?;
        Some(scratch)
    }

    fn subtree(&self) -> Subtree {
        Subtree::below(&self.0).unwrap()
    }

    fn holds(&self) -> Vec<String> {
        dirs(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let dir = Dir::open(&self.0).unwrap();
        dir.kill().unwrap();
        assert!(dir.wait_empty(Instant::now() + LONG));
        remove_all(&self.0);
    }
}

fn remove_all(dir: &Path) {
    for name in dirs(dir) {
        remove_all(&dir.join(name));
    }
    fs::remove_dir(dir).unwrap();
}

fn dirs(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let dirs = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    dirs.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn own_group() -> Result<PathBuf, String> {
    let mounts = read_file(Path::new("/proc/self/mountinfo")).map_err(told)?;
    let groups = read_file(Path::new("/proc/self/cgroup")).map_err(told)?;
    Ok(delegated_to(&group_dir(&mounts, &groups)?))
}

/// A process that was there, as if long ago.
fn gone() -> Host {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    Host { pid: child.id(), start: 1 }
}

/// A process that does nothing, killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn within(group: &Path) -> Self {
        let sleeper = Self::new();
        put(sleeper.0.id(), group);
        sleeper
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// For one that ends soon.
    fn end(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.0);
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let until = Instant::now() + LONG;
        while self.lives() {
            assert!(Instant::now() < until, "{pid} lives");
            wait(&mut [PollFd::new(&process, PollFlags::IN)], LONG);
        }
        self.0.wait().unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn put(pid: u32, group: &Path) {
    fs::write(group.join(PROCS_FILE), pid.to_string()).unwrap();
}

fn killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

#[test]
fn a_group_is_killed_and_removed_as_one() {
    let Some(scratch) = Scratch::new() else { return };
    let subtree = scratch.subtree();
    let group = subtree.create(1, &LIMITS).unwrap();
    assert_eq!(content(&group.dir.path, "cgroup.max.descendants"), "0\n");
    assert!(fs::create_dir(group.dir.path.join("below")).is_err());
    assert!(!group.is_populated());
    let mut sleepers = [(); 3].map(|()| Sleeper::within(&group.dir.path));
    assert!(group.is_populated());
    assert!(!group.dir.wait_empty(Instant::now() + Duration::from_millis(20)));
    assert_eq!(group.oom_kills(), 0);
    group.kill().unwrap();
    assert!(group.dir.wait_empty(Instant::now() + LONG));
    assert!(!group.is_populated(), "also before anybody waited for them");
    assert!(sleepers.iter_mut().all(|sleeper| killed(sleeper.end())));
    assert!(group.usage().cpu < LONG);
    group.remove().unwrap();
    assert_eq!(dirs(subtree.path()), [""; 0]);
    drop(subtree);
    assert_eq!(scratch.holds(), [""; 0]);
}

#[test]
fn a_group_is_removed_with_what_is_in_it() {
    let Some(scratch) = Scratch::new() else { return };
    let subtree = scratch.subtree();
    let group = subtree.create(u64::MAX, &LIMITS).unwrap();
    let mut sleeper = Sleeper::within(&group.dir.path);
    let before = Instant::now();
    group.remove().unwrap();
    assert!(before.elapsed() < EMPTY_WAIT_MAX, "it is told when the group is empty");
    assert!(killed(sleeper.end()));
    assert_eq!(dirs(subtree.path()), [""; 0]);
}

#[test]
fn a_number_is_taken_once_at_a_time() {
    let Some(scratch) = Scratch::new() else { return };
    let subtree = scratch.subtree();
    let group = subtree.create(5, &LIMITS).unwrap();
    assert_eq!(subtree.create(5, &LIMITS).unwrap_err().errno(), Errno::EXIST);
    assert!(group.dir.path.is_dir(), "it is not touched");
    group.remove().unwrap();
    subtree.create(5, &LIMITS).unwrap().remove().unwrap();
}

#[test]
fn a_dropped_group_leaves_nothing_if_nothing_was_in_it() {
    let Some(scratch) = Scratch::new() else { return };
    let subtree = scratch.subtree();
    drop(subtree.create(1, &LIMITS).unwrap());
    assert_eq!(dirs(subtree.path()), [""; 0]);
    let group = subtree.create(2, &LIMITS).unwrap();
    let mut sleeper = Sleeper::within(&group.dir.path);
    drop(group);
    assert!(killed(sleeper.end()));
    drop(subtree);
    assert_eq!(scratch.holds(), [""; 0]);
}

#[test]
fn a_dropped_subtree_takes_everything_along() {
    let Some(scratch) = Scratch::new() else { return };
    let subtree = scratch.subtree();
    let groups: Vec<_> = (1..=3).map(|n| subtree.create(n, &LIMITS).unwrap()).collect();
    let mut sleepers: Vec<_> =
        groups.iter().map(|group| Sleeper::within(&group.dir.path)).collect();
    let beside = scratch.0.join("beside");
    fs::create_dir(&beside).unwrap();
    let mut other = Sleeper::within(&beside);
    drop(subtree);
    assert!(sleepers.iter_mut().all(|sleeper| killed(sleeper.end())));
    assert_eq!(scratch.holds(), ["beside"]);
    assert!(other.lives(), "it was not in the subtree");
    for group in groups {
        assert_eq!(group.kill(), Ok(()));
        assert!(!group.is_populated());
        assert_eq!(group.usage(), GroupUsage::default());
        assert_eq!(group.remove(), Ok(()), "it is gone already");
    }
}

#[test]
fn a_hundred_groups_leave_nothing() {
    let Some(scratch) = Scratch::new() else { return };
    let subtree = scratch.subtree();
    for number in 0..100 {
        subtree.create(number, &LIMITS).unwrap().remove().unwrap();
    }
    assert_eq!(dirs(subtree.path()), [""; 0]);
    drop(subtree);
    assert_eq!(scratch.holds(), [""; 0]);
}

#[test]
fn what_a_host_left_that_is_gone_is_killed_and_removed() {
    let Some(scratch) = Scratch::new() else { return };
    let host = gone();
    let stale = scratch.0.join(Name::Subtree { host, nth: 1 }.to_string());
    let leaf = scratch.0.join(Name::Leaf(host).to_string());
    let empty_leaf = scratch.0.join(Name::Leaf(Host { start: 2, ..host }).to_string());
    for dir in [&stale.join("p-1"), &stale.join("p-2"), &leaf, &empty_leaf] {
        fs::create_dir_all(dir).unwrap();
    }
    let mut orphan = Sleeper::within(&stale.join("p-1"));
    let mut left_by_the_program = Sleeper::within(&leaf);
    let subtree = scratch.subtree();
    assert!(!stale.exists() && !empty_leaf.exists());
    assert!(killed(orphan.end()));
    assert!(leaf.exists() && left_by_the_program.lives(), "it is no worker");
    drop(subtree);
}

#[test]
fn what_belongs_to_a_host_that_lives_is_left_alone() {
    let Some(scratch) = Scratch::new() else { return };
    let host = Sleeper::new();
    let stat = fs::read_to_string(format!("/proc/{}/stat", host.0.id())).unwrap();
    let (id, _) = of_stat(&stat).unwrap();
    let seen = scratch.0.join(Name::Subtree { host: id, nth: 1 }.to_string()).join("p-1");
    fs::create_dir_all(&seen).unwrap();
    // A host whose number means nothing here: only its lock tells that it lives.
    let own = Dir::open(&scratch.0).unwrap();
    let unseen = own.make(Name::Subtree { host: gone(), nth: 1 }).unwrap();
    unseen.lock().unwrap();
    let unseen_group = unseen.make(Name::Worker(1)).unwrap();
    let mut workers = [&seen, &unseen_group.path].map(|group| Sleeper::within(group));
    drop(scratch.subtree());
    assert!(seen.is_dir() && unseen_group.path.is_dir());
    assert!(workers.iter_mut().all(Sleeper::lives));
    drop(host);
    unlock(unseen);
    drop(scratch.subtree());
    assert!(workers.iter_mut().all(|worker| killed(worker.end())));
    assert_eq!(scratch.holds(), [""; 0]);
}

#[test]
fn many_start_side_by_side() {
    let Some(scratch) = Scratch::new() else { return };
    std::thread::scope(|scope| {
        for number in 0..8 {
            let scratch = &scratch;
            scope.spawn(move || {
                for _ in 0..5 {
                    let subtree = scratch.subtree();
                    let group = subtree.create(number, &LIMITS).unwrap();
                    let mut sleeper = Sleeper::within(&group.dir.path);
                    assert!(sleeper.lives());
                    group.remove().unwrap();
                    assert!(killed(sleeper.end()));
                }
            });
        }
    });
    assert_eq!(scratch.holds(), [""; 0]);
}

#[test]
fn a_change_makes_a_descriptor_ready_once_it_was_read() {
    let Some(scratch) = Scratch::new() else { return };
    let subtree = scratch.subtree();
    let group = subtree.create(1, &LIMITS).unwrap();
    let events = group.dir.file(EVENTS_FILE, OFlags::RDONLY).unwrap();
    let ready = |limit| {
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        wait(&mut fds, limit);
        fds[0].revents().contains(PollFlags::PRI)
    };
    assert!(ready(Duration::ZERO), "it was not read");
    assert!(!populated(&events));
    assert!(!ready(Duration::from_millis(20)), "nothing has changed");
    let _sleeper = Sleeper::within(&group.dir.path);
    assert!(ready(LONG));
    assert!(ready(Duration::ZERO), "until it is read again");
    assert!(populated(&events));
}

#[test]
fn the_subtree_lies_below_the_own_group() {
    let _alone = HANDED_ON.write().unwrap_or_else(PoisonError::into_inner);
    let own = match own_group() {
        Ok(own) => own,
        Err(why) => return println!("skipped: {why}"),
    };
    match Subtree::open() {
        Ok(subtree) => {
            assert_eq!(subtree.path().parent(), Some(own.as_path()));
            println!("{}: {:?}", own.display(), subtree.controls());
            let path = subtree.path().to_owned();
            drop(subtree);
            assert!(!path.exists());
        }
        Err(error) if matches!(error.errno(), Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            println!("skipped: {error}");
        }
        Err(error) => panic!("{error}"),
    }
}

// === With controllers ===

/// What a process of its own does in the tests below, once its standard input is closed.
const ROLE: &str = "THEMIS_TEST_ROLE";

#[test]
fn played_by_a_process_of_its_own() {
    let Ok(role) = std::env::var(ROLE) else { return };
    std::io::read_to_string(std::io::stdin()).unwrap();
    let own = own_group().unwrap();
    match role.as_str() {
        "take memory" => drop(std::hint::black_box(vec![7_u8; 256 << 20])),
        "start processes" => {
            let started: Vec<_> = (0..64).map(|_| Command::new("sleep").arg("9").spawn()).collect();
            let refused = started.into_iter().find_map(Result::err).unwrap();
            assert_eq!(Errno::from_io_error(&refused), Some(Errno::AGAIN));
        }
        "burn" => while std::hint::black_box(true) {},
        "step aside" => {
            let subtree = Subtree::open().unwrap();
            assert_eq!(subtree.controls(), &Controls::Full);
            let leaf = Name::Leaf(Host::this().unwrap()).to_string();
            assert_eq!(place(), own.join(&leaf));
            assert_eq!(subtree.path().parent(), Some(own.as_path()));
            let group = subtree.create(1, &LIMITS).unwrap();
            assert_eq!(content(&group.dir.path, "pids.max"), "16\n");
            // More kernels start when the process is in the leaf, and need the controllers.
            let [second, third] = [(); 2].map(|()| Subtree::open().unwrap());
            assert_eq!(second.controls(), &Controls::Full);
            assert_eq!(second.path().parent(), Some(own.as_path()));
            drop(second);
            let mut started = Sleeper::new();
            group.remove().unwrap();
            drop(subtree);
            assert_eq!(place(), own.join(&leaf));
            let group = third.create(1, &LIMITS).unwrap();
            assert_eq!(content(&group.dir.path, "pids.max"), "16\n");
            group.remove().unwrap();
            drop(third);
            assert!(started.lives());
            assert_eq!(place(), own);
            assert_eq!(dirs(&own), [""; 0]);
        }
        "serve" => {
            let subtree = Subtree::open().unwrap();
            assert_eq!(subtree.controls(), &Controls::Full);
            assert_eq!(subtree.path().parent(), Some(own.as_path()));
            assert_eq!(place(), own.join("host"), "nothing stands in the way there");
            subtree.create(1, &LIMITS).unwrap().remove().unwrap();
        }
        "stay" => {
            let subtree = Subtree::open().unwrap();
            let why = why(&subtree);
            assert!(why.starts_with("2 other processes are in "), "{why}");
            assert!(why.contains("Delegate=memory pids cpu"), "{why}");
            assert_eq!(place(), own);
            assert_eq!(dirs(&own), [subtree.path().file_name().unwrap().to_str().unwrap()]);
            let group = subtree.create(1, &LIMITS).unwrap();
            let mut sleeper = Sleeper::within(&group.dir.path);
            group.remove().unwrap();
            assert!(killed(sleeper.end()));
        }
        other => panic!("{other}"),
    }
}

/// The group this process is in, leaf or not.
fn place() -> PathBuf {
    let read = |path| fs::read_to_string(path).unwrap();
    group_dir(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup")).unwrap()
}

/// Starts a process of its own in a group.
fn play(role: &str, group: &Path) -> Sleeper {
    let (_crate, module) = module_path!().split_once("::").unwrap();
    let name = format!("{module}::played_by_a_process_of_its_own");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--nocapture"]).env(ROLE, role).stdin(Stdio::piped());
    let mut player = Sleeper(command.spawn().unwrap());
    put(player.0.id(), group);
    player.0.stdin.take().unwrap().flush().unwrap();
    player
}

#[test]
fn a_host_alone_in_its_group_steps_aside_and_comes_back() {
    let Some(scratch) = Scratch::with_controllers() else { return };
    assert!(play("step aside", &scratch.0).end().success());
    assert_eq!(content(&scratch.0, SUBTREE_FILE).trim(), "");
    assert_eq!(scratch.holds(), [""; 0]);
}

#[test]
fn a_host_among_others_stays_and_says_so() {
    let Some(scratch) = Scratch::with_controllers() else { return };
    let mut others = [(); 2].map(|()| Sleeper::within(&scratch.0));
    assert!(play("stay", &scratch.0).end().success());
    assert!(others.iter_mut().all(Sleeper::lives));
    assert_eq!(scratch.holds(), [""; 0]);
    // Nor is a process moved into a group that it is not in.
    let subtree = scratch.subtree();
    assert!(why(&subtree).starts_with("2 other processes are in "), "{subtree:?}");
}

#[test]
fn a_service_started_in_a_subgroup_stays_there() {
    let Some(scratch) = Scratch::with_controllers() else { return };
    let host = scratch.0.join("host");
    fs::create_dir(&host).unwrap();
    rustix::fs::setxattr(&scratch.0, "user.delegate", b"1", XattrFlags::empty()).unwrap();
    assert!(play("serve", &host).end().success());
    assert_eq!(scratch.holds(), ["host"]);
}

#[test]
fn memory_is_capped_and_the_kill_is_told() {
    let Some(scratch) = Scratch::with_controllers() else { return };
    let subtree = scratch.subtree();
    assert_eq!(subtree.controls(), &Controls::Full);
    let group = subtree.create(1, &LIMITS).unwrap();
    for (file, value) in [("memory.max", "67108864\n"), ("memory.oom.group", "1\n")] {
        assert_eq!(content(&group.dir.path, file), value, "{file}");
    }
    let events = group.memory_events().unwrap();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let edges = epoll::EventFlags::PRI | epoll::EventFlags::ET;
    epoll::add(&epoll, &events, epoll::EventData::new_u64(1), edges).unwrap();
    let ready = |limit: Duration| {
        let limit = Timespec { tv_sec: limit.as_secs().try_into().unwrap(), tv_nsec: 0 };
        let mut ready = [epoll::Event { flags: edges, data: epoll::EventData::new_u64(0) }];
        epoll::wait(&epoll, &mut ready[..], Some(&limit)).unwrap() > 0
    };
    assert!(!ready(Duration::ZERO), "nothing has happened");
    let mut other = Sleeper::within(&group.dir.path);
    let mut hungry = play("take memory", &group.dir.path);
    while group.oom_kills() == 0 {
        assert!(ready(LONG));
    }
    assert!(killed(hungry.end()));
    assert!(killed(other.end()), "the group goes as one");
    assert!(group.usage().memory_bytes.is_some());
    assert!(group.usage().memory_peak_bytes.is_none_or(|peak| peak > LIMITS.memory_bytes / 2));
    group.remove().unwrap();
}

#[test]
fn processes_are_capped() {
    let Some(scratch) = Scratch::with_controllers() else { return };
    let subtree = scratch.subtree();
    let group = subtree.create(1, &LIMITS).unwrap();
    assert!(play("start processes", &group.dir.path).end().success());
    assert!(group.is_populated());
    group.remove().unwrap();
}

#[test]
fn cpu_is_capped_until_the_group_is_killed() {
    let Some(scratch) = Scratch::with_controllers() else { return };
    let subtree = scratch.subtree();
    let group = subtree.create(1, &GroupLimits { cpu_percent: 2, ..LIMITS }).unwrap();
    assert_eq!(content(&group.dir.path, "cpu.max"), "2000 100000\n");
    let mut busy = play("burn", &group.dir.path);
    let begun = Instant::now();
    while group.usage().cpu < Duration::from_millis(40) {
        wait(&mut [], Duration::from_millis(10));
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    let before = Instant::now();
    group.remove().unwrap();
    assert!(killed(busy.end()));
    println!("a throttled group was gone after {:?}", before.elapsed());
}

#[test]
fn a_limit_that_the_system_does_not_take_is_an_error() {
    let Some(scratch) = Scratch::with_controllers() else { return };
    let subtree = scratch.subtree();
    let error = subtree.create(1, &GroupLimits { cpu_percent: 0, ..LIMITS }).unwrap_err();
    assert_eq!(error.errno(), Errno::INVAL);
    assert!(error.to_string().contains("cpu.max"), "{error}");
    assert_eq!(dirs(subtree.path()), [""; 0], "nothing remains");
}
