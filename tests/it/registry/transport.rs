//! What a server may do on the way: TLS, redirects, bodies, patience.

use super::*;

async fn get(web: &Web, path: &str) -> Result<Vec<u8>, RegistryError> {
    get_with(&settings(web), web, path).await
}

async fn get_with(
    settings: &HttpSettings,
    web: &Web,
    path: &str,
) -> Result<Vec<u8>, RegistryError> {
    let http = Http::new(settings).unwrap();
    let url = format!("{}{path}", web.url).parse().unwrap();
    let operation = Operation::start(LIMIT, None);
    let attempt = || async {
        let mut body = http.get(&url, 1 << 20, None).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    operation.retry(attempt).await
}

#[tokio::test]
async fn a_server_has_to_be_who_it_says() {
    for (certificate, code) in [
        (Certificate::Good, None),
        (Certificate::Expired, Some("registry.tls")),
        (Certificate::OtherHost, Some("registry.tls")),
        (Certificate::SelfSigned, Some("registry.tls")),
    ] {
        let web = Web::with(certificate, true, |_| Answer::ok("hello"));
        let got = get(&web, "x").await;
        assert_eq!(got.as_ref().err().map(RegistryError::code), code, "{certificate:?}: {got:?}");
    }
}
