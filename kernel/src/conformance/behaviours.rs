//! The table of behaviours, and how each is seen.

use std::time::{Duration, Instant};

use themis_messages::call::CallError;
use themis_messages::ids::Tier;
use themis_messages::lifecycle::{LoadError, Operation, ReloadReceipt, StateOutcome};
use themis_messages::limits::{HOOK_DEADLINE, MESSAGE_BYTES_MAX};

use super::Verdict::{Broken, Held, NotApplicable};
use super::load::{Ending, under_load, unlisted};
use super::{Area, Behaviour, Subject, Verdict};

/// Everything that is promised.
pub const BEHAVIOURS: [Behaviour; 14] = [
    Behaviour {
        id: "loads",
        area: Area::Lifecycle,
        promise: "it loads, and its receipt proves which bytes are mapped",
        look: loads,
    },
    Behaviour {
        id: "self-tests",
        area: Area::Lifecycle,
        promise: "it has self-tests, and answers them alike each time",
        look: self_tests,
    },
    Behaviour {
        id: "unloads",
        area: Area::Lifecycle,
        promise: "it unloads, calls are then told so, and it loads again",
        look: unloads,
    },
    Behaviour {
        id: "hooks-in-time",
        area: Area::Deadlines,
        promise: "its hooks end well within their deadline",
        look: hooks_in_time,
    },
    Behaviour {
        id: "unknown-method",
        area: Area::Errors,
        promise: "a method it does not have is refused as unknown",
        look: unknown_method,
    },
    Behaviour {
        id: "garbage",
        area: Area::Errors,
        promise: "no request makes it fault, and it answers rightly after the worst of them",
        look: garbage,
    },
    Behaviour {
        id: "large-request",
        area: Area::Limits,
        promise: "a request of 4 MiB is answered or refused, and one over the cap never reaches it",
        look: large_request,
    },
    Behaviour {
        id: "callers",
        area: Area::Concurrency,
        promise: "many threads that call at once are all answered rightly",
        look: callers,
    },
    Behaviour {
        id: "lease",
        area: Area::Concurrency,
        promise: "a lease is answered by one version, whatever replaces it",
        look: lease,
    },
    Behaviour {
        id: "reloads",
        area: Area::Reload,
        promise: "reloads under load lose no call and change no answer",
        look: reloads,
    },
    Behaviour {
        id: "memory",
        area: Area::Reload,
        promise: "reloads of the same image do not grow the process",
        look: memory,
    },
    Behaviour {
        id: "rollback",
        area: Area::Rollback,
        promise: "going back and forth loses no call",
        look: rollback,
    },
    Behaviour {
        id: "state",
        area: Area::State,
        promise: "its state reaches the next instance, which answers as well",
        look: state,
    },
    Behaviour {
        id: "settles",
        area: Area::Probation,
        promise: "a reload of itself passes its probation under load",
        look: settles,
    },
];

/// Reloads before memory is looked at.
const WARM_UP: usize = 100;
/// What a reload may grow the process by, in bytes: the kernel's own buffers are still filling.
const GROWTH_MAX: i64 = 64 << 10;
/// Bytes by which the memory of a process goes up and down by itself: buffers of the store and of the allocator.
const NOISE: i64 = 6 << 20;
/// Rounds of going back and forth.
const ROLLBACKS: usize = 50;

/// What a step that must succeed brought, or the verdict that it did not.
macro_rules! must {
    ($outcome:expr) => {
        match $outcome {
            Ok(value) => value,
            Err(error) => return Broken(format!("{}: {error}", error.code())),
        }
    };
}

/// Hand-overs that may be called off for want of time, one after the other: nothing is wrong with a plugin on a
/// machine that is busy.
const CALLED_OFF_MAX: usize = 20;

impl Subject {
    fn reload(&self) -> Result<ReloadReceipt, LoadError> {
        let reloads = self.kernel().reloads();
        let mut tries = 0..CALLED_OFF_MAX;
        loop {
            match reloads.reload_module_blocking(self.name().as_str(), self.path()) {
                Err(LoadError::HandOver { error, .. })
                    if error.is_for_time() && tries.next().is_some() => {}
                other => return other,
            }
        }
    }
}

fn loads(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let info = plugin.info();
    let proved = info.receipt.as_ref().is_some_and(|receipt| Some(receipt.digest) == info.digest);
    if !proved {
        return Broken("the receipt is not of what serves".to_owned());
    }
    match info.build_id {
        Some(build_id) => Held(format!("build id {build_id}")),
        None if subject.tier() == Tier::Wasm => Held("by its digest".to_owned()),
        None => Held("no build id: link with -Wl,--build-id to have one in receipts".to_owned()),
    }
}

