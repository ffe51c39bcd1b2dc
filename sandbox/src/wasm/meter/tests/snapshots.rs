//! What the code looks like before and after: small functions, printed.

use crate::wasm::meter::{Options, instrument};
use expect_test::{expect, expect_file};

/// The metered function of a module that has only one, without what the meter adds around it.
fn metered(wat: &str, unroll: u8) -> String {
    let wasm = wat::parse_str(wat).expect("a module");
    let options = Options { unroll, ..Options::default() };
    let metered = instrument(&wasm, &options).expect("an accepted module").module;
    let text = wasmprinter::print_bytes(&metered).expect("text");
    let start = text.find("  (func (;1;)").expect("the function");
    let end = text.find("  (func (;2;)").expect("the meter's function");
    let lines = text[start..end].lines().map(|line| format!("{}\n", &line[2..]));
    lines.collect()
}

#[test]
fn the_module_around_a_function() {
    let wasm = wat::parse_str("(module (func $f (export \"f\")))").expect("a module");
    let metered = instrument(&wasm, &Options::default()).expect("an accepted module").module;
    let text = wasmprinter::print_bytes(&metered).expect("text");
    expect![[r#"
        (module
          (type (;0;) (func))
          (type (;1;) (func (param i64) (result i64)))
          (import "themis" "refill" (func (;0;) (type 1)))
          (global (;0;) (mut i64) i64.const 0)
          (export "f" (func $f))
          (export "themis\u{0}fuel" (global 0))
          (func $f (;1;) (type 0)
            (local i64)
            global.get 0
            local.set 0
            local.get 0
            i64.const -1
            i64.add
            local.set 0
            local.get 0
            global.set 0
          )
          (func $themis.topup (;2;) (type 1) (param i64) (result i64)
            (local i64)
            local.get 0
            call 0
            local.set 1
            global.get 0
            local.get 1
            i64.add
            global.set 0
            local.get 0
            local.get 1
            i64.add
          )
        )
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_function_that_chooses_and_calls() {
    let wat = "(module (func (param i32) (result i32)
        (if (result i32) (local.get 0)
          (then (call 0 (i32.sub (local.get 0) (i32.const 1))))
          (else (i32.const 7)))))";
    expect_file!["snapshots/a_function_that_chooses_and_calls.wat"].assert_eq(&metered(wat, 8));
}

#[test]
fn a_loop_as_it_is() {
    let wat = "(module (func (param i32)
        (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))";
    expect_file!["snapshots/a_loop_as_it_is.wat"].assert_eq(&metered(wat, 1));
}

#[test]
fn a_loop_written_twice() {
    let wat = "(module (func (param i32)
        (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))";
    expect_file!["snapshots/a_loop_written_twice.wat"].assert_eq(&metered(wat, 2));
}

#[test]
fn a_loop_left_from_its_top_written_twice() {
    let wat = "(module (func (param i32)
        (block (loop
          (br_if 1 (i32.eqz (local.get 0)))
          (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
          (br 0)))))";
    expect_file!["snapshots/a_loop_left_from_its_top_written_twice.wat"]
        .assert_eq(&metered(wat, 2));
}

#[test]
fn a_bulk_operation() {
    let wat = "(module (memory 1) (func (param i32)
        (memory.fill (i32.const 0) (i32.const 0) (local.get 0))))";
    expect_file!["snapshots/a_bulk_operation.wat"].assert_eq(&metered(wat, 8));
}
