//! Which metadata is believed: rollback, freeze, mix-and-match and what else a server could try.

use serde_json::json;

use super::*;

/// What a client says that has seen the registry before.
async fn refused(published: &Published, web: &Web, memory: &Memory) -> String {
    let error = look_within(SHORT, published, web, memory).await.unwrap_err();
    assert!(!error.to_string().is_empty());
    error.code().to_owned()
}

#[tokio::test]
async fn what_is_published_is_seen() {
    let published = Published::new(&["1.0.0", "1.1.0"]).await;
    let web = Web::serve(published.public());
    let (mut names, memory) = look(&published, &web, &Memory::default()).await.unwrap();
    names.sort();
    assert_eq!(names, ["counter/counter-1.0.0.tdb", "counter/counter-1.1.0.tdb"]);
    published.add(&Fixture::c("counter.c", "counter", "1.2.0")).await;
    published.publish().await;
    let (names, _memory) = look(&published, &web, &memory).await.unwrap();
    assert_eq!(names.len(), 3);
}

#[tokio::test]
async fn a_registry_never_goes_back() {
    let published = Published::new(&["1.0.0"]).await;
    let old = published.dir.join("old");
    copy(&published.public(), &old);
    published.add(&Fixture::c("counter.c", "counter", "1.1.0")).await;
    published.publish().await;
    let copies = Copies::serve(&published.public());
    let (_, memory) = look(&published, &copies.web, &Memory::default()).await.unwrap();
    copies.show(&old);
    assert_eq!(refused(&published, &copies.web, &memory).await, "registry.rollback");
    let (names, _) = look(&published, &copies.web, &Memory::default()).await.unwrap();
    assert_eq!(names.len(), 1, "somebody who has seen nothing cannot know");
    copies.show(&published.public());
    let (names, _) = look(&published, &copies.web, &memory).await.unwrap();
    assert_eq!(names.len(), 2, "a refusal has left nothing behind");
}

#[tokio::test]
async fn metadata_that_is_held_back_expires() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_, memory) = look(&published, &web, &Memory::default()).await.unwrap();
    published.forge_timestamp(1, |signed| signed["expires"] = json!("2020-01-01T00:00:00Z"));
    assert_eq!(refused(&published, &web, &memory).await, "registry.expired");
}

#[tokio::test]
async fn a_version_that_nobody_gets_to_is_refused() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_, memory) = look(&published, &web, &Memory::default()).await.unwrap();
    published.forge_timestamp(1 << 40, |_| {});
    assert_eq!(refused(&published, &web, &memory).await, "registry.fast_forward");
    assert_eq!(refused(&published, &web, &Memory::default()).await, "registry.fast_forward");
}

/// C31: who shows one half of his users something else is found out by each who has seen both.
#[tokio::test]
async fn one_number_stands_for_one_content() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_, memory) = look(&published, &web, &Memory::default()).await.unwrap();
    published.forge_targets(0, |signed| signed["targets"] = json!({}));
    assert_eq!(refused(&published, &web, &memory).await, "registry.equivocation");
    let (names, _) = look(&published, &web, &Memory::default()).await.unwrap();
    assert!(names.is_empty(), "somebody who has seen nothing cannot know");
}

#[tokio::test]
async fn parts_that_do_not_belong_together_are_refused() {
    for (name, bytes) in [
        ("2.targets.json", b"{}".to_vec()),
        ("2.snapshot.json", b"{}".to_vec()),
        ("timestamp.json", b"{}".to_vec()),
        ("timestamp.json", b"<html><body>Please log in</body></html>".to_vec()),
        ("timestamp.json", Vec::new()),
    ] {
        let published = Published::new(&["1.0.0"]).await;
        let web = Web::serve(published.public());
        std::fs::write(published.public().join("metadata").join(name), bytes).unwrap();
        let code = refused(&published, &web, &Memory::default()).await;
        let expected =
            if name == "timestamp.json" { "registry.malformed" } else { "registry.mismatch" };
        assert_eq!(code, expected, "{name}");
    }
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    // An older targets file under the number of the newer one: signed, but not the one that was announced.
    let metadata = published.public().join("metadata");
    std::fs::copy(metadata.join("1.targets.json"), metadata.join("2.targets.json")).unwrap();
    assert_eq!(refused(&published, &web, &Memory::default()).await, "registry.mismatch");
}

#[tokio::test]
async fn signatures_are_those_of_the_root() {
    let published = Published::new(&["1.0.0"]).await;
    let other = Published::new(&["1.0.0"]).await;
    let web = Web::serve(other.public());
    assert_eq!(refused(&published, &web, &Memory::default()).await, "registry.signature");
    // One valid signature twice is one signature.
    published.forge_root(2, |signed| {
        signed["version"] = json!(2);
        signed["roles"]["timestamp"]["threshold"] = json!(2);
    });
    published.forge_timestamp(1, |_| {});
    let path = published.public().join("metadata/timestamp.json");
    let mut timestamp: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let signature = timestamp["signatures"][0].clone();
    timestamp["signatures"].as_array_mut().unwrap().push(signature);
    std::fs::write(&path, timestamp.to_string()).unwrap();
    let web = Web::serve(published.public());
    let code = refused(&published, &web, &Memory::default()).await;
    assert!(["registry.signature", "registry.malformed"].contains(&code.as_str()), "{code}");
}

