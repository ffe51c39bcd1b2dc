//! `registry serve`: a registry on this machine, to try it out.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;
use themis_kernel::registry::publish::PublishError;

use crate::output::{Failure, Printer};
use crate::web::Web;

/// Serve a registry to this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// The registry, or a mirror of one
    dir: PathBuf,
    /// Where to listen: on this machine alone
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where to write the certificate to trust
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
}

pub(crate) fn serve(arguments: &Serve, printer: Printer) -> Result<(), Failure> {
    let Serve { dir, listen, ca } = arguments;
    if !listen.ip().is_loopback() {
        let what = format!(
            "{listen} is not on this machine: serve a registry to others with a web server"
        );
        return Err(Failure::new("serve.listen", what));
    }
    // A registry, or a mirror of one.
    let public = dir.join("public");
    if !public.join("metadata/timestamp.json").is_file() {
        return Err(PublishError::NotARegistry { dir: dir.clone() }.into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("serve.runtime", error))?;
    runtime.block_on(async {
        let web = Web::open(*listen, &public).await?;
        let written = std::fs::write(ca, &web.authority);
        written.map_err(|error| Failure::new("serve.ca", format!("{}: {error}", ca.display())))?;
        let root = public.join("metadata/1.root.json");
        let told = json!({"url": web.url, "ca": ca, "root": root});
        printer.show(&told, |_| {
            let (url, ca, root) = (&web.url, ca.display(), root.display());
            format!("[registry]\nurl = \"{url}\"\nroot = \"{root}\"\nca = \"{ca}\"")
        })?;
        web.serve().await;
        Ok(())
    })
}
