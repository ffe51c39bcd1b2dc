//! A call of an echo guest under Extism: `themis-peers extism BYTES BATCHES BATCH` prints each batch's mean in nanoseconds.
//!
//! The guest moves its input and output as Extism's own development kits do: eight bytes at a time through the host's memory.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use extism::{Manifest, Plugin, Wasm};

const GUEST: &str = r#"(module
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u64" (func $input_load (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (memory (export "memory") 2)
  (func (export "echo") (result i32)
    (local $length i64) (local $at i64) (local $out i64)
    (local.set $length (call $input_length))
    ;; Into memory of its own, and from there to the output.
    (loop $in
      (i64.store (i32.wrap_i64 (local.get $at)) (call $input_load (local.get $at)))
      (local.set $at (i64.add (local.get $at) (i64.const 8)))
      (br_if $in (i64.lt_u (local.get $at) (local.get $length))))
    (local.set $out (call $alloc (local.get $length)))
    (local.set $at (i64.const 0))
    (loop $back
      (call $store (i64.add (local.get $out) (local.get $at))
        (i64.load (i32.wrap_i64 (local.get $at))))
      (local.set $at (i64.add (local.get $at) (i64.const 8)))
      (br_if $back (i64.lt_u (local.get $at) (local.get $length))))
    (call $output_set (local.get $out) (local.get $length))
    (i32.const 0)))"#;

/// `bytes` is a multiple of eight.
pub fn measure(bytes: usize, batches: usize, batch: u32) -> Result<()> {
    let manifest = Manifest::new([Wasm::data(wat::parse_str(GUEST)?)]);
    let mut plugin = Plugin::new(&manifest, [], false).context("the guest starts")?;
    let request = vec![7_u8; bytes];
    let mut reply = Vec::with_capacity(bytes);
    let mut out = std::io::stdout().lock();
    for _ in 0..batches {
        let began = Instant::now();
        for _ in 0..batch {
            reply.clear();
            let answer: &[u8] = plugin.call("echo", request.as_slice())?;
            reply.extend_from_slice(answer);
        }
        let mean = began.elapsed().as_nanos() / u128::from(batch);
        writeln!(out, "{mean}")?;
        if reply != request {
            bail!("the answer is another one");
        }
    }
    Ok(())
}
