//! The wasm tier: what a module may ask for, what a call may cost, and that the next one works whatever the last did.

use std::time::{Duration, Instant};

use themis_kernel::call::CallError;
use themis_kernel::config::FailureRules;
use themis_kernel::ids::Tier;
use themis_kernel::sandbox::Verdict;
use themis_kernel::wasm::{Fuel, Stop, TrapKind};
use themis_kernel::{Config, Kernel, PluginRef};
use themis_tests::{Fixture, Site};

/// Short enough to wait for, long enough that no healthy hook or call misses it.
const DEADLINE: Duration = Duration::from_millis(800);

fn config(site: &Site) -> Config {
    let mut config = site.config(&[]);
    config.default_tier = Tier::Wasm;
    config.hook_deadline = DEADLINE;
    config.call_deadline = DEADLINE;
    config.probation.window = Duration::ZERO;
    config.failures = FailureRules {
        wait_first: Duration::from_millis(1),
        wait_longest: Duration::from_millis(1),
        ..FailureRules::default()
    };
    config
}

fn start(site: &Site) -> Kernel {
    Kernel::start_blocking(config(site)).unwrap()
}

fn load(kernel: &Kernel, path: &str) -> PluginRef {
    kernel.loader().load_blocking(path, None).unwrap_or_else(|error| panic!("{error}"))
}

