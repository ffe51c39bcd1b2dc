//! Metadata as somebody signs it who has stolen the registry's online keys, and says anything with them.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use themis_kernel::admission::SigningKey;

use super::*;

impl Published {
    fn metadata(&self, name: &str) -> PathBuf {
        self.public().join("metadata").join(name)
    }

    fn read(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.metadata(name)).unwrap()).unwrap()
    }

    fn key(&self, role: &str) -> SigningKey {
        let entries = std::fs::read_dir(self.registry.keys()).unwrap();
        let mut names = entries.map(|entry| entry.unwrap().path());
        let named = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(&format!("{role}-")) && name.ends_with(".key.pem")
        };
        SigningKey::from_pem_file(&names.find(named).unwrap()).unwrap()
    }

    /// Signs and writes a file; answers its bytes. Keys are in order and nothing needs an escape, so that the text is
    /// the canonical one.
    fn sign(&self, role: &str, name: &str, mut file: Value) -> Vec<u8> {
        let signature = hex(&self.key(role).sign(file["signed"].to_string().as_bytes()));
        file["signatures"][0]["sig"] = json!(signature);
        file["signatures"].as_array_mut().unwrap().truncate(1);
        let bytes = file.to_string().into_bytes();
        std::fs::write(self.metadata(name), &bytes).unwrap();
        bytes
    }

    /// Publishes changed targets, with everything above them changed to fit: the number is `step` higher.
    pub(super) fn forge_targets(&self, step: u64, change: impl FnOnce(&mut Value)) {
        let timestamp = self.read("timestamp.json");
        let snapshot = timestamp["signed"]["meta"]["snapshot.json"]["version"].as_u64().unwrap();
        let snapshot = self.read(&format!("{snapshot}.snapshot.json"));
        let version = snapshot["signed"]["meta"]["targets.json"]["version"].as_u64().unwrap();
        let mut targets = self.read(&format!("{version}.targets.json"));
        let version = version + step;
        targets["signed"]["version"] = json!(version);
        change(&mut targets["signed"]);
        let bytes = self.sign("targets", &format!("{version}.targets.json"), targets);
        self.forge_snapshot(step, |signed| {
            signed["meta"]["targets.json"] = describe(version, &bytes);
        });
    }

    /// Publishes a changed snapshot, with a timestamp that fits.
    pub(super) fn forge_snapshot(&self, step: u64, change: impl FnOnce(&mut Value)) {
        let version =
            self.read("timestamp.json")["signed"]["meta"]["snapshot.json"]["version"].clone();
        let version = version.as_u64().unwrap();
        let mut snapshot = self.read(&format!("{version}.snapshot.json"));
        let version = version + step;
        snapshot["signed"]["version"] = json!(version);
        change(&mut snapshot["signed"]);
        let bytes = self.sign("snapshot", &format!("{version}.snapshot.json"), snapshot);
        self.forge_timestamp(step, |signed| {
            signed["meta"]["snapshot.json"] = describe(version, &bytes);
        });
    }

    /// Publishes a changed timestamp.
    pub(super) fn forge_timestamp(&self, step: u64, change: impl FnOnce(&mut Value)) {
        let mut timestamp = self.read("timestamp.json");
        let version = timestamp["signed"]["version"].as_u64().unwrap() + step;
        timestamp["signed"]["version"] = json!(version);
        change(&mut timestamp["signed"]);
        self.sign("timestamp", "timestamp.json", timestamp);
    }

    /// Publishes root metadata, signed with the root's key, as the file of this number.
    pub(super) fn forge_root(&self, number: u64, change: impl FnOnce(&mut Value)) {
        let mut root = self.read("1.root.json");
        change(&mut root["signed"]);
        self.sign("root", &format!("{number}.root.json"), root);
    }
}

fn describe(version: u64, bytes: &[u8]) -> Value {
    let digest = hex(&Sha256::digest(bytes));
    json!({"version": version, "length": bytes.len(), "hashes": {"sha256": digest}})
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
