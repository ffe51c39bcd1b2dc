//! The real thing: a registry behind nginx, with certificates that openssl made, used by the program.

use std::io::Write as _;

use themis_tests::nginx::{self, Nginx};

use super::*;
use crate::program::{refuse, run, succeed};

#[tokio::test]
async fn a_registry_behind_nginx_is_installed_from() {
    let Some(program) = nginx::program() else { return };
    let published = Published::new(&["1.0.0"]).await;
    let dir = published.site.path().to_owned();
    let server = Nginx::serve(&program, &dir, &published.public());
    let url = server.url();
    let site = Site::new();
    published.site.key.write_pem_pair(&site.path().join("publisher")).unwrap();
    for name in ["ca.pem", "registry/public/metadata/1.root.json"] {
        let from = dir.join(name);
        std::fs::copy(&from, site.path().join(from.file_name().unwrap())).unwrap();
    }
    let mut config = std::fs::File::create(site.path().join("themis.toml")).unwrap();
    writeln!(
        config,
        "data_dir = \"var\"\nplugin_root = \"plugins\"\nallow = [\"*\"]\n\
         [[trusted_key]]\nid = \"test\"\npath = \"publisher.pub.pem\"\nplugins = [\"*\"]\n\
         [registry]\nurl = \"{url}\"\nroot = \"1.root.json\"\nca = \"ca.pem\""
    )
    .unwrap();
    let themis = |arguments: &[&str]| {
        run(site.path(), &[&["registry"], arguments, &["--config", "themis.toml"]].concat())
    };
    // It may not listen yet; the client is patient.
    let resolved = succeed(themis(&["resolve", "counter@^1"]));
    assert!(resolved.contains(&format!("counter 1.0.0 at {url}targets/")), "{resolved}");
    succeed(themis(&["install", "counter@^1"]));
    assert!(site.root().join("counter/1.0.0/plugin.sig").exists());
    let lock = std::fs::read_to_string(site.path().join("themis.lock")).unwrap();
    assert!(lock.contains("linux-x86_64/libcounter.so"), "{lock}");
    drop(server);
    std::fs::remove_dir_all(site.root().join("counter")).unwrap();
    succeed(themis(&["install", "--offline"]));
    assert!(site.root().join("counter/1.0.0/plugin.sig").exists());
    refuse(&themis(&["install", "--offline", "other"]), "registry.offline");
}