fn stop(error: CallError) -> Stop {
    match error {
        CallError::Ended { verdict, .. } => match &*verdict {
            Verdict::Stopped { stop } => stop.clone(),
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

#[test]
fn a_module_answers_as_the_native_build_of_the_same_source_does() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0").with_wasm());
    let kernel = start(&site);
    let counter = load(&kernel, &path);
    assert_eq!(counter.info().tier, Some(Tier::Wasm));
    assert_eq!(counter.call("version", b"").unwrap().bytes, b"1.0.0");
    assert_eq!(counter.call("echo", b"hello").unwrap().bytes, b"hello");
    let failed = counter.call("fail", b"").unwrap_err();
    assert!(matches!(&failed, CallError::Plugin { text, .. } if text == "counter is out of order"));
    assert_eq!(counter.call("unknown", b"").unwrap_err().code(), "call.unknown_method");
    assert_eq!(counter.call("bad_request", b"").unwrap_err().code(), "call.bad_request");
    let usage = counter.info().usage.unwrap();
    assert!(usage.fuel.is_some_and(|fuel| fuel > 0), "{usage:?}");
    assert!(usage.memory_bytes.is_some_and(|bytes| bytes >= 64 << 10), "{usage:?}");
    kernel.unload_blocking("counter").unwrap();
    kernel.shutdown_blocking();
}

#[test]
fn messages_of_any_size_arrive_whole() {
    let site = Site::new();
    let fixture = Fixture::c("counter.c", "counter", "1.0.0").with_wasm();
    let path = site.add(&fixture);
    let mut config = config(&site);
    config.call_deadline = Duration::from_secs(30);
    config.limits.wasm_memory_bytes = 512 << 20;
    let kernel = Kernel::start_blocking(config).unwrap();
    let counter = load(&kernel, &path);
    for size in [0, 1, 4_095, 4_096, 4_097, 1 << 20, 64 << 20] {
        let request: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
        assert!(counter.call("echo", &request).unwrap().bytes == request, "{size} bytes");
    }
    let too_large = counter.call("echo", &vec![0; (64 << 20) + 1]).unwrap_err();
    assert_eq!(too_large.code(), "call.request_too_large");
    kernel.shutdown_blocking();
}

#[test]
fn the_same_call_uses_the_same_fuel_always() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0").with_wasm());
    let kernel = start(&site);
    let counter = load(&kernel, &path);
    let fuel = || counter.info().usage.unwrap().fuel.unwrap();
    let mut used = Vec::new();
    for _ in 0..5 {
        let before = fuel();
        counter.call("echo", b"always the same").unwrap();
        used.push(fuel() - before);
    }
    assert!(used[0] > 0);
    assert!(used.iter().all(|it| *it == used[0]), "{used:?}");
    kernel.shutdown_blocking();
}

/// Whatever a call does to its instance, it has a name, and the next call works.
#[test]
fn what_a_guest_does_is_its_callers_error_and_the_next_call_works() {
    let site = Site::new();
    let fixture = guest(&Guest::default());
    let fixture = fixture.with("limits", serde_json::json!({"fuel_per_call": FUEL}));
    let path = site.add(&fixture);
    let mut config = config(&site);
    config.limits.wasm_memory_bytes = 4 << 20;
    let kernel = Kernel::start_blocking(config).unwrap();
    let guest = load(&kernel, &path);
    for (method, (what, _, expected)) in (10..).zip(ATTACKS) {
        let found = guest.call(method, b"").map(|answer| answer.bytes);
        assert!(expected(&found), "{what}: {found:?}");
        let again = guest.call(1_u32, b"again").map(|answer| answer.bytes);
        assert_eq!(again, Ok(b"again".to_vec()), "after: {what}");
    }
    kernel.shutdown_blocking();
}

const FUEL: u64 = 50_000_000;

/// What a call does; the code of the method; what its caller is told.
type Attack = (&'static str, &'static str, fn(&Result<Vec<u8>, CallError>) -> bool);

fn is(found: &Result<Vec<u8>, CallError>, expected: impl Fn(&Stop) -> bool) -> bool {
    let Err(CallError::Ended { verdict, .. }) = found else { return false };
    matches!(&**verdict, Verdict::Stopped { stop } if expected(stop))
}

fn is_trap(found: &Result<Vec<u8>, CallError>, expected: TrapKind) -> bool {
    is(
        found,
        |it| matches!(it, Stop::Trap { kind, backtrace } if *kind == expected && !backtrace.is_empty()),
    )
}

fn is_out_of_fuel(found: &Result<Vec<u8>, CallError>) -> bool {
    is(found, |it| *it == Stop::FuelExhausted { of: Fuel::Call, limit: FUEL })
}

fn breaks_the_abi(found: &Result<Vec<u8>, CallError>) -> bool {
    is(found, |it| matches!(it, Stop::Protocol { .. }))
}

const ATTACKS: &[Attack] = &[
    ("loops", "(loop $on (br $on))", is_out_of_fuel),
    ("calls itself", "(call $deeper)", |it| is_trap(it, TrapKind::StackOverflow)),
    ("calls itself as a tail", "(call $round)", is_out_of_fuel),
    ("gives up", "(unreachable)", |it| is_trap(it, TrapKind::Unreachable)),
    ("reads outside", "(drop (i32.load (i32.const -4)))", |it| is_trap(it, TrapKind::OutOfBounds)),
    ("fills outside", "(memory.fill (i32.const 0) (i32.const 1) (i32.const 131073))", |it| {
        is_trap(it, TrapKind::OutOfBounds)
    }),
    ("divides by zero", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", |it| {
        is_trap(it, TrapKind::Arithmetic)
    }),
    ("calls an empty place", "(call_indirect (i32.const 0))", |it| is_trap(it, TrapKind::BadCall)),
    ("calls outside of the table", "(call_indirect (i32.const 99))", |it| {
        is_trap(it, TrapKind::OutOfBounds)
    }),
    (
        "fills all memory again and again",
        "(loop $on (memory.fill (i32.const 0) (i32.const 1) (i32.const 131072)) (br $on))",
        is_out_of_fuel,
    ),
    (
        "copies all memory again and again",
        "(loop $on (memory.copy (i32.const 1) (i32.const 0) (i32.const 131071)) (br $on))",
        is_out_of_fuel,
    ),
    (
        "fills its table again and again",
        "(drop (table.grow $t (ref.null func) (i32.const 90000)))
         (loop $on (table.fill $t (i32.const 0) (ref.null func) (i32.const 90000)) (br $on))",
        is_out_of_fuel,
    ),
    (
        "asks for memory for ever",
        "(loop $on (drop (memory.grow (i32.const 1))) (br $on))",
        is_out_of_fuel,
    ),
    (
        "gives up when it gets no more memory",
        "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)",
        |it| is(it, |it| matches!(it, Stop::MemoryLimit { limit } if *limit == 4 << 20)),
    ),
    (
        "asks for elements for ever",
        "(loop $on (drop (table.grow $t (ref.null func) (i32.const 1))) (br $on))",
        is_out_of_fuel,
    ),
    ("replies from outside", "(call $reply (i32.const -8) (i32.const 8))", breaks_the_abi),
    ("replies across the end", "(call $reply (i32.const 131068) (i32.const 8))", breaks_the_abi),
    ("logs from outside", "(call $log (i32.const 1) (i32.const -8) (i32.const 8))", breaks_the_abi),
    (
        "replies more than it may",
        "(local.set $len (i32.const 1100))
         (loop $on (call $reply (i32.const 0) (i32.const 65536))
           (br_if $on (local.tee $len (i32.sub (local.get $len) (i32.const 1)))))",
        |it| matches!(it, Err(CallError::ReplyTooLarge { .. })),
    ),
    (
        "logs without an end",
        "(loop $on (call $log (i32.const 3) (i32.const 0) (i32.const 1)) (br $on))",
        |it| is_out_of_fuel(it) || is(it, |it| matches!(it, Stop::Deadline { .. })),
    ),
    ("answers a code that is nobody's", "(return (i32.const 77))", |it| {
        matches!(it, Err(CallError::Fault { code: 77, .. }))
    }),
];

