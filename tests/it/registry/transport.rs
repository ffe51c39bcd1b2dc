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
    let http = Http::new(settings)?;
    let url = format!("{}{path}", web.url).parse().unwrap();
    let operation = Operation::start(SHORT, None);
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

async fn code(web: &Web) -> &'static str {
    get(web, "x").await.unwrap_err().code()
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
    let web = Web::with(Certificate::Good, false, |_| Answer::ok("hello"));
    assert_eq!(code(&web).await, "registry.settings", "without TLS nothing is asked");
    let web = Web::start(|_| Answer::ok("hello"));
    let stranger = Web::start(|_| Answer::ok("hello"));
    let mut settings = settings(&web);
    settings.tls.authorities.clone_from(&stranger.authority);
    assert_eq!(get_with(&settings, &web, "x").await.unwrap_err().code(), "registry.tls");
}

#[tokio::test]
async fn a_pinned_key_is_needed_besides() {
    let web = Web::start(|_| Answer::ok("hello"));
    let mut settings = settings(&web);
    settings.tls.pins = vec![[0; 32], web.pin];
    assert_eq!(get_with(&settings, &web, "x").await.unwrap(), b"hello");
    settings.tls.pins = vec![[0; 32]];
    assert_eq!(get_with(&settings, &web, "x").await.unwrap_err().code(), "registry.tls");
    let expired = Web::with(Certificate::Expired, true, |_| Answer::ok("hello"));
    let mut settings = self::settings(&expired);
    settings.tls.pins = vec![expired.pin];
    let refused = get_with(&settings, &expired, "x").await.unwrap_err();
    assert_eq!(refused.code(), "registry.tls", "a pin makes nothing good that is not");
}

#[tokio::test]
async fn redirects_lead_nowhere_they_must_not() {
    for (to, expected) in [
        ("http://localhost/x", "registry.address"),
        ("https://127.0.0.1:1/x", "registry.address"),
        ("https://169.254.169.254/latest/meta-data/", "registry.address"),
        ("https://[::1]:1/", "registry.address"),
        ("file:///etc/passwd", "registry.address"),
        ("https://user:secret@localhost/", "registry.address"),
        // A name that leads into this machine.
        ("https://ip6-localhost:1/", "registry.address"),
        ("/x", "registry.redirects"),
    ] {
        let web = Web::start(move |_| Answer::redirect(to));
        let error = get(&web, "x").await.unwrap_err();
        // What the resolver does not know is no answer either.
        let unknown = to.contains("ip6") && error.code() == "registry.out_of_time";
        assert!(error.code() == expected || unknown, "{to}: {error}");
        assert!(web.seen().len() <= 6, "{to}");
    }
    let web = Web::start(|seen| {
        if seen.path == "//x" { Answer::redirect("/here") } else { Answer::ok("found") }
    });
    assert_eq!(get(&web, "/x").await.unwrap(), b"found");
}

#[tokio::test]
async fn the_token_is_for_the_registry_alone() {
    let elsewhere = Web::start(|_| Answer::ok("elsewhere"));
    let to = format!("{}x", elsewhere.url);
    let home = Web::start(move |_| Answer::redirect(&to));
    let mut settings = settings(&home);
    settings.tls.authorities.extend_from_slice(&elsewhere.authority);
    settings.token = Some("secret".to_owned());
    // Both are on this machine under one name; only the port tells them apart.
    assert_eq!(get_with(&settings, &home, "x").await.unwrap(), b"elsewhere");
    let authorized = |web: &Web| {
        web.seen()
            .iter()
            .filter_map(|seen| seen.header("authorization").map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(authorized(&home), ["Bearer secret"]);
    assert!(authorized(&elsewhere).is_empty());
}

#[tokio::test]
async fn bodies_end_where_they_must() {
    type Made = fn() -> Answer;
    let cases: [(&str, Made, &str); 8] = [
        ("endless", || Answer::status(200).then(Piece::Endless), "registry.too_large"),
        (
            "announced too large",
            || Answer::status(200).header("Content-Length", "99999999").then(Piece::Hang),
            "registry.too_large",
        ),
        (
            "shorter than announced",
            || {
                let short = Answer::status(200).header("Content-Length", "1000");
                short.then(Piece::Bytes(vec![1; 10]))
            },
            "registry.out_of_time",
        ),
        (
            "slow",
            || {
                let drip = Piece::Drip(vec![1; 1000], Duration::from_millis(300));
                Answer::status(200).header("Content-Length", "1000").then(drip)
            },
            "registry.out_of_time",
        ),
        (
            "silent",
            || Answer::status(200).header("Content-Length", "10").then(Piece::Hang),
            "registry.out_of_time",
        ),
        (
            "compressed",
            || Answer::ok(vec![0x1f, 0x8b]).header("Content-Encoding", "gzip"),
            "registry.encoded",
        ),
        (
            "a part that nobody asked for",
            || {
                let part = Answer::status(206).header("Content-Range", "bytes 5-9/10");
                part.header("Content-Length", "5").then(Piece::Bytes(vec![1; 5]))
            },
            "registry.status",
        ),
        ("no status that is known", || Answer::status(418), "registry.status"),
    ];
    for (what, answer, expected) in cases {
        let web = Web::start(move |_| answer());
        assert_eq!(code(&web).await, expected, "{what}");
    }
}

#[tokio::test]
async fn not_there_and_not_now_are_told_apart() {
    for (status, expected) in [
        (404, "registry.not_found"),
        (410, "registry.not_found"),
        (401, "registry.status"),
        (429, "registry.out_of_time"),
        (503, "registry.out_of_time"),
    ] {
        let web = Web::start(move |_| Answer::status(status));
        let error = get(&web, "x").await.unwrap_err();
        assert_eq!(error.code(), expected, "{status}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
    for patience in ["86400", "-5", "soon", "Wed, 21 Oct 2099 07:28:00 GMT"] {
        let web = Web::start(move |_| Answer::status(429).header("Retry-After", patience));
        assert_eq!(code(&web).await, "registry.out_of_time");
        let given_up = patience == "86400" || patience.contains("2099");
        assert!(!given_up || web.seen().len() == 1, "{patience}: given up at once");
    }
}

#[tokio::test]
async fn nobody_else_sees_what_is_asked_through_a_proxy_that_is_not_there() {
    let web = Web::start(|_| Answer::ok("hello"));
    let mut settings = settings(&web);
    settings.proxy = Some("http://127.0.0.1:1/".parse().unwrap());
    let error = get_with(&settings, &web, "x").await.unwrap_err();
    assert_eq!(error.code(), "registry.out_of_time");
    assert!(web.seen().is_empty(), "it was not gone around");
}
