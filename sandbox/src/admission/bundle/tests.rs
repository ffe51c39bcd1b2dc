//! What the reader refuses, what it never does, and what the packer promises.

mod attacks;
mod foreign;
mod forge;
mod laws;
mod packing;
mod rows;

use std::collections::BTreeMap;

use crate::admission::bundle::Bundle;
use themis_messages::bundle::BundleFault;

/// Every file of a bundle by path, or the first reason not to have them all.
fn contents(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, BundleFault> {
    let bundle = Bundle::read(bytes)?;
    bundle.entries().iter().map(|entry| Ok((entry.path().to_owned(), entry.to_vec()?))).collect()
}

/// A plugin's files, with something of each kind: stored, deflated, empty, in a directory, not ASCII.
fn plugin() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("manifest.json", br#"{"schema":1,"name":"geo","version":"1.2.0","files":[]}"#.to_vec()),
        ("plugin.sig", (0..64).map(|i: u8| i.wrapping_mul(37)).collect()),
        ("linux-x86_64/libgeo.so", b"\x7fELF code code code code code code code".to_vec()),
        ("data/größe.csv", b"a;b\n1;2\n1;2\n1;2\n1;2\n1;2\n1;2\n".to_vec()),
        ("data/empty", Vec::new()),
    ]
}