fn self_tests(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let tests = &subject.manifest().self_test;
    if tests.is_empty() {
        let advice = "none in the manifest: with some, each version proves itself before it serves";
        return NotApplicable(advice.to_owned());
    }
    for (index, test) in tests.iter().enumerate() {
        for _ in 0..3 {
            match plugin.call(test.method.as_str(), &test.request) {
                Ok(answer) if answer.bytes == test.reply => {}
                Ok(answer) => {
                    let (got, want) = (answer.bytes.len(), test.reply.len());
                    return Broken(format!(
                        "self-test {index} ({}): {got} bytes that are not the {want} expected",
                        test.method
                    ));
                }
                Err(error) => return Broken(format!("self-test {index}: {error}")),
            }
        }
    }
    Held(format!("{} answered three times", tests.len()))
}

fn unloads(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    must!(subject.kernel().unload_blocking(subject.name().as_str()));
    let told = plugin.call(unlisted(subject.manifest()), b"");
    if !matches!(told, Err(CallError::NotLoaded { .. })) {
        return Broken(format!("a call afterwards ended with {told:?}"));
    }
    must!(subject.loaded());
    Held("and loads again".to_owned())
}

fn hooks_in_time(subject: &Subject) -> Verdict {
    must!(subject.loaded());
    let started = Instant::now();
    must!(subject.kernel().unload_blocking(subject.name().as_str()));
    let shutdown = started.elapsed();
    let started = Instant::now();
    must!(subject.loaded());
    let load = started.elapsed();
    let told = format!("load {load:.1?}, unload {shutdown:.1?}, the deadline is {HOOK_DEADLINE:?}");
    if load.max(shutdown) > HOOK_DEADLINE / 2 { Broken(told) } else { Held(told) }
}

fn unknown_method(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let method = unlisted(subject.manifest());
    match plugin.call(method, b"") {
        Err(CallError::UnknownMethod { .. }) => Held(format!("method {method}")),
        Err(error) => Broken(format!("method {method}: {error}")),
        Ok(_) => Broken(format!("method {method} is not listed and answers")),
    }
}

fn garbage(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let oracle = subject.oracle(plugin);
    let mut requests = 0;
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    for method in &subject.manifest().methods {
        for size in [0, 1, 7, 8, 64, 1_000, 65_536, 1 << 20] {
            for kind in 0..3 {
                let request = noise.request(size, kind);
                requests += 1;
                let ended = plugin.call(method.id, &request);
                if let Err(error @ (CallError::Fault { .. } | CallError::Ended { .. })) = ended {
                    let name = &method.name;
                    return Broken(format!("{name}: {size} bytes of garbage: {error}"));
                }
            }
        }
        if oracle.call(plugin, 0) != Ending::Right {
            return Broken(format!("after garbage to {} it answers wrongly", method.name));
        }
    }
    Held(format!("{requests} requests"))
}

/// Bytes that nobody expects, the same in each run.
struct Noise(u64);

impl Noise {
    fn request(&mut self, size: usize, kind: u8) -> Vec<u8> {
        match kind {
            0 => vec![0; size],
            1 => vec![0xff; size],
            _ => (0..size).map(|_| self.byte()).collect(),
        }
    }

    /// Xorshift (Marsaglia, 2003).
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24) as u8
    }
}

fn large_request(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let oracle = subject.oracle(plugin);
    let large = vec![b'x'; 4 << 20];
    for method in &subject.manifest().methods {
        let ended = plugin.call(method.id, &large);
        if let Err(error @ (CallError::Fault { .. } | CallError::Ended { .. })) = ended {
            return Broken(format!("{}: {error}", method.name));
        }
    }
    let over = vec![0; MESSAGE_BYTES_MAX + 1];
    let method = subject.manifest().methods.first().map_or(0, |method| method.id);
    let refused = plugin.call(method, &over);
    if !matches!(refused, Err(CallError::RequestTooLarge { .. })) {
        return Broken("a request over the cap was not refused".to_owned());
    }
    match oracle.call(plugin, 0) {
        Ending::Right => Held("and answers on".to_owned()),
        Ending::Wrong | Ending::Lost => Broken("afterwards it answers wrongly".to_owned()),
    }
}

