//! The admin socket: mode 0600, peers of the kernel's own user or root only, a bounded number at once.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use themis_messages::limits::ADMIN_CONNECTIONS_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// As the system vouches for it.
    pub(crate) uid: u32,
}

/// The listening socket; its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct AdminListener {
    listener: UnixListener,
    places: Arc<Semaphore>,
    uid: u32,
    path: PathBuf,
}

impl AdminListener {
    /// Binds, narrows to 0600, and only then listens: nobody can connect in between.
    pub(crate) fn bind(path: &Path) -> Result<Self, std::io::Error> {
        remove_stale(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, 64)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self {
            listener,
            places: Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX)),
            uid: rustix::process::geteuid().as_raw(),
            path: path.to_owned(),
        })
    }

    fn may_enter(&self, stream: &UnixStream) -> Option<Peer> {
        let uid = stream.peer_cred().ok()?.uid();
        if uid == self.uid || uid == 0 {
            return Some(Peer { uid });
        }
        tracing::warn!(uid, "a foreign user was turned away from the admin socket");
        None
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the admin socket was left behind");
        }
    }
}

/// A socket file nobody listens on is left over from a killed kernel; one that answers is another kernel's.
fn remove_stale(path: &Path) -> Result<(), std::io::Error> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let in_use = |what| std::io::Error::new(std::io::ErrorKind::AddrInUse, what);
    if !metadata.file_type().is_socket() {
        return Err(in_use("something that is no socket is in its place"));
    }
    match StdUnixStream::connect(path) {
        Ok(_answered) => Err(in_use("another kernel serves it")),
        Err(_nobody) => std::fs::remove_file(path),
    }
}

impl Listener for AdminListener {
    type Io = AdminStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (AdminStream, Peer) {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, _address)) => {
                    if let Some(peer) = self.may_enter(&stream) {
                        return (AdminStream { stream, _place: place }, peer);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket did not accept");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        Ok(Peer { uid: self.uid })
    }
}

impl Connected<IncomingStream<'_, AdminListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, AdminListener>) -> Self {
        *stream.remote_addr()
    }
}

/// A connection with its place among the bounded number.
#[derive(Debug)]
pub(crate) struct AdminStream {
    stream: UnixStream,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for AdminStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for AdminStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
