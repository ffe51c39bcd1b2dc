//! What else a registry, a disk or a thief could try, on a whole host: nothing partial is installed, and what serves serves on.

use std::process::Command;

use serde_json::json;
use themis_kernel::Kernel;
use themis_tests::nginx::{self, Nginx};

use super::*;
use crate::program::{refuse, run, succeed};

/// Starts a kernel with this configuration, installs, and ends it; the code of the failure.
async fn refused(config: &Config, request: InstallRequest) -> String {
    let kernel = Kernel::start(config.clone()).await.unwrap();
    let error = kernel.marketplace().install(request, None).await.unwrap_err();
    kernel.shutdown().await;
    error.code().to_owned()
}

async fn installed(config: &Config, request: InstallRequest) -> usize {
    let kernel = Kernel::start(config.clone()).await.unwrap();
    let report = kernel.marketplace().install(request, None).await.unwrap();
    kernel.shutdown().await;
    report.installed.len()
}

fn is_empty(site: &Site) -> bool {
    std::fs::read_dir(site.root()).unwrap().next().is_none()
}

/// C3: a registry that is held back until it has expired offers nothing more, and takes nothing away.
#[tokio::test]
async fn what_is_installed_serves_on_when_its_registry_expires() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_site, config) = published.host(&web);
    let kernel = Kernel::start(config).await.unwrap();
    kernel.marketplace().install(wanted(&["counter"]), None).await.unwrap();
    let counter = kernel.loader().load("counter/1.0.0", None).await.unwrap();
    published.forge_timestamp(1, |signed| signed["expires"] = json!("2020-01-01T00:00:00Z"));
    let update = InstallRequest { update: true, ..InstallRequest::default() };
    let error = kernel.marketplace().install(update, None).await.unwrap_err();
    assert_eq!(error.code(), "registry.expired", "{error}");
    let answer = counter.call_async("version", Vec::new()).await.unwrap();
    assert_eq!(answer.bytes, b"1.0.0");
    kernel.shutdown().await;
}

/// C15: a server that speaks nothing newer than TLS 1.1 is not spoken to. That it does speak it, curl shows.
#[tokio::test]
async fn tls_before_1_2_is_refused() {
    let Some(program) = nginx::program() else { return };
    let published = Published::new(&["1.0.0"]).await;
    let dir = published.site.path().to_owned();
    let old = "ssl_protocols TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0;";
    let server = Nginx::serve_with(&program, &dir, &published.public(), old);
    let curl = |most: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--retry", "20", "--retry-connrefused", "--cacert"]);
        command.arg(dir.join("ca.pem")).args(["--ciphers", "DEFAULT@SECLEVEL=0"]).args(most);
        command.arg(format!("{}metadata/timestamp.json", server.url())).output().unwrap()
    };
    let spoken = curl(&["--tlsv1.1", "--tls-max", "1.1"]);
    assert!(spoken.status.success(), "the server is there: {spoken:?}");
    let site = Site::new();
    let mut config = site.config(&["counter"]);
    let lock_file = site.path().join("themis.lock");
    let url = server.url().parse().unwrap();
    let mut registry = RegistryConfig::new(url, published.root(), lock_file);
    registry.tls.authorities = std::fs::read(dir.join("ca.pem")).unwrap();
    config.registry = Some(registry);
    assert_eq!(refused(&config, wanted(&["counter"])).await, "registry.tls");
}

/// C22: lists have an end.
#[tokio::test]
async fn a_registry_of_more_than_anybody_publishes_is_refused() {
    let published = Published::new(&["1.0.0"]).await;
    published.forge_targets(1, |signed| {
        let entry = json!({"length": 1, "hashes": {"sha256": "00".repeat(32)}});
        let all = (0..50_001).map(|number| (format!("x{number}"), entry.clone()));
        signed["targets"] = serde_json::Value::Object(all.collect());
    });
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    assert_eq!(refused(&config, wanted(&["counter"])).await, "registry.malformed");
    published.forge_targets(1, |signed| {
        signed["targets"] = json!({"x".repeat(11 << 20): {"length": 1, "hashes": {"sha256": ""}}});
    });
    assert_eq!(refused(&config, wanted(&["counter"])).await, "registry.too_large");
    assert!(is_empty(&site));
}

/// C28: what the operator has revoked is not installed, whether it is a key, a manifest or a file.
#[tokio::test]
async fn what_is_revoked_is_not_installed() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = Kernel::start(config.clone()).await.unwrap();
    let market = kernel.marketplace();
    let found = market.resolve(&"counter".parse().unwrap(), "*".parse().unwrap()).await.unwrap();
    kernel.shutdown().await;
    let mut by_manifest = config.clone();
    by_manifest.revoked_digests.insert(found.release.manifest_sha256);
    assert_eq!(refused(&by_manifest, wanted(&["counter"])).await, "digest.revoked");
    let mut by_key = config.clone();
    by_key.revoked_keys.insert(found.release.key_id);
    assert_eq!(refused(&by_key, wanted(&["counter"])).await, "key.revoked");
    assert!(is_empty(&site));
    assert_eq!(installed(&config, wanted(&["counter"])).await, 1);
    // What was installed before it was revoked does not load any more.
    let kernel = Kernel::start(by_manifest).await.unwrap();
    let error = kernel.loader().load("counter/1.0.0", None).await.unwrap_err();
    assert_eq!(error.code(), "digest.revoked");
    kernel.shutdown().await;
}