/// A module that does what its parts say.
struct Guest<'a> {
    alloc: &'a str,
    init: &'a str,
    shutdown: &'a str,
    /// Further fields of the module.
    fields: &'a str,
    section: &'a str,
}

const SECTION: &str = r#"{\22name\22:\22guest\22,\22version\22:\221.0.0\22,\22abi\22:\221.0\22}"#;

impl Default for Guest<'_> {
    fn default() -> Self {
        Self {
            alloc: "(i32.const 65536)",
            init: "(i32.const 0)",
            shutdown: "(i32.const 0)",
            fields: "",
            section: SECTION,
        }
    }
}

fn wat(guest: &Guest<'_>) -> Vec<u8> {
    wat::parse_str(wat_text(guest)).unwrap_or_else(|error| panic!("{error}"))
}

fn wat_text(guest: &Guest<'_>) -> String {
    let methods = (10..).zip(ATTACKS).map(|(method, (_, body, _))| {
        format!("(if (i32.eq (local.get $method) (i32.const {method})) (then {body}))")
    });
    let methods: Vec<_> = methods.collect();
    let (methods, section) = (methods.join("\n"), guest.section);
    let Guest { alloc, init, shutdown, fields, .. } = guest;
    format!(
        r#"(module
          (import "themis" "reply" (func $reply (param i32 i32)))
          (import "themis" "log" (func $log (param i32 i32 i32)))
          (memory (export "memory") 2)
          (table $t 8 funcref)
          (func $deeper (call $deeper) (call $deeper))
          (func $round (return_call $round))
          (func (export "themis_alloc") (param i32) (result i32) {alloc})
          (func (export "themis_init") (param i32 i32) (result i32) {init})
          (func (export "themis_shutdown") (result i32) {shutdown})
          (func (export "themis_call") (param $method i32) (param $ptr i32) (param $len i32) (result i32)
            {methods}
            (if (i32.eq (local.get $method) (i32.const 1))
              (then (call $reply (local.get $ptr) (local.get $len))))
            (i32.const 0))
          {fields}
          (@custom "themis" "{section}"))"#
    )
}

fn guest(guest: &Guest<'_>) -> Fixture {
    Fixture::module(wat(guest), "guest", "1.0.0")
}

/// Loads a guest and answers the code and the words of the refusal.
fn refused(fixture: &Fixture) -> (String, String) {
    let site = Site::new();
    let path = site.add(fixture);
    let kernel = start(&site);
    let error = match kernel.loader().load_blocking(&path, None) {
        Ok(_) => panic!("it loads"),
        Err(error) => error,
    };
    kernel.shutdown_blocking();
    (error.code().to_owned(), error.to_string())
}

