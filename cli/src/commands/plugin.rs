//! `plugin …`: operates the plugins of a running kernel through its admin socket.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Value, json};
use themis_kernel::limits::MESSAGE_BYTES_MAX;

use crate::client::{Client, segment};
use crate::output::{Failure, Printer, bare, table};

/// What to do with plugins.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Every plugin that was ever loaded
    List,
    /// Every version below the plugin root: verified, or why it would be refused
    Discover,
    /// Everything known of one plugin
    Info {
        /// The plugin
        name: String,
    },
    /// Load a first version
    Load {
        /// The plugin's directory below the plugin root, or a library with its .sig
        path: PathBuf,
        /// Where to run it: in-process, process or wasm
        #[arg(long)]
        tier: Option<themis_kernel::ids::Tier>,
    },
    /// Stop a plugin: calls under way end, its shutdown hook runs
    Unload {
        /// The plugin
        name: String,
    },
    /// Replace the serving version without losing a call
    Reload {
        /// The plugin
        name: String,
        /// The new version's directory
        path: PathBuf,
        /// Answer when the new version has passed its probation or was swapped back
        #[arg(long)]
        wait: bool,
    },
    /// Replace several plugins that need each other: all or none
    ReloadSet {
        /// The new versions' directories
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Go back to the version before
    Rollback {
        /// The plugin
        name: String,
    },
    /// Go back to the versions before, with several plugins that need each other: all or none
    RollbackSet {
        /// The plugins
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// What serving plugins need of each other, as a tree
    Graph {
        /// For Graphviz instead: `themis plugin graph --dot | dot -Tsvg`
        #[arg(long)]
        dot: bool,
    },
    /// See whether a plugin behaves as every plugin must; needs no running kernel
    Check(super::check::Arguments),
    /// Images that are not loaded until they are released, and why
    Quarantine {
        #[command(subcommand)]
        command: Option<QuarantineCommand>,
    },
    /// Call a method: request from stdin, reply to stdout
    Call {
        /// The plugin
        name: String,
        /// The method's name or number
        method: String,
        /// Read the request from this file instead; `-` is stdin
        #[arg(long, value_name = "FILE")]
        request: Option<PathBuf>,
    },
}

/// What to do with quarantined images.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Show them (the default)
    List,
    /// Let a plugin's images be loaded again, with a clean record; nothing is loaded by this
    Release {
        /// The plugin
        name: String,
        /// Only this image, by its SHA-256
        #[arg(long)]
        digest: Option<String>,
    },
}

pub(crate) fn run(
    command: Command,
    socket: Option<&Path>,
    printer: Printer,
) -> Result<(), Failure> {
    if let Command::Check(arguments) = &command {
        return super::check::run(arguments, printer);
    }
    let client = Client::find(socket)?;
    let ask = |method, path: &str, body: Option<&Value>| client.json(method, path, body);
    let plugin = |name: &str| format!("/v1/plugins/{}", segment(name));
    match command {
        // Answered above, without a kernel.
        Command::Check(_) => Ok(()),
        Command::List => printer.show(&ask(Method::GET, "/v1/plugins", None)?, list),
        Command::Discover => printer.show(&ask(Method::GET, "/v1/discover", None)?, discover),
        Command::Info { name } => printer.show(&ask(Method::GET, &plugin(&name), None)?, info),
        Command::Load { path, tier } => {
            let body = json!({"path": absolute(&path)?, "tier": tier});
            printer.show(&ask(Method::POST, "/v1/plugins", Some(&body))?, receipt)
        }
        Command::Unload { name } => {
            let answer = ask(Method::DELETE, &plugin(&name), None)?;
            printer.show(&answer, |_| format!("{name} is unloaded"))
        }
        Command::Reload { name, path, wait } => {
            let body = json!({"path": absolute(&path)?});
            let url = format!("{}/reload", plugin(&name));
            let reloaded = ask(Method::POST, &url, Some(&body))?;
            if wait {
                settled(&client, &plugin(&name), printer)
            } else {
                printer.show(&reloaded, receipt)
            }
        }
        Command::ReloadSet { paths } => {
            let paths = paths.iter().map(|path| absolute(path)).collect::<Result<Vec<_>, _>>()?;
            let body = json!({ "paths": paths });
            printer.show(&ask(Method::POST, "/v1/sets/reload", Some(&body))?, receipts)
        }
        Command::Rollback { name } => {
            let url = format!("{}/rollback", plugin(&name));
            printer.show(&ask(Method::POST, &url, None)?, receipt)
        }
        Command::RollbackSet { names } => {
            let body = json!({ "plugins": names });
            printer.show(&ask(Method::POST, "/v1/sets/rollback", Some(&body))?, receipts)
        }
        Command::Graph { dot } => {
            let answer = ask(Method::GET, "/v1/graph", None)?;
            let form = if dot { "dot" } else { "tree" };
            let text = answer[form].as_str().unwrap_or_default().trim_end().to_owned();
            printer.show(&answer["graph"], |_| text)
        }
        Command::Quarantine { command: None | Some(QuarantineCommand::List) } => {
            printer.show(&ask(Method::GET, "/v1/quarantine", None)?, quarantine)
        }
        Command::Quarantine { command: Some(QuarantineCommand::Release { name, digest }) } => {
            let body = json!({ "digest": digest });
            let url = format!("{}/release", plugin(&name));
            let released = ask(Method::POST, &url, Some(&body))?;
            printer.show(&released, |released| format!("released:\n{}", quarantine(released)))
        }
        Command::Call { name, method, request } => {
            let url = format!("{}/call/{}", plugin(&name), segment(&method));
            let reply = client.call(&url, read_request(request.as_deref())?)?;
            printer.raw(&reply)
        }
    }
}