/// The life of a publisher's key: the next one is pinned while the first still counts, then the first expires, and at last it
/// is revoked because it was stolen.
#[tokio::test]
async fn a_publishers_key_is_replaced_without_a_gap() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_site, mut config) = published.host(&web);
    assert_eq!(installed(&config, wanted(&["counter"])).await, 1);
    // Overlap: both are pinned, and the new key signs what is new.
    let next = Site::new();
    let mut pin = next.config(&[]).trusted_keys.remove(0);
    pin.label = "next".to_owned();
    config.trusted_keys.push(pin);
    let dir = next.root().join(next.add(&Fixture::c("counter.c", "counter", "1.1.0")));
    let bundle = next.path().join("next.tdb");
    pack_dir(&dir, Some(&bundle)).unwrap();
    published.registry.add(&bundle, &next.key.public_key()).await.unwrap();
    published.add(&Fixture::c("counter.c", "counter", "1.0.1")).await;
    published.publish().await;
    assert_eq!(installed(&config, wanted(&["counter@1.0.1"])).await, 1, "the first still counts");
    let newest = wanted(&["counter@1.1.0"]);
    assert_eq!(refused(&config, newest.clone()).await, "registry.approval");
    let approved = InstallRequest { approve: true, ..newest };
    assert_eq!(installed(&config, approved).await, 1);
    // The first one expires: what it signs counts no more.
    published.add(&Fixture::c("counter.c", "counter", "1.2.0")).await;
    published.publish().await;
    let latest = InstallRequest { approve: true, ..wanted(&["counter@1.2.0"]) };
    config.trusted_keys[0].not_after = Some("2020-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(refused(&config, latest.clone()).await, "key.expired");
    config.trusted_keys[0].not_after = None;
    config.revoked_keys.insert(published.site.key.public_key().key_id());
    assert_eq!(refused(&config, latest).await, "key.revoked");
}

/// C30: what is remembered is not repaired by forgetting it.
#[tokio::test]
async fn damaged_memory_is_an_error_and_not_a_first_contact() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_, memory) = look(&published, &web, &Memory::default()).await.unwrap();
    let mut memory = serde_json::to_value(&memory).unwrap();
    memory["files"]["root.json"] = json!("{\"signed\":");
    let memory = serde_json::from_value(memory).unwrap();
    let error = look(&published, &web, &memory).await.unwrap_err();
    assert!(["registry.settings", "registry.memory"].contains(&error.code()), "{error}");
}

/// C34: no name reaches an address that is not a plugin's name.
#[test]
fn names_are_names() {
    for text in
        ["a%2f..%2fb", "../b", "a\r\nHost: x", "ａ", "a/b", "a?b", "a#b", "A", "", "a b", "a@^1@^2"]
    {
        assert!(text.parse::<Wanted>().is_err(), "{text:?}");
    }
    for version in ["999999999999999999999.0.0", "01.0.0", "latest"] {
        assert!(format!("geo@{version}").parse::<Wanted>().is_err(), "{version}");
    }
}

/// B24 for downloads: a full disk is said at once and leaves nothing; with room the same command succeeds.
#[tokio::test]
async fn a_full_disk_installs_nothing() {
    let Some(program) = nginx::program() else { return };
    let published = Published::new(&[]).await;
    let noise: Vec<u8> =
        (0..1_u32 << 18).flat_map(|it| (it.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    published.add(&Fixture::c("counter.c", "counter", "1.0.0").data("data/table", &noise)).await;
    published.publish().await;
    let dir = published.site.path().to_owned();
    let server = Nginx::serve(&program, &dir, &published.public());
    let site = Site::new();
    published.site.key.write_pem_pair(&site.path().join("publisher")).unwrap();
    for name in ["ca.pem", "registry/public/metadata/1.root.json"] {
        let from = dir.join(name);
        std::fs::copy(&from, site.path().join(from.file_name().unwrap())).unwrap();
    }
    let text = format!(
        "data_dir = \"var\"\nplugin_root = \"plugins\"\nallow = [\"*\"]\n\
         [[trusted_key]]\nid = \"test\"\npath = \"publisher.pub.pem\"\nplugins = [\"*\"]\n\
         [registry]\nurl = \"{}\"\nroot = \"1.root.json\"\nca = \"ca.pem\"\n",
        server.url()
    );
    std::fs::write(site.path().join("themis.toml"), text).unwrap();
    let install = ["registry", "install", "counter", "--config", "themis.toml"];
    // Files of at most half the bundle's size: writing beyond that fails, as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\"";
    let mut limited = Command::new("sh");
    limited.current_dir(site.path()).args(["-c", script]);
    limited.arg(themis_tests::program().get_program()).args(install);
    refuse(&limited.output().unwrap(), "registry.store");
    assert!(is_empty(&site) && !site.path().join("themis.lock").exists());
    succeed(run(site.path(), &install));
    assert!(site.root().join("counter/1.0.0/plugin.sig").exists());
}
