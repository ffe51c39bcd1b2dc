//! One request of the registry: bounded redirects, no address that is not allowed, a body with a limit.
//!
//! Redirects are followed by hand, because each hop is judged like a first request: `https`, no private network, and the
//! registry's token only for the registry itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue,
    IF_RANGE, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Client, Proxy, Response, StatusCode, redirect};
use themis_messages::limits::{
    REGISTRY_CONNECT_DEADLINE, REGISTRY_REDIRECTS_MAX, REGISTRY_SILENCE_MAX,
};
use themis_messages::registry::{FetchFailure, RegistryError};
use url::Url;

use super::reach::Reach;
use super::tls::{self, TlsTrust};

/// What the client may reach, and as whom.
#[derive(Clone)]
pub struct HttpSettings {
    /// The registry's address.
    pub home: Url,
    /// What TLS trusts.
    pub tls: TlsTrust,
    /// What the registry points to may be in a private network.
    pub allow_private: bool,
    /// Through which everything goes; it then resolves the names.
    pub proxy: Option<Url>,
    /// Sent to the registry itself, and to nobody else.
    pub token: Option<String>,
}

impl std::fmt::Debug for HttpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSettings").field("home", &self.home.as_str()).finish_non_exhaustive()
    }
}

/// The client. Cloning it shares its connections.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    reach: Arc<Reach>,
    token: Option<HeaderValue>,
}

/// Where an interrupted body goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Bytes that are there.
    pub from: u64,
    /// What the server called the content they are of.
    pub tag: String,
}

/// A body that is arriving.
#[derive(Debug)]
pub struct Body {
    response: Response,
    url: String,
    limit: u64,
    received: u64,
    /// Bytes before the first one that arrives.
    pub offset: u64,
    /// What the server calls this content, if it says so strictly.
    pub tag: Option<String>,
}

impl Http {
    /// A client.
    ///
    /// # Errors
    /// [`RegistryError::Settings`].
    pub fn new(settings: &HttpSettings) -> Result<Self, RegistryError> {
        let refused = |field, what: String| RegistryError::Settings { field, what };
        let reach = Reach::of(&settings.home, settings.allow_private)
            .map_err(|why| refused("url", format!("{} cannot be used: {why}", settings.home)))?;
        let reach = Arc::new(reach);
        let tls = tls::client(&settings.tls).map_err(|why| refused("ca", why.to_string()))?;
        let builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .connect_timeout(REGISTRY_CONNECT_DEADLINE)
            .read_timeout(REGISTRY_SILENCE_MAX)
            .user_agent(concat!("themis/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Names(Arc::clone(&reach)));
        let builder = match &settings.proxy {
            Some(proxy) => {
                let proxy = Proxy::all(proxy.as_str());
                builder.proxy(proxy.map_err(|error| refused("proxy", error.to_string()))?)
            }
            // What the environment says is not the operator's configuration.
            None => builder.no_proxy(),
        };
        let client = builder.build().map_err(|error| refused("url", error.to_string()))?;
        let token = match &settings.token {
            Some(token) => {
                let token = HeaderValue::from_str(&format!("Bearer {token}"));
                let mut token = token.map_err(|error| refused("token_file", error.to_string()))?;
                token.set_sensitive(true);
                Some(token)
            }
            None => None,
        };
        Ok(Self { client, reach, token })
    }

    /// Asks for what is at `url`, of which at most `limit` bytes are taken.
    ///
    /// # Errors
    /// [`FetchFailure`].
    pub async fn get(
        &self,
        url: &Url,
        limit: u64,
        resume: Option<&Resume>,
    ) -> Result<Body, FetchFailure> {
        let mut at = url.clone();
        for _ in 0..=REGISTRY_REDIRECTS_MAX {
            let response = self.once(&at, resume).await?;
            if !response.status().is_redirection() {
                return Body::of(response, &at, limit, resume);
            }
            at = next(&at, response.headers())?;
        }
        let url = url.to_string();
        let hops = REGISTRY_REDIRECTS_MAX + 1;
        Err(FetchFailure::Redirects { url, hops, max: REGISTRY_REDIRECTS_MAX })
    }

    async fn once(&self, url: &Url, resume: Option<&Resume>) -> Result<Response, FetchFailure> {
        self.reach
            .admit(url)
            .map_err(|why| FetchFailure::Refused { url: url.to_string(), why: why.to_string() })?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(token) = self.token.as_ref().filter(|_| self.reach.is_home(url)) {
            headers.insert(AUTHORIZATION, token.clone());
        }
        if let Some(resume) = resume
            && let Ok(tag) = HeaderValue::from_str(&resume.tag)
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", resume.from))
        {
            headers.insert(IF_RANGE, tag);
            headers.insert(RANGE, range);
        }
        let sent = self.client.get(url.clone()).headers(headers).send().await;
        sent.map_err(|error| failure(url.as_str(), 0, &error))
    }
}

/// Where a redirect leads.
fn next(from: &Url, headers: &HeaderMap) -> Result<Url, FetchFailure> {
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    location.and_then(|location| from.join(location).ok()).ok_or_else(|| FetchFailure::Refused {
        url: from.to_string(),
        why: "it leads nowhere: a redirect without an address".to_owned(),
    })
}

impl Body {
    fn of(
        response: Response,
        url: &Url,
        limit: u64,
        resume: Option<&Resume>,
    ) -> Result<Self, FetchFailure> {
        let (status, headers, url) = (response.status(), response.headers(), url.to_string());
        check_status(status, headers, &url)?;
        if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|it| *it != "identity") {
            let encoding = String::from_utf8_lossy(encoding.as_bytes()).chars().take(40).collect();
            return Err(FetchFailure::Encoded { url, encoding });
        }
        let offset = match resume.filter(|_| status == StatusCode::PARTIAL_CONTENT) {
            Some(resume) if starts_at(headers) == Some(resume.from) => resume.from,
            // It answers another question than the one that was asked.
            Some(_) => return Err(FetchFailure::Status { url, status: status.as_u16() }),
            None if status == StatusCode::PARTIAL_CONTENT => {
                return Err(FetchFailure::Status { url, status: status.as_u16() });
            }
            None => 0,
        };
        let announced = response.content_length().unwrap_or(0);
        if announced.saturating_add(offset) > limit {
            return Err(FetchFailure::TooLarge { url, limit });
        }
        let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.filter(|tag| tag.starts_with('"')).map(str::to_owned);
        Ok(Self { response, url, limit, received: offset, offset, tag })
    }

    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    /// [`FetchFailure`]: also when there is more than there may be.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchFailure> {
        let chunk = self.response.chunk().await;
        let Some(chunk) = chunk.map_err(|error| failure(&self.url, self.received, &error))? else {
            return Ok(None);
        };
        self.received = self.received.saturating_add(chunk.len() as u64);
        if self.received > self.limit {
            return Err(FetchFailure::TooLarge { url: self.url.clone(), limit: self.limit });
        }
        Ok(Some(chunk))
    }
}

