//! `plugin …`: operates the plugins of a running kernel through its admin socket.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Value, json};
use themis_kernel::limits::MESSAGE_BYTES_MAX;

use super::refuse_bundle;
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
    },
    /// Go back to the version before
    Rollback {
        /// The plugin
        name: String,
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

pub(crate) fn run(
    command: Command,
    socket: Option<&Path>,
    printer: Printer,
) -> Result<(), Failure> {
    let client = Client::find(socket)?;
    let ask = |method, path: &str, body: Option<&Value>| client.json(method, path, body);
    let plugin = |name: &str| format!("/v1/plugins/{}", segment(name));
    match command {
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
        Command::Reload { name, path } => {
            let body = json!({"path": absolute(&path)?});
            let url = format!("{}/reload", plugin(&name));
            printer.show(&ask(Method::POST, &url, Some(&body))?, receipt)
        }
        Command::Rollback { name } => {
            let url = format!("{}/rollback", plugin(&name));
            printer.show(&ask(Method::POST, &url, None)?, receipt)
        }
        Command::Call { name, method, request } => {
            let url = format!("{}/call/{}", plugin(&name), segment(&method));
            let reply = client.call(&url, read_request(request.as_deref())?)?;
            printer.raw(&reply)
        }
    }
}

/// The kernel runs elsewhere: a relative path is this shell's.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    refuse_bundle(path)?;
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
        ["name", "version", "previous", "tier", "state", "calls", "in_flight"]
            .map(|key| cell(&plugin[key]))
    });
    table(["name", "version", "previous", "tier", "state", "calls", "in flight"], rows)
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
    let rows = plugin.as_object().into_iter().flatten().map(|(key, value)| {
        let value = match value.as_array() {
            Some(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
            None => cell(value),
        };
        [key.replace('_', " "), value]
    });
    table(["field", "value"], rows)
}

fn receipt(receipt: &Value) -> String {
    let micros = receipt["total_us"].as_u64().unwrap_or(0);
    let from = receipt["from"].as_str().map(|from| format!(" (was {from})")).unwrap_or_default();
    format!(
        "{} {} serves{from}: {} in {}.{:03} ms, swap {} ns, image {}, build id {}",
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
