//! Gives the library a build id, by which a receipt names the code that answers.

fn main() {
    println!("cargo::rustc-link-arg-cdylib=-Wl,--build-id");
}