fn check_status(status: StatusCode, headers: &HeaderMap, url: &str) -> Result<(), FetchFailure> {
    let (url, code) = (url.to_owned(), status.as_u16());
    Err(match code {
        200 | 206 => return Ok(()),
        404 | 410 => FetchFailure::NotFound { url, status: code },
        429 => FetchFailure::Throttled { url, retry_after: retry_after(headers) },
        500..=599 => FetchFailure::Server { url, status: code, retry_after: retry_after(headers) },
        _ => FetchFailure::Status { url, status: code },
    })
}

/// Seconds, or a date; anything else is as if nothing had been said.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let left = date.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(left).unwrap_or_default())
}

/// Where a part begins: `bytes 100-199/200`.
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

/// What went wrong, by its kind: the library's own says too little to act on.
fn failure(url: &str, bytes: u64, error: &reqwest::Error) -> FetchFailure {
    let url = url.to_owned();
    let mut words = Vec::new();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(why) = tls_error(error) {
            return FetchFailure::Tls { url, what: why.to_string() };
        }
        if let Some(refused) = error.downcast_ref::<PrivateName>() {
            return FetchFailure::Refused { url, why: refused.to_string() };
        }
        words.push(error.to_string());
        cause = error.source();
    }
    // The last cause says most, and the ones before repeat the address.
    let what = words.pop().unwrap_or_default();
    if error.is_timeout() && error.is_connect() {
        let what = format!("none within {REGISTRY_CONNECT_DEADLINE:?}");
        FetchFailure::Connect { url, what }
    } else if error.is_timeout() {
        FetchFailure::Silent { url, after: REGISTRY_SILENCE_MAX }
    } else if error.is_connect() {
        FetchFailure::Connect { url, what }
    } else {
        FetchFailure::BrokeOff { url, bytes, what }
    }
}

/// A failure of TLS, which hides in the system's errors, some of which are in each other.
fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let mut at = error;
    while let Some(inner) = at.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        at = inner;
    }
    at.downcast_ref()
}

/// Looks names up, and lets through what they may lead to.
struct Names(Arc<Reach>);

/// A name that leads nowhere it may lead.
#[derive(Debug, thiserror::Error)]
#[error("{host} leads into this machine or a private network; set `allow_private` if it should")]
struct PrivateName {
    host: String,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| reach.admits(&host, address.ip())).collect();
            if allowed.is_empty() {
                return Err(PrivateName { host }.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: reqwest::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_server_may_say_when_to_come_back() {
        let seconds = |text| retry_after(&headers(RETRY_AFTER, text)).map(|it| it.as_secs());
        assert_eq!(seconds("86400"), Some(86_400));
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(0), "long ago is now");
        assert!(seconds("Wed, 21 Oct 2099 07:28:00 GMT").is_some_and(|it| it > 1_000_000));
        for nonsense in ["-1", "soon", "", "1e9", "99999999999999999999999"] {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_part_says_where_it_begins() {
        let start = |text| starts_at(&headers(CONTENT_RANGE, text));
        assert_eq!(start("bytes 100-199/200"), Some(100));
        for nonsense in ["bytes */200", "items 1-2/3", "bytes x-y/z", ""] {
            assert_eq!(start(nonsense), None, "{nonsense}");
        }
    }
}
