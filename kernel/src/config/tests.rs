//! What a configuration file may say, and what it is told when it says something else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use expect_test::{Expect, expect};

use super::*;

/// Two public keys of RFC 8032's test vectors.
const FIRST: (&str, &str) =
    ("21fe31dfa154a261", "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
const SECOND: (&str, &str) =
    ("39f713d0a644253f", "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=");

/// A directory with `first.pub.pem`, `second.pub.pem` and `broken.pub.pem`.
fn operator() -> tempfile::TempDir {
    let dir =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
    let pem =
        |base64: &str| format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n");
    for (name, text) in
        [("first", pem(FIRST.1)), ("second", pem(SECOND.1)), ("broken", "no key".to_owned())]
    {
        let path = dir.path().join(format!("{name}.pub.pem"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }
    dir
}

fn parse(text: &str) -> (tempfile::TempDir, Result<Config, ConfigError>) {
    let dir = operator();
    let config = Config::from_toml(text, dir.path(), Path::new("themis.toml"));
    (dir, config)
}

/// The refusal of a file that starts with the two required keys on lines 1 and 2.
fn refusal(rest: &str) -> String {
    let (dir, config) = parse(&format!("data_dir = \"var\"\nplugin_root = \"plugins\"\n{rest}"));
    let error = config.expect_err(rest);
    format!("{}: {error}", error.code()).replace(&dir.path().display().to_string(), "DIR")
}

fn refusals(cases: &[&str], messages: &Expect) {
    let lines: Vec<_> = cases.iter().map(|rest| refusal(rest)).collect();
    assert!(lines.iter().all(|line| !line.contains('\n')), "one line each");
    messages.assert_eq(&(lines.join("\n") + "\n"));
}

fn name(text: &str) -> PluginName {
    text.parse().unwrap()
}

#[test]
fn the_smallest_file_trusts_nothing_and_nobody() {
    let (dir, config) = parse("data_dir = \"var\"\nplugin_root = \"/plugins\"\n");
    let config = config.unwrap();
    assert_eq!(config.data_dir, dir.path().join("var"));
    assert_eq!(config.plugin_root, Path::new("/plugins"));
    assert_eq!(config.admin_socket, Some(dir.path().join("var/admin.sock")));
    assert_eq!(config.metrics_listen, None);
    assert_eq!(config.limits, Limits::default());
    assert!(config.plugins.is_empty());
    let policy = config.policy();
    assert_eq!(policy.allow, NameSet::Only(BTreeSet::new()));
    assert_eq!(policy.default_tier, Tier::Process);
    assert!(
        policy.trusted_in_process.is_empty() && policy.keys.is_empty() && policy.tiers.is_empty()
    );
    assert_eq!(policy.file_bytes_max, FILE_BYTES_MAX);
}

const WHOLE: &str = r#"
data_dir = "var"
plugin_root = "plugins"
allow = ["geo", "text"]
trusted_in_process = ["geo"]
default_tier = "wasm"
[[trusted_key]]
id = "dev"
path = "first.pub.pem"
not_before = 2026-01-01T00:00:00Z
not_after = "2027-01-01T00:00:00+01:00"
plugins = ["geo"]
[[trusted_key]]
id = "39f713d0a644253f"
path = "second.pub.pem"
plugins = ["*"]
[revoked]
keys = ["dev", "0123456789abcdef"]
digests = ["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
[admin]
socket = "run/admin.sock"
[metrics]
listen = "[::1]:9464"
[plugin.geo]
config = { precision = 6, deep = { list = [1, -2.5, true, "x"] } }
tier = "in-process"
version = "^1"
floor = "1.0.0"
[plugin.text]
require = "full"
autoload = false
limits = { memory_bytes = 1048576, wasm_memory_bytes = 65536, cpu_percent = 50, call_deadline_ms = 100, fuel_per_call = 5, fuel_total = 50 }
[limits]
memory_bytes = 2097152
wasm_memory_bytes = 131072
cpu_percent = 200
fuel_per_call = 6
fuel_total = 60
hook_deadline_ms = 1000
call_deadline_ms = 2000
[limits.max]
memory_bytes = 4194304
wasm_memory_bytes = 262144
cpu_percent = 400
fuel_per_call = 7
"#;

#[test]
fn every_key_lands_where_it_belongs() {
    let (dir, config) = parse(WHOLE);
    let config = config.unwrap();
    assert_eq!(config.admin_socket, Some(dir.path().join("run/admin.sock")));
    assert_eq!(config.metrics_listen, Some("[::1]:9464".parse().unwrap()));
    let geo = &config.plugins[&name("geo")];
    let json = serde_json::json!({"precision": 6, "deep": {"list": [1, -2.5, true, "x"]}});
    assert_eq!(serde_json::Value::Object(geo.config.clone()), json);
    assert_eq!(
        (geo.autoload, geo.require, geo.limits),
        (true, Require::Degraded, PluginLimits::default())
    );
    assert_eq!(geo.version, Some("^1".parse().unwrap()));
    let text = &config.plugins[&name("text")];
    assert_eq!((text.autoload, text.require, text.tier), (false, Require::Full, None));
    let limits = PluginLimits {
        memory_bytes: Some(1 << 20),
        wasm_memory_bytes: Some(1 << 16),
        cpu_percent: Some(50),
        call_deadline: Some(Duration::from_millis(100)),
        fuel_per_call: Some(5),
        fuel_total: Some(50),
    };
    assert_eq!(text.limits, limits);
    let limits = Limits {
        memory_bytes: 2 << 20,
        wasm_memory_bytes: 2 << 16,
        cpu_percent: 200,
        fuel_per_call: 6,
        fuel_total: 60,
        max: LimitMaxima {
            memory_bytes: 4 << 20,
            wasm_memory_bytes: 4 << 16,
            cpu_percent: 400,
            fuel_per_call: 7,
        },
    };
    assert_eq!(config.limits, limits);
    let deadlines = (config.hook_deadline, config.call_deadline);
    assert_eq!(deadlines, (Duration::from_secs(1), Duration::from_secs(2)));
}

#[test]
fn every_decision_of_trust_reaches_admission() {
    let (_dir, config) = parse(WHOLE);
    let policy = config.unwrap().policy();
    assert_eq!(policy.allow, NameSet::Only([name("geo"), name("text")].into()));
    assert_eq!(policy.trusted_in_process, [name("geo")].into());
    assert_eq!(policy.default_tier, Tier::Wasm);
    assert_eq!(policy.tiers, [(name("geo"), Tier::InProcess)].into());
    assert_eq!(policy.floors, [(name("geo"), "1.0.0".parse().unwrap())].into());
    assert_eq!(policy.revoked_digests, ["0123456789abcdef".repeat(4).parse().unwrap()].into());
    let revoked = [FIRST.0.parse().unwrap(), "0123456789abcdef".parse().unwrap()];
    assert_eq!(policy.revoked_keys, revoked.into());
    let [first, second] = policy.keys.as_slice() else { panic!("two keys") };
    assert_eq!((first.label.as_str(), first.key.key_id()), ("dev", FIRST.0.parse().unwrap()));
    assert_eq!(first.not_before, Some("2026-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(first.not_after, Some("2026-12-31T23:00:00Z".parse().unwrap()));
    assert_eq!(first.plugins, NameSet::Only([name("geo")].into()));
    assert_eq!((second.key.key_id(), &second.plugins), (SECOND.0.parse().unwrap(), &NameSet::Any));
    assert_eq!((second.not_before, second.not_after), (None, None));
}

#[test]
fn keys_and_values_that_are_not_known_are_refused_with_their_place() {
    refusals(
        &[
            "allow = [\n",
            "allowed = []",
            "\n[metrics]\nlisten = \"127.0.0.1:1\"\nport = 1",
            "[plugin.geo]\nteir = \"process\"",
            "[[trusted_key]]\nid = \"a\"\npath = \"first.pub.pem\"\nplugins = []\nkind = \"rsa\"",
            "data_dir = \"twice\"",
            "allow = \"geo\"",
            "allow = [\"geo\", \"Geo\"]",
            "trusted_in_process = [\"*\"]",
            "default_tier = \"native\"",
            "[plugin.Geo]\nautoload = true",
            "[plugin.geo]\ntier = \"docker\"",
            "[plugin.geo]\nrequire = \"some\"",
            "[plugin.geo]\nautoload = \"yes\"",
            "[plugin.geo]\nversion = \"one\"",
            "[plugin.geo]\nfloor = \"1.0\"",
            "[plugin.geo]\nconfig = { when = 2026-01-01 }",
            "[plugin.geo]\nconfig = { deep = [{ x = nan }] }",
            "[plugin]\ngeo = 1",
        ],
        &expect![[r#"
            config.invalid: themis.toml:3:10: unclosed array, expected `]`
            config.invalid: themis.toml:3:1: allowed: unknown field `allowed`, expected one of `data_dir`, `plugin_root`, `allow`, `trusted_in_process`, `default_tier`, `trusted_key`, `revoked`, `admin`, `metrics`, `plugin`, `limits`, `probation`, `watchdog`, `state`, `budget`, `workers`, `registry`, `gpg`
            config.invalid: themis.toml:6:1: metrics.port: unknown field `port`, expected `listen`
            config.invalid: themis.toml:4:1: plugin.geo.teir: unknown field `teir`, expected one of `config`, `tier`, `require`, `limits`, `autoload`, `version`, `floor`
            config.invalid: themis.toml:7:1: trusted_key[0].kind: unknown field `kind`, expected one of `id`, `path`, `not_before`, `not_after`, `plugins`
            config.invalid: themis.toml:3:1: duplicate key
            config.invalid: themis.toml:3:9: allow: invalid type: string "geo", expected a sequence
            config.invalid: themis.toml:3:9: allow: not a plugin name: want [a-z][a-z0-9_-]{0,62}, got "Geo"
            config.invalid: themis.toml:3:22: trusted_in_process: not a plugin name: want [a-z][a-z0-9_-]{0,62}, got "*"
            config.invalid: themis.toml:3:16: default_tier: not a tier: want in-process, process or wasm, got "native"
            config.invalid: themis.toml:3:9: plugin.Geo: not a plugin name: want [a-z][a-z0-9_-]{0,62}, got "Geo"
            config.invalid: themis.toml:4:8: plugin.geo.tier: not a tier: want in-process, process or wasm, got "docker"
            config.invalid: themis.toml:4:11: plugin.geo.require: unknown variant `some`, expected one of `full`, `degraded`, `any`
            config.invalid: themis.toml:4:12: plugin.geo.autoload: invalid type: string "yes", expected a boolean
            config.invalid: themis.toml:4:11: plugin.geo.version: unexpected character 'o' while parsing major version number
            config.invalid: themis.toml:4:9: plugin.geo.floor: not a plugin version: want semver without build metadata, at most 31 bytes, got "1.0"
            config.invalid: themis.toml:4:10: plugin.geo.config: "when" has a date, an infinity or a NaN in it, which JSON does not have: use a string
            config.invalid: themis.toml:4:10: plugin.geo.config: "deep" has a date, an infinity or a NaN in it, which JSON does not have: use a string
            config.invalid: themis.toml:4:7: plugin.geo: invalid type: integer `1`, expected a table
        "#]],
    );
}

#[test]
fn addresses_and_limits_out_of_range_are_refused() {
    refusals(
        &[
            "[metrics]\nlisten = \"9464\"",
            "[metrics]\nlisten = \"0.0.0.0:9464\"",
            "[metrics]\nlisten = \"192.168.0.1:9464\"",
            "[admin]\nsocket = \"\"",
            "[limits]\nmemory_bytes = -1",
            "[limits]\nmemory_bytes = 0",
            "[limits]\nmemory_bytes = 2147483649",
            "[limits]\nmemory_bytes = 3\n[limits.max]\nmemory_bytes = 2",
            "[limits]\nwasm_memory_bytes = 4294967297",
            "[limits]\ncpu_percent = 6401",
            "[limits]\nhook_deadline_ms = 5001",
            "[limits]\ncall_deadline_ms = 0",
            "[limits]\npids = 3",
            "[limits.max]\ncpu_percent = 1.5",
            "[plugin.geo]\nlimits = { memory_bytes = 2147483649 }",
            "[limits]\nfuel_per_call = 1152921504606846977",
            "[limits]\nfuel_per_call = 0\n[limits.max]\nfuel_per_call = 9",
            "[limits.max]\nfuel_per_call = 9\n[plugin.geo]\nlimits = { fuel_per_call = 10 }",
        ],
        &expect![[r#"
            config.invalid: themis.toml:4:10: metrics.listen: invalid socket address syntax
            config.invalid: themis.toml:4:10: metrics.listen: metrics are served on loopback only, 0.0.0.0 is not: use 127.0.0.1 or [::1]
            config.invalid: themis.toml:4:10: metrics.listen: metrics are served on loopback only, 192.168.0.1 is not: use 127.0.0.1 or [::1]
            config.invalid: themis.toml:4:10: admin.socket: a path must not be empty or contain NUL
            config.invalid: themis.toml:4:16: limits.memory_bytes: invalid value: integer `-1`, expected u64
            config.invalid: themis.toml:4:16: limits.memory_bytes: want 1 to 2147483648, got 0
            config.invalid: themis.toml:4:16: limits.memory_bytes: want 1 to 2147483648, got 2147483649
            config.invalid: themis.toml:4:16: limits.memory_bytes: want 1 to 2, got 3
            config.invalid: themis.toml:4:21: limits.wasm_memory_bytes: want 1 to 4294967296, got 4294967297
            config.invalid: themis.toml:4:15: limits.cpu_percent: want 1 to 6400, got 6401
            config.invalid: themis.toml:4:20: limits.hook_deadline_ms: want 1 to 5000, got 5001
            config.invalid: themis.toml:4:20: limits.call_deadline_ms: want 1 to 3600000, got 0
            config.invalid: themis.toml:4:1: limits.pids: unknown field `pids`, expected one of `memory_bytes`, `wasm_memory_bytes`, `cpu_percent`, `hook_deadline_ms`, `call_deadline_ms`, `fuel_per_call`, `fuel_total`, `max`
            config.invalid: themis.toml:4:15: limits.max.cpu_percent: invalid type: floating point `1.5`, expected u64
            config.invalid: themis.toml:4:27: plugin.geo.limits.memory_bytes: want 1 to 2147483648, got 2147483649
            config.invalid: themis.toml:4:17: limits.fuel_per_call: want 0 (no limit) to 1152921504606846976, got 1152921504606846977
            config.invalid: themis.toml:4:17: limits.fuel_per_call: want 1 to 9 (limits.max.fuel_per_call), got 0
            config.invalid: themis.toml:6:28: plugin.geo.limits.fuel_per_call: want 1 to 9 (limits.max.fuel_per_call), got 10
        "#]],
    );
}

#[test]
fn keys_that_must_not_be_trusted_are_refused() {
    let key = |id: &str, path: &str, more: &str| {
        format!(
            "[[trusted_key]]\nid = \"{id}\"\npath = \"{path}.pub.pem\"\nplugins = [\"*\"]\n{more}\n"
        )
    };
    let twice_named = key("a", "first", "") + &key("a", "second", "");
    refusals(
        &[
            "[[trusted_key]]\nid = \"a\"\npath = \"first.pub.pem\"",
            &key("", "first", ""),
            &key("a b", "first", ""),
            &key(SECOND.0, "first", ""),
            &key("a", "first", "not_before = 2026-01-01T00:00:00"),
            &key("a", "first", "not_after = \"soon\""),
            &key(
                "a",
                "first",
                "not_before = 2027-01-01T00:00:00Z\nnot_after = 2026-01-01T00:00:00Z",
            ),
            &twice_named,
            "[revoked]\nkeys = [\"nobody\"]",
            "[revoked]\ndigests = [\"abc\"]",
        ],
        &expect![[r#"
            config.invalid: themis.toml:3:1: trusted_key[0]: missing field `plugins`
            config.invalid: themis.toml:4:6: trusted_key[0].id: want 1 to 64 of the characters a-z A-Z 0-9 - _ .
            config.invalid: themis.toml:4:6: trusted_key[0].id: want 1 to 64 of the characters a-z A-Z 0-9 - _ .
            config.invalid: themis.toml:4:6: trusted_key[0].id: this is the id of another key: the key in DIR/first.pub.pem has 21fe31dfa154a261
            config.invalid: themis.toml:7:14: trusted_key[0].not_before: want a date and time with an offset, like 2027-01-31T00:00:00Z
            config.invalid: themis.toml:7:13: trusted_key[0].not_after: want a date and time with an offset, like 2027-01-31T00:00:00Z
            config.invalid: themis.toml:8:13: trusted_key[0].not_after: is before not_before: the key would never be valid
            config.invalid: themis.toml:9:6: trusted_key[1].id: two trusted keys have this id
            config.invalid: themis.toml:4:9: revoked.keys[0]: want a key id of 16 lower-case hexadecimal digits, or the id of a [[trusted_key]]
            config.invalid: themis.toml:4:11: revoked.digests: want 64 lower-case hexadecimal digits, got "abc"
        "#]],
    );
}

#[test]
fn a_key_file_that_is_missing_or_no_key_is_named_where_it_is_configured() {
    for (name, code) in [("missing", "key.io"), ("broken", "key.format")] {
        let section =
            format!("[[trusted_key]]\nid = \"a\"\npath = \"{name}.pub.pem\"\nplugins = [\"*\"]");
        let start = format!("{code}: themis.toml:5:8: trusted_key[0].path: DIR/{name}.pub.pem: ");
        let message = refusal(&section);
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn what_in_process_cannot_give_is_refused_not_ignored() {
    refusals(
        &[
            "[plugin.geo]\ntier = \"in-process\"\nrequire = \"full\"",
            "[plugin.geo]\ntier = \"in-process\"\nlimits = { cpu_percent = 10 }",
            "default_tier = \"in-process\"\n[plugin.geo.limits]\nmemory_bytes = 1",
        ],
        &expect![[r#"
            config.unsupported: themis.toml:5:11: plugin.geo.require: an in-process plugin is not isolated at all: choose tier "process" or "wasm", or drop `require`
            config.unsupported: themis.toml:5:10: plugin.geo.limits: limits cannot be enforced on an in-process plugin: choose tier "process" or "wasm", or drop them
            config.unsupported: themis.toml:4:1: plugin.geo.limits: limits cannot be enforced on an in-process plugin: choose tier "process" or "wasm", or drop them
        "#]],
    );
}

#[test]
fn a_missing_root_is_named() {
    let (_dir, config) = parse("data_dir = \"var\"\n");
    let error = config.unwrap_err();
    expect!["config.invalid: themis.toml:1:1: missing field `plugin_root`"]
        .assert_eq(&format!("{}: {error}", error.code()));
}

#[test]
fn a_default_gives_way_to_a_lower_maximum() {
    let (_dir, config) = parse(
        "data_dir = \"v\"\nplugin_root = \"p\"\n[limits.max]\nmemory_bytes = 7\ncpu_percent = 8",
    );
    let limits = config.unwrap().limits;
    assert_eq!((limits.memory_bytes, limits.cpu_percent), (7, 8));
}

#[test]
fn only_a_regular_private_file_of_text_is_read() {
    let dir = operator();
    let path = dir.path().join("themis.toml");
    let code = |path: &Path| Config::from_file(path).unwrap_err().code();
    assert_eq!(code(&path), "config.io");
    assert_eq!(code(dir.path()), "config.wrong_file_type");
    fs::write(&path, "data_dir = \"var\"\nplugin_root = \"plugins\"\n").unwrap();
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(code(&path), "config.writable_by_others", "{mode:o}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Config::from_file(&path).unwrap().data_dir, dir.path().join("var"));
    fs::write(&path, b"data_dir = \"\xff\"").unwrap();
    assert_eq!(code(&path), "config.not_utf8");
    let comment = "#".repeat(usize::try_from(CONFIG_BYTES_MAX).unwrap() + 1);
    fs::write(&path, &comment).unwrap();
    assert_eq!(code(&path), "config.too_large");
    fs::write(&path, &comment[1..]).unwrap();
    assert_eq!(code(&path), "config.invalid", "at the limit it is read");
}

#[test]
fn how_bad_versions_are_dealt_with_can_be_said() {
    let (_dir, config) = parse(
        "data_dir = \"var\"\nplugin_root = \"plugins\"\n[probation]\nwindow_ms = 0\nerrors_min = 3\nerror_percent = 1\nlatency_factor = 2\n\
         latency_floor_ms = 5\nsamples_min = 7\nstall_ms = 9\n[watchdog]\nhealth_period_ms = 1000\n\
         [state]\nhold_ms = 50\n[budget]\ngenerations = 4\nimage_bytes = 1000000\nwhen_spent = \"warn\"\n",
    );
    let config = config.unwrap();
    let ms = Duration::from_millis;
    let rules = ProbationRules {
        window: Duration::ZERO,
        errors_min: 3,
        error_percent: 1,
        latency_factor: 2,
        latency_floor: ms(5),
        samples_min: 7,
        stall: ms(9),
    };
    assert_eq!(config.probation, rules);
    assert_eq!((config.health_period, config.hold_limit), (ms(1_000), ms(50)));
    let budget =
        BudgetRules { generations: 4, image_bytes: 1_000_000, when_spent: WhenSpent::Warn };
    assert_eq!(config.budget, budget);
}

#[test]
fn what_nobody_can_mean_is_refused() {
    refusals(
        &[
            "[probation]\nwindow_ms = 3600001\n",
            "[probation]\nerror_percent = 101\n",
            "[probation]\nsamples_min = 0\n",
            "[watchdog]\nhealth_period_ms = 86400001\n",
            "[state]\nhold_ms = 0\n",
            "[state]\nhold_ms = 401\n",
            "[budget]\ngenerations = 1\n",
            "[budget]\nwhen_spent = \"panic\"\n",
            "[budget]\nimages = 3\n",
        ],
        &expect![[r#"
            config.invalid: themis.toml:4:13: probation.window_ms: want 0 to 3600000, got 3600001
            config.invalid: themis.toml:4:17: probation.error_percent: want 0 to 100, got 101
            config.invalid: themis.toml:4:15: probation.samples_min: want 1 or more, got 0
            config.invalid: themis.toml:4:20: watchdog.health_period_ms: want 0 to 86400000, got 86400001
            config.invalid: themis.toml:4:11: state.hold_ms: want 1 to 400, got 0
            config.invalid: themis.toml:4:11: state.hold_ms: want 1 to 400, got 401
            config.invalid: themis.toml:4:15: budget.generations: want 2 or more, got 1
            config.invalid: themis.toml:4:14: budget.when_spent: unknown variant `panic`, expected `refuse` or `warn`
            config.invalid: themis.toml:4:1: budget.images: unknown field `images`, expected one of `generations`, `image_bytes`, `when_spent`
        "#]],
    );
}

#[test]
fn a_demand_for_gpg_that_nobody_could_meet_is_refused() {
    const REST: &str = "home = \"gpg\"\nkeyring = \"gpg/pub.gpg\"\n";
    let key = "A".repeat(40);
    let table = |rest: &str| format!("[gpg]\n{REST}{rest}");
    let of = |fingerprints: &str, plugins: &str| {
        table(&format!("fingerprints = {fingerprints}\nplugins = {plugins}"))
    };
    let pinned = format!("[\"{key}\"]");
    let (_dir, config) =
        parse(&format!("data_dir = \"d\"\nplugin_root = \"p\"\n{}", of(&pinned, "[\"geo\"]")));
    let rule = config.unwrap().policy().openpgp.unwrap();
    assert_eq!(rule.plugins, NameSet::Only([name("geo")].into()));
    assert_eq!(rule.fingerprints, [key.parse().unwrap()].into());
    let wrong = [
        table("plugins = [\"*\"]"),
        of("[]", "[\"*\"]"),
        of("[\"ABCD\"]", "[\"*\"]"),
        of(&pinned, "[]"),
        of(&pinned, "[\"Geo\"]"),
        of(&format!("[\"{}\"]", key.to_lowercase()), "[\"*\"]"),
    ];
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    refusals(
        &wrong,
        &expect![[r#"
        config.invalid: themis.toml:3:1: gpg: missing field `fingerprints`
        config.invalid: themis.toml:6:16: gpg.fingerprints: name the fingerprint of at least one key that may sign
        config.invalid: themis.toml:6:17: gpg.fingerprints[0]: "ABCD" is no key fingerprint: write the 40 or 64 digits that `gpg --fingerprint` shows, in upper case, without spaces; a key id is too short to be pinned
        config.invalid: themis.toml:7:11: gpg.plugins: name the plugins that must be signed like this, or "*"
        config.invalid: themis.toml:7:11: gpg.plugins: not a plugin name: want [a-z][a-z0-9_-]{0,62}, got "Geo"
        config.invalid: themis.toml:6:17: gpg.fingerprints[0]: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is no key fingerprint: write the 40 or 64 digits that `gpg --fingerprint` shows, in upper case, without spaces; a key id is too short to be pinned
    "#]],
    );
}