/// Waits for the end of a probation; a version that was swapped back is a failure.
fn settled(client: &Client, plugin: &str, printer: Printer) -> Result<(), Failure> {
    let after = client.wait(&format!("{plugin}/settled"))?;
    printer.show(&after, receipt)?;
    match after["evidence"]["fault"].as_str() {
        Some(fault) => Err(Failure::new(
            format!("probation.{fault}"),
            format!("{} was swapped back to {}", cell(&after["from"]), cell(&after["to"])),
        )),
        None => Ok(()),
    }
}

/// The kernel runs elsewhere: a relative path is this shell's.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new("path.invalid", format!("{}: {error}", path.display())))
}

fn read_request(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::new("request.read", error);
    let mut input: Box<dyn std::io::Read> = match file {
        Some(path) if path != Path::new("-") => {
            let opened = std::fs::File::open(path);
            Box::new(opened.map_err(|error| {
                Failure::new("request.read", format!("{}: {error}", path.display()))
            })?)
        }
        Some(_) | None => Box::new(std::io::stdin()),
    };
    let mut request = Vec::new();
    let most = MESSAGE_BYTES_MAX as u64 + 1;
    input.by_ref().take(most).read_to_end(&mut request).map_err(failed)?;
    if request.len() > MESSAGE_BYTES_MAX {
        let message = format!("the request is over the limit of {MESSAGE_BYTES_MAX} bytes");
        return Err(Failure::new("call.request_too_large", message));
    }
    Ok(request)
}

/// A field for people: absent is a dash.
fn cell(value: &Value) -> String {
    if value.is_null() { "-".to_owned() } else { bare(value) }
}

fn list(plugins: &Value) -> String {
    let rows = plugins.as_array().into_iter().flatten().map(|plugin| {
        let mut row = ["name", "version", "previous", "tier", "state", "calls", "in_flight"]
            .map(|key| cell(&plugin[key]));
        if !plugin["probation"].is_null() {
            row[4].push_str(", on probation");
        }
        if !plugin["unwell"].is_null() {
            row[4].push_str(", unwell");
        }
        row
    });
    table(["name", "version", "previous", "tier", "state", "calls", "in flight"], rows)
}

fn quarantine(quarantined: &Value) -> String {
    let rows = quarantined.as_array().into_iter().flatten().map(|it| {
        let digest: String = cell(&it["digest"]).chars().take(16).collect();
        let since: String = cell(&it["since"]).chars().take(19).collect();
        [
            cell(&it["plugin"]),
            cell(&it["version"]),
            digest,
            since,
            cell(&it["code"]),
            cell(&it["reason"]),
        ]
    });
    table(["plugin", "version", "image", "since", "code", "why"], rows)
}

fn discover(found: &Value) -> String {
    let rows = found.as_array().into_iter().flatten().map(|found| {
        let verdict = match found["error"]["message"].as_str() {
            Some(message) => format!("{}: {message}", cell(&found["error"]["code"])),
            None => format!("verified, signed by key {}", cell(&found["key_id"])),
        };
        [cell(&found["path"]), verdict]
    });
    table(["path", "verdict"], rows)
}

fn info(plugin: &Value) -> String {
    let mut rows = Vec::new();
    for (key, value) in plugin.as_object().into_iter().flatten() {
        match key.as_str() {
            "receipt" if !value.is_null() => rows.push(["receipt".to_owned(), receipt(value)]),
            _ => field(&key.replace('_', " "), value, &mut rows),
        }
    }
    table(["field", "value"], rows)
}

/// One row for a plain value, one for each field of an object, one for each object of a list.
fn field(name: &str, value: &Value, rows: &mut Vec<[String; 2]>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                field(&format!("{name}: {}", key.replace('_', " ")), value, rows);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                let fields = item.as_object().into_iter().flatten();
                let told: Vec<_> = fields
                    .filter(|(key, _)| *key != "digest")
                    .map(|(key, value)| format!("{} {}", key.replace('_', " "), cell(value)))
                    .collect();
                rows.push([name.to_owned(), told.join(", ")]);
            }
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(cell).collect();
            rows.push([name.to_owned(), items.join(", ")]);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            rows.push([name.to_owned(), cell(value)]);
        }
    }
}

fn receipts(receipts: &Value) -> String {
    receipts.as_array().into_iter().flatten().map(receipt).collect::<Vec<_>>().join("\n")
}

/// What became of the state, when there was any.
fn state(state: &Value) -> String {
    match state["outcome"].as_str() {
        Some("handed-over") => format!(", {} bytes of state handed over", state["bytes"]),
        Some("own") => format!(", with its own state ({})", cell(&state["why"])),
        Some("fresh") => ", afresh".to_owned(),
        _ => String::new(),
    }
}

fn receipt(receipt: &Value) -> String {
    let micros = receipt["total_us"].as_u64().unwrap_or(0);
    let from = receipt["from"].as_str().map(|from| format!(" (was {from})")).unwrap_or_default();
    let state = state(&receipt["state"]);
    let first = match receipt["first_call"]["after_us"].as_u64() {
        Some(micros) => format!(", first call after {micros} µs"),
        None => String::new(),
    };
    let watched = match receipt["probation_ms"].as_u64() {
        Some(millis) => format!(", on probation for {} s", millis.div_ceil(1_000)),
        None => String::new(),
    };
    format!(
        "{} {} serves{from}: {} in {}.{:03} ms, swap {} ns, image {}, build id {}{state}{first}{watched}",
        cell(&receipt["plugin"]),
        cell(&receipt["to"]),
        cell(&receipt["operation"]),
        micros / 1_000,
        micros % 1_000,
        cell(&receipt["swap_ns"]),
        cell(&receipt["digest"]).chars().take(16).collect::<String>(),
        cell(&receipt["build_id"]),
    )
}
