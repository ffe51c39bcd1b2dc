//! Hostile plugins: whatever one of them tries, it is alone with the consequences, and they have a name.
//!
//! After each attempt its neighbour answers as before and the plugin itself serves again; at the end nothing is left.

use std::time::Duration;

use themis_kernel::call::CallError;
use themis_kernel::config::{FailureRules, Intensity};
use themis_kernel::event::LifecycleEvent;
use themis_kernel::ids::Tier;
use themis_kernel::lifecycle::{KernelFault, LoadError, Operation, UnloadError};
use themis_kernel::sandbox::{SandboxError, Verdict};
use themis_kernel::{Config, Events, Kernel, PluginRef};
use themis_tests::{Fixture, Site};

use table::Expect;

mod table;

/// Long enough for a healthy call on a busy machine.
fn deadline() -> Duration {
    Duration::from_millis(if is_guest() { 6_000 } else { 1_500 })
}

const MEMORY: u64 = 64 << 20;

fn config(site: &Site) -> Config {
    let mut config = site.config(&[]);
    config.default_tier = Tier::Process;
    config.hook_deadline = deadline().min(config.hook_deadline);
    config.call_deadline = deadline();
    config.limits.memory_bytes = MEMORY;
    // So that everything can be counted.
    config.workers.pool = 0;
    config.probation.window = Duration::ZERO;
    config.failures = FailureRules {
        intensity: Intensity { restarts: 10_000, period: Duration::from_secs(3_600) },
        wait_first: Duration::from_millis(1),
        wait_longest: Duration::from_millis(1),
        failed_loads: 10_000,
    };
    config
}

fn hostile(flags: &[String]) -> Fixture {
    let fixture = Fixture::c("hostile.c", "hostile", "1.0.0")
        .with("capabilities", serde_json::json!(["log", "metrics"]));
    flags.iter().fold(fixture, |fixture, flag| fixture.flag(flag))
}

/// A kernel with a good plugin and, perhaps, a hostile one.
struct Stage {
    kernel: Kernel,
    site: Site,
    neighbour: PluginRef,
    events: Events,
    /// Descriptors that were open before the first attempt.
    descriptors: usize,
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

impl Stage {
    fn new() -> Self {
        let site = Site::new();
        let neighbour = site.add(&Fixture::c("counter.c", "neighbour", "1.0.0"));
        let kernel = Kernel::start_blocking(config(&site)).unwrap();
        let neighbour = kernel.loader().load_blocking(neighbour, None).unwrap();
        let events = kernel.subscribe();
        let descriptors = descriptors();
        Self { kernel, site, neighbour, events, descriptors }
    }

    fn check_neighbour(&self, after: &str) {
        let answer = self.neighbour.call("echo", b"as before");
        assert_eq!(answer.map(|it| it.bytes), Ok(b"as before".to_vec()), "after {after}");
    }

    fn wait_for_restart(&mut self) {
        loop {
            let event = self.events.next_blocking().unwrap().expect("the kernel runs");
            match event.what {
                LifecycleEvent::Serves { receipt } if receipt.operation == Operation::Restart => {
                    return;
                }
                LifecycleEvent::Missed { events } => panic!("{events} events were missed"),
                _ => {}
            }
        }
    }

