//! Keys and signatures: `keygen`, `sign`, `verify`, `verify-file`. None of them needs a kernel.

use std::path::PathBuf;

use serde_json::json;
use themis_kernel::SignatureVerifier;
use themis_kernel::admission::{PublicKey, SigningKey, pack_dir, sign_dir, verify_plugin};

use crate::output::{Failure, Printer, bare};

/// Make a pair of keys.
#[derive(Debug, clap::Args)]
pub(crate) struct Keygen {
    /// Where to: PREFIX.key.pem (mode 0600) and PREFIX.pub.pem
    #[arg(long, value_name = "PREFIX")]
    out: PathBuf,
}

pub(crate) fn keygen(arguments: &Keygen, printer: Printer) -> Result<(), Failure> {
    let key = SigningKey::generate()?;
    let (private, public) = key.write_pem_pair(&arguments.out)?;
    let made = json!({
        "private_key": private, "public_key": public, "key_id": key.public_key().key_id(),
    });
    printer.show(&made, |made| {
        format!(
            "key {}: {} (keep it secret), {}",
            bare(&made["key_id"]),
            private.display(),
            public.display()
        )
    })
}

/// Fill in digests, sizes and key id, and sign.
#[derive(Debug, clap::Args)]
pub(crate) struct Sign {
    /// The plugin's directory, with its manifest.json
    dir: PathBuf,
    /// The private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

pub(crate) fn sign(arguments: &Sign, printer: Printer) -> Result<(), Failure> {
    let key = SigningKey::from_pem_file(&arguments.key)?;
    let manifest = sign_dir(&arguments.dir, &key)?;
    let signed = json!({
        "name": manifest.name, "version": manifest.version, "key_id": manifest.key_id,
        "files": manifest.files.len(),
    });
    printer.show(&signed, |_| {
        let (name, version, key) = (&manifest.name, &manifest.version, manifest.key_id);
        format!("signed {name} {version} with key {key}: {} files", manifest.files.len())
    })
}

/// Verify exactly as the loader would.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The plugin's directory, or a bundle
    #[arg(value_name = "DIR_OR_TDB")]
    plugin: PathBuf,
    /// The public key to trust
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
}

pub(crate) fn verify(arguments: &Verify, printer: Printer) -> Result<(), Failure> {
    let key = PublicKey::from_pem_file(&arguments.trust)?;
    let plugin = verify_plugin(&arguments.plugin, &key, jiff::Timestamp::now())?;
    let (name, version) = (&plugin.manifest.name, &plugin.manifest.version);
    let verified = json!({
        "name": name, "version": version, "key_id": plugin.key_id,
        "manifest_digest": plugin.manifest_digest,
    });
    printer.show(&verified, |_| format!("{name} {version} is signed by key {}", plugin.key_id))
}

/// Pack a signed plugin into one file.
#[derive(Debug, clap::Args)]
pub(crate) struct Pack {
    /// The plugin's directory
    dir: PathBuf,
    /// The bundle; NAME-VERSION.tdb in this directory when left out
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn pack(arguments: &Pack, printer: Printer) -> Result<(), Failure> {
    let (manifest, to) = pack_dir(&arguments.dir, arguments.output.as_deref())?;
    let size = std::fs::metadata(&to).map_or(0, |it| it.len());
    let packed = json!({
        "name": manifest.name, "version": manifest.version, "bundle": to, "size": size,
        "files": manifest.files.len(),
    });
    printer.show(&packed, |_| {
        let (name, version, files) = (&manifest.name, &manifest.version, manifest.files.len());
        format!("packed {name} {version}, {files} files, into {} ({size} bytes)", to.display())
    })
}

/// Verify a detached signature.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyFile {
    /// The signed file
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Its signature: 64 raw bytes
    #[arg(long, value_name = "FILE")]
    sig: PathBuf,
    /// The public key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

pub(crate) fn verify_file(arguments: &VerifyFile, printer: Printer) -> Result<(), Failure> {
    let key = PublicKey::from_pem_file(&arguments.key)?;
    let verified = SignatureVerifier::verify(&arguments.file, &arguments.sig, &key)?;
    let told = json!({
        "file": arguments.file, "digest": verified.digest, "size": verified.size,
        "key_id": verified.key_id,
    });
    let file = arguments.file.display();
    printer.show(&told, |_| format!("{file} is signed by key {}", verified.key_id))
}
