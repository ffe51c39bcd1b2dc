//! Talks to a running kernel: HTTP/1.1 over its unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use themis_kernel::limits::{ADMIN_BODY_BYTES_MAX, OPERATION_DEADLINE};
use tokio::net::UnixStream;

use crate::output::Failure;

/// Longer than any operation of the kernel, which answers by its own deadlines.
const ANSWER_LIMIT: Duration = OPERATION_DEADLINE.saturating_add(Duration::from_secs(10));

/// A call may take as long as its plugin does, a probation up to an hour; somebody is waiting at a terminal.
const CALL_LIMIT: Duration = Duration::from_secs(3_660);

/// A way to a kernel.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// By `--socket`, else by `THEMIS_SOCKET`.
    pub(crate) fn find(socket: Option<&Path>) -> Result<Self, Failure> {
        let named = socket.map(Path::to_owned);
        match named.or_else(|| std::env::var_os("THEMIS_SOCKET").map(PathBuf::from)) {
            Some(socket) => Ok(Self { socket }),
            None => Err(Failure::new(
                "socket.unknown",
                "which kernel? give --socket PATH or set THEMIS_SOCKET",
            )),
        }
    }

    /// Asks for JSON.
    pub(crate) fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let answer = self.ask_within(ANSWER_LIMIT, method, path, body.into_bytes())?;
        serde_json::from_slice(&answer)
            .map_err(|error| Failure::new("socket.answer", format!("not JSON: {error}")))
    }

    /// Asks for JSON that may take as long as a probation does.
    pub(crate) fn wait(&self, path: &str) -> Result<Value, Failure> {
        let answer = self.ask_within(CALL_LIMIT, Method::GET, path, Vec::new())?;
        serde_json::from_slice(&answer)
            .map_err(|error| Failure::new("socket.answer", format!("not JSON: {error}")))
    }

    /// Makes a call: bytes in, bytes out.
    pub(crate) fn call(&self, path: &str, request: Vec<u8>) -> Result<Bytes, Failure> {
        self.ask_within(CALL_LIMIT, Method::POST, path, request)
    }

    /// Asks for something that answers as it goes, one JSON object a line.
    pub(crate) fn lines(
        &self,
        path: &str,
        body: &Value,
        mut heard: impl FnMut(Value),
    ) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("socket.runtime", error))?;
        runtime.block_on(async {
            let asked = self.send(Method::POST, path, body.to_string().into_bytes());
            let mut body = Limited::new(asked.await?.into_body(), ADMIN_BODY_BYTES_MAX);
            let mut rest = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.failed(&error))?;
                rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let line = serde_json::from_slice(&line);
                    heard(line.map_err(|error| self.failed(&error))?);
                }
            }
            Ok(())
        })
    }

    fn ask_within(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("socket.runtime", error))?;
        runtime.block_on(async {
            match tokio::time::timeout(limit, self.ask(method, path, body)).await {
                Ok(answer) => answer,
                Err(_elapsed) => {
                    Err(self.failed(&format!("no answer within {} s", limit.as_secs())))
                }
            }
        })
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let body =
            Limited::new(self.send(method, path, body).await?.into_body(), ADMIN_BODY_BYTES_MAX);
        Ok(body.collect().await.map_err(|error| self.failed(&error))?.to_bytes())
    }

    /// Sends a request; what the kernel refuses is an error with its words.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            Failure::new("socket.connect", format!("{}: {error}", self.socket.display()))
        })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.failed(&error))?;
        // It ends with the answer, or with the error the answer then has.
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "themis")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.failed(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.failed(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), ADMIN_BODY_BYTES_MAX);
        Err(refusal(&body.collect().await.map_err(|error| self.failed(&error))?.to_bytes()))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::new("socket.failed", format!("{}: {error}", self.socket.display()))
    }
}

/// The error the kernel answered with.
fn refusal(body: &[u8]) -> Failure {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let told = |key: &str| value["error"][key].as_str().map(str::to_owned);
    match (told("code"), told("message")) {
        (Some(code), Some(message)) => Failure { code, message },
        _ => Failure::new("socket.answer", "the kernel refused without saying why"),
    }
}

/// One segment of a URL.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