#[test]
fn what_a_guest_does_before_it_serves_refuses_it() {
    let fields = |fields| guest(&Guest { fields, ..Guest::default() });
    let cases: [(&str, Fixture, &str, &str); 9] = [
        (
            "a start function that loops",
            fields("(start $s) (func $s (loop (br 0)))"),
            "wasm.deadline",
            "800ms",
        ),
        (
            "a start function that traps",
            fields("(start $s) (func $s unreachable)"),
            "wasm.trap",
            "trap",
        ),
        (
            "a start function that calls the host",
            fields("(start $s) (func $s (call $reply (i32.const 0) (i32.const 1)))"),
            "wasm.protocol",
            "before its start",
        ),
        (
            "an _initialize that loops",
            fields(r#"(func (export "_initialize") (loop (br 0)))"#),
            "wasm.deadline",
            "800ms",
        ),
        (
            "an active segment outside of its memory",
            fields(r#"(data (i32.const 131071) "no room")"#),
            "wasm.trap",
            "out-of-bounds",
        ),
        (
            "an init that loops",
            guest(&Guest { init: "(loop (br 0)) (i32.const 0)", ..Guest::default() }),
            "wasm.deadline",
            "800ms",
        ),
        (
            "an init that refuses",
            guest(&Guest {
                init: "(call $reply (i32.const 0) (i32.const 0)) (i32.const 1)",
                ..Guest::default()
            }),
            "init.refused",
            "no reason",
        ),
        (
            "an alloc that lies",
            guest(&Guest { alloc: "(i32.const -16)", ..Guest::default() }),
            "wasm.protocol",
            "themis_alloc",
        ),
        (
            "an alloc that loops",
            guest(&Guest { alloc: "(loop (br 0)) (i32.const 0)", ..Guest::default() }),
            "wasm.deadline",
            "800ms",
        ),
    ];
    for (what, fixture, code, words) in cases {
        let (found, told) = refused(&fixture.with("config", serde_json::json!({"any": 1})));
        assert_eq!(found, code, "{what}: {told}");
        assert!(told.contains(words), "{what}: {told}");
    }
}

#[test]
fn a_shutdown_that_does_not_end_holds_nobody_up_past_its_deadline() {
    let site = Site::new();
    let path =
        site.add(&guest(&Guest { shutdown: "(loop (br 0)) (i32.const 0)", ..Guest::default() }));
    let kernel = start(&site);
    load(&kernel, &path);
    let started = Instant::now();
    kernel.unload_blocking("guest").unwrap();
    assert!(started.elapsed() < 4 * DEADLINE, "{:?}", started.elapsed());
    kernel.shutdown_blocking();
}

#[test]
fn a_loop_without_an_end_is_ended_at_the_calls_deadline() {
    let site = Site::new();
    // Without a limit on its fuel.
    let fixture = guest(&Guest::default()).with("limits", serde_json::json!({"fuel_per_call": 0}));
    let path = site.add(&fixture);
    let kernel = start(&site);
    let guest = load(&kernel, &path);
    let started = Instant::now();
    let found = stop(guest.call(10_u32, b"").unwrap_err());
    assert!(matches!(found, Stop::Deadline { limit: DEADLINE, .. }), "{found:?}");
    assert!(started.elapsed() < 2 * DEADLINE, "{:?}", started.elapsed());
    assert_eq!(guest.call(1_u32, b"again").unwrap().bytes, b"again");
    assert_eq!(guest.remaining_fuel(), Some(u64::MAX));
    kernel.shutdown_blocking();
}

#[test]
fn the_fuel_of_a_plugin_lasts_until_it_is_reloaded() {
    let site = Site::new();
    let path = site.add(&guest(&Guest::default()));
    let mut config = config(&site);
    config.limits.fuel_per_call = 2_000;
    config.limits.fuel_total = 10_000;
    let kernel = Kernel::start_blocking(config).unwrap();
    let guest = load(&kernel, &path);
    assert_eq!(guest.remaining_fuel(), Some(10_000));
    let mut left = 10_000;
    let last = loop {
        match guest.call(1_u32, b"hello") {
            Ok(_) => {
                let now = guest.remaining_fuel().unwrap();
                assert!(now < left, "{now} of {left}");
                left = now;
            }
            Err(error) => break stop(error),
        }
    };
    assert_eq!(last, Stop::FuelExhausted { of: Fuel::Total, limit: 10_000 });
    assert_eq!(guest.remaining_fuel(), Some(0));
    let used = guest.info().usage.unwrap().fuel;
    assert!(used.is_some_and(|used| (10_000 - 100..=10_000).contains(&used)), "{used:?}");
    kernel.reloads().reload_module_blocking("guest", &path).unwrap();
    assert_eq!(guest.remaining_fuel(), Some(10_000));
    guest.call(1_u32, b"hello").unwrap();
    kernel.shutdown_blocking();
}

#[test]
fn calls_without_a_limit_are_refused_where_the_operator_forbids_them() {
    for (fuel, loads) in [(0, false), (1_000_001, false), (1_000_000, true)] {
        let site = Site::new();
        let fixture = guest(&Guest::default());
        let path = site.add(&fixture.with("limits", serde_json::json!({"fuel_per_call": fuel})));
        let mut config = config(&site);
        config.limits.max.fuel_per_call = 1_000_000;
        config.limits.fuel_per_call = 1_000_000;
        let kernel = Kernel::start_blocking(config).unwrap();
        let loaded = kernel.loader().load_blocking(&path, None);
        assert_eq!(loaded.map(drop).map_err(|error| error.code()).ok().is_some(), loads, "{fuel}");
        kernel.shutdown_blocking();
    }
}

#[test]
fn ten_thousand_calls_at_once_are_served_by_a_bounded_number_of_instances() {
    let site = Site::new();
    let path = site.add(&guest(&Guest::default()));
    let mut config = config(&site);
    config.call_deadline = Duration::from_secs(30);
    let kernel = Kernel::start_blocking(config).unwrap();
    let guest = load(&kernel, &path);
    themis_tests::block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for at in 0..10_000_u32 {
            calls.spawn(
                async move { (at, guest.call_async(1_u32, at.to_le_bytes().to_vec()).await) },
            );
        }
        for (at, answer) in calls.join_all().await {
            assert_eq!(answer.unwrap().bytes, at.to_le_bytes());
        }
    });
    let most = guest.info().usage.unwrap().memory_bytes.unwrap();
    assert!(most <= 64 * 128 * 1024, "{most} bytes of instances");
    kernel.shutdown_blocking();
}

