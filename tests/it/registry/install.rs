//! Installing: what is wanted with all that it needs, or nothing at all.

use serde_json::json;
use themis_kernel::Kernel;
use themis_kernel::admission::NameSet;
use themis_kernel::audit::{AuditEvent, AuditOutcome};

use super::*;

/// Starts a kernel off the runtime's threads.
async fn start(config: Config) -> Kernel {
    Kernel::start(config).await.unwrap()
}

async fn install(kernel: &Kernel, request: InstallRequest) -> Result<Vec<String>, RegistryError> {
    let report = kernel.marketplace().install(request, None).await?;
    Ok(report.installed.iter().map(|it| format!("{} {}", it.plugin, it.version)).collect())
}

/// What lies below a plugin root, hidden places included.
fn below(site: &Site) -> Vec<String> {
    let mut found = Vec::new();
    for name in std::fs::read_dir(site.root()).unwrap() {
        let name = name.unwrap().path();
        for version in std::fs::read_dir(&name).unwrap() {
            let version = version.unwrap().path();
            found.push(version.strip_prefix(site.root()).unwrap().display().to_string());
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_is_installed_loads_and_is_updated_while_it_serves() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = start(config).await;
    assert_eq!(install(&kernel, wanted(&["counter@^1"])).await.unwrap(), ["counter 1.0.0"]);
    assert_eq!(below(&site), ["counter/1.0.0"]);
    let counter = kernel.loader().load("counter/1.0.0", None).await.unwrap();
    published.add(&Fixture::c("counter.c", "counter", "1.1.0")).await;
    published.publish().await;
    assert!(install(&kernel, wanted(&["counter@^1"])).await.unwrap().is_empty(), "it is there");
    let update = InstallRequest { update: true, ..InstallRequest::default() };
    let report = kernel.marketplace().install(update, None).await.unwrap();
    assert!(report.installed[0].serves);
    assert_eq!(
        counter.call_async("version", Vec::new()).await.unwrap().served_by.version.to_string(),
        "1.1.0"
    );
    let stats = kernel.marketplace().last_request_stats().await.unwrap().unwrap();
    assert!(stats.attempts >= 1 && stats.bytes > 0 && !stats.from_cache);
    let events: Vec<_> = kernel.audit_records(0, 100).await.unwrap();
    let fetched = events.iter().filter(|it| format!("{:?}", it.event) == "Fetch").count();
    assert_eq!(fetched, 2, "every download is recorded");
    kernel.shutdown().await;
}

#[tokio::test]
async fn what_a_plugin_needs_comes_along_and_in_order() {
    let published = Published::new(&["1.0.0"]).await;
    let needs = json!({"counter": "^1"});
    published.add(&Fixture::c("counter.c", "user", "1.0.0").with("dependencies", needs)).await;
    published.publish().await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = start(config).await;
    let market = kernel.marketplace();
    let found = market.resolve(&"user".parse().unwrap(), "*".parse().unwrap()).await.unwrap();
    let plan: Vec<_> = found.plan.iter().map(|step| step.plugin.as_str()).collect();
    assert_eq!(plan, ["counter", "user"]);
    assert!(found.url.starts_with(&web.url), "{}", found.url);
    assert_eq!(install(&kernel, wanted(&["user"])).await.unwrap(), ["counter 1.0.0", "user 1.0.0"]);
    assert_eq!(below(&site), ["counter/1.0.0", "user/1.0.0"]);
    for (asked, code) in [
        ("nothing", "resolve.missing"),
        ("counter@^2", "resolve.no_version"),
        ("counter@^1.0.1", "resolve.no_version"),
    ] {
        assert_eq!(install(&kernel, wanted(&[asked])).await.unwrap_err().code(), code, "{asked}");
    }
    kernel.shutdown().await;
}

#[tokio::test]
async fn nothing_is_installed_of_what_is_not_whole_and_right() {
    type Change = fn(&Published);
    fn bundle(published: &Published) -> PathBuf {
        let dir = published.public().join("targets/counter");
        std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
    }
    let cases: [(&str, Change, &str); 6] = [
        (
            "one bit",
            |published| {
                let path = bundle(published);
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[100] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            },
            "registry.digest",
        ),
        (
            "cut short",
            |published| {
                let path = bundle(published);
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            },
            "registry.digest",
        ),
        (
            "a page in its place",
            |published| std::fs::write(bundle(published), "<html>log in</html>").unwrap(),
            "registry.digest",
        ),
        (
            "gone",
            |published| std::fs::remove_file(bundle(published)).unwrap(),
            "registry.not_found",
        ),
        (
            "a need that its publisher did not sign",
            |published| {
                published.forge_targets(1, |signed| {
                    let target = &mut signed["targets"]["counter/counter-1.0.0.tdb"];
                    target["custom"]["themis"]["capabilities"] = json!([]);
                });
            },
            "registry.differs",
        ),
        (
            "another name",
            |published| {
                published.forge_targets(1, |signed| {
                    let target = signed["targets"]["counter/counter-1.0.0.tdb"].take();
                    signed["targets"] = json!({"../../etc/counter-1.0.0.tdb": target});
                });
            },
            "resolve.missing",
        ),
    ];
    for (what, change, code) in cases {
        let published = Published::new(&["1.0.0"]).await;
        change(&published);
        let web = Web::serve(published.public());
        let (site, config) = published.host(&web);
        let kernel = start(config).await;
        let error = install(&kernel, wanted(&["counter"])).await.unwrap_err();
        assert_eq!(error.code(), code, "{what}: {error}");
        assert!(below(&site).is_empty(), "{what}");
        assert!(!site.path().join("themis.lock").exists(), "{what}");
        kernel.shutdown().await;
    }
}

#[tokio::test]
async fn only_pinned_publishers_count() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, mut config) = published.host(&web);
    config.trusted_keys = site.config(&[]).trusted_keys;
    let kernel = start(config).await;
    let error = install(&kernel, wanted(&["counter"])).await.unwrap_err();
    assert_eq!(error.code(), "registry.publisher", "{error}");
    assert!(below(&site).is_empty());
    kernel.shutdown().await;
}