fn callers(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let oracle = subject.oracle(plugin);
    let callers = subject.effort().callers;
    // Nobody sends: receiving is waiting.
    let (_clock, tick) = std::sync::mpsc::channel::<()>();
    let ((), seen) = under_load(plugin, &oracle, callers, || {
        tick.recv_timeout(Duration::from_millis(200)).unwrap_or_default();
    });
    let told = format!("{} from {callers} threads; {}", seen.words(), oracle.words());
    if seen.is_clean() { Held(told) } else { Broken(told) }
}

fn lease(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let held = must!(plugin.lease());
    let method = unlisted(subject.manifest());
    let generation = || plugin.info().generation;
    let before = generation();
    let reloads = subject.kernel().reloads();
    match reloads.reload_module_blocking(subject.name().as_str(), subject.path()) {
        Ok(_) => {}
        // Its state cannot move while somebody may still change it.
        Err(LoadError::HandOver { .. }) => {
            return NotApplicable("it is stateful: a reload waits for its leases".to_owned());
        }
        Err(error) => return Broken(format!("{}: {error}", error.code())),
    }
    let told = held.call(method, b"");
    if generation() == before {
        return Broken("the reload did not replace it".to_owned());
    }
    match told {
        Err(CallError::UnknownMethod { .. }) => Held("and delayed only its end".to_owned()),
        other => Broken(format!("the held version ended with {other:?}")),
    }
}

fn reloads(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let oracle = subject.oracle(plugin);
    let effort = subject.effort();
    let started = Instant::now();
    let (outcome, seen) = under_load(plugin, &oracle, effort.callers, || {
        (0..effort.reloads).try_for_each(|_| subject.reload().map(drop))
    });
    must!(outcome);
    let told = format!(
        "{} reloads in {:.1?}; {}; {}",
        effort.reloads,
        started.elapsed(),
        seen.words(),
        oracle.words()
    );
    if seen.is_clean() { Held(told) } else { Broken(told) }
}

fn memory(subject: &Subject) -> Verdict {
    must!(subject.loaded());
    let reloads = subject.effort().reloads.div_ceil(5);
    for _ in 0..WARM_UP {
        must!(subject.reload());
    }
    let before = resident();
    for _ in 0..reloads {
        must!(subject.reload());
    }
    let (Some(before), Some(after)) = (before, resident()) else {
        return NotApplicable("the process's memory cannot be read here".to_owned());
    };
    let most =
        GROWTH_MAX.saturating_mul(i64::try_from(reloads).unwrap_or(i64::MAX)).saturating_add(NOISE);
    let told = format!("{} KiB more after {reloads} reloads", (after - before) >> 10);
    if after - before > most { Broken(told) } else { Held(told) }
}

/// Bytes of this process in memory.
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<i64>().ok()? << 10)
}

fn rollback(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let oracle = subject.oracle(plugin);
    must!(subject.reload());
    let name = subject.name().as_str();
    let (outcome, seen) = under_load(plugin, &oracle, subject.effort().callers, || {
        let reloads = subject.kernel().reloads();
        (0..ROLLBACKS).try_for_each(|_| reloads.rollback_blocking(name).map(drop))
    });
    must!(outcome);
    let told = format!("{ROLLBACKS} times; {}", seen.words());
    if seen.is_clean() { Held(told) } else { Broken(told) }
}

fn state(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let oracle = subject.oracle(plugin);
    let receipt = must!(subject.reload());
    let told = match receipt.state {
        StateOutcome::HandedOver { bytes, held } => {
            format!("{bytes} bytes, new leases held for {held:.1?}")
        }
        StateOutcome::None | StateOutcome::Own { .. } | StateOutcome::Fresh => {
            return NotApplicable("it has no save_state and reload hooks".to_owned());
        }
    };
    match (0..10).all(|turn| oracle.call(plugin, turn) == Ending::Right) {
        true => Held(told),
        false => Broken(format!("{told}; and it answers wrongly")),
    }
}

fn settles(subject: &Subject) -> Verdict {
    let plugin = must!(subject.loaded());
    let oracle = subject.oracle(plugin);
    must!(subject.reload());
    let name = subject.name().as_str();
    // Calls of an unknown method are errors, of both versions alike.
    let (settled, _seen) = under_load(plugin, &oracle, subject.effort().callers, || {
        subject.kernel().reloads().settled_blocking(name)
    });
    match must!(settled) {
        Some(receipt) if receipt.operation == Operation::Reload => Held("it did".to_owned()),
        Some(receipt) => {
            let seen = receipt.evidence.map(|it| it.to_string());
            Broken(seen.unwrap_or_else(|| "it was replaced".to_owned()))
        }
        None => Broken("nothing serves".to_owned()),
    }
}
