//! What follows from a machine's facts, for machines there are and machines there are not.

use super::*;

const HYBRID: &str = "\
25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
";

fn all() -> Machine {
    let yes = || Probe::available("yes");
    Machine {
        kernel: "6.18".to_owned(),
        cgroup: yes(),
        cgroup_controllers: yes(),
        cgroup_delegated: yes(),
        seccomp: yes(),
        landlock: yes(),
        user_namespace: yes(),
        pid_namespace: yes(),
        net_namespace: yes(),
        mount_namespace: yes(),
        memfd: yes(),
        pidfd: yes(),
        clone3: yes(),
        max_map_count: yes(),
        open_files: yes(),
    }
}

fn verdict(take: impl FnOnce(&mut Machine)) -> (Fallback, usize) {
    let mut machine = all();
    take(&mut machine);
    let verdict = machine.verdict();
    (verdict.tier, verdict.next.len())
}

#[test]
fn each_tier_follows_from_what_is_missing() {
    let no = || Probe::missing("no");
    assert_eq!(verdict(|_| {}), (Fallback::A, 0));
    assert_eq!(verdict(|it| it.cgroup_controllers = no()), (Fallback::B, 1));
    assert_eq!(verdict(|it| it.landlock = no()), (Fallback::B, 1));
    assert_eq!(verdict(|it| it.cgroup_delegated = no()), (Fallback::C, 1));
    assert_eq!(verdict(|it| it.clone3 = no()), (Fallback::C, 1));
    let no_group = |it: &mut Machine| {
        (it.cgroup, it.cgroup_delegated, it.cgroup_controllers) = (no(), no(), no());
    };
    assert_eq!(verdict(no_group), (Fallback::C, 2));
    // Two kinds are missing, one step brings both.
    let no_namespaces = |it: &mut Machine| (it.net_namespace, it.mount_namespace) = (no(), no());
    assert_eq!(verdict(no_namespaces), (Fallback::D, 1));
    assert_eq!(verdict(|it| it.seccomp = no()), (Fallback::None, 1));
}

#[test]
fn the_group_is_found_where_it_is_mounted() {
    let own = "3:memory:/process_api/x\n0::/app.slice/db\n";
    let found = group_dir(HYBRID, own).unwrap();
    assert_eq!(found, Path::new("/sys/fs/cgroup/unified/app.slice/db"));
    // A container sees a part of the hierarchy as its root.
    let part = "31 30 0:27 /app.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    assert_eq!(group_dir(part, own).unwrap(), Path::new("/sys/fs/cgroup/db"));
    for (mounts, own) in [("", own), (HYBRID, "3:memory:/x\n"), (part, "0::/other\n")] {
        assert!(group_dir(mounts, own).is_err(), "{mounts} {own}");
    }
}

#[test]
fn controllers_are_judged_by_what_a_worker_needs() {
    assert!(judge_controllers("cpuset cpu io memory hugetlb pids\n").is_available());
    let Probe::Missing { why } = judge_controllers("hugetlb\n") else { panic!("it lacks all") };
    assert!(why.contains("memory, pids, cpu") && why.contains("hugetlb"), "{why}");
    assert!(!judge_controllers("").is_available());
}

#[test]
fn the_right_to_administer_is_one_bit() {
    assert!(has_sys_admin("Name:\tx\nCapEff:\t000001fffeffffff\n"));
    assert!(!has_sys_admin("CapEff:\t0000000000000000\n"));
    assert!(!has_sys_admin("CapEff:\twrong\n") && !has_sys_admin(""));
}

#[test]
fn this_machine_is_looked_at_and_stays_as_it_is() {
    let before = std::fs::read_to_string("/proc/self/status").unwrap();
    let machine = Machine::probe();
    let after = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |status: &str, name: &str| {
        status.lines().find(|line| line.starts_with(name)).map(str::to_owned)
    };
    for name in ["Seccomp:", "NoNewPrivs:", "CapEff:", "Uid:"] {
        assert_eq!(field(&before, name), field(&after, name));
    }
    assert_eq!(machine, Machine::probe(), "two looks see the same");
    assert!(!machine.kernel.is_empty());
    assert!(machine.open_files.is_available());
}