#[tokio::test]
async fn a_version_has_one_content_for_ever() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = start(config).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    let other = published.bundle(&Fixture::c("counter.c", "counter", "1.0.0").data("data/x", b"x"));
    let refused = published.registry.add(&other, &published.site.key.public_key()).await;
    assert_eq!(refused.unwrap_err().code(), "publish.published");
    published.forge_targets(1, |signed| {
        let target = &mut signed["targets"]["counter/counter-1.0.0.tdb"];
        target["hashes"]["sha256"] = json!("00".repeat(32));
    });
    let error = install(&kernel, wanted(&["counter"])).await.unwrap_err();
    assert_eq!(error.code(), "registry.equivocation", "{error}");
    assert_eq!(below(&site), ["counter/1.0.0"]);
    kernel.shutdown().await;
}

#[tokio::test]
async fn what_is_withdrawn_is_kept_and_not_given_out() {
    let published = Published::new(&["1.0.0", "1.1.0"]).await;
    let web = Web::serve(published.public());
    let (_site, config) = published.host(&web);
    let kernel = start(config).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    let yank = async |version: &str| {
        let (plugin, version) = ("counter".parse().unwrap(), version.parse().unwrap());
        published.registry.yank(&plugin, &version, true, Validity::default()).await.unwrap();
    };
    yank("1.1.0").await;
    assert!(install(&kernel, wanted(&["counter"])).await.unwrap().is_empty(), "it stays");
    kernel.shutdown().await;
    let (_site, config) = published.host(&web);
    let kernel = start(config).await;
    assert_eq!(install(&kernel, wanted(&["counter"])).await.unwrap(), ["counter 1.0.0"]);
    yank("1.0.0").await;
    let error = install(&kernel, wanted(&["counter@1.1.0"])).await.unwrap_err();
    assert_eq!(error.code(), "resolve.yanked", "{error}");
    kernel.shutdown().await;
}