#[test]
fn what_is_no_module_or_not_the_one_it_says_is_refused_before_it_is_compiled() {
    let good = wat(&Guest::default());
    let module = |bytes: &[u8]| Fixture::module(bytes.to_vec(), "guest", "1.0.0");
    let section = |section| guest(&Guest { section, ..Guest::default() });
    let fields = |fields| guest(&Guest { fields, ..Guest::default() });
    let cases: Vec<(&str, Fixture, &str)> = vec![
        ("nothing", module(b""), "wasm.malformed"),
        ("a text", module(b"(module)"), "wasm.malformed"),
        ("its first half", module(&good[..good.len() / 2]), "wasm.malformed"),
        ("a component", module(b"\0asm\x0d\0\x01\0"), "wasm.component"),
        ("an empty module", module(b"\0asm\x01\0\0\0"), "wasm.export"),
        (
            "a length of five bytes that is too large",
            module(b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x7f"),
            "wasm.malformed",
        ),
        (
            "4 billion types",
            module(b"\0asm\x01\0\0\0\x01\x05\xff\xff\xff\xff\x0f"),
            "wasm.malformed",
        ),
        ("another name", section(&*SECTION.replace("guest", "other").leak()), "wasm.identity"),
        ("another version", section(&*SECTION.replace("1.0.0", "1.0.1").leak()), "wasm.identity"),
        (
            "another ABI",
            section(&*SECTION.replace("221.0\\22}", "222.0\\22}").leak()),
            "wasm.identity",
        ),
        ("no JSON", section("name"), "wasm.identity"),
        ("a second section", fields(r#"(@custom "themis" "{}")"#), "wasm.identity"),
        ("threads", fields("(func (drop (i32.atomic.load (i32.const 0))))"), "wasm.malformed"),
        ("exceptions", fields("(tag $e) (func (throw $e))"), "wasm.malformed"),
        ("wide memory", fields("(memory i64 1)"), "wasm.malformed"),
        (
            "too many tables",
            fields("(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)"),
            "wasm.too_much",
        ),
        ("a table too large", fields("(table 1000000 funcref)"), "wasm.too_much"),
        (
            "the meter's own import",
            fields(r#"(export "themis\00fuel" (func $deeper))"#),
            "map.compile",
        ),
    ];
    for (what, fixture, code) in cases {
        let (found, told) = refused(&fixture);
        assert_eq!(found, code, "{what}: {told}");
    }
}

/// Modules made to be dear: none takes long, more memory than a multiple of its size, or the process.
#[test]
fn what_is_made_to_be_dear_is_refused_or_runs() {
    let section =
        |id: u8, body: &[u8]| [&b"\0asm\x01\0\0\0"[..], &[id], &leb(body.len()), body].concat();
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let mut cases: Vec<(String, Vec<u8>, &str)> = (1..=12)
        .map(|id| (format!("4 billion of section {id}"), section(id, &huge), "wasm.malformed"))
        .collect();
    let large = [&leb(4)[..], b"note", &vec![0; 100 << 20]].concat();
    cases.push(("a section of 100 MB".to_owned(), section(0, &large), "wasm.too_much"));
    let body = |blocks: usize| {
        let open = "(block ".repeat(blocks);
        format!("(func {open}{})", ")".repeat(blocks))
    };
    for (what, fixture, code) in cases {
        let (found, told) = refused(&Fixture::module(fixture, "guest", "1.0.0"));
        assert_eq!(found, code, "{what}: {told}");
    }
    // What is deep or wide, and keeps to the rules.
    let functions = "(func)".repeat(20_000);
    let wide = format!("(func {})", "(drop (i32.const 1))".repeat(100_000));
    let deep = body(1_000);
    let loops = format!("(func {}{})", "(loop ".repeat(500), ")".repeat(500));
    for fields in [functions, wide, deep, loops] {
        let site = Site::new();
        let path = site.add(&guest(&Guest { fields: &fields, ..Guest::default() }));
        let mut config = config(&site);
        config.hook_deadline = Duration::from_secs(5);
        let kernel = Kernel::start_blocking(config).unwrap();
        let loaded = load(&kernel, &path);
        assert_eq!(loaded.call(1_u32, b"still").unwrap().bytes, b"still");
        kernel.shutdown_blocking();
    }
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[test]
fn memory_that_is_declared_counts_as_memory_that_is_asked_for() {
    let text = wat_text(&Guest::default()).replace("\"memory\") 2)", "\"memory\") 2000)");
    let module = Fixture::module(wat::parse_str(&text).unwrap(), "guest", "1.0.0");
    assert_eq!(refused(&module).0, "wasm.memory_limit");
}

/// Whoever comes second waits for the first.
#[test]
fn a_module_is_compiled_once_however_many_want_it() {
    let site = Site::new();
    let path = site.add(&guest(&Guest::default()));
    let images = themis_tests::map_at_once(&site, &path, 8);
    assert_eq!(images.iter().filter(|reused| !**reused).count(), 1, "{images:?}");
}

/// Imports of every kind, before, between and after functions.
#[test]
fn a_module_that_asks_for_more_than_it_is_granted_is_refused_with_all_of_it() {
    let text = r#"(module
        (import "env" "memory" (memory 1))
        (import "themis" "reply" (func (param i32 i32)))
        (import "env" "table" (table 1 funcref))
        (import "themis" "log" (func (param i32 i32 i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "env" "counter" (global i32))
        (import "themis" "now_ns" (func (result i64)))
        (import "themis" "counter_add" (func (param i32 i32)))
        (import "themis" "resource_read" (func (param i32 i32 i64 i32 i32) (result i64))))"#;
    let module = Fixture::module(wat::parse_str(text).unwrap(), "guest", "1.0.0");
    let (code, told) =
        refused(&module.with("capabilities", serde_json::json!(["clock", "metrics"])));
    assert_eq!(code, "wasm.imports");
    expect_test::expect![" what it may not: env.memory (a memory), env.table (a table), themis.log (capability `log` is not granted), wasi_snapshot_preview1.fd_write (not offered), env.counter (a global), themis.counter_add (of another type), themis.resource_read (capability `resources` is not granted)"].assert_eq(told.split_once("imports").unwrap().1);
}

#[test]
fn a_plugin_without_a_native_build_runs_as_wasm() {
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0").with_wasm());
    std::fs::remove_dir_all(site.root().join(&path).join("linux-x86_64")).unwrap();
    let manifest = site.root().join(&path).join("manifest.json");
    let mut value: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    value["files"].as_array_mut().unwrap().retain(|file| file["target"] == "wasm32");
    std::fs::write(&manifest, value.to_string()).unwrap();
    themis_kernel::admission::sign_dir(&site.root().join(&path), &site.key).unwrap();
    let mut config = config(&site);
    config.default_tier = Tier::Process;
    let kernel = Kernel::start_blocking(config).unwrap();
    let counter = load(&kernel, &path);
    assert_eq!(counter.info().tier, Some(Tier::Wasm));
    assert_eq!(counter.call("echo", b"portable").unwrap().bytes, b"portable");
    kernel.shutdown_blocking();
}

#[test]
fn state_moves_to_the_next_version_and_is_not_shared_meanwhile() {
    let site = Site::new();
    let paths = ["1.0.0", "2.0.0"]
        .map(|version| site.add(&Fixture::c("stateful.c", "stateful", version).with_wasm()));
    let kernel = start(&site);
    let plugin = load(&kernel, &paths[0]);
    for _ in 0..5 {
        plugin.call(6_u32, b"").unwrap();
    }
    kernel.reloads().reload_module_blocking("stateful", &paths[1]).unwrap();
    assert_eq!(plugin.call(1_u32, b"").unwrap().bytes, b"2.0.0");
    assert_eq!(plugin.call(7_u32, b"").unwrap().bytes, 5_u64.to_le_bytes());
    kernel.shutdown_blocking();
}
