//! The publisher's commands: they work on a folder.

use std::path::PathBuf;

use serde_json::json;
use themis_kernel::admission::PublicKey;
use themis_kernel::ids::{PluginName, PluginVersion};
use themis_kernel::registry::publish::root::Founding;
use themis_kernel::registry::publish::{PublishError, Published, Registry, Validity};

use crate::output::{Failure, Printer};

/// Make a registry.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// The folder: new or empty
    dir: PathBuf,
    /// How many root keys there are; keep them apart
    #[arg(long, default_value_t = 1, value_name = "N")]
    root_keys: u8,
    /// How many of them have to sign a change of keys
    #[arg(long, default_value_t = 1, value_name = "N")]
    threshold: u8,
    #[command(flatten)]
    validity: Days,
}

/// Stage bundles.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The registry
    dir: PathBuf,
    /// Bundles, as `themis pack` makes them
    #[arg(required = true)]
    bundles: Vec<PathBuf>,
    /// The public key of whoever signed them
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
}

/// Publish.
#[derive(Debug, clap::Args)]
pub(crate) struct Publish {
    /// The registry
    dir: PathBuf,
    #[command(flatten)]
    validity: Days,
}

/// Withdraw a version.
#[derive(Debug, clap::Args)]
pub(crate) struct Yank {
    /// The registry
    dir: PathBuf,
    /// The plugin
    plugin: PluginName,
    /// The version
    version: PluginVersion,
    /// Offer it again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    validity: Days,
}

/// The registry's own keys.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Key {
    /// Replace the key of a role, and publish what there is, signed with it
    Rotate {
        /// The registry
        dir: PathBuf,
        /// root, targets, snapshot or timestamp
        role: String,
        #[command(flatten)]
        validity: Days,
    },
}

/// For how long what is signed now is good.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Days {
    /// Days until clients take the registry for held back, if nothing is published meanwhile
    #[arg(long, default_value_t = Validity::default().timestamp, value_name = "DAYS")]
    valid: u32,
}

impl Days {
    fn validity(self) -> Validity {
        let usual = Validity::default();
        Validity {
            timestamp: self.valid,
            targets: usual.targets.max(self.valid),
            root: usual.root.max(self.valid),
        }
    }
}

/// The work is files; one thread is enough.
fn wait<T>(work: impl Future<Output = Result<T, PublishError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("publish.runtime", error))?;
    Ok(runtime.block_on(work)?)
}

pub(crate) fn init(arguments: &Init, printer: Printer) -> Result<(), Failure> {
    let Init { dir, root_keys, threshold, validity } = arguments;
    let founding =
        Founding { root_keys: *root_keys, threshold: *threshold, validity: validity.validity() };
    let registry = wait(Registry::init(dir, founding))?;
    let (public, keys) = (registry.public(), registry.keys());
    let root = public.join("metadata/1.root.json");
    let made = json!({"public": public, "keys": keys, "root": root});
    printer.show(&made, |_| {
        format!(
            "a registry: serve {} over HTTPS, keep {} to yourself (the root keys on another machine),\n\
             and give {} to those who shall trust it, by another way than the registry",
            public.display(),
            keys.display(),
            root.display()
        )
    })
}

pub(crate) fn add(arguments: &Add, printer: Printer) -> Result<(), Failure> {
    let registry = Registry::open(&arguments.dir)?;
    let publisher = PublicKey::from_pem_file(&arguments.trust)?;
    let mut staged = Vec::new();
    for bundle in &arguments.bundles {
        let entry = wait(registry.add(bundle, &publisher))?;
        let (name, version) = entry.names();
        printer.say(&format!("staged {name} {version}"));
        staged.push(json!({"name": name, "version": version}));
    }
    let count = staged.len();
    printer.show(&json!({"staged": staged}), |_| {
        format!("{count} staged: nobody sees them before `themis registry publish`")
    })
}

pub(crate) fn publish(arguments: &Publish, printer: Printer) -> Result<(), Failure> {
    let registry = Registry::open(&arguments.dir)?;
    tell(&wait(registry.publish(arguments.validity.validity()))?, printer)
}

fn tell(published: &Published, printer: Printer) -> Result<(), Failure> {
    printer.show(&json!(published), |_| {
        let added: Vec<_> =
            published.added.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let added = if added.is_empty() { "nothing new".to_owned() } else { added.join(", ") };
        let (releases, version) = (published.releases, published.version);
        let until = published.expires.strftime("%Y-%m-%d");
        format!("published {added}: {releases} versions in all, publication {version}, good until {until}")
    })
}

pub(crate) fn yank(arguments: &Yank, printer: Printer) -> Result<(), Failure> {
    let Yank { dir, plugin, version, undo, validity } = arguments;
    let registry = Registry::open(dir)?;
    let published = wait(registry.yank(plugin, version, !undo, validity.validity()))?;
    printer.say(&match undo {
        true => format!("{plugin} {version} is offered again"),
        false => format!("{plugin} {version} is withdrawn: who has it keeps it"),
    });
    tell(&published, printer)
}

pub(crate) fn key(command: &Key, printer: Printer) -> Result<(), Failure> {
    let Key::Rotate { dir, role, validity } = command;
    let registry = Registry::open(dir)?;
    let rotated = wait(registry.rotate(role, validity.validity()))?;
    printer.show(&json!(rotated), |_| {
        let retired: Vec<_> = rotated.retired.iter().map(|it| it.display().to_string()).collect();
        format!(
            "{} has a new key, {}; root metadata is now version {}. Does not count any more: {}",
            rotated.role,
            rotated.key.display(),
            rotated.root_version,
            retired.join(", ")
        )
    })
}
