//! What the filters let through, told by running them: as the kernel would, on one call at a time.

use super::*;

/// The kernel's answers that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Allow,
    Errno(i32),
    Trap,
    Kill,
}

/// A call as a filter sees it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    number: c_long,
    arguments: [u64; 6],
}

const PID: u32 = 1;
/// Where the strict program would lie.
const STRICT: u64 = 0x7fff_1234_5000;

/// Runs a program over one call: loads of 32 bits, comparisons with constants, and jumps forward are all there is.
fn run(program: &BpfProgram, seen: Seen, arch: u32) -> Answer {
    let mut data = Vec::new();
    data.extend_from_slice(&u32::try_from(seen.number).unwrap().to_le_bytes());
    data.extend_from_slice(&arch.to_le_bytes());
    data.extend_from_slice(&0_u64.to_le_bytes());
    seen.arguments.iter().for_each(|argument| data.extend_from_slice(&argument.to_le_bytes()));
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let step = &program[at];
        at += 1;
        let jump = |met: bool| usize::from(if met { step.jt } else { step.jf });
        match step.code {
            0x20 => {
                let offset = step.k as usize;
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            0x54 => accumulator &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x06 => {
                return match step.k & 0xffff_0000 {
                    0x7fff_0000 => Answer::Allow,
                    0x0005_0000 => Answer::Errno((step.k & 0xffff).try_into().unwrap()),
                    0x0003_0000 => Answer::Trap,
                    0x8000_0000 => Answer::Kill,
                    other => panic!("an answer nobody chose: {other:#x}"),
                };
            }
            other => panic!("an instruction nobody wrote: {other:#x}"),
        }
    }
}

/// All filters of a stage, the sternest answer first.
fn judge(filters: &[BpfProgram], seen: Seen) -> Answer {
    let answers: Vec<_> = filters.iter().map(|filter| run(filter, seen, THIS_ARCH)).collect();
    let has = |wanted: Answer| answers.contains(&wanted);
    let errno = answers.iter().find(|answer| matches!(answer, Answer::Errno(_)));
    match errno {
        _ if has(Answer::Kill) => Answer::Kill,
        _ if has(Answer::Trap) => Answer::Trap,
        Some(errno) => *errno,
        None => Answer::Allow,
    }
}

/// As a worker has them while its plugin is mapped.
fn wide_stage() -> Vec<BpfProgram> {
    let soft = SOFT[1..].iter().map(|(errno, calls)| refusal(*errno, calls).unwrap());
    let mut filters: Vec<_> = soft.collect();
    filters.extend([fatal().unwrap(), allow_list(&wide(PID, STRICT)).unwrap()]);
    filters
}

/// As a worker has them while it serves: those of the first stage stay.
fn strict_stage() -> Vec<BpfProgram> {
    let mut filters = wide_stage();
    filters.push(strict_program(PID).unwrap());
    filters
}

/// A call that meets all conditions of one alternative.
fn meeting(number: c_long, conditions: &[When]) -> Seen {
    let mut arguments = [0; 6];
    for when in conditions {
        match *when {
            When::Is(argument, value)
            | When::IsAddress(argument, value)
            | When::Bits(argument, _, value) => {
                arguments[usize::from(argument)] |= value;
            }
            When::Without(_, _) => {}
            When::Not(argument, value) => arguments[usize::from(argument)] = value + 100,
        }
    }
    Seen { number, arguments }
}

/// The same with one condition not met.
fn violating(mut seen: Seen, when: When) -> Seen {
    let (argument, value) = match when {
        When::Is(argument, value) => (argument, value ^ 0x4000),
        // Elsewhere in memory, by its upper half alone.
        When::IsAddress(argument, value) => (argument, value ^ (1 << 40)),
        When::Not(argument, value) => (argument, value),
        When::Without(argument, bits) => {
            (argument, seen.arguments[usize::from(argument)] | (bits & bits.wrapping_neg()))
        }
        When::Bits(argument, mask, bits) => {
            let other = seen.arguments[usize::from(argument)] ^ (mask & mask.wrapping_neg());
            (argument, if other & mask == bits { other ^ mask } else { other })
        }
    };
    seen.arguments[usize::from(argument)] = value;
    seen
}

