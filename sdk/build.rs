//! Gives the example plugins a build id, by which a receipt names the code that answers.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-link-arg-examples=-Wl,--build-id");
    }
}
