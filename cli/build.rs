//! Compiles the example plugins written in C, which the demo carries inside itself.

use std::path::Path;

const PLUGINS: [&str; 2] = ["text", "rogue"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs: a build script may run in another checkout than the one it was compiled in.
    let sdk = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../sdk");
    println!("cargo::rerun-if-changed={}", sdk.join("include").display());
    for plugin in PLUGINS {
        let source = sdk.join("examples").join(plugin);
        let library = Path::new(&std::env::var("OUT_DIR")?).join(format!("lib{plugin}.so"));
        println!("cargo::rerun-if-changed={}", source.display());
        let status = cc::Build::new()
            .get_compiler()
            .to_command()
            .args(["-shared", "-fPIC", "-O2", "-fvisibility=hidden"])
            .args(["-Wl,--build-id", "-Wl,-z,noexecstack"])
            .arg("-I")
            .arg(sdk.join("include"))
            .arg("-o")
            .arg(&library)
            .arg(source.join(format!("{plugin}.c")))
            .status()?;
        if !status.success() {
            return Err(format!("the C compiler failed at {plugin}: {status}").into());
        }
    }
    Ok(())
}