#[test]
fn every_rule_lets_through_what_it_says_and_nothing_beside_it() {
    for (list, filters) in [(wide(PID, STRICT), wide_stage()), (strict(PID), strict_stage())] {
        let softly = |number: c_long| SOFT.iter().any(|(_, calls)| calls.contains(&number));
        let alternatives = list.iter().flat_map(|allowed| {
            allowed.alternatives.iter().map(move |conditions| (allowed.number, conditions))
        });
        for (number, conditions) in alternatives {
            let met = meeting(number, conditions);
            // What the stage before did not allow stays refused.
            if !softly(number) {
                assert_eq!(judge(&filters, met), Answer::Allow, "{number} {conditions:?}");
            }
            for when in conditions {
                let other = violating(met, *when);
                let elsewhere = list
                    .iter()
                    .filter(|it| it.number == number)
                    .flat_map(|it| &it.alternatives)
                    .any(|it| it.iter().all(|when| holds(other, *when)));
                let judged = judge(&filters, other);
                assert_eq!(judged == Answer::Trap, !elsewhere, "{number} without {when:?}");
            }
        }
    }
}

fn holds(seen: Seen, when: When) -> bool {
    let whole = |argument: u8| seen.arguments[usize::from(argument)];
    let of = |argument: u8| whole(argument) & u64::from(u32::MAX);
    match when {
        When::IsAddress(argument, value) => whole(argument) == value,
        When::Is(argument, value) => of(argument) == value,
        When::Not(argument, value) => of(argument) != value,
        When::Without(argument, bits) => of(argument) & bits == 0,
        When::Bits(argument, mask, bits) => of(argument) & mask == bits,
    }
}

#[test]
fn every_call_that_is_not_listed_ends_the_process() {
    for (list, filters) in [(wide(PID, STRICT), wide_stage()), (strict(PID), strict_stage())] {
        for number in (0..600).chain([9_999, 0x4000_0000, 0x4000_0027]) {
            let seen = Seen { number, arguments: [0; 6] };
            let listed = list.iter().any(|allowed| allowed.number == number);
            let expected = if number == FATAL { Answer::Kill } else { Answer::Trap };
            if !listed {
                assert_eq!(judge(&filters, seen), expected, "{number}");
            }
        }
    }
}

#[test]
fn a_call_of_another_architecture_is_killed_for() {
    for filter in strict_stage() {
        let seen = Seen { number: libc::SYS_getpid, arguments: [0; 6] };
        assert_eq!(run(&filter, seen, 0x4000_0003), Answer::Kill, "that of 32 bits");
    }
}

#[test]
fn the_upper_half_of_an_argument_changes_nothing() {
    let filters = strict_stage();
    let high = |number, mut arguments: [u64; 6], at: usize| {
        arguments[at] |= 1 << 32;
        judge(&filters, Seen { number, arguments })
    };
    assert_eq!(high(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0], 1), Answer::Errno(libc::ENOTTY));
    let execute = [0, 4096, 4, PRIVATE_MEMORY, 0, 0];
    assert_eq!(high(libc::SYS_mmap, execute, 2), Answer::Trap);
}

#[test]
fn libraries_that_probe_are_told_no() {
    let filters = strict_stage();
    for (errno, calls) in SOFT {
        for number in calls {
            let judged = judge(&filters, Seen { number: *number, arguments: [0; 6] });
            assert_eq!(judged, Answer::Errno(errno), "{number}");
        }
    }
}

/// Calls through which much more could be done than one thing: none may be listed without a condition.
#[test]
fn no_broad_call_is_let_through_as_a_whole() {
    let broad = [
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_prctl,
        libc::SYS_clone,
        libc::SYS_futex,
        libc::SYS_madvise,
        libc::SYS_tgkill,
        libc::SYS_write,
        libc::SYS_rt_sigaction,
        libc::SYS_seccomp,
    ];
    let never = [
        libc::SYS_execve,
        libc::SYS_ptrace,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_socket,
        libc::SYS_sendmsg,
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_kill,
        libc::SYS_process_vm_readv,
        libc::SYS_userfaultfd,
        libc::SYS_memfd_create,
    ];
    for list in [wide(PID, STRICT), strict(PID)] {
        for number in broad {
            let of_it = list.iter().filter(|allowed| allowed.number == number);
            assert!(of_it.into_iter().all(|allowed| !allowed.alternatives.is_empty()), "{number}");
        }
        assert!(list.iter().all(|allowed| !never.contains(&allowed.number)));
    }
}