    /// Nothing is left of any attempt: no worker, and no descriptor.
    fn end(self) {
        let known = |name| self.kernel.plugin(name).is_some();
        if known("hostile") {
            self.unload_when_free();
        }
        // The test runner ends what never comes to be so.
        while themis_tests::children("--themis-role=worker").len() > 1
            || descriptors() > self.descriptors
        {
            std::thread::yield_now();
        }
        self.check_neighbour("all of it");
        self.kernel.shutdown_blocking();
        while !themis_tests::children("--themis-role").is_empty() {
            std::thread::yield_now();
        }
    }
}

/// Whether an end is the one that was expected; a text when it is not.
fn judge(expect: Expect, found: &Verdict) -> Result<(), String> {
    let as_expected = match (expect, found) {
        (Expect::Refused(name), Verdict::SeccompViolation { syscall }) => {
            syscall.name == Some(name)
        }
        (Expect::RefusedNumber(number), Verdict::SeccompViolation { syscall }) => {
            syscall.number == Some(number)
        }
        (Expect::RefusedUnnamed, Verdict::SeccompViolation { .. })
        | (Expect::Deadline, Verdict::Deadline { .. })
        | (Expect::Memory, Verdict::MemoryLimit { .. })
        | (Expect::EndsUnnamed, Verdict::Crash { .. } | Verdict::SeccompViolation { .. })
        // A reply is memory as well, and whichever cap it meets first ends it.
        | (Expect::TooLarge, Verdict::MemoryLimit { .. })
        // It has asked for memory, did not get it, and used what it did not have.
        | (Expect::Memory, Verdict::Deadline { .. } | Verdict::Crash { .. })
        | (Expect::Harmless, _) => true,
        (Expect::Ok | Expect::TooLarge, Verdict::Deadline { .. }) => is_guest(),
        (Expect::Crash(signal), Verdict::Crash { signal: found, .. }) => signal == *found,
        (Expect::Panic(text), Verdict::Panic { message }) => message.contains(text),
        (Expect::Exit(code), Verdict::UnexpectedExit { code: found }) => code == *found,
        _ => false,
    };
    if as_expected { Ok(()) } else { Err(format!("{found:?}")) }
}

/// A guest kernel is slow: what takes long takes longer than it may.
fn is_guest() -> bool {
    std::env::var_os("THEMIS_GUEST").is_some()
}

fn has_landlock() -> bool {
    themis_kernel::machine::Machine::probe().landlock.is_available()
}

/// Whether an answer is the one that was expected.
fn judge_answer(expect: Expect, answer: &str) -> Result<(), String> {
    let errno = |number: i32| answer == format!("errno {number}");
    let as_expected = match expect {
        Expect::Errno(number) => errno(number),
        Expect::Either(one, other) => errno(one) || errno(other),
        Expect::WithLandlock(number) => errno(number) || (answer == "ok" && !has_landlock()),
        Expect::Ok => !answer.starts_with("errno"),
        Expect::Harmless => true,
        // A guest kernel may have no such calls.
        Expect::RefusedUnnamed => is_guest(),
        _ => false,
    };
    if as_expected { Ok(()) } else { Err(format!("it answered {answer:?}")) }
}

#[test]
fn whatever_a_call_tries_it_ends_as_it_must_and_the_next_call_works() {
    attack_in_calls(&hostile(&[]), table::CALLS);
}

#[test]
fn the_standard_library_of_rust_works_within_the_process_and_reaches_nothing_outside() {
    attack_in_calls(&Fixture::rust("hostile.rs", "hostile", "1.0.0"), table::RUST);
}

/// Makes every attempt; panics with all whose outcome is not the expected one.
fn attack_in_calls(fixture: &Fixture, attempts: &[(u32, Expect)]) {
    let mut stage = Stage::new();
    let path = stage.site.add(fixture);
    let plugin = stage.kernel.loader().load_blocking(path, None).unwrap();
    let mut wrong = Vec::new();
    for (method, expect) in attempts {
        let method = *method;
        let judged = match plugin.call(method, &method.to_le_bytes()) {
            Ok(answer) => judge_answer(*expect, &String::from_utf8_lossy(&answer.bytes)),
            Err(CallError::Ended { verdict, .. }) => {
                stage.wait_for_restart();
                judge(*expect, &verdict)
            }
            Err(CallError::ReplyTooLarge { .. }) if *expect == Expect::TooLarge => Ok(()),
            Err(_) if *expect == Expect::Harmless => Ok(()),
            Err(other) => Err(other.to_string()),
        };
        if let Err(found) = judged {
            wrong.push(format!("{method}: want {expect:?}, found {found}"));
        }
        stage.check_neighbour(&method.to_string());
        // One that goes on writing to shared memory spoils what its worker says next: it is had to end.
        if *expect == Expect::Harmless {
            while !matches!(plugin.call(5301, b""), Err(CallError::Ended { .. })) {}
            stage.wait_for_restart();
        }
        let answer = plugin.call(1, b"again").map(|it| it.bytes);
        assert_eq!(answer, Ok(b"again".to_vec()), "after {method}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{} attempts in calls", attempts.len());
    stage.end();
}

#[test]
fn whatever_a_constructor_tries_it_does_not_get_to_serve_by_it() {
    let stage = Stage::new();
    let mut wrong = Vec::new();
    for (number, expect) in table::CONSTRUCTORS {
        let path = stage.site.add(&hostile(&[format!("-DCTOR={number}")]));
        let judged = match stage.kernel.loader().load_blocking(&path, None) {
            Ok(plugin) => {
                let told = plugin.call(2, b"").unwrap_or_else(|error| panic!("{number}: {error}"));
                stage.kernel.unload_blocking("hostile").unwrap();
                judge_answer(*expect, &String::from_utf8_lossy(&told.bytes))
            }
            Err(LoadError::Sandbox { error: SandboxError::Ended(verdict), .. }) => {
                judge(*expect, &verdict)
            }
            Err(other) => Err(other.to_string()),
        };
        if let Err(found) = judged {
            wrong.push(format!("{number}: want {expect:?}, found {found}"));
        }
        stage.check_neighbour(&number.to_string());
        std::fs::remove_dir_all(stage.site.root().join("hostile")).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{} attempts in constructors", table::CONSTRUCTORS.len());
    stage.end();
}

#[test]
fn a_constructor_finds_no_descriptor_to_make_code_of_but_its_own_file() {
    let stage = Stage::new();
    let ask = |number: u32| {
        let path = stage.site.add(&hostile(&[format!("-DCTOR={number}")]));
        let plugin = stage.kernel.loader().load_blocking(&path, None);
        let plugin = plugin.unwrap_or_else(|error| panic!("{number}: {error}"));
        let told = plugin.call(2, b"").unwrap().bytes;
        stage.kernel.unload_blocking("hostile").unwrap();
        std::fs::remove_dir_all(stage.site.root().join("hostile")).unwrap();
        String::from_utf8(told).unwrap()
    };
    assert_eq!(ask(6500), "0 1 2 4 6 ", "what is open");
    assert_eq!(ask(2500), "1", "what can be mapped as code: its own sealed file");
    stage.end();
}

#[test]
fn whatever_a_hook_tries_its_operation_fails_by_name() {
    let stage = Stage::new();
    let mut wrong = Vec::new();
    for hook in 1..=5 {
        for (number, expect) in table::HOOKS {
            let flags = [format!("-DHOOK={hook}"), format!("-DHOOK_ATTACK={number}")];
            let found = stage.attack_in_hook(hook, &hostile(&flags));
            let code = match (hook, expect) {
                // Callers are not held for as long as a hook may take: the hand-over is called off before.
                (3, Expect::Deadline) => "state.save_deadline",
                (4, Expect::Deadline) => "state.take_deadline",
                (_, Expect::Deadline) => "sandbox.deadline",
                (_, Expect::Crash(_)) => "sandbox.crash",
                (_, Expect::Exit(_)) => "sandbox.unexpected_exit",
                _ => "sandbox.seccomp_violation",
            };
            let called_off = is_guest() && found.starts_with("state.");
            if found != code && !called_off {
                wrong.push(format!("hook {hook}, attempt {number}: want {code}, found {found}"));
            }
            stage.check_neighbour(&format!("attempt {number} in hook {hook}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    stage.end();
}

impl Stage {
    /// A restart has told that it serves a moment before it gives its claim back.
    fn unload_when_free(&self) {
        loop {
            match self.kernel.unload_blocking("hostile") {
                Err(UnloadError::Kernel(KernelFault::Busy { .. })) => std::thread::yield_now(),
                unloaded => return unloaded.unwrap(),
            }
        }
    }

    /// Has a hook attack; answers the code of its end, as the log of what happened has it.
    fn attack_in_hook(&self, hook: u32, fixture: &Fixture) -> String {
        let mut events = self.kernel.subscribe();
        let path = self.site.add(fixture);
        let loaded = self.kernel.loader().load_blocking(&path, None);
        let code = match (hook, loaded) {
            (1, Err(error)) => error.code().to_owned(),
            (2, Err(LoadError::Probe { error, .. })) => ended_in(&error.to_string()),
            (3 | 4, Ok(_)) => {
                let failed = self.kernel.reloads().reload_module_blocking("hostile", &path);
                let code = failed.unwrap_err().code().to_owned();
                // What saved its state was what served: it is started again.
                if hook == 3 {
                    loop {
                        let event = events.next_blocking().unwrap().expect("the kernel runs");
                        if matches!(&event.what, LifecycleEvent::Serves { receipt } if receipt.operation == Operation::Restart)
                        {
                            break;
                        }
                    }
                }
                self.unload_when_free();
                code
            }
            (5, Ok(_)) => {
                self.kernel.unload_blocking("hostile").unwrap();
                let records = self.kernel.audit_records_blocking(0, 10_000).unwrap();
                let failed =
                    records.iter().rfind(|it| it.code.as_deref() == Some("shutdown.failed"));
                ended_in(failed.and_then(|it| it.reason.as_deref()).unwrap_or("not on record"))
            }
            (_, other) => format!("{other:?}"),
        };
        std::fs::remove_dir_all(self.site.root().join("hostile")).unwrap();
        code
    }
}

/// The code for a sentence that a verdict is part of.
fn ended_in(sentence: &str) -> String {
    let codes = [
        ("did not end within", "sandbox.deadline"),
        ("its worker crashed", "sandbox.crash"),
        ("its worker exited", "sandbox.unexpected_exit"),
        ("system call", "sandbox.seccomp_violation"),
    ];
    let found = codes.iter().find(|(words, _)| sentence.contains(words));
    found.map_or_else(|| sentence.to_owned(), |(_, code)| (*code).to_owned())
}

/// The words of a worker are believed by nobody: whatever stands there, its callers have an error or an answer.
#[test]
fn whatever_is_written_over_shared_memory_harms_nobody() {
    let mut stage = Stage::new();
    let path = stage.site.add(&hostile(&["-DPARALLEL".to_owned()]));
    let plugin = stage.kernel.loader().load_blocking(path, None).unwrap();
    let rounds = if is_guest() { 10_u32 } else { 100 };
    let (mut ended, mut stood) = (0, 0);
    for seed in 0..rounds {
        // The first words only, or all of them.
        let method = 6101 + seed % 2;
        let outcomes = [plugin.call(method, &seed.to_le_bytes()), plugin.call(1, b"again")];
        for outcome in outcomes {
            match outcome {
                Ok(answer) => {
                    assert!(answer.bytes.len() <= 64 << 20);
                    stood += u32::from(answer.bytes.ends_with(b" stand"));
                }
                Err(CallError::Ended { .. }) => ended += 1,
                Err(CallError::Fault { .. } | CallError::ReplyTooLarge { .. }) => {}
                Err(CallError::UnknownMethod { .. } | CallError::BadRequest { .. }) => {}
                Err(CallError::Plugin { .. }) => {}
                Err(other) => panic!("{seed}: {other}"),
            }
        }
        stage.check_neighbour(&format!("seed {seed}"));
        while !matches!(plugin.call(5301, b""), Err(CallError::Ended { .. })) {}
        stage.wait_for_restart();
    }
    // Whether the host looks while the words are wrong is a matter of timing.
    assert!(ended + stood > rounds / 2, "{ended} ended, {stood} stood: nothing was written");
    println!("{ended} calls ended, {stood} of {rounds} times the words stood unseen");
    stage.end();
}
