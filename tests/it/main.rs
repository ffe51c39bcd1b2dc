//! Every test that needs a whole kernel, real plugins or the program. A new one goes into the module of its
//! subject; machines and parsers are tested beside their code.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests fail by panicking, and wait for one event among many"
)]

mod ab;
mod abuse;
mod bad_input;
mod budget;
mod bundle;
mod concurrency;
mod conformance;
mod degraded;
mod demo;
mod disk;
mod dlopen_traps;
mod gpg;
mod guests;
mod hooks;
mod lifecycle;
mod no_code_ran;
mod overload;
mod probation;
mod process;
mod program;
mod registry;
mod scaffold;
mod sets;
mod state;
mod supervision;
mod tidy;
mod wasm;
mod watchdog;