#[tokio::test]
async fn what_an_update_adds_has_to_be_agreed_to() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = start(config).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    published.add(&Fixture::c("counter.c", "helper", "1.0.0")).await;
    let update = Fixture::c("counter.c", "counter", "1.1.0");
    published.add(&update.with("dependencies", json!({"helper": "^1"}))).await;
    published.publish().await;
    let update = InstallRequest { update: true, ..InstallRequest::default() };
    let error = install(&kernel, update.clone()).await.unwrap_err();
    assert_eq!(error.code(), "registry.approval", "{error}");
    assert!(error.to_string().contains("it needs helper"), "{error}");
    assert_eq!(below(&site), ["counter/1.0.0"]);
    let approved = InstallRequest { approve: true, ..update };
    assert_eq!(install(&kernel, approved).await.unwrap(), ["helper 1.0.0", "counter 1.1.0"]);
    kernel.shutdown().await;
}

#[tokio::test]
async fn an_older_version_is_only_installed_on_purpose() {
    let published = Published::new(&["1.0.0", "1.1.0"]).await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = start(config.clone()).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    let older = wanted(&["counter@1.0.0"]);
    assert_eq!(install(&kernel, older.clone()).await.unwrap_err().code(), "registry.downgrade");
    // Nor does it load when it lies there, now or after a restart.
    published.site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    copy(&published.site.root().join("counter/1.0.0"), &site.root().join("counter/1.0.0"));
    let below = kernel.loader().load("counter/1.0.0", None).await.unwrap_err();
    assert_eq!(below.code(), "version.below_floor", "{below}");
    kernel.shutdown().await;
    let kernel = start(config).await;
    let below = kernel.loader().load("counter/1.0.0", None).await.unwrap_err();
    assert_eq!(below.code(), "version.below_floor", "{below}");
    std::fs::remove_dir_all(site.root().join("counter/1.0.0")).unwrap();
    let meant = InstallRequest { downgrade: true, ..older };
    assert_eq!(install(&kernel, meant).await.unwrap(), ["counter 1.0.0"]);
    kernel.shutdown().await;
}

#[tokio::test]
async fn what_is_here_installs_without_a_network() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = start(config.clone()).await;
    let offline = InstallRequest { offline: true, ..InstallRequest::default() };
    let nothing = install(&kernel, InstallRequest { offline: true, ..wanted(&["counter"]) }).await;
    assert_eq!(nothing.unwrap_err().code(), "registry.offline");
    install(&kernel, wanted(&["counter"])).await.unwrap();
    kernel.shutdown().await;
    drop(web);
    std::fs::remove_dir_all(site.root().join("counter")).unwrap();
    let kernel = start(config.clone()).await;
    assert_eq!(install(&kernel, offline.clone()).await.unwrap(), ["counter 1.0.0"]);
    kernel.shutdown().await;
    // What was kept is hashed again: an edited file is as good as none.
    let kept = std::fs::read_dir(config.data_dir.join("bundles")).unwrap().next().unwrap().unwrap();
    std::fs::write(kept.path(), b"something else").unwrap();
    std::fs::remove_dir_all(site.root().join("counter")).unwrap();
    let kernel = start(config).await;
    assert_eq!(install(&kernel, offline).await.unwrap_err().code(), "registry.offline");
    kernel.shutdown().await;
}

/// A server whose first answer to a question for the bundle breaks off after what `begin` makes of its beginning.
fn breaking_off(public: PathBuf, begin: fn(&[u8]) -> Vec<u8>) -> Web {
    let tries = Mutex::new(0);
    Web::start(move |seen| {
        let is_bundle = seen.path.ends_with(".tdb");
        let mut tries = tries.lock().unwrap();
        *tries += u32::from(is_bundle);
        if !is_bundle || *tries > 1 {
            return file(&public, seen);
        }
        let bytes = std::fs::read(public.join(seen.path.trim_start_matches('/'))).unwrap();
        Answer::status(200)
            .header("Content-Length", &bytes.len().to_string())
            .header("ETag", &format!("\"{:x}\"", bytes.len()))
            .then(Piece::Bytes(begin(&bytes[..1000])))
    })
}

