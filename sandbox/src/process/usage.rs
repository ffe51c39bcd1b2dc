//! What a process has used, as `/proc` tells it.

use std::time::Duration;

use themis_messages::sandbox::Usage;

/// Ticks of the CPU clock in `/proc`, fixed for user space.
const TICKS_PER_SECOND: u64 = 100;

/// Reads what there is; a process that is gone has no numbers.
pub(super) fn of_process(pid: u32) -> Usage {
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut usage = of_stat(&read("stat"));
    let status = read("status");
    usage.memory_bytes = kib(&status, "VmRSS:");
    usage.memory_peak_bytes = kib(&status, "VmHWM:");
    usage
}

/// How many threads it has.
pub(super) fn threads_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    // The twentieth of all fields, counted from the third.
    rest.split_whitespace().nth(17)?.parse().ok()
}

/// `pid (name) state …`: the name may hold anything.
fn of_stat(stat: &str) -> Usage {
    let Some((_, rest)) = stat.rsplit_once(')') else { return Usage::default() };
    let fields: Vec<u64> =
        rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // Counted from the state, which is the third of all.
    let field = |number: usize| fields.get(number - 3).copied();
    let cpu = field(14)
        .zip(field(15))
        .map(|(user, system)| Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND));
    let page_faults = field(10).zip(field(12)).map(|(minor, major)| minor + major);
    Usage { cpu, page_faults, ..Usage::default() }
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number = line.split_whitespace().next()?.parse::<u64>().ok()?;
    number.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_any_name() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 120 0 3 0 250 50 0 0 20 0 1 0 0 0 0";
        let usage = of_stat(stat);
        assert_eq!(usage.cpu, Some(Duration::from_secs(3)));
        assert_eq!(usage.page_faults, Some(123));
        assert_eq!(kib("VmPeak: 9 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12 << 10));
    }

    #[test]
    fn a_process_that_is_gone_has_no_numbers() {
        assert_eq!(of_process(u32::MAX), Usage::default());
        assert_eq!(of_stat(""), Usage::default());
        assert_eq!(kib("VmRSS: x kB", "VmRSS:"), None);
        let own = of_process(std::process::id());
        assert!(own.memory_bytes.is_some_and(|bytes| bytes > 0), "{own:?}");
        assert!(own.memory_peak_bytes >= own.memory_bytes);
        assert_eq!(threads_of(u32::MAX), None);
        let (more, other) = std::sync::mpsc::channel::<()>();
        let before = threads_of(std::process::id()).unwrap();
        let thread = std::thread::spawn(move || other.recv().is_err());
        assert_eq!(threads_of(std::process::id()), Some(before + 1));
        drop(more);
        thread.join().unwrap();
    }
}
