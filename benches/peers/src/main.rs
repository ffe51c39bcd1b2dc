//! What others do for the same purpose. A unary gRPC call over a unix socket between two processes: `themis-peers grpc CALLS`
//! prints the nanoseconds of each. A call under Extism: see `extism.rs`.
//!
//! The program starts itself once more as the server. Messages are bytes without a schema, which is the least a gRPC call
//! can be; one caller waits for each answer on a runtime of one thread, which serves it best.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status};
use tower::service_fn;

mod extism;

const METHOD: &str = "/themis.Peer/Echo";
const REQUEST: [u8; 64] = [7; 64];
const WARM_UP: usize = 1_000;

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Answers what it was asked.
#[derive(Debug, Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "themis.Peer";
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(tonic::server::Grpc::new(Plain).unary(Echo, request).await) })
    }
}

async fn serve(socket: PathBuf) -> Result<()> {
    let incoming = UnixListenerStream::new(UnixListener::bind(socket)?);
    println!("ready");
    Server::builder().add_service(Echo).serve_with_incoming(incoming).await?;
    Ok(())
}

async fn measure(socket: PathBuf, calls: usize) -> Result<Vec<u128>> {
    let connect = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::try_from("http://peer")?.connect_with_connector(connect).await?;
    let mut client = tonic::client::Grpc::new(channel);
    let mut times = Vec::with_capacity(calls);
    for call in 0..WARM_UP + calls {
        let began = Instant::now();
        client.ready().await?;
        let request = Request::new(Bytes::from_static(&REQUEST));
        let answer = client.unary(request, PathAndQuery::from_static(METHOD), Plain).await?;
        if call >= WARM_UP {
            times.push(began.elapsed().as_nanos());
        }
        if answer.into_inner() != REQUEST.as_slice() {
            bail!("the answer is another one");
        }
    }
    Ok(times)
}

/// The other process; it ends with this value.
struct Peer(Child);

impl Peer {
    fn start(socket: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let child = command.arg("serve").arg(socket).stdout(Stdio::piped()).spawn()?;
        let mut peer = Self(child);
        let out = peer.0.stdout.take().context("its output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("the server did not start: {line}");
        }
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", socket] => runtime.block_on(serve(socket.into())),
        ["grpc", calls] => {
            let dir = tempfile::tempdir()?;
            let socket = dir.path().join("peer.sock");
            let _peer = Peer::start(&socket)?;
            let times = runtime.block_on(measure(socket, calls.parse()?))?;
            let mut out = std::io::stdout().lock();
            for nanos in times {
                writeln!(out, "{nanos}")?;
            }
            Ok(())
        }
        ["extism", bytes, batches, batch] => {
            extism::measure(bytes.parse()?, batches.parse()?, batch.parse()?)
        }
        _ => bail!("want: grpc CALLS, or extism BYTES BATCHES BATCH"),
    }
}