/// What was asked of the bundle, by range.
fn ranges(web: &Web) -> Vec<Option<String>> {
    let seen = web.seen();
    let bundles = seen.iter().filter(|seen| seen.path.ends_with(".tdb"));
    bundles.map(|seen| seen.header("range").map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_transfer_goes_on_where_it_broke_off() {
    let published = Published::new(&["1.0.0"]).await;
    let web = breaking_off(published.public(), <[u8]>::to_vec);
    let (_site, config) = published.host(&web);
    let kernel = start(config).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    assert_eq!(ranges(&web), [None, Some("bytes=1000-".to_owned())]);
    kernel.shutdown().await;
}

/// C32: the hash at the end is of every byte.
#[tokio::test]
async fn a_part_of_something_else_is_thrown_away() {
    let published = Published::new(&["1.0.0"]).await;
    let web = breaking_off(published.public(), |begin| vec![7; begin.len()]);
    let (_site, config) = published.host(&web);
    let kernel = start(config).await;
    assert_eq!(install(&kernel, wanted(&["counter"])).await.unwrap(), ["counter 1.0.0"]);
    assert_eq!(ranges(&web), [None, Some("bytes=1000-".to_owned()), None]);
    kernel.shutdown().await;
}

#[tokio::test]
async fn many_who_ask_at_once_ask_once() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_site, config) = published.host(&web);
    let kernel = Arc::new(start(config).await);
    let asked = (0..1_000).map(|_| {
        let market = kernel.marketplace();
        tokio::spawn(async move {
            market.resolve(&"counter".parse().unwrap(), "*".parse().unwrap()).await
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        asked.await.unwrap().unwrap();
    }
    let requests = web.seen().len();
    assert!(requests < 100, "{requests} requests for 1,000 questions");
    Arc::try_unwrap(kernel).unwrap().shutdown().await;
}

#[tokio::test]
async fn a_version_that_does_not_load_changes_nothing() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = start(config).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    let counter = kernel.loader().load("counter/1.0.0", None).await.unwrap();
    published.add(&Fixture::c("fail_init.c", "counter", "1.1.0")).await;
    published.publish().await;
    let lock = std::fs::read(site.path().join("themis.lock")).unwrap();
    let update = InstallRequest { update: true, ..InstallRequest::default() };
    let error = install(&kernel, update).await.unwrap_err();
    assert!(matches!(error, RegistryError::Load { .. }), "{error}");
    assert_eq!(below(&site), ["counter/1.0.0"]);
    assert_eq!(std::fs::read(site.path().join("themis.lock")).unwrap(), lock);
    let answer = counter.call_async("version", Vec::new()).await.unwrap();
    assert_eq!(answer.served_by.version.to_string(), "1.0.0");
    kernel.shutdown().await;
}

/// The lock file's directory is not there: what was loaded goes back, and the floors with it.
#[tokio::test]
async fn what_cannot_be_written_down_does_not_stay() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, mut config) = published.host(&web);
    let kernel = start(config.clone()).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    kernel.shutdown().await;
    published.add(&Fixture::c("counter.c", "counter", "1.1.0")).await;
    published.publish().await;
    let lock_file = site.path().join("gone/themis.lock");
    config.registry.as_mut().unwrap().lock_file.clone_from(&lock_file);
    let kernel = start(config.clone()).await;
    let counter = kernel.loader().load("counter/1.0.0", None).await.unwrap();
    let error = install(&kernel, wanted(&["counter@^1"])).await.unwrap_err();
    assert_eq!(error.code(), "registry.io", "{error}");
    assert_eq!(counter.call_async("version", Vec::new()).await.unwrap().bytes, b"1.0.0");
    assert_eq!(below(&site), ["counter/1.0.0"]);
    kernel.shutdown().await;
    let kernel = start(config).await;
    kernel.loader().load("counter/1.0.0", None).await.unwrap();
    std::fs::create_dir(lock_file.parent().unwrap()).unwrap();
    assert_eq!(install(&kernel, wanted(&["counter"])).await.unwrap(), ["counter 1.1.0"]);
    kernel.shutdown().await;
}

