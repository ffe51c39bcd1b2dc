//! The registry's own keys: one file each, and who signs what with them.
//!
//! They sign the registry's metadata and nothing else; plugins are signed by their publishers' keys, which a registry never
//! has. The root keys are needed for changes of keys alone and belong on another machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SecureRandom;
use themis_sandbox::admission::{KeyError, SigningKey};
use tough::key_source::KeySource;
use tough::schema::RoleType;
use tough::schema::key::{Ed25519Key, Ed25519Scheme, Key};
use tough::sign::Sign;

/// The roles that have keys.
pub const ROLES: [(RoleType, &str); 4] = [
    (RoleType::Root, "root"),
    (RoleType::Targets, "targets"),
    (RoleType::Snapshot, "snapshot"),
    (RoleType::Timestamp, "timestamp"),
];

/// A private key in its file.
#[derive(Debug, Clone)]
pub struct KeyFile(pub PathBuf);

/// A private key that signs.
struct Signer(SigningKey);

type Failure = Box<dyn std::error::Error + Send + Sync + 'static>;

#[tough::async_trait]
impl KeySource for KeyFile {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Failure> {
        Ok(Box::new(Signer(SigningKey::from_pem_file(&self.0)?)))
    }

    async fn write(&self, _value: &str, _key_id: &str) -> Result<(), Failure> {
        Err("keys are made by `themis registry` and never written over".into())
    }
}

#[tough::async_trait]
impl Sign for Signer {
    fn tuf_key(&self) -> Key {
        public(&self.0)
    }

    async fn sign(
        &self,
        message: &[u8],
        _random: &(dyn SecureRandom + Sync),
    ) -> Result<Vec<u8>, Failure> {
        Ok(self.0.sign(message).to_vec())
    }
}

/// The public half, as metadata has it.
#[must_use]
pub fn public(key: &SigningKey) -> Key {
    Key::Ed25519 {
        keyval: Ed25519Key {
            public: key.public_key().as_bytes().to_vec().into(),
            _extra: HashMap::new(),
        },
        scheme: Ed25519Scheme::Ed25519,
        _extra: HashMap::new(),
    }
}

/// The files of a role's keys, in order.
///
/// # Errors
/// The system's, when the directory cannot be read.
pub fn of_role(dir: &Path, role: &str) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(&format!("{role}-")) && name.ends_with(".key.pem") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Makes a key of a role: the first free number.
///
/// # Errors
/// [`KeyError`].
pub fn make(dir: &Path, role: &str) -> Result<(PathBuf, SigningKey), KeyError> {
    let key = SigningKey::generate()?;
    let id = key.public_key().key_id();
    let (private, _public) = key.write_pem_pair(&dir.join(format!("{role}-{id}")))?;
    Ok((private, key))
}