#[tokio::test]
async fn roots_come_one_after_the_other() {
    let published = Published::new(&["1.0.0"]).await;
    published.forge_root(2, |signed| signed["version"] = json!(3));
    let web = Web::serve(published.public());
    assert_eq!(refused(&published, &web, &Memory::default()).await, "registry.root");
    // A server that fails has not said that there is no newer root.
    let public = published.public();
    let web = Web::start(move |seen| {
        if seen.path.contains("root.json") { Answer::status(500) } else { file(&public, seen) }
    });
    assert_eq!(refused(&published, &web, &Memory::default()).await, "registry.out_of_time");
}

#[tokio::test]
async fn further_roles_are_neither_fetched_nor_believed() {
    let published = Published::new(&["1.0.0"]).await;
    let roles: Vec<_> = (0..10_000)
        .map(|number| {
            json!({"name": format!("role-{number}"), "keyids": [], "threshold": 1,
                   "paths": ["*"], "terminating": false})
        })
        .collect();
    published.forge_targets(1, |signed| {
        signed["delegations"] = json!({"keys": {}, "roles": roles});
    });
    let web = Web::serve(published.public());
    let code = refused(&published, &web, &Memory::default()).await;
    assert_eq!(code, "registry.malformed");
    let asked = web.seen().into_iter().filter(|seen| seen.path.contains("role-")).count();
    assert_eq!(asked, 0);
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_noticed() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_, memory) = look(&published, &web, &Memory::default()).await.unwrap();
    let mut memory = serde_json::to_value(&memory).unwrap();
    memory["files"]["latest_known_time.json"] = json!("\"2099-01-01T00:00:00Z\"");
    let memory = serde_json::from_value(memory).unwrap();
    assert_eq!(refused(&published, &web, &memory).await, "registry.clock");
}

#[tokio::test]
async fn a_rotation_of_keys_is_followed() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_, memory) = look(&published, &web, &Memory::default()).await.unwrap();
    let mut last = memory;
    for role in ["timestamp", "snapshot", "targets", "root"] {
        let stolen = published.dir.join(format!("before-{role}"));
        copy(&published.public(), &stolen);
        published.registry.rotate(role, Validity::default()).await.unwrap();
        let (names, memory) = look(&published, &web, &last).await.unwrap();
        assert_eq!(names.len(), 1, "{role}");
        // What the old key signed counts no more.
        if role == "timestamp" {
            let web = Web::serve(stolen);
            assert_eq!(refused(&published, &web, &memory).await, "registry.signature");
        }
        last = memory;
    }
    let (names, _) = look(&published, &web, &Memory::default()).await.unwrap();
    assert_eq!(names.len(), 1, "from the first root on");
}

#[tokio::test]
async fn after_a_rotation_the_numbers_begin_anew() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_, memory) = look(&published, &web, &Memory::default()).await.unwrap();
    // Two million further: allowed, and then nothing the publisher signs would be newer.
    published.forge_timestamp(2_000_000, |_| {});
    let (_, ahead) = look(&published, &web, &memory).await.unwrap();
    let back = published.public().join("metadata/timestamp.json");
    let mut timestamp: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&back).unwrap()).unwrap();
    timestamp["signed"]["version"] = json!(3);
    std::fs::write(&back, timestamp.to_string()).unwrap();
    published.forge_timestamp(0, |_| {});
    assert_eq!(refused(&published, &web, &ahead).await, "registry.rollback");
    published.registry.rotate("timestamp", Validity::default()).await.unwrap();
    look(&published, &web, &ahead).await.unwrap();
}

#[tokio::test]
async fn changes_of_keys_need_as_many_keys_as_the_root_says() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("registry");
    let founding = Founding { root_keys: 3, threshold: 2, validity: Validity::default() };
    let registry = Registry::init(&dir, founding).await.unwrap();
    registry.rotate("root", Validity::default()).await.unwrap();
    let keys: Vec<_> =
        std::fs::read_dir(registry.keys()).unwrap().map(|it| it.unwrap().path()).collect();
    let of_root = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("root-") && name.ends_with(".key.pem")
    };
    for stolen in keys.iter().filter(of_root).take(2) {
        std::fs::remove_file(stolen).unwrap();
    }
    let error = registry.rotate("timestamp", Validity::default()).await.unwrap_err();
    assert_eq!(error.code(), "publish.keys", "{error}");
    registry.publish(Validity::default()).await.unwrap();
}