#[tokio::test]
async fn what_was_changed_since_it_was_installed_is_told() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = start(config).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    let library = site.root().join("counter/1.0.0/linux-x86_64/libcounter.so");
    std::fs::write(library, b"something else").unwrap();
    let error = install(&kernel, wanted(&["counter"])).await.unwrap_err();
    assert_eq!(error.code(), "registry.io", "{error}");
    assert!(error.to_string().contains("changed since it was installed"), "{error}");
    std::fs::remove_dir_all(site.root().join("counter/1.0.0")).unwrap();
    assert_eq!(install(&kernel, wanted(&["counter"])).await.unwrap(), ["counter 1.0.0"]);
    kernel.shutdown().await;
}

#[tokio::test]
async fn a_plugin_stays_with_its_registry() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_site, config) = published.host(&web);
    let kernel = start(config.clone()).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    kernel.shutdown().await;
    let elsewhere = Web::serve(published.public());
    let mut moved = config;
    let registry = moved.registry.as_mut().unwrap();
    registry.url = elsewhere.url.parse().unwrap();
    registry.tls.authorities.clone_from(&elsewhere.authority);
    let kernel = start(moved).await;
    let error = install(&kernel, wanted(&["counter"])).await.unwrap_err();
    assert_eq!(error.code(), "registry.bound", "{error}");
    kernel.shutdown().await;
}

/// The key of a plugin's first installation counts, whatever becomes of the lock file.
#[tokio::test]
async fn a_plugin_stays_with_its_publisher() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, mut config) = published.host(&web);
    let other = Site::new();
    config.trusted_keys.extend(other.config(&[]).trusted_keys.into_iter().map(|mut it| {
        it.label = "other".to_owned();
        it
    }));
    let kernel = start(config).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    let dir = other.root().join(other.add(&Fixture::c("counter.c", "counter", "1.1.0")));
    let bundle = site.path().join("other.tdb");
    pack_dir(&dir, Some(&bundle)).unwrap();
    published.registry.add(&bundle, &other.key.public_key()).await.unwrap();
    published.publish().await;
    std::fs::remove_file(site.path().join("themis.lock")).unwrap();
    std::fs::remove_dir_all(site.root().join("counter")).unwrap();
    let error = install(&kernel, wanted(&["counter"])).await.unwrap_err();
    assert_eq!(error.code(), "registry.approval", "{error}");
    let approved = InstallRequest { approve: true, ..wanted(&["counter"]) };
    assert_eq!(install(&kernel, approved).await.unwrap(), ["counter 1.1.0"]);
    kernel.shutdown().await;
}

/// Version `major` of `base`, or of `top`, which needs the same of `base`.
fn storey(name: &str, major: u32) -> Fixture {
    let fixture = Fixture::c("counter.c", name, &format!("{major}.0.0"));
    match name {
        "top" => fixture.with("dependencies", json!({"base": format!("^{major}")})),
        _ => fixture,
    }
}

