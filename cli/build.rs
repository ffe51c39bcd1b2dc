//! Compiles the example plugin written in C, which the demo carries inside itself.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs: a build script may run in another checkout than the one it was compiled in.
    let sdk = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../sdk");
    let source = sdk.join("examples/text");
    let library = Path::new(&std::env::var("OUT_DIR")?).join("libtext.so");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed={}", sdk.join("include").display());
    let status = cc::Build::new()
        .get_compiler()
        .to_command()
        .args(["-shared", "-fPIC", "-O2", "-fvisibility=hidden"])
        .args(["-Wl,--build-id", "-Wl,-z,noexecstack"])
        .arg("-I")
        .arg(sdk.join("include"))
        .arg("-o")
        .arg(&library)
        .arg(source.join("text.c"))
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("the C compiler failed: {status}").into()) }
}