#[tokio::test]
async fn what_an_update_would_break_is_updated_and_reloaded_with_it() {
    let published = Published::new(&[]).await;
    for name in ["base", "top"] {
        published.add(&storey(name, 1)).await;
    }
    published.publish().await;
    let web = Web::serve(published.public());
    let (_site, mut config) = published.host(&web);
    let names = ["base", "top"].map(|name| name.parse().unwrap());
    config.allow = NameSet::Only(names.clone().into());
    config.trusted_in_process = names.into();
    let kernel = start(config).await;
    install(&kernel, wanted(&["top"])).await.unwrap();
    for path in ["base/1.0.0", "top/1.0.0"] {
        kernel.loader().load(path, None).await.unwrap();
    }
    for name in ["base", "top"] {
        published.add(&storey(name, 2)).await;
    }
    published.publish().await;
    let installed = install(&kernel, wanted(&["base@^2"])).await.unwrap();
    assert_eq!(installed, ["base 2.0.0", "top 2.0.0"]);
    for name in ["base", "top"] {
        let serves = kernel.plugin(name).unwrap().info().version.unwrap();
        assert_eq!(serves.to_string(), "2.0.0", "{name}");
    }
    kernel.shutdown().await;
}

#[tokio::test]
async fn an_installation_that_failed_is_on_record() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_site, config) = published.host(&web);
    let kernel = start(config).await;
    install(&kernel, wanted(&["counter@^2"])).await.unwrap_err();
    let records = kernel.audit_records(0, 100).await.unwrap();
    let record = records.iter().find(|it| it.event == AuditEvent::Install).unwrap();
    assert_eq!(record.outcome, AuditOutcome::Failed);
    assert_eq!(record.code.as_deref(), Some("resolve.no_version"));
    assert_eq!(record.plugin.as_ref().unwrap().as_str(), "counter");
    kernel.shutdown().await;
}

/// An installation that was killed after it had put the plugin in its place, and before it had written that down.
#[tokio::test]
async fn what_was_cut_short_is_finished_by_the_next() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (site, config) = published.host(&web);
    let kernel = start(config).await;
    install(&kernel, wanted(&["counter"])).await.unwrap();
    std::fs::remove_file(site.path().join("themis.lock")).unwrap();
    std::fs::create_dir_all(site.root().join(".installingABCDEF/counter")).unwrap();
    assert_eq!(install(&kernel, wanted(&["counter"])).await.unwrap(), ["counter 1.0.0"]);
    assert_eq!(below(&site), ["counter/1.0.0"]);
    assert!(site.path().join("themis.lock").exists());
    // What somebody else put there is not touched.
    std::fs::remove_file(site.path().join("themis.lock")).unwrap();
    std::fs::write(site.root().join("counter/1.0.0/manifest.json"), b"{}").unwrap();
    let error = install(&kernel, wanted(&["counter"])).await.unwrap_err();
    assert_eq!(error.code(), "registry.io", "{error}");
    assert_eq!(std::fs::read(site.root().join("counter/1.0.0/manifest.json")).unwrap(), b"{}");
    kernel.shutdown().await;
}

/// A thousand questions about a server that is not there hold up nothing: the runtime's two threads go on turning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_holds_nobody_up() {
    let published = Published::new(&["1.0.0"]).await;
    let web = Web::serve(published.public());
    let (_site, mut config) = published.host(&web);
    let registry = config.registry.as_mut().unwrap();
    registry.url = "https://localhost:1/".parse().unwrap();
    registry.retry_limit = SHORT;
    let kernel = start(config).await;
    let asked = (0..1_000).map(|_| {
        let market = kernel.marketplace();
        tokio::spawn(async move {
            market.resolve(&"counter".parse().unwrap(), "*".parse().unwrap()).await
        })
    });
    let asked: Vec<_> = asked.collect();
    let all = async {
        for asked in asked {
            let error = asked.await.unwrap().unwrap_err();
            assert_eq!(error.code(), "registry.out_of_time", "{error}");
        }
    };
    let mut turns = 0_u32;
    let turning = async {
        let mut each = tokio::time::interval(Duration::from_millis(5));
        loop {
            each.tick().await;
            turns += 1;
        }
    };
    tokio::select! {
        () = all => {}
        () = turning => {}
    }
    assert!(turns > 20, "{turns} turns");
    kernel.shutdown().await;
}
